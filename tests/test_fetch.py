"""Download: checksum, mirror, unpacking, and one clear line when it fails."""

import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from ibma import datasets, fetch, twins
from ibma.datasets import Card, Counts, Remote
from ibma.errors import IbmaError
from ibma.files import write_json
from ibma.formats import archives

URL = "https://raw.githubusercontent.com/owner/repo/c0ffee/data/list.csv"
CONTENT = b"a,b\n1,2\n"
GOOD = hashlib.sha256(CONTENT).hexdigest()


def data_set(monkeypatch, *files, access="open", raw_gb=None, **more):
    card = Card(
        title="x", kind="classify", classes=("a",), modalities={}, licence="", access=access,
        official=Counts(1, 1), cite="", how_to_get="ask the owner", raw_gb=raw_gb,
    )  # fmt: skip
    monkeypatch.setattr(
        datasets, "load", lambda name: SimpleNamespace(CARD=card, FILES=files, **more)
    )


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    path = tmp_path / "mirror/github/owner/repo/c0ffee/data/list.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    monkeypatch.setenv("IBMA_MIRROR", str(tmp_path / "mirror"))
    return path


def test_mirror_serves_an_address_through_the_same_checksum(tmp_path, monkeypatch, mirror):
    data_set(monkeypatch, Remote(URL, GOOD, "lists/list.csv"))
    manifest = fetch.dataset("x", "real", tmp_path / "raw")
    assert (tmp_path / "raw/lists/list.csv").read_bytes() == CONTENT
    assert manifest["files"] == [["lists/list.csv", 8, GOOD]]
    (source,) = manifest["served"]
    assert source == {"url": URL, "sha256": GOOD, "bytes": 8}


def test_a_file_already_right_is_kept(tmp_path, monkeypatch, mirror):
    data_set(monkeypatch, Remote(URL, GOOD, "list.csv"))
    fetch.dataset("x", "real", tmp_path / "raw")
    mirror.unlink()
    fetch.dataset("x", "real", tmp_path / "raw")


def test_wrong_checksum_is_named_and_leaves_nothing(tmp_path, monkeypatch, mirror):
    data_set(monkeypatch, Remote(URL, "0" * 64, "list.csv"))
    with pytest.raises(IbmaError, match=r"list.csv: checksum of https://raw.*is not 000") as caught:
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


def test_a_set_by_request_that_is_not_there_says_what_to_ask_for(tmp_path, monkeypatch):
    data_set(monkeypatch, access="request")
    manifest = fetch.dataset("x", "real", tmp_path / "raw")
    assert "is empty: ask the owner; then `dvc repro -f download@x`" in manifest["missing"]
    assert manifest["files"] == []
    (tmp_path / "raw/.DS_Store").touch()
    assert fetch.dataset("x", "real", tmp_path / "raw") == manifest, "what macOS leaves is no data"
    (tmp_path / "raw/train.csv").write_text("a")
    (tmp_path / "raw/clip.wav").write_text("b")
    manifest = fetch.dataset("x", "real", tmp_path / "raw")
    assert manifest["missing"] is None
    digest = hashlib.sha256(b"a").hexdigest()
    assert manifest["files"] == [["clip.wav", 1, None], ["train.csv", 1, digest]]


def test_a_flipped_bit_in_media_of_a_small_real_set_is_noticed(tmp_path, monkeypatch):
    raw = tmp_path / "raw"
    raw.mkdir()
    for size, noticed in ((fetch.HASHED_GB, True), (fetch.HASHED_GB + 1, False), (None, False)):
        (raw / "clip.wav").write_text("b")
        data_set(monkeypatch, raw_gb=size)
        manifest = fetch.dataset("x", "real", raw)
        (raw / "clip.wav").write_text("c")
        if noticed:
            with pytest.raises(IbmaError, match="clip.wav: changed since the manifest"):
                fetch.restore("x", raw, manifest)
        else:
            fetch.restore("x", raw, manifest)


def test_lists_are_fetched_and_media_placed_by_hand_are_asked_for(tmp_path, monkeypatch, mirror):
    data_set(monkeypatch, Remote(URL, GOOD, "list.csv"), PLACED=("media/*", "other/media"))
    assert "ask the owner" in fetch.dataset("x", "real", tmp_path / "raw")["missing"]
    assert (tmp_path / "raw/list.csv").exists()
    (tmp_path / "raw/other/media").mkdir(parents=True)
    assert fetch.dataset("x", "real", tmp_path / "raw")["missing"] is None


def test_files_that_are_not_the_publishers_stop(tmp_path, monkeypatch):
    def verify(raw):
        raise IbmaError(f"{raw}: 3 rows: expected 4")

    data_set(monkeypatch, access="request", verify=verify)
    fetch.dataset("x", "real", tmp_path)
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(IbmaError, match="3 rows: expected 4"):
        fetch.dataset("x", "real", tmp_path)


