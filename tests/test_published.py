"""Published numbers: spot checks read again from the paper, and what a broken file says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ibma.errors import IbmaError
from ibma.paper import published
from ibma.paper.published import Cell, Published, Table, Target

PAPER = published.load()

# (table, row, column, value, sd): read from the paper by eye, not from the file under test.
SPOTS: list[tuple[int, str, str, float, float | None]] = [
    (1, "crema_d", "train", 6698, None),
    (1, "mosi", "test", 685, None),
    (1, "tissue", "train", 18183, None),
    (1, "meld", "classes", 7, None),
    (1, "mimic_cxr", "train", 227835, None),
    (1, "chexpert", "test", 234, None),
    (2, "concat", "crema_d.accuracy", 53.2, None),
    (2, "misa", "iemocap.accuracy", 71.0, None),
    (2, "mcib", "iemocap.accuracy", 74.3, None),
    (2, "dclf", "crema_d.accuracy", 63.4, None),
    (2, "ibma", "meld_emotion.accuracy", 65.7, 0.3),
    (3, "bigated", "mosi.f1", 83.2, None),
    (3, "dmib", "mosi.acc7", 40.4, None),
    (3, "mmib", "meld_sentiment.acc2", 78.4, None),
    (3, "clfa", "mosi.acc2", 86.1, None),
    (3, "omib", "meld_sentiment.f1", 80.1, None),
    (3, "ibma", "mosi.acc7", 50.1, 0.2),
    (4, "deep_ib", "mimic_cxr.mauc", 67.0, None),
    (4, "mmrlib", "chexpert.mauc", 87.5, None),
    (4, "ibma", "chexpert.mauc", 90.7, 0.2),
    (5, "mimic_cxr/omib", "ib/image", -0.021, None),
    (5, "mimic_cxr/ibma", "ib/fused", -0.058, None),
    (5, "chexpert/ibma_no_align", "ib/text", -0.030, None),
    (5, "chexpert/ibma", "mauc", 90.7, 0.2),
    (6, "ibma_vib", "crema_d.accuracy", 63.9, None),
    (6, "ibma_club", "crema_d.minutes_per_epoch", 3.8, None),
    (6, "ibma_apib", "crema_d.accuracy", 63.8, None),
    (6, "ibma", "crema_d.minutes_per_epoch", 2.0, None),
    (7, "concat", "tissue.auc/10x-hBC-A", 0.537, None),
    (7, "deep_ib", "tissue.f1/10x-hBC-B", 0.102, None),
    (7, "mmib", "tissue.auc/10x-hBC-C", 0.765, None),
    (7, "mib", "tissue.f1/10x-hBC-D", 0.564, None),
    (7, "mib", "tissue.auc/mean", 0.602, None),
    (7, "dclf", "tissue.f1/10x-hBC-A", 0.900, None),
    (7, "ibma", "tissue.f1/10x-hBC-B", 0.685, 0.005),
    (7, "ibma", "tissue.f1/mean", 0.754, None),
    (8, "ibma", "eta=0.2", 65.0, None),
    (8, "ibma", "eta=0.5", 65.4, None),
    (8, "ibma", "eta=0.7", 65.1, None),
    (9, "concat", "crema_d.minutes_per_epoch", 1.5, None),
    (9, "mmrlib", "crema_d.minutes_per_epoch", 2.2, None),
    (9, "omib", "crema_d.accuracy", 63.6, None),
    (9, "ibma", "crema_d.accuracy", 65.4, 0.4),
    (10, "meld_emotion", "baseline", 64.3, 0.4),
    (10, "iemocap", "p_value", 4.5e-6, None),
    (11, "mosi", "p_value", 2.2e-7, None),
    (11, "meld_sentiment", "ours", 82.0, 0.4),
    (12, "mimic_cxr", "baseline", 71.0, 0.2),
    (12, "chexpert", "p_value", 1.1e-6, None),
    (13, "10x-hBC-C", "ours", 0.767, 0.004),
    (13, "10x-hBC-D", "p_value", 4.2e-7, None),
    (14, "crema_d", "baseline", 64.1, 0.3),
    (14, "crema_d", "p_value", 2.8e-7, None),
    (15, "mimic_cxr", "baseline", 71.4, 0.3),
    (15, "chexpert", "p_value", 1.4e-6, None),
    (16, "omib", "chexpert.mauc/text", 76.0, None),
    (16, "ibma_no_align", "chexpert.mauc/image", 88.4, None),
    (16, "ibma", "chexpert.mauc", 90.7, None),
]

# rows x columns of each table, counted in the paper
SHAPES = {
    1: (7, 3),
    2: (12, 3),
    3: (13, 5),
    4: (12, 2),
    5: (6, 4),
    6: (4, 2),
    7: (13, 10),
    8: (1, 9),
    9: (12, 2),
    10: (3, 3),
    11: (2, 3),
    12: (2, 3),
    13: (4, 3),
    14: (1, 3),
    15: (2, 3),
    16: (3, 3),
}
METHODS = {"concat", "bigated", "misa", "deep_ib", "mmib", "mmrlib", "dmib", "mib", "mcib", "clfa"}
METHODS |= {"dclf", "omib", "ibma", "ibma_no_align", "ibma_vib", "ibma_apib", "ibma_club"}
TASKS = {"crema_d", "meld_emotion", "iemocap", "mosi", "meld_sentiment", "mimic_cxr", "chexpert"}
TASKS |= {"tissue"}


@pytest.mark.parametrize(("table", "row", "column", "value", "sd"), SPOTS)
def test_number_is_as_printed(
    table: int, row: str, column: str, value: float, sd: float | None
) -> None:
    cell = PAPER.cell(table, row, column)
    assert (cell.value, cell.sd) == (value, sd)


def test_spots_touch_every_table() -> None:
    assert {spot[0] for spot in SPOTS} == set(PAPER.tables) == set(range(1, 17))


@pytest.mark.parametrize("number", SHAPES)
def test_table_is_complete(number: int) -> None:
    table = PAPER.table(number)
    assert (len(table.rows), len(table.columns)) == SHAPES[number]
    for row in table.rows:
        assert list(row.cells) == [column.key for column in table.columns]


def _marked(table: Table, mark: str) -> set[tuple[str, str]]:
    return {(r.key, key) for r in table.rows for key, c in r.cells.items() if getattr(c, mark)}


def test_bold_is_our_row_and_the_best_eta() -> None:
    for number in (2, 3, 4, 7, 16):
        columns = PAPER.table(number).columns
        assert _marked(PAPER.table(number), "best") == {("ibma", c.key) for c in columns}
    assert _marked(PAPER.table(8), "best") == {("ibma", "eta=0.5")}
    assert _marked(PAPER.table(9), "best") == {("ibma", "crema_d.accuracy")}


def test_underlines_of_tables_7_and_9() -> None:
    slides = [f"tissue.{metric}/10x-hBC-{s}" for s in "AB" for metric in ("auc", "f1")]
    expected = {("omib", key) for key in [*slides, "tissue.auc/10x-hBC-C"]}
    expected |= {("omib", "tissue.auc/mean"), ("omib", "tissue.f1/mean")}
    expected |= {("dmib", "tissue.auc/10x-hBC-C"), ("dmib", "tissue.f1/10x-hBC-C")}
    expected |= {("mib", "tissue.auc/10x-hBC-D"), ("mib", "tissue.f1/10x-hBC-D")}
    assert _marked(PAPER.table(7), "second") == expected
    assert _marked(PAPER.table(9), "second") == {("omib", "crema_d.accuracy")}


def test_every_cell_names_known_methods_and_tasks() -> None:
    for table in PAPER.tables.values():
        for row in table.rows:
            for column in table.columns:
                target = table.target(row.key, column.key)
                assert target.method in METHODS | {None}
                assert target.task in TASKS | {None}
                assert target.metric
                if table.number != 1:
                    assert target.task


def test_target_joins_row_and_column() -> None:
    assert PAPER.table(5).target("chexpert/omib", "ib/text") == Target(
        "chexpert", "omib", "ib/text", None
    )
    assert PAPER.table(8).target("ibma", "eta=0.3") == Target("crema_d", "ibma", "accuracy", 0.3)
    assert PAPER.table(13).target("10x-hBC-B", "ours").metric == "auc/10x-hBC-B"
    assert PAPER.table(13).target("10x-hBC-B", "p_value").metric == "p_value"
    assert PAPER.table(15).target("chexpert", "baseline").method == "ibma_no_align"
    assert PAPER.table(10).target("crema_d", "baseline").method is None


def test_citations_are_those_of_the_reference_list() -> None:
    for number in (2, 3, 4, 7, 9):
        table = PAPER.table(number)
        assert table.row("bigated").label == "BiGated (Kiela et al., 2018)"
        assert table.row("misa").label == "MISA (Hazarika et al., 2020)"


def _sources(table: Table, row: str) -> dict[str, Cell]:
    """Map method to its cell in the table that a significance table tests, for one of its rows."""
    assert table.compares is not None
    wanted, source = table.target(row, "ours"), PAPER.table(table.compares)
    return {
        target.method: source.cell(r.key, c.key)
        for r in source.rows
        for c in source.columns
        if (target := source.target(r.key, c.key)).method
        and (target.task, target.metric) == (wanted.task, wanted.metric)
    }


def test_significance_tables_repeat_the_tables_they_test() -> None:
    """The paper agrees with itself, but for slide C, where its best baseline is not the best."""
    disagree = {}
    for table in PAPER.tables.values():
        if table.compares is None:
            continue
        for row in table.rows:
            cells = _sources(table, row.key)
            ours, baseline = table.cell(row.key, "ours"), table.cell(row.key, "baseline")
            assert (ours.value, ours.sd) == (cells["ibma"].value, cells["ibma"].sd)
            named = table.target(row.key, "baseline").method
            rivals = {m: c.value for m, c in cells.items() if m != "ibma"}
            best = rivals[named] if named else max(rivals.values())
            if baseline.value != best:
                disagree[table.number, row.key] = (baseline.value, best)
    assert disagree == {(13, "10x-hBC-C"): (0.743, 0.765)}


def test_means_of_table_7_follow_from_its_slides() -> None:
    """All but one: MIB's mean AUC is printed .602 and its slides give .670."""
    table, disagree = PAPER.table(7), {}
    for row in table.rows:
        for metric in ("auc", "f1"):
            slides = [row.cells[f"tissue.{metric}/10x-hBC-{s}"].value for s in "ABCD"]
            printed = row.cells[f"tissue.{metric}/mean"].value
            if abs(sum(slides) / 4 - printed) > 0.00051:  # half a printed digit
                disagree[row.key, metric] = printed
    assert disagree == {("mib", "auc"): 0.602}


