"""Without a Chromium the tests of pages are skipped, unless somebody wants to know that they ran."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chromium import NO_CHROMIUM, REQUIRED

TESTS = Path(__file__).parent
ONE = f"{TESTS}/report/test_report_browser.py::test_nothing_sticks_out[390]"


@pytest.mark.parametrize(("required", "code", "summary"), [("", 0, "1 skipped"), ("1", 1, "1 error")])
def test_without_a_chromium_a_test_of_a_page_is_skipped_or_fails(
    required: str, code: int, summary: str, tmp_path: Path
) -> None:
    environment = os.environ | {"PATH": str(tmp_path), REQUIRED: required}
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", ONE]
    ended = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stdout
    assert summary in ended.stdout
    assert NO_CHROMIUM in ended.stdout
