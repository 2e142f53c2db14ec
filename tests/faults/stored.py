"""A small project after every stage, and what reads each of its files back."""

import hashlib
import importlib
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from ibma import IBMAClassifier, datasets, fetch, params, paths, tracking
from ibma.errors import IbmaError
from ibma.evidence import archive, verify
from ibma.experiments import gradcam, logistic, probe, runs, timing, tune
from ibma.features import extract as extraction
from ibma.features import media, store
from ibma.files import write_json
from ibma.formats import checksums
from ibma.network.centroids import write_all
from ibma.paper import audit, published
from ibma.report import inputs as report_inputs
from ibma.report import numbers, page
from ibma.results import records, significance
from ibma.training import loop, record, run
from ibma.training.cell import Cell, setting_of

from . import damage
from .trial import Figures, attempt

ROOT = Path(__file__).parents[2]
TASK = "split_digits"


def profile() -> dict:
    """Profile `twin` cut down to the digits, four methods, two seeds, two epochs."""
    values = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    for name in ("datasets", "tasks"):
        values[name] = {TASK: values[name][TASK]}
    values |= {
        "train": {"concat": {}},
        "train_ibma": {"ibma": {}},
        "bounds": {"ibma_vib": {"method": "ibma", "bound": "vib"}},
        "ablation": {"ce3": {}},
        "seeds": 2,
        "keep_weights": ["ibma"],
        "engine": {"name": "processes", "workers": 1, "processes": 1, "options": {}},
    }
    values["training"]["epochs"] = 2
    values["tasks"][TASK]["batch_size"] = 256
    grid = {"lr": [0.001], "weight_decay": [1e-5], "eta": [0.5], "weight_factor": [1]}
    values["tune"] |= {"folds": 2, "epochs": 1, "grid": grid}
    values["timing"] = {"task": TASK, "rounds": 2}
    values["sensitivity"] = {"task": TASK, "methods": ["ibma"], "etas": [0.5]}
    values["probe"] = {"task": TASK, "methods": ["ibma"]}
    values["gradcam"] |= {"tasks": {}, "methods": ["ibma"]}
    values["noise"] |= {"tasks": {TASK: "left"}, "methods": ["ibma"], "levels": [2.0]}
    values["regimes"] |= {"tasks": [TASK], "forms": ["ibma"], "betas": [1.0]}
    return values


def load() -> params.Params:
    return params.load(Path("params.yaml"))


# --- stages, each as its script runs it ----------------------------------------------------------


def download() -> None:
    raw = paths.RAW / TASK
    manifest = fetch.dataset(TASK, "real", raw)
    reader = checksums.sha256(Path(str(datasets.load(TASK).__file__)))
    write_json(paths.manifest(TASK), manifest | {"reader": reader})


def features() -> None:
    entry = load().task(TASK).extraction()
    raw, out = paths.RAW / TASK, paths.FEATURES / TASK
    fetch.restore(TASK, raw, fetch.read_manifest(TASK))
    key = checksums.sha256(paths.manifest(TASK))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "BLOCK", 600)  # entries of a part: three parts, each as any other
        extraction.extract(
            TASK, entry, datasets.load(TASK), raw, out, media.compute, key=key, workers=1
        )


def centroids() -> None:
    cell = Cell.of(load(), TASK, "ibma")
    folder = paths.CENTROIDS / TASK
    write_all(cell.open(), cell.problem(), cell.encoders, cell.assignment(), 8, folder)


def tuned() -> None:
    tune.tune_task(load(), TASK)


def trained(stage: str) -> Callable[[], None]:
    return lambda: runs.train_stage(load(), stage, TASK)


def studied(stage: str) -> Callable[[], None]:
    return lambda: runs.train_study(load(), stage, TASK)


def probed() -> None:
    probe.probe_encoders(load())


def line() -> None:
    logistic.judge_task(TASK)


def tested() -> None:
    profile = load()
    found = significance.run(profile, records.load(profile), published.load())
    write_json(paths.SIGNIFICANCE, significance.to_json(found))


def audited() -> None:
    write_json(paths.AUDIT, [asdict(check) for check in audit.run(published.load())])


def timed() -> None:
    timing.time_methods(load())


def explained() -> None:
    gradcam.explain_tasks(load())


def reported() -> None:
    page.write(load(), Path())


