"""Committed evidence is laid out only if it is whole, and only where it belongs."""

import io
import json
import lzma
import os
import shutil
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import record_of, unsynced

from ibma import files, paths
from ibma.errors import IbmaError
from ibma.evidence import archive
from ibma.params import load
from ibma.results import records
from ibma.training import predictions, record
from ibma.training.predictions import Predictions
from ibma.training.record import Record

ROOT = Path(__file__).parent.parent
LINES = "runs/train/split_digits/concat.jsonl.xz"
SEEDS = 2


def fake(seed: int, **changed) -> Record:
    values = {
        "key": f"{seed:064x}",
        "profile": "open",
        "stage": "train",
        "task": "split_digits",
        "method": "concat",
        "seed": seed,
        "source": "real",
        "n_train": 1347,
        "n_test": 450,
        "params": {"lr": 1e-05, "weight_decay": 0.1 + 0.2, "eta": None, "weight_factor": 1.0},
        "tuned": {"points": [[1e-05, 0.1 + 0.2]], "folds": 3, "epochs": 4, "by": "accuracy"},
        "metrics": {"accuracy": 1 / 3},
        "history": {"ce": [5e-324, 2.0]},
        "environment": {"device": "cpu", "instructions": "native", "threads": 1},
        "provenance": {},
    }
    return record_of(**(values | changed))


def line(content: object) -> str:
    return json.dumps(content, separators=(",", ":"))


def sums(held: Path) -> None:
    """Write the manifest of whatever lies in the folder."""
    files = [p for p in held.rglob("*") if p.is_file() and p.name != archive.SUMS]
    text = "".join(
        f"{sha256(p.read_bytes()).hexdigest()}  {p.relative_to(held).as_posix()}\n" for p in files
    )
    (held / archive.SUMS).write_text(text)


CHOICE = {"metric": "accuracy", "choices": [], "scores": []}  # of stage `tune`


LINES_OF_RUNS = "".join(f"{line(asdict(fake(seed)))}\n" for seed in range(SEEDS))


