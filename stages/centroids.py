"""Compute phi(X), U and X as vectors: `python stages/centroids.py TASK`."""

import checkout  # noqa: F401

from ibma import paths
from ibma.errors import run_stage
from ibma.params import Params, prepare


def centroids(params: Params, task: str) -> None:
    """Find the class centroids of a task's inputs, for every test fold or the fixed split."""
    from ibma.files import held
    from ibma.network.centroids import write_all
    from ibma.training.cell import Cell, skipped
    from ibma.training.loop import configure_torch

    folder = paths.CENTROIDS / task
    with held(folder):
        if skipped(task):
            return folder.mkdir(parents=True, exist_ok=True)
        cell = Cell.of(params, task, next(iter(params.methods)))
        configure_torch(params.threads, compiled=False)
        pseudo = params.training.pseudo_classes
        write_all(cell.open(), cell.problem(), cell.encoders, cell.assignment(), pseudo, folder)


if __name__ == "__main__":
    run_stage(centroids, prepare)
