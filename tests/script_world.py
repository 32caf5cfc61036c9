"""Scripts of benchmarks/ and examples/, run in this process, which has PyTorch loaded, or only asked what they take."""

from __future__ import annotations

import argparse
import io
import runpy
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


class ParsedError(Exception):
    """The script's parser took the arguments."""


def run_script(words: Sequence[str]) -> None:
    """What `python WORDS` does in the repository: a script, a folder that is run as one, or `-m` and a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(words))
        if words[0] == "-m":
            patch.setattr(sys, "argv", list(words[1:]))
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            return
        script = ROOT / words[0]
        script = script / "__main__.py" if script.is_dir() else script
        patch.setattr(sys, "path", [str(script.parent), *sys.path])
        runpy.run_path(str(script), run_name="__main__")


def refused(words: Sequence[str]) -> str:
    """What a script's own parser says against its arguments; empty for nothing. Nothing behind the parser is run."""
    parse, said = argparse.ArgumentParser.parse_args, io.StringIO()

    def only_parse(self: argparse.ArgumentParser, *arguments: Any) -> None:
        parse(self, *arguments)
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch, redirect_stderr(said), redirect_stdout(io.StringIO()):
        patch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
        try:
            run_script(words)
        except ParsedError:
            return ""
        except SystemExit as end:  # 0 behind --help
            return said.getvalue().strip() if end.code else ""
    return "reads no arguments"
