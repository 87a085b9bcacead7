from fractions import Fraction

import pytest

from fommctl.api import Box, Detection
from fommctl.detection.choice import numbered_tracks
from fommctl.detection.tracking import confident_detections, link_detections, persistent_tracks


def seen(left: float, width: float = 100, score: float = 1.0) -> Detection:
    return Detection(Box(left, 50, left + width, 50 + width), score)


def times(count: int, rate: int = 5) -> list[Fraction]:
    return [Fraction(number, rate) for number in range(count)]


def test_the_largest_of_the_sure_subjects_comes_first_and_the_false_face_is_none():
    small, large, false = seen(0, 60, 1.5), seen(300, 90, 0.9), seen(600, 120, 0.12)
    assert confident_detections([small, large, false]) == [large, small]


def test_no_detections_no_subjects():
    assert confident_detections([]) == []
    assert persistent_tracks([], searched=10) == []


def test_two_people_walking_are_two_tracks():
    found = [[seen(10 + 20 * number), seen(500 - 15 * number)] for number in range(8)]
    tracks = link_detections(times(8), found)
    assert [[round(detection.box.left) for detection in track.detections] for track in tracks] == [
        [10 + 20 * number for number in range(8)],
        [500 - 15 * number for number in range(8)],
    ]


def test_a_subject_is_found_again_where_it_was_lost():
    found = [[seen(100)], [], [], [seen(130)], [seen(140)]]
    (track,) = link_detections(times(5), found)
    assert track.samples == [0, 3, 4]


def test_what_appears_far_away_is_another():
    assert [track.samples for track in link_detections(times(2), [[seen(100)], [seen(400)]])] == [[0], [1]]


def test_what_has_twice_the_size_is_another():
    assert len(link_detections(times(2), [[seen(100, 60)], [seen(100, 120)]])) == 2


def test_in_a_sparse_search_a_subject_may_have_moved_further():
    (track,) = link_detections([Fraction(0), Fraction(12)], [[seen(100)], [seen(400)]])
    assert track.samples == [0, 1]


def test_a_mistake_in_one_frame_of_many_is_no_subject():
    assert persistent_tracks(link_detections(times(50), [[seen(0)]] + [[]] * 49), searched=50) == []
    assert len(persistent_tracks(link_detections(times(2), [[seen(0)], []]), searched=2)) == 1


def test_a_passer_by_is_not_followed_though_larger():
    found = [[seen(100)] + ([seen(400, 200)] if number < 2 else []) for number in range(12)]
    (track,) = persistent_tracks(link_detections(times(12), found), searched=12)
    assert track.width == 100


def test_of_two_that_stay_the_larger_is_followed():
    tracks = persistent_tracks(link_detections(times(6), [[seen(100, 80, 2.0), seen(400, 90, 1.0)]] * 6), searched=6)
    assert [track.width for track in tracks] == [90, 80]


@pytest.mark.parametrize("hidden", [0, 70], ids=["side by side", "one behind the other"])
def test_two_people_who_cross_continue_as_they_came(hidden):
    """Both if one is hidden behind the other and if both are always visible."""
    found = []
    for number in range(16):
        left, right = 100 + 25 * number, 450 - 25 * number
        found.append([seen(left), *([seen(right)] if abs(left - right) >= hidden else [])])
    tracks = persistent_tracks(link_detections(times(16), found), searched=16)
    ends = {round(track.detections[0].box.left): round(track.detections[-1].box.left) for track in tracks}
    assert ends == {100: 475, 450: 75}


def test_tracks_are_numbered_from_left_to_right_and_newcomers_follow():
    found = [
        [seen(400), *([seen(100)] if number else []), *([seen(10, 80)] if number > 9 else [])] for number in range(20)
    ]
    tracks = persistent_tracks(link_detections(times(20), found), searched=20)
    assert [track.detections[0].box.left for track in numbered_tracks(tracks, times(20))] == [100, 400, 10]
