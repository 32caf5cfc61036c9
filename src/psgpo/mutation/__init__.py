"""PRLCoder's data: verified mutants and rewrites of reference solutions, labelled line by line. No torch.

`catalogue` proposes, `verify` runs and judges, `run` writes, `examples.load_line_examples` reads. See docs/mutation.md.
"""

from psgpo.mutation.examples import LineExample, load_line_examples

__all__ = ["LineExample", "load_line_examples"]
