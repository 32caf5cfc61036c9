"""Line labels: which prefixes of a response can still be completed to a program that passes.

`collect` samples responses, `search` is the pure search, `scheduler` runs thousands of searches on shared batches,
`journal` makes them resumable, `costs` counts, `quality` compares with exact labels.
"""

from psgpo.labeling.collect import grade_programs, sample_responses
from psgpo.labeling.costs import LabelUsage, cost_summary, merge_usage
from psgpo.labeling.quality import LabelQuality, measure_labels
from psgpo.labeling.request import shard_responses
from psgpo.labeling.scheduler import Labelling, label_responses, write_labels
from psgpo.labeling.search import binary_search, line_labels, linear_scan
from psgpo.labeling.strategies import STRATEGIES

__all__ = [
    "STRATEGIES",
    "LabelQuality",
    "LabelUsage",
    "Labelling",
    "binary_search",
    "cost_summary",
    "grade_programs",
    "label_responses",
    "line_labels",
    "linear_scan",
    "measure_labels",
    "merge_usage",
    "sample_responses",
    "shard_responses",
    "write_labels",
]
