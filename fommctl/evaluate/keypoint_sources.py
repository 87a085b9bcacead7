"""Chooses and computes the keypoints and embeddings that metrics use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib import metadata
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import EmbeddingSource, FrameChunk, KeypointSource, MetricClip
from fommctl.api.protocols import Renderer
from fommctl.api.specs import DetectorSpec, EmbedderSpec, MetricSpec
from fommctl.datasets.keypoints import keypoints_path, read_keypoints
from fommctl.errors import MissingError, UsageError
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.detection_cache import DetectionCache, Result
from fommctl.evaluate.plan import Task
from fommctl.evaluate.scoring import missing_text
from fommctl.files import read_regular
from fommctl.home import home
from fommctl.host import Host, why_not_ready
from fommctl.media.resampling import Pixels

if TYPE_CHECKING:
    from fommctl.animate.engine import Engine


Spec = TypeVar("Spec", DetectorSpec, EmbedderSpec)
Points = NDArray[np.float64]
Both = tuple[Points, Points | None]
"""Keypoints of the prediction and of the truth."""
TRUE, MODEL = "true", "model"
"""Names of keypoint sources that are not detectors."""
AUTO = "auto"
KEYPOINTS, EMBEDDINGS = "keypoints", "embeddings"
"""Kinds of sources, as in `MetricSpec.uses`."""
KeypointChoice = DetectorSpec | Literal["true", "model"]


def choose_keypoints(
    host: Host, name: str = AUTO, *, subject: str | None, true_points: bool, model: bool
) -> KeypointChoice:
    """Choose the source of keypoints by name: `auto`, `true`, `model` or a detector, which need not be ready.

    `auto` chooses true keypoints if all clips have them, else the subject's ready detector with landmarks and the
    highest `metric_priority` (for faces: FAN, then dlib's 68 points, as the published scripts use 68).
    subject: of the preset's framing; None if unknown.  true_points: whether all clips have true keypoints, as scores
    from different sources cannot be averaged.  model: whether a model is evaluated, not finished results.
    Raises UsageError for a source that cannot be used, and MissingError if `auto` finds none.
    """
    if name == TRUE or (name == AUTO and true_points):
        if not true_points:
            raise UsageError(
                "not every clip has true keypoints",
                "'fommctl preprocess synthetic' writes them; for other data, choose a detector with --keypoints.",
            )
        return "true"
    if name == MODEL:
        if not model:
            raise UsageError(
                "finished results have no model to detect keypoints with", "Choose a detector with --keypoints."
            )
        return "model"
    if name != AUTO:
        return _with_landmarks(host.find("detector", name))
    fitting = [
        spec
        for spec in host.detectors.values()
        if spec.landmarks and spec.subject == subject and spec.metric_priority >= 0
    ]
    ready = [spec for spec in fitting if why_not_ready(spec) is None]
    if not ready:
        raise _missing("keypoints", subject, fitting)
    return max(ready, key=lambda spec: (spec.metric_priority, spec.priority))


def choose_embedder(host: Host, name: str | None = AUTO, *, subject: str | None) -> EmbedderSpec:
    """Choose an embedder by name, which need not be ready; for `auto` or None, the ready one with the highest priority.

    subject: as for `choose_keypoints`.  Raises UsageError for an unknown name, MissingError if `auto` finds none.
    """
    if name not in (AUTO, None):
        named: EmbedderSpec = host.find("embedder", name)
        return named
    fitting = [spec for spec in host.embedders.values() if spec.subject == subject]
    ready = [spec for spec in fitting if why_not_ready(spec) is None]
    if not ready:
        raise _missing("embedder", subject, fitting)
    return max(ready, key=lambda spec: spec.priority)


def _with_landmarks(spec: DetectorSpec) -> DetectorSpec:
    if not spec.landmarks:
        raise UsageError(f"the detector {spec.name!r} has no landmarks", "Choose one that has.")
    return spec


def _missing(option: str, subject: str | None, fitting: Iterable[DetectorSpec | EmbedderSpec]) -> MissingError:
    what = "keypoints" if option == "keypoints" else "identity"
    if subject is None:
        return MissingError(
            f"the subject of these clips is unknown, so their {what} cannot be measured",
            f"Choose a source with --{option}.",
        )
    reasons = "; ".join(f"{spec.name}: {why_not_ready(spec)}" for spec in fitting)
    return MissingError(
        f"no source for the {what} of a {subject} is ready ({reasons or 'none is installed'})",
        f"Install what is missing, or choose another source with --{option}.",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenSources:
    """Names of the sources that metrics use."""

    keypoints: str | None = None
    """Name of a detector, `true` or `model`; None if no metric needs keypoints or no source has them."""
    embedder: str | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    """Reasons why there are no sources, by kind (`keypoints`, `embeddings`)."""

    def to_json(self) -> dict[str, str | None]:
        """Return the names for the saved configuration."""
        return {KEYPOINTS: self.keypoints, "embedder": self.embedder}


def choose_sources(
    config: EvaluateConfig, host: Host, specs: Sequence[MetricSpec], tasks: Sequence[Task], subject: str | None
) -> ChosenSources:
    """Choose the sources that the metrics need; missing ones are listed in the result.

    Raises UsageError for a source in the options that cannot be used.
    """
    uses = {use for spec in specs for use in spec.uses}
    found: dict[str, str] = {}
    missing: dict[str, str] = {}
    if KEYPOINTS in uses or config.keypoints != AUTO:
        true_points = config.mode == "reconstruction" and all(keypoints_path(task.truth).is_file() for task in tasks)
        try:
            choice = choose_keypoints(
                host, config.keypoints, subject=subject, true_points=true_points, model=not config.finished
            )
            found[KEYPOINTS] = choice if isinstance(choice, str) else choice.name
        except MissingError as error:
            missing[KEYPOINTS] = missing_text(error)
    if EMBEDDINGS in uses or config.embedder is not None:
        try:
            found[EMBEDDINGS] = choose_embedder(host, config.embedder, subject=subject).name
        except MissingError as error:
            missing[EMBEDDINGS] = missing_text(error)
    return ChosenSources(keypoints=found.get(KEYPOINTS), embedder=found.get(EMBEDDINGS), missing=missing)


class SourceFactory:
    """Builds the sources in one process; a detector or embedder is built once for all clips."""

    def __init__(self, host: Host, sources: ChosenSources) -> None:
        self._host = host
        self._sources = sources
        self._cache = DetectionCache(home() / "cache")
        self._detector: KeypointSource | None = None
        self._latest: tuple[object, KeypointSource | None] = None, None
        self._embedder: EmbeddingSource | None = None

    def describe(self, spec: MetricSpec, task: Task) -> dict[str, Any]:
        """Return JSON values for everything besides predictions and truth that a metric's scores depend on."""
        described: dict[str, Any] = {"metric": spec.name, "version": self._host.version("metric", spec.name)}
        if KEYPOINTS in spec.uses:
            described[KEYPOINTS] = self._described_keypoints(task)
        if EMBEDDINGS in spec.uses and self._sources.embedder is not None:
            described[EMBEDDINGS] = self._versioned("embedder", self._sources.embedder)
        return described

    def clip(
        self, spec: MetricSpec, task: Task, rate: float, size: tuple[int, int], engine: Engine | None
    ) -> MetricClip:
        """Return a clip's description for a metric.  size: (width, height) of its frames.

        Raises InputError if true keypoints cannot be read.
        """
        keypoints = self.keypoints(task, size, engine) if KEYPOINTS in spec.uses else None
        return MetricClip(task.name, rate, keypoints, self._embeddings() if EMBEDDINGS in spec.uses else None)

    def keypoints(self, task: Task, size: tuple[int, int], engine: Engine | None) -> KeypointSource | None:
        """Return the source of keypoints for a clip, or None.  size: (width, height) of its frames."""
        name = self._sources.keypoints
        if name in (TRUE, MODEL):
            # All metrics of a clip share one source, as it caches its results.
            key = task.truth, size, id(engine)
            if self._latest[0] != key:
                self._latest = key, self._own_keypoints(task, size, engine)
            return self._latest[1]
        if name is not None and self._detector is None:
            version = self._host.version("detector", name)
            self._detector = DetectorKeypoints(self._host.find("detector", name), self._cache, version=version)
        return self._detector

    def _own_keypoints(self, task: Task, size: tuple[int, int], engine: Engine | None) -> KeypointSource | None:
        """Return a source of the clip's true keypoints, or of the model's own."""
        if self._sources.keypoints == MODEL:
            return None if engine is None else ModelKeypoints(engine.renderer())
        points = read_keypoints(task.truth)
        return None if points is None else TrueKeypoints(in_pixels(points, *size))

    def _embeddings(self) -> EmbeddingSource | None:
        name = self._sources.embedder
        if name is not None and self._embedder is None:
            version = self._host.version("embedder", name)
            self._embedder = Embeddings(self._host.find("embedder", name), self._cache, version=version)
        return self._embedder

    def _described_keypoints(self, task: Task) -> str | None:
        name = self._sources.keypoints
        if name == TRUE:
            return sha256(read_regular(keypoints_path(task.truth))).hexdigest()
        return name if name in (None, MODEL) else self._versioned("detector", str(name))

    def _versioned(self, kind: str, name: str) -> str:
        return source_name(self._host.find(kind, name), self._host.version(kind, name))


def in_pixels(points: Points, width: int, height: int) -> Points:
    """Convert points (..., 2) from [-1, 1], corner pixels at -1 and 1, to pixels of a width x height frame."""
    pixels: Points = (points + 1) / 2 * np.array((width - 1, height - 1), np.float64)
    return pixels


class _Cached(Generic[Spec]):
    """Results of a detector or embedder, which is built only when a result is not cached."""

    def __init__(self, spec: Spec, cache: DetectionCache, *, version: str = "") -> None:
        """version: of the plugin (`Host.version`); cached results of other versions are not used."""
        self.name = spec.name
        self._spec: Spec = spec
        self._cache = cache
        self._source = source_name(spec, version)

    @cached_property
    def _built(self) -> Any:
        return self._spec.build()

    def _results(self, frames: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Return the results for frames (N, H, W, 3) as (N, *shape), NaN for frames without a result."""
        found = self._cache.results(self._source, list(frames), self._compute)
        rows = np.full((len(found), *shape), np.nan)
        for row, result in zip(rows, found, strict=True):
            if result is not None:
                row[...] = result
        return rows

    def _compute(self, frames: list[Pixels]) -> Sequence[Result]:
        raise NotImplementedError


class DetectorKeypoints(_Cached[DetectorSpec]):
    """Landmarks of the first subject that a detector returns, as in the published scripts."""

    def __init__(self, spec: DetectorSpec, cache: DetectionCache, *, version: str = "") -> None:
        """Raises UsageError for a detector without landmarks."""
        super().__init__(_with_landmarks(spec), cache, version=version)

    def __call__(self, chunk: FrameChunk) -> Both:
        prediction = self._points(chunk.prediction)
        return prediction, None if chunk.truth is None else self._points(chunk.truth)

    def _points(self, frames: NDArray[np.uint8]) -> Points:
        return self._results(frames, (self._spec.landmarks, 2))

    def _compute(self, frames: list[Pixels]) -> list[Result]:
        return [subjects[0].landmarks if subjects else None for subjects in self._built.detect(frames)]


class Embeddings(_Cached[EmbedderSpec]):
    """Embeddings of the main subject of each frame."""

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        return self._results(frames, (self._spec.dimension,))

    def _compute(self, frames: list[Pixels]) -> Sequence[Result]:
        found: Sequence[Result] = self._built.embed(frames)
        return found


class _LatestChunk:
    """Caches the keypoints of the latest chunk, as several metrics use the same one."""

    def __init__(self) -> None:
        self._latest: tuple[FrameChunk, Both] | None = None

    def __call__(self, chunk: FrameChunk) -> Both:
        if self._latest is None or self._latest[0] is not chunk:
            self._latest = chunk, self._both(chunk)
        return self._latest[1]

    def _both(self, chunk: FrameChunk) -> Both:
        raise NotImplementedError


class TrueKeypoints(_LatestChunk):
    """True keypoints; those of the prediction are found by matching the patches around the true ones (see `matching`).

    Points without texture around them are NaN on both sides. A call raises UsageError for more frames than points, and
    for frames without truth.
    """

    name = TRUE

    def __init__(self, points: Points) -> None:
        """points: (T, K, 2) in pixels of the truth, for all frames of the clip, NaN for hidden ones."""
        super().__init__()
        self._points = points

    def _both(self, chunk: FrameChunk) -> Both:
        if chunk.truth is None:
            raise UsageError("true keypoints need true frames", "Choose a detector with --keypoints.")
        points = self._points[chunk.first : chunk.first + len(chunk)]
        if len(points) < len(chunk):
            raise UsageError(
                f"the clip has {chunk.first + len(chunk)} frames, but true keypoints for {len(self._points)}",
                "Make the data set again, or choose a detector with --keypoints.",
            )
        # Imports torch, which other sources may not need.
        from fommctl.evaluate.matching import find_again

        return find_again(chunk.prediction, chunk.truth, points)


class ModelKeypoints(_LatestChunk):
    """Keypoints of the evaluated model, which measure how well results preserve what the model detects in the truth.

    They cannot be used to compare models, as each model has its own. A call raises UsageError if the model has none.
    """

    name = MODEL

    def __init__(self, renderer: Renderer) -> None:
        super().__init__()
        self._renderer = renderer

    def _both(self, chunk: FrameChunk) -> Both:
        return self._points(chunk.prediction), None if chunk.truth is None else self._points(chunk.truth)

    def _points(self, frames: NDArray[np.uint8]) -> Points:
        from fommctl.networks.grids import to_tensor

        keypoints = self._renderer.detect(to_tensor(list(frames), self._renderer.device)).keypoints
        if not keypoints.shape[1]:
            raise UsageError("this model has no keypoints", "Choose a detector with --keypoints.")
        return in_pixels(keypoints.detach().cpu().double().numpy(), frames.shape[2], frames.shape[1])


def source_name(spec: DetectorSpec | EmbedderSpec, version: str) -> str:
    """Return a source's key in the cache: its name, its plugin's version and the versions of its packages."""
    return "; ".join(part for part in (spec.name, version, *map(_installed, spec.packages)) if part)


def _installed(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""
