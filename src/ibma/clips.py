"""Write small sound and video files: what twins are made of."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def write_wav(path: Path, sound: NDArray[np.int16], rate: int) -> None:
    """Write a 16-bit wav; sound: [n], or [channels, n]."""
    channels = np.atleast_2d(sound)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(channels.T).tobytes())


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
    """Write pictures (each uint8 [H, W, 3]) with sound ([n], or [channels, n]) at `rate` Hz.

    sound None: no audio stream. codecs: FFmpeg's names of the video and the audio encoder.
    audio_rate: Hz of the stored sound, None for `rate`. bit_rate: of the sound, None for the
    encoder's own. The container follows from the file's ending.
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
