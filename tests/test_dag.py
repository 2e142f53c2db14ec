"""dvc.yaml declares what a cell depends on: all of it, and nothing else."""

from pathlib import Path

import pytest
import yaml

from ibma.experiments import runs
from ibma.training import record

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize(
    ("stage", "axis", "file"),
    [("train", "${item.method}", "${item.method}"), ("train_ibma", "${item.variant}", "ibma")],
)
def test_a_cell_depends_on_its_data_its_parameters_its_method_and_the_shared_code(
    stage, axis, file
):
    assert runs.VARIANT_FILE == "ibma"
    code = {f"src/ibma/{name}" for name in (*record.SHARED_CODE, f"methods/{file}.py")}
    data = {
        "data/features/${item.task}",
        "data/centroids/${item.task}",
        f"data/tune/${{item.task}}/{axis}.json",
    }
    assert set(STAGES[stage]["deps"]) == code | data
    entry = "methods" if stage == "train" else "variants"
    params = {"profile", "seeds", "training", "tasks.${item.task}.encoders", f"{entry}.{axis}"}
    assert set(STAGES[stage]["params"]) == params | ({"eta"} if stage == "train_ibma" else set())


def test_runs_at_a_fixed_eta_depend_on_what_their_variant_depends_on():
    """Except for eta: theirs is in their name."""
    named = {"${item.task}": "${sensitivity.task}"}

    def at_fixed_eta(texts):
        for old, new in named.items():
            texts = [text.replace(old, new) for text in texts]
        return set(texts)

    ours, variant = STAGES["sensitivity"], STAGES["train_ibma"]
    assert set(ours["deps"]) == at_fixed_eta(variant["deps"])
    assert set(ours["params"]) == at_fixed_eta(variant["params"]) - {"eta"}


def test_only_variants_and_what_is_made_of_records_read_eta():
    readers = {name for name, stage in STAGES.items() if "eta" in (stage.get("params") or [])}
    assert readers == {"train_ibma", "report"}


def test_cells_have_cached_persistent_outputs_only():
    for stage in ("tune", "train", "train_ibma", "sensitivity"):
        for out in STAGES[stage]["outs"]:
            (options,) = out.values()
            assert options == {"persist": True}


def test_every_stage_has_its_door():
    doors = {path.stem for path in (ROOT / "stages").glob("*.py")}
    assert doors == set(STAGES)


def test_timing_depends_on_every_method_and_on_what_training_runs():
    shared = {name for name in record.SHARED_CODE if not name.startswith(("methods/", "record"))}
    code = {f"src/ibma/{name}" for name in (*shared, "methods", "timing.py")}
    data = {"data/features/${timing.task}", "data/centroids/${timing.task}"}
    assert set(STAGES["timing"]["deps"]) == code | data | {"stages/timing.py"}