@pytest.fixture
def held(tmp_path):
    """Evidence of two runs of one method, and of what stage tune chose for it."""
    held = tmp_path / "evidence"
    raw = yaml.safe_load((ROOT / "profiles/open.yaml").read_text())
    raw["tasks"] = {"split_digits": raw["tasks"]["split_digits"]}
    raw["seeds"] = SEEDS
    for block in ("sensitivity", "timing", "probe"):
        raw[block]["task"] = "split_digits"
    raw["regimes"]["tasks"], raw["noise"]["tasks"] = [], {}
    contents = {
        "params.yaml": yaml.safe_dump(raw),
        LINES: lzma.compress(LINES_OF_RUNS.encode()),
        "data/tune/split_digits/concat.json.xz": lzma.compress(line(CHOICE).encode()),
    }
    for name, text in contents.items():
        (held / name).parent.mkdir(parents=True, exist_ok=True)
        (held / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    sums(held)
    return held


def test_records_come_back_digit_for_digit(held, tmp_path):
    archive.unpack(held, tmp_path / "root")
    folder = tmp_path / "root/runs/train/split_digits/concat"
    assert [record.read(folder / f"seed_{seed}.json") for seed in range(SEEDS)] == [
        fake(seed) for seed in range(SEEDS)
    ]
    for number, text in enumerate(LINES_OF_RUNS.splitlines()):
        assert (folder / f"seed_{number}.json").read_text() == f"{text}\n"


def test_of_two_that_pack_at_once_the_second_leaves_in_one_line(held, tmp_path):
    root, out = tmp_path / "root", tmp_path / "root/reports/open/evidence"
    archive.unpack(held, root)
    profile = load(root / "params.yaml")
    with files.held(root / "reports"), pytest.raises(IbmaError, match="another process is writing"):
        archive.pack(profile, root, out)
    assert not out.exists()
    archive.pack(profile, root, out)
    assert not [path for path in (root / "reports").rglob("*.lock")]
    archive.unpack(out, tmp_path / "again")


def said(seed: int) -> Predictions:
    """Predictions of the digits' test rows; ids, labels and groups are those of every seed."""
    draw = np.random.default_rng(seed)
    ids, labels = np.array([str(row) for row in range(450)]), np.arange(450.0)[:, None] % 10
    return Predictions(ids, labels, ids, draw.normal(size=(450, 10)).astype(np.float16))


def test_predictions_come_back_to_the_last_bit_and_cost_little(tmp_path):
    params = load(ROOT / "profiles/open.yaml")
    runs = [fake(seed, predictions=said(seed).digest) for seed in range(10)]
    held = {run.id: said(run.seed) for run in runs}
    results = records.Results(params, {}, {}, {}, held)
    packed = archive._pack_predictions(results, runs)
    assert len(packed) < 1.02 * sum(one.scores.nbytes for one in held.values())
    for run in runs:
        run.write(tmp_path / run.id.record)
    cell = ("train", "split_digits", "concat")
    archive._unpack_predictions(Path("concat.npz.xz"), packed, cell, tmp_path)
    for run in runs:
        assert record.read(tmp_path / run.id.record) == run
        assert predictions.read(tmp_path / run.id.predictions, run.predictions).digest
    assert archive._pack_predictions(results, [fake(11)]) == b""


def test_predictions_without_their_record_are_refused(held, tmp_path):
    run, place = fake(0, predictions=said(0).digest), held / LINES.replace(".jsonl.xz", ".npz.xz")
    results = records.Results(load(ROOT / "profiles/open.yaml"), {}, {}, {}, {run.id: said(0)})
    packed = archive._pack_predictions(results, [run])
    for content in (packed, packed[:-40], b"", lzma.compress(b"none")):
        place.write_bytes(content)
        sums(held)
        with pytest.raises(IbmaError, match=r"concat\.npz\.xz: not predictions") as caught:
            archive.unpack(held, tmp_path / "root")
        assert "\n" not in str(caught.value)
        shutil.rmtree(tmp_path / "root")


def test_records_that_do_not_unpack_are_refused(held, tmp_path, monkeypatch):
    monkeypatch.setattr("ibma.files.UNPACKED", 100_000)
    whole = (held / LINES).read_bytes()
    bomb = lzma.compress(b" " * 1_000_000)
    for content in (whole[:-20], b"", b"none", whole + whole, LINES_OF_RUNS.encode(), bomb):
        (held / LINES).write_bytes(content)
        sums(held)
        with pytest.raises(IbmaError, match=r"concat\.jsonl\.xz: not packed records") as caught:
            archive.unpack(held, tmp_path / "root")
        assert "\n" not in str(caught.value)
        shutil.rmtree(tmp_path / "root")


def test_the_committed_evidence_is_whole(tmp_path):
    held = ROOT / paths.evidence("open")
    with unsynced():
        archive.unpack(held, tmp_path)
    params = load(tmp_path / "params.yaml")
    assert params.profile == "open"
    results = records.load(params, tmp_path, check_keys=False)
    assert len(results.all()) == 4880 and not results.gaps


def test_what_the_manifest_does_not_list_is_refused(held, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "seed.json").write_text("{}")
    damage = {
        "changed": lambda: (held / LINES).write_bytes(lzma.compress(b"{}")),
        "taken away": lambda: (held / LINES).unlink(),
        "added": lambda: (held / "data/probe.json.xz").write_text("[]"),
        "hidden": lambda: (held / "runs/.more").write_text(""),
        "no manifest": lambda: (held / archive.SUMS).unlink(),
        "empty manifest": lambda: (held / archive.SUMS).write_text(""),
        "bytes for a manifest": lambda: (held / archive.SUMS).write_bytes(b"\xff\x00  \n\n"),
        "no parameters": lambda: (held / "params.yaml").unlink(),
        "a linked file": lambda: (held / "data/probe.json.xz").symlink_to(elsewhere / "seed.json"),
        "a linked folder": lambda: (held / "data/features").symlink_to(elsewhere),
        "a pipe": lambda: os.mkfifo(held / "data/probe.json.xz"),
    }
    whole = tmp_path / "whole"
    shutil.copytree(held, whole)
    for name, do in damage.items():
        shutil.rmtree(held)
        shutil.copytree(whole, held)
        do()
        with pytest.raises(IbmaError) as caught:
            archive.unpack(held, tmp_path / "root")
        assert "\n" not in str(caught.value) and "`git checkout`" in str(caught.value), name
        assert not (tmp_path / "root").exists(), f"{name}: something was laid out"


def test_a_line_that_does_not_belong_is_refused_and_nothing_leaves_the_folder(held, tmp_path):
    good = asdict(fake(0))
    wrong = {
        **{
            f"seed {seed!r}": line(good | {"seed": seed}) for seed in ("/../../../../x", -1, 2, 1.0)
        },
        **{
            f"seed {seed!r}": line(good | {"seed": seed}) for seed in (True, None, "0", [0], 10**60)
        },
        "stage": line(good | {"stage": "../../up"}),
        "task": line(good | {"task": "ravdess"}),
        "method": line(good | {"method": ["concat"]}),
        "no seed": line({"stage": "train", "task": "split_digits", "method": "concat"}),
        "no mapping": "[1]",
        "no JSON": "{",
        "empty": "",
        "depth": "[" * 100_000,
        "digits": '{"seed":' + "1" * 5000 + "}",
        "bytes": "\udcff",
        "twice": f"{line(good)}\n{line(good)}",
    }
    for name, text in wrong.items():
        packed = lzma.compress(f"{text}\n".encode(errors="surrogateescape"))
        (held / LINES).write_bytes(packed)
        sums(held)
        before = set(tmp_path.rglob("*"))
        with pytest.raises(IbmaError, match=r"concat\.jsonl\.xz: line \d: ") as caught:
            archive.unpack(held, tmp_path / "root")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500, name
        made = set(tmp_path.rglob("*")) - before
        assert all(path.is_relative_to(tmp_path / "root") for path in made), name
        shutil.rmtree(tmp_path / "root")


def test_a_listed_file_that_the_profile_does_not_have_is_refused(held, tmp_path):
    for cell in ("train/split_digits/gone", "bounds/split_digits/concat"):
        name = f"runs/{cell}.jsonl.xz"
        (held / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(held / LINES, held / name)
        sums(held)
        with pytest.raises(IbmaError, match=f"{name}: profile open has no such file"):
            archive.unpack(held, tmp_path / "root")
        (held / name).unlink()
    (tmp_path / "x").write_text("1")
    with (held / archive.SUMS).open("a") as file:
        file.write(f"{sha256(b'1').hexdigest()}  ../x\n")
    with pytest.raises(IbmaError, match="not what SHA256SUMS lists"):
        archive.unpack(held, tmp_path / "root")


def write_lines(held: Path, *texts: str) -> None:
    (held / LINES).write_bytes(lzma.compress("".join(f"{text}\n" for text in texts).encode()))
    sums(held)


def signed(**changed: object) -> str:
    """A record as a careful forger writes it."""
    content = asdict(fake(0)) | changed
    return line(content | {"digest": record.digest_of(content)})


def test_a_record_that_no_training_writes_is_refused(held, tmp_path):
    """Reports read it without a question, and would end in a traceback or a wrong number."""
    honest = line(asdict(fake(0)))
    wrong = {
        "its digest does not fit": honest.replace('"n_train":1347', '"n_train":1348'),
        "stands there twice": honest.replace('"n_train"', '"n_train":9,"n_train"'),
        "is not finite": honest.replace('"n_train":1347', '"n_train":1e400'),
        "metrics.accuracy": signed(metrics={"accuracy": "0.9"}),
        "metrics:": signed(metrics=None),
        "n_train": signed(n_train=1.5),
        "params.lr": signed(params={"weight_decay": 0.0}),
        "tuned.points": signed(tuned={}),
        "history.task.0": signed(history={"task": [None]}),
        "environment.device": signed(environment={}),
        "provenance.git_commit": signed(provenance={"git_commit": []}),
        "note": signed(note="mine"),
    }
    for name, text in wrong.items():
        write_lines(held, text)
        with pytest.raises(IbmaError, match=rf"jsonl\.xz: line 1: .*{name}.*`git") as caught:
            archive.unpack(held, tmp_path / "root")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500, name
        shutil.rmtree(tmp_path / "root")


def test_what_unpacks_to_much_is_refused_before_it_is_read(held, tmp_path, monkeypatch):
    arrays = io.BytesIO()
    np.savez_compressed(arrays, **{"0/scores": np.zeros((100_000, 8))})
    bombs = {
        "expected 100 at most": (LINES, LINES_OF_RUNS.encode(), ("TEXT", 100)),
        "it unpacks to": (LINES.replace(".jsonl", ".npz"), arrays.getvalue(), ("TEXT", 1 << 24)),
        "bytes: expected 1,000 at most": (LINES, LINES_OF_RUNS.encode(), ("LARGEST", 1000)),
    }
    for told, (name, content, limit) in bombs.items():
        (held / name).write_bytes(lzma.compress(content))
        sums(held)
        monkeypatch.setattr(archive, *limit)
        with pytest.raises(IbmaError, match=told):
            archive.unpack(held, tmp_path / "root")
        shutil.rmtree(tmp_path / "root", ignore_errors=True)


def test_a_manifest_names_each_file_once(held, tmp_path):
    text = (held / archive.SUMS).read_text()
    (held / archive.SUMS).write_text(f"{'0' * 64}  {LINES}\n{text}")
    with pytest.raises(IbmaError, match="SHA256SUMS: lists a file twice"):
        archive.unpack(held, tmp_path / "root")


def test_a_task_without_data_has_no_runs(held, tmp_path):
    absent = {"task": "split_digits", "dataset": "split_digits", "missing": "no folder"}
    path = held / "data/features/split_digits/meta.json.xz"
    path.parent.mkdir(parents=True)
    path.write_bytes(lzma.compress(line(absent).encode()))
    sums(held)
    with pytest.raises(IbmaError, match=r"concat\.jsonl\.xz: runs of a task .*\(no folder\)"):
        archive.unpack(held, tmp_path / "root")
