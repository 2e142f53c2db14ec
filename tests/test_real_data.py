"""Tables on real data beyond the paper: families of tests, folds, readings, eta, cost."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from conftest import record_of, unsynced
from test_report import by_heading

from ibma import params
from ibma.files import write_json
from ibma.report import inputs, numbers, page, pictures, question_tables, real_tables, verdict
from ibma.report.table import Mark, Number, Table
from ibma.results import claims, records, significance, stats
from ibma.results.claims import method_name, task_name
from ibma.training.record import Record

ROOT = Path(__file__).parent.parent
PROFILE = params.load(ROOT / "profiles/open.yaml")
# claims whose opponents the profile has
ASKED = [one for one in claims.CLAIMS if claims.candidates(one.opponent, PROFILE)]
METHODS = tuple(PROFILE.methods)
METRICS = {
    "classify": ("accuracy",),
    "sentiment": ("acc7", "acc2", "f1", "acc2_has0", "f1_has0"),
    "one_class": ("auc/A1", "auc/B1", "auc/mean", "f1/A1", "f1/B1", "f1/mean"),
}
KINDS = {"mosi_features": "sentiment", "mosi_features3": "sentiment"}
KINDS |= {"her2st_one_class": "one_class"}
FOLDS = {"ravdess": 5, "her2st": 8}
RUN = {"stage": "train", "task": "t", "method": "m"}
EDGE = {"ibma": 0.03, "ce3": 0.02, "dmib": 0.05}  # over the others


SHARES = {"ibma": 0.3, "ibma_unit": 0.004}  # of the bound's gradient in cross-entropy's


def regime_of(method: str) -> dict[str, list[float]]:
    """Make two epochs of a regime, in which phi grows sharper."""
    if method not in SHARES:
        return {}
    names = ("one", "fused")
    shares = {f"share/{name}": [0.0, SHARES[method] * (1 + (name == "fused"))] for name in names}
    return shares | {f"phi_max/{name}": [0.2, 0.7] for name in names}


def fake(task: str, method: str, seed: int, eta: float = 0.5) -> Record:
    """Make noise shared by the methods of a run, a little of their own, and an edge."""
    shared = np.random.default_rng(seed).normal(0, 0.03)
    rng = np.random.default_rng([seed, METHODS.index(method), round(100 * eta)])
    names = METRICS[KINDS.get(task, "classify")]
    values = 0.6 + EDGE.get(method, 0.0) + shared + rng.normal(0, 0.004, len(names))
    made = record_of(
        profile="open",
        stage=PROFILE.stage_of(method),
        task=task,
        method=method,
        seed=seed,
        source="real",
        fold=seed % FOLDS[task] if task in FOLDS else None,
        n_train=100,
        n_test=20,
        metrics=dict(zip(names, values.tolist(), strict=True)),
        ib={"one": -0.02 + 0.001 * seed, "fused": -0.05, "u/one": 0.1},
        ib_before={"one": -0.5 + 0.002 * seed, "fused": -0.01, "u/one": 0.1},
        regime=regime_of(method),
        cost={"parameters": 10_400, "trained": 8, "flops": 2_500_000},
    )
    return replace(made, params=made.params | {"eta": eta if "ibma" in method else None}, digest="")


def fill(root: Path) -> Path:
    """Write what a whole run of profile `open` leaves, its sizes apart."""
    shutil.copy(ROOT / "profiles/open.yaml", root / "params.yaml")
    for task in PROFILE.tasks:
        meta = {"source": "real", "classes": ["a", "b"], "counts": {"train": 100, "test": 20}}
        meta |= {"dropped": 0, "folds": 0}
        write_json(root / "data/features" / task / "meta.json", meta)
        for method in PROFILE.methods_of(task):
            for seed in range(PROFILE.seeds):
                one = fake(task, method, seed)
                one.write(root / one.id.record)
            write_json(root / f"data/tune/{task}/{method}.json", tuned(task, method))
    at = PROFILE.sensitivity
    for name, one_of in PROFILE.variants("sensitivity", at.task).items():
        for seed in range(PROFILE.seeds):
            one = fake(at.task, one_of.method, seed, one_of.eta)
            one = replace(one, stage="sensitivity", method=name, digest="")
            one.write(root / one.id.record)
    for task in PROFILE.tasks:
        folds = range(FOLDS[task]) if task in FOLDS else [None]
        accuracies = [0.6 + (k or 0) / 100 for k in folds]
        runs = [
            {"fold": k, "metrics": {"accuracy": one}, "majority": {"accuracy": one - 0.4}}
            for k, one in zip(folds, accuracies, strict=True)
        ]
        why = {"missing": "no vector", "runs": []}
        line = {"missing": None, "runs": runs} if task == "ravdess" else why
        write_json(root / f"data/logistic/{task}.json", line)
    seconds = {m: {"median": 1.0 + 0.1 * i, "low": 0.9, "high": 3.0} for i, m in enumerate(METHODS)}
    timed = {"task": "ravdess", "source": "real", "device": "cpu", "threads": 1, "rounds": 3}
    write_json(root / "data/timing.json", timed | {"methods": seconds})
    return root


def tuned(task: str, method: str) -> dict[str, object]:
    """Make scores of two etas on five folds, and a choice for each test fold."""
    etas = (0.1, 0.9) if "ibma" in method else (None,)
    folds = range(FOLDS[task]) if task in FOLDS else [None]
    point = {"lr": 0.001, "weight_decay": 0.0, "weight_factor": 1.0}
    scores = [
        point | {"run_fold": run, "fold": k, "eta": eta, "score": 0.5 + (eta or 0) / 10 + k / 100}
        for run in folds
        for k in range(5)
        for eta in etas
    ]
    choices = [point | {"run_fold": run, "eta": etas[-1], "score": 0.6} for run in folds]
    choices[0]["eta"] = etas[0]
    what = {"task": task, "method": method, "metric": "accuracy"}
    return what | {"choices": choices, "scores": scores}


@pytest.fixture(scope="module")
def read(tmp_path_factory) -> inputs.Inputs:
    with unsynced():
        root = fill(tmp_path_factory.mktemp("open"))
    return inputs.rederive(inputs.load(PROFILE, root, check_keys=False))


@pytest.fixture(scope="module")
def built(read) -> dict[str, Table]:
    return {table.key: table for table in numbers.build(read).tables}


def cell(table: Table, row: str, column: str) -> object:
    return next(r for r in by_heading(table) if next(iter(r.values())) == row)[column]


def test_claims_name_every_rival_once_and_every_entry_is_used():
    opponents = [claim.opponent for claim in claims.CLAIMS]
    assert len(set(opponents)) == len(opponents)
    paper = params.load(ROOT / "profiles/paper.yaml")
    assert all(claims.candidates(opponent, paper) for opponent in opponents)
    assert set(opponents) == {claim.opponent for claim in ASKED}
    assert claims.candidates("best baseline", PROFILE) == list(PROFILE.train)
    assert "ce3" not in claims.candidates("best baseline", PROFILE), "no baseline"
    for profile in ("open", "twin", "paper"):
        loaded = params.load(ROOT / f"profiles/{profile}.yaml")
        assert all(method_name(m) != m for m in loaded.methods), "every method has a printed name"
        assert all(task_name(t) != t for t in loaded.tasks)
    assert method_name("mine") == "mine"


def test_tables_of_real_data_come_before_those_without_a_task(built):
    keys = list(built)
    assert keys[:5] == ["01", "audit", "leaderboard", "real_claims", "real_uncertainty"]
    assert keys[5:] == [
        *(f"real_{task}" for task in PROFILE.tasks),
        *("real_ib", "real_eta", "real_tuned", "real_cost", "real_fusion", "real_regime", "regime"),
        *(f"{number:02d}" for number in range(2, 17)),
    ]
    assert not any(table.twin for table in built.values())


def test_the_leaderboard_ranks_every_method_the_control_and_the_forms_of_ibma_too(built):
    table = built["leaderboard"]
    assert {row.values[0] for row in table.rows} == {method_name(m) for m in METHODS}
    assert "MOSI features: Acc-2, zero left out" in by_heading(table)[0]
    ranks = {row.values[0]: row.values[-1].value for row in table.rows if row.values[-1]}
    unranked = [row.values[0] for row in table.rows if not row.values[-1]]
    assert unranked == [method_name(m) for m in METHODS if m.startswith("unimodal")]
    assert [row.values[0] for row in table.rows] == [*ranks, *unranked], "they are not on all tasks"
    assert list(ranks.values()) == sorted(ranks.values()), "the best come first"
    assert min(ranks, key=ranks.get) == "DMIB" and ranks["IBMA"] < 3.5
    for column in range(1, 7):
        cells = {row.values[0]: row.values[column] for row in table.rows}
        marks = {name: cell.mark for name, cell in cells.items() if isinstance(cell, Number)}
        assert (marks["DMIB"], marks["IBMA"]) == (Mark.BEST, Mark.SECOND)
    assert any("Friedman chi2" in note and "Nemenyi" in note for note in table.notes)


def test_both_readings_and_every_slice_are_columns(built):
    sentiment = [column.label for column in built["real_mosi_features"].columns]
    assert sentiment[2:4] == ["Acc-7", "Acc-2, zero left out"] and "F1, zero counted" in sentiment
    one_class = {column.label for column in built["real_her2st_one_class"].columns}
    assert {"AUC A1", "AUC B1", "AUC mean", "F1 A1", "F1 B1", "F1 mean"} < one_class


def test_a_cell_is_mean_sd_and_interval_over_its_runs(built, read):
    accuracies = [100 * run.metrics["accuracy"] for run in read.results.of("ravdess", "ce3")]
    mean, sd = np.mean(accuracies), np.std(accuracies, ddof=1)
    half = 2.262157 * sd / math.sqrt(10)  # t quantile of 9 degrees of freedom
    shown = cell(built["real_ravdess"], method_name("ce3"), "Accuracy")
    found = (shown.value, shown.sd, shown.low, shown.high)
    assert found == pytest.approx((mean, sd, mean - half, mean + half)) and shown.n == 10
    flat = built["real_ravdess"].flat()
    assert next(r for r in flat if r["method"] == "ce3")["mean"] == pytest.approx(mean)


def test_the_references_stand_below_every_method_once_a_fold(built):
    names = ("Logistic regression", "Majority class")
    for row, name, mean in zip(built["real_ravdess"].rows[-2:], names, (62.0, 22.0), strict=True):
        assert row.values[:2] == (name, FOLDS["ravdess"])
        assert row.values[2].value == pytest.approx(mean) and not row.values[2].mark
    flat = [row["method"] for row in built["real_ravdess"].flat()[-2:]]
    assert flat == ["logistic_regression", "majority_class"]
    for row, name in zip(built["real_split_digits"].rows[-2:], names, strict=True):
        assert row.values == (name, 0, "not run: no vector")


def test_logistic_regression_has_the_units_of_every_metric(read):
    metrics = {"acc2": 0.74, "mae": 1.11, "corr": 0.55}
    told = {"missing": None, "runs": [{"fold": None, "metrics": metrics}]}
    inputs = replace(read, logistic={"mosi": told})
    line = real_tables._reference(inputs, "mosi", "metrics", list(metrics))
    assert line[0] == 1 and [number.printed for number in line[1:]] == ["74.0", "1.110", "0.550"]


def test_one_family_is_one_opponent_over_all_tasks(read):
    by_opponent = {claim.opponent: [] for claim in ASKED}
    for test in read.tests:
        by_opponent[test.opponent].append(test)
    for family in by_opponent.values():
        assert [test.compared.task for test in family] == list(PROFILE.tasks)
        smallest = min(family, key=lambda test: test.total.p)
        assert smallest.holm == pytest.approx(min(1.0, 6 * smallest.total.p))
        assert all(test.page >= test.holm for test in family)
    smallest = min(read.tests, key=lambda test: test.total.p)
    assert smallest.page == pytest.approx(min(1.0, len(read.tests) * smallest.total.p))
    assert {test.rival for test in by_opponent["best baseline"]} == {"dmib"}
    stored = significance.to_json(read.tests)
    assert significance.from_json(stored) == read.tests


def test_claims_are_a_matrix_whose_file_holds_every_test(built):
    table = built["real_claims"]
    assert len(table.rows) == len(ASKED) and len(table.columns) == 3 + len(PROFILE.tasks)
    helps, best = (
        next(row for row in by_heading(table) if row["Claim"] == claim)
        for claim in ("alignment helps", "IBMA beats the best baseline")
    )
    assert helps["RAVDESS"].note.startswith("better, p = ") and helps["RAVDESS"].value > 0
    assert best["HER2 tissue"].note.startswith("worse, p = ")
    assert (helps["In sum"], best["In sum"]) == ("6 better of 6 tasks", "6 worse of 6 tasks")
    flat = {(row["opponent"], row["task"]): row for row in table.flat()}
    assert len(flat) == len(ASKED) * len(PROFILE.tasks)
    assert flat["ibma_no_align", "ravdess"]["verdict"] == "IBMA better"
    one = flat["ce3", "ravdess"]
    assert all(one[name] is not None for name in ("p", "wilcoxon_p", "holm", "effect_low"))
    assert one["ibma"] - one["rival"] == pytest.approx(one["difference"]) != 0
    careful = {task for (_, task), row in flat.items() if row["total p"] > 1.01 * row["p"]}
    assert careful == set(FOLDS), "runs on folds share training samples"


def test_what_claims_rest_on_is_taken_apart(built):
    table = built["real_uncertainty"]
    assert len(table.rows) == len(ASKED) * len(PROFILE.tasks)
    for row in by_heading(table):
        runs, both = row["Over runs"], row["Over both"]
        assert row["Over test rows"] == "no predictions"
        assert both.value == runs.value
        assert both.low <= runs.low + 1e-9 and runs.high <= both.high + 1e-9
        assert row["Holm"].value <= row["Holm, page"].value and row["Detectable"].value > 0


def test_notes_say_what_pairs_show_with_folds_and_with_one_test_set(built):
    notes = built["real_claims"].notes
    said = {note.partition(":")[0]: note for note in reversed(notes)}
    assert "run k tests on fold k mod 5" in said["RAVDESS"]
    assert "fold k mod 8" in said["HER2 tissue"] and "not independent" in said["HER2 tissue"]
    assert "the same test samples" in said["MOSI features"]
    left_out = "HER2 tissue: numbers are from the first 8 runs of every method"
    assert [note.startswith(left_out) for note in notes].count(True) == 1


def test_a_verdict_follows_the_corrected_p(read):
    test = read.tests[0]
    for holm, difference, within, said in (
        (0.04, 1.0, 0.9, "IBMA better"),
        (0.04, -1.0, 0.01, "IBMA worse"),
        (0.05, 1.0, 0.9, "no difference shown"),
        (0.06, 1.0, 0.05, "no difference shown"),
        (0.06, 1.0, 0.04, "equivalent"),
        (None, 0.0, 0.9, "no test"),
    ):
        paired = replace(test.paired, difference=difference)
        judged = replace(test, holm=holm, paired=paired, equivalent=within)
        assert real_tables.verdict(judged) == said
        note = real_tables.difference(judged).note
        assert ("within 1 point" in note) == (said == "IBMA worse")
        assert ("detectable" in note) == (said == "no difference shown")


def test_unequal_settings_have_no_test_and_are_counted_apart(read):
    other = [
        replace(run, tuned=run.tuned | {"points": [[0.002, 0.0]]}, digest="")
        for run in read.results.of("ravdess", "ce3")
    ]
    runs = {**read.results.runs, ("ablation", "ravdess", "ce3"): other}
    unequal = inputs.rederive(replace(read, results=replace(read.results, runs=runs)))
    assert not [t for t in unequal.tests if (t.compared.task, t.rival) == ("ravdess", "ce3")]
    said = "no claim: unequal settings"
    made = real_tables._claims(unequal)
    row = next(r for r in by_heading(made) if r["IBMA against"].startswith("CE3"))
    assert row["RAVDESS"] == said and row["In sum"].startswith("5 ") and said in row["In sum"]
    data = next(r for r in made.data if (r["opponent"], r["task"]) == ("ce3", "ravdess"))
    assert data["verdict"] == said and data["difference"] is None


def test_fusion_is_compared_with_the_best_modality_alone(read, built):
    row = next(r for r in by_heading(built["real_fusion"]) if r["Task"] == "RAVDESS")
    means = {
        method: 100 * np.mean([run.metrics["accuracy"] for run in runs])
        for method, runs in read.results.of_task("ravdess").items()
    }
    alone = {method: mean for method, mean in means.items() if method.startswith("unimodal_")}
    assert set(alone) == {"unimodal_audio", "unimodal_face"}
    best = max(alone, key=alone.get)
    assert row["Best modality"] == method_name(best)
    assert row["IBMA minus alone"].value == pytest.approx(means["ibma"] - alone[best])
    assert row["Best method of all"] == "DMIB" and row["Can judge fusion"] == "yes"
    test = next(
        test
        for test in read.tests
        if (test.compared.task, test.opponent) == ("ravdess", claims.SINGLE)
    )
    assert row["IBMA minus alone"] == real_tables.difference(test), (
        "the claim's interval and verdict"
    )
    best_joint = row["Best minus alone"]
    assert best_joint.low < best_joint.value < best_joint.high
    poor = {cell: runs for cell, runs in read.results.runs.items() if "unimodal" in cell[2]}
    fewer = replace(read, results=replace(read.results, runs=poor))
    assert not question_tables._fusion(fewer).rows, "nothing joint to compare with"


def test_a_task_without_a_network_above_chance_cannot_judge_fusion(read):
    task = "her2st_one_class"
    low = {
        cell: [replace(run, metrics={"auc/mean": 0.5}) for run in own]
        if cell[1] == task and cell[2] != "dmib"
        else own
        for cell, own in read.results.runs.items()
    }
    said = {
        name: by_heading(
            question_tables._fusion(replace(read, results=replace(read.results, runs=runs)))
        )
        for name, runs in (("low", low), ("as it is", read.results.runs))
    }
    fit = {name: {r["Task"]: r["Can judge fusion"] for r in found} for name, found in said.items()}
    assert fit["low"][task_name(task)] == "no: at chance" and fit["low"]["RAVDESS"] == "yes"
    assert fit["as it is"][task_name(task)] == "yes"
    twins = {
        cell: [replace(run, source="twin") for run in own] if cell[1] == task else own
        for cell, own in read.results.runs.items()
    }
    made = question_tables._fusion(replace(read, results=replace(read.results, runs=twins)))
    fit = {row["Task"]: row["Can judge fusion"] for row in by_heading(made)}
    assert fit[task_name(task)] == "TWIN" and fit["RAVDESS"] == "yes"


def test_chance_is_one_of_the_classes_for_accuracy_alone(read):
    four = replace(read, features={"ravdess": {"classes": list("abcd")}})
    found = [question_tables._chance(four, "ravdess", name) for name in ("accuracy", "auc/mean")]
    assert found == [25.0, 50.0]


def test_a_bound_that_some_runs_have_is_counted(read):
    runs = read.results.of("ravdess", "ibma")[:1] * 3
    idle = read.results.of("ravdess", "ibma_unit")[0]
    for count, said in ((0, "yes"), (2, "inactive in 2 runs"), (3, "inactive")):
        *_, found = question_tables._regime([*[idle] * count, *runs[count:]])
        assert found == said


def test_an_inactive_bound_is_named(built):
    lines = by_heading(built["real_regime"])
    assert {row["Method"] for row in lines} == {method_name(name) for name in SHARES}
    said = {r["Method"]: r for r in lines if r["Task"] == "RAVDESS"}
    ours, unit = said["IBMA"], said[method_name("ibma_unit")]
    assert ours["Share of the alignment"].value == pytest.approx(0.3)
    assert ours["Share of the whole bound"].value == pytest.approx(0.6)
    assert ours["Largest phi"].value == pytest.approx(0.7)
    assert (ours["Active"], unit["Active"]) == ("yes", "inactive")


def test_methods_that_nobody_tuned_are_shown_at_every_point(read):
    task, points = "her2st_one_class", [[0.001, 0.0], [0.001, 0.1]]
    runs = {
        cell: [
            replace(
                run,
                params=run.params | {"lr": 0.001, "weight_decay": points[run.seed % 2][1]},
                tuned=run.tuned | {"by": None, "points": points},
                digest="",
            )
            for run in own
        ]
        for cell, own in read.results.runs.items()
        if cell[1] == task
    }
    made = question_tables._points(replace(read, results=replace(read.results, runs=runs)), task)
    assert [column.heading for column in made.columns[1:]] == [
        "Learning rate, weight decay: 0.001, 0",
        "Learning rate, weight decay: 0.001, 0.1",
    ]
    row = by_heading(made)[0]
    assert {number.n for name, number in row.items() if name != "Method"} == {5}
    assert not question_tables._points(read, task).rows, "they were tuned"


def nadeau_bengio(differences, run):
    """The lower end of the 95 % interval of a mean over runs whose folds share training rows."""
    n, shared = len(differences), run.n_test / run.n_train if run.fold is not None else 0.0
    half = scipy.stats.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) * (1 / n + shared) ** 0.5
    return np.mean(differences) - half


def test_ib_losses_are_those_of_the_untrained_and_of_the_trained_network(built, read):
    lines = by_heading(built["real_ib"])
    forms = {*PROFILE.train_ibma, *PROFILE.ablation, *PROFILE.bounds} - {"unimodal"}
    assert {row["Method"] for row in lines} == {method_name(m) for m in ("omib", *forms)}
    assert {row["Term"] for row in lines} == {"one", "fused"}, "U is no IB loss"
    line = next(row for row in lines if (row["Method"], row["Term"]) == ("IBMA", "one"))
    ends = (line["Before"].value, line["After"].value, line["Change"].value)
    assert ends == pytest.approx((-0.491, -0.0155, 0.4755)) and line["n"] == 10
    (task,) = (one for one in read.beyond if task_name(one) == line["Task"])
    runs = read.results.of(task, "ibma")
    changes = [run.ib["one"] - run.ib_before["one"] for run in runs]
    assert runs[0].fold is not None
    assert line["Change"].low == pytest.approx(nadeau_bengio(changes, runs[0]))


def test_every_eta_is_a_row_with_the_difference_of_two_methods(built, read):
    table, fixed = built["real_eta"], read.results.at_eta
    names = [*(f"{eta:g}" for eta in PROFILE.sensitivity.etas), "range of means", "range by luck"]
    assert [row.values[0] for row in table.rows] == names
    other = "IBMA on unit vectors minus IBMA"
    ours, theirs = (
        np.array([100 * run.metrics["accuracy"] for run in fixed(method, 0.3)])
        for method in ("ibma_unit", "ibma")
    )
    shown = cell(table, "0.3", other)
    assert shown.value == pytest.approx(np.mean(ours - theirs))
    assert shown.low == pytest.approx(nadeau_bengio(ours - theirs, fixed("ibma", 0.3)[0]))


@pytest.mark.parametrize("shared", [0.0, 0.25])
def test_an_eta_that_matters_differs_from_one_that_does_not(shared):
    noise = np.random.default_rng(0).normal(size=(10, 3))
    for slope, said in ((0.0, "is not shown to matter"), (5.0, "matters")):
        by_run = {i: dict(enumerate(row + slope * np.arange(3))) for i, row in enumerate(noise)}
        span = stats.range_of_means(by_run, shared)
        note = real_tables._insensitive(span, by_run, shared)
        assert f"so eta {said}" in note and ("Friedman" in note) is (shared == 0)


def test_folds_that_share_training_rows_widen_the_range_by_luck(built, read):
    (one, *_), table = read.results.at_eta("ibma", 0.3), built["real_eta"]
    etas = read.results.at_etas("ibma").values()
    x = np.array([[100 * run.metrics["accuracy"] for run in own] for own in etas]).T
    n, k = x.shape
    left = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    sd = np.sqrt((left**2).sum() / ((n - 1) * (k - 1)))
    q = scipy.stats.studentized_range.ppf(0.95, k, (n - 1) * (k - 1))
    wide = q * sd * np.sqrt(1 / n + one.n_test / one.n_train)
    assert cell(table, "range by luck", "IBMA").value == pytest.approx(wide)
    assert any("Friedman's test is left out" in note for note in table.notes)


def test_the_choice_of_eta_is_counted_over_folds(built):
    lines = {(row["Task"], row["Method"]): row for row in by_heading(built["real_tuned"])}
    row = lines["RAVDESS", "IBMA with a plug-in bound"]
    assert row["Chosen (x folds)"] == "0.1 x 1, 0.9 x 4"
    assert [row[f"eta = {eta}"] and row[f"eta = {eta}"].value for eta in (0.1, 0.5, 0.9)] == [
        pytest.approx(53),
        None,
        pytest.approx(61),
    ]


def test_a_range_over_eta_is_of_the_runs_that_have_every_eta():
    made = [record_of(**RUN, seed=seed, metrics={"accuracy": seed / 10}) for seed in range(3)]
    undefined = record_of(**RUN, seed=2, metrics={"accuracy": None})
    found = real_tables._by_run({0.1: made, 0.3: [made[1], undefined]}, "accuracy")
    assert found == {1: {0.1: 10.0, 0.3: 10.0}}


def test_the_score_of_an_eta_is_that_of_its_best_learning_rate_and_weight_decay():
    """Means over two folds: .60, .50 and .55; another eta has a better one."""
    trials = [
        {"eta": eta, "lr": lr, "weight_decay": decay, "score": score}
        for eta, lr, decay, scores in (
            (0.1, 0.01, 0.0, (0.5, 0.7)),
            (0.1, 0.01, 0.1, (0.9, 0.1)),
            (0.1, 0.02, 0.0, (0.55, 0.55)),
            (0.3, 0.01, 0.0, (0.8, 0.9)),
        )
        for score in scores
    ]
    assert real_tables._validated(trials, 0.1).value == pytest.approx(60)
    assert real_tables._validated(trials, 0.3).value == pytest.approx(85)
    assert real_tables._validated(trials, 0.5) is None


def test_the_size_of_a_network_counts_all_its_parameters():
    one = record_of(**RUN, seed=0, metrics={})
    shown = [number.value for number in real_tables._size([one])]
    assert shown == pytest.approx([0.010, 20 / 1e6])
    assert real_tables._size([]) == ("not run", "not run")


def test_cost_is_relative_to_the_control_and_to_concat(built):
    ibma, ce3 = (1.0 + 0.1 * METHODS.index(name) for name in ("ibma", "ce3"))
    against = [f"Times {method_name(name)}" for name in ("ce3", "concat")]
    found = [cell(built["real_cost"], "IBMA", column).value for column in against]
    assert found == pytest.approx([ibma / ce3, ibma])


def test_methods_that_were_not_timed_are_named(read, built):
    assert not real_tables.untimed(read), "all were"
    methods = {name: one for name, one in read.timing["methods"].items() if name != "ibma_apib"}
    made = real_tables._cost(replace(read, timing=read.timing | {"methods": methods}))
    row = next(row for row in by_heading(made) if row["Method"] == "IBMA with APIB")
    assert row["Seconds"] == "not run" and row["MFLOP a sample"].value == 2.5
    assert made.notes[-1].startswith("Not timed: IBMA with APIB.")
    assert [one["Method"] for one in by_heading(made)] == [
        one["Method"] for one in by_heading(built["real_cost"])
    ]


def test_a_cell_without_records_is_not_run_and_nothing_else_changes(built, read):
    runs = {**read.results.runs, ("train", "ravdess", "omib"): ()}
    results = replace(read.results, runs=runs)
    less = inputs.rederive(replace(read, results=results))
    after = {table.key: table for table in real_tables.build(less)}
    (row,) = set(after["real_ravdess"].rows) - set(built["real_ravdess"].rows)
    assert row.values == ("OMIB", 0, records.NO_RECORD)
    (row,) = set(after["real_claims"].rows) - set(built["real_claims"].rows)
    assert row.values[:2] == ("IBMA beats OMIB", "OMIB") and row.values[3] == "not run"
    assert isinstance(row.values[4], Number)
    assert after["real_her2st"] == built["real_her2st"]


def test_the_page_answers_for_a_profile_without_a_task_of_the_paper(read):
    said = verdict.answer(read)
    assert said.headline == (
        "Not shown. Of 6 tasks, IBMA is better than the best baseline on 0 and worse on 6; "
        "alignment helps on 6; IBMA beats the same network without a bound on 6. This is about "
        "small networks on open data that the paper does not have: no number is comparable with "
        "the paper's."
    )
    alone = sum(method.startswith("unimodal") for method in METHODS)
    counted = f"{len(METHODS) - alone} methods and {alone} single-modality networks, 10 runs each"
    assert "TWIN" not in said.data and alone > 1 and counted in said.data
    assert said.points[0].startswith("Of 6 real tasks, IBMA has the highest mean alone on 0")
    assert said.points[1].startswith("No published number is judged")


@pytest.mark.parametrize("count", [3, 4])
def test_a_profile_answers_for_its_real_tasks_unless_most_of_its_data_is_generated(read, count):
    twins = list(PROFILE.tasks)[:count]
    runs = {
        cell: [replace(run, source="twin", digest="") for run in own] if cell[1] in twins else own
        for cell, own in read.results.runs.items()
    }
    said = verdict.answer(replace(read, results=replace(read.results, runs=runs)))
    if count == 3:
        assert said.headline.startswith("Not shown. Of 3 tasks, IBMA is better than the best base")
        assert "on 0 and worse on 3; alignment helps on 3;" in said.headline
    else:
        assert said.headline.startswith("This profile cannot say. The data of 4 of its 6 tasks is")
    assert said.data.startswith(f"Real data: {task_name(list(PROFILE.tasks)[count])}, ")


def test_networks_of_the_papers_width_are_not_called_small(read):
    for width, small in ((256, True), (512, False)):
        training = read.params.training.model_copy(update={"width": width})
        params_ = read.params.model_copy(update={"training": training})
        assert ("small networks" in verdict._scale(replace(read, params=params_))) is small


def test_a_task_of_two_tests_says_how_it_is_counted(monkeypatch):
    better = real_tables.Verdict.BETTER
    monkeypatch.setattr(verdict, "_verdicts", lambda *_: {"one": [better], "two": [better] * 2})
    (said,) = verdict._several(None)
    assert said.startswith("two has 2 tests against the best baseline; it counts as better or")


def test_verdicts_are_counted_over_what_was_run():
    said = ["IBMA better", "not run", "IBMA worse", "IBMA better", "no test"]
    assert real_tables.counted(said) == "2 better, 1 worse, 1 no test of 4 tasks"
    assert real_tables.counted(["not run"] * 3) == "not run"


def test_captions_state_the_result(read, tmp_path):
    drawn = {one.name: one.caption for one in pictures._draw_claims(read, tmp_path)}
    drawn |= {one.name: one.caption for one in pictures._draw_ranks(read, tmp_path)}
    comparisons = len(ASKED) * len(PROFILE.tasks)
    assert f"of {comparisons} comparisons" in drawn["claims"] and "6 worse" in drawn["claims"]
    assert drawn["ranks"].startswith("DMIB has the best mean rank, 1.0;")
    assert "lowers the fused IB loss: IBMA 6, CE3 (no bound) 6." in drawn["ib_losses"]
    assert pictures._highest({"A": [50.0], "B": [50.02], "IBMA": [40.0]}) == (
        "Highest mean: A and B, 50.0 %; IBMA 40.0 %."
    )
    many = {name: [50.0] for name in "ABC"}
    assert pictures._highest(many) == "Highest mean: 3 methods, 50.0 %."


def test_pictures_of_the_claims_are_drawn_and_small(read, tmp_path):
    drawn = [picture.name for picture in pictures._draw_claims(read, tmp_path)]
    assert drawn == ["claims", "ib_losses"]
    (curve,) = pictures._draw_etas(read, tmp_path)
    assert curve.name == "eta" and curve.caption.startswith("Range of the means over eta")
    assert (tmp_path / "claims.png").stat().st_size < 200_000
    svg = (tmp_path / "claims.svg").read_text()
    assert all(name in svg for name in ("RAVDESS", "Accuracy", "no alignment", "full dot"))


def test_the_page_of_the_largest_grid_stays_below_a_megabyte(read, tmp_path, monkeypatch):
    """Profile `open`: ten seeds of every method on six tasks."""
    monkeypatch.setattr(page.report_inputs, "load", lambda *_: read)
    monkeypatch.setattr(pictures, "_draw_curves", lambda *_: None)  # files that it does not hold
    assert page.write(PROFILE, tmp_path).stat().st_size < 1_000_000
