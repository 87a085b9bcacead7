from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fommctl.api import Box, Detection
from fommctl.detection.tracking import Sample, follow_first_box, union


def seen(left: float, top: float = 50, side: float = 100, score: float = 1.0) -> Detection:
    return Detection(Box(left, top, left + side, top + side), score)


def samples(found: list[list[Detection]]) -> list[Sample]:
    """Return samples at five searched frames per second of a clip with 25."""
    return [
        Sample(5 * number, Fraction(number, 5), Fraction(number, 5) + Fraction(1, 25), tuple(detections))
        for number, detections in enumerate(found)
    ]


def link_detections(found: list[list[Detection]], iou: float = 0.25, max_gap: Fraction = Fraction(1)):
    tracks = follow_first_box(samples(found), iou=iou, max_gap=max_gap)
    return [[(sample.frame // 5, round(one.box.left)) for sample, one in zip(t.samples, t.detections, strict=True)]
            for t in tracks]  # fmt: skip


def test_a_track_ends_where_the_overlap_with_its_first_box_is_a_quarter():
    # Two squares of side 100 at a distance of d overlap by (100 - d) / (100 + d): a quarter at d = 60.
    assert link_detections([[seen(0)], [seen(30)], [seen(59)], [seen(61)], [seen(90)]]) == [
        [(0, 0), (1, 30), (2, 59)],
        [(3, 61), (4, 90)],
    ]


def test_the_overlap_is_an_option():
    # 0.5 at d = 33.3.
    assert link_detections([[seen(0)], [seen(33)], [seen(34)]], iou=0.5) == [[(0, 0), (1, 33)], [(2, 34)]]


def test_a_subject_that_doubles_its_size_in_place_is_another_track():
    # The small square is inside the large one: the overlap is 1/4, and no more.
    assert len(link_detections([[seen(0, 0, 100)], [seen(-50, -50, 200)]])) == 2


def test_frames_without_a_face_are_bridged_up_to_the_gap():
    gap = [[]] * 4
    assert link_detections([[seen(0)], *gap, [seen(5)]]) == [[(0, 0), (5, 5)]]
    assert link_detections([[seen(0)], *gap, [], [], [seen(5)]]) == [[(0, 0)], [(7, 5)]]
    assert link_detections([[seen(0)], [], [seen(5)]], max_gap=Fraction(0)) == [[(0, 0)], [(2, 5)]]


def test_two_that_stand_side_by_side_stay_two():
    found = [[seen(3 * number), seen(150 - 3 * number)] for number in range(6)]
    assert link_detections(found) == [
        [(number, 3 * number) for number in range(6)],
        [(number, 150 - 3 * number) for number in range(6)],
    ]


def test_of_two_that_cross_with_one_hidden_both_tracks_end():
    left, right = [seen(3 * n) for n in range(5)], [seen(58 - 3 * n) for n in range(5)]
    hidden = [[seen(15)], [seen(20)]]
    after = [[seen(5 - n), seen(50 + n)] for n in range(5)]
    tracks = link_detections([*map(list, zip(left, right, strict=True)), *hidden, *after])
    assert [track[0][0] for track in tracks[:2]] == [0, 0]
    assert [track[-1][0] for track in tracks[:2]] == [4, 4]
    assert all(track[0][0] >= 5 for track in tracks[2:])


def test_who_comes_where_another_has_left_is_a_track_of_its_own():
    # The first walks out of its first box (at 75) and on; 0.4 s later, somebody else is where it began.
    found = [[seen(25 * number)] for number in range(5)] + [[seen(125), seen(0)], [seen(150), seen(0)]]
    assert link_detections(found) == [
        [(0, 0), (1, 25), (2, 50)],
        [(3, 75), (4, 100), (5, 125)],
        [(5, 0), (6, 0)],
        [(6, 150)],
    ]


def test_two_that_pass_each_other_in_full_view_are_told_apart_by_their_motion():
    # At their closest, each is nearer to the other's previous position.
    found = [[seen(10 * n, 30), seen(50 - 10 * n, 75)] for n in range(6)]
    tracks = link_detections(found, iou=0.2)
    assert tracks == [[(n, 10 * n) for n in range(6)], [(n, 50 - 10 * n) for n in range(6)]]


def test_a_subject_that_is_reported_twice_is_one():
    assert link_detections([[seen(0, score=1.0), seen(5, score=0.4)]] * 3) == [[(0, 0), (1, 0), (2, 0)]]


def test_a_short_mistake_beside_a_face_ends_nothing():
    found = [[seen(0), *([seen(45)] if number == 2 else [])] for number in range(6)]
    tracks = link_detections(found)
    assert tracks[0] == [(number, 0) for number in range(6)]
    assert tracks[1] == [(2, 45)]


def test_the_union_of_boxes():
    assert union([Box(0, 5, 10, 20), Box(-3, 7, 4, 30)]) == Box(-3, 5, 10, 30)


boxes = st.builds(seen, st.integers(0, 400), st.integers(0, 200), st.sampled_from([60, 72, 86, 104]))


@given(st.lists(st.lists(boxes, max_size=3), max_size=12), st.floats(0.05, 0.9), st.sampled_from([0, 1, 3]))
def test_every_detection_is_of_one_track_and_overlaps_its_first_box(found, iou, gap):
    tracks = follow_first_box(samples(found), iou=iou, max_gap=Fraction(gap))
    places = [(sample.frame, id(one)) for track in tracks for sample, one in
              zip(track.samples, track.detections, strict=True)]  # fmt: skip
    assert len(places) == len(set(places)) <= sum(map(len, found))
    for track in tracks:
        assert all(one.box.iou(track.first) > iou for one in track.detections[1:])
        frames = [sample.frame for sample in track.samples]
        assert frames == sorted(set(frames))
        for before, after in zip(track.samples, track.samples[1:], strict=False):
            # No frame between them had a detection of the subject, and the last of these was within the gap.
            assert after.frame == before.frame + 5 or after.time - Fraction(1, 5) - before.end <= gap


def test_without_samples_there_is_no_track():
    assert link_detections([]) == []
    assert link_detections([[], []]) == []
    with pytest.raises(IndexError):
        _ = link_detections([[]])[0]
