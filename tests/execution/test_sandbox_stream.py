"""Grading as a stream: lazily pulled items, futures, asyncio, threads, cancellation, one failure for one program."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path

import pytest
from execution_world import HONEST, squares, suite

from psgpo.errors import UserError
from psgpo.execution import Sandbox, SandboxError
from psgpo.execution.sandbox import IN_FLIGHT
from psgpo.execution.slot import Slot
from psgpo.records import CallTests, Status, Verdict

Item = tuple[str, CallTests]
SLEEPS = "import time\ntime.sleep({})\ndef f(x): return 1  # {}"


def returns(n: int) -> Item:
    """A program that passes for odd `n`."""
    return f"def f(x): return {n}", suite([((0,), n if n % 2 else -1)])


def napping(seconds: float, mark: object = "") -> Item:
    return SLEEPS.format(seconds, mark), suite([((0,), 1)])


def test_verdicts_come_as_they_are_made_with_the_index_of_their_item() -> None:
    items = [napping(0.6), *map(returns, range(1, 10))]
    with Sandbox(workers=2) as sandbox:
        came = list(sandbox.grade_iter(items))
    assert came[-1][0] == 0  # the slow one is first to start and last to come
    assert sorted(index for index, _ in came) == list(range(10))
    assert all(verdict.passed == (index == 0 or index % 2 == 1) for index, verdict in came)


def test_an_endless_source_is_pulled_no_further_than_needed() -> None:
    pulled = 0

    def source() -> Iterator[Item]:
        nonlocal pulled
        for pulled in itertools.count(1):
            yield returns(pulled)

    with Sandbox(workers=2) as sandbox:
        stream = sandbox.grade_iter(source())
        assert pulled == 0
        for taken, (index, verdict) in zip(range(100), stream, strict=False):
            assert verdict.passed == (index % 2 == 0)
            assert pulled <= taken + 1 + 2 * IN_FLIGHT
        stream.close()  # type: ignore[attr-defined]
        after = pulled
        assert sandbox.grade([returns(1)])[0].passed
        assert pulled == after


def test_nothing_gives_nothing() -> None:
    with Sandbox() as sandbox:
        assert list(sandbox.grade_iter([])) == []
        assert sandbox.grade(iter(())) == []


def test_closing_the_stream_drops_what_waits(started: list[bytes]) -> None:
    with Sandbox() as sandbox:
        stream = sandbox.grade_iter(napping(0.2, n) for n in range(10))
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert sandbox.grade([(HONEST, squares())])[0].passed
        assert 2 <= len(started) <= 4  # the first, the one that ran when the stream was closed, the honest one


def test_leaving_a_loop_early_and_a_failing_source_drop_what_waits_too(started: list[bytes]) -> None:
    def source() -> Iterator[Item]:
        yield from (napping(0.05, n) for n in range(3))
        raise RuntimeError("the source is broken")

    with Sandbox() as sandbox:
        with pytest.raises(RuntimeError, match="the source is broken"):
            list(sandbox.grade_iter(source()))
        assert sandbox.grade([(HONEST, squares())])[0].passed
        assert len(started) <= 3


def test_a_users_mistake_in_a_stream_is_raised_and_the_sandbox_goes_on() -> None:
    empty = CallTests(function="f", calls=())
    with Sandbox() as sandbox:
        with pytest.raises(UserError, match="at least one"):
            list(sandbox.grade_iter([returns(1), (HONEST, empty), returns(3)]))
        with pytest.raises(UserError, match="at least one"):
            sandbox.submit(HONEST, empty)
        assert [verdict.passed for _, verdict in sandbox.grade_iter([returns(1)])] == [True]


def test_submit_goes_on_at_once_and_waiting_programs_can_be_cancelled(started: list[bytes]) -> None:
    with Sandbox() as sandbox:
        first = sandbox.submit(*napping(0.3))
        rest = [sandbox.submit(*returns(n)) for n in range(6)]
        assert not first.done()
        assert rest[2].cancel()
        assert rest[4].cancel()
        kept = [future for n, future in enumerate(rest) if n not in (2, 4)]
        assert [future.result(20).passed for future in kept] == [False, True, True, True]
        assert first.result(20).passed
        for n in (2, 4):
            with pytest.raises(CancelledError):
                rest[n].result(20)
        done, left = wait(rest, timeout=20)
        assert (len(done), left) == (6, set())
        assert not first.cancel()
    assert len(started) == 5


def test_futures_call_back_and_work_with_as_completed() -> None:
    seen: list[Future[Verdict]] = []
    with Sandbox(workers=2) as sandbox:
        futures = [sandbox.submit(*returns(n)) for n in range(20)]
        for future in futures:
            future.add_done_callback(seen.append)
        assert sum(future.result().passed for future in as_completed(futures, timeout=30)) == 10
    assert set(seen) == set(futures)


def test_equal_programs_in_flight_run_once(started: list[bytes]) -> None:
    with Sandbox(workers=2) as sandbox:
        futures = [sandbox.submit(*napping(0.2)) for _ in range(10)]
        assert futures[0].cancel()  # the others still wait for it
        verdicts = [future.result(20) for future in futures[1:]]
        assert all(verdict.passed for verdict in verdicts)
        assert [verdict.cached for verdict in verdicts].count(False) <= 1
        assert len(started) == 1
        assert sandbox.submit(*napping(0.2)).result(20).passed  # without a cache it runs again
        assert len(started) == 2


def test_all_copies_cancelled_means_that_it_never_runs(started: list[bytes]) -> None:
    with Sandbox() as sandbox:
        slow = sandbox.submit(*napping(0.2))
        copies = [sandbox.submit(*returns(1)) for _ in range(3)]
        assert all(copy.cancel() for copy in copies)
        assert slow.result(20).passed
        assert sandbox.submit(*returns(1)).result(20).passed
    assert len(started) == 2


def test_many_coroutines_await_at_the_same_time() -> None:
    async def main() -> tuple[list[Verdict], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticker = asyncio.create_task(tick())
        items = [napping(0.2), *map(returns, range(1, 30))]
        verdicts = await asyncio.gather(*(sandbox.grade_async(*item) for item in items))
        ticker.cancel()
        return list(verdicts), ticks

    with Sandbox(workers=2) as sandbox:
        verdicts, ticks = asyncio.run(main())
    assert [verdict.passed for verdict in verdicts] == [True] + [n % 2 == 1 for n in range(1, 30)]
    assert ticks > 3  # the loop ran on meanwhile


def test_a_cancelled_coroutine_leaves_the_others_alone(started: list[bytes]) -> None:
    async def main() -> Verdict:
        first = asyncio.create_task(sandbox.grade_async(*napping(0.2)))
        second = asyncio.create_task(sandbox.grade_async(*returns(3)))
        third = asyncio.create_task(sandbox.grade_async(*returns(5)))
        await asyncio.sleep(0.05)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(sandbox.grade_async(*returns(7)), 0.01)
        assert (await first).passed
        return await third

    with Sandbox() as sandbox:
        assert asyncio.run(main()).passed
    assert len(started) == 2


def test_a_broken_item_fails_its_own_coroutine_only() -> None:
    async def main() -> list[Verdict | BaseException]:
        items = [returns(1), (HONEST, CallTests(function="f", calls=())), returns(3)]
        return await asyncio.gather(*(sandbox.grade_async(*item) for item in items), return_exceptions=True)

    with Sandbox() as sandbox:
        first, second, third = asyncio.run(main())
    assert isinstance(second, UserError)
    assert isinstance(first, Verdict)
    assert isinstance(third, Verdict)
    assert first.passed
    assert third.passed


def test_threads_share_one_sandbox() -> None:
    def work(thread: int) -> list[bool]:
        items = [returns(100 * thread + n) for n in range(12)]
        if thread % 3 == 0:
            return [verdict.passed for verdict in sandbox.grade(items)]
        if thread % 3 == 1:
            return [verdict.passed for _, verdict in sorted(sandbox.grade_iter(items), key=lambda pair: pair[0])]
        return [outcome.value % 2 == 1 for program, _ in items for outcome in sandbox.evaluate(program, "f", [(0,)])]

    with Sandbox(workers=2) as sandbox, ThreadPoolExecutor(6) as threads:
        assert list(threads.map(work, range(6))) == [[n % 2 == 1 for n in range(12)]] * 6


def test_a_failing_grader_reaches_only_the_future_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Slot.send

    def deadly(self: Slot, job: object) -> None:
        if b"poison" in job.frames[0]:  # type: ignore[attr-defined]
            self._process.kill()
            self._process.wait()
        send(self, job)  # type: ignore[arg-type]

    with Sandbox(workers=2) as sandbox:
        monkeypatch.setattr(Slot, "send", deadly)
        before = [sandbox.submit(*returns(n)) for n in range(1, 9)]
        poisoned = sandbox.submit(HONEST + "# poison", squares())
        after = [sandbox.submit(*returns(n)) for n in range(11, 19)]
        with pytest.raises(SandboxError, match="failed 2 times"):
            poisoned.result(60)
        assert [future.result(60).passed for future in before] == [n % 2 == 1 for n in range(1, 9)]
        assert [future.result(60).passed for future in after] == [n % 2 == 1 for n in range(11, 19)]
        with pytest.raises(SandboxError, match="failed 2 times"):
            list(sandbox.grade_iter([(HONEST + "# poison", squares())]))
        assert sandbox.grade([(HONEST, squares())])[0].passed


def test_closing_ends_what_waits_with_an_error_and_no_verdict() -> None:
    sandbox = Sandbox()
    futures = [sandbox.submit(*napping(1, n)) for n in range(3)]
    stream = sandbox.grade_iter([napping(1, "s")])
    threading.Timer(0.1, sandbox.close).start()
    with pytest.raises(SandboxError, match="closed before this program was graded"):
        next(stream)
    for future in futures:
        with pytest.raises(SandboxError, match="closed before this program was graded"):
            future.result(20)
    with pytest.raises(SandboxError, match="closed"):
        sandbox.submit(*returns(1))


def test_an_interrupt_ends_a_stream_and_leaves_the_sandbox_usable() -> None:
    with Sandbox() as sandbox:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(KeyboardInterrupt):
                list(sandbox.grade_iter(napping(0.5, n) for n in range(5)))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        assert sandbox.grade([(HONEST, squares())])[0].passed


def test_a_broken_cache_costs_no_verdict(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file damaged while it is in use: the cache is given up, grading goes on."""
    path = tmp_path / "cache.sqlite"
    with Sandbox(cache=path) as sandbox:
        assert len(sandbox.grade(map(returns, range(200)))) == 200
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)  # the first page, which says that this is SQLite, stays
    path.write_bytes(data)
    with Sandbox(cache=path) as sandbox:
        verdicts = sandbox.grade(map(returns, range(200)))
        assert [verdict.passed for verdict in verdicts] == [n % 2 == 1 for n in range(200)]
        assert not any(verdict.cached for verdict in verdicts)
    assert re.search(r"cache\.sqlite: .*delete the file", caplog.text)


