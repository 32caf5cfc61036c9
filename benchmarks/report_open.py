"""How long a report of a large run takes to build, how large it is, and how soon a browser shows it.

    .venv/bin/python benchmarks/report_open.py                  10,080 evaluated and 2,000 labelled responses, made up
    .venv/bin/python benchmarks/report_open.py --run runs/demo  a run of yours

Opening is measured in headless Chromium through the DevTools protocol, from the start of the navigation: the median of
several openings, each in a tab that has forgotten the page before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "report")]

from synthetic_run import ARMS, Size, make_run  # noqa: E402

from chromium import Chromium, find_chromium  # noqa: E402
from psgpo.report import build_report  # noqa: E402

SIZE = Size(problems=180, samples=8, labelled=2000)
NAVIGATION = "performance.getEntriesByType('navigation')[0].toJSON()"
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


def main() -> None:
    """Build, open, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run directory; without it one is made up")
    parser.add_argument("--openings", type=int, default=9)
    options = parser.parse_args()
    binary = find_chromium()
    if binary is None:
        sys.exit("no Chromium on this machine: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or make_run(Path(folder) / "run", size=SIZE)
        if options.run is None:
            print(f"{SIZE.problems * SIZE.samples * (len(ARMS) + 1):,} evaluated, {SIZE.labelled:,} labelled responses")
        start = time.perf_counter()
        index = build_report([run], Path(folder) / "report")
        print(f"built in {time.perf_counter() - start:.1f} s; the page has {index.stat().st_size / 1024:.0f} KiB")
        with Chromium(binary, Path(folder) / "profile") as browser:
            browser.look(width=1280, height=900)
            times = [_open(browser, index) for _ in range(options.openings)]
    for name, values in zip(("first paint", "DOMContentLoaded", "load"), zip(*times, strict=True), strict=True):
        print(f"{name}: {statistics.median(values):.0f} ms (of {len(times)}: {min(values):.0f} to {max(values):.0f})")


def _open(browser: Chromium, page: Path) -> tuple[float, float, float]:
    """Milliseconds from the start of the navigation to first paint, DOMContentLoaded and load."""
    browser.send("Network.setCacheDisabled", cacheDisabled=True)
    browser.open(page)
    deadline = time.monotonic() + 10
    while not browser.js("performance.getEntriesByName('first-contentful-paint').length"):
        if time.monotonic() > deadline:
            sys.exit("the page was never painted")
    found = browser.js(NAVIGATION)
    return browser.js(PAINT), found["domContentLoadedEventEnd"], found["loadEventEnd"]


if __name__ == "__main__":
    main()
