"""`ibma predict` answers from what the network was trained on, and writes over nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import own_data
import pytest
import yaml

from ibma import paths
from ibma.commands import predict
from ibma.errors import IbmaError
from ibma.files import write_json
from ibma.training.cell import Setting

pytestmark = pytest.mark.slow
WEIGHTS = Path("models/train_ibma/clinic/ibma/seed_0")
MODALITIES = {
    "pic": {"kind": "image", "columns": ["pic"], "folder": "pictures"},
    "Hx": {"kind": "text", "columns": ["Hx"]},
    "ages": {"kind": "numbers", "columns": ["age", "X-ray file"]},
}


def shrink(path: Path) -> None:
    """Leave one network to train, of three modalities."""
    own_data.shrink(path)
    values = yaml.safe_load(path.read_text())
    values |= {"eta": 0.5, "seeds": 1}
    values["tables"]["clinic"]["modalities"] = MODALITIES
    values["tasks"]["clinic"]["encoders"]["ages"] = {"name": "mlp", "hidden": [8]}
    path.write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A project with a table, and a network trained on it."""
    folder = own_data.start(tmp_path_factory.mktemp("trained") / "project")
    own_data.write(folder, own_data.rows())
    run = [sys.executable, "-c", "from ibma.cli import main; main()"]
    here = Path(__file__).parent.parent / "src"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(here)}
    told = {"cwd": folder, "env": environment, "check": True, "capture_output": True}
    subprocess.run([*run, *own_data.NEW], **told)
    shrink(folder / "params.yaml")
    write_json(
        folder / paths.choice("clinic", "ibma"), {"choices": [Setting(1e-3, 1e-5, 0.5)._asdict()]}
    )
    for stage in ("tables", "extract", "centroids", "train_ibma"):
        subprocess.run([sys.executable, f"stages/{stage}.py", "clinic"], **told)
    return folder


@pytest.fixture
def project(trained, tmp_path, monkeypatch) -> Path:
    """A copy of that project, which a test may change."""
    folder = shutil.copytree(trained, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def write(output: str = "p.csv") -> str:
    return predict.write(WEIGHTS, Path("clinic.csv"), Path(output), [])


@pytest.mark.parametrize(
    ("block", "key", "name", "value"),
    [
        ("tables", "modalities", "ages", {"kind": "numbers", "columns": ["X-ray file", "age"]}),
        ("tables", "modalities", "Hx", {"kind": "text", "columns": ["Fold"]}),
        ("tasks", "features", "Hx", {"max_length": 8, "vocab_size": 32}),
        ("tasks", "features", "pic", {"size": 8}),
    ],
)
def test_rows_that_would_be_read_otherwise_than_in_training_are_refused(
    project, block, key, name, value
):
    """Each of these changes no array on the disk, and most would answer without a word."""
    assert write().endswith("60 rows predicted, 0 not")
    values = yaml.safe_load((project / "params.yaml").read_text())
    values[block]["clinic"][key][name] = value
    (project / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(IbmaError, match="stale.*run `dvc repro train_ibma@clinic`"):
        write()


@pytest.mark.parametrize(
    "name",
    [
        *("clinic.csv", "pictures/x7.png", "params.yaml", "profiles/clinic.yaml"),
        *(f"{WEIGHTS}.safetensors", "runs/train_ibma/clinic/ibma/seed_0.json"),
        *("data/features/clinic/meta.json", "hard", "soft"),
    ],
)
def test_what_is_read_is_not_written_over(project, name):
    os.link("pictures/x7.png", "hard")
    Path("soft").symlink_to("clinic.csv")
    before = Path(name).read_bytes()
    with pytest.raises(IbmaError, match=f"{name}: is an input, it would be lost"):
        write(name)
    assert Path(name).read_bytes() == before


def test_what_is_no_file_stays_and_a_link_is_followed(project):
    os.mkfifo("pipe")
    for name in ("pipe", "pictures"):
        with pytest.raises(IbmaError, match=f"{name}: is a folder, pipe or device"):
            write(name)
    assert Path("pipe").is_fifo()
    Path("old.csv").write_text("old")
    Path("link.csv").symlink_to("old.csv")
    write("link.csv")
    assert Path("link.csv").is_symlink() and Path("old.csv").read_text().startswith("id,predicted")
