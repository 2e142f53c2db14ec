"""Which comparisons are tested, against whom, and in which families they are corrected."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from test_report import ACCURACY, PROFILE, fake
from test_resampling import said

from ibma import paths
from ibma.files import write_json
from ibma.network import tasks
from ibma.paper import published
from ibma.results import claims, significance, stats
from ibma.results.records import Results
from ibma.results.resampling import Resampled
from ibma.training.record import Record

PAPER = published.load()
CREMA = next(row.key for row in PAPER.table(10).rows if row.task == "crema_d")
SIDES = ("ibma", "ce3")


def runs_of(task: str, method: str, **changed: object) -> list[Record]:
    """Three runs whose scores are like no other cell's."""
    draw = np.random.default_rng([*f"{task} {method}".encode()])
    made = []
    for seed in range(PROFILE.seeds):
        one, noise = fake(task, method, seed), draw.normal(scale=0.02)
        metrics = one.metrics | {headline(task): one.metrics[headline(task)] + noise}
        made.append(replace(one, **({"metrics": metrics} | changed), digest=""))
    return made


def results(**more: list[Record]) -> Results:
    """Every task with every method of `ACCURACY`; `more` is `<method>` -> its runs on CREMA-D."""
    own = {(task, method): runs_of(task, method) for task in PROFILE.tasks for method in ACCURACY}
    own |= {("crema_d", method): runs for method, runs in more.items()}
    runs = {(PROFILE.stage_of(method), task, method): made for (task, method), made in own.items()}
    return Results(PROFILE, runs, {}, {})


@pytest.fixture(scope="module")
def made() -> list[significance.Test]:
    return significance.run(PROFILE, results(), PAPER)


@pytest.fixture
def one_table(monkeypatch) -> None:
    monkeypatch.setattr(significance, "TABLES", (10,))


def headline(task: str) -> str:
    return "mauc" if task == "chexpert" else "accuracy"


def crema(tests: list[significance.Test], opponent: str) -> significance.Test:
    (one,) = (t for t in tests if (t.table, t.opponent, t.compared.row) == ("10", opponent, CREMA))
    return one


def test_each_table_meets_its_opponent_and_the_control(made):
    pairs = {(test.table, test.opponent): test.rival for test in made}
    for number in significance.TABLES:
        table = PAPER.table(number)
        rows = [row for row in table.rows if row.task in PROFILE.tasks]
        metric = table.column("baseline").metric
        known = [row for row in rows if (row.metric or metric) == headline(row.task)]
        for opponent in {significance.OPPONENTS.get(number, claims.BASELINE), claims.CONTROL}:
            own = [t for t in made if (t.table, t.opponent) == (f"{number:02d}", opponent)]
            if opponent == claims.BOUND:
                assert not own, "no other bound has a record"
                continue
            expected = [(row.key, row.task, row.metric or metric, table.unit) for row in known]
            found = [t.compared for t in own]
            assert [(c.row, c.task, c.metric, c.unit) for c in found] == expected, number
    assert pairs["10", claims.CONTROL] == pairs["15", claims.CONTROL] == "ce3"
    assert pairs["15", claims.ABLATION] == "ibma_no_align"
    beyond = [test for test in made if test.table == significance.BEYOND]
    assert {test.compared.task for test in beyond} == {"split_digits"}
    assert all(test.compared.row == "split_digits" for test in beyond)
    assert all((t.compared.metric, t.compared.unit) == ("accuracy", "percent") for t in beyond)
    expected = ["ce3", "ibma_no_align", claims.BASELINE, "omib"]
    assert [test.opponent for test in beyond] == expected, "claims without records have no test"
    assert significance.beyond(PROFILE, PAPER) == ["split_digits"]


def test_the_best_baseline_is_the_one_with_the_best_mean(one_table):
    assert crema(significance.run(PROFILE, results(), PAPER), claims.BASELINE).rival == "omib"
    better = runs_of("crema_d", "concat", metrics={"accuracy": 0.9})
    found = crema(significance.run(PROFILE, results(concat=better), PAPER), claims.BASELINE)
    assert found.rival == "concat" and found.paired.difference < 0
    undefined = runs_of("crema_d", "omib", metrics={"accuracy": None})
    found = crema(significance.run(PROFILE, results(omib=undefined), PAPER), claims.BASELINE)
    assert found.rival == "concat"


def test_the_best_baseline_of_a_table_is_one_that_the_paper_compares_there():
    """Table 2 has neither DMIB nor what is added here; MIB is the form chosen inside train."""
    means = {"mib_e": 0.8, "mib_l": 0.7, "dmib": 0.9, "aligned_ib": 0.95}
    one = results(
        **{m: runs_of("crema_d", "concat", metrics={"accuracy": means[m]}) for m in means}
    )
    place = significance.Compared(CREMA, "crema_d", "accuracy", "percent")
    assert significance.rival(one, PAPER, place, claims.BASELINE) == "mib_e", "nothing chose"
    scores = {"mib_e": 0.5, "mib_l": 0.6}
    chosen = {("crema_d", form): {"choices": [{"score": scores[form]}]} for form in scores}
    one = replace(one, choices=chosen)
    assert significance.rival(one, PAPER, place, claims.BASELINE) == "mib_l"

    def baselines(task: str) -> set[str]:
        return set(significance.candidates(one, PAPER, task, claims.BASELINE))

    every, forms = set(PROFILE.train), {"mib_e", "mib_l", "mib_c"}
    assert baselines("split_digits") == every, "the paper has no table of it"
    assert baselines("meld_sentiment") == every - {"aligned_ib"}, "Table 3 has DMIB"
    assert baselines("chexpert") == every - {"aligned_ib", "dmib"}
    assert baselines("crema_d") == every - {"aligned_ib", "dmib"} - forms | {"mib_l"}


