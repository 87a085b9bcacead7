"""Openings of mouth and eyelids: by hand, with drawn landmarks, and for a face whose lips are moved."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_sources import GivenKeypoints, score

from fommctl.api.metrics import ClipScores, MetricClip
from fommctl.host import Host, load_host

NAN = math.nan
NAMES = ("mouth.correlation", "mouth.gain", "eyelids.correlation", "eyelids.gain")
HOST = load_host()
WIDTH = 80.0
"""Distance between the outer corners of the drawn eyes, pixels."""
LIDS = {68: ((37, 41), (38, 40), (43, 47), (44, 46)), 478: ((160, 144), (158, 153), (385, 380), (387, 373))}
CORNERS, LIPS = {68: (36, 45), 478: (33, 263)}, {68: (62, 66), 478: (13, 14)}


def face(mouth: object, eyes: object = 0.1, *, size: float = 1.0, number: int = 68) -> np.ndarray:
    """Return landmarks (N, number, 2) of faces with these openings, relative to the distance between the eyes' corners;
    NaN for no face. One eye opens a fifth further than the mean, the other a fifth less."""
    mouths, lids = np.broadcast_arrays(np.asarray(mouth, float), np.asarray(eyes, float))
    points = np.zeros((len(mouths), number, 2))
    left, right = CORNERS[number]
    points[:, right, 0] = WIDTH
    points[:, LIPS[number][1], 1] = mouths * WIDTH
    for pair, share in zip(LIDS[number], (1.2, 1.2, 0.8, 0.8), strict=True):
        points[:, pair[0], 0] = points[:, pair[1], 0] = 10 * pair[0]
        points[:, pair[1], 1] = share * lids * WIDTH
    points[np.isnan(mouths) | np.isnan(lids)] = NAN
    assert (points[:, left] == 0).all() or np.isnan(points).any()
    return points * size + (30, 20)


def measured(name: str, prediction: np.ndarray, driving: np.ndarray, cuts: tuple[int, ...] = ()) -> ClipScores:
    clip = MetricClip("clip", 25.0, keypoints=GivenKeypoints(prediction, driving))
    pictures = np.zeros((len(prediction), 4, 4, 3), np.uint8)
    return score(HOST.metrics[name].build(), clip, pictures, pictures, cuts)


SPOKEN = np.array([0.0, 0.1, 0.2, 0.1, 0.0, 0.2])
"""An opening with mean 0.1 and a sum of squared deviations of 0.04."""


@pytest.mark.parametrize("number", [68, 478])
def test_a_mouth_that_opens_half_as_far(number: int) -> None:
    half = face(0.05 + SPOKEN / 2, number=number)
    found = {name: measured(name, half, face(SPOKEN, number=number)) for name in NAMES}
    assert found["mouth.correlation"].value == pytest.approx(1)
    assert found["mouth.gain"].value == pytest.approx(0.5)
    assert (found["mouth.gain"].scored, found["mouth.gain"].total, len(found["mouth.gain"].frames)) == (6, 6, 0)
    # The driving eyes do not move.
    assert (found["eyelids.correlation"].value, found["eyelids.gain"].value) == (None, None)
    assert (found["eyelids.gain"].scored, found["eyelids.gain"].total) == (0, 6)


@pytest.mark.parametrize("number", [68, 478])
def test_lids_count_as_the_mean_of_both_eyes(number: int) -> None:
    blink = np.array([0.1, 0.1, 0.0, 0.05, 0.1, 0.1])
    found = {
        name: measured(name, face(0, 0.3 * blink, number=number), face(0, blink, number=number)).value for name in NAMES
    }
    assert found["eyelids.correlation"] == pytest.approx(1)
    assert found["eyelids.gain"] == pytest.approx(0.3)
    assert found["mouth.gain"] is None
    one_eye = face(0, blink, number=number)
    for upper, lower in LIDS[number][2:]:
        one_eye[:, lower] = one_eye[:, upper]
    # The eye that still blinks has 1.2 of 2 shares.
    assert measured("eyelids.gain", one_eye, face(0, blink, number=number)).value == pytest.approx(0.6)


def test_a_case_by_hand() -> None:
    result = np.array([0.1, 0.1, 0.2, 0.1, 0.0, 0.1])
    # Deviations of the driving mouth: -.1 0 .1 0 -.1 .1; of the result, with mean .1: 0 0 .1 0 -.1 0.
    driving, moved, common = 0.04, 0.02, 0.01 + 0.01
    found = [measured(name, face(result), face(SPOKEN)).value for name in NAMES[:2]]
    assert found == pytest.approx([common / math.sqrt(driving * moved), common / driving])


def test_sizes_of_faces_and_frames_cancel() -> None:
    assert measured("mouth.gain", face(SPOKEN, size=3.0), face(SPOKEN, size=0.5)).value == pytest.approx(1)


def test_a_face_that_is_lost_counts_as_a_mouth_that_keeps_still() -> None:
    lost = SPOKEN.copy()
    lost[[1, 2]] = NAN
    # The others are 0 .1 0 .2, with mean .075, which replaces the lost frames.
    rest = np.array([0, 0.1, 0, 0.2]) - 0.075
    common = rest @ np.array([-0.1, 0, -0.1, 0.1])
    found = [measured(name, face(lost), face(SPOKEN)) for name in NAMES[:2]]
    assert [each.value for each in found] == pytest.approx([common / math.sqrt(0.04 * (rest @ rest)), common / 0.04])
    assert [each.scored for each in found] == [6, 6]
    nothing = face(np.full(6, NAN))
    assert [measured(name, nothing, face(SPOKEN)).value for name in NAMES[:2]] == [0, 0]


def test_a_driving_video_without_a_face_is_not_counted() -> None:
    driving = np.concatenate([[NAN], SPOKEN, [NAN, NAN]])
    result = np.concatenate([[0.9], SPOKEN, [NAN, 0.9]])
    for name in NAMES[:2]:
        found = measured(name, face(result), face(driving))
        assert (found.value, found.scored, found.total) == (pytest.approx(1), 6, 9)


def test_a_result_that_repeats_its_first_frame_follows_nothing() -> None:
    assert [measured(name, face(np.full(6, 0.1)), face(SPOKEN)).value for name in NAMES[:2]] == pytest.approx([0, 0])
    opposite = [measured(name, face(0.2 - SPOKEN), face(SPOKEN)).value for name in NAMES[:2]]
    assert opposite == pytest.approx([-1, -1])


@pytest.mark.parametrize(("name", "least"), [("mouth", 0.010), ("eyelids", 0.006)])
def test_a_driving_video_that_only_trembles_has_no_score(name: str, least: float) -> None:
    for factor, still in ((0.99, True), (1.01, False)):
        swing = 0.1 + least * factor * np.array([1, -1] * 4)
        driving = face(swing, 0.1) if name == "mouth" else face(0.1, swing)
        for kind in ("correlation", "gain"):
            found = measured(f"{name}.{kind}", driving, driving)
            assert found.value == (None if still else pytest.approx(1))
            assert found.scored == (0 if still else 8)


@pytest.mark.parametrize("count", range(7))
def test_a_few_frames_are_a_line_by_chance(count: int) -> None:
    spoken = face(SPOKEN[:count])
    found = measured("mouth.gain", spoken, spoken)
    assert (found.value, found.scored, found.total) == (
        (pytest.approx(1), count, count) if count >= 5 else (None, 0, count)
    )


def test_landmarks_of_another_kind_are_not_measured() -> None:
    points = np.random.default_rng(0).uniform(0, 30, (9, 18, 2))
    for name in NAMES:
        found = measured(name, points, points)
        assert (found.value, found.scored, found.total) == (None, 0, 9)


@given(cuts=st.lists(st.integers(0, 12), max_size=4), seed=st.integers(0, 2**32 - 1), name=st.sampled_from(NAMES))
@settings(max_examples=40, deadline=None)
def test_how_a_clip_is_divided_does_not_matter(cuts: list[int], seed: int, name: str) -> None:
    random = np.random.default_rng(seed)
    openings = random.uniform(0, 0.2, (2, 2, 12))
    openings[random.random(openings.shape) < 0.1] = NAN
    prediction, driving = (face(*each) for each in openings)
    whole, parts = measured(name, prediction, driving), measured(name, prediction, driving, tuple(cuts))
    assert (parts.value, parts.scored, parts.total) == (whole.value, whole.scored, whole.total)
    assert whole.value is None or (
        math.isfinite(whole.value) and (name.endswith("gain") or abs(whole.value) <= 1 + 1e-9)
    )


def test_they_are_measured_across_identities_too(host: Host) -> None:
    assert all(host.metrics[name].needs == "driving" for name in NAMES)
