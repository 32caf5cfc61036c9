"""A trusted script questions the program: exceptions, broken scripts, dead programs, limits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asserts_world import WRONG, P, grade, script

from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.records import Status


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(timeout=2.0, memory_mb=256) as running:
        yield running


def expecting(exception: str, call: str, more: str = "") -> str:
    """A check that holds when `call` raises `exception`, caught as `error`."""
    return f"try:\n    {call}\nexcept {exception} as error:\n    assert True{more}\nelse:\n    assert False"


def test_every_check_is_judged_by_itself(sandbox: Sandbox) -> None:
    program = "def f(x):\n    if x == 2: raise KeyError('two')\n    return x if x != 3 else [object]"
    checks = ("assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3", "assert f(4) == 5", "assert f(5) == 5")
    outcomes, verdict = grade(sandbox, program, *checks)
    assert outcomes == [P, Status.RUNTIME_ERROR, WRONG, WRONG, P]
    assert (verdict.status, verdict.first_failing, verdict.fraction) == (Status.RUNTIME_ERROR, 1, 0.4)
    assert verdict.detail == "KeyError: 'two'"
    assert verdict.confinement == sandbox.confinement


@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        ("ValueError('no')", "ValueError"),
        ("ValueError('no')", "Exception"),
        ("ZeroDivisionError", "ArithmeticError"),
        ("{}['k']", "KeyError"),
        ("[][1]", "IndexError"),
        ("Own('no')", "LookupError"),  # class Own(LookupError) is the program's
        ("b'\\xff'.decode()", "UnicodeDecodeError"),
        ("b'\\xff'.decode()", "ValueError"),
        ("[0] * (1 << 40)", "MemoryError"),
        ("f(x)", "RecursionError"),
    ],
)
def test_a_check_may_want_an_exception(sandbox: Sandbox, raised: str, caught: str) -> None:
    program = f"class Own(LookupError): pass\ndef f(x):\n    if x == 1: return 5\n    raise {raised}"
    assert grade(sandbox, program, expecting(caught, "f(0)"))[0] == [P]
    assert grade(sandbox, program, expecting(caught, "f(1)"))[0] == [WRONG]  # nothing is raised


def test_another_exception_than_the_wanted_one_fails_by_its_own_name(sandbox: Sandbox) -> None:
    outcomes, verdict = grade(sandbox, "def f(x): raise TypeError('no')", expecting("ValueError", "f(0)"))
    assert (outcomes, verdict.detail) == ([Status.RUNTIME_ERROR], "TypeError: no")


def test_a_check_sees_the_exceptions_text(sandbox: Sandbox) -> None:
    program = "def f(x): raise ValueError('x: must\\nbe even')"
    checks = [expecting("ValueError", "f(1)", f" and str(error) == {text!r}") for text in ("x: must be even", "odd")]
    assert grade(sandbox, program, *checks)[0] == [P, WRONG]


@pytest.mark.parametrize(
    "name", ["StopIteration", "StopAsyncIteration", "GeneratorExit", "ExceptionGroup('', [OSError()])"]
)
def test_no_exception_of_the_program_ends_the_scripts_own_loops(sandbox: Sandbox, name: str) -> None:
    program = f"def f(x):\n    if x == 0: return 0\n    raise {name}"
    checks = (
        "assert f(0) == 0",
        "assert all(map(lambda x: f(x) == 0, [1, 2]))",
        "for a, b in zip(map(f, [1]), [1]): assert a == b",
    )
    assert grade(sandbox, program, *checks)[0].count(P) == 1


def test_an_assertion_of_the_program_is_the_programs_failure(sandbox: Sandbox) -> None:
    outcomes, verdict = grade(sandbox, "def f(x):\n    assert x == 1, 'mine'\n    return x", "assert f(2) == 2")
    assert (outcomes, verdict.detail) == ([Status.RUNTIME_ERROR], "AssertionError: mine")


def test_checks_share_names_and_the_program_keeps_its_state(sandbox: Sandbox) -> None:
    program = "seen = []\ndef f(x):\n    seen.append(x)\n    return list(seen)"
    checks = ("a = f(1)", "b = f(2)\nassert b == a + [2]", "assert helper(3) == [1, 2, 3]")
    assert grade(sandbox, program, *checks, setup="def helper(x):\n    return f(x)")[0] == [P] * 3


@pytest.mark.parametrize(
    ("setup", "detail"),
    [
        ("import no_such_module", "the test itself fails: ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "ZeroDivisionError in the test: division by zero"),
        ("assert f(1) == 2", ""),
    ],
)
def test_a_broken_setup_fails_every_check(sandbox: Sandbox, setup: str, detail: str) -> None:
    outcomes, verdict = grade(sandbox, "def f(x): return x", "assert f(1) == 1", "assert True", setup=setup)
    assert (outcomes, verdict.detail) == ([WRONG, WRONG], detail)


def test_statements_that_are_no_python_are_the_users_mistake(sandbox: Sandbox) -> None:
    for tests, place in ((script("assert f(1) =="), "check 0"), (script("f(1)", setup="def"), "setup")):
        with pytest.raises(UserError, match=f"tests of 'f', {place}: not valid Python"):
            sandbox.grade([("def f(x): return x", tests)])


@pytest.mark.parametrize("checks", [("assert True",), ("x = 1", "if False:\n    f(1)"), ("def g():\n    f(1)",)])
def test_checks_that_never_ask_the_program_cannot_pass(sandbox: Sandbox, checks: tuple[str, ...]) -> None:
    outcomes, verdict = grade(sandbox, "def f(x): return x", *checks)
    assert set(outcomes) == {Status.NO_REPORT}
    assert verdict.detail == "no check asked the program anything"


def test_a_program_without_the_wanted_names_does_not_load(sandbox: Sandbox) -> None:
    for check in ("assert f(1) == 1", "if True:\n    assert f(1) == 1"):
        outcomes, verdict = grade(sandbox, "def g(x): return x", check)
        assert (outcomes, verdict.first_failing) == ([Status.RUNTIME_ERROR], None)
        assert "defines no" in verdict.detail
    outcomes, verdict = grade(sandbox, "def f(x): return x", "assert f(1) == 1", objects=("Tree",))
    assert (outcomes, verdict.detail) == ([Status.RUNTIME_ERROR], "NameError: the program defines no 'Tree'")


SWALLOW = "try:\n    f({})\nexcept:\n    pass"
DEATHS = [
    ("import os; os._exit(0)", Status.NO_REPORT),
    ("raise SystemExit", Status.NO_REPORT),
    ("os = __import__('os'); os.abort()", Status.CRASHED),
    ("while True: pass", Status.TIMEOUT),
    ("__import__('time').sleep(60)", Status.TIMEOUT),
    ("__import__('os').close(3)", Status.NO_REPORT),
    ("__import__('os').write(3, b'\\x02\\0\\0\\0{}')", Status.BAD_VALUE),
    ("__import__('os').write(3, b'\\xff\\xff\\xff\\x7f')", Status.OUTPUT_LIMIT),
]


@pytest.mark.parametrize(("death", "status"), DEATHS)
def test_a_script_that_swallows_everything_passes_no_dead_program(death: str, status: Status) -> None:
    """Neither where calls are known beforehand nor in a dialogue, and what was earned before stays."""
    program = f"def f(x):\n    if x == 1:\n        {death}\n    return x"
    with Sandbox(timeout=0.5) as sandbox:
        checks = ("assert f(0) == 0", "assert f(1) == 1", "assert f(2) == 2", "assert True")
        assert grade(sandbox, program, *checks[:3])[0] == [P, status, status]
        assert grade(sandbox, program, checks[0], SWALLOW.format(1), SWALLOW.format(2), checks[3])[0] == [
            P, status, status, status,
        ]  # fmt: skip


@pytest.mark.parametrize(("death", "status"), DEATHS[:2] + DEATHS[3:4])
def test_a_program_that_dies_while_loading_fails_every_check(death: str, status: Status) -> None:
    with Sandbox(timeout=0.5) as sandbox:
        outcomes, _ = grade(sandbox, f"{death}\ndef f(x): return x", SWALLOW.format(1), SWALLOW.format(2))
    assert outcomes == [status] * 2


def test_memory_and_output_are_bounded_per_answer_and_the_program_lives_on(sandbox: Sandbox) -> None:
    checks = ("assert f(0) == 'x' * 10", "assert f(1)", "f(2)", "assert f(0) == 'x' * 10")
    program = "def f(x):\n    if x == 2: return [0] * (1 << 40)\n    return 'x' * (10 if x == 0 else 3 << 20)"
    expected = [P, Status.OUTPUT_LIMIT, Status.MEMORY, P]
    assert grade(sandbox, program, *checks)[0] == expected
    assert grade(sandbox, program, *(f"if True:\n    {check}" for check in checks))[0] == expected


SLOW = "import time\ndef f(x):\n    time.sleep(x)\n    return x"


@pytest.mark.parametrize("frame", ["{}", "if True:\n    {}"], ids=["known", "dialogue"])
def test_one_test_and_all_tests_have_limits_of_their_own(frame: str) -> None:
    checks = [frame.format(f"assert f({seconds}) == {seconds}") for seconds in (0.05, 0.05, 5, 0)]
    with Sandbox(timeout=20, test_timeout=0.5) as sandbox:
        outcomes, verdict = grade(sandbox, SLOW, *checks)
        assert outcomes == [P, P, Status.TIMEOUT, Status.TIMEOUT]
        assert verdict.wall_seconds < 10
    with Sandbox(timeout=0.5, test_timeout=0.4) as sandbox:  # no test is too slow, all together are
        outcomes, verdict = grade(sandbox, SLOW, *[frame.format("assert f(0.2) == 0.2")] * 6)
        assert outcomes[0] is P
        assert outcomes[-1] is verdict.status is Status.TIMEOUT


def test_a_script_that_hangs_on_an_answer_is_ended_and_counts_as_timeout() -> None:
    with Sandbox(timeout=0.3) as sandbox:
        outcomes, _ = grade(sandbox, "def f(x): return 1", "if True:\n    while f(1) == 1: pass")
        assert outcomes == [Status.TIMEOUT]
        outcomes, _ = grade(sandbox, "def f(x): return 1", "x = f(1)\nwhile x: pass")
        assert outcomes == [Status.TIMEOUT]
        assert grade(sandbox, "def f(x): return 1", "assert f(1) == 1")[0] == [P]


def test_arguments_of_several_megabytes_reach_the_program(sandbox: Sandbox) -> None:
    setup = "numbers = list(range(300_000))\ntext = 'x' * 5_000_000"
    checks = ("assert f(numbers) == 300_000", "assert f(text) == 5_000_000", "assert f(numbers + [1]) == 300_000")
    assert grade(sandbox, "f = len", *checks, setup=setup)[0] == [P, P, WRONG]


def test_random_state_is_the_same_for_every_program_and_script(sandbox: Sandbox) -> None:
    program = "import random\ndef f(*x): return random.random()"
    with Sandbox() as fresh:  # its tester has not loaded `random` yet
        values = [box.evaluate(program, "f", [(n,), (n,)]) for n, box in enumerate((sandbox, sandbox, fresh))]
        assert values[0] == values[1] == values[2]
        assert values[0][0] != values[0][1]
        for n in range(3):
            check = "f()\nassert random.random() == 0.8444218515250481"  # the first number of seed 0
            assert grade(fresh, f"{program} # {n}", check, "f()", setup="import random")[0] == [P, P]
