"""Runs: the run directory, the stages that fill it, and the order they run in."""
