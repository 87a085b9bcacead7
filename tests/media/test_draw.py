import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fommctl.media.drawing import colour, compare, draw_keypoints


def grey(side: int) -> np.ndarray:
    return np.full((side, side, 3), 90, np.uint8)


def test_compare_puts_three_panels_of_the_results_height_side_by_side():
    source, driving, result = (
        np.full((side, side, 3), shade, np.uint8) for side, shade in ((64, 50), (200, 120), (96, 240))
    )
    panels = compare(source, driving, result)
    assert panels.shape == (96, 288, 3)
    assert [int(panels[48, x, 0]) for x in (48, 144, 240)] == [50, 120, 240]


def test_compare_keeps_the_shape_of_each_panel():
    assert compare(np.zeros((90, 160, 3), np.uint8), grey(256), np.zeros((90, 160, 3), np.uint8)).shape == (90, 410, 3)


def test_compare_lays_transparent_panels_over_black():
    clear = np.full((32, 32, 4), 255, np.uint8)
    clear[..., 3] = 0
    panels = compare(clear, grey(32), clear)
    assert panels.shape == (32, 96, 3)
    assert panels[:, :32].max() == 0
    assert panels[:, 32:64].min() == 90


@pytest.mark.parametrize("side", [64, 128, 256, 512])
def test_a_dot_lies_where_its_keypoint_is(side):
    frame = grey(side)
    drawn = draw_keypoints(frame, np.array([[0.5, -0.25]]))
    x, y = 0.75 * (side - 1), 0.375 * (side - 1)
    assert drawn[round(y), round(x)].tolist() == [255, 0, 0]
    rows, columns = np.nonzero((drawn != frame).any(2))
    assert (columns.mean(), rows.mean()) == pytest.approx((x, y), abs=0.5)
    assert np.array_equal(frame, grey(side)), "the frame itself is not touched"


def test_the_axes_follow_the_jacobian():
    side = 256
    plain = draw_keypoints(grey(side), np.zeros((1, 2)))
    framed = draw_keypoints(grey(side), np.zeros((1, 2)), np.array([[[1.0, 0.0], [0.0, -1.0]]]))
    rows, columns = np.nonzero((framed != plain).any(2))
    middle = (side - 1) / 2
    assert columns.max() > middle + 15, "x to the right"
    assert columns.min() > middle - 8
    assert rows.min() < middle - 15, "y upwards, for its column is (0, -1)"
    assert rows.max() < middle + 8


def test_twenty_keypoints_have_twenty_colours():
    colours = [np.array(colour(number, 20)) for number in range(20)]
    assert min(np.abs(one - other).sum() for one, other in itertools.combinations(colours, 2)) > 60


wild = st.floats(-3, 3)


@given(st.lists(st.tuples(wild, wild), min_size=1, max_size=4), st.lists(st.floats(-50, 50), min_size=4, max_size=4))
def test_keypoints_and_jacobians_outside_the_frame_are_drawn_as_far_as_they_reach_in(keypoints, entries):
    jacobians = np.tile(np.reshape(entries, (1, 2, 2)), (len(keypoints), 1, 1))
    drawn = draw_keypoints(grey(48), np.array(keypoints), jacobians)
    assert drawn.shape == (48, 48, 3)
    assert drawn.dtype == np.uint8
