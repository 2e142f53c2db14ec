"""Pictures of other depth, colours or orientation, and what is none: as shown, or refused."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ibma.features import media
from ibma.formats import pictures, raw

GREY = np.linspace(20_000, 60_000, 256).astype(np.uint16).reshape(16, 16)
CORNER = np.zeros((16, 16), np.uint8)
CORNER[:8, :4] = 200  # upper left, taller than wide
WHITE, RED = [255] * 3, [255, 0, 0]


def shown(path: Path, size: int = 16) -> np.ndarray:
    """The feature as [S, S, 3]."""
    return media.compute("image", path, {"size": size}).transpose(1, 2, 0)


def refused(path: Path, kind: str = "image") -> str:
    with pytest.raises(media.Unreadable) as caught:
        media.compute(kind, path, {})
    line = str(caught.value)
    assert str(path) in line and "\n" not in line
    return line


def png(path: Path, bits: int, colour: int, rows: list[bytes], hidden: bytes = b"") -> None:
    """A PNG of packed rows; colour: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA; hidden: its tRNS."""

    def chunk(name: bytes, content: bytes) -> bytes:
        packed = name + content
        return struct.pack(">I", len(content)) + packed + struct.pack(">I", zlib.crc32(packed))

    width = 8 * len(rows[0]) // bits // {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    head = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", head) + (chunk(b"tRNS", hidden) if hidden else b"")
    chunks += chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def png16(path: Path, colour: int, pixels: np.ndarray) -> None:
    """A PNG of 16 bits."""
    png(path, 16, colour, [row.astype(">u2").tobytes() for row in pixels])


def test_sixteen_bits_are_scaled_by_the_range_of_their_type(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    Image.fromarray(GREY).save(tmp_path / "grey.tif")
    Image.fromarray(GREY.astype(">u2")).save(tmp_path / "big.tif")
    (tmp_path / "grey.pgm").write_bytes(b"P5 16 16 65535\n" + GREY.astype(">u2").tobytes())
    png16(tmp_path / "rgb.png", 2, np.repeat(GREY[..., None], 3, 2))
    opaque = np.full_like(GREY, 65535)
    png16(tmp_path / "la.png", 4, np.stack([GREY, opaque], 2))
    png16(tmp_path / "rgba.png", 6, np.stack([GREY, GREY, GREY, opaque], 2))
    for path in sorted(tmp_path.iterdir()):
        for channel in shown(path).transpose(2, 0, 1):
            np.testing.assert_array_equal(channel, GREY >> 8, err_msg=path.name)
    array = media.compute("image", GREY, {"size": 16})
    np.testing.assert_array_equal(array[1], GREY >> 8)


def test_a_negative_of_sixteen_bits_is_turned_over_and_its_transparent_grey_is_white(tmp_path):
    """Of 8 bits Pillow does so itself."""
    Image.fromarray(GREY).save(tmp_path / "negative.tif", tiffinfo={262: 0})
    found = shown(tmp_path / "negative.tif")[..., 0]
    np.testing.assert_array_equal(found, (65_535 - GREY) >> 8)
    Image.fromarray(GREY).save(tmp_path / "hidden.png", transparency=int(GREY[0, 0]))
    found = shown(tmp_path / "hidden.png")[..., 0]
    assert found[0, 0] == 255 and found[0, 1] == GREY[0, 1] >> 8


def tiff12(path: Path, pixels: np.ndarray) -> None:
    """A TIFF of 12 bits a value, two in three bytes, which Pillow reads and does not write."""
    pairs = pixels.astype(int).reshape(-1, 2)
    packed = bytes(
        byte for a, b in pairs for byte in (a >> 4, (a & 15) << 4 | b >> 8, b & 255)
    )  # fmt: skip
    height, width = pixels.shape
    values = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    values[279] = len(packed)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(packed))
    path.write_bytes(head + packed + struct.pack("<H", len(values)) + entries + bytes(4))


def test_twelve_bits_are_scaled_by_their_range(tmp_path):
    pixels = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
    tiff12(tmp_path / "a.tif", pixels)
    np.testing.assert_array_equal(shown(tmp_path / "a.tif")[..., 0], pixels >> 4)


def test_programs_and_pictures_without_pixels_are_refused(tmp_path, monkeypatch):
    """Pillow runs PostScript with Ghostscript where that is installed."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("it ran"))
    head = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    (tmp_path / "a.png").write_text(f"{head}(touch x) system\nshowpage\n")
    assert "a program in PostScript, save it as PNG" in refused(tmp_path / "a.png")
    for shape in ((0, 0, 3), (0, 8), (8, 0, 3)):
        with pytest.raises(media.Unreadable, match="no pixel"):
            media.compute("image", np.zeros(shape, np.uint8), {})