def test_every_file_of_a_twin_is_hashed(tmp_path, monkeypatch):
    data_set(monkeypatch)
    monkeypatch.setattr(twins, "write", lambda name, raw: (raw / "clip.wav").write_text("b"))
    manifest = fetch.dataset("x", "twin", tmp_path)
    assert [name for name, _, digest in manifest["files"] if digest] == ["TWIN", "clip.wav"]


def test_mirrors_are_tried_in_turn(tmp_path, monkeypatch, server):
    monkeypatch.delenv("IBMA_MIRROR", raising=False)
    digest, dead = hashlib.sha256(Server.content).hexdigest(), "http://127.0.0.1:9/big.bin"
    data_set(monkeypatch, Remote(dead, digest, "big.bin", mirrors=(server,)))
    manifest = fetch.dataset("x", "real", tmp_path / "a")
    data_set(monkeypatch, Remote(dead, digest, "big.bin"))
    assert fetch.dataset("x", "real", tmp_path / "a") == manifest, "whichever address served it"
    data_set(monkeypatch, Remote(dead, digest, "big.bin", mirrors=("http://127.0.0.1:9/b",)))
    with pytest.raises(IbmaError, match="none of 2 addresses answers, the last: .*:9/b "):
        fetch.dataset("x", "real", tmp_path / "b")


def test_a_zip_that_escapes_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as package:
        package.writestr("../outside.txt", "x")
    with pytest.raises(IbmaError, match="leads out of the folder"):
        archives.unpack(tmp_path / "bad.zip", tmp_path / "in")
    assert not (tmp_path / "outside.txt").exists()


@pytest.mark.parametrize("kind", ["escape", "link"])
def test_a_tar_that_escapes_or_links_out_is_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as package:
        member = tarfile.TarInfo("../outside.txt" if kind == "escape" else "link")
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        package.addfile(member, io.BytesIO())
    with pytest.raises(IbmaError, match="link or leads out of the folder: refused"):
        archives.unpack(tmp_path / "bad.tar.gz", tmp_path / "in")
    assert not (tmp_path / "in").exists() and not (tmp_path / "outside.txt").exists()


def test_a_good_zip_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as package:
        package.writestr("Actor_01/a.wav", "x")
    archives.unpack(tmp_path / "good.zip", tmp_path / "in")
    assert (tmp_path / "in/Actor_01/a.wav").read_text() == "x"


@pytest.mark.parametrize("name", ["cut.zip", "flipped.zip", "cut.tar.gz", "page.zip"])
def test_a_broken_archive_is_named(tmp_path, name):
    archive = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as package:
            package.writestr("a.wav", b"sound" * 100)
    else:
        with tarfile.open(archive, "w:gz") as package:
            member = tarfile.TarInfo("a.wav")
            member.size = 50_000
            package.addfile(member, io.BytesIO(os.urandom(50_000)))
    content = archive.read_bytes()
    broken = {
        "cut.zip": content[:-30],
        "flipped.zip": content.replace(b"sound", b"noise", 1),
        "cut.tar.gz": content[:20_000],
        "page.zip": b"<html>try again later</html>",
    }
    archive.write_bytes(broken[name])
    with pytest.raises(IbmaError, match=rf"{name}: broken archive .*delete it") as caught:
        archives.unpack(archive, tmp_path / "in")
    assert "\n" not in str(caught.value)


