"""Pack the records and predictions behind a profile's tables: `reports/<profile>/evidence/`.

Git holds neither runs/ nor data/. The evidence is a copy of all that the tables read there, laid
out alike and packed (`xzcat` shows it): records as one JSON line per seed in
runs/<stage>/<task>/<method>.jsonl.xz, what their networks say of the test rows in <method>.npz.xz,
the rest under its name and .xz. Beside them lie params.yaml and SHA256SUMS over all of it
(`sha256sum -c` reads that too).
"""

from __future__ import annotations

import io
import json
import lzma
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ibma import files, paths
from ibma.errors import IbmaError, one_line
from ibma.evidence import shapes
from ibma.evidence.shapes import AGAIN
from ibma.files import (
    atomic_folder,
    parse_json,
    read_arrays,
    read_json,
    unpacked_limit,
    write_json,
)
from ibma.params import Params, load
from ibma.results import records
from ibma.results.records import Results
from ibma.training.cell import why_not_run
from ibma.training.predictions import Predictions
from ibma.training.record import Record, RunId, digest_of

SUMS = "SHA256SUMS"
MEMORY = 100_000_000  # bytes; a header may ask for far more than a file of `pack` needs
LARGEST = 1 << 28  # bytes of all files
TEXT = 1 << 24  # bytes of one JSON value; in Python it takes twenty times as many


def pack(params: Params, root: Path, out: Path) -> list[str]:
    """Write the evidence of the profile in `root`/params.yaml; records that are stale stay out.

    Args:
        out: the folder of the evidence; it replaces an earlier one when it is complete.

    Returns:
        `<stage>/<task>/<method>: <why>` of every cell of a task with data that lacks records.

    Raises:
        IbmaError: another process writes reports here.
    """
    results = records.load(params, root)
    contents = {paths.PARAMS: (root / paths.PARAMS).read_bytes()}
    for cell, runs in results.runs.items():
        if runs:
            contents[_lines_of(*cell)] = _packed("".join(_line(asdict(run)) for run in runs))
        if said := _pack_predictions(results, runs):
            contents[_predictions_of(*cell)] = said
    for name in _inputs(params):
        if (root / name).exists():
            contents[_input(name)] = _packed(_line(read_json(root / name, None)))
    sums = "".join(f"{sha256(held).hexdigest()}  {name}\n" for name, held in contents.items())
    # the lock lies beside reports/: in it, a file of nobody would be found
    with files.held(root / paths.REPORTS), atomic_folder(out) as new:
        for path, held in (*contents.items(), (Path(SUMS), sums.encode())):
            _write(new / path, held)
    return [f"{'/'.join(cell)}: {why}" for cell, why in results.gaps.items()]


def _lines_of(stage: str, task: str, method: str) -> Path:
    """Return the file with the records of a cell."""
    return paths.RUNS / stage / task / f"{method}.jsonl.xz"


def _predictions_of(stage: str, task: str, method: str) -> Path:
    """Return the file with the predictions of a cell."""
    return paths.RUNS / stage / task / f"{method}.npz.xz"


def _input(name: Path) -> Path:
    """Return the file with what tables read beside the records."""
    return name.with_name(f"{name.name}.xz")


def _packed(text: str) -> bytes:
    return lzma.compress(text.encode())


def _pack_predictions(results: Results, runs: Sequence[Record]) -> bytes:
    """Compress the predictions of a cell as one block: seeds repeat ids, labels and groups.

    Returns:
        An .npz file of `<seed>/<array>`, compressed; nothing where no run has predictions.
    """
    arrays = {
        f"{run.seed}/{name}": array
        for run in runs
        if run.id in results.predictions
        for name, array in results.predictions[run.id].arrays().items()
    }
    if not arrays:
        return b""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return lzma.compress(buffer.getvalue())


