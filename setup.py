"""Put what a project needs besides the package into the wheel: see `ibma init`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("stages", "profiles", ".dvc/plots")
FILES = ("dvc.yaml", "params.schema.json", ".dvc/config", ".dvcignore", ".gitignore")


class BuildPy(build_py):
    """Copy the pipeline to `ibma/project/`, as it lies at the root of the repository."""

    def run(self) -> None:
        """Build the package, then add the project's files; an editable install has them."""
        super().run()
        if self.editable_mode:
            return
        out = Path(self.build_lib) / "ibma/project"
        shutil.rmtree(out, ignore_errors=True)
        for name in FOLDERS:
            shutil.copytree(name, out / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, out / name)


setup(cmdclass={"build_py": BuildPy})
