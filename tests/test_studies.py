"""The studies of regimes and of noise: what is compared, over what, and what the tables say."""

import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import test_report
import yaml
from test_report import ACCURACY, by_heading, fake, fill, write

from ibma import params
from ibma.report import inputs, pictures, study_tables
from ibma.report.table import Number, Table, as_latex, as_markdown
from ibma.results import records, studies

ROOT = Path(__file__).parent.parent
TASK = "split_digits"
GAIN = {1.0: 0.0, 4.0: 0.02, 16.0: -0.01}  # accuracy of IBMA over no alignment, by beta
SHARE = {1.0: 0.002, 4.0: 0.3, 16.0: 2.0}
RIVALS = ("IBMA without alignment", "CE3 (no bound)")
BAND = {1.0: "inactive", 4.0: "weaker", 16.0: "stronger"}


def profile() -> params.Params:
    raw = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    raw["regimes"] |= {"betas": list(GAIN), "etas": [0.5]}
    raw["noise"] |= {"methods": ["concat", "ce3", "ibma"], "levels": [1.0, 4.0]}
    return params.parse(raw, Path("params.yaml"))


def regime_runs(one: params.Params):
    """Control .6; without alignment .7 + seed / 100; IBMA as GAIN says, its gain a bit unsteady."""
    for name, variant in one.variants("regimes", TASK).items():
        beta = variant.hparams.get("beta")
        for seed in range(one.seeds):
            accuracy = 0.6 if beta is None else 0.7 + seed / 100
            if variant.method == "ibma":
                accuracy += GAIN[beta] + 1e-4 * (seed - 1) * beta
            share = (
                {f"share/{place}": [0.0, SHARE[beta]] for place in ("left", "right")}
                if beta
                else {}
            )
            made = fake(TASK, variant.method, seed, metrics={"accuracy": accuracy}, regime=share)
            yield replace(made, stage="regimes", method=name, digest="")


def noise_runs(one: params.Params):
    for name, variant in one.variants("noise", TASK).items():
        loss = 0.05 * (variant.noise.train + 2 * variant.noise.test) * (variant.method != "ibma")
        for seed in range(one.seeds):
            accuracy = 0.9 - loss + seed / 1000
            made = fake(TASK, variant.method, seed, metrics={"accuracy": accuracy})
            yield replace(made, stage="noise", method=name, digest="")


@pytest.fixture(scope="module")
def read(tmp_path_factory) -> inputs.Inputs:
    root, one = tmp_path_factory.mktemp("studies"), profile()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "is_current", lambda *_: True)
        patch.setattr(test_report, "PROFILE", one)
        fill(root)
        for run in (*regime_runs(one), *noise_runs(one)):
            write(root, run)
        return inputs.load(one, root)


@pytest.fixture(scope="module")
def known() -> records.Results:
    """The same records as they are read, and those of stage `train` and its like."""
    one, runs = profile(), {}
    plain = [fake(TASK, method, seed) for method in ACCURACY for seed in range(one.seeds)]
    for run in (*regime_runs(one), *noise_runs(one), *plain):
        runs.setdefault((run.stage, run.task, run.method), []).append(run)
    return records.Results(one, runs, {}, {})


def table(read: inputs.Inputs, key: str) -> Table:
    return next(one for one in study_tables.build(read) if one.key == key)


def test_a_regime_is_compared_with_itself_without_alignment_and_with_the_control(known):
    found = {one.beta: one for one in studies.points(known, TASK)}
    assert list(found) == list(GAIN)
    for beta, one in found.items():
        assert one.share == pytest.approx(SHARE[beta]) and one.band == BAND[beta]
        assert set(one.apart) == {"ibma_no_align", "ce3"}
        mean = sum(one.apart["ibma_no_align"].values()) / 3
        assert mean == pytest.approx(100 * GAIN[beta])
    active = [one for one in found.values() if one.band != "inactive"]
    mean = studies.mean_apart(active, "ibma_no_align")
    assert mean.mean == pytest.approx(0.5) and mean.n == 3, "runs, not runs times regimes"
    assert studies.mean_apart(active, "ce3").mean == pytest.approx(11.5)
    assert studies.mean_apart([], "ce3") is None
    assert studies.counts(list(found.values()), "ibma_no_align") == (1, 1)


def point(*differences: float) -> studies.Point:
    apart = {"rival": dict(enumerate(differences))}
    return studies.Point("unit", 1.0, 0.5, 1.0, apart, 0.0)


def test_regimes_are_counted_where_a_difference_is_shown_however_small():
    better, worse = point(0.010, 0.011, 0.0105), point(-0.2, -0.21, -0.205)
    with warnings.catch_warnings(action="error"):  # also where no run has both sides
        found = studies.counts([better, better, worse, point(-9, 9, 1), point()], "rival")
    assert found == (2, 1)
    assert studies.mean_apart([better], "rival").mean == pytest.approx(0.0105)
    assert studies.mean_apart([better], "nobody") is None


def test_regimes_are_counted_after_holm():
    """t = 3 ** .5 / .357 with two degrees of freedom is p = .04, of two such tests .08."""
    one = point(1.0, 1.357, 0.643)
    assert studies.counts([one], "rival") == (1, 0)
    assert studies.counts([one, one], "rival") == (0, 0)


def test_the_metric_is_that_of_the_task(known):
    runs = {
        cell: [replace(run, metrics={"mauc": run.metrics["accuracy"]}, digest="") for run in own]
        for cell, own in known.runs.items()
    }
    found = studies.points(replace(known, runs=runs), TASK)
    assert found == studies.points(known, TASK) and found[1].apart["ce3"]


