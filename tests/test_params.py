"""Profiles load; a typo is refused with its place."""

from pathlib import Path

import pytest
import yaml

from ibma import params
from ibma.errors import IbmaError

ROOT = Path(__file__).parent.parent


def changed(tmp_path: Path, change) -> Path:
    values = yaml.safe_load((ROOT / "profiles/twin.yaml").read_text())
    change(values)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("profile", ["twin", "open", "paper"])
def test_every_shipped_profile_loads_under_its_own_name(profile):
    assert params.load(ROOT / f"profiles/{profile}.yaml").profile == profile


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda v: v.update(etaa=0.3), "unknown key 'etaa': did you mean 'eta'?"),
        (lambda v: v["training"].update(epoch=3), "unknown key 'training.epoch'"),
        (lambda v: v["tuning"]["grid"].update(learning_rate=[1]), "tuning.grid.learning_rate"),
        (lambda v: v["tasks"]["crema_d"].update(encoder={}), "tasks.crema_d.encoder"),
        (
            lambda v: v["tasks"]["crema_d"].update(dataset="cremad"),
            "'cremad' is not under datasets",
        ),
        (lambda v: v["datasets"]["crema_d"].update(source="fake"), "expected twin or real"),
        (lambda v: v.pop("seeds"), "missing key 'seeds'"),
        (lambda v: v.update(seeds=0), "seeds: expected"),
        (lambda v: v.update(device="gpu"), "device: expected auto, cpu or cuda"),
        (lambda v: v.update(eta="high"), "eta: expected a number or null"),
        (lambda v: v["methods"].update({"my-method": {}}), "use _ in names"),
        (lambda v: v.update(tasks=[]), "expected a mapping"),
    ],
)
def test_a_bad_value_is_named(tmp_path, change, line):
    with pytest.raises(IbmaError) as caught:
        params.load(changed(tmp_path, change))
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_names_get_a_hint():
    twin = params.load(ROOT / "profiles/twin.yaml")
    with pytest.raises(IbmaError, match="did you mean 'concat'"):
        twin.cell("concatt")
    with pytest.raises(IbmaError, match="unknown task 'crema'"):
        twin.task("crema")


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(IbmaError, match="not found"):
        params.load(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(IbmaError, match="not YAML"):
        params.load(tmp_path / "broken.yaml")
