"""Sources of keypoints and embeddings: their results, and that nothing is detected twice."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray

from fommctl.api import Box, Detection, DetectorSpec, EmbedderSpec, UsageError
from fommctl.api.blocks import Motion
from fommctl.api.metrics import FrameChunk
from fommctl.evaluate.detection_cache import DetectionCache
from fommctl.evaluate.keypoint_sources import (
    DetectorKeypoints,
    Embeddings,
    ModelKeypoints,
    TrueKeypoints,
    in_pixels,
    source_name,
)
from fommctl.host import Host

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """The astronaut's face in two frames (2, 160, 160, 3), a few pixels apart."""
    picture = skimage.data.astronaut()
    return np.stack([picture[40:200, 150 + 4 * step : 310 + 4 * step] for step in range(2)])


class Counting:
    """A detector or embedder that counts pictures, and the largest number at once."""

    def __init__(self, inner: object) -> None:
        self.inner = inner
        self.built = self.seen = self.most = 0

    def build(self) -> "Counting":
        self.built += 1
        return self

    def _count(self, frames: Sequence[np.ndarray]) -> None:
        self.seen += len(frames)
        self.most = max(self.most, len(frames))

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]:
        self._count(frames)
        return self.inner.detect(frames)

    def embed(self, frames: Sequence[np.ndarray]) -> list[NDArray[np.float32] | None]:
        self._count(frames)
        return self.inner.embed(frames)


def counted(spec: DetectorSpec | EmbedderSpec) -> tuple[Counting, DetectorSpec | EmbedderSpec]:
    counting = Counting(spec.build())
    return counting, replace(spec, build=counting.build)


def test_a_second_evaluation_of_the_same_truth_detects_nothing(host: Host, faces: np.ndarray, tmp_path: Path) -> None:
    """A real detector, wrapped; the second evaluation has another cache object, other chunks and other predictions."""
    detector, spec = counted(host.detectors["dlib-68"])
    first = DetectorKeypoints(spec, DetectionCache(tmp_path))
    black = np.zeros_like(faces)
    prediction, truth = first(FrameChunk(black, faces))
    assert (detector.built, detector.seen) == (1, 3)  # two faces, and the black frame once
    assert np.isnan(prediction).all()
    assert truth is not None
    expected = np.stack([found[0].landmarks for found in host.detectors["dlib-68"].build().detect(list(faces))])
    np.testing.assert_array_equal(truth, expected)
    assert truth.dtype == np.float64

    second = DetectorKeypoints(spec, DetectionCache(tmp_path))
    for index in (1, 0):
        _, again = second(FrameChunk(black[:1], faces[index : index + 1].copy(order="F"), None, index))
        np.testing.assert_array_equal(again[0], expected[index])
    assert (detector.built, detector.seen) == (1, 3)


def test_results_of_another_detector_or_version_are_not_taken(host: Host, faces: np.ndarray, tmp_path: Path) -> None:
    detector, spec = counted(host.detectors["dlib-68"])
    chunk = FrameChunk(faces[:1], None)
    for version, seen in (("fommctl 1", 1), ("fommctl 1", 1), ("fommctl 2", 2)):
        points, nothing = DetectorKeypoints(spec, DetectionCache(tmp_path), version=version)(chunk)
        assert (points.shape, nothing) == ((1, 68, 2), None)
        assert detector.seen == seen
    DetectorKeypoints(replace(spec, name="other"), DetectionCache(tmp_path), version="fommctl 2")(chunk)
    assert detector.seen == 3
    assert source_name(replace(spec, packages=("numpy", "no-such")), "f 1") == f"dlib-68; f 1; numpy {np.__version__}"


def test_embeddings_come_batched_and_from_the_cache(host: Host, faces: np.ndarray, tmp_path: Path) -> None:
    embedder, spec = counted(host.embedders["dlib-128"])
    source = Embeddings(spec, DetectionCache(tmp_path))
    frames = np.concatenate([faces[:1], np.zeros_like(faces[:1])])
    found = source(frames)
    assert (source.name, found.shape, found.dtype) == ("dlib-128", (2, 128), np.float64)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()
    again = Embeddings(spec, DetectionCache(tmp_path))(frames[::-1])
    np.testing.assert_array_equal(again[::-1], found)
    assert (embedder.built, embedder.seen) == (1, 2)


