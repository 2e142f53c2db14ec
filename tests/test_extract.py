"""The extract stage: what is kept, what is dropped, what stops."""

import csv
import errno
import math
import os
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import slow_extraction
from conftest import fake_dataset, vector

from ibma.datasets import Dropped, Sample
from ibma.errors import IbmaError
from ibma.features import extract as extraction
from ibma.features import meta, store


def extract(tmp_path: Path, dataset, compute=vector, *, workers=1, key="", **entry) -> Path:
    out = tmp_path / "features"
    entry = {"dataset": "fake", "options": {}, "features": {}} | entry
    extraction.extract("fake", entry, dataset, tmp_path, out, compute, key=key, workers=workers)
    return out


def unreadable_s3(kind, part, params):
    if not hasattr(unreadable_s3, "calls"):
        unreadable_s3.calls = 0
    unreadable_s3.calls += 1
    if unreadable_s3.calls == 7:
        raise IbmaError("s3.wav: truncated: fetch it again")
    return vector(kind, part, params)


def test_features_come_back_with_every_sample_and_what_was_dropped(tmp_path):
    features = store.Features.read(extract(tmp_path, fake_dataset()))
    assert features.meta["source"] == "real" and features.meta["dropped"] == 1
    assert len(features.ids) == 72 and features.arrays["view0"].shape == (72, 3)
    assert sum(features.meta["counts"].values()) == 72
    assert len(features.training(0)) + len(features.test(0)) == 72
    assert isinstance(features.arrays["view0"], np.memmap)


def test_twin_is_marked(tmp_path):
    (tmp_path / "TWIN").write_text("")
    assert store.Features.read(extract(tmp_path, fake_dataset())).meta["source"] == "twin"


def test_an_unreadable_sample_stops_by_default_and_is_named_when_dropped(tmp_path):
    unreadable_s3.calls = 0
    with pytest.raises(IbmaError, match="s3.wav: truncated"):
        extract(tmp_path, fake_dataset(), unreadable_s3)
    unreadable_s3.calls = 0
    out = extract(tmp_path, fake_dataset(), unreadable_s3, on_bad="drop")
    with (out / "dropped.csv").open() as file:
        rows = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert rows == {"broken": "for the test", "s3": "s3.wav: truncated: fetch it again"}
    features = store.Features.read(out)
    assert "s3" not in features.ids and len(features.ids) == len(features.arrays["view1"]) == 71
    assert sorted(path.name for path in out.iterdir()) == [
        *("dropped.csv", "index.csv", "meta.json", "view0.npy", "view1.npy")
    ]


def test_rows_stay_aligned_after_a_drop(tmp_path):
    unreadable_s3.calls = 0
    whole = store.Features.read(extract(tmp_path / "a", fake_dataset()))
    holed = store.Features.read(
        extract(tmp_path / "b", fake_dataset(), unreadable_s3, on_bad="drop")
    )
    place = whole.ids.index("s40")
    np.testing.assert_array_equal(
        whole.arrays["view1"][place], holed.arrays["view1"][holed.ids.index("s40")]
    )


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_the_vocabulary_names_its_sample(tmp_path, label):
    base = fake_dataset()

    def samples(raw, *, on_bad="stop"):
        yield Sample("s0", "train", "g", label, {"view0": (0.0,), "view1": (0.0,)})

    with pytest.raises(
        IbmaError, match=f"sample s0: label {label}: expected a whole number from 0 to 2"
    ):
        extract(tmp_path, SimpleNamespace(CARD=base.CARD, FILES=(), samples=samples))


def test_a_data_set_without_a_usable_sample_is_refused(tmp_path):
    base = fake_dataset()
    empty = SimpleNamespace(CARD=base.CARD, FILES=(), samples=lambda raw, *, on_bad: iter(()))
    with pytest.raises(IbmaError, match="no usable sample"):
        extract(tmp_path, empty)


def test_nothing_but_dropped_samples_names_the_first_reason(tmp_path):
    base = fake_dataset()
    gone = SimpleNamespace(
        CARD=base.CARD, FILES=(), samples=lambda raw, *, on_bad: iter([Dropped("a", "silent")])
    )
    with pytest.raises(IbmaError, match="every sample was dropped, first reason: silent"):
        extract(tmp_path, gone)


@pytest.mark.parametrize("workers", [2, None])
def test_the_number_of_processes_changes_nothing(tmp_path, workers):
    one = extract(tmp_path / "one", fake_dataset())
    more = extract(tmp_path / "more", fake_dataset(), workers=workers)
    for path in one.iterdir():
        assert path.read_bytes() == (more / path.name).read_bytes(), path.name