def tracked() -> None:
    """Mirror all records; what MLflow fails with is printed, and no error of the stage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        done, place = tracking.collect(load()), tracking.store.shown(Path())
    if why := done.down or next(iter(done.failed.values()), ""):
        raise IbmaError(f"MLflow at {place} {why}")


STAGES: dict[str, Callable[[], None]] = {
    "download": download,
    "extract": features,
    "centroids": centroids,
    "tune": tuned,
    "train": trained("train"),
    "train_ibma": trained("train_ibma"),
    "ablation": trained("ablation"),
    "bounds": trained("bounds"),
    "sensitivity": studied("sensitivity"),
    "regimes": studied("regimes"),
    "noise": studied("noise"),
    "probe": probed,
    "logistic": line,
    "significance": tested,
    "audit": audited,
    "timing": timed,
    "gradcam": explained,
    "report": reported,
    "track": tracked,
}


def make(root: Path) -> Path:
    """Run every stage in a new project below `root`, and write what reports and strangers read."""
    project = root / "project"
    project.mkdir()
    os.chdir(project)
    Path("params.yaml").write_text(yaml.safe_dump(profile(), sort_keys=False))
    tracking.store.silence()
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")  # once, and not in each trial
    write_json(paths.TRACK, {f"runs/train/{TASK}/concat/seed_0.json": "0" * 32})
    for name, stage in STAGES.items():
        if name != "track":
            stage()
    archive.pack(load(), Path(), paths.evidence("twin"))
    views, y = _views()
    IBMAClassifier(epochs=2, width=16, heads=2, random_state=0).fit(views, y).save("estimator")
    leave_checkpoint()
    return project


def leave_checkpoint() -> None:
    """Train a run with a checkpoint after each epoch; whoever stores a run deletes the last one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        read_checkpoint()


def _views() -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng, y = np.random.default_rng(0), np.arange(30) % 3
    return {name: np.eye(3)[y] + 0.4 * rng.normal(size=(30, 3)) for name in ("left", "right")}, y


# --- what reads files back ----------------------------------------------------------------------


def digest(*values: object) -> str:
    """Return a digest of what was read, arrays included."""
    found = hashlib.sha256()
    for value in values:
        if hasattr(value, "numpy"):
            value = value.detach().numpy()
        found.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return found.hexdigest()


def read_features() -> str:
    """Read features and centroids as a run does."""
    store._opened.cache_clear()
    cell = Cell.of(load(), TASK, "ibma")
    features, inputs = cell.open(), cell.inputs(0)
    arrays = [features.arrays[name] for name in sorted(features.arrays)]
    given = (features.labels, features.ids, features.splits, features.groups, dict(features.meta))
    computed = [inputs.phi[name] for name in sorted(inputs.phi)] + [inputs.prior, inputs.u]
    computed += [getattr(v, n) for v in inputs.vectors.values() for n in ("array", "mean", "scale")]
    return digest(*arrays, *given, *computed)


def read_runs() -> str:
    """Bring stage `train_ibma` up to date; return what its records say but when and where."""
    store._opened.cache_clear()
    trained("train_ibma")()
    found = [record.read(path) for path in sorted(Path("runs/train_ibma").rglob("*.json"))]
    return digest(*(replace(one, provenance={}, digest="-") for one in found))


def read_choices() -> str:
    tuned()
    return digest(*(path.read_bytes() for path in sorted(paths.TUNING.rglob("*.json"))))


def read_results() -> str:
    """Read all that a report is made of."""
    found = report_inputs.load(load())
    said = [one.arrays() for one in found.results.predictions.values()]
    rest = {name: getattr(found, name) for name in vars(found) if name not in ("results", "paper")}
    return digest(found.results.runs, rest, *(a for one in said for a in one.values()))


def read_networks() -> str:
    import torch

    profile, device = load(), torch.device("cpu")
    found = probe.current_runs(profile, TASK, ["ibma"], range(2))
    networks = [probe.restore(cell, one, one.id.weights, device) for cell, one in found]
    return digest(*(value for network in networks for value in network.state_dict().values()))


def read_manifest() -> str:
    manifest = fetch.read_manifest(TASK)
    fetch.restore(TASK, paths.RAW / TASK, manifest)
    return digest(manifest)


def read_evidence() -> str:
    out = Path("unpacked")
    archive.unpack(paths.evidence("twin"), out)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return digest(*((path.name, path.read_bytes()) for path in files))


def read_forged() -> str:
    """Read evidence whose list of checksums a forger has made anew."""
    held = paths.evidence("twin")
    files = sorted(p for p in held.rglob("*") if p.is_file() and p.name != archive.SUMS)
    sums = [
        f"{checksums.sha256(path)}  {path.relative_to(held).as_posix()}\n"
        for path in files
        if not path.is_symlink()
    ]
    (held / archive.SUMS).write_text("".join(sums))
    found = verify.read("twin", Path())[0]
    places = [*verify._compare_records(found), *_numbers(verify.report_inputs.rederive(found))]
    return digest([one for one in places if one.committed != one.recomputed])