class Server(BaseHTTPRequestHandler):
    """Serves `content`, from a byte on when asked; `requests` holds the ranges asked for."""

    content = bytes(range(256)) * 400
    requests: list[str | None] = []
    ranges = True

    def do_GET(self):
        asked = self.headers["Range"]
        self.requests.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.ranges else 0
        body = self.content[start:]
        self.send_response(416 if asked and not body else 206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("IBMA_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Server, "requests", [])
    web = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}/big.bin"
    web.shutdown()
    web.server_close()


@pytest.mark.parametrize(
    ("left", "ranges", "asked"),
    [
        (0, True, None),
        (1000, True, "bytes=1000-"),
        (1000, False, "bytes=1000-"),  # a server that ignores ranges sends the whole again
        (len(Server.content), True, f"bytes={len(Server.content)}-"),  # killed before the move
    ],
)
def test_a_cut_download_goes_on(tmp_path, monkeypatch, server, left, ranges, asked):
    monkeypatch.setattr(Server, "ranges", ranges)
    if left:
        (tmp_path / "big.bin.part").write_bytes(Server.content[:left])
    digest = hashlib.md5(Server.content).hexdigest()
    data_set(monkeypatch, Remote(server, f"md5:{digest}", "big.bin"))
    (source,) = fetch.dataset("x", "real", tmp_path)["served"]
    assert (tmp_path / "big.bin").read_bytes() == Server.content
    assert Server.requests == [asked]
    assert [p.name for p in tmp_path.iterdir()] == ["big.bin"]
    assert source["sha256"] == hashlib.sha256(Server.content).hexdigest()


def test_a_stale_part_fails_the_checksum_once_and_is_gone(tmp_path, monkeypatch, server):
    (tmp_path / "big.bin.part").write_bytes(b"of another version")
    data_set(monkeypatch, Remote(server, hashlib.sha256(Server.content).hexdigest(), "big.bin"))
    with pytest.raises(IbmaError, match="checksum"):
        fetch.dataset("x", "real", tmp_path)
    fetch.dataset("x", "real", tmp_path)
    assert (tmp_path / "big.bin").read_bytes() == Server.content


def test_a_full_disk_is_not_told_as_a_dead_network(tmp_path, monkeypatch, mirror):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    data_set(monkeypatch, Remote(URL, GOOD, "list.csv"))
    with pytest.raises(OSError, match="No space left") as caught:
        fetch.dataset("x", "real", tmp_path / "raw")
    assert caught.value.errno == errno.ENOSPC


def test_twin_and_real_files_never_share_a_folder(tmp_path, monkeypatch):
    data_set(monkeypatch, access="request")
    monkeypatch.setattr(twins, "write", lambda name, raw: (raw / "train.csv").write_text("twin"))
    real = tmp_path / "real"
    real.mkdir()
    (real / "train.csv").write_text("real")
    with pytest.raises(IbmaError, match="holds real files"):
        fetch.dataset("x", "twin", real)
    assert (real / "train.csv").read_text() == "real"
    fetch.dataset("x", "twin", tmp_path / "twin")
    fetch.dataset("x", "twin", tmp_path / "twin")  # over itself it may be written again
    with pytest.raises(IbmaError, match="holds the twin: delete this folder"):
        fetch.dataset("x", "real", tmp_path / "twin")


def test_a_twin_cut_short_is_known_as_one(tmp_path, monkeypatch):
    def killed(name, raw):
        (raw / "half.csv").write_text("")
        raise KeyboardInterrupt

    data_set(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(twins, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch.dataset("x", "twin", tmp_path)
    monkeypatch.setattr(twins, "write", lambda name, raw: None)
    fetch.dataset("x", "twin", tmp_path)


def test_raw_files_that_are_gone_are_fetched_again(tmp_path, monkeypatch, mirror):
    raw = tmp_path / "raw"
    with zipfile.ZipFile(mirror.with_name("clips.zip"), "w") as package:
        package.writestr(zipfile.ZipInfo("clips/a.wav"), "sound")
    address = URL.replace("list.csv", "clips.zip")
    digest = hashlib.sha256(mirror.with_name("clips.zip").read_bytes()).hexdigest()
    files = Remote(URL, GOOD, "list.csv"), Remote(address, digest, "clips.zip")
    data_set(monkeypatch, *files, ARCHIVES=("clips.zip",), PLACED=("by_hand.csv",))
    raw.mkdir()
    (raw / "by_hand.csv").write_text("a")
    manifest = fetch.dataset("x", "real", raw)
    names = [name for name, _, _ in manifest["files"]]
    assert names == ["by_hand.csv", "clips/a.wav", "clips.zip", "list.csv"]
    for gone in (["list.csv"], ["clips/a.wav"], ["clips/a.wav", "clips.zip", "list.csv"]):
        for name in gone:
            (raw / name).unlink()
        fetch.restore("x", raw, manifest)
        assert fetch.dataset("x", "real", raw) == manifest, gone
    (raw / "list.csv").write_text("a,b\n9,9\n")
    with pytest.raises(IbmaError, match="list.csv: changed since the manifest of x was written"):
        fetch.restore("x", raw, manifest)
    shutil.rmtree(raw)
    with pytest.raises(IbmaError, match="by_hand.csv: gone, but .* lists it: .*ask the owner"):
        fetch.restore("x", raw, manifest)


def test_a_manifest_that_is_missing_or_damaged_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IbmaError, match="x.json: missing: run `dvc repro download@x`"):
        fetch.read_manifest("x")
    path = Path("data/manifests/x.json")
    path.parent.mkdir(parents=True)
    write_json(path, {"source": "twin", "missing": None, "served": [], "files": [["a", 1, None]]})
    good = path.read_text()
    assert fetch.read_manifest("x")["files"] == [["a", 1, None]]
    for bad in (
        b"",
        good[:-9].encode(),
        b"[]",
        b"7",
        b"\xff",
        good.replace("files", "fils").encode(),
        good.replace("null", "0").encode(),
        good.replace("twin", "real").encode(),
    ):
        path.write_bytes(bad)  # fmt: skip
        with pytest.raises(IbmaError, match="x.json: damaged or .*: run `dvc repro -f down"):
            fetch.read_manifest("x")


def test_a_twin_that_is_gone_is_generated_again(tmp_path, monkeypatch):
    data_set(monkeypatch)
    monkeypatch.setattr(twins, "write", lambda name, raw: (raw / "clip.wav").write_text("b"))
    manifest = fetch.dataset("x", "twin", tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw")
    fetch.restore("x", tmp_path / "raw", manifest)
    assert fetch.dataset("x", "twin", tmp_path / "raw") == manifest


def test_the_door_names_an_unknown_data_set(tmp_path):
    root = Path(__file__).parent.parent
    shutil.copy(root / "params.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, root / "stages/download.py", "chexprt"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root / "src")}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: params.yaml: no data set 'chexprt': expected one of")
    assert done.stderr.count("\n") == 1
