"""Compute the features of a task: `python stages/extract.py TASK`."""

import checkout  # noqa: F401

from ibma import paths
from ibma.errors import run_stage
from ibma.params import Params, prepare


def extract(params: Params, task: str) -> None:
    """Turn the raw samples of a task into the arrays that training reads."""
    from ibma import fetch, tables
    from ibma.features import media
    from ibma.features.extract import absent, extract
    from ibma.formats import checksums

    entry = params.task(task).extraction()
    name, out = entry["dataset"], paths.FEATURES / task
    manifest = fetch.read_manifest(name)
    if manifest["missing"]:
        return absent(task, entry, manifest["missing"], out)
    raw, module = tables.raw(params, name), tables.dataset(params, name)
    if name not in params.tables:
        fetch.restore(name, raw, manifest)
    extract(
        *(task, entry, module, raw, out, media.compute),
        key=checksums.sha256(paths.manifest(name)),
        workers=params.engine.workers,
        reading=tables.reading(params, task),
    )


if __name__ == "__main__":
    run_stage(extract, prepare)
