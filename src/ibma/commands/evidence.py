"""Check a profile's committed reports, and write the evidence that they are checked with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ibma import params, paths
from ibma.errors import IbmaError
from ibma.evidence import archive, retrain, verify


def check(profile: str, again: str) -> Iterator[str]:
    """Recompute every number and yield what was found, line by line.

    Args:
        profile: its name; empty for every one that can be checked.
        again: which runs to train again, empty for none.

    Raises:
        IbmaError: a number differs, or a run that was trained again.
    """
    names = [profile] if profile else verify.profiles(Path())
    for other in [] if profile else verify.unchecked(Path(), names):
        yield f"profile {other}: not checked: it has neither evidence nor records"
    for name in names:
        # what cannot be trained is refused here, before the check that takes minutes
        trained = retrain.run(name, Path(), again) if again else None
        yield from _verify(name)
        if trained is not None:
            yield from _compare(name, trained)


def _verify(profile: str) -> Iterator[str]:
    """Yield every place of a profile's reports that differs.

    Raises:
        IbmaError: there is one.
    """
    outcome = verify.verify(profile, Path())
    for one in outcome.differences:
        yield (
            f"{one.file}: {one.place}: committed '{one.committed}', "
            f"{outcome.source}: '{one.recomputed}'"
        )
    if outcome.differences:
        raise IbmaError(
            f"profile {profile}: {len(outcome.differences)} of {outcome.compared} places differ "
            f"from the {outcome.source}, the first in {outcome.differences[0].file}: "
            "`dvc repro report` and `ibma archive` write both again, or `git checkout` them"
        )
    yield (
        f"profile {profile}: {outcome.compared} places of the committed reports agree with "
        f"{outcome.runs} runs ({outcome.source}; {outcome.predicted} of them with predictions)"
    )


def _compare(profile: str, trained: Iterator[retrain.Again]) -> Iterator[str]:
    """Yield how far each run that was trained again is from the committed one.

    Raises:
        IbmaError: some are too far; it names them.
    """
    agreed, apart = 0, []
    for one in trained:
        name = f"{one.run.task}/{one.run.method}/{one.run.seed}"
        made = "same key" if one.same_key else "another key: other code, data or parameters"
        yield f"{name}: {made}; {one.device}, committed: {one.run.provenance['device']}"
        for gap in one.gaps:
            mark = "" if gap.agrees else "  DIFFERS"
            yield f"  {gap.name}: {gap.committed} {gap.retrained} (+-{gap.allowed:.2g}){mark}"
        if all(gap.agrees for gap in one.gaps):
            agreed += 1
        else:
            apart.append(name)
    if apart:
        raise IbmaError(f"{', '.join(apart)}: trained again, and not what is committed: see above")
    yield f"profile {profile}: {agreed} runs trained again agree with what is committed"


def pack() -> tuple[str, list[str]]:
    """Copy what the tables are made of to be committed; return what was written, and gaps."""
    profile = params.load(paths.PARAMS)
    out = paths.evidence(profile.profile)
    gaps = [f"missing: {gap}" for gap in archive.pack(profile, Path(), out)]
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return f"{out}: {size / 1e6:.1f} MB", gaps
