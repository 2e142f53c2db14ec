"""Damage files, as disks, networks, editors and strangers do; every choice follows from a seed."""

import gzip
import io
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

Content = Callable[[bytes, random.Random], bytes]

HEADER = 128  # bytes, of npy and most others


def empty(_: bytes, __: random.Random) -> bytes:
    return b""


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, max(len(content), 2))]


def header_only(content: bytes, _: random.Random) -> bytes:
    return content[:HEADER]


def cut_by_one(content: bytes, _: random.Random) -> bytes:
    return content[:-1]


def flip(content: bytes, rng: random.Random) -> bytes:
    """Flip one bit."""
    changed = bytearray(content or b"\0")
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def no_utf8(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + b"\xff" + content[place:]


def noise(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(max(len(content) % 5000, 16))


def zeros(content: bytes, _: random.Random) -> bytes:
    return bytes(len(content))  # what a crash leaves of a file that was not synced


def longer(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(100)


def other(text: bytes) -> Content:
    return lambda _, __: text


BYTES: dict[str, Content] = {
    each.__name__.replace("_", " "): each
    for each in (empty, cut, header_only, cut_by_one, flip, no_utf8, noise, zeros, longer)
}

ROOTS = ("[]", "{}", "null", "5", '"text"', "NaN", "[1, 2]", '{"a": {"b": []}}', "[" * 100_000)
TEXTS: dict[str, Content] = {
    f"root {text[:16]}": other(text.encode()) for text in (*ROOTS, "1" * 10_000)
}


def fields(content: bytes, rng: random.Random, most: int) -> Iterator[tuple[str, bytes]]:
    """Yield a JSON text with one value changed, some of its many."""
    value = json.loads(content)
    places = list(_places(value, ()))
    for place in rng.sample(places, min(most, len(places))):
        changed = json.loads(content)
        at = changed
        for step in place[:-1]:
            at = at[step]
        what = rng.choice(("other", "type", "gone", "nan"))
        if what == "gone":
            del at[place[-1]]
        else:
            at[place[-1]] = _other(at[place[-1]], what)
        shown = ".".join(map(str, place))
        yield f"{shown} {what}", json.dumps(changed, indent=1).encode() + b"\n"


def _places(value: object, path: tuple) -> Iterator[tuple]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in pairs:
        yield (*path, key)
        if isinstance(each, dict | list):
            yield from _places(each, (*path, key))


def _other(value: object, what: str) -> object:
    if what == "nan":
        return float("nan")
    if what == "type":
        return {"a": 1} if not isinstance(value, dict) else [1]
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}x" if isinstance(value, str) else []


def bomb_npz() -> bytes:
    """Less than 1 MB that unpacks to 700 MB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as package:
        shape = 700 << 20
        head = (
            f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape},), }}".ljust(117) + "\n"
        )
        with package.open("ids.npy", "w", force_zip64=True) as member:
            member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())
            for _ in range(700):
                member.write(bytes(1 << 20))
    return file.getvalue()


def bomb_gzip() -> bytes:
    """Less than 2 MB that unpack to 1.5 GB of zeros."""
    one = gzip.compress(bytes(1 << 24))
    return one * 96


def huge_npy(_: bytes, rng: random.Random) -> bytes:
    """A header that claims terabytes."""
    head = (
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rng.randrange(1, 9)}{'0' * 12},), }}"
    )
    head = head.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + bytes(1000)


# --- in the place of a file ---------------------------------------------------------------------


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()
    (path / "something").write_text("a")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


PLACES: dict[str, Callable[[Path], None]] = {
    each.__name__: each for each in (pipe, device, folder, dangling)
}


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


Damage = tuple[str, Callable[[Path], None]]


def _write(content: bytes) -> Callable[[Path], None]:
    return lambda path: _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
    remove(path)  # never through a link to the store's copy
    path.write_bytes(content)


def _put(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        remove(path)
        make(path)

    return replace


def of_file(path: Path, rng: random.Random, most: int) -> Iterator[Damage]:
    """Yield what may happen to a file: any of it, then what only its kind can suffer.

    Args:
        most: how many fields of a JSON file are changed; 0 for one that may hold anything.
    """
    content = path.read_bytes()
    for name, change in BYTES.items():
        yield name, _write(change(content, rng))
    for _ in range(2):
        yield "flip", _write(flip(content, rng))
        yield "cut", _write(cut(content, rng))
    for name, make in PLACES.items():
        yield name, _put(make)
    if path.suffix in (".json", ".yaml"):
        for name, change in TEXTS.items():
            yield name, _write(change(content, rng))
    if most and path.suffix == ".json":
        for name, changed in fields(content, rng, most):
            yield name, _write(changed)
    if path.suffix == ".npz":
        yield "bomb", _write(bomb_npz())
    if path.suffix in (".npy", ".npz"):
        yield "terabytes", _write(huge_npy(content, rng))
