"""Read a picture of any depth, colour space and orientation as the 8-bit RGB that a viewer shows.

Transparent parts show white. Pixels of 12 and 16 bits are scaled by the range of their type, not by
what one picture holds: otherwise two pictures of one scanner would differ. Floats, signed integers
and those of 32 bits have no known range; they are refused by name. Of several pages the first
counts.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma.formats import raw
from ibma.formats.raw import Unreadable

BACKGROUND = (255, 255, 255)
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a TIFF tag, and its value in negatives such as X-rays
SAMPLE_FORMAT, SIGNED = 339, 2  # another, and its value where numbers may be negative
BITS = 258  # of a value: 12 in some X-rays, which Pillow reads as they are
ORIENTATION = 274  # EXIF's tag


def read(path: Path) -> Any:
    """Return a picture file as a Pillow image in mode RGB, upright as its EXIF orientation says.

    Raises:
        Unreadable: The file is missing, damaged, too large, or of an unknown range of values.
    """
    from PIL import Image

    raw.present(path)
    Image.MAX_IMAGE_PIXELS = raw.PICTURE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow says of damaged tags
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with path.open("rb") as file, Image.open(file) as picture:
                return to_rgb(picture)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unreadable(
            f"{path}: more than {raw.PICTURE_PIXELS:,} pixels: reduce it or take it off the list"
        ) from None
    except Exception as error:
        raise raw.unreadable(path, error) from None


def to_rgb(picture: Any) -> Any:
    """Return a Pillow image in mode RGB as a viewer shows it, upright.

    Raises:
        ValueError: Its values have no known range.
        OSError: Its file is cut or damaged.
    """
    from PIL import ImageOps

    shown = _eight_bits(picture)
    shown.getexif()[ORIENTATION] = picture.getexif().get(ORIENTATION, 1)  # new images have none
    return ImageOps.exif_transpose(shown)


def _loaded(picture: Any) -> Any:
    """Return a picture with its pixels read.

    Pillow maps a TIFF that was opened by name into memory and turns it with the wrong width. What
    it mapped, and nobody changed since, is opened again.
    """
    from PIL import Image

    if getattr(picture, "map", None) and picture.readonly:
        page, picture = picture.tell(), Image.open(picture.filename)
        picture.seek(page)
    name, picture.filename = getattr(picture, "filename", ""), ""
    picture.load()  # some formats know their mode only then
    picture.filename = name
    return picture


def _hidden(picture: Any) -> NDArray[np.bool_] | None:
    """Return where a grey PNG of 2, 4 or 16 bits is transparent, which Pillow leaves to us.

    It has to be asked before the pixels are read: only then does the picture say how many bits.

    Raises:
        ValueError: It is a colour of 16 bits, of which Pillow keeps the upper half.
    """
    key = picture.info.get("transparency")
    stored = picture.tile[0].args if getattr(picture, "tile", None) else picture.mode
    if key is None or stored not in ("L;2", "L;4", "I;16", "I;16B", "RGB;16B"):
        return None
    if stored == "RGB;16B":
        raise ValueError("one colour of 16 bits is transparent, save it with an alpha channel")
    if stored in ("L;2", "L;4"):  # which are read as 8
        key *= 255 // (2 ** int(stored[2:]) - 1)
    return np.asarray(np.array(_loaded(picture)) == key)


def _eight_bits(picture: Any) -> Any:
    """Return a new image in mode RGB, not yet turned."""
    from PIL import Image

    if not all(picture.size):
        raise ValueError("no pixel")
    if picture.format == "EPS":  # Pillow would have Ghostscript run it
        raise ValueError("a program in PostScript, save it as PNG")
    hidden = _hidden(picture)
    picture = _loaded(picture)
    if SIGNED in np.atleast_1d(getattr(picture, "tag_v2", {}).get(SAMPLE_FORMAT, 1)):
        raise ValueError("its signed values have no known range, save it with 8 or 16 bits")
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        picture = Image.fromarray((_sixteen(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("its 32-bit values have no known range, save it with 8 or 16 bits")
    if hidden is not None:
        pixels = np.array(picture.convert("RGB"))
        pixels[hidden] = BACKGROUND
        return Image.fromarray(pixels)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    opaque = Image.new("RGB", picture.size, BACKGROUND)
    shown = picture if picture.mode in ("LA", "RGBA") else picture.convert("RGBA")
    opaque.paste(shown, mask=shown)
    return opaque


def _sixteen(picture: Any) -> NDArray[Any]:
    """Return the pixels of a grey picture as 16 bits, black 0; Pillow leaves these cases to us."""
    tags = getattr(picture, "tag_v2", {})
    pixels = np.array(picture) << (16 - int(np.atleast_1d(tags.get(BITS, 16))[0]))
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        pixels = 65_535 - pixels
    return pixels
