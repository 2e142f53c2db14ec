"""Create a project from the installed package, with all that a clone of the repository runs."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import ibma
from ibma import files, paths
from ibma.commands import profiles
from ibma.errors import IbmaError, installing

PACKAGE = Path(ibma.__file__).parent
LAYOUT = "project"  # folder of the wheel; in a checkout the files lie at its root
FIRST = "twin"  # the profile that a new project starts with
FOLDERS = (paths.STAGES, paths.PROFILES, paths.DVC / "plots")
FILES = (paths.PIPELINE, paths.SCHEMA, paths.DVC / "config", Path(".dvcignore"), Path(".gitignore"))
NO_GIT = "[core]\n    no_scm = true\n"


def create(folder: Path) -> str:
    """Fill a new folder with the pipeline, the profiles and the package's own code.

    The code comes along because records are keyed by it, and because a method or a data set of your
    own is a file beside the others. `ibma` and the stages run the project's code, not the
    installed one.

    Raises:
        IbmaError: the folder is not empty, or DVC is not installed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise IbmaError(f"{folder}: is there and not empty: name a new folder")
    if find_spec("dvc") is None:
        raise IbmaError(f"dvc is not installed: run {installing('pipeline')}")
    source = _source()
    ignored = shutil.ignore_patterns("__pycache__", LAYOUT)
    files.make_folder(folder)
    shutil.copytree(PACKAGE, folder / paths.CODE, ignore=ignored)
    for name in FOLDERS:
        shutil.copytree(source / name, folder / name, ignore=ignored)
    for name in FILES:
        shutil.copy(source / name, folder / name)
    (folder / paths.DVC / "config.local").write_text(NO_GIT, encoding="utf-8")
    first = folder / paths.PROFILES / f"{FIRST}.yaml"
    (folder / paths.PARAMS).write_bytes(profiles.as_params(first))
    return (
        f"{folder}: a project with profile {FIRST}\n"
        f"next: `cd {folder}`, then `dvc repro`, or `ibma new` for a table of your own"
    )


def _source() -> Path:
    """Return where the files of a project lie: in the wheel, or at the root of this checkout."""
    inside, outside = PACKAGE / LAYOUT, PACKAGE.parents[1]
    found = next((one for one in (inside, outside) if (one / paths.PIPELINE).exists()), None)
    if found is None:
        raise IbmaError(f"{inside}: missing: install ibma again, from a wheel")
    return found
