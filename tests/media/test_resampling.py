"""Resizing and cropping in memory: values, borders and positions of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fommctl.media.boxes import Box
from fommctl.media.resampling import crop, over_black, resize


def numbered(height: int, width: int) -> np.ndarray:
    """Return a picture (H, W, 3) in which every pixel is different."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows * 7 + columns], axis=2).astype(np.uint8)


def test_crop_takes_the_pixels_of_the_box():
    pixels = numbered(10, 12)
    np.testing.assert_array_equal(crop(pixels, Box(3, 2, 9, 8)), pixels[2:8, 3:9])


def test_crop_outside_repeats_the_border():
    pixels = numbered(4, 5)
    result = crop(pixels, Box(-2, -1, 7, 6))
    assert result.shape == (7, 9, 3)
    np.testing.assert_array_equal(result[0, 0], pixels[0, 0])
    np.testing.assert_array_equal(result[3, 8], pixels[2, 4])
    np.testing.assert_array_equal(result[1:5, 2:7], pixels)


def test_crop_far_outside_is_the_nearest_corner():
    pixels = numbered(4, 5)
    assert (crop(pixels, Box(100, 100, 103, 103)) == pixels[3, 4]).all()


@given(left=st.floats(-30, 30), top=st.floats(-30, 30), side=st.floats(0.1, 40))
@example(left=0, top=1.3, side=1.5)
def test_a_square_box_gives_a_square(left, top, side):
    height, width = crop(numbered(20, 30), Box(left, top, left + side, top + side)).shape[:2]
    assert height == width >= 1


def test_resize_to_the_same_size_is_exact():
    pixels = numbered(9, 7)
    np.testing.assert_array_equal(resize(pixels, (7, 9)), pixels)


@pytest.mark.parametrize("size", [(16, 16), (31, 17), (64, 64), (100, 90), (7, 5)])
def test_a_symmetric_picture_stays_symmetric(size):
    rows, columns = np.mgrid[:64, :64] - 31.5
    pixels = (255 * np.exp(-(rows**2 + columns**2) / 200)).astype(np.uint8)
    result = resize(pixels, size).astype(int)
    assert np.abs(result - result[::-1]).max() <= 1
    assert np.abs(result - result[:, ::-1]).max() <= 1


@pytest.mark.parametrize("width", [13, 32, 50, 200])
def test_a_ramp_keeps_its_values(width):
    ramp = np.tile(np.linspace(0, 250, 100).astype(np.uint8), (20, 1))
    result = resize(ramp, (width, 20))[10].astype(float)
    expected = ((np.arange(width) + 0.5) / width * 100 - 0.5) * 250 / 99
    inside = slice(width // 10, -width // 10)
    assert np.abs(result - expected)[inside].max() <= 1.5


def test_shrinking_averages_instead_of_picking():
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(resize(board, (8, 8)).astype(int) - 127).max() <= 2


def test_a_box_with_fractions_moves_the_picture_by_fractions():
    ramp = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (20, 1))
    result = resize(ramp, (40, 20), Box(10.5, 0, 50.5, 20))
    np.testing.assert_allclose(result[10], 2 * (np.arange(40) + 10.5), atol=1)


def test_resizing_a_box_outside_repeats_the_border():
    pixels = numbered(10, 10)
    result = resize(pixels, (10, 10), Box(-20, -20, -10, -10))
    assert (result == pixels[0, 0]).all()


def test_over_black_multiplies_by_straight_alpha():
    pixels = np.array([[[200, 100, 50], [200, 100, 50], [200, 100, 51]]], np.uint8)
    alpha = np.array([[255, 0, 128]], np.uint8)
    assert over_black(pixels, alpha).tolist() == [[[200, 100, 50], [0, 0, 0], [100, 50, 26]]]
    assert over_black(pixels, None) is pixels
