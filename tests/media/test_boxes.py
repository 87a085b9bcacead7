import pytest
from hypothesis import given
from hypothesis import strategies as st

from fommctl.media.boxes import Box, square

number = st.floats(-2000, 2000)
length = st.floats(0, 3000)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), number, number, length, length)
sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


def test_iou_of_two_boxes_that_share_a_quarter_of_each():
    assert Box(0, 0, 2, 2).iou(Box(1, 1, 3, 3)) == pytest.approx(1 / 7)


def test_scaling_follows_the_picture():
    assert Box(10, 20, 30, 60).scaled(2, 0.5) == Box(20, 10, 60, 30)
    assert Box(10, 20, 30, 60).scaled(0.5) == Box(5, 10, 15, 30)


def test_square_on_the_chroma_grid():
    assert square((50.4, 41.2), 33, multiple=2) == Box(34, 26, 66, 58)
    assert square((50.4, 41.2), 33) == Box(34, 25, 67, 58)


@given(boxes, boxes)
def test_iou_is_symmetric_and_between_zero_and_one(one, other):
    assert 0 <= one.iou(other) <= 1
    assert one.iou(other) == other.iou(one)


@given(boxes)
def test_iou_with_itself_is_one_where_there_is_an_area(box):
    assert box.iou(box) == (pytest.approx(1) if box.area > 0 else 0)


@given(boxes, boxes)
def test_intersection_lies_in_both(one, other):
    shared = one.intersection(other)
    assert shared.area <= min(one.area, other.area) + 1e-6
    if shared.area > 0:
        for box in (one, other):
            assert box.left <= shared.left < shared.right <= box.right
            assert box.top <= shared.top < shared.bottom <= box.bottom


@given(st.tuples(st.integers(-500, 500), st.integers(-500, 500)), st.integers(1, 300), sizes)
def test_a_box_shifted_inside_keeps_its_size_and_fits_or_covers(corner, side, size):
    box = Box(corner[0], corner[1], corner[0] + side, corner[1] + side)
    moved = box.shifted_inside(*size)
    assert (moved.width, moved.height) == (side, side)
    for low, high, length in ((moved.left, moved.right, size[0]), (moved.top, moved.bottom, size[1])):
        assert (low >= 0 and high <= length) if side <= length else (low <= 0 and high >= length)
    assert moved.shifted_inside(*size) == moved


@given(boxes, sizes)
def test_a_clipped_box_lies_in_the_picture(box, size):
    inside = box.clipped(*size)
    assert inside.left >= 0
    assert inside.top >= 0
    assert inside.area == 0 or (inside.right <= size[0] and inside.bottom <= size[1])


@given(number, number, st.floats(1, 2000), st.sampled_from([1, 2, 4]))
def test_squares_are_square_whole_and_near_their_centre(x, y, side, multiple):
    box = square((x, y), side, multiple)
    assert box.width == box.height
    assert all(value % multiple == 0 for value in (box.left, box.top, box.width))
    assert abs(box.center[0] - x) <= multiple
    assert abs(box.center[1] - y) <= multiple
    assert abs(box.width - side) <= multiple
