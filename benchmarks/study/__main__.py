"""The study of line-level process rewards on the embedded benchmark: paired seeds, resumable, tables from small files.

    .venv/bin/python benchmarks/study plan                            # cells, what is missing, CPU-minutes beforehand
    .venv/bin/python benchmarks/study run --group main --jobs 2       # runs what is missing
    .venv/bin/python benchmarks/study table                           # docs/results from benchmarks/study/results
    .venv/bin/python benchmarks/study run --into runs/study-again     # repeats everything there, and `table --into ...`

`table` writes a page for each group, with CSV and figures, and fills the numbers of those into the prose of
findings.md.j2: docs/results/README.md. A test holds the page to its tables.

A cell of study.toml is a psgpo recipe with overrides and seeds; (cell, seed) is the run directory
runs/study/CELL-SEED. When one is done, results/CELL/SEED.json keeps what the tables need and goes into git.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study.cli import main

if __name__ == "__main__":
    main()
