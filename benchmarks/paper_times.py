"""The two times of section C.3: centroids and distances of inputs once, of features an epoch.

The paper states them for the 6,698 training clips of CREMA-D on an A100.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks import growth, stage
from benchmarks.measure import WALL, Goal, Row, duration, every_core, interleaved, ratio
from benchmarks.problems import CREMA_D_CLIPS, paper_size
from ibma.features.store import Features

INPUT_SECONDS, FEATURE_SECONDS = 16.7, 2.1  # section C.3
ROUNDS = 2
FASTER = Goal("at least", 1.0)


def of_inputs(features: Features, systems: NDArray[np.float32]) -> None:
    """Compute centroids and distances of every modality as stage `centroids` does, by FAISS."""
    for name in features.modalities:
        stage.ours(features, name, systems)


def rows() -> Iterator[Row]:
    """Time both; the first uses every core."""
    problem = paper_size()
    features, systems = problem.features(), problem.one_hot()
    with every_core():
        inputs = interleaved({"inputs": lambda: of_inputs(features, systems)}, ROUNDS, WALL)
    step = growth.refresh(CREMA_D_CLIPS, problem.classes, batch=problem.batch, width=problem.width)
    times = inputs | interleaved({"features": step}, stage.ROUNDS)
    for what, paper in (("inputs", INPUT_SECONDS), ("features", FEATURE_SECONDS)):
        yield Row(
            f"centroids and distances of {what}, {CREMA_D_CLIPS:,} clips",
            duration(times[what]),
            f"paper, A100, {paper} s",
            ratio([paper] * len(times[what]), times[what]),
            goal=FASTER,
        )
