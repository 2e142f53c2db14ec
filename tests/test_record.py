"""A record is read as it was written, or refused in one line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_tracking import RECORDS

from ibma.errors import IbmaError
from ibma.training import record
from ibma.training.predictions import Predictions

SAID = Predictions(
    np.array(["s0"]), np.zeros((1, 1)), np.array(["g"]), np.zeros((1, 2), dtype=np.float16)
)
REMEDY = "delete it and run `dvc repro`"


def refused(path: Path, match: str) -> str:
    with pytest.raises(IbmaError, match=match) as caught:
        record.read(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and said.endswith(REMEDY) and "\n" not in said
    return said


def test_a_record_comes_back_and_its_digest_tells_any_change(tmp_path):
    path, one = tmp_path / "one.json", RECORDS[1]
    one.write(path)
    assert record.read(path) == one and record.read(path).digest == one.digest
    assert replace(one, digest="") == one, "equal content, equal digest"
    content = json.loads(path.read_text())
    assert content["digest"] == record.digest_of(content)
    for name in content:
        changed = content | {name: "changed"}
        path.write_text(json.dumps(changed))
        refused(path, "changed since it was written, its digest does not fit")
    for digest in ({"digest": ""}, {"digest": None}, {}):  # none hides no change
        changed = {name: value for name, value in content.items() if name != "digest"} | digest
        path.write_text(json.dumps(changed | {"n_test": content["n_test"] + 1}))
        refused(path, "changed since it was written, its digest does not fit")


def test_what_is_no_record_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "one.json"
    RECORDS[1].write(path)
    content = json.loads(path.read_text())
    lacking = {name: value for name, value in content.items() if name != "key"}
    for text, reason in (
        ("{", r"not a record \(Expecting property name"),
        ("[1]", "not a record"),
        (json.dumps(lacking), "not a record .*'key'"),
        (json.dumps(content | {"more": 1}), "not a record .*'more'"),
        ("[" * 100_000, "not a record .*recursion"),
    ):
        path.write_text(text)
        refused(path, reason)
    path.write_text(json.dumps(content | {"x" * 1000: 1}))
    assert len(refused(path, "not a record")) < 500
    path.unlink()
    path.mkdir()
    refused(path, "folder")


def test_predictions_are_read_with_a_record_that_has_them(tmp_path):
    path = tmp_path / "one.json"
    one = replace(RECORDS[1], predictions=SAID.digest, digest="")
    one.write(path)
    with pytest.raises(IbmaError, match="one.npz"):
        record.read(path)
    assert record.read(path, with_predictions=False) == one
    SAID.write(tmp_path / "one.npz")
    assert record.read(path) == one
    replace(RECORDS[1], predictions="0" * 64, digest="").write(path)
    with pytest.raises(IbmaError, match="one.npz"):
        record.read(path)


def test_a_run_has_a_name_and_its_own_files():
    one = RECORDS[1].id
    assert str(one) == "crema_d ibma seed 0"
    assert one.predictions == one.record.with_suffix(".npz") != one.weights
