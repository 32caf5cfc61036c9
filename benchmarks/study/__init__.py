"""The study: which arms learn more than the baseline, where, and what it costs. See `__main__.py` for the commands."""
