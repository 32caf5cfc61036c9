"""The one part of the build that pyproject.toml cannot say for every setuptools: an optional extension."""

import sys

from setuptools import Extension, setup

# The sandbox works without it, only slower: no compiler, no headers or another system than Linux fail no installation.
LEAN = Extension("psgpo.execution._lean", ["src/psgpo/execution/_lean.c"], optional=True)

setup(ext_modules=[LEAN] if sys.platform == "linux" else [])
