"""`ibma predict` answers from what the network was trained on, and writes over nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import own_data
import pytest
import yaml

import ibma
from ibma import paths
from ibma.commands import predict
from ibma.errors import IbmaError
from ibma.features.store import StoredModality
from ibma.files import write_json
from ibma.network import tasks
from ibma.tables.reader import TableData
from ibma.training.cell import Setting

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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


# --- without a trained network -------------------------------------------------------------------


def network(kind: str, classes: str, **more: object) -> predict.Network:
    """A network of a task, whose table has numbers from 0 to 10 and files in a folder."""
    spec = own_data.spec().model_copy(update={"range": (0.0, 10.0)} | more)
    return predict.Network(
        record=SimpleNamespace(key="key"),
        model=None,
        problem=tasks.build(kind, classes.split()),
        trained=SimpleNamespace(
            meta={},
            modalities={n: StoredModality("vector", (2,), "float32") for n in ("left", "right")},
            labels=np.zeros((9, 1)),
        ),
        table=TableData("clinic", spec),
        entry=None,
        device=None,
    )


@pytest.mark.parametrize(
    ("kind", "classes", "more", "chances", "said"),
    [
        ("classify", "a b c", {}, (0.2, 0.5, 0.3), "b"),
        ("multilabel", "a b c", {}, (0.5, 0.49, 0.9), "a;c"),
        ("multilabel", "a b c", {"separator": " | "}, (0.7, 0.6, 0.1), "a | b"),
        ("multilabel", "a b c", {}, (0.1, 0.2, 0.3), ""),
        # -1.5 of -3 to 3 is a quarter of the way from 0 to 10
        ("sentiment", "-3 -2 -1 0 1 2 3", {}, (0, 0.5, 0.5, 0, 0, 0, 0), "2.5"),
    ],
)
def test_an_answer_is_written_as_the_column_of_labels_is(kind, classes, more, chances, said):
    assert network(kind, classes, **more)._answer(np.array(chances)) == said


def test_every_row_has_a_line_in_its_place_whether_it_was_predicted_or_not(monkeypatch):
    chances = {"one": [0.25, 0.75], "three": [1.0, 0.0]}
    found = network("classify", "a b")
    monkeypatch.setattr(
        predict.Network, "_probabilities", lambda _, rows: np.array([chances[r.id] for r in rows])
    )
    rows = [predict.Row("one"), predict.Row("two", reason="gone"), predict.Row("three")]
    assert found.header == ["id", "predicted", "p(a)", "p(b)", "reason", "record", "ibma"]
    assert list(found.predict(rows)) == [
        ["one", "b", "0.250000", "0.750000", "", "key", ibma.__version__],
        ["two", "", "", "", "gone", "key", ibma.__version__],
        ["three", "a", "1.000000", "0.000000", "", "key", ibma.__version__],
    ]
    assert [line[4] for line in found.predict(rows[1:2])] == ["gone"], "and nothing to compute"


def test_rows_are_stored_as_in_training_and_know_what_they_lack():
    one, two = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    rows = [
        predict.Row("a", {"left": one}),
        predict.Row("b", {"left": two, "right": one}),
        predict.Row("c", {"left": one, "right": two}),
    ]
    found = network("classify", "a b")._features(rows)
    assert found.ids == ["a", "b", "c"] and found.labels.shape == (3, 1)
    assert found.arrays["left"].tolist() == [[1, 2], [3, 4], [1, 2]]
    assert found.arrays["right"].tolist() == [[0, 0], [1, 2], [3, 4]]
    assert found.arrays["right"].dtype == np.float32
    assert {name: one.tolist() for name, one in found.present.items()} == {
        "right": [False, True, True]
    }


def test_files_may_lie_in_another_folder_than_those_of_training():
    table = network("classify", "a b").table
    moved = predict._moved(table, ["pic=elsewhere=here"])
    assert moved["pic"].folder == "elsewhere=here" and moved["Hx"] == table.spec.modalities["Hx"]
    assert table.spec.modalities["pic"].folder == "pictures", "the table itself stays"
    for wrong in ("pic", "Hx=a", "none=a"):
        with pytest.raises(IbmaError, match=f"--folder {wrong}: expected MODALITY=FOLDER of pic$"):
            predict._moved(table, [wrong])
