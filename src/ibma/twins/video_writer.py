"""Make the small sounds, pictures and films that twins consist of."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def tone(
    frequency: float, count: int, rate: int, noise: float, rng: np.random.Generator
) -> NDArray[np.int16]:
    """Make a tone in white noise, of random loudness and phase, as 16-bit samples [count].

    Args:
        frequency: Hz.
        count: Number of samples.
        rate: Samples a second.
        noise: Standard deviation; the tone's amplitude is .2 to .8.
        rng: Source of what is random.
    """
    seconds = np.arange(count) / rate
    loudness, phase = rng.uniform(0.2, 0.8), rng.uniform(0, 2 * np.pi)
    wave_form = loudness * np.sin(2 * np.pi * frequency * seconds + phase)
    noisy = wave_form + noise * rng.normal(size=count)
    return (np.clip(noisy, -1, 1) * 32767).astype(np.int16)


def disc(
    colour: tuple[int, int, int],
    count: int,
    size: tuple[int, int],
    drift: float,
    rng: np.random.Generator,
) -> list[NDArray[np.uint8]]:
    """Draw a disc that wanders to the right over grey, from a random place.

    Args:
        colour: Of the disc.
        count: Number of pictures.
        size: Width and height of each.
        drift: Pixels from picture to picture.
        rng: Source of what is random.
    """
    width, height = size
    background = int(rng.integers(20, 200))
    x, y = rng.uniform(0.25, 0.6) * width, rng.uniform(0.35, 0.65) * height
    rows, columns = np.ogrid[:height, :width]
    pictures = []
    for step in range(count):
        picture = np.full((height, width, 3), background, dtype=np.uint8)
        inside = (rows - y) ** 2 + (columns - x - drift * step) ** 2 < (height / 4) ** 2
        picture[inside] = colour
        pictures.append(picture)
    return pictures


def write_wav(path: Path, sound: NDArray[np.int16], rate: int) -> None:
    """Write a 16-bit wav of sound [n] or [channels, n]."""
    from scipy.io import wavfile

    wavfile.write(path, rate, sound.T)


def write_video(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    fps: int,
    sound: NDArray[np.int16] | None,
    rate: int,
    *,
    codecs: tuple[str, str] = ("libx264", "aac"),
    audio_rate: int | None = None,
    bit_rate: int | None = None,
) -> None:
    """Write a film; its container follows from the file's ending.

    Args:
        path: The file to write.
        pictures: Each uint8 [H, W, 3].
        fps: Pictures a second.
        sound: [n] or [channels, n]; None for no audio stream.
        rate: Hz of `sound`.
        codecs: FFmpeg's names of the video and the audio encoder.
        audio_rate: Hz of the stored sound, None for `rate`.
        bit_rate: Of the stored sound, None for the encoder's own.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, _ = pictures[0].shape
    options = {"preset": "ultrafast"} if codecs[0] == "libx264" else {}
    opened: Any = av.open(str(path), "w")  # PyAV types its streams by literal codec names
    with opened as container:
        video = container.add_stream(codecs[0], rate=fps, options=options)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.thread_count = 1  # else the bytes name the machine's cores
        audio = None
        if sound is not None:
            channels = np.atleast_2d(sound)
            layout = LAYOUTS[len(channels)]
            audio = container.add_stream(codecs[1], rate=audio_rate or rate, layout=layout)
            if bit_rate is not None:
                audio.bit_rate = bit_rate
            packed = np.ascontiguousarray(channels.T).reshape(1, -1)
            speech = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            speech.sample_rate, speech.time_base = rate, Fraction(1, rate)
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        if audio is not None:
            container.mux(audio.encode(speech))
            container.mux(audio.encode())
