"""Public benchmarks as `Problem` records: HumanEval(+), MBPP (full, sanitized, +), LiveCodeBench. No torch.

The data comes from local files in each benchmark's own format, or from the Hugging Face Hub. See docs/benchmarks.md.
"""

from psgpo.problems.benchmarks.references import Evaluate
from psgpo.problems.benchmarks.registry import BENCHMARKS, Benchmark, load_benchmark

__all__ = ["BENCHMARKS", "Benchmark", "Evaluate", "load_benchmark"]
