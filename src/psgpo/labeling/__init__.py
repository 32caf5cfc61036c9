"""Line labels: which prefixes of a response can still be completed to a program that passes.

`collect` samples responses, `search` is the pure search, `scheduler` runs thousands of searches on shared batches,
`journal` makes them resumable, `twins` makes more labelled programs of splices, `costs` counts, `quality` compares with
exact labels, `identity` says whose tokens a label file holds, `select` chooses what a PRM is trained on.
"""

from psgpo.labeling.collect import cut_at_function_end, grade_programs, sample_responses
from psgpo.labeling.costs import LabelUsage, cost_summary, merge_usage
from psgpo.labeling.identity import refuse_other_tokenizer, tokenizer_fingerprint
from psgpo.labeling.quality import LabelQuality, measure_labels
from psgpo.labeling.request import shard_responses
from psgpo.labeling.scheduler import Labelling, label_responses, write_labels
from psgpo.labeling.search import binary_search, line_labels, linear_scan
from psgpo.labeling.select import SELECTIONS, count_labels, select_labels
from psgpo.labeling.strategies import STRATEGIES
from psgpo.labeling.twins import make_twins, response_behind

__all__ = [
    "SELECTIONS",
    "STRATEGIES",
    "LabelQuality",
    "LabelUsage",
    "Labelling",
    "binary_search",
    "cost_summary",
    "count_labels",
    "cut_at_function_end",
    "grade_programs",
    "label_responses",
    "line_labels",
    "linear_scan",
    "make_twins",
    "measure_labels",
    "merge_usage",
    "refuse_other_tokenizer",
    "response_behind",
    "sample_responses",
    "select_labels",
    "shard_responses",
    "tokenizer_fingerprint",
    "write_labels",
]