class Corner:
    """Detects two points in any picture, and a fainter subject next to them."""

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]:
        box = Box(0, 0, 4, 4)
        found = [np.full((2, 2), frame[0, 0, 0], np.float32) for frame in frames]
        return [[Detection(box, 2.0, points), Detection(box, 1.0, points + 1)] for points in found]


def test_the_first_subject_counts_and_pictures_come_in_batches() -> None:
    counting = Counting(Corner())
    spec = DetectorSpec(name="corner", summary="s", subject="x", build=counting.build, landmarks=2)
    frames = np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    points, _ = DetectorKeypoints(spec, DetectionCache(None))(FrameChunk(frames, frames))
    np.testing.assert_array_equal(points, np.arange(40)[:, None, None] * np.ones((1, 2, 2)))
    assert (counting.seen, counting.most) == (40, 16)


def test_detectors_without_landmarks_are_no_source(host: Host) -> None:
    with pytest.raises(UsageError, match="has no landmarks"):
        DetectorKeypoints(host.detectors["dlib-hog"], DetectionCache(None))


def test_true_keypoints_follow_the_frames_of_the_chunk() -> None:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    truth = small.repeat(8, 1).repeat(8, 2)
    points = random.uniform(20, 44, (6, 3, 2))
    points[4, 1] = np.nan
    source = TrueKeypoints(points)
    chunk = FrameChunk(np.roll(truth[3:], 2, 2), truth[3:], None, 3)
    prediction, known = source(chunk)
    np.testing.assert_array_equal(known, points[3:])
    np.testing.assert_allclose(prediction, points[3:] + np.array((2, 0)), atol=0.1)
    assert source(chunk)[0] is prediction
    assert np.isnan(source(FrameChunk(np.zeros_like(truth), truth))[0]).all()
    with pytest.raises(UsageError, match="7 frames, but true keypoints for 6"):
        source(FrameChunk(truth[:2], truth[:2], None, 5))
    with pytest.raises(UsageError, match="true keypoints need true frames"):
        source(FrameChunk(truth, None))


class Brightness:
    """A renderer with one keypoint, at the position given by red and green of the first pixel, from -1 to 1."""

    device = torch.device("cpu")
    count = 1
    asked = 0

    def detect(self, frames: torch.Tensor) -> Motion:
        self.asked += 1
        return Motion((frames[:, :2, 0, 0] * 2 - 1)[:, None].expand(-1, self.count, -1))


def test_the_models_own_keypoints_are_in_pixels() -> None:
    renderer = Brightness()
    source = ModelKeypoints(renderer)
    frames = np.zeros((2, 11, 21, 3), np.uint8)
    frames[1, 0, 0] = (255, 51, 0)
    chunk = FrameChunk(frames, frames[::-1])
    prediction, truth = source(chunk)
    np.testing.assert_allclose(prediction, [[[0, 0]], [[20, 2]]], atol=1e-5)
    np.testing.assert_allclose(truth, prediction[::-1])
    source(chunk)
    assert renderer.asked == 2
    assert source(FrameChunk(frames, None))[1] is None
    renderer.count = 0
    with pytest.raises(UsageError, match="this model has no keypoints"):
        source(FrameChunk(frames, None))


def test_coordinates_in_pixels() -> None:
    np.testing.assert_allclose(in_pixels(np.array([[-1.0, 1.0], [0.0, np.nan]]), 65, 33), [[0, 32], [32, np.nan]])


def test_there_are_no_warnings_if_all_is_well(host: Host, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.WARNING):
        DetectionCache(tmp_path / "new/folder").results("a", [np.zeros((2, 2, 3), np.uint8)], lambda frames: [None])
    assert caplog.records == []
    assert (tmp_path / "new/folder").is_dir()
