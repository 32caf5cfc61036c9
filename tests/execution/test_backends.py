"""The C helper and the Python it stands for: the same verdicts, and one is told which of the two works."""

from __future__ import annotations

import resource
import sys
from types import SimpleNamespace

import pytest
from execution_world import BACKENDS, HONEST, need_backend, squares, suite
from test_exploits import HONEST_IN, KINDS

from psgpo.errors import UserError
from psgpo.execution import Sandbox, doctor, helper, zygote

LONG = "# " + "x" * (1 << 17) + "\n"
"""More than is read at once."""
ENDS = {
    "exits": "import os\ndef f(x): os._exit(3)",
    "exits with status 0": "import os\ndef f(x): os._exit(0)",
    "kills itself": "import ctypes\ndef f(x): ctypes.string_at(0)",
    "closes its channel and stays": "import os, time\nos.close(3)\ntime.sleep(60)\ndef f(x): pass",
    "hangs": "def f(x):\n    while True: pass",
    "too much memory": "def f(x): return len(bytearray(1 << 30))",
    "wrong": "def f(x): return x",
    "syntax": "def f(x: return x",
    "long and right": LONG + HONEST,
    "long and wrong": LONG + "def f(x): return 0",
    "right": HONEST,
}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the one in use for this test."""
    name: str = request.param
    need_backend(name)
    monkeypatch.setenv(helper.VARIABLE, name)
    return name


def test_ways_to_end_have_the_same_names(backend: str) -> None:
    wanted = {
        "exits": ("NO_REPORT", "the program ended before every test had answered"),
        "exits with status 0": ("NO_REPORT", "the program ended before every test had answered"),
        "kills itself": ("CRASHED", "killed by SIGSEGV"),
        "closes its channel and stays": ("NO_REPORT", "the program closed its channel"),
        "hangs": ("TIMEOUT", "wall time limit"),
        "too much memory": ("MEMORY", "the program ran out of memory"),
        "wrong": ("WRONG_ANSWER", ""),
        "syntax": ("SYNTAX_ERROR", ""),
        "long and right": ("PASSED", ""),
        "long and wrong": ("WRONG_ANSWER", ""),
        "right": ("PASSED", ""),
    }
    with Sandbox(timeout=5.0) as sandbox:  # so that half a CPU-second is there on a busy machine too
        assert sandbox.backend == backend
        verdicts = sandbox.grade((program, squares()) for program in ENDS.values())
    found = {name: (verdict.status.value, verdict.detail) for name, verdict in zip(ENDS, verdicts, strict=True)}
    for name in ("wrong", "long and wrong", "syntax"):
        found[name] = (found[name][0], "")  # these texts are another test's matter
    assert found == wanted
    assert all(verdict.cpu_seconds > 0 for verdict in verdicts)
    assert verdicts[list(ENDS).index("hangs")].cpu_seconds > 0.5  # what the process used, not what its end did


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("without", [(), ("namespaces",), ("namespaces", "landlock"), ("uid",)])
def test_every_kind_of_test_works_on_every_rung_with_the_fence(
    backend: str, kind: str, without: tuple[str, ...]
) -> None:
    program, tests = HONEST_IN[kind]
    with Sandbox(without=without, timeout=10.0) as sandbox:
        assert sandbox.backend == backend
        assert [verdict.status for verdict in sandbox.grade([(program, tests)] * 2 + [(LONG + program, tests)])] == [
            "PASSED"
        ] * 3


def test_a_child_holds_its_limits_and_no_descriptor_but_its_channel(backend: str) -> None:
    program = (
        "import os, resource\n"
        "def f(what):\n"
        "    if what == 'limits':\n"
        "        names = ('AS', 'CPU', 'FSIZE', 'NOFILE', 'CORE')\n"
        "        return [resource.getrlimit(getattr(resource, 'RLIMIT_' + name)) for name in names]\n"
        "    found = []\n"
        "    for fd in range(64):\n"
        "        try:\n"
        "            found.append((fd, os.get_inheritable(fd)))\n"
        "        except OSError:\n"
        "            pass\n"
        "    return found\n"
    )
    limits = [(96 << 20,) * 2, (4, 4), (0, 0), (zygote.OPEN_FILES,) * 2, (0, 0)]
    descriptors = [(0, True), (1, True), (2, True), (3, False)]
    with Sandbox(timeout=2.5, memory_mb=96) as sandbox:
        tests = suite([(("limits",), limits), (("descriptors",), descriptors)])
        verdict = sandbox.grade([(program, tests)])[0]
    assert verdict.passed, verdict.detail


def test_a_rung_without_the_fence_is_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(helper.VARIABLE, raising=False)
    with Sandbox(without=("seccomp",), allow_unconfined=True) as sandbox:
        assert sandbox.backend == "python"
        assert sandbox.grade([(HONEST, squares())])[0].passed


def test_the_environment_says_what_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(helper.VARIABLE, "rust")
    with pytest.raises(UserError, match="PSGPO_SANDBOX_BACKEND=rust: must be `c`"):
        Sandbox()


def test_a_helper_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(PROTOCOL=helper.PROTOCOL - 1, serve=None)
    monkeypatch.setitem(sys.modules, "psgpo.execution._lean", old)
    assert helper.load() == (None, "built from another version")
    monkeypatch.setitem(sys.modules, "psgpo.execution._lean", None)
    assert helper.load() == (None, "not built for this Python")


def test_the_doctor_names_the_backend(backend: str) -> None:
    (check,) = (check for check in doctor.report() if check.name == "backend")
    assert check.ok
    assert check.detail.startswith("c" if backend == "c" else "python (switched off)")


def test_what_programs_take_of_the_processor_counts_among_the_children_s(backend: str) -> None:
    burns = "def f(x):\n    for n in range(10**6): pass\n    return 'sq:%d' % (x * x)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with Sandbox(workers=2, timeout=10.0) as sandbox:
        verdicts = sandbox.grade([(f"{burns}\n# {number}", squares()) for number in range(4)])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    programs = sum(verdict.cpu_seconds for verdict in verdicts)
    assert programs > 0.05
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime > programs
