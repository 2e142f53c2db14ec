"""`ibma verify`: committed reports against committed evidence, or against the records here."""

import csv
import io
import json
import lzma
import math
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import test_report
import torch
import yaml
from conftest import edit, record_of
from PIL import Image
from test_archive import sums
from test_report import ACCURACY, ROOT, fake, fill

from ibma import params, paths
from ibma.errors import IbmaError
from ibma.evidence import archive, consistency, retrain, verify
from ibma.evidence.verify import Difference
from ibma.files import read_json, write_json
from ibma.network import tasks
from ibma.report import inputs, numbers, page, pictures, results_page
from ibma.results import records
from ibma.training import record
from ibma.training.cell import Setting
from ibma.training.predictions import Predictions
from ibma.training.record import RunId


def keep_methods(path: Path) -> params.Params:
    """Leave the methods of which the fixture has records."""
    raw = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    for block in ("train", "train_ibma", "ablation", "bounds"):
        raw[block] = {name: own for name, own in raw[block].items() if name in ACCURACY}
    raw["regimes"]["tasks"], raw["noise"]["tasks"] = [], {}
    raw["training"]["epochs"] = 2
    grid = {"lr": [0.001], "weight_decay": [0.0], "eta": [0.5], "weight_factor": [1.0]}
    raw["tune"] |= {"folds": 3, "epochs": 2, "grid": grid}
    path.write_text(yaml.safe_dump(raw))
    return params.load(path)


@pytest.fixture(autouse=True)
def current(monkeypatch):
    monkeypatch.setattr(records, "is_current", lambda *_: True)


@pytest.fixture
def without_curves(monkeypatch):
    """Draw what the fixture's report has."""
    monkeypatch.setattr(pictures, "_draw_curves", lambda *_: None)


@pytest.fixture
def without_figures(monkeypatch, made, drawn):
    """Take figures and page as they are: the test is about the rest."""
    figures = made / "reports/twin/figures"

    def draw(_, folder: Path):
        shutil.copytree(figures, folder)
        return drawn

    monkeypatch.setattr(pictures, "draw", draw)


