"""Raw folders of every data set, and what reads them."""

import hashlib
import os
import random
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ibma import datasets, fetch, twins
from ibma.datasets import Dropped, Excerpt, Sample
from ibma.features import extract, media
from ibma.features.samples import checked
from ibma.formats import archives
from ibma.tables.reader import TableData
from ibma.twins.video_writer import tone, write_wav

from . import damage
from .trial import Figures, attempt

ROOT = Path(__file__).parents[2]
HEADERLESS = ("crema_d", "mosi_features", "mosi_features3")  # the first line of tables is a row
FILES = (Path, Excerpt)
TRIES = 8  # files of a kind, among which one is looked for that is read


@dataclass(frozen=True)
class Source:
    """A data set and how the twin profile reads it.

    Attributes:
        table: what reads it if it is a table of one's own, below the folder `own`.
    """

    name: str
    write: Callable[[Path], object]
    options: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)
    table: TableData | None = None

    @property
    def module(self) -> Any:
        return self.table or datasets.load(self.name)


def sources() -> Iterator[Source]:
    """Yield every data set that a twin or a test lays out."""
    tasks = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())["tasks"]
    for name, task in tasks.items():
        if twins.exists(task["dataset"]) and name != "meld_sentiment":
            write = _twin(task["dataset"])
            yield Source(task["dataset"], write, task["options"], task["features"])
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))
    import own_data
    import test_her2st
    import test_mosi_features
    import test_pad_ufes
    import test_ravdess

    yield Source("her2st", test_her2st.lay_out, {"n_genes": 2})
    yield Source("her2st_one_class", test_her2st.lay_out, {"n_genes": 2})
    yield Source("ravdess", _with_media(test_ravdess.lay_out))
    yield Source("pad_ufes", _with_media(test_pad_ufes.lay_out))
    yield Source("mosi_features", test_mosi_features.lay_out)
    yield Source("mosi_features3", test_mosi_features.lay_out)
    small = {"pic": {"size": 16}, "Hx": {"max_length": 8}}
    parts = {
        "pic": {"kind": "image", "columns": ["pic"], "folder": "own/pictures"},
        "Hx": {"kind": "text", "columns": ["Hx"]},
    }
    table = TableData("own", own_data.spec(file="own/clinic.csv", modalities=parts))
    yield Source("own", _own, features=small, table=table)


def _own(raw: Path) -> None:
    import own_data

    own_data.write(raw, own_data.rows())


def _with_media(lay_out: Callable[[Path], object]) -> Callable[[Path], None]:
    """Put sound and pictures in the place of those that only have a name."""
    from PIL import Image

    def write(raw: Path) -> None:
        lay_out(raw)
        rng = np.random.default_rng(0)
        for path in sorted(raw.rglob("*.wav")):
            write_wav(path, tone(300.0, 4000, 16_000, 0.1, rng), 16_000)
        for path in sorted(raw.rglob("*.png")):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(path)

    return write


def _twin(name: str) -> Callable[[Path], None]:
    def write(raw: Path) -> None:
        twins.write(name, raw)
        archives.unpack_all(raw, getattr(datasets.load(name), "ARCHIVES", ()))

    return write


def read(source: Source, raw: Path, touched: Path) -> dict[str, list[str]]:
    """Read a raw folder as `extract` does under on_bad: drop; of files decode the touched one.

    Returns:
        id -> what was read of a sample, or `dropped` and why.
    """
    module = source.module
    if any(touched in raw.glob(pattern) for pattern in getattr(module, "ARCHIVES", ())):
        archives.unpack(touched, touched.parent)
    card = datasets.card(module, source.options)
    entry = {"options": source.options, "on_bad": "drop"}
    work = extract._Work(raw, media.compute, card.modalities, source.features, dropping=True)
    found: dict[str, list[str]] = {}
    place = raw if source.table is None else source.table.path
    for one in checked(extract.samples(module, place, source.name, entry), card, "drop"):
        part = extract._Part()
        if isinstance(one, Sample):
            assert all(_is_below(raw, path) for path in _files(one)), f"{one} leads out"
            work._add(one if _uses(one, touched) else _without_files(one), part)
        if isinstance(one, Dropped) or part.dropped:
            found[one.id] = ["dropped", one.reason if isinstance(one, Dropped) else part.rows[0][1]]
        else:
            found[one.id] = [one.split, one.group, repr(one.label), _digest(one, part)]
    return found


