"""CheXpert's layouts, labels and reports, on the twin and on broken copies of it."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest

from ibma import datasets, twins
from ibma.datasets import Counts, Dropped, Sample, chexpert
from ibma.errors import IbmaError
from ibma.features import media
from ibma.formats import radiology

FEATURES = {"image": {"size": 16}, "text": {"max_length": 8}}


def samples(raw, **options):
    options = {"on_bad": "drop"} | options
    return [s for s in datasets.load("chexpert").samples(raw, **options) if isinstance(s, Sample)]


def by_place(found, place):
    patient = f"patient{1 + place // 2:05d}/study{1 + place % 2}/"
    return next(s for s in found if s.id.startswith(f"train/{patient}"))


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def rewrite(raw, name, change):
    path = raw / "CheXpert-v1.0-small" / name
    rows = rows_of(path)
    change(rows)
    write_rows(path, rows)


def test_the_twin_is_small_and_marked_and_no_id_is_there_twice(written):
    found = samples(written)
    assert [sum(s.split == name for s in found) for name in ("train", "test")] == [119, 60]
    assert len({s.id for s in found}) == len(found)
    assert sum(f.stat().st_size for f in written.rglob("*") if f.is_file()) < 5e6
    assert (written / "TWIN").exists()


def test_patients_are_on_one_side_only(written):
    found = samples(written)
    train = {s.group for s in found if s.split == "train"}
    assert train.isdisjoint(s.group for s in found if s.split == "test")


def test_an_uncertain_label_follows_the_policy(written):
    policies = {name: samples(written, uncertain=name) for name in ("mixed", "ones", "zeros")}
    for i in range(5):  # the image at place 30 + i has -1 in label i
        label = {name: by_place(found, 30 + i).label[i] for name, found in policies.items()}
        positive = radiology.LABELS[i] in ("Edema", "Atelectasis")
        assert label == {"mixed": int(positive), "ones": 1, "zeros": 0}
    with pytest.raises(IbmaError, match="uncertain 'maybe': expected mixed"):
        samples(written, uncertain="maybe")


@pytest.mark.parametrize(("value", "label"), [("1", 1), ("0", 0), ("", 0)])
def test_a_label_is_positive_where_the_table_says_one(copy, value, label):
    rewrite(copy, "train.csv", lambda rows: rows[0].update({"Cardiomegaly": value}))
    assert by_place(samples(copy), 0).label[0] == label


def test_reports_are_cleaned_and_may_be_missing(written):
    found = samples(written)
    assert by_place(found, 3).parts["text"] == ""
    quoted = by_place(found, 11).parts["text"]
    assert "second line, with comma" in quoted and "\n" not in quoted
    assert by_place(found, 13).parts["text"].startswith("impression: ")
    assert "impression" not in by_place(found, 15).parts["text"]
    assert "\\n" not in by_place(found, 17).parts["text"]
    assert by_place(found, 19).parts["text"].startswith("findings: ")


def test_lateral_views_can_be_left_out(written):
    every, frontal = samples(written), samples(written, frontal_only=True)
    left_out = {s.id: s.split for s in every}.items() - {s.id: s.split for s in frontal}.items()
    assert sorted(split for _, split in left_out) == ["test", "train"]
    assert all(name.endswith("view2_lateral") for name, _ in left_out)


def test_a_split_whose_images_have_no_report_is_refused(copy):
    """Every text of the test split was empty, in silence."""
    path = copy / chexpert.REPORTS
    rows = rows_of(path)
    for change in (
        lambda row: None if row["path_to_image"].startswith("valid/") else row,
        lambda row: row | {"section_findings": "", "section_impression": "nan"},
    ):
        write_rows(path, [changed for row in rows if (changed := change(row))])
        with pytest.raises(
            IbmaError, match=r"240401.csv: nothing in it matches .*(valid|train).csv"
        ):
            samples(copy)


def test_images_without_a_text_are_told_by_split(written, capsys):
    samples(written)
    told = "samples without a text: 1 of 119 in train, 0 of 60 in test"
    assert capsys.readouterr().err == f"{written / chexpert.REPORTS}: {told}\n"


def test_rows_of_images_and_reports_are_counted(copy, monkeypatch):
    with pytest.raises(IbmaError, match=r"train.csv: 120 rows: expected 223414"):
        chexpert.verify(copy)
    monkeypatch.setattr(chexpert, "CARD", replace(chexpert.CARD, official=Counts(120, 60)))
    with pytest.raises(IbmaError, match=r"240401.csv: 179 rows: expected 223462: use the original"):
        chexpert.verify(copy)
    monkeypatch.setattr(chexpert, "REPORTED", 179)
    chexpert.verify(copy)


def test_the_full_release_as_its_zips_unpack(copy):
    """Tables and valid/ in batch 1, training patients in batch 2; no CheXpert-v1.0-small."""
    small, first = copy / "CheXpert-v1.0-small", copy / "CheXpert-v1.0 batch 1 (validate & csv)"
    expected = [s.id for s in samples(copy)]
    second = copy / "CheXpert-v1.0 batch 2 (train 1)"
    shutil.copytree(small / "train", second, dirs_exist_ok=True)
    shutil.rmtree(small / "train")
    small.rename(first)
    found = samples(copy)
    assert [s.id for s in found] == expected
    places = {s.split: {s.parts["image"].relative_to(copy).parts[0]} for s in found}
    assert places == {"train": {second.name}, "test": {first.name}}


def test_a_path_of_another_form_names_file_and_line(copy):
    rewrite(copy, "train.csv", lambda rows: rows[2].update({"Path": "view1_frontal.jpg"}))
    with pytest.raises(IbmaError, match=r"train.csv: line 4: path 'view1_frontal.jpg': expected"):
        samples(copy)


@pytest.mark.parametrize("name", ["CheXpert-v1.0-small/train.csv", chexpert.REPORTS])
def test_rows_in_a_quote_that_is_closed_rows_later_are_named(copy, name):
    """Four rows would be one whose cell holds the other three."""
    lines = (copy / name).read_text().split("\n")
    lines[24] = lines[24].replace(",", ',"', 1)
    path, second, *others = lines[27].split(",")
    lines[27] = ",".join([path, f'{second}"', *others])
    (copy / name).write_text("\n".join(lines))
    with pytest.raises(IbmaError, match=rf"{name}: line 25: a quote is not closed"):
        samples(copy)


def test_a_table_that_is_not_utf8_is_named(copy):
    table = copy / "CheXpert-v1.0-small/train.csv"
    table.write_bytes(table.read_bytes().replace(b"Female", b"F\xe9male", 1))
    with pytest.raises(IbmaError, match=r"train.csv: line 4: .*UTF-8.*: use the original"):
        samples(copy)


def test_a_listed_image_that_is_missing_is_dropped_or_stops(written):
    found = list(chexpert.samples(written, on_bad="drop"))
    dropped = [s for s in found if isinstance(s, Dropped)]
    assert [d.reason for d in dropped] == ["image listed but missing"]
    assert not dropped[0].id.endswith(".jpg")  # as ids of samples
    with pytest.raises(IbmaError, match=r"missing, but listed in train.csv line 7"):
        list(chexpert.samples(written))


def test_a_truncated_jpg_is_named(written):
    with pytest.raises(media.Unreadable, match="view1_frontal.jpg: cannot be decoded"):
        media.compute("image", by_place(samples(written), 7).parts["image"], {"size": 32})


@pytest.mark.parametrize("value", ["2.0", "yes"])
def test_a_label_outside_the_vocabulary_names_file_and_line(copy, value):
    rewrite(copy, "valid.csv", lambda rows: rows[3].update({"Edema": value}))
    with pytest.raises(IbmaError, match=rf"valid.csv: line 5: Edema '{value}': expected one of"):
        samples(copy)


def test_a_missing_column_file_or_folder_is_named(copy):
    (copy / chexpert.REPORTS).write_text("path_to_image,report\n")
    with pytest.raises(IbmaError, match="column 'section_findings' is missing"):
        samples(copy)
    (copy / chexpert.REPORTS).unlink()
    with pytest.raises(IbmaError, match=f"{chexpert.REPORTS}: missing: register at"):
        samples(copy)
    shutil.rmtree(copy / "CheXpert-v1.0-small")
    with pytest.raises(IbmaError, match="no CheXpert-v1.0-small/train.csv"):
        samples(copy)


def test_extraction_drops_two_and_keeps_the_single_class_label(features):
    assert features.meta["dropped"] == 2 and features.meta["source"] == "twin"
    assert features.arrays["image"].dtype == np.uint8
    test = features.labels[features.test(0).index]
    consolidation = test[:, radiology.LABELS.index("Consolidation")]
    assert consolidation.sum() == 0, "drives the undefined AUROC"


def test_both_modalities_know_a_part(written):
    """The blob and the word of a finding agree with its label more often than not."""
    found = [s for s in samples(written) if s.split == "test"]
    word = np.array(["cardiomegaly" in str(s.parts["text"]) for s in found])
    label = np.array([s.label[0] for s in found], dtype=bool)
    assert word[label].mean() > 0.5 > 0.3 > word[~label].mean()


def test_the_twin_is_the_same_bytes_again(written, tmp_path):
    twins.write("chexpert", tmp_path)
    for path in sorted(p for p in written.rglob("*") if p.is_file()):
        assert (tmp_path / path.relative_to(written)).read_bytes() == path.read_bytes(), path
