import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fommctl.animate.reference import nearest_pose, pose
from fommctl.api import InputError

SQUARE = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], float)
LEANING = SQUARE + np.array([[0, 0], [0, 0], [1, 0], [1, 0]])
WIDE = SQUARE * np.array([3, 1])


def test_the_same_pose_elsewhere_and_larger_is_the_nearest():
    index, distance = nearest_pose(SQUARE, [LEANING, SQUARE * 7 + 40, WIDE])
    assert index == 1
    assert distance == pytest.approx(0)


def test_the_distance_is_the_published_one():
    # Centred and divided by the square root of the hull's area, 2: corners at +-0.5. The leaning shape has the same
    # area and its centre half a pixel to the right, so every x differs by a quarter.
    assert nearest_pose(SQUARE, [LEANING])[1] == pytest.approx(4 * 0.25**2)


def test_frames_without_landmarks_are_skipped():
    assert nearest_pose(SQUARE, [None, LEANING, None])[0] == 1


def test_hidden_points_do_not_count():
    hidden = np.concatenate((SQUARE, [[np.nan, np.nan]]))
    visible = np.concatenate((LEANING, [[40, 40]]))
    # Four of five points count: the published distance, scaled up.
    assert nearest_pose(hidden, [visible])[1] == pytest.approx(4 * 0.25**2 * 5 / 4)
    assert nearest_pose(visible, [hidden, visible])[0] == 1
    with pytest.raises(InputError, match="no driving frame"):
        nearest_pose(hidden, [np.full((5, 2), np.nan)])


@pytest.mark.parametrize("driving", [[], [None, None], [np.zeros((4, 2))]])
def test_incomparable_frames_are_reported(driving):
    with pytest.raises(InputError, match="no driving frame"):
        nearest_pose(SQUARE, driving)


points = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=12).map(np.array)


@given(points, st.floats(0.1, 20), st.floats(-5, 5), st.floats(-5, 5))
def test_place_and_size_do_not_count(shape, size, x, y):
    shape = np.concatenate((SQUARE, shape))
    assert np.allclose(pose(shape), pose(shape * size + np.array([x, y])), atol=1e-6)
