"""No process and no descriptor is left behind, and broken slots are replaced; blame goes where it belongs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from execution_world import HONEST, ROOT, run_script, squares

from psgpo.execution import Sandbox, SandboxError
from psgpo.execution.slot import Slot
from psgpo.records import Status

LEAK = """
tests = CallTests(function="f", calls=(Call(args=(1,), expected=1),))
kinds = ["def f(x): return 1", "def f(x): return 2", "1/0", "x = (", "import os; os._exit(1)", "import os; os.abort()"]
fds = lambda pid: len(os.listdir(f"/proc/{pid}/fd"))
with Sandbox(workers=2) as sandbox:
    before = None
    for round in range(3):
        sandbox.grade([(kinds[n % 6] + f"\\n# {round} {n}", tests) for n in range(80)])
        now = [sorted(survivors()), fds(os.getpid()), [fds(pid) for pid in sorted(survivors())]]
        same = before is None or before == now
        before = now
        if not same:
            break
json.dump([same, len(before[0]), wait_until_alone()], sys.stdout)
"""


def test_hundreds_of_programs_leave_no_process_and_no_descriptor() -> None:
    same, processes, left = run_script(LEAK)
    assert same
    assert processes <= 6  # per slot: tester, and a zygote with or without a process that holds its namespaces
    assert left == []


KILLED_OWNER = """
import signal, subprocess
body = '''
import sys
from psgpo.execution import Sandbox
from psgpo.records import CallTests, Call
tests = CallTests(function="f", calls=(Call(args=(1,), expected=1),))
with Sandbox(workers=2, timeout=60) as sandbox:
    sandbox.grade([("def f(x): return 1", tests)])
    print("ready", flush=True)
    if sys.argv[1] == "idle":
        sys.stdin.read()
    sandbox.grade([("import time; time.sleep(50)", tests), ("while True: pass", tests)])
'''
owner = subprocess.Popen([sys.executable, "-c", body, given], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert owner.stdout.readline() == b"ready\\n"
time.sleep(0.3)
count = len(survivors())
os.kill(owner.pid, signal.SIGKILL)
owner.wait()
json.dump([count, wait_until_alone()], sys.stdout)
"""


@pytest.mark.parametrize("moment", ["idle", "busy"])
def test_killing_the_owner_ends_everything(moment: str) -> None:
    count, left = run_script(KILLED_OWNER, given=moment)
    assert count >= 5
    assert left == []


def test_a_killed_tester_is_replaced_and_nobody_is_blamed() -> None:
    with Sandbox() as sandbox:
        sandbox.grade([(HONEST, squares())])
        slot = sandbox._dispatcher._pool._slots[0]
        assert slot is not None
        os.kill(slot._process.pid, signal.SIGKILL)
        verdict = sandbox.grade([(HONEST, squares())])[0]
        assert verdict.status is Status.PASSED


def test_testers_killed_in_the_middle_lose_no_program_and_blame_none() -> None:
    """Slots take work ahead; what waited in a dead one goes back."""
    programs = [f"{HONEST}  # {number}" for number in range(300)]
    with Sandbox(workers=2) as sandbox:
        done = 0
        for _, verdict in sandbox.grade_iter((program, squares()) for program in programs):
            assert verdict.status is Status.PASSED
            done += 1
            if done % 60 == 0:
                slot = sandbox._dispatcher._pool._slots[done // 60 % 2]
                if slot is not None:
                    os.kill(slot._process.pid, signal.SIGKILL)
    assert done == 300


def _break_each_slot(monkeypatch: pytest.MonkeyPatch, *, when: str) -> None:
    """Every slot that is given a program containing 'poison' dies."""
    send = Slot.send

    def deadly(self: Slot, job: object) -> None:
        poisoned = b"poison" in job.frames[0]  # type: ignore[attr-defined]
        if poisoned and when == "before":
            self._process.kill()
            self._process.wait()
        send(self, job)  # type: ignore[arg-type]
        if poisoned:
            os.kill(self._process.pid, signal.SIGALRM if when == "alarm" else signal.SIGKILL)

    monkeypatch.setattr(Slot, "send", deadly)


SLEEPER = "import time; time.sleep(9) # poison"


def test_a_program_that_breaks_two_slots_is_to_blame_when_a_third_works(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox() as sandbox:
        _break_each_slot(monkeypatch, when="after")
        verdicts = sandbox.grade([(SLEEPER, squares()), (HONEST, squares())])
        assert [verdict.status for verdict in verdicts] == [Status.CRASHED, Status.PASSED]
        assert "broke its grader 2 times" in verdicts[0].detail
        assert sandbox.evaluate(SLEEPER, "f", [(1,)])[0].error is not None


def test_the_testers_alarm_counts_against_the_program_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox() as sandbox:
        _break_each_slot(monkeypatch, when="alarm")
        assert sandbox.grade([(SLEEPER, squares())])[0].status is Status.TIMEOUT


def test_a_grader_that_never_works_is_an_error_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox() as sandbox:
        _break_each_slot(monkeypatch, when="before")
        with pytest.raises(SandboxError, match="failed 2 times"):
            sandbox.grade([(SLEEPER, squares())])
        monkeypatch.undo()
        assert sandbox.grade([(HONEST, squares())])[0].passed


def test_an_interrupted_call_does_not_leak_its_answers_into_the_next() -> None:
    with Sandbox() as sandbox:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(KeyboardInterrupt):
                sandbox.grade([("import time; time.sleep(0.6)", squares())])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        assert sandbox.grade([(HONEST, squares())])[0].passed


def test_a_forked_copy_of_the_owner_neither_uses_nor_closes_the_sandbox() -> None:
    body = """
with Sandbox() as sandbox:
    tests = CallTests(function="f", calls=(Call(args=(1,), expected=1),))
    pid = os.fork()
    if pid == 0:
        sandbox.close()
        try:
            sandbox.grade([("def f(x): return 1", tests)])
        except Exception as error:
            os._exit(7 if "forked" in str(error) else 8)
        os._exit(9)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    verdict = sandbox.grade([("def f(x): return 1", tests)])[0]
json.dump([status, verdict.status, wait_until_alone()], sys.stdout)
"""
    assert run_script(body) == [7, "PASSED", []]


ORDINARY = """
from psgpo.execution import doctor
tests = CallTests(function="f", calls=(Call(args=(3,), expected="sq:9"),))
with Sandbox() as sandbox:
    verdicts = sandbox.grade([(given["honest"], tests), ("def f(x): open('/tmp/psgpo-x', 'w')", tests)])
checks = doctor.report()
json.dump([os.geteuid(), sandbox.confinement, [v.status for v in verdicts], len(doctor.render(checks).splitlines()),
           wait_until_alone()], sys.stdout)
"""


def _python_for_everybody() -> str | None:
    """A Python (3.11 or newer) that an ordinary user may run."""
    for name in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3", shutil.which("python3") or ""):
        test = [name, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if name and subprocess.run(test, user=65534, group=65534, extra_groups=[], cwd="/").returncode == 0:
                return name
        except OSError:
            continue
    return None


def test_an_ordinary_user_gets_a_confined_sandbox_too(tmp_path: Path) -> None:
    who = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    python = _python_for_everybody() if who else sys.executable
    if python is None:
        pytest.skip("no Python 3.11+ that another user may run; install one below /usr")
    if who and not os.stat(ROOT / "src").st_mode & 0o005:
        pytest.skip(f"{ROOT} is not readable by other users")
    user, rung, statuses, lines, left = run_script(ORDINARY, given={"honest": HONEST}, python=python, **who)
    assert user != 0
    assert rung.startswith(("full", "seccomp", "landlock"))
    assert statuses == ["PASSED", "RUNTIME_ERROR"]
    assert lines >= 10
    assert left == []
