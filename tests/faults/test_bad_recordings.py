"""Sound and films that amplify, lie, or lead elsewhere; every pixel format and orientation."""

import struct
from pathlib import Path

import numpy as np
import pytest

from ibma.datasets import Excerpt
from ibma.features import media
from ibma.formats import raw

av = pytest.importorskip("av")


def wav(path: Path, sound: np.ndarray, rate: int, claimed: int | None = None) -> Path:
    """A mono wav of 16 bits, or of floats; `claimed` Hz stand in its header."""
    code, size = (3, 4) if sound.dtype == np.float32 else (1, 2)
    shown = claimed if claimed is not None else rate
    content = sound.astype("<f4" if code == 3 else "<i2").tobytes()
    head = struct.pack("<HHIIHH", code, 1, shown, shown * size & 0xFFFFFFFF, size, 8 * size)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(content))
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body) + len(content)) + body + content)
    return path


def tone(seconds: float, rate: int = 16_000) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * 1000 * np.arange(int(seconds * rate)) / rate)).astype("<i2")


def refused(kind: str, part: Path | Excerpt) -> str:
    with pytest.raises(media.Unreadable) as caught:
        media.compute(kind, part, {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sample_rate_that_nobody_records_at_is_refused(tmp_path):
    for rate in (1, 999, 800_000):
        path = wav(tmp_path / "a.wav", tone(0.5), 16_000, claimed=rate)
        assert f"a.wav: a sample rate of {rate} Hz: expected 1000 to 768000" in refused(
            "audio", path
        )


def test_a_big_endian_wav_is_refused_by_name(tmp_path):
    """FFmpeg reads its numbers with their bytes the wrong way round: noise."""
    good = wav(tmp_path / "a.wav", tone(0.5), 16_000).read_bytes()
    (tmp_path / "a.wav").write_bytes(b"RIFX" + good[4:])
    assert "a.wav: a big-endian wav (RIFX): save it as RIFF" in refused("audio", tmp_path / "a.wav")


def test_sound_that_is_shorter_than_its_own_head_says_is_refused(tmp_path):
    """The head of the whole file may be right, of a stream or, in an RF64, say nothing."""
    sound = tone(1.0).tobytes()
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    unknown = struct.pack("<I", 0xFFFFFFFF)

    def made(kind: bytes, whole: bytes, chunks: bytes, held: bytes) -> Path:
        path = tmp_path / "a.wav"
        path.write_bytes(kind + whole + b"WAVE" + chunks + form + b"data" + held + sound)
        return path

    for claimed in (len(sound), 2 * len(sound)):
        whole, held = struct.pack("<I", len(sound) + 36), struct.pack("<I", claimed)
        sizes = b"ds64" + struct.pack("<IQQQI", 28, claimed + 72, claimed, claimed // 2, 0)
        for make in (
            lambda whole=whole, held=held: made(b"RIFF", whole, b"", held),
            lambda held=held: made(b"RIFF", unknown, b"JUNK" + bytes([1, 0, 0, 0, 9, 0]), held),
            lambda sizes=sizes: made(b"RF64", unknown, sizes, unknown),
        ):
            if claimed == len(sound):
                media.compute("audio", make(), {"n_mels": 8})
            else:
                assert "truncated" in refused("audio", make())
    media.compute("audio", made(b"RIFF", unknown, b"", unknown), {"n_mels": 8})


def test_a_shortened_w64_is_refused(tmp_path):
    path = tmp_path / "a.w64"
    with av.open(str(path), "w", format="w64") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(0.5)[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux([*stream.encode(frame), *stream.encode()])
    media.compute("audio", path, {"n_mels": 8})
    path.write_bytes(path.read_bytes()[:-4000])
    assert "truncated" in refused("audio", path)


def test_only_the_seconds_that_are_needed_are_decoded(tmp_path, monkeypatch):
    path = wav(tmp_path / "long.wav", np.concatenate([tone(300), np.zeros(16_000 * 300)]), 16_000)
    decoded = []
    resampled = media._resampled
    monkeypatch.setattr(
        media, "_resampled", lambda *a: (decoded.append(len(s)) or (p, s) for p, s in resampled(*a))
    )
    start = media.compute("audio", path, {"n_mels": 16})
    late = media.compute("audio", Excerpt(path, start=500.0, end=502.0), {"n_mels": 16})
    assert sum(decoded) < 6 * media.SAMPLE_RATE
    assert start.max() > 0 > late.max(), "a tone, then silence"
    edge = media.compute("audio", Excerpt(path, start=299.0, end=301.0), {"n_mels": 16})
    halves = edge[:, :60].max(), edge[:, 65:120].max()
    assert halves[0] > halves[1] + 10, "the cut is where the sound ends"


def test_floats_that_are_no_sound_are_refused(tmp_path):
    for value in (np.nan, np.inf, -np.inf):
        sound = (tone(1.0) / 32768).astype(np.float32)
        sound[800] = value
        path = wav(tmp_path / "a.wav", sound, 16_000)
        assert "a.wav: holds NaN or infinity" in refused("audio", path)


def test_floats_on_the_scale_of_integers_are_no_sound(tmp_path):
    """As scipy writes a float array of 16 bits' numbers: cut at 1 it were a square wave."""
    loud = wav(tmp_path / "loud.wav", tone(1.0).astype(np.float32), 16_000)
    assert "loud.wav: reaches 8" in refused("audio", loud)
    sound = (1.5 * tone(1.0) / 8000).astype(np.float32)
    media.compute("audio", wav(tmp_path / "over.wav", sound, 16_000), {})


def test_any_number_of_channels_is_their_mean(tmp_path):
    """PyAV reads planes beyond the eighth where there are none, which ended the process."""
    path, found = tmp_path / "a.wav", {}
    for channels in (1, 2, 8, 12, 64):
        sound = np.repeat(tone(0.5), channels)
        size = 2 * channels
        head = struct.pack("<HHIIHH", 1, channels, 16_000, 16_000 * size, size, 16)
        data = b"fmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", 2 * len(sound))
        body = b"WAVE" + data + sound.tobytes()
        path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
        found[channels] = media.compute("audio", path, {"n_mels": 16})
    for spectrogram in found.values():
        np.testing.assert_allclose(spectrogram, found[1], atol=1e-3)


def test_playlists_open_no_other_file(tmp_path):
    secret = wav(tmp_path / "secret.wav", tone(1.0), 16_000)
    lists = {
        "a.mp4": f"ffconcat version 1.0\nfile {secret}\n",
        "b.mp4": "ffconcat version 1.0\nfile secret.wav\n",
        "c.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
        "d.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        "e.mpd": f"<MPD><BaseURL>{secret}</BaseURL></MPD>",
        "f.wav": f"file:{secret}\n",
    }
    for name, content in lists.items():
        (tmp_path / name).write_text(content)
        for kind in ("audio", "frames"):
            assert "cannot be decoded" in refused(kind, tmp_path / name), name


def film(path: Path, pixels: np.ndarray, given: str, stored: str, count: int = 3) -> Path:
    """A film of one picture; given, stored: FFmpeg's names of pixel formats."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1" if path.suffix == ".mkv" else "png", rate=10)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = stored
        for _ in range(count):
            frame = av.VideoFrame.from_ndarray(pixels, format=given).reformat(format=stored)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_every_pixel_format_is_as_shown(tmp_path):
    red = np.full((32, 32, 3), (200, 30, 30), np.uint8)
    for stored in ("rgb24", "rgb48be", "rgba", "rgba64be", "yuv420p10le"):
        ending = "mkv" if stored.startswith("yuv") else "mov"
        path = film(tmp_path / f"{stored}.{ending}", red, "rgb24", stored)
        video = media.compute("frames", path, {"frames": 2, "size": 8})
        for channel, value in enumerate((200, 30, 30)):
            np.testing.assert_allclose(video[:, channel], value, atol=4, err_msg=stored)
    grey = np.full((32, 32), 51_400, np.uint16)  # 200 of 255
    for stored in ("gray16be", "gray"):
        path = film(tmp_path / f"{stored}.mov", grey, "gray16le", stored)
        video = media.compute("frames", path, {"frames": 1, "size": 8})
        np.testing.assert_allclose(video, 200, atol=2, err_msg=stored)
    hidden = np.full((32, 32, 4), (200, 30, 30, 0), np.uint8)
    path = film(tmp_path / "hidden.mov", hidden, "rgba", "rgba")
    assert (media.compute("frames", path, {"frames": 1, "size": 8}) == 255).all()


def test_a_film_is_turned_as_it_says(tmp_path):
    corner = np.zeros((32, 32, 3), np.uint8)
    corner[:16, :8] = 250  # upper left, taller than wide
    flat = media.compute("frames", film(tmp_path / "a.mov", corner, "rgb24", "rgb24"), {"size": 32})
    assert flat[0, 0, 4, 4] > 200 > 50 > flat[0, 0, 4, 20]
    for angle in (90, -90, 180):
        path = tmp_path / f"{angle}.mov"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("png", rate=10)
            stream.height, stream.width, stream.pix_fmt = 32, 32, "rgb24"
            stream.set_display_rotation(angle)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(corner, format="rgb24")))
            container.mux(stream.encode())
        found = media.compute("frames", path, {"frames": 1, "size": 32})[0, 0]
        np.testing.assert_array_equal(found, np.rot90(corner[..., 0], angle // 90))


def test_a_film_of_too_many_or_too_large_pictures_is_refused(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mov", np.zeros((32, 32, 3), np.uint8), "rgb24", "rgb24", count=5)
    media.compute("frames", path, {"size": 8})
    for name, limit in (("FILM_PICTURES", 4), ("FILM_PIXELS", 1000)):
        with monkeypatch.context() as patch:
            patch.setattr(raw, name, limit)
            assert "reduce it or cut it into clips" in refused("frames", path)


def test_damaged_recordings_are_read_or_refused_in_one_line(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    made = [
        ("audio", wav(tmp_path / "a.wav", tone(0.2), 16_000)),
        ("frames", film(tmp_path / "a.mov", noise, "rgb24", "rgb24")),
        ("frames", film(tmp_path / "a.mkv", noise, "rgb24", "yuv444p")),
        ("frames", film(tmp_path / "a.avi", noise, "rgb24", "rgb24")),
    ]  # fmt: skip
    count = 0
    for kind, path in made:
        good = path.read_bytes()
        for _ in range(25):
            bad = bytearray(good)
            for place in rng.integers(0, min(len(bad), 300), 4):
                bad[place] = rng.integers(256)
            path.write_bytes(bad[: rng.integers(1, len(bad) + 1)])
            try:
                media.compute(kind, path, {})
            except raw.Unreadable as error:
                assert str(path) in str(error) and "\n" not in str(error)
                count += 1
    assert count > 20