def test_columns_have_the_unit_that_the_paper_prints() -> None:
    assert PAPER.table(7).unit == "fraction"
    assert PAPER.table(6).column("crema_d.minutes_per_epoch").unit == "minutes"
    assert PAPER.table(6).column("crema_d.accuracy").unit == "percent"
    assert [c.unit for c in PAPER.table(5).columns] == ["nats", "nats", "nats", "percent"]
    assert PAPER.table(12).column("p_value").unit == "p"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda p: p.table(17), "table 17 .* use one of 1, 2"),
        (lambda p: p.cell(2, "ibmaa", "crema_d.accuracy"), "table 2: row ibmaa .* use one of conc"),
        (lambda p: p.cell(2, "ibma", "mosi.acc7"), "table 2: column mosi.acc7 .* use one of crema"),
    ],
)
def test_an_unknown_address_names_those_that_there_are(
    ask: Callable[[Published], object], message: str
) -> None:
    with pytest.raises(IbmaError, match=message):
        ask(PAPER)


MINIMAL = """
tables:
  3:
    title: t
    caption: c
    row_header: Method
    unit: percent
    columns:
      - {key: x, label: X, metric: accuracy}
      - {key: y, label: Y, metric: f1}
    rows:
      - {key: omib, method: omib, label: OMIB, cells: {x: {value: 1}, y: {value: 2.5, sd: 0.1}}}
      - {key: ibma, method: ibma, label: IBMA, cells: {x: {value: 3, best: true}}}
"""


