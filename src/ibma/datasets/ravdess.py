"""Read RAVDESS speech: 24 actors, 1,440 clips, 8 emotions; sound and mean face action units.

Sound: the publisher's `Audio_Speech_Actors_01-24.zip` (`Actor_NN/*.wav`, 48 kHz), or a folder of
`.flac`/`.wav` files of the same names. Face: 35 OpenFace action units averaged over the clip, from
cristinalunaj/MMEmotionRecognition@aeb7844; no face pixels enter. Folds: five subject-wise test
folds of Luna-Jimenez et al. 2022, Appl. Sci. 12(1):327; run k tests on fold k mod 5. Option
`target` merges the emotions into 4 (`quadrant`) or 2 classes (`valence`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ibma.datasets import Card, Counts, Dropped, Remote, Sample
from ibma.errors import IbmaError
from ibma.files import copy_file
from ibma.formats import tabular
from ibma.formats.tabular import Table

FOLDS = (  # test actors
    (2, 5, 14, 15, 16),
    (3, 6, 7, 13, 18),
    (10, 11, 12, 19, 20),
    (8, 17, 21, 23, 24),
    (1, 4, 9, 22),
)
ACTION_UNITS = "df_average_AUs_total.csv"
_BOTH = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26)
UNITS = (  # intensities, then presences
    *(f"AU{unit:02d}_r" for unit in (*_BOTH, 45)),
    *(f"AU{unit:02d}_c" for unit in (*_BOTH, 28, 45)),
)
CLIPS = 1440
# modality 03 (sound), channel 01 (speech), emotion, intensity, statement, repetition, actor
NAME = re.compile(r"03-01-0([1-8])-0[12]-0[12]-0[12]-(0[1-9]|1\d|2[0-4])")
MIRRORED = Path(__file__).with_name("ravdess_flac16k.sha256")

CARD = Card(
    title="RAVDESS (speech)",
    kind="classify",
    classes=("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
    modalities={"audio": "audio", "face": "vector"},
    licence="CC BY-NC-SA 4.0",
    access="open",
    raw_gb=0.2,
    official=Counts(1440, None),
    folds=len(FOLDS),
    cite="S. R. Livingstone and F. A. Russo, The Ryerson Audio-Visual Database of Emotional Speech "
    "and Song, PLoS ONE 13(5), 2018.",
    how_to_get="fetched from Zenodo record 1188976 (208 MB), or from IBMA_MIRROR",
    notes=(
        "Not in the paper. Anybody may download it.",
        "Neutral has 96 clips, every other emotion 192.",
        "With IBMA_MIRROR the sound is 16 kHz FLAC, resampled from the 48 kHz originals and "
        "checked against its own list of sha256. The manifest says which source was used.",
        "Zenodo lists an md5 of the zip and no sha256. The md5, the names and the count are "
        "checked.",
        "Sound 03-01-X belongs to video 01-01-X; action units are joined to sound by this rule.",
    ),
)
FILES = (
    Remote(
        "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip",
        "md5:bc696df654c87fed845eb13823edef8a",
        "Audio_Speech_Actors_01-24.zip",
    ),
    Remote(
        "https://raw.githubusercontent.com/cristinalunaj/MMEmotionRecognition/"
        "aeb78449206ec2742d2cd886052322295c6c1321/data/trainingData/avg_MLP80_AUs/data_AUs_avg/"
        + ACTION_UNITS,
        "c24faeb4069a8b5c4aad3a674763c98a76ffa2ac3457e0d4fd5bce2ffaef8d96",
        ACTION_UNITS,
    ),
)
# CHOICE: emotions merged by their place in the circle of valence and arousal, for the study of how
# the bound depends on the number of classes. Each group: its name, then its emotions.
MERGED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "quadrant": {
        "calm": ("neutral", "calm"),
        "glad": ("happy", "surprised"),
        "low": ("sad", "fearful"),
        "hostile": ("angry", "disgust"),
    },
    "valence": {
        "not negative": ("neutral", "calm", "happy", "surprised"),
        "negative": ("sad", "fearful", "angry", "disgust"),
    },
}
CARDS: Mapping[str, Card] = {"emotion": CARD} | {
    target: replace(
        CARD,
        title=f"RAVDESS (speech), {len(groups)} classes",
        classes=tuple(groups),
        notes=(
            *CARD.notes,
            "Classes are groups of emotions: "
            + "; ".join(f"{name} is {', '.join(own)}" for name, own in groups.items())
            + ".",
        ),
    )
    for target, groups in MERGED.items()
}
ARCHIVES = ("Audio_Speech_Actors_01-24.zip",)
ADVICE = "run `dvc repro -f download@ravdess`"
FACES = Table(
    {"name": tabular.NAME} | dict.fromkeys(UNITS, tabular.MEASURE),
    ADVICE,
    unique=("name",),
    delimiter=";",
)


def fetch_mirror(mirror: Path, raw: Path) -> bool:
    """Copy the mirror's flac files in the zip's place; return False if it has none.

    Raises:
        IbmaError: A file is missing there or has a wrong checksum.
    """
    folder = mirror / "ravdess" / "flac16k"
    if not folder.is_dir():
        return False
    (raw / "flac16k").mkdir(parents=True, exist_ok=True)
    for line in MIRRORED.read_text().splitlines():
        digest, name = line.split()
        target = raw / "flac16k" / name
        if not target.exists():
            if not (folder / name).exists():
                raise IbmaError(f"{folder / name}: not in the mirror: complete it")
            copy_file(folder / name, target)
        if hashlib.sha256(target.read_bytes()).hexdigest() != digest:
            target.unlink()
            raise IbmaError(f"{target}: wrong checksum, deleted: mend {folder} and run again")
    return True


def samples(
    raw: Path, *, on_bad: str = "stop", target: str = "emotion"
) -> Iterator[Sample | Dropped]:
    """Walk the clips in the order of their names; group = actor.

    Clips that only the table of action units has are Dropped at the end.

    Args:
        target: `emotion` (8 classes), or `quadrant` (4) or `valence` (2), which merge emotions.

    Raises:
        IbmaError: There are no clips, or (on_bad="stop") others than 1,440; an emotion is outside
            1..8 or an actor outside 1..24; the table of action units is malformed, or of no clip;
            or (on_bad="stop") it lacks a clip.
    """
    faces = {
        row["name"]: tuple(tabular.measure(row[unit]) for unit in UNITS)
        for _, row in tabular.rows(raw / ACTION_UNITS, FACES)
    }
    labels = _labels(target)
    clips = sorted(
        (path for path in raw.rglob("03-01-*") if path.suffix in (".wav", ".flac")),
        key=lambda path: path.stem,
    )
    if len(clips) != CLIPS and (on_bad == "stop" or not clips):
        raise IbmaError(
            f"{raw}: {len(clips)} clips 03-01-*.wav or .flac, expected {CLIPS}: delete the folder "
            "and run `dvc repro download@ravdess`"
        )
    shown = (_video(path.stem) for path in clips)
    tabular.refuse_no_match(shown, faces, (raw, raw / ACTION_UNITS), ADVICE)
    for path in clips:
        name = NAME.fullmatch(path.stem)
        if name is None:
            raise IbmaError(
                f"{path}: emotion is not 01..08 or actor not 01..24: not a RAVDESS clip, remove it"
            )
        emotion, actor = int(name[1]), int(name[2])
        face = faces.get(_video(path.stem))
        if face is None and on_bad == "stop":
            raise IbmaError(f"{raw / ACTION_UNITS}: no row for clip {path.stem}: {ADVICE}")
        if face is None:
            yield Dropped(path.stem, "no action units")
            continue
        fold = next(i for i, actors in enumerate(FOLDS) if actor in actors)
        parts: dict[str, Path | tuple[float, ...]] = {"audio": path, "face": face}
        yield Sample(path.stem, f"fold{fold}", f"actor{actor:02d}", labels[emotion - 1], parts)
    for video in sorted(faces.keys() - {_video(path.stem) for path in clips}):
        yield Dropped(f"03-{video[3:]}", "no clip")


def _labels(target: str) -> list[int]:
    """Return the label of every emotion."""
    if target not in MERGED:
        return list(range(len(CARD.classes)))
    group_of = {
        emotion: label
        for label, emotions in enumerate(MERGED[target].values())
        for emotion in emotions
    }
    return [group_of[emotion] for emotion in CARD.classes]


def _video(sound: str) -> str:
    """Return the name of the video of a sound."""
    return f"01-{sound[3:]}"
