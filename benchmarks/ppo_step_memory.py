"""What both sides of `ppo_step.py` measure alike. Standard library only: TRL's side has no psgpo."""

from __future__ import annotations

from pathlib import Path


def peak_kb() -> int:
    """Largest resident size so far, KiB. Not `ru_maxrss`, which remembers the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
