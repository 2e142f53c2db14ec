"""Tables on real data beyond the paper: both readings, families of tests, folds, eta, cost."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ibma import params
from ibma.evidence import archive, verify
from ibma.files import write_json
from ibma.report import page, real_tables
from ibma.report.paper_tables import ReportTable
from ibma.results import records, significance
from ibma.training.record import Record

ROOT = Path(__file__).parent.parent
PROFILE = params.load(ROOT / "profiles/open.yaml")
METHODS = (*PROFILE.methods, *PROFILE.variants)
METRICS = {
    "classify": ("accuracy",),
    "sentiment": ("acc7", "acc2", "f1", "acc2_has0", "f1_has0"),
    "one_class": ("auc/A1", "auc/B1", "auc/mean", "f1/A1", "f1/B1", "f1/mean"),
}
KINDS = {"mosi_features": "sentiment", "mosi_features3": "sentiment"}
KINDS |= {"her2st_one_class": "one_class"}
FOLDS = {"ravdess": 5, "her2st": 8}
EDGE = {"ibma": 0.03, "ce3": 0.02, "dmib": 0.05}  # over the others


def fake(task: str, method: str, seed: int, eta: float = 0.5) -> Record:
    """Noise shared by the methods of a run, a little of their own, and an edge."""
    shared = np.random.default_rng(seed).normal(0, 0.03)
    rng = np.random.default_rng([seed, METHODS.index(method), round(100 * eta)])
    names = METRICS[KINDS.get(task, "classify")]
    values = 0.6 + EDGE.get(method, 0.0) + shared + rng.normal(0, 0.004, len(names))
    ib = {"one": -0.02 + 0.001 * seed, "fused": -0.05, "u/one": 0.1}
    return Record(
        key="k",
        profile="open",
        task=task,
        method=method,
        seed=seed,
        source="real",
        fold=seed % FOLDS[task] if task in FOLDS else None,
        n_train=100,
        n_test=20,
        params={"lr": 0.001, "weight_decay": 0.0, "eta": eta if "ibma" in method else None},
        metrics=dict(zip(names, values.tolist(), strict=True)),
        ib=ib,
        ib_before={"one": -0.5 + 0.002 * seed, "fused": -0.01, "u/one": 0.1},
        history={"task": [2.0, 1.0]},
        volatile={"device": "cpu", "seconds_per_epoch": [0.1, 0.1], "git_commit": None},
    )


def fill(root: Path) -> Path:
    """What a whole run of profile `open` leaves, its sizes apart."""
    shutil.copy(ROOT / "profiles/open.yaml", root / "params.yaml")
    for task in PROFILE.tasks:
        meta = {"source": "real", "classes": ["a", "b"], "counts": {"train": 100, "test": 20}}
        meta |= {"dropped": 0, "folds": 0}
        write_json(root / "data/features" / task / "meta.json", meta)
        for method in METHODS:
            for seed in range(PROFILE.seeds):
                fake(task, method, seed).write(root / "runs" / task / method)
            write_json(root / f"data/tune/{task}/{method}.json", tuned(task, method))
    at = PROFILE.sensitivity
    for name, (variant, eta) in at.names().items():
        for seed in range(PROFILE.seeds):
            one = fake(at.task, variant, seed, eta)
            replace(one, method=name).write(root / f"runs/{at.task}/{name}")
    seconds = {m: {"median": 1.0 + 0.1 * i, "low": 0.9, "high": 3.0} for i, m in enumerate(METHODS)}
    timed = {"task": "ravdess", "source": "real", "device": "cpu", "threads": 1, "rounds": 3}
    write_json(root / "data/timing.json", timed | {"methods": seconds})
    verify._derive(PROFILE, root)
    return root


def tuned(task: str, method: str) -> dict[str, object]:
    """Scores of two etas on five folds, and a choice per test fold."""
    etas = (0.1, 0.9) if method in PROFILE.variants else (None,)
    folds = range(FOLDS[task]) if task in FOLDS else [None]
    point = {"lr": 0.001, "weight_decay": 0.0}
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
def made(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("open"))


@pytest.fixture(scope="module")
def built(made) -> dict[str, ReportTable]:
    return {table.key: table for table in page.build(PROFILE, made)}


def rows(table: ReportTable) -> list[dict[str, str]]:
    return [dict(zip(table.columns, line, strict=True)) for line in table.lines]


def test_tables_of_real_data_stand_before_those_without_a_task(built):
    keys = list(built)
    assert keys[:4] == ["01", "audit", "real_data", "real_claims"]
    assert keys[4:] == [
        *(f"real_{task}" for task in PROFILE.tasks),
        *("real_ib", "real_eta", "real_tuned", "real_cost"),
        *(f"{number:02d}" for number in range(2, 17)),
    ]
    assert not any(table.twin for table in built.values())


def test_the_overview_ranks_every_method_the_control_and_the_variants_too(built):
    table = built["real_data"]
    assert [line[0] for line in table.lines] == list(METHODS)
    assert table.columns[2] == "mosi_features, Acc-2, zero left out"
    ranks = {line[0]: float(line[-1]) for line in table.lines}
    assert min(ranks, key=lambda method: ranks[method]) == "dmib" and ranks["ibma"] < 3.5
    for column in range(1, 7):
        marked = {line[0]: line[column] for line in table.lines if line[column].endswith(")")}
        assert marked["dmib"].endswith(" (best)") and marked["ibma"].endswith(" (second)")
    assert any("Friedman chi2" in note and "Nemenyi" in note for note in table.notes)


def test_both_readings_and_every_slice_stand_beside_each_other(built):
    sentiment = built["real_mosi_features"].columns
    assert sentiment[2:-1] == (
        "Acc-7",
        "Acc-2, zero left out",
        "F1, zero left out",
        "Acc-2, zero counted",
        "F1, zero counted",
    )
    one_class = built["real_her2st_one_class"].columns
    assert {"AUC A1", "AUC B1", "AUC mean", "F1 A1", "F1 B1", "F1 mean"} < set(one_class)


def test_a_cell_is_mean_sd_and_interval_over_its_runs(built, made):
    line = next(row for row in rows(built["real_ravdess"]) if row["Method"] == "ce3")
    here = records.cells(PROFILE, made)["ravdess", "ce3"]
    accuracies = [100 * one.metrics["accuracy"] for one in here]
    mean, sd = np.mean(accuracies), np.std(accuracies, ddof=1)
    half = 2.262157 * sd / math.sqrt(10)  # t quantile of 9 degrees of freedom
    assert line["Accuracy"] == f"{mean:.1f} ± {sd:.1f} [{mean - half:.1f}, {mean + half:.1f}]"
    assert (line["n"], line["Runs"]) == ("10", "runs/ravdess/ce3")


def test_one_family_is_one_opponent_over_all_tasks(made):
    tests = significance.stored(made)
    by_opponent = {name: [t for t in tests if t["opponent"] == name] for name in real_tables.CLAIMS}
    assert set(by_opponent) == set(significance.RIVALS)
    for family in by_opponent.values():
        assert [test["task"] for test in family] == list(PROFILE.tasks)
        smallest = min(family, key=lambda test: test["p"])
        assert smallest["holm"] == pytest.approx(min(1.0, 6 * smallest["p"]))
    assert {test["baseline"] for test in by_opponent["best baseline"]} == {"dmib"}


def test_claims_come_with_effect_tests_and_a_verdict_in_words(built):
    claims = rows(built["real_claims"])
    assert len(claims) == 10 * len(PROFILE.tasks)
    verdicts = {(row["Claim"], row["Task"]): row["Verdict"] for row in claims}
    assert verdicts["alignment helps", "ravdess"] == "IBMA better"
    assert verdicts["IBMA beats the best baseline", "her2st"] == "IBMA worse"
    one = next(row for row in claims if row["Opponent"] == "ce3" and row["Task"] == "ravdess")
    assert one["Difference"].startswith("+") and one["n"] == "10"
    assert all(one[name] for name in ("t-test p", "Wilcoxon p", "p after Holm", "d_z [95 % BCa]"))
    corrected = {row["Task"] for row in claims if row["p, folds corrected"]}
    assert corrected == {"ravdess", "her2st"}, "the tasks with folds"
    assert float(one["p, folds corrected"]) > float(one["t-test p"])
    notes = built["real_claims"].notes
    assert "alignment helps (ibma_no_align): 6 better, 0 worse" in notes[0]


def test_notes_say_what_pairs_show_with_folds_and_with_one_test_set(built):
    notes = built["real_claims"].notes
    said = {note.partition(":")[0]: note for note in notes}
    assert "run k tests on fold k mod 5" in said["ravdess"]
    assert "fold k mod 8" in said["her2st"] and "not independent" in said["her2st"]
    assert "same test samples" in said["mosi_features"]


@pytest.mark.parametrize(
    ("p", "holm", "difference", "said"),
    [
        (0.01, 0.04, 1.0, "IBMA better"),
        (0.01, 0.04, -1.0, "IBMA worse"),
        (0.01, 0.06, 1.0, "no difference shown"),
        (None, None, 0.0, "no test: all equal"),
    ],
)
def test_a_verdict_follows_the_corrected_p(p, holm, difference, said):
    test = {"p": p, "holm": holm, "difference": difference, "note": "all equal"}
    assert real_tables.verdict(test) == said


def test_ib_losses_are_those_of_the_untrained_and_of_the_trained_network(built):
    lines = rows(built["real_ib"])
    assert {row["Method"] for row in lines} == {"ce3", "omib", *PROFILE.variants}
    assert {row["Term"] for row in lines} == {"one", "fused"}, "U is no IB loss"
    line = next(row for row in lines if (row["Method"], row["Term"]) == ("ibma", "one"))
    assert (line["Before"][:7], line["After"][:7], line["n"]) == ("-0.4910", "-0.0155", "10")
    assert line["Change"] == "+0.4755" and line["95 % interval"].startswith("[0.47")


def test_every_eta_stands_beside_the_first_variant_at_that_eta(built, made):
    lines = rows(built["real_eta"])
    at = PROFILE.sensitivity
    assert [(row["Method"], row["eta"]) for row in lines] == [
        (variant, f"{eta:g}") for variant in at.variants for eta in at.etas
    ]
    line = next(row for row in lines if (row["Method"], row["eta"]) == ("ibma_plugin", "0.3"))
    ours, theirs = (
        [one.metrics["accuracy"] for one in records.at_etas(PROFILE, made, variant)[0.3]]
        for variant in ("ibma_plugin", "ibma")
    )
    assert line["Minus ibma at that eta"] == f"{100 * (np.mean(ours) - np.mean(theirs)):+.1f}"
    assert not lines[0]["Minus ibma at that eta"]


@pytest.mark.parametrize(("slope", "said"), [(0.0, "is not shown to matter"), (0.1, "matters")])
def test_an_eta_that_matters_is_told_from_one_that_does_not(made, slope, said):
    runs = {
        eta: [
            replace(one, metrics={"accuracy": one.metrics["accuracy"] + slope * eta})
            for one in records
        ]
        for eta, records in records.at_etas(PROFILE, made).items()
    }
    (note,) = real_tables._insensitive(runs, "accuracy")
    assert f"so eta {said};" in note and "Friedman chi2" in note


def test_the_choice_of_eta_is_counted_over_folds(built):
    lines = {(row["Task"], row["Method"]): row for row in rows(built["real_tuned"])}
    ravdess = lines["ravdess", "ibma_plugin"]
    assert ravdess["Chosen (x folds)"] == "0.1 x 1, 0.9 x 4"
    assert (ravdess["eta = 0.1"], ravdess["eta = 0.5"], ravdess["eta = 0.9"]) == (
        "53.0",
        "",
        "61.0",
    )


def test_cost_is_relative_to_the_control_and_to_concat(built):
    line = next(row for row in rows(built["real_cost"]) if row["Method"] == "ibma")
    ibma, ce3 = (1.0 + 0.1 * METHODS.index(name) for name in ("ibma", "ce3"))
    assert line["Against ce3"] == f"{ibma / ce3:.2f}"
    assert line["Against concat"] == f"{ibma:.2f}"


def test_a_cell_without_records_is_not_run_and_nothing_else_changes(built, made, tmp_path):
    shutil.copytree(made, tmp_path / "less")
    shutil.rmtree(tmp_path / "less/runs/ravdess/omib")
    after = {table.key: table for table in real_tables.build(PROFILE, tmp_path / "less")}
    (line,) = set(after["real_ravdess"].lines) - set(built["real_ravdess"].lines)
    assert line == ("omib", "0", "not run: no record", "")
    (line,) = set(after["real_claims"].lines) - set(built["real_claims"].lines)
    assert line[:3] == ("IBMA beats OMIB", "ravdess", "omib")
    assert line[-1] == "not run: no pair of records"
    assert after["real_her2st"] == built["real_her2st"]


def test_evidence_of_the_whole_profile_is_small_and_confirms_itself(made):
    out = archive.folder(made, "open")
    page.write_numbers(PROFILE, made, made / "reports/open")
    assert archive.pack(PROFILE, made, out) == []
    files = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    assert max(files) < 1e6 and sum(files) < 6e6
    found = verify.verify("open", made)
    assert found.runs == (6 * 22 + 2 * 9) * 10 and found.differences == ()


def test_the_page_sums_up_a_profile_without_a_task_of_the_paper(made, tmp_path):
    here, built = records.cells(PROFILE, made), page.build(PROFILE, made)
    lines = page._summary(PROFILE, made, here, built)
    assert len(lines) == 5
    assert "on 6 tasks (all of real data)" in lines[0] and "TWIN" not in " ".join(lines)
    assert "highest mean on 0 of 6 tasks" in lines[1] and lines[1].endswith("on 6.")
    assert "better in 0 of 6, worse in 6" in lines[2]
    assert "IBMA is better, after Holm: than ibma_no_align 6, ibma_vib 6" in lines[3]


def test_pictures_of_the_claims_are_drawn_and_small(made, tmp_path):
    drawn = dict(map(reversed, page._write_claims(PROFILE, made, tmp_path)))
    assert list(drawn) == ["claims", "eta", "ib_losses"] and all(drawn.values())
    for name in drawn:
        assert (tmp_path / f"{name}.svg").exists()
    assert (tmp_path / "claims.png").stat().st_size < 200_000
    svg = (tmp_path / "claims.svg").read_text()
    assert all(name in svg for name in ("ravdess", "Accuracy", "no alignment", "full dot"))
