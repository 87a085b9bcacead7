"""Where metrics get their keypoints and embeddings: detectors, true positions, the model itself.

Each source is asked for the same chunk by several metrics and answers from memory then.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import EmbeddingSource, FrameChunk, KeypointSource
from fommctl.api.protocols import Detector, Embedder, Renderer
from fommctl.api.specs import DetectorSpec, EmbedderSpec
from fommctl.errors import UsageError
from fommctl.evaluate.detection_cache import DetectionCache, Pixels, Result

Points = NDArray[np.float64]
Both = tuple[Points, Points | None]
"""Keypoints of prediction and truth."""
TRUE, MODEL = "true", "model"
"""Names of the sources that are no detectors."""


def detector_keypoints(spec: DetectorSpec, cache: DetectionCache, *, version: str = "") -> KeypointSource:
    """The landmarks of the first subject that a detector returns, as the published scripts take them.

    The detector is built when it is first needed, which it is not where all is in the cache.
    version: of the plugin that the detector is from (`Host.version`); results of another one are not taken.
    Raises UsageError for a detector without landmarks; what `spec.build` raises comes with the first chunk.
    """
    if not spec.landmarks:
        raise UsageError(f"the detector {spec.name!r} finds no keypoints", "Name one that finds landmarks.")
    return _DetectorKeypoints(spec, cache, version)


def true_keypoints(points: Points) -> KeypointSource:
    """True keypoints; the prediction's are found again by the picture around the true ones (see `matching`).

    points: (T, K, 2) in pixels of the truth, for every frame of the clip, NaN where one is hidden. Points of the truth
    around which there is nothing to be seen are absent on both sides. Asked for more frames than there are points, or
    for frames without truth, it raises UsageError.
    """
    return _TrueKeypoints(points)


def model_keypoints(renderer: Renderer) -> KeypointSource:
    """The keypoints of the model that is evaluated: how well a result keeps what the model itself sees in the truth.

    No two models may be compared by it, for each is measured with its own keypoints. Asked for the first chunk it
    raises UsageError if the model has none.
    """
    return _ModelKeypoints(renderer)


def embedding_source(spec: EmbedderSpec, cache: DetectionCache, *, version: str = "") -> EmbeddingSource:
    """The embeddings of an embedder, which is built when it is first needed.

    version: as of `detector_keypoints`. What `spec.build` raises comes with the first frames.
    """
    return _Embeddings(spec, cache, version)


def in_pixels(points: Points, width: int, height: int) -> Points:
    """Points (..., 2) in [-1, 1], corner pixels at -1 and 1, in pixels of a frame of this size."""
    pixels: Points = (points + 1) / 2 * np.array((width - 1, height - 1), np.float64)
    return pixels


class _DetectorKeypoints:
    def __init__(self, spec: DetectorSpec, cache: DetectionCache, version: str) -> None:
        self.name = spec.name
        self._spec = spec
        self._cache = cache
        self._source = source_name(spec, version)
        self._detector: Detector | None = None

    def __call__(self, chunk: FrameChunk) -> Both:
        prediction = self._points(chunk.prediction)
        return prediction, None if chunk.truth is None else self._points(chunk.truth)

    def _points(self, frames: NDArray[np.uint8]) -> Points:
        found = self._cache.results(self._source, list(frames), self._detect)
        return _stacked(found, (self._spec.landmarks, 2))

    def _detect(self, frames: list[Pixels]) -> list[Result]:
        if self._detector is None:
            self._detector = self._spec.build()
        return [subjects[0].landmarks if subjects else None for subjects in self._detector.detect(frames)]


class _Embeddings:
    def __init__(self, spec: EmbedderSpec, cache: DetectionCache, version: str) -> None:
        self.name = spec.name
        self._spec = spec
        self._cache = cache
        self._source = source_name(spec, version)
        self._embedder: Embedder | None = None

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        return _stacked(self._cache.results(self._source, list(frames), self._embed), (self._spec.dimension,))

    def _embed(self, frames: list[Pixels]) -> list[Result]:
        if self._embedder is None:
            self._embedder = self._spec.build()
        return self._embedder.embed(frames)


class _OfLatest:
    """Remembers its answer to the latest chunk."""

    def __init__(self) -> None:
        self._latest: tuple[FrameChunk, Both] | None = None

    def __call__(self, chunk: FrameChunk) -> Both:
        if self._latest is None or self._latest[0] is not chunk:
            self._latest = chunk, self._both(chunk)
        return self._latest[1]

    def _both(self, chunk: FrameChunk) -> Both:
        raise NotImplementedError


class _TrueKeypoints(_OfLatest):
    name = TRUE

    def __init__(self, points: Points) -> None:
        super().__init__()
        self._points = points

    def _both(self, chunk: FrameChunk) -> Both:
        if chunk.truth is None:
            raise UsageError(
                "true keypoints cannot be looked for without true frames", "Name a detector with --keypoints."
            )
        points = self._points[chunk.first : chunk.first + len(chunk)]
        if len(points) < len(chunk):
            raise UsageError(
                f"the clip has {chunk.first + len(chunk)} frames and true keypoints of {len(self._points)}",
                "Make the data set again, or name a detector with --keypoints.",
            )
        # Importing torch takes longer than scoring a short clip.
        from fommctl.evaluate.matching import find_again

        return find_again(chunk.prediction, chunk.truth, points)


class _ModelKeypoints(_OfLatest):
    name = MODEL

    def __init__(self, renderer: Renderer) -> None:
        super().__init__()
        self._renderer = renderer

    def _both(self, chunk: FrameChunk) -> Both:
        return self._points(chunk.prediction), None if chunk.truth is None else self._points(chunk.truth)

    def _points(self, frames: NDArray[np.uint8]) -> Points:
        from fommctl.networks.pixels import to_tensor

        keypoints = self._renderer.detect(to_tensor(list(frames), self._renderer.device)).keypoints
        if not keypoints.shape[1]:
            raise UsageError("this model has no keypoints of its own", "Name a detector with --keypoints.")
        return in_pixels(keypoints.detach().cpu().double().numpy(), frames.shape[2], frames.shape[1])


def source_name(spec: DetectorSpec | EmbedderSpec, version: str) -> str:
    """Whose results these are, for the cache: of which plugin's version, by which versions of its packages."""
    return "; ".join(part for part in (spec.name, version, *map(_installed, spec.packages)) if part)


def _installed(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""


def _stacked(found: Sequence[Result], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Results of this shape, NaN throughout where there is none."""
    rows = np.full((len(found), *shape), np.nan)
    for row, result in zip(rows, found, strict=True):
        if result is not None:
            row[...] = result
    return rows
