"""Write the report of a profile: `python stages/report.py`."""

from operator import attrgetter
from pathlib import Path

import checkout  # noqa: F401

from ibma import paths
from ibma.errors import run_stage, tell
from ibma.params import Params, prepare


def report(params: Params) -> None:
    """Write tables, figures, metrics and the page."""
    from ibma.report import page

    tell(f"report: {page.write(params, Path())}")
    drop_dead_entries(params)


def drop_dead_entries(params: Params) -> None:
    """Delete what dvc.lock holds of tasks and data sets that left params.yaml.

    DVC keeps such entries. It reads the file again when it writes this stage's own entry.
    """
    from ruamel.yaml import YAML

    from ibma.files import atomic_file

    alive: set[str] = set()
    for name, stage in YAML(typ="safe").load(paths.PIPELINE)["stages"].items():
        block = stage.get("foreach", "").strip("${}")  # of params.yaml
        alive |= {f"{name}@{key}" for key in attrgetter(block)(params)} if block else {name}
    if not paths.LOCK.exists() or alive >= YAML(typ="safe").load(paths.LOCK)["stages"].keys():
        return
    yaml = YAML()  # reads and writes as DVC does, so that nothing else changes
    lock = yaml.load(paths.LOCK)
    for dead in lock["stages"].keys() - alive:
        del lock["stages"][dead]
    with atomic_file(paths.LOCK) as file:
        yaml.dump(lock, file)


if __name__ == "__main__":
    run_stage(report, prepare)
