"""Run directories in, one self-contained HTML page and a `summary.json` out. Reads run directories and nothing else."""

from psgpo.report.build import build_report

__all__ = ["build_report"]
