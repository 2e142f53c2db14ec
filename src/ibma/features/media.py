"""Compute the feature of one example: sound, frames, pictures, text, vectors.

PyAV decodes sound and films, Pillow pictures; spectrograms are those of transformers.

CHOICE: pictures are stretched to a square and never augmented. OGM-GE trains on random crops and
flips; the released IBMA code trains with RandAugment and random erasing, and tests on the centre
224 pixels of 256. CHOICE: sound is its first 3 s, OGM-GE's rule for CREMA-D, in every data set,
also MELD, IEMOCAP and MOSI.
"""

from __future__ import annotations

import itertools
import math
import os
import reprlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ibma.datasets import Excerpt, Part
from ibma.errors import IbmaError
from ibma.features import embedding as embeddings
from ibma.formats import pictures, raw
from ibma.formats.raw import Unreadable

SAMPLE_RATE, SECONDS, N_FFT, HOP = 22_050, 3, 512, 353  # OGM-GE_CVPR2022@343dc1d CramedDataset.py
LOUDEST = 8.0  # CHOICE: of floats that should end at 1; decoders overshoot a little, slips a lot
LOST = 0.01  # of what a column spreads over: more may not get lost in float32
ROUNDING = 1e-12  # of a column's size: float64 itself spreads equal numbers so far
MICROSECONDS = 1_000_000  # FFmpeg's unit of time
LATEST = 1_000_000  # s of a recording, over 11 days; FFmpeg's own counter ends, too
# Containers that hold their own content: a playlist would make FFmpeg open other files
FORMATS = (
    *("aac", "aiff", "amr", "asf", "au", "avi", "caf", "flac", "flv", "gif", "ivf", "m4v"),
    *("matroska", "mov", "mp3", "mpeg", "mpegts", "mpegvideo", "ogg", "rm", "w64", "wav", "wv"),
)


