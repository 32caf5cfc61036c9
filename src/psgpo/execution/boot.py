"""Start a role of the sandbox in a clean interpreter: `python -I -S boot.py {tester,zygote} ...`.

Run by path, without site-packages. The package names are set up here without running their `__init__`, so that a role
loads the few modules it needs and nothing else.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Import the role named on the command line and run it."""
    execution = os.path.dirname(os.path.abspath(__file__))
    for name, path in (("psgpo", os.path.dirname(execution)), ("psgpo.execution", execution)):
        package = type(sys)(name)
        package.__path__ = [path]
        sys.modules[name] = package
    role = sys.argv[1]
    if role == "tester":
        from psgpo.execution.tester import main as run
    elif role == "zygote":
        from psgpo.execution.zygote import main as run
    else:
        raise SystemExit(f"unknown role {role!r}")
    arguments = sys.argv[2:]
    sys.argv[1:] = []  # a script that looks whether it was given a file finds none
    run(arguments)


if __name__ == "__main__":
    main()
