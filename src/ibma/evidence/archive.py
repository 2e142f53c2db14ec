"""What a profile's tables are made of, small enough to commit: `reports/<profile>/evidence/`.

Git holds neither runs/ nor data/. The evidence is a copy of all that the tables read there, laid
out alike: records as one JSON line per seed in runs/<task>/<method>.jsonl, the rest as it was,
params.yaml beside them, and SHA256SUMS over all of it (`sha256sum -c` reads that too).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ibma.errors import IbmaError
from ibma.files import read_json
from ibma.formats import checksums
from ibma.params import Params

SUMS = "SHA256SUMS"
MEASURED = ("data/timing.json", "data/probe.json")  # beside the records, what tables read


def folder(root: Path, profile: str) -> Path:
    """Where the evidence of a profile is committed."""
    return root / "reports" / profile / "evidence"


def pack(params: Params, root: Path, out: Path) -> list[str]:
    """Write the evidence of the profile in `root`/params.yaml into `out`; return what is missing.

    Files of an earlier call that this one does not write are deleted.
    """
    written = [_copy(root, out, "params.yaml")]
    for task, name in params.names():
        if lines := [_compact(one) for one in _records(params, root / "runs" / task / name)]:
            written.append(_write(out / "runs" / task / f"{name}.jsonl", "\n".join(lines) + "\n"))
    for name in (*MEASURED, *_inputs(params)):
        if (root / name).exists():
            content = read_json(root / name, None)
            written.append(_write(out / name, _compact(content) + "\n"))
    sums = [f"{checksums.sha256(path)}  {path.relative_to(out).as_posix()}" for path in written]
    written.append(_write(out / SUMS, "\n".join(sums) + "\n"))
    for path in set(_files(out)) - set(written):
        path.unlink()
    return missing(params, root)


def _inputs(params: Params) -> Iterator[str]:
    for task in params.tasks:
        yield f"data/features/{task}/meta.json"
        for method in (*params.methods, *params.variants):
            yield f"data/tune/{task}/{method}.json"


def _records(params: Params, cell: Path) -> Iterator[dict[str, Any]]:
    """The records of one cell as they are on disk, by seed; those of another profile are left out.

    Not by way of `Record`: what this version of the program does not know is evidence too.
    """
    for seed in range(params.seeds):
        one = read_json(cell / f"seed_{seed}.json", None)
        if one is not None and one["profile"] == params.profile:
            yield one


def _compact(value: object) -> str:
    """One line, keys as they come, since columns of tables follow them.

    Floats keep every digit: Python prints the shortest text that reads back equal.
    """
    return json.dumps(value, separators=(",", ":"))


def _copy(root: Path, out: Path, name: str) -> Path:
    return _write(out / name, (root / name).read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _files(held: Path) -> list[Path]:
    return [path for path in held.rglob("*") if path.is_file()]


def unpack(held: Path, root: Path) -> None:
    """Lay evidence out as stages leave it: runs/<task>/<method>/seed_<k>.json and data/ in `root`.

    Raises IbmaError for a line that is no record.
    """
    for path in _files(held):
        place, text = root / path.relative_to(held), path.read_text(encoding="utf-8")
        if path.suffix != ".jsonl":
            _write(place, text)
            continue
        for number, line in enumerate(text.splitlines(), 1):
            try:
                seed = json.loads(line)["seed"]
            except (json.JSONDecodeError, KeyError, TypeError):
                raise IbmaError(
                    f"{path}: line {number}: not a record: `git checkout` the file, or run "
                    "`ibma archive` where the records are"
                ) from None
            _write(place.with_suffix("") / f"seed_{seed}.json", line)


def altered(held: Path) -> list[str]:
    """Names of files that are not those that SHA256SUMS lists: changed, missing or added."""
    lines = (held / SUMS).read_text(encoding="utf-8").splitlines() if (held / SUMS).exists() else []
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {path.relative_to(held).as_posix(): path for path in _files(held)}
    found.pop(SUMS, None)
    names = sorted({*listed, *found})
    return [n for n in names if n not in found or checksums.sha256(found[n]) != listed.get(n)]


def missing(params: Params, root: Path) -> list[str]:
    """`<task>/<method>: seed <k>` of every record that the profile asks for and `root` lacks.

    A task whose data could not be had has no records to lack.
    """
    absent = {
        task
        for task in params.tasks
        if "missing" in read_json(root / "data/features" / task / "meta.json", {})
    }
    return [
        f"{task}/{name}: seed {seed}"
        for task, name in params.names()
        if task not in absent
        for seed in range(params.seeds)
        if not (root / "runs" / task / name / f"seed_{seed}.json").exists()
    ]
