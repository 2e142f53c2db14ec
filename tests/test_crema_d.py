"""CREMA-D: its twin walks through the loader and the decoders; lists that lie are refused."""

import hashlib
import lzma
import shutil
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import probes
import pytest
from conftest import MIRROR

from ibma import twins
from ibma.datasets import Dropped, Sample, crema_d
from ibma.errors import IbmaError
from ibma.features import media, store
from ibma.features.extract import extract
from ibma.formats import raw as raw_files
from ibma.twins import crema_d as twin

LISTS = MIRROR / "github" / crema_d.LISTS.split(".com/")[1]
FEATURES = {"audio": {"n_mels": 16, "hop": 1411}, "visual": {"frames": 3, "size": 16}}


@pytest.fixture(scope="module")
def entries(written: Path) -> list[Sample | Dropped]:
    return list(crema_d.samples(written, on_bad="drop"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two clips whose media exist, though empty: enough for the loader."""
    for folder, suffix in (("AudioWAV", "wav"), ("VideoFlash", "flv")):
        (tmp_path / folder).mkdir()
        for clip in ("1001_DFA_ANG_XX", "1002_IEO_HAP_LO"):
            (tmp_path / folder / f"{clip}.{suffix}").touch()
    (tmp_path / "OGM").mkdir()
    (tmp_path / "OGM" / "train.csv").write_bytes(b"1001_DFA_ANG_XX,ANG\r\n")
    (tmp_path / "OGM" / "test.csv").write_bytes(b"1002_IEO_HAP_LO,HAP\r\n")
    return tmp_path


def samples_of(entries: list[Sample | Dropped]) -> list[Sample]:
    return [entry for entry in entries if isinstance(entry, Sample)]


# --- the loader ----------------------------------------------------------------------------------


def test_a_sample_is_read_off_list_and_name(raw: Path) -> None:
    first, second = crema_d.samples(raw)
    assert first == Sample(
        "1001_DFA_ANG_XX",
        "train",
        "1001",
        5,
        {
            "audio": raw / "AudioWAV" / "1001_DFA_ANG_XX.wav",
            "visual": raw / "VideoFlash" / "1001_DFA_ANG_XX.flv",
        },
    )
    assert (second.id, second.split, second.label) == ("1002_IEO_HAP_LO", "test", 1)


def test_a_clone_below_the_raw_folder_is_found(raw: Path) -> None:
    (raw / "CREMA-D").mkdir()
    for folder in ("AudioWAV", "VideoFlash"):
        (raw / folder).rename(raw / "CREMA-D" / folder)
    assert all(path.exists() for sample in crema_d.samples(raw) for path in sample.parts.values())


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf1001_DFA_ANG_XX,ANG\r\n",
        b"1001_DFA_ANG_XX,ANG\n",
        b"1001_DFA_ANG_XX,ANG",
        b"1001_DFA_ANG_XX,ANG\r\n\r\n",
    ],
    ids=["byte-order mark", "LF", "no newline", "blank line"],
)
def test_bytes_of_the_list_do_not_matter(raw: Path, content: bytes) -> None:
    wanted = list(crema_d.samples(raw))
    (raw / "OGM" / "train.csv").write_bytes(content)
    assert list(crema_d.samples(raw)) == wanted


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1001_DFA_JOY_XX,JOY", "label 'JOY': expected one of 'NEU', 'HAP'"),
        ("1002_DFA_ANG_XX,SAD", "label 'SAD' contradicts name '1002_DFA_ANG_XX'"),
        ("1002_DFA_ANG_XX", "1 cells, expected 2"),
        ("1001_DFA_ANG_XX,ANG", "'1001_DFA_ANG_XX' is already in line 1"),
        ("clip,ANG", "expected 'AAAA_SSS_EEE_LL,EEE'"),
    ],
)
@pytest.mark.parametrize("on_bad", ["stop", "drop"])
def test_a_wrong_line_is_named(raw: Path, line: str, told: str, on_bad: str) -> None:
    """A wrong list is never dropped from: it says that the file is not the right one."""
    (raw / "OGM" / "train.csv").write_text(f"1001_DFA_ANG_XX,ANG\n{line}\n")
    with pytest.raises(IbmaError, match="line 2") as caught:
        list(crema_d.samples(raw, on_bad=on_bad))
    assert told in str(caught.value) and "train.csv" in str(caught.value)


def test_a_listed_clip_without_media_stops_or_is_dropped(raw: Path) -> None:
    (raw / "OGM" / "test.csv").write_text("1002_IEO_HAP_LO,HAP\n1091_WSI_SAD_XX,SAD\n")
    with pytest.raises(IbmaError, match=r"1091_WSI_SAD_XX\.wav: missing.*test\.csv line 2") as told:
        list(crema_d.samples(raw))
    assert "git lfs pull" in str(told.value) and "\n" not in str(told.value)
    *kept, dropped = crema_d.samples(raw, on_bad="drop")
    assert len(kept) == 2
    assert dropped == Dropped("1091_WSI_SAD_XX", "1091_WSI_SAD_XX.wav: missing")


def test_a_missing_list_names_the_remedy(raw: Path) -> None:
    (raw / "OGM" / "test.csv").unlink()
    with pytest.raises(IbmaError, match=r"test\.csv: missing: run"):
        list(crema_d.samples(raw))


@pytest.mark.skipif(not LISTS.is_dir(), reason=f"no OGM-GE lists at {LISTS}")
def test_the_real_lists(tmp_path: Path) -> None:
    """Checksums, Table 1's counts, OGM-GE's class counts, and every actor on both sides."""
    for remote in crema_d.FILES:
        source = LISTS / Path(remote.path).name
        assert hashlib.sha256(source.read_bytes()).hexdigest() == remote.sha256
        (tmp_path / remote.path).parent.mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / remote.path)
    listed = {
        split: list(crema_d._listed(tmp_path / "OGM" / f"{split}.csv"))
        for split in ("train", "test")
    }
    assert {split: len(rows) for split, rows in listed.items()} == {"train": 6698, "test": 744}
    assert crema_d.CARD.paper == crema_d.CARD.official
    test_labels = Counter(label for _, _, label in listed["test"])
    assert test_labels == {"SAD": 140, "FEA": 133, "DIS": 129, "HAP": 123, "NEU": 114, "ANG": 105}
    actors = [{clip[:4] for _, clip, _ in rows} for rows in listed.values()]
    assert actors[0] == actors[1] and len(actors[0]) == 91
    # without media, the first listed clip stops the walk, and dropping names every one
    with pytest.raises(IbmaError, match="1088_IOM_NEU_XX"):
        next(crema_d.samples(tmp_path))
    dropped = list(crema_d.samples(tmp_path, on_bad="drop"))
    assert len(dropped) == 7442 and all(isinstance(entry, Dropped) for entry in dropped)


# --- the twin ------------------------------------------------------------------------------------


def test_the_twin_is_small_marked_and_lists_its_clips(
    written: Path, entries: list[Sample | Dropped]
) -> None:
    assert (written / "TWIN").exists()
    assert sum(path.stat().st_size for path in written.rglob("*") if path.is_file()) < 6_000_000
    assert len(entries) == 96 + 96
    samples = samples_of(entries)
    for split in ("train", "test"):
        labels = Counter(sample.label for sample in samples if sample.split == split)
        assert set(labels) == set(range(6)) and min(labels.values()) >= 7
    assert b"\r\n" in (written / "OGM" / "train.csv").read_bytes()
    assert (written / "OGM" / "stat.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert '"A:D"' in (written / "processedResults" / "summaryTable.csv").read_text()


def test_the_twin_is_the_same_bytes_again(written: Path, tmp_path: Path) -> None:
    twins.write("crema_d", tmp_path)
    names = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert names == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert all((written / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_the_twin_has_the_traps(written: Path) -> None:
    av = pytest.importorskip("av")
    clips = [clip for _, clip, _ in crema_d._listed(written / "OGM" / "train.csv")]

    def pictures(place: int) -> tuple[int, int, int]:
        with av.open(str(written / "VideoFlash" / f"{clips[place]}.flv")) as clip:
            shown = list(clip.decode(video=0))
            return len(shown), shown[0].width, shown[0].height

    with wave.open(str(written / "AudioWAV" / f"{clips[twin.SILENT]}.wav")) as file:
        assert file.getnframes() > 0 and not any(file.readframes(file.getnframes()))
    assert pictures(twin.SHORT) == (2, 480, 360)
    assert pictures(twin.LONG) == (360, 480, 360)
    assert pictures(20) == (12, 96, 72)
    stub = written / "AudioWAV" / f"{clips[twin.STUB]}.wav"
    assert stub.read_bytes().startswith(raw_files.LFS_STUB)
    assert not (written / "AudioWAV" / f"{clips[twin.ABSENT]}.wav").exists()


def test_stub_and_absentee_are_dropped_by_name_and_silence_is_kept(
    written: Path, features: store.Features
) -> None:
    clips = [clip for _, clip, _ in crema_d._listed(written / "OGM" / "train.csv")]
    assert features.meta["counts"] == {"train": 94, "test": 96}
    assert features.meta["dropped"] == 2 and features.meta["source"] == "twin"
    assert clips[twin.STUB] not in features.ids and clips[twin.ABSENT] not in features.ids
    silent = features.ids.index(clips[twin.SILENT])
    assert np.ptp(features.arrays["audio"][silent]) == 0
    assert {clips[twin.SHORT], clips[twin.LONG]} <= set(features.ids)


def test_extraction_stops_at_the_stub(written: Path, tmp_path: Path) -> None:
    """`on_bad: stop`: with the absent clip off the list, the pointer is the next bad file."""
    raw = tmp_path / "raw"
    (raw / "OGM").mkdir(parents=True)
    lines = (written / "OGM" / "train.csv").read_bytes().splitlines(keepends=True)
    (raw / "OGM" / "train.csv").write_bytes(lines[20] + lines[twin.STUB])
    (raw / "OGM" / "test.csv").write_bytes(lines[21])
    for folder in ("AudioWAV", "VideoFlash"):
        (raw / folder).symlink_to(written / folder)
    entry = {"dataset": "crema_d", "features": FEATURES}
    with pytest.raises(media.Unreadable, match="git lfs pull"):
        extract("crema_d", entry, crema_d, raw, tmp_path / "out", media.compute)
    assert not (tmp_path / "out" / "meta.json").exists()


def test_each_modality_knows_part_and_both_know_more(features: store.Features) -> None:
    """The docstring's ceilings: sound .44, pictures .30, both .82 (chance 1/6)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    views = probes.views(features)
    train, test = features.splits == "train", features.splits == "test"
    y = features.labels[:, 0]

    def accuracy(x: np.ndarray) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500, C=0.1))
        return float(model.fit(x[train], y[train]).score(x[test], y[test]))

    alone = {name: accuracy(view) for name, view in views.items()}
    both = accuracy(np.hstack(list(views.values())))
    assert 0.25 < alone["audio"] <= 0.54 and 0.2 < alone["visual"] <= 0.41
    assert max(alone.values()) + 0.15 < both < 0.9, "clips near a line keep methods apart"


def test_media_are_checked_against_the_releases_pointers(tmp_path):
    """14,884 files; a pointer in a file's place, or a file that is not there, is counted."""
    listed = lzma.decompress(crema_d.CHECKSUMS.read_bytes()).decode().splitlines()
    assert len(listed) == 14_884
    first = "c6f94b2592487c7556bd86df7df6e8f4420d1b9c11414aeec9d8e5e640b51495"
    assert listed[0] == f"{first}  AudioWAV/1001_DFA_ANG_XX.wav"
    pointer = tmp_path / "CREMA-D/AudioWAV/1001_DFA_ANG_XX.wav"
    pointer.parent.mkdir(parents=True)
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    said = r"1001_DFA_ANG_XX.wav: has another sha256 .*14884 of 14884 files so\): fill the authors'"
    with pytest.raises(IbmaError, match=said):
        crema_d.verify(tmp_path)
