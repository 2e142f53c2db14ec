"""Tables of the studies: where the bound can act."""

from __future__ import annotations

from ibma.report.table import Column, Number, Row, Table
from ibma.results import separation


def build() -> list[Table]:
    """Build every table of the studies."""
    return [_regime()]


def _regime() -> Table:
    """`regime`: the closed form of IBB's alignment term for K classes in every regime of phi."""
    rows = []
    for classes in separation.CLASSES:
        courses = [separation.course(classes, one.sharpness) for one in separation.REGIMES]
        numbers = [courses[0].start, courses[0].highest]
        numbers += [number for one in courses for number in (one.at, one.end)]
        rows.append(Row((classes, *(Number(number, "") for number in numbers))))
    columns = [Column("Classes K"), Column("Start: ln K"), Column("Highest")]
    for one in separation.REGIMES:
        columns += [Column("highest at", one.name), Column("end", one.name)]
    return Table(
        "regime",
        "What the alignment term of IBB can reach",
        "-V in nats for K balanced classes on a regular simplex, Q estimated without error.",
        False,
        tuple(columns),
        tuple(rows),
        (
            "Start: classes coincide. End: they are as far apart as K unit vectors can be. "
            "Highest: on the way, at the separation (distance over the largest one) beside it; "
            "beta moves the place and not the height.",
            "Printed: vectors are not normalised, and their entries have unit variance. Width D is "
            "then the same as unit vectors at beta D.",
        ),
    )
