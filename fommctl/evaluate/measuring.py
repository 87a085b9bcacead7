"""Keypoints and embeddings for the metrics of one evaluation: chosen once for all clips, built where they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from fommctl.api.metrics import EmbeddingSource, KeypointSource, MetricClip
from fommctl.api.specs import MetricSpec
from fommctl.datasets.keypoints import keypoints_path, read_keypoints
from fommctl.errors import MissingError
from fommctl.evaluate.choose import AUTO, choose_embedder, choose_keypoints
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.detection_cache import DetectionCache
from fommctl.evaluate.plan import Task
from fommctl.evaluate.scoring import missing_text
from fommctl.evaluate.sources import (
    MODEL,
    TRUE,
    detector_keypoints,
    embedding_source,
    in_pixels,
    model_keypoints,
    source_name,
    true_keypoints,
)
from fommctl.host import Host
from fommctl.models.home import home

if TYPE_CHECKING:
    from fommctl.animate.engine import Engine

KEYPOINTS, EMBEDDINGS = "keypoints", "embeddings"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """What metrics measure with, by names."""

    keypoints: str | None = None
    """`true`, `model` or a detector; None where no metric asks for them or there are none."""
    embedder: str | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why there are no `keypoints` or `embeddings`."""

    def to_json(self) -> dict[str, str | None]:
        """For the configuration that is saved."""
        return {KEYPOINTS: self.keypoints, "embedder": self.embedder}


def choose_sources(
    config: EvaluateConfig, host: Host, specs: Sequence[MetricSpec], tasks: Sequence[Task], subject: str | None
) -> Sources:
    """What the metrics ask for. What is missing is told by the result where it was left to choice or is a metric's
    own; raises UsageError for an option that does not fit."""
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
    return Sources(keypoints=found.get(KEYPOINTS), embedder=found.get(EMBEDDINGS), missing=missing)


class Measures:
    """Builds the sources of one process; detectors and embedders serve all its clips."""

    def __init__(self, host: Host, sources: Sources) -> None:
        self._host = host
        self._sources = sources
        self._cache = DetectionCache(home() / "cache")
        self._detector: KeypointSource | None = None
        self._latest: tuple[object, KeypointSource | None] = None, None
        self._embedder: EmbeddingSource | None = None

    def describe(self, spec: MetricSpec, task: Task) -> dict[str, Any]:
        """What the scores of a metric depend on beside predictions and truth: JSON values."""
        described: dict[str, Any] = {"metric": spec.name, "version": self._host.version("metric", spec.name)}
        if KEYPOINTS in spec.uses:
            described[KEYPOINTS] = self._described_keypoints(task)
        if EMBEDDINGS in spec.uses and self._sources.embedder is not None:
            described[EMBEDDINGS] = self._versioned("embedder", self._sources.embedder)
        return described

    def clip(
        self, spec: MetricSpec, task: Task, rate: float, size: tuple[int, int], engine: Engine | None
    ) -> MetricClip:
        """What this metric gets to know of a clip.  size: (width, height) of its frames.

        Raises InputError for true keypoints that cannot be read.
        """
        keypoints = self.keypoints(task, size, engine) if KEYPOINTS in spec.uses else None
        return MetricClip(task.name, rate, keypoints, self._embeddings() if EMBEDDINGS in spec.uses else None)

    def keypoints(self, task: Task, size: tuple[int, int], engine: Engine | None) -> KeypointSource | None:
        """The keypoints of a clip; None where there is no source of them."""
        name = self._sources.keypoints
        if name in (TRUE, MODEL):
            # One for all metrics of a clip: it remembers its answers.
            asked = task.truth, size, id(engine)
            if self._latest[0] != asked:
                self._latest = asked, self._own_keypoints(task, size, engine)
            return self._latest[1]
        if name is not None and self._detector is None:
            version = self._host.version("detector", name)
            self._detector = detector_keypoints(self._host.find("detector", name), self._cache, version=version)
        return self._detector

    def _own_keypoints(self, task: Task, size: tuple[int, int], engine: Engine | None) -> KeypointSource | None:
        """The true ones of the clip or those of the model."""
        if self._sources.keypoints == MODEL:
            return None if engine is None else model_keypoints(engine.renderer())
        points = read_keypoints(task.truth)
        return None if points is None else true_keypoints(in_pixels(points, *size))

    def _embeddings(self) -> EmbeddingSource | None:
        name = self._sources.embedder
        if name is not None and self._embedder is None:
            version = self._host.version("embedder", name)
            self._embedder = embedding_source(self._host.find("embedder", name), self._cache, version=version)
        return self._embedder

    def _described_keypoints(self, task: Task) -> str | None:
        name = self._sources.keypoints
        if name == TRUE:
            return sha256(keypoints_path(task.truth).read_bytes()).hexdigest()
        return name if name in (None, MODEL) else self._versioned("detector", str(name))

    def _versioned(self, kind: str, name: str) -> str:
        return source_name(self._host.find(kind, name), self._host.version(kind, name))