def test_the_cache_answers_a_stream_without_running_anything(tmp_path: Path, started: list[bytes]) -> None:
    items = [*map(returns, range(30)), napping(9)]
    with Sandbox(cache=tmp_path / "c.sqlite", timeout=0.4) as sandbox:
        first = dict(sandbox.grade_iter(items))
    assert len(started) == 31
    with Sandbox(cache=tmp_path / "c.sqlite", timeout=0.4) as sandbox:
        second = dict(sandbox.grade_iter(items))
    assert len(started) == 32
    assert second[30].status is Status.TIMEOUT
    assert not second[30].cached
    assert all(second[n].cached and second[n].passed == first[n].passed for n in range(30))


def test_two_sandboxes_write_one_cache_at_the_same_time(tmp_path: Path) -> None:
    with Sandbox(cache=tmp_path / "c.sqlite") as one, Sandbox(cache=tmp_path / "c.sqlite") as two:
        with ThreadPoolExecutor(2) as threads:
            runs = list(threads.map(lambda box: [v.passed for v in box.grade(map(returns, range(60)))], (one, two)))
        assert runs == [[n % 2 == 1 for n in range(60)]] * 2
        time.sleep(0.1)
        again = [two.grade([returns(n)])[0] for n in range(60)]
        assert all(verdict.cached for verdict in again)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The programs that were handed to a slot, in order; those of the self-test left out."""
    programs: list[bytes] = []
    send = Slot.send

    def note(self: Slot, job: object) -> None:
        if b"def attempt" not in job.frames[0]:  # type: ignore[attr-defined]
            programs.append(job.frames[0])  # type: ignore[attr-defined]
        send(self, job)  # type: ignore[arg-type]

    monkeypatch.setattr(Slot, "send", note)
    return programs


@pytest.mark.parametrize(
    "name", ["psgpo.execution.dispatcher.Dispatcher._remembered", "psgpo.execution.sandbox._verdict"]
)
def test_a_fault_of_the_sandbox_itself_leaves_no_caller_waiting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(name, broken)
    with Sandbox() as sandbox:
        with pytest.raises(SandboxError, match="a fault"):
            sandbox.submit(HONEST, squares()).result(timeout=20)
        with pytest.raises(SandboxError, match="a fault"):
            sandbox.submit(HONEST, squares())