def _without_files(sample: Sample) -> Sample:
    """Return a sample that lacks what lies in files, whose decoding takes long."""
    parts = sample.parts.items()
    return replace(sample, parts={n: None if isinstance(p, FILES) else p for n, p in parts})


def _uses(sample: Sample, file: Path) -> bool:
    return any(path.absolute() == file for path in _files(sample))


def _files(sample: Sample) -> list[Path]:
    parts = (p.path if isinstance(p, Excerpt) else p for p in sample.parts.values())
    return [part for part in parts if isinstance(part, Path)]


def _is_below(raw: Path, path: Path) -> bool:
    return path.absolute().is_relative_to(raw) and ".." not in path.parts


def _digest(sample: Sample, part: extract._Part) -> str:
    found = hashlib.sha256()
    for value in (*sample.parts.values(), *(v[0] for v in part.values.values())):
        found.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return found.hexdigest()


# --- damage to tables, sound and pictures --------------------------------------------------------


def table(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield a table with its columns doubled, renamed or gone, or without a row."""
    lines = path.read_bytes().splitlines(keepends=True)
    separator = max((b",", b"\t", b";"), key=lines[0].count)
    names = lines[0].rstrip(b"\r\n").split(separator)
    if len(names) < 2 or len(lines) < 2:
        return
    yield "header only", lines[0]
    rest = [line.rstrip(b"\r\n").split(separator) for line in lines[1:]]
    join = lambda rows: b"\n".join(separator.join(row) for row in rows) + b"\n"  # noqa: E731
    for place in range(len(names)):
        renamed = [*names[:place], names[place] + b"_x", *names[place + 1 :]]
        yield f"column {place} renamed", join([renamed, *rest])
        yield f"column {place} doubled", join([r + r[place : place + 1] for r in [names, *rest]])
        for cell in (b"NaN", b"../../../etc/passwd", b""):
            changed = [list(row) for row in rest]
            if place < len(changed[0]):
                changed[0][place] = cell
                yield f"column {place} {cell.decode() or 'nothing'}", join([names, *changed])


def wav(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield sound whose header lies: rates, channels, bits and sizes that nobody has."""
    rates = [(24, "<I", value) for value in (0, 1, 2**32 - 1)]
    sizes = [(4, "<I", 2**32 - 1), (40, "<I", 2**32 - 1), (40, "<I", 0)]
    shapes = [(22, "<H", 0), (22, "<H", 65535), (34, "<H", 0), (34, "<H", 65535), (20, "<H", 7)]
    for place, kind, value in (*rates, *sizes, *shapes):
        changed = bytearray(content)
        struct.pack_into(kind, changed, place, value)
        yield f"header {place}: {value}", bytes(changed)


def picture_bomb() -> bytes:
    """A PNG of some kB that claims 20,000 x 20,000 pixels."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        sum_ = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", sum_)

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(60_001) * 300, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


RIGHT = ("nothing", "header 20: 7")  # right values: no words, sound in another code


def attacks(
    source: Source, path: Path, rng: random.Random
) -> Iterator[tuple[str, bool, Callable[[Path], None]]]:
    """Yield name, whether only a checksum can tell, and what spoils a raw file."""
    for name, spoil in damage.of_file(path, rng, 0):
        yield name, name in damage.BYTES, spoil
    lies = []
    if path.suffix in (".csv", ".tsv"):
        every = list(table(path))
        lies = every[:1] + rng.sample(every[1:], min(10, len(every[1:])))
    elif path.suffix == ".wav":
        lies = list(wav(path.read_bytes()))
    elif path.suffix in (".jpg", ".png"):
        lies = [("bomb", picture_bomb())]
    elif path.suffix == ".gz":
        lies = [("bomb", damage.bomb_gzip())]
    for name, content in lies:
        right = (*RIGHT, "header only") if source.name in HEADERLESS else RIGHT
        yield name, name.endswith(right), damage._write(content)


def attack(source: Source, root: Path, rng: random.Random) -> Iterator[Figures]:
    """Damage a raw file of every kind that is read; yield how reading ended, by kind."""
    raw = root / "project" / source.name
    raw.mkdir(parents=True)
    source.write(raw)
    os.chdir(raw.parent)
    noticed = _noticing(source, raw)
    whole = read(source, raw, raw)  # here, so that what it imports is there in every trial
    with backwards():
        assert list(read(source, raw, raw).items()) == list(whole.items()), "order of files"
    for kind, paths in _by_kind(raw).items():
        rng.shuffle(paths)
        path = next((p for p in paths[:TRIES] if _matters(source, raw, p, whole)), None)
        if path is None:
            continue
        figures, content = Figures(f"raw {kind or 'text'}"), path.read_bytes()
        first = read(source, raw, path)
        for name, by_sum, spoil in attacks(source, path, rng):
            spoil(path)
            end = attempt(lambda path=path: read(source, raw, path))
            how = _judge(first, end)
            if how == "failed" and end.how == "done" and by_sum:
                how = noticed()
            outside = {p.name for p in root.iterdir()} - {"project"}
            how = "failed" if outside or how == "done" else how
            said = end.said or _apart(first, end.result)
            figures.count(how, f"{source.name}: {path.name}: {name}", said)
            damage.remove(path)
            path.write_bytes(content)
        yield figures


def _noticing(source: Source, raw: Path) -> Callable[[], str]:
    """Return what says how a changed file ends that is right as far as its reader can tell.

    The manifest refuses it. A table of one's own may change: then features are made anew.
    """
    if source.table is not None:
        before = source.table.manifest("")
        return lambda: "rebuilt" if source.table.manifest("") != before else "failed"
    manifest = {"files": fetch._listed(raw, hash_all=True)}
    return lambda: attempt(lambda: fetch.restore(source.name, raw, manifest)).how


def _matters(source: Source, raw: Path, path: Path, expected: Any) -> bool:
    """Return whether reading ends in another way without a file; archives were unpacked before."""
    if path.name.endswith((".zip", ".gz")):
        return True
    content = path.read_bytes()
    path.unlink()
    end = attempt(lambda: read(source, raw, raw))
    path.write_bytes(content)
    return end.how != "done" or end.result != expected


@contextmanager
def backwards() -> Iterator[None]:
    """Let folders list what is in them the other way round, as another file system might."""
    listdir, scandir = os.listdir, os.scandir

    @contextmanager
    def scanned(*path: Any) -> Iterator[Any]:
        with scandir(*path) as found:
            yield iter(sorted(found, key=lambda entry: entry.name, reverse=True))

    os.listdir = lambda *path: sorted(listdir(*path), reverse=True)
    os.scandir = scanned
    try:
        yield
    finally:
        os.listdir, os.scandir = listdir, scandir


def _by_kind(raw: Path) -> dict[str, list[Path]]:
    """Return ending -> files, without what only marks that an archive was unpacked."""
    found: dict[str, list[Path]] = {}
    for path in sorted(raw.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            ending = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
            found.setdefault(ending, []).append(path)
    return found


def _judge(expected: Any, end: Any) -> str:
    """Judge what was read; another value that is a right one is for the manifest to refuse."""
    if end.how != "done":
        return end.how
    if end.result == expected:
        return "harmless"
    apart = {n for n in expected.keys() | end.result.keys() if expected.get(n) != end.result.get(n)}
    found = [end.result.get(name, [""])[0] for name in apart]
    # what others are normalised by may be among the dropped
    return "dropped by name" if "dropped" in found and all(found) else "failed"


def _apart(expected: Any, found: Any) -> str:
    names = [n for n in expected.keys() | (found or {}).keys() if expected.get(n) != found.get(n)]
    return "; ".join(f"{n}: {expected.get(n)} {found.get(n)}" for n in names[:2])
