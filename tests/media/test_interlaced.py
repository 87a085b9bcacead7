"""Interlaced footage becomes whole pictures, at its own rate or one per field; progressive footage does not change."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from interlaced import FRAMES, HEIGHT, WIDTH, interlaced, moment
from media_factory import write_clip

from fommctl.media.boxes import Box
from fommctl.media.images import read_picture
from fommctl.media.random_access import count_frames, read_frames
from fommctl.media.reader import Reader


def combs(pixels: np.ndarray) -> float:
    """Return how much lines differ from the mean of their neighbours."""
    luma = pixels[..., 1].astype(float)
    return float(np.abs(luma[1:-1] - (luma[:-2] + luma[2:]) / 2).mean())


def read(path: Path, **options) -> tuple[list[np.ndarray], list[Fraction], Reader]:
    with Reader(path, **options) as reader:
        frames = list(reader)
    return [frame.pixels for frame in frames], [frame.time for frame in frames], reader


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize("name", ["a.mp4", "a.mts", "a.mkv"])
def test_frames_become_whole_at_their_rate(tmp_path, name, top_first):
    given = interlaced(tmp_path / name, top_first=top_first)
    pixels, times, reader = read(given)
    assert (reader.info.rate, len(pixels)) == (25, FRAMES)
    assert times == [Fraction(index, 25) for index in range(FRAMES)]
    left, _, _ = read(given, deinterlace="off")
    assert combs(left[5]) > 6
    for index in range(FRAMES):
        assert combs(pixels[index]) < 2
        # The moment of the first field, whichever that is.
        assert np.abs(pixels[index].astype(int) - moment(2 * index)).mean() < 2
    assert (reader.info.parity, reader.warnings) == ("auto", [])


@pytest.mark.parametrize("name", ["a.mp4", "a.mts"])
def test_each_field_becomes_a_picture(tmp_path, name):
    given = interlaced(tmp_path / name)
    pixels, times, reader = read(given, deinterlace="field")
    assert (reader.info.rate, reader.info.frames) == (50, 2 * FRAMES)
    assert times == [Fraction(index, 50) for index in range(2 * FRAMES)]
    for index in range(1, 2 * FRAMES - 1):
        assert combs(pixels[index]) < 2
        assert np.abs(pixels[index].astype(int) - moment(index)).mean() < 2


@pytest.mark.parametrize(("order", "top_first"), [(2, True), (3, False), (4, False), (5, True)])
def test_the_container_may_say_it(tmp_path, order, top_first):
    given = interlaced(tmp_path / "a.mkv", order=order, top_first=top_first)
    pixels, _, reader = read(given)
    assert reader.info.parity == ("tff" if top_first else "bff")
    for index in range(FRAMES):
        assert np.abs(pixels[index].astype(int) - moment(2 * index)).mean() < 2


def test_progressive_footage_stays_bit_for_bit(tmp_path):
    given = write_clip(tmp_path / "a.mp4", width=WIDTH, height=HEIGHT, draw=moment)
    for mode in ("auto", "field"):
        pixels, times, reader = read(given, deinterlace=mode)
        expected, when, _ = read(given, deinterlace="off")
        assert (times, reader.info.rate, reader.info.parity) == (when, 25, None)
        np.testing.assert_array_equal(pixels, expected)


def test_a_part_is_the_same_as_in_the_whole(tmp_path):
    given = interlaced(tmp_path / "a.mkv")
    whole, _, _ = read(given, box=Box(8, 8, 104, 80), size=(48, 36))
    part, times, _ = read(given, box=Box(8, 8, 104, 80), size=(48, 36), start=Fraction(4, 25), end=Fraction(8, 25))
    assert times == [Fraction(index, 25) for index in range(4)]
    np.testing.assert_array_equal(part, whole[4:8])


@pytest.mark.parametrize("name", ["a.mp4", "a.mts"])
def test_stills_and_training_see_whole_pictures_too(tmp_path, name):
    given = interlaced(tmp_path / name)
    pixels, _, _ = read(given)
    np.testing.assert_array_equal(read_picture(given).pixels, pixels[0])
    assert count_frames(given) == FRAMES
    for index, picture in zip((7, 3), read_frames(given, (7, 3)), strict=True):
        np.testing.assert_array_equal(picture, pixels[index])