def test_values_of_no_known_range_are_refused_by_name(tmp_path):
    Image.fromarray(GREY.astype(np.int32)).save(tmp_path / "int.tif")
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "float.tif")
    for path in tmp_path.iterdir():
        assert "values have no known range" in refused(path)
    for name, pixels in (("bytes.tif", GREY.astype(np.uint8)), ("words.tif", GREY)):
        Image.fromarray(pixels).save(tmp_path / name, tiffinfo={339: 2})
        assert "signed values have no known range" in refused(tmp_path / name)
    for array in (GREY.astype(np.float64), np.zeros((2, 2, 2, 2), np.uint8), GREY.astype("O")):
        with pytest.raises(media.Unreadable, match="is no picture"):
            media.compute("image", array, {})


def test_every_colour_space_is_as_shown_and_transparent_parts_are_white(tmp_path):
    palette = Image.new("P", (16, 16))
    palette.putpalette([255, 0, 0] * 256)
    cases = {
        "one_bit.png": (Image.new("1", (16, 16), 1), {}, WHITE),
        "grey.png": (Image.new("L", (16, 16), 77), {}, [77] * 3),
        "palette.png": (palette, {}, RED),
        "palette.gif": (palette, {}, RED),
        "cmyk.jpg": (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), {"quality": 100}, RED),
        "cmyk.tif": (Image.new("CMYK", (16, 16), (0, 255, 255, 0)), {}, RED),
        "hidden.png": (Image.new("RGBA", (16, 16), (255, 0, 0, 0)), {}, WHITE),
        "half.png": (Image.new("RGBA", (16, 16), (255, 0, 0, 128)), {}, [255, 127, 127]),
        "hidden.webp": (Image.new("RGBA", (16, 16), (255, 0, 0, 0)), {"lossless": True}, WHITE),
        "grey_hidden.png": (Image.new("LA", (16, 16), (9, 0)), {}, WHITE),
        "one_grey_hidden.png": (Image.new("L", (16, 16), 9), {"transparency": 9}, WHITE),
        "red_hidden.png": (Image.new("RGB", (16, 16), "red"), {"transparency": (255, 0, 0)}, WHITE),
        "palette_hidden.png": (palette, {"transparency": 0}, WHITE),
        "opaque.png": (Image.new("RGBA", (16, 16), (255, 0, 0, 255)), {}, RED),
    }  # fmt: skip
    for name, (picture, options, expected) in cases.items():
        picture.save(tmp_path / name, **options)
        np.testing.assert_allclose(shown(tmp_path / name)[4, 4], expected, atol=3, err_msg=name)


def test_a_transparent_colour_is_white_whatever_its_bits(tmp_path):
    """Pillow compares it in 8 bits with a value of 2, 4 or 16, and finds none or others."""
    rows = {2: (b"\x1b", 1), 4: (b"\x05\xaf", 5), 8: (b"\x00\x55\xaa\xff", 85)}
    for bits, (row, key) in rows.items():
        png(tmp_path / "a.png", bits, 0, [row] * 4, struct.pack(">H", key))
        assert shown(tmp_path / "a.png", 4)[0, :, 0].tolist() == [0, 255, 170, 255], bits
    row = struct.pack(">3H", 0x1234, 7, 7)
    png(tmp_path / "a.png", 16, 2, [row] * 4, row)
    assert "one colour of 16 bits is transparent" in refused(tmp_path / "a.png")


