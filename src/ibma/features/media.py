"""From one raw file to one feature: sound, frames, pictures, text, vectors.

Decoding is PyAV's (sound, video) and Pillow's (pictures); spectrograms are transformers'.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma import pretrained
from ibma.datasets import Excerpt, Part
from ibma.errors import IbmaError

SAMPLE_RATE, SECONDS, N_FFT, HOP = 22_050, 3, 512, 353  # OGM-GE_CVPR2022@343dc1d CramedDataset.py
LFS_STUB = b"version https://git-lfs"


class Unreadable(IbmaError):
    """A file that is there but cannot be decoded."""


def stored_kind(kind: str, params: Mapping[str, Any]) -> str:
    """What kind of modality the feature is: a summary of sound or words is a vector."""
    return "vector" if params.get("statistics") or params.get("embedding") else kind


def compute(kind: str, part: Part, params: Mapping[str, Any]) -> NDArray[Any]:
    """Return the feature of one example.

    part: a path or an excerpt (audio, frames, image), a picture as array (image), words (text) or
    numbers (vector, expression). Returned: audio float32 [n_mels, T]; frames uint8 [T, 3, S, S];
    image uint8 [3, S, S]; text int32 [max_length], 0 is padding; vector, expression float32 [d].
    With `statistics` sound, with `embedding` words become vectors that no label has touched.
    params: `tasks.<task>.features.<modality>`.

    Raises Unreadable naming the file when it is missing, a git-lfs stub or not decodable, and
    IbmaError for an unknown parameter.
    """
    if kind in ("vector", "expression"):
        return np.asarray(part, dtype=np.float32)
    if isinstance(part, Path | Excerpt):
        part = part if isinstance(part, Excerpt) else Excerpt(part)
        _present(part.path)
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


def _present(path: Path) -> None:
    if not path.exists():
        raise Unreadable(f"{path}: missing: fetch it again or take it off the list")
    with path.open("rb") as file:
        if file.read(len(LFS_STUB)) == LFS_STUB:
            raise Unreadable(f"{path}: a git-lfs pointer, not the file: run `git lfs pull` there")


def audio(
    part: Excerpt,
    *,
    spectrogram: str = "logmel",
    n_mels: int = 128,
    hop: int = HOP,
    statistics: bool = False,
) -> NDArray[np.float32]:
    """Log spectrogram of the first 3 s at 22,050 Hz, shorter ones tiled; [n_mels or 257, T].

    statistics: instead each band's mean and standard deviation over time, and those of its change
    from one column to the next; [4 n_mels or 1028].

    `ogm` is OGM-GE's log(|STFT| + 1e-7) with 257 bins. `logmel` is the paper's wording (section
    4.2); CHOICE: it keeps OGM-GE's window of 512 and the given hop, since the paper names none,
    and Slaney's mel scale (librosa's default), where no filter of 128 is empty at this window.
    """
    from transformers import audio_utils

    wave = np.clip(_tile(_waveform(part)), -1.0, 1.0)
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


def _tile(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    length = SAMPLE_RATE * SECONDS
    return np.resize(wave, length) if len(wave) < length else wave[:length]


def _waveform(part: Excerpt) -> NDArray[np.float32]:
    """Mean of the channels at SAMPLE_RATE; FFmpeg's own float downmix would not keep loudness."""
    import av

    path = part.path
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise Unreadable(f"{path}: has no audio stream: fetch it again")
            resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
            parts = [
                out.to_ndarray().mean(0)
                for frame in container.decode(audio=0)
                for out in resampler.resample(frame)
            ]
            parts += [out.to_ndarray().mean(0) for out in resampler.resample(None)]
    except av.FFmpegError as error:
        raise Unreadable(f"{path}: cannot be decoded ({error.strerror}): fetch it again") from None
    if not parts or not sum(len(part) for part in parts):
        raise Unreadable(f"{path}: holds no sound: fetch it again")
    wave = np.concatenate(parts).astype(np.float32)
    first = int((part.start or 0.0) * SAMPLE_RATE)
    last = len(wave) if part.end is None else int(part.end * SAMPLE_RATE)
    if not len(wave[first:last]):
        raise Unreadable(
            f"{path}: no sound from {part.start} to {part.end} s, it lasts "
            f"{len(wave) / SAMPLE_RATE:.1f} s: correct the times"
        )
    return wave[first:last]