def read_estimator() -> str:
    return digest(IBMAClassifier.load("estimator").predict_proba(_views()[0]))


def read_profile() -> str:
    return digest(load())


def read_report() -> str:
    """Compare the numbers of a report with those that are there."""
    found = _numbers(report_inputs.load(load()))
    return digest([one for one in found if one.committed != one.recomputed])


def _numbers(found: report_inputs.Inputs) -> list[verify.Difference]:
    return list(verify._compare(paths.REPORTS / "twin", numbers.build(found)))


def read_checkpoint() -> str:
    profile = load()
    cell = Cell.of(profile, TASK, "concat")
    variant = profile.trained_as("train", TASK, "concat")
    one = run.train_run(cell, 0, setting_of(TASK, variant, 0), quiet=True).record
    return digest(replace(one, provenance={}, digest="-"))


@dataclass(frozen=True)
class Target:
    """Files of a kind, what reads them back, and whether that is to make them anew."""

    kind: str
    pattern: str
    use: Callable[[], str]
    files: int = 3  # of the pattern, drawn
    anew: bool = False
    differs: bool = False  # another result is what it is for: `ibma verify` lists differences


TARGETS = (
    Target("features", f"data/features/{TASK}/*", read_features, 9),
    Target("centroids", f"data/centroids/{TASK}/*", read_features, 9),
    Target("manifests", "data/manifests/*.json", read_manifest),
    Target("params.yaml", "params.yaml", read_profile),
    Target("choices", f"data/tune/{TASK}/ibma.json", read_runs, 1),
    Target("choices", f"data/tune/{TASK}/*.json", read_results, 1),
    Target("trials", "data/store/*/*.json", read_choices, 2, anew=True),
    Target("store: records", "data/store/*/*.json", read_runs, 2, anew=True),
    Target("store: predictions", "data/store/*/*.npz", read_runs, 2, anew=True),
    Target("store: weights", "data/store/*/*.safetensors", read_runs, 1, anew=True),
    Target("records", "runs/train*/*/*/*.json", read_results, 2),
    Target("predictions", "runs/*/*/*/*.npz", read_results, 2),
    Target("weights", f"models/train_ibma/{TASK}/ibma/*", read_networks, 2),
    Target("data/*.json", "data/*.json", read_results, 6),
    Target("data/logistic", "data/logistic/*.json", read_results, 1),
    Target("evidence", "reports/twin/evidence/**/*", read_evidence, 4),
    Target("forged evidence", "reports/twin/evidence/runs/**/*", read_forged, 1, differs=True),
    Target("saved estimators", "estimator/*", read_estimator, 2),
    Target("reports", "reports/twin/tables/*", read_report, 1, differs=True),
    Target("reports", "reports/twin/metrics/*", read_report, 1, differs=True),
    Target("checkpoints", "data/scratch/*.pt", read_checkpoint, 1, anew=True),
)


def attack(target: Target, project: Path, rng: random.Random, most: int = 6) -> Figures:
    """Damage files of a kind, one at a time, in every way; count how reading them back ended."""
    figures = Figures(target.kind)
    os.chdir(project)
    expected = attempt(target.use)
    assert expected.how == "done", f"{target.kind}: {expected.said}"
    found = sorted(path for path in Path().glob(target.pattern) if path.is_file())
    assert found, target.pattern
    for path in rng.sample(found, min(target.files, len(found))):
        for name, spoil in damage.of_file(path, rng, most):
            copy = project.with_name("copy")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(project, copy, symlinks=True, copy_function=os.link)
            os.chdir(copy)
            spoil(path)
            before = _state(path)
            end = attempt(target.use)
            how = _judge(target, path, expected.result, end, before)
            outside = {p.name for p in project.parent.iterdir()} - {"project", "copy"}
            if outside:
                how, end = "failed", replace(end, said=f"wrote outside: {outside}")
            figures.count(how, f"{path}: {name}", end.said)
            os.chdir(project)
    return figures


def _state(path: Path) -> object:
    if path.is_symlink() or not path.is_file():
        return path.lstat().st_ino, path.lstat().st_mode
    return path.read_bytes()


def _judge(target: Target, path: Path, expected: object, end, before: object) -> str:
    if end.how != "done":
        return end.how
    changed = not (path.exists() or path.is_symlink()) or _state(path) != before
    if end.result == expected:
        return "rebuilt" if changed or target.anew else "harmless"
    return "refused" if target.differs else "failed"
