"""What is read back, damaged in every way: the quick part of `make test-faults`."""

import json
import os
import random
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from ibma.errors import IbmaError
from ibma.features import store
from ibma.files import atomic_file, read_arrays, read_json, write_json
from ibma.network.centroids import SUMS, InputAssignments, file_name
from ibma.training import checkpoint, predictions, record
from ibma.training.predictions import Predictions

from . import damage
from .branches import TEMPORARY, Branches
from .stored import digest
from .trial import Figures, attempt

SECONDS = 10.0


def spoilt(paths, use, counted, anew=False, most=3):
    """Damage files in every way; what reads them is to refuse, or to say what it always says."""
    figures, expected = Figures("quick"), attempt(use, SECONDS)
    assert expected.how == "done", expected.said
    for path in paths:
        content = path.read_bytes()
        for name, spoil in damage.of_file(path, random.Random(path.name), most):
            spoil(path)
            end = attempt(use, SECONDS)
            how = end.how
            if how == "done":
                same = end.result == expected.result
                how = ("rebuilt" if anew else "harmless") if same else "failed"
            elif how == "refused" and path.name not in end.said:
                how = "failed"  # it does not name the file
            figures.count(how, f"{path.name}: {name}", end.said)
            damage.remove(path)
            path.write_bytes(content)
    counted(figures)
    assert figures.ends["refused"] + figures.ends["rebuilt"] >= 0.8 * figures.ends.total()


@pytest.fixture
def features(fake_store, tmp_path):
    """A feature folder with its centroids, to be spoilt."""
    return shutil.copytree(fake_store("classify", 2, 0), tmp_path / "fake")


def test_features(features, counted):
    def use():
        found = store.Features.read(features)
        return digest(*found.arrays.values(), found.labels, found.ids, found.splits, found.meta)

    spoilt(sorted(p for p in features.iterdir() if p.is_file()), use, counted)


def test_centroids(features, counted):
    folder = features / "centroids"

    def use():
        meta = read_json(features / "meta.json", {})
        found = InputAssignments.read(folder / file_name(None), meta["digest"])
        return digest(found.prior, found.u, *found.phi.values())

    assert (folder / SUMS).exists()
    spoilt(sorted(folder.iterdir()), use, counted)


def test_predictions_and_checkpoints(tmp_path, counted):
    names = np.array([f"s{n}" for n in range(50)])
    said = Predictions(names, np.zeros((50, 1)), names, np.ones((50, 3), np.float16))
    said.write(tmp_path / "seed_0.npz")
    spoilt(
        [tmp_path / "seed_0.npz"],
        lambda: predictions.read(tmp_path / "seed_0.npz", said.digest).digest,
        counted,
    )
    kept = checkpoint.Checkpoint(tmp_path / "key.pt", "key")
    kept.write({"epoch": 3, "weights": torch.ones(4)})
    kept.close()

    def resume():
        found = checkpoint.Checkpoint(tmp_path / "key.pt", "key").read()
        assert found is None or digest(found["epoch"], found["weights"]) == digest(3, torch.ones(4))
        return "trained anew, or gone on"

    spoilt([tmp_path / "key.pt"], resume, counted, anew=True)


def test_json_between_stages(tmp_path, counted):
    path = tmp_path / "probe.json"
    rows = [{"method": "omib", "seed": n, "metrics": {"accuracy": 0.5 + n / 10}} for n in range(3)]
    write_json(path, rows)
    assert read_json(path, None) == rows
    spoilt([path], lambda: digest(read_json(path, None)), counted, most=20)
    write_json(path, {1: (2.5, None, "x")})
    assert read_json(path, None) == {"1": [2.5, None, "x"]}, "as JSON has it"
    reordered = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(reordered.items()))))
    assert read_json(path, None) == {"1": [2.5, None, "x"]}
    path.write_text(json.dumps(reordered["content"]))
    with pytest.raises(IbmaError, match="probe.json: damaged or changed"):
        read_json(path, None)


def test_a_bomb_of_arrays_is_refused_before_it_goes_off(tmp_path):
    (tmp_path / "bomb.npz").write_bytes(damage.bomb_npz())
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 20
    with pytest.raises(ValueError, match="it unpacks to 734,003,328 bytes, expected 268,435,456"):
        read_arrays(tmp_path / "bomb.npz", 1 << 28)


@pytest.mark.slow
def test_a_system_error_at_any_write_of_centroids_is_one_line_and_leaves_the_old_ones(
    make_cell, tmp_path, monkeypatch
):
    from ibma.network.centroids import write_all

    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    cell = replace(make_cell(), centroids=project / "centroids")

    def write() -> None:
        write_all(cell.open(), cell.problem(), cell.encoders, cell.assignment(), 3, cell.centroids)

    def left(tree):
        return {path.name: path.read_bytes() for path in (tree / "centroids").iterdir()}

    assert attempt(write).how == "done"
    before, branches = left(project), Branches(project)
    tried = attempt(lambda: branches.run(write))
    assert tried.how == "done" and len(tried.result) > 9 * len(before), tried.said
    for what, how, said, tree in tried.result:
        assert how in ("refused", "done"), (what, said)
        if "from then on" not in what:  # then nothing can be put back
            assert how == "done" or left(branches.trees / tree) == before, what
            there = {path.name for path in (branches.trees / tree).iterdir()}
            assert there <= {"centroids", ".centroids.old", TEMPORARY}, what


def test_a_record_in_another_s_place_is_not_read(tmp_path):
    (tmp_path / "seed_0.json").symlink_to("nowhere")
    with pytest.raises(IbmaError, match="seed_0.json: a link that leads nowhere"):
        record.read(tmp_path / "seed_0.json")


def test_a_file_whose_writer_was_killed_is_swept_away_by_the_next_one(tmp_path):
    path = tmp_path / "seed_0.json"
    with atomic_file(path) as ours:
        ours.write(b"ours")

        def killed() -> None:
            with atomic_file(path) as file:
                file.write(b"half")
                os.kill(os.getpid(), signal.SIGKILL)

        assert attempt(killed).how == "failed"
        assert len(list(tmp_path.iterdir())) == 2
        write_json(path, [1])
        assert len(list(tmp_path.iterdir())) == 2, "ours, whose writer lives, and the new file"
    assert path.read_bytes() == b"ours" and len(list(tmp_path.iterdir())) == 1