def test_a_test_is_the_paired_test_and_the_total_of_the_same_percents(made):
    ours, theirs = ([100 * r.metrics["accuracy"] for r in runs_of("crema_d", m)] for m in SIDES)
    one = crema(made, claims.CONTROL)
    assert one.paired == stats.paired(ours, theirs)
    assert one.total == stats.total(ours, theirs, None, 1.0), "one point of percent is equivalent"
    assert one.interval == (one.total.low, one.total.high)
    assert replace(one, total=None).interval == (None, None)


def test_holm_runs_within_a_family_and_over_each_kind_of_data(made):
    families, pages = defaultdict(list), defaultdict(list)
    for test in made:
        families[test.table, test.opponent].append(test)
        pages[test.compared.task == "split_digits"].append(test)
    assert len(pages) == 2 and max(map(len, families.values())) > 2
    for attribute, groups in (("holm", families), ("page", pages)):
        for group in groups.values():
            expected = stats.holm([test.total.p for test in group])
            assert [getattr(test, attribute) for test in group] == expected
    for group in families.values():
        expected = stats.holm([test.total.equivalent_p for test in group])
        assert [test.equivalent for test in group] == expected


def test_an_undefined_test_is_in_no_family(one_table):
    """Equal runs on both sides: no spread, so no p-value, and the others are one fewer."""
    equal = {m: runs_of("crema_d", m, metrics={"accuracy": 0.5}) for m in SIDES}
    found = significance.run(PROFILE, results(**equal), PAPER)
    one = crema(found, claims.CONTROL)
    assert (one.total, one.holm, one.page, one.paired.difference) == (None, None, None, 0.0)
    family = [t for t in found if (t.table, t.opponent) == ("10", claims.CONTROL) and t.total]
    assert [t.holm for t in family] == stats.holm([t.total.p for t in family])


def test_what_may_not_be_compared_has_no_test(one_table):
    tuned = fake("crema_d", "ce3", 0).tuned
    other = runs_of("crema_d", "ce3", tuned=tuned | {"folds": 5})
    found = significance.run(PROFILE, results(ce3=other), PAPER)
    lacks = [t for t in found if (t.rival, t.compared.task) == ("ce3", "crema_d")]
    assert not lacks and crema(found, claims.BASELINE)
    found = significance.run(PROFILE, results(ce3=[]), PAPER)
    assert not [t for t in found if t.opponent == "ce3" and t.compared.task == "crema_d"]


def test_folds_that_share_training_rows_widen_the_total(one_table):
    assert significance.overlap(runs_of("crema_d", "ce3")) == 0.0
    sizes = [(10, 5), (20, 5), (40, 30)]
    folds = [
        replace(run, fold=place, n_train=train, n_test=test, digest="")
        for place, (run, (train, test)) in enumerate(
            zip(runs_of("crema_d", "ibma"), sizes, strict=True)
        )
    ]
    shared = significance.overlap(folds)
    assert shared == pytest.approx((0.5 + 0.25 + 0.75) / 3)
    one = crema(significance.run(PROFILE, results(ibma=folds), PAPER), claims.CONTROL)
    plain = crema(significance.run(PROFILE, results(), PAPER), claims.CONTROL)
    assert one.paired == plain.paired
    ratio = one.total.se_runs / plain.total.se_runs
    assert ratio == pytest.approx((1 + 3 * shared) ** 0.5)


def test_the_total_reads_test_rows_drawn_again_in_the_unit_of_the_table(one_table):
    one = results()
    task = tasks.build("classify", "abc")
    spoken = {
        run.id: said(task, 10 * run.seed + len(run.method))
        for runs in one.runs.values()
        for run in runs
        if run.task == "crema_d"
    }
    one = replace(one, predictions=spoken, problems={"crema_d": task})
    found = crema(significance.run(PROFILE, one, PAPER), claims.CONTROL)
    mine, theirs = (one.of("crema_d", method) for method in SIDES)
    drawn = 100 * Resampled(one).difference(mine, theirs, "accuracy")
    assert found.total.se_samples == pytest.approx(drawn.std(ddof=1))
    assert found.total.samples_low == pytest.approx(np.quantile(drawn, 0.025))


def test_tests_come_back_from_their_file_as_they_were(made, tmp_path):
    write_json(tmp_path / paths.SIGNIFICANCE, significance.to_json(made))
    assert significance.stored(tmp_path) == made
    assert significance.stored(tmp_path / "nowhere") == []
    undefined = replace(made[0], total=None, holm=None)
    assert significance.from_json(significance.to_json([undefined])) == [undefined]
