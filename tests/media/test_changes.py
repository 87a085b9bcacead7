"""Videos whose size or shape changes midway: a rotated phone, a call, a broadcast."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import solid, write_clip, write_frames, write_mjpeg

from fommctl.media.boxes import Box
from fommctl.media.probe import probe
from fommctl.media.random_access import read_frames
from fommctl.media.reader import Reader

RED, BLUE = (200, 40, 40), (40, 40, 200)


def marked(width: int, height: int, colour: Sequence[int]) -> np.ndarray:
    """Return a plain picture with a white square in its middle, half as wide as its shorter side."""
    picture = solid(width, height, colour)
    side = min(width, height) // 4
    picture[height // 2 - side : height // 2 + side, width // 2 - side : width // 2 + side] = 255
    return picture


def turned(path: Path) -> Path:
    """Write five frames of 128x96, then five of 96x128."""
    return write_mjpeg(path, [marked(128, 96, RED)] * 5 + [marked(96, 128, BLUE)] * 5)


def white(pixels: np.ndarray) -> tuple[int, int]:
    """Return width and height of the white square."""
    inside = pixels.min(axis=2) > 160
    return int(inside.any(axis=0).sum()), int(inside.any(axis=1).sum())


def test_a_turned_picture_is_fitted_between_black_bars(tmp_path):
    with Reader(turned(tmp_path / "a.mkv")) as reader:
        frames = list(reader)
    assert [frame.pixels.shape for frame in frames] == [(96, 128, 3)] * 10
    assert [frame.content for frame in frames] == [None] * 5 + [Box(28, 0, 100, 96)] * 5
    assert white(frames[0].pixels) == (48, 48)
    # 96x128 became 72x96: the square of 48 pixels has 36, and is still square.
    width, height = white(frames[9].pixels)
    assert width == pytest.approx(36, abs=2)
    assert height == pytest.approx(36, abs=2)
    assert frames[9].pixels[:, :26].max() < 8
    assert frames[9].pixels[:, 102:].max() < 8
    np.testing.assert_allclose(frames[9].pixels[8, 64].astype(int), BLUE, atol=12)
    bars = "later frames are fitted into the first one's shape, with black bars"
    assert reader.warnings == [f"a.mkv changes from 128x96 to 96x128 pixels at 0.50 s: {bars}"]


def test_a_part_of_a_turned_picture_is_cut_where_it_lies(tmp_path):
    path = turned(tmp_path / "a.mkv")
    with Reader(path, box=Box(28, 0, 100, 96), size=(36, 48)) as reader:
        last = list(reader)[-1].pixels
    assert last.shape == (48, 36, 3)
    np.testing.assert_allclose(last[3, 18].astype(int), BLUE, atol=12)
    assert last.max(axis=(0, 2)).min() > 100


def test_another_size_of_the_same_shape_is_scaled(tmp_path):
    path = write_mjpeg(tmp_path / "a.mkv", [marked(128, 96, RED)] * 3 + [marked(64, 48, RED)] * 3)
    with Reader(path) as reader:
        frames = list(reader)
    assert all(frame.content is None for frame in frames)
    np.testing.assert_allclose(frames[5].pixels[48, 4].astype(int), RED, atol=8)
    assert white(frames[5].pixels)[0] == pytest.approx(48, abs=2)
    assert reader.warnings == ["a.mkv changes from 128x96 to 64x48 pixels at 0.30 s: later frames are scaled"]


def test_training_sees_the_same_frames(tmp_path):
    path = turned(tmp_path / "a.mkv")
    with Reader(path) as reader:
        frames = [frame.pixels for frame in reader]
    for index, pixels in zip((0, 9), read_frames(path, [0, 9]), strict=True):
        np.testing.assert_array_equal(pixels, frames[index])


def test_a_broadcast_that_changes_its_aspect(tmp_path):
    """4:3 becomes 16:9 with the same number of pixels; only the codec signals it."""
    parts = []
    for number, (aspect, colour) in enumerate(((Fraction(1), RED), (Fraction(2), BLUE))):
        clip = write_clip(
            tmp_path / f"{number}.ts",
            width=96,
            height=96,
            frames=6,
            draw=lambda index, colour=colour: marked(96, 96, colour),
            sample_aspect_ratio=aspect,
        )
        parts.append(clip.read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    assert (probe(tmp_path / "both.ts").width, probe(tmp_path / "both.ts").height) == (96, 96)
    with Reader(tmp_path / "both.ts") as reader:
        last = list(reader)[-1]
    assert last.content == Box(0, 24, 96, 72)
    assert last.pixels[:20].max() < 12
    width, height = white(last.pixels)
    assert (width, height) == (pytest.approx(48, abs=2), pytest.approx(24, abs=2))


def test_a_broadcast_that_gains_a_sound_track(tmp_path):
    """The track starts in the middle of the file, where probing does not look."""
    noise = {"draw": lambda index: np.random.default_rng(index).integers(0, 255, (128, 128, 3), np.uint8)}
    large = {"g": "1", "qmin": "1", "qmax": "2", "b": "200M", "maxrate": "400M", "bufsize": "100M"}
    clip = {"width": 128, "height": 128, "codec": "mpeg2video", **noise}
    silent = write_clip(tmp_path / "silent.ts", frames=25, options=large, **clip).read_bytes()
    loud = write_clip(tmp_path / "loud.ts", frames=5, audio=("mp2",), **clip).read_bytes()
    (tmp_path / "all.ts").write_bytes(silent + loud + silent)
    with Reader(tmp_path / "all.ts") as reader:
        assert len(list(reader)) == 55
    assert probe(tmp_path / "all.ts").audio == ()


def test_pictures_of_another_shape_in_a_folder(tmp_path):
    write_frames(tmp_path / "frames", [marked(128, 96, RED), marked(96, 128, BLUE)])
    with Reader(tmp_path / "frames") as reader:
        first, second = reader
    assert (first.content, second.content) == (None, Box(28, 0, 100, 96))
    assert white(second.pixels) == (pytest.approx(36, abs=1), pytest.approx(36, abs=1))
    shape = "pictures of another shape were fitted into that of the first, with black bars"
    assert reader.warnings == [f"{tmp_path / 'frames'}: {shape}"]
