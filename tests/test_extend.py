"""Adding a data set or a method is one file and one params.yaml entry: done here, for real."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent

DATASET = '''
"""Throw-away data set."""
from ibma.datasets import Card, Counts, Sample

CARD = Card(title="Parity", kind="classify", classes=("even", "odd"),
            modalities={"a": "vector", "b": "vector"}, licence="none", access="builtin",
            official=Counts(40, 20), cite="none")
FILES = ()


def samples(raw, *, on_bad="stop"):
    for i in range(60):
        y = i % 2
        split = "test" if i % 3 == 0 else "train"
        yield Sample(str(i), split, f"g{i % 20}", y, {"a": (y, i / 60), "b": (1 - y, 0.5)})
'''

METHOD = '''
"""Throw-away method: mean of the embeddings."""
import torch
from torch import nn

from ibma.network.method import Method, Output


class Model(Method):
    """One linear head on the mean embedding, `scale` times."""

    def __init__(self, spec, *, scale=1.0):
        super().__init__(spec)
        self.scale = scale
        self.head = nn.Linear(spec.width, spec.task.outputs)

    def forward(self, x):
        z = self.encode(x)
        fused = self.scale * torch.stack(list(z.values())).mean(0)
        return Output(z, fused, self.head(fused), {})
'''


def copy_of_the_project(tmp_path: Path) -> Path:
    for folder in ("src", "stages"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "src/ibma/datasets/parity.py").write_text(DATASET)
    (tmp_path / "src/ibma/methods/mean.py").write_text(METHOD)
    values = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    mlp = {"name": "mlp", "hidden": [8]}
    values["datasets"] = {"parity": {"source": "real"}}
    values["tasks"] = {
        "parity": {
            "dataset": "parity",
            "batch_size": 16,
            "options": {},
            "on_bad": "stop",
            "features": {},
            "encoders": {"a": mlp, "b": mlp},
        }
    }
    values["train"] = {"mean": {"scale": 2.0}}
    values["ablation"] = values["bounds"] = {}
    values["keep_weights"] = ["ibma"]
    values["seeds"] = 1
    for stage in ("timing", "sensitivity"):
        values[stage]["task"] = "parity"
    values["probe"] = {"task": "parity", "methods": ["ibma"]}
    values["regimes"] |= {"tasks": [], "forms": ["ibma"], "control": "mean"}
    values["noise"] |= {"tasks": {}, "methods": ["mean"]}
    values["gradcam"] = {"tasks": {}, "methods": [], "examples": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return tmp_path


# The libraries that take long to import. Not among them: numpy, yaml, tqdm.
HEAVY = {
    *("torch", "faiss", "sklearn", "scipy", "pandas", "statsmodels", "transformers", "mlflow"),
    *("matplotlib", "PIL", "av", "h5py", "pooch", "requests", "typer"),
}
RUN_AND_TELL = """
import json, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, "stages")  # as Python does for a script
runpy.run_path(sys.argv[0], run_name="__main__")
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def run(root: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stage(root: Path, name: str, *arguments: str) -> set[str]:
    """Run a stage and return the heavy libraries that it imported on its way."""
    told = run(root, "-c", RUN_AND_TELL, f"stages/{name}.py", *arguments)
    return HEAVY & set(json.loads(told.splitlines()[-1]))


@pytest.mark.slow
def test_a_new_data_set_and_a_new_method_walk_through_every_floor(tmp_path):
    """And no floor imports what it does not use: every stage is a process of its own."""
    root = copy_of_the_project(tmp_path)
    run(root, "-m", "dvc", "init", "--no-scm", "-q")
    stages = run(root, "-m", "dvc", "stage", "list", "--name-only").split()
    for name in ("download", "extract", "train", "train_ibma"):
        assert any(one.startswith(f"{name}@parity") for one in stages)
    assert stage(root, "download", "parity") == set()
    assert stage(root, "extract", "parity") == set()
    assert stage(root, "centroids", "parity") == {"torch", "faiss"}
    judging = {"torch", "sklearn", "scipy", "pandas"}  # metrics are scikit-learn's, it takes pandas
    assert stage(root, "tune", "parity") <= judging
    assert stage(root, "train", "parity") <= judging
    assert stage(root, "train_ibma", "parity") <= judging
    assert stage(root, "train", "parity") == {"torch"}, "its records are finished"
    for of, method in (("train", "mean"), ("train_ibma", "ibma")):
        record = json.loads((root / f"runs/{of}/parity/{method}/seed_0.json").read_text())
        assert record["metrics"]["accuracy"] > 0.5
        assert record["params"].get("scale") == (2.0 if method == "mean" else None)