def _inputs(params: Params) -> Iterator[Path]:
    """Yield what tables read beside the records."""
    yield from (paths.TIMING, paths.PROBE)
    for task in params.tasks:
        yield from (paths.meta(task), paths.logistic(task))
        yield from (paths.choice(task, method) for method in params.methods_of(task))


def _line(value: object) -> str:
    """Write JSON in one line, keys in the order in which they come: columns of tables follow it.

    Floats keep every digit: Python prints the shortest text that reads back equal.
    """
    return json.dumps(value, separators=(",", ":")) + "\n"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def unpack(held: Path, root: Path) -> None:
    """Lay evidence out in the folder `root` as stages leave it: a file for each record.

    Raises:
        IbmaError: a file was changed, added or taken away, is none that the profile has, or lies
            behind a link; a line is not a record of its place.
    """
    contents = _checked(held)
    params = load(held / paths.PARAMS)
    _write(root / paths.PARAMS, contents.pop(paths.PARAMS.as_posix()))
    cells = {_lines_of(*cell).as_posix(): cell for cell in params.cells()}
    predicted = {_predictions_of(*cell).as_posix(): cell for cell in params.cells()}
    inputs = {_input(name).as_posix(): name for name in _inputs(params)}
    # records first: predictions need theirs
    for name, content in sorted(contents.items(), key=lambda pair: pair[0] in predicted):
        if name in cells:
            _unpack_records(held / name, content, cells[name], params.seeds, root)
        elif name in predicted:
            _unpack_predictions(held / name, content, predicted[name], root)
        elif name in inputs:
            _unpack_json(held / name, content, inputs[name], root)
        else:
            raise IbmaError(f"{held / name}: profile {params.profile} has no such file: {AGAIN}")
    for name, (_, task, _) in cells.items():
        if name in contents and (why := why_not_run(task, root)):
            raise IbmaError(f"{held / name}: runs of a task that has none ({why}): {AGAIN}")


def _checked(held: Path) -> dict[str, bytes]:
    """Read the files that SHA256SUMS lists, and make sure that these are all.

    Raises:
        IbmaError: a file is changed, missing, not listed, or a link.
    """
    every = (path for path in held.rglob("*") if path.is_symlink() or not path.is_dir())
    found = {path.relative_to(held).as_posix(): path for path in every}
    if SUMS not in found or paths.PARAMS.as_posix() not in found:
        raise IbmaError(f"{held}: needs {SUMS} and {paths.PARAMS}: {AGAIN}")
    for path in found.values():
        if path.is_symlink() or not path.is_file():
            raise IbmaError(f"{path}: not a plain file: {AGAIN}")
    if (size := sum(path.stat().st_size for path in found.values())) > LARGEST:
        raise IbmaError(f"{held}: {size:,} bytes: expected {LARGEST:,} at most: {AGAIN}")
    sums = found.pop(SUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in sums)}
    if len(listed) < len(sums):
        raise IbmaError(f"{held / SUMS}: lists a file twice: {AGAIN}")
    contents = {name: path.read_bytes() for name, path in found.items()}
    actual = {name: sha256(content).hexdigest() for name, content in contents.items()}
    if differing := sorted(dict(listed.items() ^ actual.items())):
        raise IbmaError(
            f"{held / differing[0]}: not what {SUMS} lists ({len(differing)} of {len(listed)} "
            f"files are changed, missing or added): {AGAIN}"
        )
    return contents


def _unpack_records(
    path: Path, content: bytes, cell: tuple[str, str, str], seeds: int, root: Path
) -> None:
    """Write each line of a cell's file as the record of its seed.

    Raises:
        IbmaError: the file does not unpack, a line is no record of the cell, or its seed is wrong
            or there twice.
    """
    try:
        lines = io.BytesIO(_unpacked(content))  # one after the other: there may be millions
    except ValueError as error:
        raise IbmaError(f"{path}: not packed records ({one_line(error)}): {AGAIN}") from None
    for number, line in enumerate(lines, 1):
        where = f"{path}: line {number}"
        target = root / paths.record(*cell, _seed(line, cell, seeds, where))
        if target.exists():
            raise IbmaError(f"{where}: {target.stem} for the second time: {AGAIN}")
        _write(target, line.removesuffix(b"\n") + b"\n")


