"""Reading the structure of responses, however odd."""

from __future__ import annotations

import warnings

from psgpo.problems.opchain.tracing import structure_of


def test_a_response_that_compiles_with_a_warning_is_read_without_one() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        structure = structure_of(["def solve(x):", "    x = ['\\d', x]", "    return x"], 1)
    assert structure.ends == (2, 3)
