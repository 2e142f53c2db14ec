"""her2st with patients left out and as anomaly detection, on small made sections and real ones."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import MIRROR, needs

from ibma import fetch
from ibma.datasets import Dropped, her2st, her2st_one_class
from ibma.errors import IbmaError

needs_mirror = needs("github/almaan/her2st")
LABELS = ("connective tissue", "cancer in situ", "undetermined", "invasive cancer")
GENES = ("GENE0", "GENE1", "GENE2")


@pytest.fixture
def raw(tmp_path):
    return lay_out(tmp_path)


def lay_out(folder: Path) -> Path:
    """Sections of 12 spots in one row, the labels in turn."""
    rng = np.random.default_rng(0)
    data = folder / "her2st/data"
    (data / "ST-cnts").mkdir(parents=True)
    (data / "ST-pat/lbl").mkdir(parents=True)
    for name in her2st.SECTIONS:
        counts = [f"{x}x7\t" + "\t".join(map(str, rng.integers(1, 9, 3))) for x in range(12)]
        text = "\n".join(["\t" + "\t".join(GENES), *counts]) + "\n"
        (data / f"ST-cnts/{name}.tsv.gz").write_bytes(gzip.compress(text.encode()))
        labels = [f"r{x}\t{x + 0.04}\t6.98\t1\t1\t{LABELS[x % 4]}" for x in range(12)]
        text = "\n".join(["Row.names\tx\ty\tpixel_x\tpixel_y\tlabel", *labels]) + "\n"
        (data / f"ST-pat/lbl/{name}_labeled_coordinates.tsv").write_text(text)
    return folder


def test_every_patient_is_a_fold_and_in_situ_is_cancer(raw):
    found = list(her2st.samples(raw, n_genes=2))
    assert Counter(sample.split for sample in found) == {f"fold{k}": 12 for k in range(8)}
    assert {(s.group, s.split) for s in found} == {
        (p, f"fold{k}") for k, p in enumerate("ABCDEFGH")
    }
    assert [sample.label for sample in found[:4]] == [0, 1, 0, 1]
    assert found[0].id == "A1/0x7" and found[-1].id == "H1/11x7"


def test_the_second_view_is_the_mean_of_the_spots_next_to_it_in_the_same_section(raw):
    found = list(her2st.samples(raw, n_genes=3))
    own = [sample.parts["expression"] for sample in found]
    near = [sample.parts["neighbourhood"] for sample in found]
    assert near[5] == pytest.approx((own[4] + own[6]) / 2)
    assert near[11] == pytest.approx(own[10]), "the next section's first spot is no neighbour"


@pytest.mark.parametrize("module", [her2st, her2st_one_class])
def test_a_spot_without_label_is_dropped_by_name_or_stops(raw, module):
    path = raw / "her2st/data/ST-pat/lbl/C1_labeled_coordinates.tsv"
    path.write_text(path.read_text().replace("r3\t3.04\t6.98", "r3\tNA\tNA"))
    with pytest.raises(IbmaError, match="C1_labeled_coordinates.tsv: no label for spot 3x7"):
        list(module.samples(raw, n_genes=2))
    found = list(module.samples(raw, on_bad="drop", n_genes=2))
    assert [entry for entry in found if isinstance(entry, Dropped)] == [
        Dropped("C1/3x7", "no label")
    ]
    assert not any(getattr(entry, "id", "") == "C1/3x7" for entry in found[1:])


@pytest.mark.parametrize("module", [her2st, her2st_one_class])
def test_a_missing_section_stops(raw, module):
    (raw / "her2st/data/ST-cnts/F1.tsv.gz").unlink()
    with pytest.raises(IbmaError, match=r"F1.tsv.gz: missing: run `dvc repro -f download`"):
        list(module.samples(raw, on_bad="drop", n_genes=2))


def test_one_class_trains_on_normal_spots_of_other_patients(raw):
    found = list(her2st_one_class.samples(raw, n_genes=2))
    counted = Counter((sample.split, sample.group, sample.label) for sample in found)
    train = {("train", name, 0): 6 for name in ("E1", "F1", "G2", "H1")}
    test = {("test", name, label): 6 for name in ("A1", "B1", "C1", "D1") for label in (0, 1)}
    assert counted == train | test
    first = next(sample for sample in found if sample.id == "E1/0x7")
    assert first.parts["neighbourhood"] is not None, "its only neighbour is cancer, and counts"


# --- real files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    raw = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IBMA_MIRROR", str(MIRROR))
        fetch.dataset("her2st", "real", raw)
    return raw


@pytest.fixture(scope="module")
def spots(real):
    return list(her2st.samples(real))


@needs_mirror
def test_the_real_spots(spots):
    assert len(spots) == her2st.CARD.official.train == 3481
    labels = {
        patient: np.array([s.label for s in spots if s.group == patient]) for patient in "ABCDEFGH"
    }
    assert [len(labels[patient]) for patient in "ABCDEFGH"] == [
        *(346, 295, 176, 306),
        *(587, 691, 467, 613),
    ]
    shares = [round(float(labels[patient].mean()), 3) for patient in "ABCD"]
    assert shares == [0.876, 0.214, 0.722, 0.454]
    assert all(sample.parts["neighbourhood"] is not None for sample in spots)


@needs_mirror
def test_the_real_one_class_counts_and_the_distances_on_the_card(real):
    """Squared distance to the mean of train: mean AUC .19 for expression, .70 for neighbourhood."""
    from sklearn.metrics import roc_auc_score

    found = list(her2st_one_class.samples(real))
    train = np.array([sample.split == "train" for sample in found])
    y = np.array([sample.label for sample in found])
    groups = np.array([sample.group for sample in found])
    official = her2st_one_class.CARD.official
    assert (train.sum(), (~train).sum()) == (official.train, official.test) == (1094, 1123)
    assert not y[train].any()
    for name, expected in {"expression": 0.19, "neighbourhood": 0.70}.items():
        x = np.stack([sample.parts[name] for sample in found])
        far = ((x - x[train].mean(axis=0)) ** 2).sum(axis=1)
        areas = [roc_auc_score(y[groups == g], far[groups == g]) for g in her2st_one_class.TEST]
        assert np.mean(areas) == pytest.approx(expected, abs=0.01)


@needs_mirror
def test_a_linear_probe_finds_cancer_in_an_unseen_patient(spots):
    """Mean AUC over patients as on the card, for the stronger penalty."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y = np.array([sample.label for sample in spots])
    patients = np.array([sample.group for sample in spots])
    views = {
        name: np.stack([sample.parts[name] for sample in spots]) for name in her2st.CARD.modalities
    }
    views["both"] = np.hstack(list(views.values()))

    def area(x):
        values = []
        for patient in "ABCDEFGH":
            out = patients == patient
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=1e-4, max_iter=200))
            probe.fit(x[~out], y[~out])
            values.append(roc_auc_score(y[out], probe.decision_function(x[out])))
        return float(np.mean(values))

    scores = {name: area(x) for name, x in views.items()}
    expected = {"expression": 0.86, "neighbourhood": 0.87, "both": 0.89}
    assert scores == pytest.approx(expected, abs=0.01)


@needs_mirror
def test_the_confound_on_the_card(real):
    """The total of a spot's counts alone: AUC .75 over all spots, .74 as mean over patients."""
    from sklearn.metrics import roc_auc_score

    from ibma.formats import her2st as sections

    found = [sections.read(real, name) for name in her2st.SECTIONS]
    totals = [np.asarray(section.counts.values.sum(axis=1)).ravel() for section in found]
    labels = [section.cancer for section in found]
    pooled = roc_auc_score(np.concatenate(labels), np.concatenate(totals))
    assert pooled == pytest.approx(0.75, abs=0.005)
    each = [roc_auc_score(y, total) for y, total in zip(labels, totals, strict=True)]
    assert np.mean(each) == pytest.approx(0.74, abs=0.005)
