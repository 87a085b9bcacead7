"""Which keypoints and which embeddings metrics measure with: `--keypoints` and `--embedder`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from fommctl.api.specs import DetectorSpec, EmbedderSpec
from fommctl.errors import MissingError, UsageError
from fommctl.evaluate.sources import MODEL, TRUE
from fommctl.host import Host
from fommctl.plugin import why_not_ready

AUTO = "auto"
KeypointChoice = DetectorSpec | Literal["true", "model"]


def choose_keypoints(
    host: Host, name: str = AUTO, *, subject: str | None, true_points: bool, model: bool
) -> KeypointChoice:
    """The source of keypoints of this name: `auto`, `true`, `model` or a detector, which may not be ready.

    `auto` takes the true ones where there are some, else of the ready detectors of the subject that find landmarks the
    one of the highest `metric_priority` (faces: FAN, then dlib's 68 points, as the published scripts have 68).
    subject: of the preset's framing; None where nothing says what is seen.  true_points: whether every clip has true
    keypoints: numbers by two sources have no common mean.  model: whether a model is evaluated, not finished results.
    Raises UsageError for a source that does not fit, and MissingError where `auto` finds none.
    """
    if name == TRUE or (name == AUTO and true_points):
        if not true_points:
            raise UsageError(
                "not every clip has true keypoints beside it",
                "'fommctl preprocess synthetic' writes them; else name a detector with --keypoints.",
            )
        return "true"
    if name == MODEL:
        if not model:
            raise UsageError("finished results have no model to ask for keypoints", "Name a detector with --keypoints.")
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
    """The embedder of this name, which may not be ready; for `auto` and None the ready one of the highest priority.

    subject: as of `choose_keypoints`. Raises UsageError for an unknown name and MissingError where none is ready.
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
        raise UsageError(f"the detector {spec.name!r} finds no keypoints", "Name one that finds landmarks.")
    return spec


def _missing(option: str, subject: str | None, fitting: Iterable[DetectorSpec | EmbedderSpec]) -> MissingError:
    what = "keypoints" if option == "keypoints" else "identity"
    if subject is None:
        return MissingError(
            f"nothing says what is seen in these clips, so no {what} can be measured",
            f"Name what to measure with by --{option}.",
        )
    reasons = "; ".join(f"{spec.name}: {why_not_ready(spec)}" for spec in fitting)
    return MissingError(
        f"nothing that measures the {what} of a {subject} is ready ({reasons or 'none is installed'})",
        f"Install what is missing, or name another source with --{option}.",
    )
