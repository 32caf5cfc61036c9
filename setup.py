"""The parts of the build that pyproject.toml cannot say: an optional extension, and recipes from beside the sources."""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

# The sandbox works without it, only slower: no compiler, no headers or another system than Linux fail no installation.
LEAN = Extension("psgpo.execution._lean", ["src/psgpo/execution/_lean.c"], optional=True)


class BuildWithRecipes(build_py):
    """recipes/ lies at the root, for readers; an installation has it as psgpo/recipes, for `psgpo recipe show`."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # the checkout's own are found
        folder = Path(self.build_lib, "psgpo", "recipes")
        self.mkpath(str(folder))
        for file in sorted(Path("recipes").glob("*.toml")):
            self.copy_file(str(file), str(folder / file.name))


setup(ext_modules=[LEAN] if sys.platform == "linux" else [], cmdclass={"build_py": BuildWithRecipes})