def test_noise_is_in_training_in_the_test_or_in_both(known):
    found = studies.levels(known, TASK)
    assert list(found) == ["train", "test", "both"]
    for place, by_level in found.items():
        assert list(by_level) == [0.0, 1.0, 4.0]
        for level, runs in by_level.items():
            assert list(runs) == ["concat", "ce3", "ibma"]
            loss = 0.05 * level * {"train": 1, "test": 2, "both": 3}[place]
            for method, own in runs.items():
                lost = 0.9 - own[0].metrics["accuracy"]
                assert lost == pytest.approx(loss * (method != "ibma")), (place, level, method)
    without = {cell: own for cell, own in known.runs.items() if "ce3" not in cell[2]}
    assert list(studies.levels(replace(known, runs=without), TASK)["both"][1.0]) == [
        "concat",
        "ibma",
    ]


def test_runs_that_share_training_rows_have_wider_intervals_and_larger_p(known):
    found = studies.points(known, TASK)
    shared = [replace(one, overlap=0.25) for one in found]
    alone, wide = (studies.mean_apart(some, "ce3") for some in (found, shared))
    assert wide.mean == alone.mean
    assert (wide.high - wide.low) / (alone.high - alone.low) == pytest.approx(math.sqrt(1.75))
    assert sum(studies.counts(shared, "ce3")) <= sum(studies.counts(found, "ce3"))


def test_unequal_settings_are_not_compared(known):
    ours, theirs = (known.of(TASK, method) for method in ("ibma", "ce3"))
    assert studies.differences(ours, theirs, "accuracy")
    others = [replace(run, tuned=run.tuned | {"folds": 5}, digest="") for run in theirs]
    assert not studies.differences(ours, others, "accuracy")


def test_the_table_of_regimes_has_a_line_a_task_and_another_a_line_a_regime(read):
    made = table(read, "regimes")
    (row,), (cells,) = made.rows, by_heading(made)
    assert row.values[1:3] == (3, "1 / 1 / 1")
    assert cells["Share"].value == pytest.approx(0.3)
    against = "IBMA minus IBMA without alignment"
    for beta, band in BAND.items():
        assert cells[f"{against}: {band}"].value == pytest.approx(100 * GAIN[beta], abs=1e-9)
    assert cells[f"{against}: better / worse"] == "1 / 1"
    assert cells["IBMA with a tuned beta minus CE3 (no bound)"] == "not run"
    assert len(made.flat()) == 1 and len(table(read, "regime_points").rows) == 3
    assert "1 / 1" in as_markdown(made) and as_latex(made)


def test_every_regime_has_its_own_difference_to_every_rival(read):
    made = table(read, "regime_points")
    lines = zip(made.rows, by_heading(made), strict=True)
    found = {row.values[2]: cells for row, cells in lines}
    assert list(found) == ["1", "4", "16"]
    for beta, gain in GAIN.items():  # without alignment .71, the control .6
        one = found[f"{beta:g}"]
        aligned, control = (one[f"IBMA minus {name}"] for name in RIVALS)
        assert aligned.value == pytest.approx(100 * gain, abs=1e-9)
        assert control.value == pytest.approx(11 + 100 * gain)
        assert one["Share"].value == pytest.approx(SHARE[beta])


def test_what_the_term_can_reach_is_that_of_two_classes_by_hand(read):
    """Unit vectors of two classes are 2 apart at most: e runs to 4 beta, p = 1 / (1 + exp(-e))."""

    def term(e: float) -> float:
        p = 1 / (1 + math.exp(-e))
        same = p**2 + (1 - p) ** 2
        return -same * math.log(p) - (1 - same) * math.log(1 - p)

    row = by_heading(table(read, "regime"))[0]
    place = max((k / 1000 for k in range(4001)), key=term)
    assert row["Classes K"] == 2 and row["Start: ln K"].value == pytest.approx(math.log(2))
    assert row["Highest"].value == pytest.approx(term(place), rel=1e-4)
    for beta in (1, 4):
        assert row[f"unit, beta {beta}: end"].value == pytest.approx(term(4 * beta))
        at = row[f"unit, beta {beta}: highest at"].value
        assert at == pytest.approx(math.sqrt(place / (4 * beta)), rel=1e-2)


def test_the_table_of_noise_has_the_clean_runs_once_and_a_line_a_level(read):
    made = table(read, "noise")
    where = [row.values[1:3] for row in made.rows]
    noisy = [(place, level) for place in ("training", "test", "both") for level in ("1", "4")]
    assert where == [("none", "0"), *noisy]
    worst = by_heading(made)[-1]
    assert worst["Concat"].value == pytest.approx(30.1)
    assert worst["IBMA minus CE3 (no bound)"].value == pytest.approx(60.0)
    assert isinstance(worst["IBMA"], Number) and worst["IBMA"].n == 3


def test_studies_are_drawn_and_said(read, tmp_path):
    (regimes,) = pictures._draw_regimes(read, tmp_path)
    assert "3 regimes: 1 inactive (share under 1%), 1 weaker and 1 stronger" in regimes.caption
    assert "better than IBMA without alignment in 1 and worse in 1" in regimes.caption
    (noise,) = pictures._draw_noise(read, tmp_path)
    for picture in (regimes, noise):
        text = (tmp_path / f"{picture.name}.svg").read_text()
        assert "Split digits" in text and "TWIN" not in text
    text = (tmp_path / "regimes.svg").read_text()
    assert all(label in text for label in ("1%", "equal", "unit vectors"))


def test_a_profile_without_studies_has_neither_table(read):
    raw = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    raw["regimes"]["tasks"], raw["noise"]["tasks"] = [], {}
    without = params.parse(raw, Path("params.yaml"))
    none = replace(read, params=without, results=replace(read.results, params=without))
    assert [one.key for one in study_tables.build(none)] == ["regime"]
