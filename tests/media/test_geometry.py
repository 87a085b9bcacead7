"""Positions of pixels: rotation, pixel aspect, boxes, borders, chroma and scaling."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from media_factory import solid, write_clip

from fommctl.media.boxes import Box
from fommctl.media.reader import Reader


def gradient(width: int, height: int) -> np.ndarray:
    """Return a picture with red growing to the right and green downwards, which shows its orientation."""
    rows, columns = np.mgrid[:height, :width]
    channels = [columns * 200 // max(1, width - 1), rows * 200 // max(1, height - 1), np.full((height, width), 60)]
    return np.stack(channels, axis=2).astype(np.uint8)


def lossless(path, width, height, frames=1, **options):
    """Write FFV1 in RGB, or with `pix_fmt` in 4:4:4."""
    arguments = {"codec": "ffv1", "pix_fmt": "bgr0", "draw": lambda index: gradient(width, height), **options}
    return write_clip(path, width=width, height=height, frames=frames, **arguments)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_applied_and_boxes_are_of_the_turned_picture(tmp_path, rotation):
    picture = gradient(64, 48)
    path = write_clip(
        tmp_path / "a.mov",
        codec="qtrle",
        pix_fmt="rgb24",
        frames=2,
        draw=lambda index: picture,
        rotation=rotation,
    )
    upright = np.rot90(picture, rotation // 90)
    with Reader(path) as reader:
        assert (reader.info.width, reader.info.height) == (upright.shape[1], upright.shape[0])
        np.testing.assert_array_equal(next(iter(reader)).pixels, upright)
    (cut, _) = Reader(path, box=Box(3, 5, 23, 35))
    np.testing.assert_array_equal(cut.pixels, upright[5:35, 3:23])


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_of_yuv(tmp_path, rotation):
    path = write_clip(
        tmp_path / "a.mp4", frames=2, rotation=rotation, draw=lambda i: gradient(64, 48), options={"qp": "4"}
    )
    upright = np.rot90(gradient(64, 48), rotation // 90)
    for options, wanted in (({}, upright), ({"box": Box(3, 5, 23, 35)}, upright[5:35, 3:23])):
        frame = next(iter(Reader(path, **options)))
        assert frame.pixels.shape == wanted.shape
        assert np.abs(frame.pixels.astype(int) - wanted).mean() < 3


@pytest.mark.parametrize(("aspect", "width"), [(Fraction(64, 45), 91), (Fraction(1, 2), 32)])
def test_pixels_that_are_not_square_are_shown_square(tmp_path, aspect, width):
    path = write_clip(tmp_path / "a.mp4", sample_aspect_ratio=aspect, frames=2, draw=lambda i: gradient(64, 48))
    with Reader(path) as reader:
        assert (reader.info.width, reader.info.height) == (width, 48)
        pixels = next(iter(reader)).pixels.astype(int)
    assert pixels.shape == (48, width, 3)
    assert np.abs(pixels - gradient(width, 48)).mean() < 4
    part = next(iter(Reader(path, box=Box(width / 2, 0, width, 48)))).pixels.astype(int)
    assert np.abs(part - pixels[:, width - part.shape[1] :]).mean() < 4


@pytest.mark.parametrize(("width", "height"), [(175, 143), (1, 1), (33, 17)])
def test_odd_sizes(tmp_path, width, height):
    path = lossless(tmp_path / "a.mkv", width, height, pix_fmt="yuv420p")
    pixels = next(iter(Reader(path))).pixels
    assert pixels.shape == (height, width, 3)
    assert np.abs(pixels.astype(int) - gradient(width, height))[..., 1].mean() < 6


@pytest.mark.parametrize("pix_fmt", ["bgr0", "yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuva420p", "gray"])
@pytest.mark.parametrize(
    "box", [(10, 8, 40, 38), (11, 7, 40, 36), (-13, -9, 70, 60), (50, 40, 99, 89), (-70, -70, -9, -9)]
)
def test_boxes_cut_and_repeat_the_border(tmp_path, pix_fmt, box):
    picture = np.repeat(gradient(64, 48)[..., :1], 3, axis=2)
    path = lossless(tmp_path / "a.mkv", 64, 48, pix_fmt=pix_fmt, draw=lambda index: picture)
    left, top, right, bottom = box
    rows = np.clip(np.arange(top, bottom), 0, 47)
    columns = np.clip(np.arange(left, right), 0, 63)
    wanted = picture[rows[:, None], columns].astype(int)
    assert np.abs(next(iter(Reader(path, box=Box(*box)))).pixels - wanted).max() <= 2
    small = next(iter(Reader(path, box=Box(*box), size=(16, 16)))).pixels.astype(int)
    blocks = wanted[:, :, 0].mean(axis=0)
    spots = (np.arange(16) + 0.5) / 16 * len(blocks) - 0.5
    assert np.abs(small[8, :, 0] - np.interp(spots, np.arange(len(blocks)), blocks))[2:-2].max() <= 4


@pytest.mark.parametrize("size", [(16, 16), (31, 23), (64, 64), (100, 120)])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p", "bgr0"])
def test_scaling_shifts_nothing(tmp_path, pix_fmt, size):
    rows, columns = np.mgrid[:64, :64] - 31.5
    bump = (40 + 200 * np.exp(-(rows**2 + columns**2) / 200)).astype(np.uint8)
    path = lossless(tmp_path / "a.mkv", 64, 64, pix_fmt=pix_fmt, draw=lambda i: np.repeat(bump[..., None], 3, axis=2))
    result = next(iter(Reader(path, size=size))).pixels[..., 1].astype(int)
    assert np.abs(result - result[::-1]).max() <= 2
    assert np.abs(result - result[:, ::-1]).max() <= 2


def test_chroma_of_odd_boxes_stays_with_its_luma(tmp_path):
    picture = solid(64, 64, (40, 40, 40))
    picture[:, 32:] = (200, 40, 40)
    path = lossless(tmp_path / "a.mkv", 64, 64, pix_fmt="yuv420p", draw=lambda index: picture)
    whole = next(iter(Reader(path))).pixels.astype(int)
    for left, top in ((1, 1), (7, 4), (8, 3), (2, 2)):
        part = next(iter(Reader(path, box=Box(left, top, left + 50, top + 50)))).pixels
        assert np.abs(part - whole[top : top + 50, left : left + 50]).max() <= 3
