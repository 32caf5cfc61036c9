"""What the sandbox can put in force on this machine, shown by doing it: the text behind `psgpo doctor`."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

from psgpo.errors import UserError
from psgpo.execution import selftest
from psgpo.execution.confinement import ladder
from psgpo.execution.pool import Pool, SandboxError
from psgpo.execution.slot import Limits

_REMEDY = {
    "namespaces": "in a container allow them (Docker: --cap-add SYS_ADMIN --security-opt seccomp=unconfined), "
    "elsewhere allow user namespaces; the next rung is enough for untrusted programs",
    "landlock": "needs Linux 5.13 or newer with `landlock` among the security modules (kernel option lsm=)",
    "seccomp": "needs a Linux kernel with seccomp filters, on x86-64 or aarch64",
    "uid": "start the owner as root, with a Python that other users can read",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    detail: str
    """What is in force, or what is missing, why, and what to do; one line."""


def report() -> list[Check]:
    """Start a slot, let a program try to get out, and say what held."""
    checks = [_platform()]
    try:
        pool = Pool(1, Limits(timeout=5.0, memory_mb=256), required="rlimits", without=())
    except (SandboxError, UserError) as error:
        return [*checks, Check(name="sandbox", ok=False, detail=str(error))]
    try:
        checks += [_layer(layer, pool.layers[layer], pool.confinement) for layer in ladder.LAYERS]
        checks += [_attempt(name, name in pool.possible) for name in selftest.ATTEMPTS]
        return [*checks, _backend(pool.no_helper), _rung(pool.confinement)]
    finally:
        pool.close()


def render(checks: list[Check]) -> str:
    """The findings as plain text, one per line."""
    width = max(len(check.name) for check in checks)
    return "\n".join(f"{'ok  ' if check.ok else 'MISS'}  {check.name:<{width}}  {check.detail}" for check in checks)


def _platform() -> Check:
    where = f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    user = "root" if hasattr(os, "geteuid") and os.geteuid() == 0 else "an ordinary user"
    return Check(name="platform", ok=sys.platform == "linux", detail=f"{where}, as {user}")


def _layer(layer: str, refusal: str, rung: str) -> Check:
    if layer == "uid" and refusal and ladder.at_least(rung, "seccomp"):
        return Check(name=layer, ok=True, detail=f"not in force, and not needed on this rung ({refusal})")
    detail = ladder.MEANING[layer] if not refusal else f"not in force ({refusal}); {_REMEDY[layer]}"
    return Check(name=layer, ok=not refusal, detail=detail)


def _attempt(name: str, succeeded: bool) -> Check:
    outcome = "a program CAN" if succeeded else "a program cannot"
    return Check(name=f"attempt: {name}", ok=not succeeded, detail=f"{outcome} {selftest.MEANING[name]}")


def _backend(refusal: str) -> Check:
    python = f"python ({refusal}): only slower; the C helper is built at installation where there is a C compiler"
    return Check(name="backend", ok=True, detail=python if refusal else "c")


def _rung(rung: str) -> Check:
    ok = ladder.at_least(rung, ladder.LOWEST_CONFINED)
    verdict = (
        "untrusted programs may run" if ok else "a sandbox starts only with allow_unconfined: trusted programs only"
    )
    return Check(name="confinement", ok=ok, detail=f"{rung}: {verdict}")