def broken_s40(kind, part, params):
    """Fails at one sample of the fake data, in whatever process."""
    if np.allclose(part, WRONG):
        raise IbmaError("s40.wav: truncated: fetch it again")
    return vector(kind, part, params)


WRONG = next(s for s in fake_dataset().samples(Path()) if s.id == "s40").parts["view0"]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_keeps_complete_parts_and_the_next_run_goes_on(tmp_path, capfd, workers):
    with pytest.raises(IbmaError, match="s40.wav: truncated"):
        extract(tmp_path, fake_dataset(), broken_s40, workers=workers)
    assert not (tmp_path / "features").exists()
    computed = []

    def counting(kind, part, params):
        computed.append(part)
        return vector(kind, part, params)

    resumed = extract(tmp_path, fake_dataset(), counting)
    assert "going on, " in capfd.readouterr().err
    # the second process may have finished the third block, or was stopped
    assert 72 - len(computed) / 2 in ((32,), (32, 40))[workers - 1]
    assert bytes_of(resumed) == bytes_of(extract(tmp_path / "whole", fake_dataset()))
    assert not (tmp_path / ".features.parts").exists()


def test_a_damaged_or_foreign_part_is_computed_again(tmp_path):
    whole = bytes_of(extract(tmp_path / "whole", fake_dataset()))
    with pytest.raises(IbmaError):
        extract(tmp_path, fake_dataset(), broken_s40)
    part = tmp_path / ".features.parts/000000.npz"
    good = part.read_bytes()
    for bad in (b"", good[:-1], good[: len(good) // 2], good[:900] + b"!" + good[901:]):
        part.write_bytes(bad)
        with pytest.raises(IbmaError):
            extract(tmp_path, fake_dataset(), broken_s40)
        assert part.read_bytes() == good
    part.with_name("000001.npz").write_bytes(good)  # another block's
    assert bytes_of(extract(tmp_path, fake_dataset())) == whole


def start(root: Path, workers: int, delay: float = 0.0) -> subprocess.Popen:
    """An extraction in a process of its own, which has made its imports; `go` lets it begin."""
    script = Path(slow_extraction.__file__)
    process = subprocess.Popen(
        [sys.executable, script, root, str(workers), str(delay)], text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_extraction_goes_on_and_leaves_no_process(tmp_path, capfd, workers):
    process = start(tmp_path, workers)
    go(process)
    wait_for((tmp_path / ".features.parts/000000.npz").exists)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert not (tmp_path / "features").exists()
    resumed = slow_extraction.run(tmp_path)
    assert "going on, " in capfd.readouterr().err
    assert bytes_of(resumed) == bytes_of(slow_extraction.run(tmp_path / "whole"))


def test_of_two_extractions_of_a_folder_the_second_leaves_in_one_line(tmp_path):
    whole = bytes_of(slow_extraction.run(tmp_path / "whole"))
    for delay in (0.0, 0.2, 0.8):
        root = tmp_path / str(delay)
        both = [start(root, 1), start(root, 1, delay)]
        for process in both:
            go(process)
        told = [(process.communicate()[1].splitlines() or [""])[-1] for process in both]
        assert sorted(process.returncode for process in both) == [0, 1], (delay, told)
        refused = told[[process.returncode for process in both].index(1)]
        assert "features: another process is writing" in refused
        assert bytes_of(root / "features") == whole, delay


def wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_full_disk_leaves_the_old_folder_and_the_parts(tmp_path, monkeypatch):
    old = bytes_of(extract(tmp_path, fake_dataset("multilabel")))
    sync = os.fsync

    def full(handle: int) -> None:
        if ".new" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            extract(tmp_path, fake_dataset())
    assert bytes_of(tmp_path / "features") == old
    assert len(list((tmp_path / ".features.parts").glob("*.npz"))) == 3
    assert not (tmp_path / ".features.new").exists()
    assert bytes_of(extract(tmp_path, fake_dataset())) != old


def test_other_inputs_start_anew(tmp_path, capfd):
    with pytest.raises(IbmaError):
        extract(tmp_path, fake_dataset(), broken_s40, key="manifest 1")
    extract(tmp_path, fake_dataset(), key="manifest 2")
    assert "going on" not in capfd.readouterr().err


def test_parts_are_kept_under_the_code_and_all_that_features_depend_on(tmp_path, monkeypatch):
    place = tmp_path / "datasets/__init__.py"
    monkeypatch.setattr(extraction, "datasets", SimpleNamespace(__file__=str(place)))
    entry = {"dataset": "fake", "options": {}, "on_bad": "stop", "features": {}}
    keys = []

    def met(**changed) -> None:
        keys.append(extraction._key(entry | changed, "key"))

    met()
    for room in ("datasets", "features", "formats"):
        (tmp_path / room).mkdir()
        for content in ("a", "b"):
            (tmp_path / room / "__init__.py").write_text(content)
            met()
    met(dataset="other")
    met(options={"folds": 2})
    met(on_bad="drop")
    met(features={"view0": {"size": 8}})
    keys.append(extraction._key(entry, "another"))
    assert len(set(keys)) == len(keys)
    met(encoders={"view0": "mlp"})
    assert keys[-1] in keys[:-1], "encoders read features, they do not make them"


def test_a_feature_of_another_type_stops_whichever_part_it_is_in(tmp_path):
    for odd in ("s1", "s40"):
        wrong = next(s for s in fake_dataset().samples(Path()) if s.id == odd).parts["view0"]

        def mixed(kind, part, params, wrong=wrong):
            return vector(kind, part, params).astype("f8" if part == wrong else "f4")

        with pytest.raises(
            IbmaError, match=r"'view0': a feature of shape \(3,\) and type <f8, exp"
        ):
            extract(tmp_path / odd, fake_dataset(), mixed)


def test_a_feature_of_another_shape_stops_before_it_is_written(tmp_path):
    shapes = iter([(3,), (3,), (3,), (2,)])

    def uneven(kind, part, params):
        return np.zeros(next(shapes), np.float32)

    with pytest.raises(IbmaError, match=r"s1: 'view1': a feature of shape \(2,\) and type"):
        extract(tmp_path, fake_dataset(), uneven)
    assert not (tmp_path / "features").exists()


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path):
    """Peak of what Python and numpy hold, at 1 and 8 times as many samples of 64 KiB."""
    card = replace(fake_dataset(modalities=1).CARD, modalities={"view0": "vector"})

    def peak(times: int) -> int:
        def samples(raw, *, on_bad):
            for i in range(200 * times):
                split, group = ("train", "test")[i % 2], f"g{i % 4}"
                yield Sample(f"s{i}", split, group, i // 2 % 2, {"view0": (float(i),)})

        many = SimpleNamespace(CARD=card, FILES=(), samples=samples)
        tracemalloc.start()
        big = lambda kind, part, params: np.full(1 << 14, part[0], np.float32)  # noqa: E731
        extract(tmp_path / str(times), many, big)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)  # imports
    # of two runs, since once in a while something else in this process allocates meanwhile
    assert min(peak(8), peak(8)) < 1.2 * peak(1)


def test_absent_data_leaves_the_reason(tmp_path):
    entry = {"dataset": "fake"}
    extraction.absent("fake", entry, "data/raw/fake is empty: ask the owner", tmp_path / "out")
    with pytest.raises(IbmaError, match="data/raw/fake is empty: ask the owner"):
        store.Features.read(tmp_path / "out")


def test_missing_features_say_what_to_run(tmp_path):
    with pytest.raises(IbmaError, match="no features here: run `dvc repro extract@"):
        store.Features.read(tmp_path)


def changed_by(change, before=()):
    """The fake data set, each of its samples as `change` returns it, after some entries more."""
    dataset = fake_dataset()

    def samples(raw: Path, *, on_bad: str = "stop"):
        yield from before
        for i, entry in enumerate(fake_dataset().samples(raw)):
            yield change(i, entry) if isinstance(entry, Sample) else entry

    dataset.samples = samples
    return dataset


def test_the_digest_follows_arrays_and_labels_and_not_what_was_dropped(tmp_path):
    first = meta.read(extract(tmp_path / "a", fake_dataset()))
    more = changed_by(lambda _, one: one, [Dropped("more", "for the test")])
    dropped = meta.read(extract(tmp_path / "b", more))
    assert dropped["dropped"] == first["dropped"] + 1 and dropped["digest"] == first["digest"]
    renamed = changed_by(lambda _, one: replace(one, label=(one.label + 1) % 3))
    other = meta.read(extract(tmp_path / "c", renamed))
    assert other["sha256"]["view0.npy"] == first["sha256"]["view0.npy"]
    assert other["digest"] != first["digest"], "the same arrays with other labels"
    moved = changed_by(lambda _, one: replace(one, parts=one.parts | {"view1": (0.0, 1.0, 2.0)}))
    assert meta.read(extract(tmp_path / "d", moved))["digest"] != first["digest"], "other arrays"


def test_what_reading_depends_on_is_kept_and_shared_groups_are_told(tmp_path, capfd):
    entry = {"dataset": "fake", "options": {}, "features": {}}
    for name, reading in (("plain", None), ("told", {"pic": "pictures"})):
        out = tmp_path / name
        extraction.extract("fake", entry, fake_dataset(), tmp_path, out, vector, reading=reading)
        assert meta.read(out).get("read") == reading
    assert "12 groups (speakers, patients) are in train and in test" in capfd.readouterr().err


def test_a_summary_of_sound_is_stored_as_a_vector(tmp_path):
    dataset = fake_dataset()
    dataset.CARD = replace(dataset.CARD, modalities={"view0": "audio", "view1": "vector"})
    for name, given, kind in (("plain", {}, "audio"), ("told", {"statistics": True}, "vector")):
        made = meta.read(extract(tmp_path / name, dataset, features={"view0": given}))
        assert made["modalities"]["view0"]["kind"] == kind


def test_features_of_a_modality_that_the_data_set_lacks_are_refused(tmp_path):
    with pytest.raises(
        IbmaError, match=r"fake.features: no modality 'view9': expected one of view0"
    ):
        extract(tmp_path, fake_dataset(), features={"view9": {}})


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e38])
def test_a_feature_that_is_no_finite_number_names_its_sample(tmp_path, value):
    with pytest.raises(IbmaError, match="sample s0: 'view0' holds NaN or infinity, or .*: correct"):
        extract(tmp_path, fake_dataset(), lambda *_: np.array([0.0, value], np.float32))


