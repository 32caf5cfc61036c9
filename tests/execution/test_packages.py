"""Programs that import more than the standard library, when the sandbox was told to offer it."""

from __future__ import annotations

import pytest

from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.records import Call, CallTests, Status

NORM = "import numpy as np\ndef f(x): return float(np.linalg.norm(np.array(x)))"
TESTS = CallTests(function="f", calls=(Call(args=([3.0, 4.0],), expected=5.0),))


@pytest.mark.parametrize("without", [(), ("namespaces",), ("landlock",)], ids=["full", "landlock", "namespaces"])
def test_numpy_is_there_when_it_is_offered_and_nothing_else_is(without: tuple[str, ...]) -> None:
    with Sandbox(packages=["numpy"], memory_mb=1024, without=without) as sandbox:
        fine, other = sandbox.grade([(NORM, TESTS), ("import pydantic\n" + NORM, TESTS)])
    assert fine.status is Status.PASSED
    assert (other.status, other.tests_passed) == (Status.RUNTIME_ERROR, 0)
    assert "pydantic" in other.detail


def test_without_an_offer_there_are_no_packages() -> None:
    with Sandbox() as sandbox:
        verdict = sandbox.grade([(NORM, TESTS)])[0]
    assert verdict.status is Status.RUNTIME_ERROR
    assert "numpy" in verdict.detail


def test_numbers_of_numpy_are_numbers() -> None:
    calls = tuple(Call(args=(name,), expected=value) for name, value in (("sum", 6), ("all", True), ("mean", 2.0)))
    program = "import numpy as np\ndef f(name): return getattr(np, name)(np.array([1, 2, 3]))"
    with Sandbox(packages=["numpy"], memory_mb=2048) as sandbox:
        verdict = sandbox.grade([(program, CallTests(function="f", calls=calls))])[0]
    assert verdict.status is Status.PASSED, verdict.detail


@pytest.mark.parametrize("name", ["no_such_package", "../numpy", ""])
def test_a_package_that_is_not_installed_is_named(name: str) -> None:
    with pytest.raises(UserError, match="is not installed here"):
        Sandbox(packages=[name])


def test_its_random_numbers_are_the_same_in_every_sandbox() -> None:
    drawn = []
    for _ in range(2):
        with Sandbox(packages=["numpy"], memory_mb=1024) as sandbox:
            drawn.append(sandbox.evaluate("import numpy\ndef f(): return float(numpy.random.rand())", "f", [()]))
    assert drawn[0] == drawn[1]
    assert drawn[0][0].error is None