def test_exif_orientation_is_applied(tmp_path):
    upright = {
        1: CORNER,
        2: np.fliplr(CORNER),
        3: np.rot90(CORNER, 2),
        4: np.flipud(CORNER),
        5: CORNER.T,
        6: np.rot90(CORNER, -1),
        7: np.rot90(CORNER, 2).T,
        8: np.rot90(CORNER),
    }
    for orientation, expected in upright.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for name in ("a.png", "a.tif", "a.webp"):
            options = {"lossless": True} if name == "a.webp" else {}
            Image.fromarray(CORNER).save(tmp_path / name, exif=exif, **options)
            found = shown(tmp_path / name)[..., 0]
            np.testing.assert_array_equal(found, expected, err_msg=f"{name}: {orientation}")
            with Image.open(tmp_path / name) as opened:  # as an estimator is handed it
                found = np.asarray(pictures.to_rgb(opened))[..., 0]
            np.testing.assert_array_equal(found, expected, err_msg=f"{name}: {orientation}, open")


def test_a_turned_tiff_that_is_not_square_keeps_its_rows(tmp_path):
    """Pillow maps a plain TIFF into memory and turns it with the wrong width."""
    grey = GREY[:4, :8]
    opaque = np.full((4, 8), 255, np.uint8)
    pixels = {
        "bytes": (grey >> 8).astype(np.uint8),
        "words": grey,
        "rgba": np.dstack([(grey >> 8).astype(np.uint8)] * 3 + [opaque]),
    }
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, stored in pixels.items():
        Image.fromarray(stored).save(tmp_path / f"{name}.tif", exif=exif)
        path = tmp_path / f"{name}.tif"
        with Image.open(path) as opened, Image.open(path) as loaded:  # as an estimator is handed it
            loaded.load()
            found = [pictures.read(path), pictures.to_rgb(opened), pictures.to_rgb(loaded)]
        for one in found:
            np.testing.assert_array_equal(
                np.asarray(one)[..., 0], np.rot90(grey >> 8, -1), err_msg=name
            )


def test_the_mode_of_a_picture_is_that_of_its_pixels(tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "red.icns")  # an icon says RGBA at first
    np.testing.assert_allclose(shown(tmp_path / "red.icns")[4, 4], RED, atol=3)


def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path):
    for side in (10_001, 60_000):
        path = tmp_path / "bomb.png"
        Image.new("1", (side, 8)).save(path)
        content = path.read_bytes()
        head = content[12:16] + struct.pack(">II", side, side) + content[24:29]
        patched = content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]
        path.write_bytes(patched)
        assert "more than 100,000,000 pixels" in refused(path)


def test_what_is_no_file_is_refused_and_nothing_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    for path in tmp_path.iterdir():
        for kind in ("image", "audio", "frames"):
            assert "expected a file" in refused(path, kind)
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name in ("loop.png", "a\0b.png", "n" * 300, "absent.png", "pipe.png/x.png"):
        refused(tmp_path / name)


def test_errors_of_this_machine_are_not_taken_for_bad_pictures(tmp_path, monkeypatch):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")

    def no_more(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Image, "open", no_more)
    with pytest.raises(OSError, match="Too many open files"):
        media.compute("image", tmp_path / "a.png", {})


def test_damaged_pictures_are_read_or_refused_in_one_line(tmp_path):
    """300 pictures with a few wrong bytes each, whatever a decoder makes of them."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    count = 0
    for ending in ("png", "jpg", "gif", "tif", "webp", "bmp", "ppm", "jp2", "ico", "tga"):
        path = tmp_path / f"a.{ending}"
        picture.save(path)
        good = path.read_bytes()
        for _ in range(30):
            bad = bytearray(good)
            for place in rng.integers(0, min(len(bad), 200), 4):
                bad[place] = rng.integers(256)
            path.write_bytes(bad[: rng.integers(1, len(bad) + 1)])
            try:
                assert shown(path, 8).shape == (8, 8, 3)
            except raw.Unreadable as error:
                assert str(path) in str(error) and "\n" not in str(error)
                count += 1
    assert count > 100