def frames(part: Excerpt, *, frames: int = 3, size: int = 224) -> NDArray[np.uint8]:
    """`frames` pictures spread evenly over the clip, resized to size x size; [T, 3, S, S].

    CHOICE: even spread (OGM-GE keeps one frame a second, about three a clip, but its loader's
    choice among them is broken); a clip with fewer pictures repeats them. A first pass counts,
    since containers may lack a duration; the second keeps only what is wanted of a long clip.
    """
    count = sum(1 for _ in _pictures(part))
    if count == 0:
        raise Unreadable(f"{part.path}: holds no picture: fetch it again")
    wanted = np.linspace(0, count - 1, frames).round().astype(int)
    pictures = {i: p for i, p in enumerate(_pictures(part)) if i in set(wanted.tolist())}
    return np.stack([_resize(_cut(pictures[int(i)].to_image(), part), size) for i in wanted])


def _pictures(part: Excerpt) -> Iterator[Any]:
    """Decoded video frames between the excerpt's start and end."""
    for frame in _decode(part.path, part.start or 0.0):
        seconds = frame.time or 0.0
        if part.end is not None and seconds >= part.end:
            break
        if part.start is None or seconds >= part.start:
            yield frame


def _cut(picture: Any, part: Excerpt) -> Any:
    return picture if part.box is None else picture.crop(part.box)


def _decode(path: Path, start: float) -> Any:
    """Decoded pictures from the last key frame before `start` on."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise Unreadable(f"{path}: has no video stream: fetch it again")
            if container.format.name == "flv" and container.duration and _ends_inside_tag(path):
                raise Unreadable(f"{path}: truncated (it ends inside a tag): fetch it again")
            if start:
                container.seek(int(start * av.time_base))
            yield from container.decode(video=0)
    except av.FFmpegError as error:
        raise Unreadable(f"{path}: cannot be decoded ({error.strerror}): fetch it again") from None


def _ends_inside_tag(path: Path) -> bool:
    """Whether an flv was cut: a whole one ends in the size of its last tag (Adobe FLV 10.1, E.3).

    FFmpeg decodes a cut flv without a word. A clip that announces no duration is not asked: CREMA-D
    has one (1064_TIE_SAD_XX) that every study keeps.
    """
    content = path.read_bytes()
    size = int.from_bytes(content[-4:], "big")
    tag = content[:-4][-size:] if size else b""
    return int.from_bytes(tag[1:4], "big") + 11 != size


def image(part: Excerpt | NDArray[np.uint8], *, size: int = 224) -> NDArray[np.uint8]:
    """One picture as RGB, resized to size x size; [3, S, S]."""
    from PIL import Image

    if not isinstance(part, Excerpt):
        return _resize(Image.fromarray(part), size)
    try:
        with Image.open(part.path) as picture:
            return _resize(_cut(picture, part), size)
    except OSError as error:
        raise Unreadable(f"{part.path}: cannot be decoded ({error}): fetch it again") from None


def _resize(picture: Any, size: int) -> NDArray[np.uint8]:
    from PIL import Image

    small = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.uint8).transpose(2, 0, 1)


def text(
    words: str,
    *,
    max_length: int = 128,
    tokenizer: str | None = None,
    vocab_size: int = 512,
    embedding: str | None = None,
) -> NDArray[np.int32] | NDArray[np.float32]:
    """Token ids [max_length], cut or padded with 0.

    embedding: instead the mean output of a pretrained BERT over the tokens, float32 [width], by the
    read-out of `encoders.Bert`; it names the weights and their tokenizer.

    tokenizer: a hub id, folder or package (`pretrained.locate`); None hashes lower-cased words into
    1..vocab_size-1 (CHOICE, for small random encoders that have no vocabulary of their own).
    """
    if embedding is not None:
        return _embed(words, max_length, embedding)
    if tokenizer is None:
        ids = [1 + zlib.crc32(word.encode()) % (vocab_size - 1) for word in words.lower().split()]
    else:
        ids = _tokenizer(tokenizer)(words, truncation=True, max_length=max_length)["input_ids"]
    padded = np.zeros(max_length, dtype=np.int32)
    padded[: min(len(ids), max_length)] = ids[:max_length]
    return padded


def _embed(words: str, max_length: int, name: str) -> NDArray[np.float32]:
    import torch

    network, tokenizer = _network(name), _tokenizer(name)
    tokens = tokenizer(words, truncation=True, max_length=max_length, return_tensors="pt")
    with torch.inference_mode():
        states = network(**tokens).last_hidden_state
    vector: NDArray[np.float32] = states[0].mean(0).numpy()
    return vector


@cache
def _tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer, "tokenizer", name)


@cache
def _network(name: str) -> Any:
    import torch
    from transformers import AutoModel

    torch.set_num_threads(1)  # extraction has a process per core
    return _loaded(AutoModel, "embedding", name).eval()


def _loaded(kind: Any, parameter: str, name: str) -> Any:
    try:
        return kind.from_pretrained(pretrained.locate(name))
    except OSError as error:
        raise IbmaError(
            f"params.yaml: {parameter} '{name}' is neither a folder nor to be downloaded "
            f"({str(error).splitlines()[0]}): download it first and name its folder"
        ) from None