def _unpack_predictions(path: Path, content: bytes, cell: tuple[str, str, str], root: Path) -> None:
    """Write the predictions of each seed of a cell's file; its record says whose they are.

    Raises:
        IbmaError: the file does not hold predictions of the cell's records.
    """
    try:
        for seed, arrays in _by_seed(content).items():
            run, said = RunId(*cell, seed), Predictions.of(arrays)
            if _named(root / run.record) != said.digest:
                raise ValueError(f"seed {seed}: no record says that they are its")
            said.write(root / run.predictions)
    except (ValueError, EOFError) as error:
        raise IbmaError(f"{path}: not predictions ({one_line(error)}): {AGAIN}") from None


def _named(path: Path) -> str:
    """Return the digest of the predictions that an unpacked record names, whoever wrote it."""
    return str(json.loads(path.read_bytes()).get("predictions")) if path.exists() else ""


def _unpack_json(path: Path, content: bytes, name: Path, root: Path) -> None:
    """Write what a stage had written, as `read_json` reads it.

    Raises:
        IbmaError: it is not JSON, or not as the stage writes it.
    """
    try:
        value = _parsed(_unpacked(content))
    except ValueError as error:
        raise IbmaError(f"{path}: not JSON ({one_line(error)}): {AGAIN}") from None
    shapes.check(name, value, str(path))
    write_json(root / name, value)


def _by_seed(content: bytes) -> Mapping[int, dict[str, Any]]:
    """Return seed -> name -> array of what `_pack_predictions` made."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    packed = _unpacked(content)
    # `np.savez` compresses nothing, so that arrays are no larger than their file
    for key, array in read_arrays(io.BytesIO(packed), len(packed)).items():
        seed, _, name = key.partition("/")
        if seed != str(int(seed)):  # 01 and 1 would be one seed
            raise ValueError(f"seed '{seed}'")
        found[int(seed)][name] = array
    return found


def _unpacked(content: bytes) -> bytes:
    """Unpack one xz file.

    Raises:
        ValueError: it is none, is cut off, or unpacks to more.
    """
    limit, unpacking = unpacked_limit(len(content)), lzma.LZMADecompressor(memlimit=MEMORY)
    try:
        found = unpacking.decompress(content, limit)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from None
    if len(found) == limit:
        raise ValueError(f"it unpacks to {limit:,} bytes or more")
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("it is cut off, or something follows it")
    return found


def _seed(line: bytes, cell: tuple[str, str, str], seeds: int, where: str) -> int:
    """Return the seed of a record in a line, which may hold anything.

    Raises:
        IbmaError: it is no record of the cell, or none that its digest was made of.
    """
    try:
        content = _parsed(line)
        run = Record(**content)
    except (ValueError, TypeError) as error:
        raise IbmaError(f"{where}: not a record ({one_line(error)[:200]}): {AGAIN}") from None
    if run.id[:3] != cell:
        raise IbmaError(f"{where}: not a record of {'/'.join(cell)}: {AGAIN}")
    if type(run.seed) is not int or not 0 <= run.seed < seeds:
        shown = json.dumps(run.seed)[:40]
        raise IbmaError(f"{where}: seed {shown}: expected 0 to {seeds - 1}: {AGAIN}")
    shapes.check_run(line, where)
    if content.get("digest") != digest_of(content):
        raise IbmaError(f"{where}: changed since it was written, its digest does not fit: {AGAIN}")
    return run.seed


def _parsed(text: bytes) -> Any:
    """Return a JSON value of a size that reports have.

    Raises:
        ValueError: it is none, or larger.
    """
    if len(text) > TEXT:
        raise ValueError(f"{len(text):,} bytes of JSON, expected {TEXT:,} at most")
    return parse_json(text)