def _load(folder: Path, text: str) -> Published:
    path = folder / "tables.yaml"
    path.write_text(text, encoding="utf-8")
    return published.load(path)


def test_a_cell_has_its_marks_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    paper = _load(tmp_path, MINIMAL)
    assert paper.cell(3, "omib", "y") == Cell(2.5, 0.1)
    assert paper.cell(3, "ibma", "x") == Cell(3, best=True)
    with pytest.raises(IbmaError, match="table 3: row ibma: .* nothing in column y"):
        paper.cell(3, "ibma", "y")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value: 2.5", "value: '2.5'", "rows.0.cells.y.value: .* valid number, found '2.5'"),
        ("value: 2.5", "value: .nan", "rows.0.cells.y.value: .* finite number, found nan"),
        ("value: 2.5, ", "", "rows.0.cells.y.value: Field required"),
        ("sd: 0.1", "std: 0.1", "rows.0.cells.y.std: Unexpected"),
        ("best: true", "best: 1", "rows.1.cells.x.best: .* valid boolean, found 1"),
        ("x: {value: 1}", "z: {value: 1}", "tables.3: row omib: no column has key z"),
        ("x: {value: 1}", "x: 1", "rows.0.cells.x: .* dictionary .*, found 1"),
        ("key: ibma", "key: omib", "tables.3: key omib is there twice"),
        ("key: y", "key: x", "tables.3: key x is there twice"),
        ("label: Y", "label: 5", "tables.3.columns.1.label: .* valid string, found 5"),
        ("label: Y", "label: Y, unit: metres", "columns.1.unit: .*'percent', .*found 'metres'"),
        ("unit: percent", "unit: metres", "tables.3.unit: .*'percent', .*found 'metres'"),
        ("    title: t\n", "", "tables.3.title: Field required"),
        ("  3:", "  three:", "tables.three.*: .* valid integer"),
        ("unit: percent", "unit: percent\n    compares: 2", "3: compares: no table 2"),
        ("unit: percent", "unit: percent\n    foot: 2", "tables.3.foot: Unexpected"),
        ("    rows:", "    rows: 5\n    more:", "tables.3.rows: .* found 5"),
        ("tables:", "table:", "tables: Field required"),
        ("tables:", "tables: 5\nmore:", "tables: .* found 5"),
        ("tables:", "tables: [", "cannot be read as YAML"),
    ],
)
def test_malformed_file_is_told_in_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in MINIMAL
    with pytest.raises(IbmaError, match=message) as caught:
        _load(tmp_path, MINIMAL.replace(old, new, 1))
    assert "tables.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IbmaError, match=re.escape(str(tmp_path / "none.yaml"))):
        published.load(tmp_path / "none.yaml")


def test_file_repeats_no_key() -> None:
    """YAML keeps the last of two equal keys in silence; a transcription must not have them."""

    def walk(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            for _, child in node.value:
                walk(child)
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                walk(child)

    root = yaml.compose(published.PATH.read_text(encoding="utf-8"))
    assert root is not None
    walk(root)