@pytest.fixture(scope="module")
def drawn(made, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_draw_curves", lambda *_: None)
        patch.setattr(records, "is_current", lambda *_: True)
        read = inputs.rederive(verify.read("twin", made)[0])
        return pictures.draw(read, tmp_path_factory.mktemp("drawn"))


def predict(root: Path) -> None:
    """Give the digits' records predictions of 100 rows, and choices that their settings follow."""
    task, meta = tasks.build("classify", "abc"), root / "data/features/split_digits/meta.json"
    counts = {"train": 10, "test": 100}
    write_json(meta, read_json(meta, {}) | {"kind": "classify", "counts": counts})
    truth = np.arange(100) % 3
    for path in sorted(root.glob("runs/*/split_digits/*/seed_*.json")):
        one = record.read(path)
        logits = np.eye(3)[truth]
        logits[round(100 * one.metrics["accuracy"]) :] *= -1
        ids = np.array([f"s{row}" for row in range(100)])
        said = Predictions(
            ids, truth[:, None] * 1.0, ids, task.scores(torch.from_numpy(logits + 0.01 * one.seed))
        )
        said.write(path.with_suffix(".npz"))
        y = torch.from_numpy(truth)
        replace(
            one,
            n_test=100,
            metrics=task.judge(said.scores, y, ids),
            confusion=task.confusion(said.scores, y),
            predictions=said.digest,
            digest="",
        ).write(path)
        chosen = {name: one.params.get(name) for name in Setting._fields}
        chosen |= {"run_fold": None, "score": 0.5}
        trials = [chosen | {"fold": fold} for fold in range(3)]
        choice = {"metric": "accuracy", "choices": [chosen], "scores": trials}
        write_json(root / f"data/tune/split_digits/{one.method}.json", choice)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records, the report made of them, and their evidence."""
    root = fill(tmp_path_factory.mktemp("made"))
    profile = keep_methods(root / "params.yaml")
    for name, variant in profile.variants("sensitivity", "crema_d").items():
        for seed in range(profile.seeds):
            setting = {"lr": 0.001, "weight_decay": 0.0, "eta": variant.eta, "weight_factor": 1.0}
            one = fake("crema_d", "ibma", seed, params=setting)
            one = replace(one, stage="sensitivity", method=name, digest="")
            one.write(root / one.id.record)
    predict(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "is_current", lambda *_: True)
        patch.setattr(test_report, "PROFILE", profile)
        test_report.derive(root)
        patch.setattr(pictures, "_draw_curves", lambda *_: None)  # slow, and like the others
        page.write(profile, root)
        assert archive.pack(profile, root, root / paths.evidence("twin")) == []
    return root


@pytest.fixture(scope="module")
def recomputed(made) -> numbers.Numbers:
    """What the evidence gives, computed once."""
    return numbers.build(inputs.rederive(verify.read("twin", made)[0]))


@pytest.fixture
def reported(made, tmp_path):
    """Records and a report; nothing committed."""
    shutil.copytree(made, tmp_path / "reported")
    shutil.rmtree(tmp_path / "reported" / paths.evidence("twin"))
    return tmp_path / "reported"


@pytest.fixture
def cloned(made, tmp_path):
    """What git would carry: a report with evidence, neither runs/ nor data/."""
    shutil.copytree(made / "reports", tmp_path / "cloned/reports")
    return tmp_path / "cloned"


def differences(root: Path) -> tuple[Difference, ...]:
    return verify.verify("twin", root).differences


def test_a_clone_without_runs_or_data_is_confirmed_by_its_evidence(cloned, without_curves):
    assert verify.profiles(cloned) == ["twin"]
    found = verify.verify("twin", cloned)
    assert found.differences == () and found.compared > 3000 and found.source == "evidence"
    profile = params.load(cloned / paths.evidence("twin") / "params.yaml")
    assert found.runs == len(list(profile.cells())) * profile.seeds


def test_a_report_without_evidence_and_records_is_not_called_wrong(cloned):
    shutil.rmtree(cloned / paths.evidence("twin"))
    shutil.copy(ROOT / "profiles/twin.yaml", cloned / "params.yaml")
    with pytest.raises(IbmaError, match="no records of profile 'twin', nor evidence"):
        verify.read("twin", cloned)


def compare(root: Path, recomputed: numbers.Numbers) -> list[Difference]:
    places = verify._compare(root / "reports/twin", recomputed)
    return [place for place in places if place.committed != place.recomputed]


def test_a_changed_number_is_found_in_every_file(cloned, recomputed):
    reports = cloned / "reports/twin"
    for name, old, new, place in (
        ("tables/table_02.csv", ",66,", ",66.00001,", "row"),
        ("tables/table_02.md", "66.0", "66.1", "line"),
        ("tables/table_02.tex", "66.0", "66.1", "line"),
        ("tables/real_claims.csv", "no difference shown", "IBMA worse", "row"),
        ("metrics/crema_d.json", "66.0", "66.1", "ibma"),
        ("plots/metrics.csv", "crema_d/ibma,66", "crema_d/ibma,67", "row"),
    ):
        before = (reports / name).read_text()
        edit(reports / name, old, new)
        (one,) = compare(cloned, recomputed)
        assert one.file == name and one.place.startswith(place), one
        assert one.committed != one.recomputed
        (reports / name).write_text(before)


def test_numbers_are_compared_as_numbers(cloned, recomputed):
    """Another way to write a number is no difference; one part in a million is."""
    path = cloned / "reports/twin/tables/table_02.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    column = rows[0].index("ours")
    place = next(i for i, row in enumerate(rows) if row[0].startswith("IBMA") and row[column])
    for text, count in (("6.6e1", 0), ("66.00006", 1), ("inside", 1)):
        rows[place][column] = text
        with path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        assert len(compare(cloned, recomputed)) == count, text


def test_a_column_or_a_key_that_stands_there_twice_is_named(cloned, recomputed):
    """Readers take the first or the last of them."""
    tables, metrics = (cloned / "reports/twin" / name for name in ("tables", "metrics"))
    edit(metrics / "crema_d.json", "{", '{"ibma": 99.0,')
    lines = (tables / "table_02.csv").read_text().splitlines()
    twice = [f"{line},{line}" for line in lines]
    (tables / "table_02.csv").write_text("\n".join(twice) + "\n")
    found = compare(cloned, recomputed)
    assert {one.file for one in found} == {"metrics/crema_d.json", "tables/table_02.csv"}
    assert "columns" in {one.place for one in found}


def test_a_table_too_few_or_too_many_is_named(cloned, recomputed):
    tables = cloned / "reports/twin/tables"
    (tables / "table_05.csv").rename(tables / "old.csv")
    files = {one.file for one in compare(cloned, recomputed)}
    assert files == {"tables/table_05.csv", "tables/old.csv"}


def test_a_missing_seed_is_named(reported, without_figures):
    (reported / RunId("train", "iemocap", "omib", 2).record).unlink()
    found = Difference("records", "train/iemocap/omib", "1 of 3 runs not run: no record", "")
    assert found in differences(reported)


def test_records_here_serve_where_nothing_is_committed(reported, without_figures):
    assert verify.profiles(reported) == ["twin"]
    assert verify.verify("twin", reported).source == "records" and not differences(reported)
    (reported / fake("crema_d", "ibma", 0).id.record).unlink()
    assert any("table_02" in other.file for other in differences(reported))


def test_a_changed_record_is_refused(reported):
    path = reported / RunId("train_ibma", "crema_d", "ibma", 0).record
    edit(path, '"accuracy": 0.65', '"accuracy": 0.99')
    with pytest.raises(IbmaError, match="changed since it was written"):
        differences(reported)


def test_nothing_to_check_is_one_line(tmp_path, reported):
    with pytest.raises(IbmaError, match="neither reports/<profile>/evidence/ nor records"):
        verify.profiles(tmp_path / "empty")
    with pytest.raises(IbmaError, match="no evidence of profile 'open' is committed"):
        verify.verify("open", reported)


def test_the_command_counts_and_fails_in_one_line(cloned, monkeypatch, ibma, without_figures):
    monkeypatch.chdir(cloned)
    (cloned / "reports/paper/tables").mkdir(parents=True)
    code, said, _ = ibma("verify")
    assert code == 0
    assert "profile twin: " in said and "places of the committed reports agree with" in said
    assert "profile paper: not checked" in said
    metrics = cloned / "reports/twin/metrics/crema_d.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"ibma": 70.0}))
    code, said, error = ibma("verify")
    assert code == 1 and error.count("\n") == 1
    assert "crema_d.json" in said and "the first in metrics/crema_d.json" in error


# --- forgeries -----------------------------------------------------------------------------------

CELL = "runs/train_ibma/split_digits/ibma"


def lines_of(path: Path) -> list[str]:
    """Unpack the records of a cell."""
    return lzma.decompress(path.read_bytes()).decode().splitlines()


def forge(held: Path, *, consistent: bool = False, **fields: object) -> None:
    """Change fields of the first record of a cell; consistent: with a digest that fits."""
    path = held / f"{CELL}.jsonl.xz"
    first, *others = lines_of(path)
    content = json.loads(first) | fields
    if consistent:
        content["digest"] = record.digest_of(content)
    lines = "\n".join([json.dumps(content), *others]) + "\n"
    path.write_bytes(lzma.compress(lines.encode()))


def other_scores(held: Path) -> None:
    packed = held / f"{CELL}.npz.xz"
    seeds = archive._by_seed(packed.read_bytes())
    seeds[0]["scores"] = np.roll(seeds[0]["scores"], 1, axis=1)
    pack(packed, seeds)


def pack(path: Path, seeds: Mapping[int, Mapping[str, np.ndarray]]) -> None:
    """Write predictions, seed -> name -> array, as evidence holds them."""
    flat = {f"{seed}/{name}": array for seed, by in seeds.items() for name, array in by.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **flat)
    path.write_bytes(lzma.compress(buffer.getvalue()))


REFUSED = {  # of the evidence, with a manifest that fits; no report is needed to find them
    "a learning rate": lambda h: forge(h, params={"lr": 0.01, "weight_decay": 0.0, "eta": 0.5}),
    "a history": lambda h: forge(h, history={"task": [2.0, 0.1]}),
    "a seed": lambda h: forge(h, seed=1),
    "a task": lambda h: forge(h, task="crema_d"),
    "a metric": lambda h: forge(h, metrics={"accuracy": 0.99}),
    "a confusion matrix": lambda h: forge(h, confusion=[[100]]),
    "a digest of predictions": lambda h: forge(h, consistent=True, predictions="0" * 64),
    "predictions": other_scores,
    "lost predictions": lambda h: (h / f"{CELL}.npz.xz").unlink(),
    "no predictions named": lambda h: forge(h, consistent=True, predictions=""),
    "an added file": lambda h: (h / "runs/train_ibma/split_digits/mine.jsonl.xz").write_text("{}"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_forged_evidence_is_refused_whatever_its_manifest_says(cloned, name):
    held = cloned / paths.evidence("twin")
    REFUSED[name](held)
    with pytest.raises(IbmaError, match="not what SHA256SUMS lists"):
        verify.read("twin", cloned)
    sums(held)
    with pytest.raises(IbmaError) as caught:
        verify.read("twin", cloned)
    assert "\n" not in str(caught.value)


def test_a_removed_file_and_a_changed_manifest_are_found(cloned):
    held = cloned / paths.evidence("twin")
    for name in (f"{CELL}.jsonl.xz", "data/tune/split_digits/ibma.json.xz", archive.SUMS):
        before = (held / name).read_bytes()
        if name == archive.SUMS:
            edit(held / name, "0", "1")
        else:
            (held / name).unlink()
        with pytest.raises(IbmaError, match="not what SHA256SUMS lists"):
            verify.read("twin", cloned)
        (held / name).write_bytes(before)


def test_a_record_forged_with_its_digest_contradicts_predictions_choices_or_tables(cloned):
    """The forger signs everything anew; what follows from something else still tells."""
    held = cloned / paths.evidence("twin")
    honest = json.loads(lines_of(held / f"{CELL}.jsonl.xz")[0])
    for field, value, place in (
        ("metrics", honest["metrics"] | {"accuracy": 0.99}, "accuracy"),
        ("metrics", honest["metrics"] | {"macro_f1": 0.99}, "macro_f1"),
        ("confusion", [[34, 0, 0], [0, 33, 0], [0, 0, 33]], "confusion"),
        ("params", honest["params"] | {"lr": 0.01}, "lr"),
        ("params", honest["params"] | {"eta": 0.9}, "eta"),
    ):
        forge(held, consistent=True, **{field: value})
        sums(held)
        forged = verify._compare_records(verify.read("twin", cloned)[0])
        (one,) = [x for x in forged if x.committed != x.recomputed]
        assert one.place == place and one.file == f"{CELL}/seed_0.json"
        forge(held, consistent=True, **{field: honest[field]})


def say(held: Path, task: SimpleNamespace, **arrays: np.ndarray) -> None:
    """Change predictions of the first run, and all that its record says of them."""
    packed = held / f"{CELL}.npz.xz"
    seeds = archive._by_seed(packed.read_bytes())
    seeds[0] |= arrays
    said = Predictions.of(seeds[0])
    forge(held, consistent=True, predictions=said.digest)
    if consistency.why_not_judged(task, said) == "":
        y = torch.from_numpy(said.labels[:, 0]).long()
        judged = {"metrics": task.judge(said.scores, y, said.groups)}
        judged["confusion"] = task.confusion(said.scores, y)
        forge(held, consistent=True, **judged)
    pack(packed, seeds)


def silent(held: Path) -> None:
    """Take away the predictions of the first run."""
    forge(held, consistent=True, predictions="")
    seeds = archive._by_seed((held / f"{CELL}.npz.xz").read_bytes())
    del seeds[0]
    pack(held / f"{CELL}.npz.xz", seeds)


def content_of(held: Path, name: str, **changed: object) -> None:
    path = held / f"{name}.json.xz"
    content = json.loads(lzma.decompress(path.read_bytes())) | changed
    path.write_bytes(lzma.compress(json.dumps(content).encode()))


TUNED, JUDGE = "data/tune/split_digits/ibma", tasks.build("classify", "abc")
ONE = {"lr": 0.001, "weight_decay": 0.0, "eta": 0.5, "weight_factor": 1.0, "run_fold": None}
TRIALS = [ONE | {"fold": fold, "score": 0.5} for fold in range(3)]
NAMES = np.array([f"s{row}" for row in range(100)])
APART = {  # a forgery that is consistent in itself -> where it contradicts the rest
    "n_train": (lambda h: forge(h, consistent=True, n_train=9), "n_train"),
    "n_test": (lambda h: forge(h, consistent=True, n_test=9), "n_test"),
    "fold": (lambda h: forge(h, consistent=True, fold=0), "fold"),
    "source": (lambda h: forge(h, consistent=True, source="twin"), "source"),
    "epochs": (lambda h: forge(h, consistent=True, history={"task": []}), "epochs of history task"),
    "terms": (lambda h: forge(h, consistent=True, history={}), "names of history"),
    "cost": (lambda h: forge(h, consistent=True, cost={"parameters": 1}), "cost"),
    "weights": (lambda h: forge(h, consistent=True, weights="split_digits/ibma/1"), "weights"),
    "key": (lambda h: forge(h, consistent=True, key="split_digits/ibma/1"), "key"),
    "silence": (silent, "has predictions"),
    "labels": (lambda h: say(h, JUDGE, labels=np.zeros((100, 1))), "labels of test rows"),
    "ids": (lambda h: say(h, JUDGE, ids=np.char.add(NAMES, "x")), "ids of test rows"),
    "groups": (lambda h: say(h, JUDGE, groups=np.char.add(NAMES, "x")), "groups of test rows"),
    "labels beyond": (lambda h: say(h, JUDGE, labels=np.full((100, 1), 3.0)), "predictions"),
    "no numbers": (lambda h: say(h, JUDGE, scores=np.full((100, 3), np.nan, "f2")), "predictions"),
    "columns": (lambda h: say(h, JUDGE, scores=np.zeros((100, 2), "f2")), "predictions"),
    "one row": (lambda h: say(h, JUDGE, ids=np.full(100, "s1")), "predictions"),
    "score": (
        lambda h: content_of(h, TUNED, choices=[ONE | {"score": 0.9}]),
        "choice 0: score",
    ),
    "trials": (lambda h: content_of(h, TUNED, scores=TRIALS + TRIALS[:1]), "choice 0: trials"),
    "another point": (
        lambda h: content_of(
            h, TUNED, scores=[*TRIALS, ONE | {"lr": 0.1, "fold": 0, "score": 0.1}]
        ),
        "choice 0: tried or asked alone",
    ),
    "a test fold": (
        lambda h: content_of(h, TUNED, choices=[ONE | {"score": 0.5}] * 2),
        "test folds",
    ),
    "metric": (lambda h: content_of(h, TUNED, metric="macro_f1"), "metric"),
    "no choice": (lambda h: (h / f"{TUNED}.json.xz").unlink(), "has a choice"),
    "other type": (lambda h: say(h, JUDGE, scores=np.zeros((100, 3))), "predictions"),
    "no trials": (
        lambda h: content_of(h, TUNED, scores=[], choices=[ONE | {"score": None}] * 2),
        "choices",
    ),
}


@pytest.mark.parametrize("name", list(APART))
def test_a_consistent_forgery_contradicts_the_other_runs_or_what_they_follow(cloned, name):
    held, (do, place) = cloned / paths.evidence("twin"), APART[name]
    do(held)
    sums(held)
    found = verify._compare_records(verify.read("twin", cloned)[0])
    apart = [one for one in found if one.committed != one.recomputed]
    assert place in {one.place for one in apart}
    assert all(one.file.startswith((f"{CELL}/seed_", TUNED)) for one in apart)
    outcome = verify.verify("twin", cloned)
    assert set(apart) <= set(outcome.differences), "and nothing is made of it"


@pytest.mark.parametrize(
    ("kind", "classes"), [("classify", []), ("classify", ["a", "a"]), ("sentiment", list("ab"))]
)
def test_classes_that_no_task_has_are_named(kind, classes):
    said = Predictions(NAMES, np.zeros((100, 1)), NAMES, np.zeros((100, 2), np.float16))
    assert f"of {len(classes)} classes" in consistency.why_not_judged(
        tasks.build(kind, classes), said
    )


def test_what_other_stages_measured_belongs_to_the_profile(cloned):
    found = verify.read("twin", cloned)[0]
    seconds = {"median": 2.0, "low": 1.0, "high": 3.0}
    row = {"method": found.params.probe.methods[0], "seed": 0, "modality": "audio", "metrics": {}}
    task = found.params.probe.task
    features = {**found.features, task: found.features[task] | {"modalities": {"audio": {}}}}
    timing = {"task": found.params.timing.task, "methods": {"ibma": seconds}}
    logistic = {"split_digits": {"missing": None, "runs": [{"fold": None}]}}
    honest = replace(found, timing=timing, probe=[row], features=features, logistic=logistic)

    def apart(**changed: object) -> list[str]:
        claims = consistency._beside_the_runs(replace(honest, **changed))
        return [place for _, place, told, right in claims if told != right]

    assert apart() == []
    assert apart(timing=timing | {"task": "mine"}) == ["task"]
    assert apart(timing=timing | {"methods": {"mine": seconds}}) == ["unknown methods"]
    early = {"ibma": seconds | {"median": 0.5}}
    assert apart(timing=timing | {"methods": early}) == ["order of ibma"]
    for other in ({"seed": 99}, {"method": "mine"}, {"modality": "mine"}, {}):
        assert apart(probe=[row, row | other]) == ["rows unknown or twice"]
    assert apart(logistic={"split_digits": {"runs": [{"fold": 0}]}}) == ["folds"]


def test_forged_records_and_predictions_under_runs_are_refused(reported):
    path = reported / CELL / "seed_0.json"
    said = path.with_suffix(".npz")
    before = said.read_bytes()
    for do, match in (
        (lambda: said.write_bytes((reported / CELL / "seed_1.npz").read_bytes()), "not the pred"),
        (said.unlink, "missing"),
        (lambda: edit(path, '"seed": 0', '"seed": 1'), "changed since it was written"),
    ):
        do()
        with pytest.raises(IbmaError, match=match):
            verify.read("twin", reported)
        said.write_bytes(before)


def test_every_kind_of_file_of_a_report_is_compared(cloned, without_curves):
    """One forgery in each kind of file, all at once: each is named, and nothing else."""
    reports = cloned / "reports/twin"
    for name, old, new in (
        ("tables/table_02.csv", ",66,", ",67,"),
        ("tables/table_02.md", "66.0", "66.1"),
        ("tables/table_02.tex", "66.0", "66.1"),
        ("metrics/crema_d.json", "66.0", "66.1"),
        ("plots/metrics.csv", "crema_d/ibma,66", "crema_d/ibma,67"),
        ("tuning.csv", "0.001", "0.01"),
        ("index.html", "66.0", "66.1"),
        ("figures/comparison_crema_d.svg", ">IBMA<", ">OMIB<"),
    ):
        edit(reports / name, old, new)
    shutil.copy(reports / "figures/claims.png", reports / "figures/comparison_iemocap.png")
    (reports / "figures/eta.png").unlink()
    for name in ("tables/mine.csv", "figures/mine.svg", "plots/mine.csv", "mine.md"):
        (reports / name).write_text("mine")
    (reports / "mine").mkdir()
    for name in ("MINE", "mine/table.csv"):
        (reports / name).write_text("mine")
    found = {one.file for one in differences(cloned)}
    assert found == {
        "tables/table_02.csv",
        "tables/table_02.md",
        "tables/table_02.tex",
        "metrics/crema_d.json",
        "plots/metrics.csv",
        "tuning.csv",
        "index.html",
        "figures/comparison_crema_d.svg",
        "figures/comparison_iemocap.png",
        "figures/eta.png",
        *("tables/mine.csv", "figures/mine.svg", "plots/mine.csv", "mine.md"),
        *("MINE", "mine", "mine/table.csv"),
    }


def test_a_number_in_the_results_page_is_that_of_its_table(tmp_path):
    (tmp_path / "docs").mkdir()
    path = tmp_path / results_page.PATH
    shutil.copy(ROOT / results_page.PATH, path)
    tables = {}
    report = ROOT / "reports" / results_page.PROFILE
    for table in (*(report / "tables").glob("*.csv"), report / "tuning.csv"):
        with table.open(newline="", encoding="utf-8") as file:
            tables[table.stem] = list(csv.DictReader(file))
    for text in re.findall(r"[-+]?\d+\.\d+ \[", path.read_text()):
        honest = path.read_text()
        path.write_text(honest.replace(text, f"{float(text[:-2]) + 0.1:.1f} [", 1))
        found = [x for x in verify.compare_results(tmp_path, tables) if x.committed != x.recomputed]
        assert len(found) == 1 and found[0].file == "docs/results.md"
        path.write_text(honest)
    assert all(x.committed == x.recomputed for x in verify.compare_results(tmp_path, tables))


@pytest.mark.slow
@pytest.mark.parametrize(
    "profile", [p.parent.parent.name for p in ROOT.glob("reports/*/evidence/SHA256SUMS")]
)
def test_the_committed_reports_are_those_of_their_evidence(profile):
    found = verify.verify(profile, ROOT)
    assert found.differences == () and found.compared > 10_000


# --- what is the same ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "same"),
    [
        ("M 10.004 1000.9 z", True),  # a thousandth of a coordinate is rounding
        ("M 10.02 1000.0 z", False),
        ("M 10.0 1002.0 z", False),
        ("L 10.0 1000.0 z", False),
        ("M 10.0 z", False),
        ("M 10.0 -1000.0 z", False),
    ],
)
def test_a_drawing_is_the_same_but_for_the_rounding_of_its_coordinates(new, same):
    old = "M 10.0 1000.0 z"
    assert verify._same_drawing(old, new) is verify._same_drawing(new, old) is same
    (found,) = verify._compare_drawn(old, new)
    assert found == ("line 1", old, old if same else new)


def test_pictures_are_the_same_but_for_their_edges(tmp_path):
    old, new = tmp_path / "old.png", tmp_path / "new.png"
    pixels = np.full((2, 2, 3), 100, np.uint8)
    Image.fromarray(pixels).save(old)
    for value, same in ((100, True), (164, True), (165, False), (36, True), (35, False)):
        other = pixels.copy()
        other[1, 0, 2] = value
        Image.fromarray(other).save(new)
        assert verify._same_pixels(old, new) is same, value
    Image.fromarray(pixels[:1]).save(new)
    assert not verify._same_pixels(old, new), "of another size"
    for content in (b"no picture", old.read_bytes()[:-30], old.read_bytes()[:40] + b"x" * 40):
        new.write_bytes(content)
        assert not verify._same_pixels(new, old)
    Image.fromarray(np.zeros((20_000, 20_000), np.uint8)).save(new)  # too large for Pillow
    assert not verify._same_pixels(new, old)
    new.unlink()
    os.mkfifo(new)
    assert not verify._same_pixels(new, old), "nothing waits for a pipe"


def test_of_two_long_lines_the_place_is_shown_where_they_part():
    old, new = "a" * 700 + "b" * 300, "a" * 700 + "c" * 300
    for found, tail in zip(verify._apart(old, new), "bc", strict=True):
        assert found == "a" * (verify.LONG // 2) + tail * (verify.LONG // 2)
    assert verify._apart("same" * 100, "same" * 100) == ("same" * 100,) * 2
    assert verify._apart("old", "new") == ("old", "new"), "short ones are shown whole"


def test_the_packages_of_this_machine_are_no_difference_and_all_else_is(tmp_path):
    kept = ["<p>66.0</p>", f"<dt>{page.PACKAGES_LINE}</dt><dd>torch 1</dd>", "<p>end</p>"]
    (tmp_path / verify.PAGE).write_text("\n".join(kept))
    again = [kept[0].replace("66", "67"), kept[1].replace("torch 1", "torch 2"), kept[2]]
    found = list(verify._compare_page(tmp_path / verify.PAGE, "\n".join(again)))
    assert [(one.place, one.committed, one.recomputed) for one in found] == [
        ("line 1", kept[0], again[0]),
        ("line 3", kept[2], kept[2]),
    ]
    (tmp_path / verify.PAGE).write_text("\n".join([kept[0], kept[1] + "IBMA wins", kept[2]]))
    assert len([x for x in verify._compare_page(tmp_path / verify.PAGE, "\n".join(kept))]) == 3
    (tmp_path / verify.PAGE).write_text("\n".join(kept))
    dropped = list(verify._compare_page(tmp_path / verify.PAGE, "\n".join([kept[0], "", kept[2]])))
    assert dropped[1].committed == kept[1] != dropped[1].recomputed, "a report without them"


def test_runs_take_the_choices_of_test_folds_in_turn():
    choices = [{"lr": lr, "weight_decay": 0.0, "eta": 0.5} for lr in (0.1, 0.2, 0.3)]
    results = SimpleNamespace(choices={("t", "m"): {"choices": choices}})
    found = [
        verify._choice(SimpleNamespace(results=results), SimpleNamespace(task="t", seed=seed), "m")
        for seed in range(5)
    ]
    assert [one.lr for one in found] == [0.1, 0.2, 0.3, 0.1, 0.2]
    assert {one.weight_factor for one in found} == {None}, "what evidence lacks differs"


def test_profiles_with_a_report_that_nothing_confirms_are_named(tmp_path):
    for name in ("twin", "paper", "open"):
        (tmp_path / "reports" / name / "tables").mkdir(parents=True)
    (tmp_path / "reports/notes").mkdir()
    assert verify.unchecked(tmp_path, ["twin"]) == ["open", "paper"]


# --- trained again -------------------------------------------------------------------------------


def test_a_run_trained_elsewhere_may_differ_by_as_much_as_seeds_do():
    """Accuracies .90, .92, .97: sd sqrt(.0026 / 2); 3 sd of a difference are 3 sqrt(2) of it."""
    accuracies = {0: 0.90, 1: 0.92, 2: 0.97}
    peers = [
        record_of(
            stage="train", task="t", method="m", seed=seed,
            metrics={"accuracy": accuracy, "auc": None}, ib={"fused": -0.5},
        )
        for seed, accuracy in accuracies.items()
    ]  # fmt: skip
    again = replace(peers[0], metrics={"accuracy": 0.7, "auc": 0.5}, ib={"fused": -0.5}, digest="")
    found = {one.name: one for one in retrain._gaps(peers[0], again, peers, exactly=False)}
    assert list(found) == ["accuracy", "auc", "ib/fused"]
    assert found["accuracy"].allowed == pytest.approx(3 * 2**0.5 * 0.0013**0.5)
    assert (found["accuracy"].committed, found["accuracy"].retrained) == (0.9, 0.7)
    assert [one.agrees for one in found.values()] == [False, False, True]
    assert found["ib/fused"].allowed == retrain.SAME, "of seeds that agree, rounding stays"
    (alone, *_) = retrain._gaps(peers[0], again, peers[:1], exactly=False)
    assert alone.allowed == math.inf, "one run has no spread"
    assert not retrain.Gap("accuracy", 0.5, 0.9, 0.2).agrees, "a higher one is as far"
    exact = list(retrain._gaps(peers[0], again, peers, exactly=True))
    assert {one.allowed for one in exact} == {retrain.SAME}


@pytest.mark.parametrize(
    ("moved", "exactly"),
    [
        ({}, True),
        ({"key": "other"}, False),
        ({"provenance": {"device": "another", "cpu_capability": "AVX2"}}, False),
        ({"provenance": {"device": "cpu", "cpu_capability": "AVX512"}}, False),
    ],
)
def test_equal_numbers_are_asked_of_the_same_code_and_machine_alone(monkeypatch, moved, exactly):
    machine = {"device": "cpu", "cpu_capability": "AVX2"}
    fields = {"stage": "train", "task": "t", "method": "m", "seed": 0, "provenance": machine}
    committed = record_of(**fields, metrics={"accuracy": 0.9})
    again = replace(committed, **moved, digest="")
    monkeypatch.setattr(retrain, "Processes", lambda *_, **__: nullcontext())
    monkeypatch.setattr(retrain, "train", lambda *_: again)
    found = retrain._again(SimpleNamespace(cpu_threads=1), Path(), committed, [committed])
    assert (found.gaps[0].allowed == retrain.SAME) is exactly
    assert found.same_key is ("key" not in moved) and found.device == again.provenance["device"]


def test_cells_to_train_again_are_drawn_once_each_and_runs_are_taken_by_name():
    runs = {
        ("train", task, method): [
            record_of(stage="train", task=task, method=method, seed=seed, metrics={})
            for seed in range(3 * (method != "none"))
        ]
        for task, method in (("a", "one"), ("a", "two"), ("a", "none"), ("b", "one"))
    }
    known = SimpleNamespace(runs=runs, params=SimpleNamespace(tasks=["a", "b"], profile="p"))

    def cells(wanted: str) -> list[tuple[str, str]]:
        return sorted((run.task, run.method) for run in retrain._choose(known, wanted))

    assert cells("5") == [("a", "one"), ("a", "two"), ("b", "one")]
    assert [task for task, _ in cells("1")] == ["a", "b"]
    assert [run.id for run in retrain._choose(known, "a/two/2")] == [RunId("train", "a", "two", 2)]
    assert {retrain._choose(known, "b/one")[0].seed for _ in range(50)} == {0, 1, 2}
    for wanted in ("0", "a", "a/none", "a/two/3", "b/two", "../x/y/0"):
        with pytest.raises(IbmaError, match=f"--retrain {wanted}: "):
            retrain._choose(known, wanted)