def test_of_real_data_alone_the_official_counts_say_how_much_there_is(tmp_path, monkeypatch):
    totals, bar = [], extraction.progress_bar
    monkeypatch.setattr(
        extraction, "progress_bar", lambda **said: totals.append(said["total"]) or bar(**said)
    )
    extract(tmp_path, fake_dataset())
    (tmp_path / "TWIN").touch()
    extract(tmp_path, fake_dataset())
    assert totals == [72, None]


def test_a_misspelt_option_names_its_place(tmp_path):
    with pytest.raises(IbmaError, match=r"unknown key 'tasks.fake.options.uncertian'"):
        extract(tmp_path, fake_dataset(), options={"uncertian": "mixed"})


def test_a_missing_modality_is_zero_and_counted(tmp_path):
    dataset = fake_dataset()

    def samples(raw: Path, **options: str):
        for i, sample in enumerate(fake_dataset().samples(raw)):
            if i == 5:
                sample = replace(sample, parts={**sample.parts, "view1": None})
            yield sample

    dataset.samples = samples
    features = store.Features.read(extract(tmp_path, dataset))
    assert features.meta["absent"] == {"view0": 0, "view1": 1}
    assert not features.arrays["view1"][5].any() and features.arrays["view0"][5].any()


def test_rows_stay_aligned_where_samples_and_whole_parts_lack_a_modality(tmp_path):
    """The first part has 31 samples after one that was dropped; the second lacks `view1`."""
    lacking = {5, *range(31, 31 + extraction.BLOCK)}

    def without(i: int, sample: Sample) -> Sample:
        return replace(sample, parts={**sample.parts, "view1": None}) if i in lacking else sample

    whole = store.Features.read(extract(tmp_path / "whole", fake_dataset()))
    dataset = changed_by(without, [Dropped("first", "for the test")])
    found = store.Features.read(extract(tmp_path / "holed", dataset))
    expected = np.array(whole.arrays["view1"])
    expected[sorted(lacking)] = 0
    np.testing.assert_array_equal(found.arrays["view1"], expected)
    np.testing.assert_array_equal(found.arrays["view0"], whole.arrays["view0"])
    assert found.meta["absent"] == {"view0": 0, "view1": len(lacking)}
    assert np.flatnonzero(~found.present["view1"]).tolist() == sorted(lacking)


def test_a_modality_whose_name_begins_anothers_is_not_taken_for_it(tmp_path):
    def renamed(_: int, one: Sample) -> Sample:
        lacks = one.split == "train"
        return replace(one, parts={"view": (1.0,), "view1": None if lacks else (1.0,)})

    dataset = changed_by(renamed)
    dataset.CARD = replace(dataset.CARD, modalities={"view": "vector", "view1": "vector"})
    with pytest.raises(IbmaError, match="no training sample has 'view1'"):
        extract(tmp_path, dataset)


def test_previous_label_of_a_dialogue_comes_from_training_rows_only(tmp_path):
    features = store.Features.read(extract(tmp_path, fake_dataset()))
    train = features.training(0)
    previous = train.previous_labels()
    said = {}
    for row in range(72):
        expected = said.get(features.dialogues[row]) if row in train.index else None
        assert previous[row].isnan() if expected is None else previous[row] == expected
        if row in train.index:
            said[features.dialogues[row]] = features.labels[row, 0]
    features.dialogues[:] = ""
    assert train.previous_labels() is None
