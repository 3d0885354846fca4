"""Every kind of image file is read as RGB or refused by name."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from cloverleaf.data import image_io
from cloverleaf.data.image_io import image_size, read_image, read_resized, to_rgb_uint8
from cloverleaf.errors import ImageError


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """Four quadrants, smooth inside: red, green / blue, grey; JPEG keeps them apart."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 220, 30, 30
    image[: height // 2, width // 2 :] = 30, 220, 30
    image[height // 2 :, : width // 2] = 30, 30, 220
    image[height // 2 :, width // 2 :] = 128
    return image


def save(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def assert_close(actual, expected, mean=4.0):
    assert actual.dtype == np.uint8 and actual.flags.c_contiguous and actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected).mean() < mean


ORDINARY = {
    "rgb.jpg": lambda p, i: save(p, i, quality=95),
    "progressive.jpg": lambda p, i: save(p, i, quality=95, progressive=True),
    "rgb.png": lambda p, i: save(p, i),
    "palette.png": lambda p, i: save(p, i.quantize(16)),
    "palette.gif": lambda p, i: save(p, i.quantize(16)),
    "rgb.bmp": lambda p, i: save(p, i),
    "rgb.webp": lambda p, i: save(p, i, lossless=True),
    "rgb.tif": lambda p, i: save(p, i),
    "cmyk.jpg": lambda p, i: save(p, i.convert("CMYK"), quality=95),
    "cmyk.tif": lambda p, i: save(p, i.convert("CMYK")),
    "opaque.png": lambda p, i: save(p, i.convert("RGBA")),
    "bytes": lambda p, i: to_bytes(i),
}


def to_bytes(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ORDINARY)
def test_colour_files_are_read_alike(tmp_path, name):
    source = ORDINARY[name](tmp_path / name, Image.fromarray(picture()))
    assert_close(read_image(source), picture())
    if not isinstance(source, bytes):
        assert image_size(source) == (48, 64)


def test_a_profile_that_libpng_dislikes_is_passed_over_in_silence(tmp_path, capfd):
    image = Image.fromarray(picture())
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "profile.png", icc_profile=b"\0" * 64 + b"\xff" * 200)
    np.testing.assert_array_equal(read_image(tmp_path / "profile.png"), read_image(tmp_path / "plain.png"))
    assert capfd.readouterr().err == ""


def test_grey_kinds(tmp_path):
    grey = np.repeat(np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[None], 8, 0)[..., None], 3, 2)
    cases = {
        "l.png": Image.fromarray(grey[..., 0]),
        "l.jpg": Image.fromarray(grey[..., 0]),
        "la.png": Image.fromarray(grey[..., 0]).convert("LA"),
        "sixteen.png": Image.fromarray(grey[..., 0].astype(np.uint16) * 257),
        "sixteen.tif": Image.fromarray(grey[..., 0].astype(np.uint16) * 257),
        "float.tif": Image.fromarray(grey[..., 0].astype(np.float32) / 255),
    }
    for name, image in cases.items():
        assert_close(read_image(save(tmp_path / name, image)), grey, mean=1.5)
    cv2.imwrite(str(tmp_path / "sixteen_rgb.png"), picture()[..., ::-1].astype(np.uint16) * 257)
    assert_close(read_image(tmp_path / "sixteen_rgb.png"), picture(), mean=0.5)
    bits = save(tmp_path / "bits.png", Image.fromarray(grey[..., 0] > 127))
    assert_close(read_image(bits), np.where(grey > 127, 255, 0).astype(np.uint8), mean=0.5)


def test_transparency_is_laid_over_grey(tmp_path):
    rgba = np.dstack([picture(), np.full((48, 64), 255, np.uint8)])
    rgba[:24, :, 3] = 0
    expected = picture()
    expected[:24] = 114
    assert_close(read_image(save(tmp_path / "a.png", Image.fromarray(rgba))), expected, mean=0.5)
    palette = Image.fromarray(picture()).quantize(8)
    transparent = palette.getpixel((0, 0))
    read = read_image(save(tmp_path / "b.png", palette, transparency=transparent))
    assert (read[:20, :28] == 114).all() and abs(int(read[40, 5, 2]) - 220) < 5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation(tmp_path, orientation, suffix):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that turns the picture into the stored pixels
    stored = Image.fromarray(picture())
    if orientation in undo:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"o.{suffix}", stored, exif=exif, quality=95)
    assert_close(read_image(path), picture())
    assert image_size(path) == (48, 64)
    small, original_hw = read_resized(path, 32)
    assert original_hw == (48, 64)
    assert_close(small, cv2.resize(picture(), (32, 24), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("hw", [(480, 640), (481, 643), (331, 217), (1000, 30), (1201, 1603)])
@pytest.mark.parametrize("area", [False, True])
def test_reduced_decoding_keeps_places(tmp_path, hw, area):
    """A white rectangle stays where it belongs to a quarter of a pixel, also for sizes that do not divide."""
    height, width = hw
    image = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = width // 3, height // 4, width - 5, height - 3
    image[y1:y2, x1:x2] = 255
    path = save(tmp_path / "r.jpg", Image.fromarray(image), quality=98, subsampling=0)
    small, original_hw = read_resized(path, 150, area=area)
    assert original_hw == hw and max(small.shape) == 150
    scale_x, scale_y = small.shape[1] / width, small.shape[0] / height
    mass = small[..., 0].astype(float) / 255
    middle_row, middle_column = mass[small.shape[0] // 2], mass[:, int((x1 + x2) / 2 * scale_x)]
    assert middle_row.sum() == pytest.approx((x2 - x1) * scale_x, abs=0.3)
    assert middle_column.sum() == pytest.approx((y2 - y1) * scale_y, abs=0.3)
    centre = (middle_row * (np.arange(small.shape[1]) + 0.5)).sum() / middle_row.sum()
    assert centre == pytest.approx((x1 + x2) / 2 * scale_x, abs=0.3)


@pytest.mark.parametrize("hw", [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_extreme_shapes(tmp_path, hw, suffix):
    path = save(tmp_path / f"e.{suffix}", Image.new("RGB", hw[::-1], (200, 100, 50)))
    assert read_image(path).shape == (*hw, 3) and image_size(path) == hw
    small, original_hw = read_resized(path, 320)
    assert original_hw == hw and max(small.shape[:2]) == 320 and min(small.shape[:2]) >= 1


def damaged(tmp_path, suffix: str):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    path = save(tmp_path / f"whole.{suffix}", Image.fromarray(noise))
    return path.read_bytes()


def bad_files(tmp_path):
    jpg, png, tif = (damaged(tmp_path, suffix) for suffix in ("jpg", "png", "tif"))
    flipped = bytearray(png)
    for at in range(2000, 60000, 500):
        flipped[at] ^= 0xFF
    return {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"this is not an image at all", "not an image"),
        "half.jpg": (jpg[: len(jpg) // 2], "truncated"),
        "start.jpg": (jpg[:20], "truncated"),
        "half.png": (png[: len(png) // 2], "truncated"),
        "start.png": (png[:20], "truncated"),
        "corrupt.png": (bytes(flipped), "decode"),
        "half.tif": (tif[: len(tif) // 2], "decode"),
        "html.png": (b"<!DOCTYPE html><html></html>", "not an image"),
    }


BAD = ["empty.jpg", "text.jpg", "half.jpg", "start.jpg", "half.png", "start.png", "corrupt.png", "half.tif", "html.png"]


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name(tmp_path, name):
    content, reason = bad_files(tmp_path)[name]
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_image, lambda p: read_resized(p, 64)):
        with pytest.raises(ImageError, match=name) as caught:
            read(path)
        assert reason in str(caught.value) and caught.value.fix


def test_damaged_exif_is_named(tmp_path):
    """Pillow raises all kinds of errors; one that came through would end a training run."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.webp"
    Image.new("RGB", (8, 6)).save(path, exif=exif)
    assert image_size(path) == (8, 6)
    path.write_bytes(path.read_bytes().replace(b"MM\x00*", b"MM\x00A"))
    for read in (image_size, read_image):
        with pytest.raises(ImageError, match=r"turned\.webp"):
            read(path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(ImageError, match=path.name):
            read_image(path)
        with pytest.raises(ImageError, match=path.name):
            image_size(path)


def test_huge_images(tmp_path, monkeypatch):
    """Refused from the header, before any pixel is decoded; a baseline JPEG is read at reduced scale."""
    whole = damaged(tmp_path, "png")
    huge = tmp_path / "huge.png"
    huge.write_bytes(whole[:16] + struct.pack(">II", 20_000, 20_000) + whole[24:])
    assert image_size(huge) == (20_000, 20_000)
    for read in (read_image, lambda p: read_resized(p, 64)):
        with pytest.raises(ImageError, match=r"huge\.png is too large: 20000 x 20000"):
            read(huge)
    monkeypatch.setattr(image_io, "MAX_PIXELS", 100_000)
    image = Image.fromarray(cv2.resize(picture(), (800, 600)))
    baseline, progressive = tmp_path / "baseline.jpg", tmp_path / "progressive.jpg"
    image.save(baseline, quality=95)
    image.save(progressive, quality=95, progressive=True)
    with pytest.raises(ImageError, match="too large"):
        read_image(baseline)
    for area in (False, True):
        small, original_hw = read_resized(baseline, 100, area=area)
        assert original_hw == (600, 800)
        assert_close(small, cv2.resize(np.asarray(image), (100, 75), interpolation=cv2.INTER_AREA))
        with pytest.raises(ImageError, match="too large"):
            read_resized(progressive, 100, area=area)
        with pytest.raises(ImageError, match="too large"):
            read_resized(baseline, 700, area=area)


def test_arrays_of_users():
    image = picture()
    assert to_rgb_uint8(image) is not None and np.array_equal(to_rgb_uint8(image), image)
    assert_close(to_rgb_uint8(image.astype(np.float32) / 255), image, mean=0.01)
    assert_close(to_rgb_uint8(image.astype(np.uint16) * 257), image, mean=0.01)
    assert np.array_equal(to_rgb_uint8(image[..., 0]), np.repeat(image[..., :1], 3, 2))
    assert np.array_equal(to_rgb_uint8(image[..., 0] > 100)[..., 1], (image[..., 0] > 100) * 255)
    for wrong in (image[None], image.astype(np.float32), image[..., :2], image[:0], image.astype(np.int32)):
        with pytest.raises(ImageError):
            to_rgb_uint8(wrong)
    with pytest.raises(ImageError):
        to_rgb_uint8(np.full((4, 4), np.nan))
