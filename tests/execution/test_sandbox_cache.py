"""The verdict cache: hits, what is kept, several processes, broken files."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from execution_world import HONEST, run_script, squares, suite

from psgpo.errors import UserError
from psgpo.execution import Sandbox
from psgpo.records import Status

WRONG = "def f(x): return 1"
SLOW = "while True: pass"
GREEDY = "def f(x): return [0] * (1 << 40)"


def test_verdicts_are_remembered_except_those_of_the_machines_mood(tmp_path: Path) -> None:
    items = [(program, squares()) for program in (HONEST, WRONG, SLOW, GREEDY)]
    with Sandbox(timeout=0.3, cache=tmp_path / "c.sqlite") as sandbox:
        first = sandbox.grade(items)
    with Sandbox(timeout=0.3, cache=tmp_path / "c.sqlite") as sandbox:
        second = sandbox.grade(items)
    assert [verdict.cached for verdict in first] == [False] * 4
    assert [verdict.cached for verdict in second] == [True, True, False, False]
    assert [v.status for v in first] == [v.status for v in second]
    assert first[1].first_failing == second[1].first_failing == 0


def test_other_tests_limits_or_comparators_are_other_verdicts(tmp_path: Path) -> None:
    program = "def f(x): return 1.0"
    with Sandbox(cache=tmp_path / "c.sqlite") as sandbox:
        assert sandbox.grade([(program, suite([((1,), 1)]))])[0].status is Status.WRONG_ANSWER
        assert sandbox.grade([(program, suite([((1,), 1)], comparator="close"))])[0].passed
        assert not sandbox.grade([(program, suite([((2,), 1)], comparator="close"))])[0].cached
        assert not sandbox.grade([(program, suite([((1,), (1,))]))])[0].cached
        assert not sandbox.grade([(program, suite([((1,), [1])]))])[0].cached
    with Sandbox(cache=tmp_path / "c.sqlite", memory_mb=300) as sandbox:
        assert not sandbox.grade([(program, suite([((1,), 1)]))])[0].cached


def test_copies_within_one_call_run_once() -> None:
    with Sandbox() as sandbox:
        verdicts = sandbox.grade([(HONEST, squares()), (WRONG, squares()), (HONEST, squares())])
    assert [verdict.cached for verdict in verdicts] == [False, False, True]
    assert [verdict.passed for verdict in verdicts] == [True, False, True]


SHARE = """
tests = CallTests(function="f", calls=(Call(args=(1,), expected=1),))
programs = ["def f(x): return %d # %d" % (n % 2, n) for n in range(60)]
with Sandbox(cache=__import__("pathlib").Path(given)) as sandbox:
    verdicts = sandbox.grade([(p, tests) for p in programs])
    again = sandbox.grade([(p, tests) for p in programs])
json.dump([[v.passed for v in verdicts], all(v.cached for v in again)], sys.stdout)
"""


def test_processes_share_one_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as threads:
        runs = list(threads.map(lambda _: run_script(SHARE, given=str(tmp_path / "c.sqlite")), range(3)))
    assert runs == [[[n % 2 == 1 for n in range(60)], True]] * 3


@pytest.mark.parametrize("damage", ["UPDATE verdicts SET verdict = 'no JSON'", "DROP TABLE verdicts"])
def test_a_cache_that_breaks_in_use_is_given_up_and_costs_no_verdict(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [(program, squares()) for program in (HONEST, WRONG)]
    with Sandbox(cache=tmp_path / "c.sqlite") as sandbox:
        sandbox.grade(items)
    with Sandbox(cache=tmp_path / "c.sqlite") as sandbox:
        with closing(sqlite3.connect(tmp_path / "c.sqlite", isolation_level=None)) as database:
            database.execute(damage)
        assert [(v.passed, v.cached) for v in sandbox.grade(items)] == [(True, False), (False, False)]
        assert [v.passed for v in sandbox.grade(items)] == [True, False]
    assert caplog.text.count("c.sqlite: the verdict cache fails") == 1


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are my notes, not a database\n" * 50)
    with pytest.raises(UserError, match=r"notes\.txt: cannot be used as verdict cache"):
        Sandbox(cache=tmp_path / "notes.txt")
