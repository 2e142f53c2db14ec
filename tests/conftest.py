"""What many tests share: a tiny two-view problem as stage extract stores it, twins, real data."""
# ruff: noqa: E402

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from ibma.machine import hold_to

hold_to("portable")  # before numpy and torch load: processes that tests start compute alike

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from ibma.datasets import Card, Counts, Dataset, Dropped, Sample
from ibma.network.centroids import Assignment, write_all
from ibma.training.cell import Cell
from ibma.training.loop import configure_torch
from ibma.training.record import Record

ENCODER = {"name": "mlp", "hidden": [16]}
SIZES = {  # of the tiny networks that tests train
    "batch_size": 16,
    "width": 16,
    "heads": 2,
    "phi": "unit",
    "beta": 1.0,
    "refresh": "epoch",
    "compile": False,
    "pseudo_classes": 3,
    "device": "cpu",
}
ROOT = Path(__file__).parent.parent
MIRROR = Path(os.environ.get("IBMA_MIRROR", ROOT.parent / "shared/mirror"))
KINDS = ("classify", "multilabel", "one_class", "sentiment")
CLASSES = {"one_class": ("normal", "anomalous")}


def needs(folder: str) -> pytest.MarkDecorator:
    """Skip a test where the mirror of published data lacks a folder."""
    there = (MIRROR / folder).is_dir()
    return pytest.mark.skipif(not there, reason=f"no local copy of {folder}: set IBMA_MIRROR")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def golden(name: str) -> dict[str, Tensor]:
    """What is stored of other people's code: its inputs, weights and answers."""
    with np.load(ROOT / f"tests/golden/{name}.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored}


def fresh(script: str, cwd: Path | None = None, **environment: str) -> str:
    """Run code in a process of its own, which finds the package; return what it prints."""
    told = os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=cwd, env=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def unsynced() -> Iterator[None]:
    """Do not wait for the disk: what a test writes by the thousand need not outlast a crash."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def record_of(**fields: object) -> Record:
    """A record of a run that never was: `fields`, and what no test looks at."""
    usual = {
        **{"key": "k", "profile": "twin", "source": "twin", "fold": None, "weights": ""},
        **{"n_train": 10, "n_test": 5, "ib": {}, "ib_before": {}, "regime": {}},
        "params": {"lr": 0.001, "weight_decay": 0.0, "eta": None, "weight_factor": 1.0},
        "tuned": {"points": [[0.001, 0.0]], "folds": 3, "epochs": 2, "by": "accuracy"},
        "history": {"task": [2.0, 1.0]},
        "cost": {"parameters": 10, "trained": 8, "flops": 20},
        "environment": {"device": "cpu", "instructions": "portable", "threads": 1},
        "provenance": {"device": "cpu", "seconds_per_epoch": [0.1, 0.1], "git_commit": None},
    }
    return Record(**(usual | fields))


def digits() -> dict:
    """Profile `twin` cut down to the digits: two methods beside its ablation and its bounds."""
    task = "split_digits"
    values = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    values |= {name: {task: values[name][task]} for name in ("datasets", "tasks")}
    values |= {"train": {"concat": {}}, "train_ibma": {"ibma": {}}}
    values |= {"seeds": 2, "keep_weights": ["ibma"]}
    values["timing"] = {"task": task, "rounds": 2}
    values["sensitivity"] = {"task": task, "methods": ["ibma"], "etas": [0.5]}
    values["probe"] = {"task": task, "methods": ["ibma"]}
    values["gradcam"] |= {"tasks": {}, "methods": ["ibma"]}
    values["regimes"]["forms"] = ["ibma"]
    return values


def fake_dataset(kind: str = "classify", modalities: int = 2, folds: int = 0) -> Dataset:
    """72 samples of 12 groups whose views are noisy one-hot labels.

    One-class: three clusters of normal samples, and anomalies in test that are far and disagree.
    """
    names = [f"view{m}" for m in range(modalities)]
    card = Card(
        title="fake",
        kind=kind,
        classes=CLASSES.get(kind, ("a", "b", "c")),
        modalities=dict.fromkeys(names, "vector"),
        licence="none",
        access="builtin",
        official=Counts(48, 24),
        cite="none",
        folds=folds,
    )

    def samples(raw: Path, *, on_bad: str = "stop") -> Iterator[Sample | Dropped]:
        rng = np.random.default_rng(0)
        for i in range(72):
            y = rng.integers(0, 2, 3) if kind == "multilabel" else np.eye(3, dtype=int)[i % 3]
            split = f"fold{i % folds}" if folds else ("test" if i % 3 == (i // 9) % 3 else "train")
            odd = kind == "one_class" and split == "test" and i % 2 == 0
            parts = {
                name: tuple(np.roll(y, m * odd) + (2.0 if odd else 0.4) * rng.normal(size=3))
                for m, name in enumerate(names)
            }
            label: int | float | tuple[int, ...] = int(y.argmax())
            if kind == "multilabel":
                label = tuple(int(v) for v in y)
            elif kind == "sentiment":
                label = float(y.argmax() - 1) * 0.8
            elif kind == "one_class":
                label = int(odd)
            group = f"g{i % folds}_{i % 4}" if folds else f"g{i % 12}"
            if kind == "one_class":
                group = f"slice{i // 36}"
            yield Sample(f"s{i}", split, group, label, parts, dialogue=group)
        yield Dropped("broken", "for the test")

    return SimpleNamespace(CARD=card, FILES=(), samples=samples)  # type: ignore[return-value]


def vector(kind: str, part: object, params: object) -> np.ndarray:
    return np.asarray(part, dtype=np.float32)


def cell_over(folder: Path, method: str, encoders: dict[str, dict[str, object]], **more) -> Cell:
    """A cell of task `fake` over the features in a folder; `more` are fields of `Cell`."""
    fields = SIZES | {
        "profile": "twin",
        "stage": "train",
        "task": "fake",
        "method": method,
        "method_file": method,
        "hparams": {},
        "encoders": encoders,
        "epochs": 3,
        "features": folder,
        "centroids": folder / "centroids",
    }
    return Cell(**(fields | more))


@pytest.fixture(scope="session")
def fake_store(tmp_path_factory: pytest.TempPathFactory):
    """Write the store of a fake data set once: fake_store(kind, modalities, folds)."""
    from ibma.features.extract import extract  # a bare machine with a GPU lacks what it needs

    root = tmp_path_factory.mktemp("fake")

    @functools.cache
    def write(kind: str, modalities: int, folds: int) -> Path:
        folder = root / f"{kind}{modalities}{folds}"
        entry = {"dataset": "fake", "options": {}, "features": {}}
        extract("fake", entry, fake_dataset(kind, modalities, folds), root, folder, vector)
        encoders = {f"view{m}": ENCODER for m in range(modalities)}
        cell = cell_over(folder, "ibma", encoders)
        write_all(cell.open(), cell.problem(), encoders, Assignment(), 3, cell.centroids)
        return folder

    return write


@pytest.fixture
def make_cell(fake_store):
    """Build a Cell over a fake store: make_cell(kind=..., modalities=..., method=...).

    All tests read the same stores: none may write into them.
    """

    def make(
        kind: str = "classify",
        modalities: int = 2,
        folds: int = 0,
        method: str = "ibma",
        epochs: int = 3,
        **hparams: object,
    ) -> Cell:
        configure_torch(1, compiled=False)
        encoders = {f"view{m}": ENCODER for m in range(modalities)}
        folder = fake_store(kind, modalities, folds)
        return cell_over(folder, method, encoders, hparams=hparams, epochs=epochs)

    return make


@pytest.fixture
def ibma(monkeypatch, capsys):
    """Run the command; return its exit code, and what it wrote to stdout and stderr."""
    from ibma import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ibma", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return (stopped.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The twin of the data set that a module of tests is called after, its archives unpacked."""
    from ibma import datasets, twins
    from ibma.formats import archives

    name = request.module.__name__.removeprefix("test_")
    raw = tmp_path_factory.mktemp(name)
    twins.write(name, raw)
    archives.unpack_all(raw, getattr(datasets.load(name), "ARCHIVES", ()))
    return raw


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """A copy of this twin to be broken."""
    return shutil.copytree(written, tmp_path / "raw")


@pytest.fixture(scope="module")
def features(request: pytest.FixtureRequest, written: Path, tmp_path_factory):
    """Its features, as FEATURES of the module says."""
    from ibma import datasets
    from ibma.features import media, store
    from ibma.features.extract import extract

    name = request.module.__name__.removeprefix("test_")
    out = tmp_path_factory.mktemp("features")
    entry = {"dataset": name, "on_bad": "drop", "features": request.module.FEATURES}
    extract(name, entry, datasets.load(name), written, out, media.compute)
    return store.Features.read(out)
