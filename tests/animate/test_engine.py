"""What jobs with the same model share."""

import numpy as np
import torch

from fommctl.animate.animator import load
from fommctl.animate.engine import ENCODED_SOURCES


def test_a_source_that_repeats_is_encoded_once_and_renders_alike() -> None:
    engine = load(device="cpu", precision="fp32")
    width, height = engine.frame_size()
    pictures = [np.full((height, width, 3), shade, np.uint8) for shade in range(0, 250, 40)]
    first = engine.encoded([pictures[0]])
    assert engine.encoded([pictures[0].copy()]) is first
    others = [engine.encoded([picture]) for picture in pictures[1 : ENCODED_SOURCES + 1]]
    assert len({id(each) for each in (first, *others)}) == ENCODED_SOURCES + 1
    again = engine.encoded([pictures[0]])
    assert again is not first, "the oldest is dropped"
    renderer = engine.renderer()
    assert torch.equal(renderer.render(first, first.motion), renderer.render(again, again.motion))


def test_pictures_of_other_shapes_or_sizes_are_other_sources() -> None:
    engine = load(device="cpu", precision="fp32")
    width, height = engine.frame_size()
    picture = np.zeros((height, width, 3), np.uint8)
    larger = np.zeros((2 * height, 2 * width, 3), np.uint8)
    assert engine.encoded([picture]) is not engine.encoded([larger], 2 * width)