# What a header says of the time; of others FFmpeg reckons it from the bytes that are there
TIMED = ("aiff", "au", "flac", "ivf", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mp3", "wv")
LACKING = 0.5  # s; CHOICE: headers count the last picture, some decoders do not
RIFF_SIZES = range(1, 0x7FFF_F000)  # writers to a pipe do not know theirs: FFmpeg, SoX and ALSA
WIDE_SIZES = range(1, 1 << 62)  # of RF64 and W64
CHUNKS = 1000  # before the sound
RIFF_SLIP = 8  # bytes, CHOICE: some count the chunk's own head, or padding that is not there
OGG_PAGE = 65_307  # bytes, the longest


def stored_kind(kind: str, params: Mapping[str, Any]) -> str:
    """Return what kind of modality a feature is: a summary of sound or words is a vector."""
    return "vector" if params.get("statistics") or params.get("embedding") else kind


def compute(kind: str, part: Part, params: Mapping[str, Any]) -> NDArray[Any]:
    """Return the feature of one example.

    Args:
        kind: Of the modality, see `datasets.ModalityKind`.
        part: A path or an excerpt (audio, frames, image), a picture as array (image), words (text)
            or numbers (vector, expression).
        params: `tasks.<task>.features.<modality>` of params.yaml.

    Returns:
        audio: float32 [n_mels, T]; frames: uint8 [T, 3, S, S]; image: uint8 [3, S, S]; text: int32
        [max_length], 0 is padding; vector, expression: float32 [d]. With `statistics` sound, with
        `embedding` words become vectors that no label has touched.

    Raises:
        Unreadable: The file is missing, a git-lfs stub or not decodable, or the part is not what
            its kind asks for, or none of the file.
        IbmaError: An unknown parameter.
    """
    if kind in ("vector", "expression"):
        return vector(part)
    if isinstance(part, Path):
        part = Excerpt(part)
    _check_type(kind, part)
    readers: dict[str, Callable[..., NDArray[Any]]] = {
        "audio": audio,
        "frames": frames,
        "image": image,
        "text": text,
    }
    try:
        return readers[kind](part, **params)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise IbmaError(f"params.yaml: features: {error}: remove or correct it") from None


def _check_type(kind: str, part: Part) -> None:
    """Raise Unreadable for a part that this kind of modality cannot be made of."""
    wanted: dict[str, tuple[type, ...]] = {"text": (str,), "image": (Excerpt, np.ndarray)}
    if not isinstance(part, wanted.get(kind, (Excerpt,))):
        names = " or ".join(each.__name__ for each in wanted.get(kind, (Path, Excerpt)))
        raise Unreadable(f"{reprlib.repr(part)} is no {kind}: expected {names}")
    if isinstance(part, Excerpt):
        start, end = part.start or 0.0, LATEST if part.end is None else part.end
        if not 0 <= start < end <= LATEST:
            raise Unreadable(
                f"{part.path}: from {part.start} to {part.end} s: expected an end after the start, "
                f"within 0 to {LATEST:,} s: correct the times"
            )


def vector(numbers: Any) -> NDArray[np.float32]:
    """Return numbers as a vector [d], NaN where an array is masked.

    Raises:
        Unreadable: They are no real numbers, none, or not in one row.
    """
    found = np.zeros(0, np.float32)
    with suppress(TypeError, ValueError, OverflowError), np.errstate(over="ignore"):
        given = np.ma.asarray(numbers)
        if given.dtype.kind in "biufO":
            found = np.ma.filled(given.astype(np.float32), np.nan)
    if found.ndim != 1 or not found.size:
        raise Unreadable(f"{reprlib.repr(numbers)} is no vector: expected a row of numbers")
    return found


class Span(NamedTuple):
    """How far the numbers of a column spread, and what they lose most where float32 holds them."""

    low: float = math.inf
    high: float = -math.inf
    lost: float = 0.0

    def including(self, value: float) -> Span:
        """Return the span with one more number."""
        lost = abs(float(np.float32(value)) - value)
        return Span(min(self.low, value), max(self.high, value), max(self.lost, lost))

    def merged(self) -> str:
        """Say why float32, which networks read, does not tell the numbers apart; empty if it does.

        Numbers that differ by the rounding of float64 alone, as sums do, are taken for equal.
        """
        spread, size = self.high - self.low, max(abs(self.low), abs(self.high))
        if spread <= ROUNDING * size or self.lost <= LOST * spread:
            return ""
        return (
            f"values around {size:g} differ by {spread:g}, less than float32 holds: subtract an "
            "offset"
        )


def audio(
    part: Excerpt,
    *,
    spectrogram: str = "logmel",
    n_mels: int = 128,
    hop: int = HOP,
    statistics: bool = False,
    embedding: str | None = None,
) -> NDArray[np.float32]:
    """Compute the log spectrogram of the first 3 s at 22,050 Hz; shorter sound is tiled.

    `ogm` is OGM-GE's log(|STFT| + 1e-7) with 257 bins. `logmel` is the paper's wording (section
    4.2); CHOICE: it keeps OGM-GE's window of 512 and the given hop, since the paper names none,
    and Slaney's mel scale (librosa's default), where no filter of 128 is empty at this window.

    Args:
        part: A file with sound, or some seconds of it.
        spectrogram: `logmel` or `ogm`.
        n_mels: Number of mel filters of `logmel`.
        hop: Audio samples from one column to the next.
        statistics: Return each band's mean and standard deviation over time instead, and those of
            its change from one column to the next.
        embedding: Name of a pretrained audio model, whose vector is returned instead. It hears the
            3 s at its own rate.

    Returns:
        [n_mels or 257, T]; with `statistics` [4 n_mels or 1028]; with `embedding` [width].

    Raises:
        Unreadable: There is no sound in the file or between these seconds, it cannot be decoded, or
            what is decoded is no sound.
        IbmaError: Another `spectrogram`, or an `embedding` that is not to be had.
    """
    if embedding is not None:
        own = embeddings.rate(embedding)
        return embeddings.sound(_tile(_waveform(part, own), own), embedding)
    from transformers import audio_utils

    wave = np.clip(_tile(_waveform(part, SAMPLE_RATE), SAMPLE_RATE), -1.0, 1.0)
    mel = None
    if spectrogram == "logmel":
        mel = audio_utils.mel_filter_bank(
            N_FFT // 2 + 1,
            n_mels,
            0.0,
            SAMPLE_RATE / 2,
            SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
    elif spectrogram != "ogm":
        raise IbmaError(f"params.yaml: spectrogram '{spectrogram}': expected logmel or ogm")
    energy = audio_utils.spectrogram(
        wave,
        audio_utils.window_function(N_FFT, "hann"),
        frame_length=N_FFT,
        hop_length=hop,
        power=2.0 if mel is not None else 1.0,
        mel_filters=mel,
        mel_floor=0.0,
    )
    logarithm = np.log(energy + 1e-7).astype(np.float32)
    return _over_time(logarithm) if statistics else logarithm


def _over_time(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    change = np.diff(bands, axis=1)
    return np.concatenate([f(x, axis=1) for x in (bands, change) for f in (np.mean, np.std)])


def _tile(wave: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    length = rate * SECONDS
    return np.resize(wave, length) if len(wave) < length else wave[:length]


def _waveform(part: Excerpt, rate: int) -> NDArray[np.float32]:
    """Return the first 3 s of an excerpt, as the mean of its channels at `rate` samples a second.

    FFmpeg's own float downmix would not keep loudness. Only these seconds are decoded.
    """
    first = int((part.start or 0.0) * rate)
    last = first + rate * SECONDS
    if part.end is not None:
        last = min(last, int(part.end * rate))
    kept = [np.zeros(0, np.float32)]
    for place, samples in _resampled(part.path, part.start or 0.0, rate):
        kept.append(samples[max(0, first - place) : max(0, last - place)])
        if place + len(samples) >= last:
            break
    wave = np.concatenate(kept).astype(np.float32)
    if not len(wave):
        raise _nothing(part, "sound")
    if not np.isfinite(wave).all():
        raise Unreadable(f"{part.path}: holds NaN or infinity in place of sound: fetch it again")
    if (peak := np.abs(wave).max()) > LOUDEST:
        raise Unreadable(f"{part.path}: reaches {peak:g}: expected -1 to 1: save it as 16 bits")
    return wave


def _resampled(path: Path, start: float, rate: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield stretches of sound at a rate from shortly before `start` on, and their places."""
    import av

    with _opened(path) as container:
        stream, (low, high) = _stream(container, "audio", path), raw.SOUND_RATES
        if not low <= stream.rate <= high:
            raise Unreadable(
                f"{path}: a sample rate of {stream.rate} Hz: expected {low} to {high}: "
                "fetch it again"
            )
        if start:
            container.seek(int(start * MICROSECONDS))
        # packed: of planes, a channel each, PyAV reads memory that is none from the eighth on
        resampler = av.AudioResampler(format="flt", rate=rate)
        place = None
        for frame in itertools.chain(_decoded(container, stream, path), [None]):
            if place is None:
                place = round((frame.time or 0.0) * rate) if start and frame else 0
            for out in resampler.resample(frame):
                samples = out.to_ndarray().reshape(-1, out.layout.nb_channels).mean(1)
                yield place, samples
                place += len(samples)


def _nothing(part: Excerpt, wanted: str) -> Unreadable:
    """Return the error of a recording, or of some seconds of it, without what is wanted."""
    if part.start is None and part.end is None:
        return Unreadable(f"{part.path}: holds no {wanted}: fetch it again")
    with _opened(part.path) as container:
        seconds = (container.duration or 0) / MICROSECONDS
    return Unreadable(
        f"{part.path}: no {wanted} from {part.start} to {part.end} s, it lasts {seconds:.1f} s: "
        "correct the times"
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a recording; whatever goes wrong while it is decoded names the file.

    FFmpeg decodes what is left of a cut file without a word. What a cut shows of itself is refused:
    here an end inside a tag of FLV, a page of Ogg, or what AVI, WAV, W64, CAF and ASF say that they
    hold; in `_decoded` a time that the header announces. Not known is a cut of what announces
    nothing: raw streams (AAC, AMR, MP3 without Xing's header), GIF, MPEG-TS and -PS, whatever was
    written to a pipe, and an Ogg that was cut between two pages.
    """
    import av

    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    _refuse_big_endian(raw.present(path))
    try:
        with av.open(f"file:{path}", options=options, metadata_errors="ignore") as container:
            ends_inside = ENDS.get(container.format.name)
            whole = container.format.name in UNTIMED and not container.duration
            if ends_inside and not whole and ends_inside(path):
                raise Unreadable(f"{path}: truncated (it ends too early): fetch it again")
            yield container
    except av.FFmpegError as error:
        raise Unreadable(f"{path}: cannot be decoded ({error.strerror}): fetch it again") from None
    except ValueError as error:  # PyAV's own, for example of a stream that changes its layout
        raise raw.unreadable(path, error) from None


def _refuse_big_endian(path: Path) -> None:
    """Refuse a wav whose numbers have their high byte first: FFmpeg reads noise."""
    with path.open("rb") as file:
        if file.read(4) == b"RIFX":
            raise Unreadable(f"{path}: a big-endian wav (RIFX): save it as RIFF, or as flac")


def _stream(container: Any, kind: str, path: Path) -> Any:
    """Return the first stream of a kind that can be decoded."""
    streams = getattr(container.streams, kind)
    if not streams:
        raise Unreadable(f"{path}: has no {kind} stream: fetch it again")
    if streams[0].codec_context is None:
        raise Unreadable(f"{path}: its {kind} stream is in no known codec: fetch it again")
    return streams[0]


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Yield the frames of a stream; refuse a file whose last packet is not where it should be."""
    end = 0.0
    for packet in container.demux():  # of all streams: one may go on after another
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream is stream:
            yield from packet.decode()
    announced = (container.duration or 0) / MICROSECONDS if _is_timed(container, path) else 0.0
    if 0 < end < announced - LACKING:
        raise Unreadable(
            f"{path}: truncated (it ends after {end:.1f} of {announced:.1f} s): fetch it again"
        )


def _is_timed(container: Any, path: Path) -> bool:
    """Return whether the header says how long a recording is."""
    if container.format.name != "mp3":
        return container.format.name in TIMED
    with path.open("rb") as file:
        head = file.read(1 << 20)  # the cover, which comes before it, and then some
    return b"Xing" in head or b"Info" in head


def frames(
    part: Excerpt, *, frames: int = 3, size: int = 224, embedding: str | None = None
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return `frames` pictures spread evenly over a clip, resized to size x size; [T, 3, S, S].

    With `embedding`, as in `image`, their mean vector.

    CHOICE: even spread (OGM-GE keeps one frame a second, about three a clip, but its loader's
    choice among them is broken); a clip with fewer pictures repeats them. A first pass counts,
    since containers may lack a duration; the second keeps only what is wanted of a long clip.

    Args:
        part: A film, or some seconds or a rectangle of it.
        frames: Number of pictures.
        size: Pixels a side.
        embedding: Name of a pretrained image model.

    Raises:
        Unreadable: There is no picture in the file or between these seconds, it cannot be decoded,
            it is too large, or the rectangle is none.
        IbmaError: An `embedding` that is not to be had.
    """
    count = sum(1 for _ in _pictures(part))
    if count == 0:
        raise _nothing(part, "picture")
    wanted = np.linspace(0, count - 1, frames).round().astype(int).tolist()
    chosen = {
        place: _resize(_cut(_upright(frame), part), size)
        for place, frame in enumerate(_pictures(part))
        if place in wanted
    }
    stills = np.stack([chosen[place] for place in wanted])
    return stills if embedding is None else embeddings.pictures(stills, embedding)


def _pictures(part: Excerpt) -> Iterator[Any]:
    """Yield decoded frames between the excerpt's start and end."""
    for frame in _decode(part.path, part.start or 0.0):
        seconds = frame.time or 0.0
        if part.end is not None and seconds >= part.end:
            break
        if part.start is None or seconds >= part.start:
            yield frame


def _decode(path: Path, start: float) -> Iterator[Any]:
    """Yield decoded frames from the last key frame before `start` on."""
    with _opened(path) as container:
        stream = _stream(container, "video", path)
        if start:
            container.seek(int(start * MICROSECONDS))
        for count, frame in enumerate(_decoded(container, stream, path)):
            if frame.width * frame.height > raw.FILM_PIXELS or count >= raw.FILM_PICTURES:
                raise Unreadable(
                    f"{path}: larger than {raw.FILM_PIXELS:,} pixels or longer than "
                    f"{raw.FILM_PICTURES:,} pictures: reduce it or cut it into clips"
                )
            yield frame


def _ends_inside_tag(path: Path) -> bool:
    """Return whether an flv was cut: a whole one ends in the size of its last tag.

    A clip that announces no duration is not asked: CREMA-D has one (1064_TIE_SAD_XX) that every
    study keeps. Source: Adobe FLV 10.1, section E.3.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        file.seek(length - 4)
        size = int.from_bytes(file.read(4), "big")
        if size + 4 > length:
            return True
        file.seek(length - 4 - size)
        return int.from_bytes(file.read(4)[1:], "big") + 11 != size


def _ends_inside_riff(path: Path) -> bool:
    """Return whether a WAV or AVI has fewer bytes than it says; a few are the writer's."""
    length = path.stat().st_size
    with path.open("rb") as file:
        return any(length + RIFF_SLIP < end for end in _riff_ends(file))


def _ends_inside_w64(path: Path) -> bool:
    """Return whether a W64 has fewer bytes than its first chunk. Source: FFmpeg's w64dec.c."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(24)[16:], "little")
    return size in WIDE_SIZES and path.stat().st_size + RIFF_SLIP < size


def _riff_ends(file: IO[bytes]) -> Iterator[int]:
    """Yield where a file ends by its head, and by the head of its sound.

    An RF64 keeps the second in a chunk of its own. Source: EBU Tech 3306.
    """
    whole, wide = int.from_bytes(file.read(12)[4:8], "little"), b""
    yield whole if whole in RIFF_SIZES else 0
    for _ in range(CHUNKS):
        name, size = file.read(4), int.from_bytes(file.read(4), "little")
        if name == b"data":
            sound = int.from_bytes(wide[8:], "little") if wide else size
            yield file.tell() + sound if sound in (WIDE_SIZES if wide else RIFF_SIZES) else 0
            return
        if name == b"ds64":
            wide = file.read(16)
            size -= len(wide)
        file.seek(size + size % 2, os.SEEK_CUR)


def _ends_inside_caf(path: Path) -> bool:
    """Return whether a chunk of a CAF is not whole; a size below 0 is that of a sound from a pipe.

    Source: Apple Core Audio Format Specification 1.0, CAFChunkHeader.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        file.seek(8)
        for _ in range(CHUNKS):
            head = file.read(12)
            size = int.from_bytes(head[4:], "big", signed=True)
            if not head or size < 0:
                return False
            if len(head) < 12 or file.tell() + size > length + RIFF_SLIP:
                return True
            file.seek(size, os.SEEK_CUR)
    return False


def _ends_inside_asf(path: Path) -> bool:
    """Return whether the header or the data of an ASF are not whole.

    Written to a pipe, the data say that they have no size. Source: Microsoft ASF 01.20.06, 2.1.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(24)[16:], "little")
        if header > length:
            return True
        file.seek(header)
        data = int.from_bytes(file.read(24)[16:], "little")
    return data in WIDE_SIZES and length + RIFF_SLIP < header + data


def _ends_inside_page(path: Path) -> bool:
    """Return whether the last page of an Ogg is not whole. Source: RFC 3533, section 6."""
    length = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, length - OGG_PAGE))
        rest = file.read()
    page = rest[rest.rfind(b"OggS") :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return len(page) < 27 or len(page) < 27 + page[26] + sum(segments)


UNTIMED = ("flv",)  # kept without a duration, see `_ends_inside_tag`
ENDS: Mapping[str, Callable[[Path], bool]] = {
    "asf": _ends_inside_asf,
    "avi": _ends_inside_riff,
    "caf": _ends_inside_caf,
    "flv": _ends_inside_tag,
    "ogg": _ends_inside_page,
    "w64": _ends_inside_w64,
    "wav": _ends_inside_riff,
}


def _upright(frame: Any) -> Any:
    """Return a frame as an image in RGB, turned as its film says, white where it is transparent."""
    from PIL import Image

    if any(component.is_alpha for component in frame.format.components):
        picture = pictures.to_rgb(Image.fromarray(frame.to_ndarray(format="rgba")))
    else:
        picture = frame.to_image()
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def image(
    part: Excerpt | NDArray[Any], *, size: int = 224, embedding: str | None = None
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return one picture as RGB, resized to size x size; [3, S, S].

    Args:
        part: A file or a piece of one, or an array.
        size: Pixels a side.
        embedding: Name of a pretrained image model, whose vector [width] is returned instead.

    Raises:
        Unreadable: The file cannot be decoded, the array is no picture, or the rectangle is none.
        IbmaError: An `embedding` that is not to be had.
    """
    pixels = _image(part, size)
    return pixels if embedding is None else embeddings.pictures(pixels[None], embedding)


def _image(part: Excerpt | NDArray[Any], size: int) -> NDArray[np.uint8]:
    from PIL import Image

    if isinstance(part, Excerpt):
        return _resize(_cut(pictures.read(part.path), part), size)
    try:
        return _resize(pictures.to_rgb(Image.fromarray(part)), size)
    except (TypeError, ValueError) as error:
        raise Unreadable(
            f"an array of {part.dtype} {list(part.shape)} is no picture ({error}): expected uint8 "
            "[height, width, 3]"
        ) from None


def _cut(picture: Any, part: Excerpt) -> Any:
    if part.box is None:
        return picture
    left, upper, right, lower = part.box
    if not (0 <= left < right <= 1 and 0 <= upper < lower <= 1):
        raise Unreadable(
            f"{part.path}: box {part.box}: expected left, upper, right and lower edge as shares "
            "from 0 to 1: correct it"
        )
    width, height = picture.size
    start = math.floor(left * width), math.floor(upper * height)
    return picture.crop((*start, math.ceil(right * width), math.ceil(lower * height)))


def _resize(picture: Any, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    small = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.uint8).transpose(2, 0, 1)


def text(
    words: str,
    *,
    max_length: int = 128,
    tokenizer: str | None = None,
    vocab_size: int = 512,
    embedding: str | None = None,
) -> NDArray[np.int32] | NDArray[np.float32]:
    """Return token ids [max_length], cut or padded with 0, or a sentence embedding [width].

    Args:
        words: A text.
        max_length: Number of tokens.
        tokenizer: A hub id, folder or package (`pretrained.locate`). None hashes lower-cased words
            into 1..vocab_size-1 (CHOICE, for small random encoders without a vocabulary).
        vocab_size: Number of ids that words are hashed into, 0 included.
        embedding: Name of a pretrained BERT with its tokenizer. Its mean output over the tokens is
            returned instead of ids, read as `encoders.Bert` reads it.
    """
    words = words.encode(errors="replace").decode()  # half a character is none
    if embedding is not None:
        return embeddings.words(words, max_length, embedding)
    if tokenizer is None:
        ids = [1 + zlib.crc32(word.encode()) % (vocab_size - 1) for word in words.lower().split()]
    else:
        ids = embeddings.tokenizer(tokenizer)(words, truncation=True, max_length=max_length)[
            "input_ids"
        ]
    padded = np.zeros(max_length, dtype=np.int32)
    padded[: min(len(ids), max_length)] = ids[:max_length]
    return padded
