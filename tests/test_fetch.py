"""Download: checksum, mirror, unpacking, and one clear line when it fails."""

import hashlib
import io
import json
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from ibma import datasets, fetch
from ibma.datasets import Card, Counts, Remote
from ibma.errors import IbmaError

URL = "https://raw.githubusercontent.com/owner/repo/c0ffee/data/list.csv"
CONTENT = b"a,b\n1,2\n"
GOOD = hashlib.sha256(CONTENT).hexdigest()


def data_set(monkeypatch, *files, access="open"):
    card = Card(
        title="x", kind="classify", classes=("a",), modalities={}, licence="", access=access,
        official=Counts(1, 1), cite="", how_to_get="ask the owner",
    )  # fmt: skip
    monkeypatch.setattr(datasets, "load", lambda name: SimpleNamespace(CARD=card, FILES=files))


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    path = tmp_path / "mirror/github/owner/repo/c0ffee/data/list.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    monkeypatch.setenv("IBMA_MIRROR", str(tmp_path / "mirror"))
    return path


def test_mirror_serves_an_address_through_the_same_checksum(tmp_path, monkeypatch, mirror):
    data_set(monkeypatch, Remote(URL, GOOD, "lists/list.csv"))
    fetch.dataset("x", "real", tmp_path / "raw")
    assert (tmp_path / "raw/lists/list.csv").read_bytes() == CONTENT
    (source,) = json.loads((tmp_path / "raw/SOURCES.json").read_text())
    assert source == {"url": URL, "sha256": GOOD, "bytes": 8, "served_by": "mirror"}


def test_a_file_already_right_is_kept(tmp_path, monkeypatch, mirror):
    data_set(monkeypatch, Remote(URL, GOOD, "list.csv"))
    fetch.dataset("x", "real", tmp_path / "raw")
    mirror.unlink()
    fetch.dataset("x", "real", tmp_path / "raw")


def test_wrong_checksum_is_named_and_leaves_nothing(tmp_path, monkeypatch, mirror):
    data_set(monkeypatch, Remote(URL, "0" * 64, "list.csv"))
    with pytest.raises(IbmaError, match=r"list.csv: sha256 of https://raw.*is not 000") as caught:
        fetch.dataset("x", "real", tmp_path / "raw")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "raw/list.csv").exists()


def test_a_mirror_without_the_file_says_so(tmp_path, monkeypatch, mirror):
    mirror.unlink()
    data_set(monkeypatch, Remote(URL, GOOD, "list.csv"))
    with pytest.raises(IbmaError, match="not in the mirror"):
        fetch.dataset("x", "real", tmp_path / "raw")


def test_no_network_names_the_address_and_the_remedy(tmp_path, monkeypatch):
    monkeypatch.delenv("IBMA_MIRROR", raising=False)
    data_set(monkeypatch, Remote("http://127.0.0.1:9/list.csv", GOOD, "list.csv"))
    with pytest.raises(IbmaError, match="127.0.0.1:9/list.csv cannot be fetched") as caught:
        fetch.dataset("x", "real", tmp_path / "raw")
    assert "\n" not in str(caught.value)


def test_a_set_by_request_says_what_to_ask_for(tmp_path, monkeypatch):
    data_set(monkeypatch, access="request")
    with pytest.raises(IbmaError, match="by request: ask the owner"):
        fetch.dataset("x", "real", tmp_path / "raw")


def test_a_zip_that_escapes_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as package:
        package.writestr("../outside.txt", "x")
    with pytest.raises(IbmaError, match="leads out of the folder"):
        fetch._unpack(tmp_path / "bad.zip", tmp_path / "in")
    assert not (tmp_path / "outside.txt").exists()


@pytest.mark.parametrize("kind", ["escape", "link"])
def test_a_tar_that_escapes_or_links_out_is_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as package:
        member = tarfile.TarInfo("../outside.txt" if kind == "escape" else "link")
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        package.addfile(member, io.BytesIO())
    with pytest.raises(IbmaError, match="not unpacked"):
        fetch._unpack(tmp_path / "bad.tar.gz", tmp_path / "in")


def test_a_good_zip_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as package:
        package.writestr("Actor_01/a.wav", "x")
    fetch._unpack(tmp_path / "good.zip", tmp_path / "in")
    assert (tmp_path / "in/Actor_01/a.wav").read_text() == "x"
