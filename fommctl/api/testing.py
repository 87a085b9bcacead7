"""Contract checks for plugins, as plain functions for any test runner.

Each raises AssertionError with the violated requirement. They need no network, and no files but those given.
`fommctl plugins show NAME` lists what a plugin registers; `fommctl.host.load_host()` returns the specs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fommctl.api.metrics import ClipScores, FrameChunk, Metric, MetricClip
from fommctl.api.protocols import ClipRecord, Detection
from fommctl.api.specs import CommandSpec, DatasetSpec, DetectorSpec, EmbedderSpec, MetricSpec, spec_fault
from fommctl.errors import InputError, MissingError

if TYPE_CHECKING:
    from fommctl.api.protocols import Detector

_LONGEST_SHOWN = 200
Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


class BrokenPromiseError(AssertionError):
    """A requirement that a plugin violates, and the actual result."""

    def __init__(self, promise: str, got: str | None = None) -> None:
        super().__init__(promise if got is None else f"{promise} (got {got})")
        self.promise = promise
        self.got = got


def require(kept: object, what: str, *got: object) -> None:
    """Raise BrokenPromiseError unless `kept` is true; unlike `assert`, also under `python -O`.

    what: the requirement.  got: actual values, shown on failure; of arrays and tensors, type and shape.
    """
    if not kept:
        raise BrokenPromiseError(what, ", ".join(map(_shown, got)) or None)


def _shown(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def pictures(count: int, height: int, width: int) -> list[Pixels]:
    """Return smooth random pictures (height, width, 3) uint8, the same in every call."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = random.uniform(1, 6, (count, 3, 3))
    return [
        np.round(127.5 + 127.5 * np.stack([np.sin(a * x + b * y + c) for a, b, c in each], -1)).astype(np.uint8)
        for each in waves
    ]


def check_detector(spec: DetectorSpec, frames: Sequence[Pixels] = ()) -> None:
    """Check a detector: its detections are valid, sorted and independent of each other, and blank pictures have none.

    frames: pictures (H, W, 3) uint8 with a subject in each. A detector that is not ready is not built, because that
    could need the network.
    """
    if not _ready("detector", spec):
        return
    detector = spec.build()
    nothing = detector.detect([])
    require(nothing == [], "the result for no pictures is empty", nothing)
    blank = [np.full((64, 48, 3), level, np.uint8) for level in (0, 128)]
    found = [list(each) for each in detector.detect(blank)]
    require(found == [[], []], "nothing is found in blank pictures", found)
    require(len(detector.detect([blank[0][:1, :1]])) == 1, "a picture of one pixel is not an error")
    _check_detections(spec, detector, [*frames, *pictures(2, 96, 128)], len(frames))


def _ready(kind: str, spec: DetectorSpec | EmbedderSpec) -> bool:
    _check_spec(kind, spec)
    require(spec.subject, "the spec names a subject")
    reason = spec.ready()
    require(reason is None or (isinstance(reason, str) and reason), "ready() is None or a reason", reason)
    return reason is None


def _check_detections(spec: DetectorSpec, detector: Detector, frames: Sequence[Pixels], subjects: int) -> None:
    before = [frame.copy() for frame in frames]
    found = detector.detect(frames)
    require(len(found) == len(frames), "there is one list for each picture", f"{len(found)} for {len(frames)}")
    require(all(found[:subjects]), "the subject in each picture is found", found[:subjects])
    for detection in (each for several in found for each in several):
        require(isinstance(detection, Detection), "detections are Detection objects", detection)
        require(detection.box.width > 0 and detection.box.height > 0, "boxes have an area", detection.box)
        require(math.isfinite(detection.score), "scores are finite", detection.score)
        shape = None if detection.landmarks is None else tuple(detection.landmarks.shape)
        require(shape == ((spec.landmarks, 2) if spec.landmarks else None), f"{spec.landmarks} landmarks (N, 2)", shape)
    scores = [[each.score for each in several] for several in found]
    require(all(each == sorted(each, reverse=True) for each in scores), "the highest score comes first", scores)
    require(all((a == b).all() for a, b in zip(frames, before, strict=True)), "the pictures are not changed")
    alone = [detector.detect([frame])[0] for frame in frames]
    counts = [[len(each) for each in several] for several in (found, alone)]
    require(
        counts[0] == counts[1], "results do not depend on other pictures", f"{counts[1]} alone, {counts[0]} together"
    )


def check_embedder(spec: EmbedderSpec, frames: Sequence[Pixels] = ()) -> None:
    """Check an embedder: its vectors have the declared length, are finite and independent of each other.

    frames: pictures (H, W, 3) uint8 with a subject in each. An embedder that is not ready is not built, because that
    could need the network.
    """
    if not _ready("embedder", spec):
        return
    embedder = spec.build()
    nothing = embedder.embed([])
    require(nothing == [], "the result for no pictures is empty", nothing)
    several = [*frames, np.full((64, 48, 3), 128, np.uint8), np.zeros((1, 1, 3), np.uint8)]
    before = [frame.copy() for frame in several]
    found = embedder.embed(several)
    require(len(found) == len(several), "there is one result for each picture", f"{len(found)} for {len(several)}")
    require(all(each is not None for each in found[: len(frames)]), "the subject in each picture is found")
    for vector, alone in zip(found, [embedder.embed([frame])[0] for frame in several], strict=True):
        if vector is None or alone is None:
            require(vector is alone, "results do not depend on other pictures")
            continue
        fits = vector.shape == (spec.dimension,) and vector.dtype == np.float32 and np.isfinite(vector).all()
        require(fits, "embeddings are (D,) float32 and finite", vector, f"D is {spec.dimension}")
        require(np.allclose(vector, alone, atol=1e-4), "results do not depend on other pictures")
    require(all((a == b).all() for a, b in zip(several, before, strict=True)), "the pictures are not changed")


def check_dataset(spec: DatasetSpec, root: Path | None = None, *, limit: int = 4) -> None:
    """Check a data set: its clips are valid, have unique names and one split per identity, and never change.

    root: a folder in the raw layout of the data set, in which some files may be missing; None for a data set that
    generates its frames.  limit: number of clips whose generated frames are checked.
    """
    _check_spec("dataset", spec)
    require(spec.licence, "the spec names a licence")
    adapter = spec.build()
    with tempfile.TemporaryDirectory() as empty:
        try:
            of_empty = list(adapter.clips(Path(empty)))
        except InputError:
            of_empty = []
        require(all(clip.frames for clip in of_empty), "an empty folder has no clips, or raises InputError", of_empty)
        clips = list(adapter.clips(root or Path(empty)))
        again = list(adapter.clips(root or Path(empty)))
    require(clips, "there are clips")
    strange = [clip for clip in clips if not isinstance(clip, ClipRecord)]
    require(not strange, "clips are ClipRecord objects", *strange[:1])
    names = [(clip.identity, clip.name) for clip in clips]
    require(names == [(clip.identity, clip.name) for clip in again], "clips come in the same order in every call")
    twice = [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
    require(not twice, "names are unique among the clips of an identity", *twice[:1])
    parts = {split: {clip.identity for clip in clips if clip.split == split} for split in ("train", "test")}
    both = parts["train"] & parts["test"]
    require(not both, "no identity is in both splits", *sorted(both)[:1])
    for clip in clips:
        _check_clip(clip)
        inside = clip.path is None or root is None or clip.path.absolute().is_relative_to(root.absolute())
        require(inside, f"the file of {clip.name} is in the raw folder", clip.path)
    require(
        any(clip.path is None or clip.path.exists() for clip in clips),
        "the file of a clip exists",
        *[clip.path for clip in clips[:1]],
    )
    for clip, twin in islice(zip(clips, again, strict=True), limit):
        if clip.frames is not None and twin.frames is not None:
            frames = list(clip.frames())
            _check_frames(clip.name, frames, list(twin.frames()))
            if clip.keypoints is not None:
                _check_keypoints(clip.name, clip.keypoints(), len(frames))


def _check_clip(clip: ClipRecord) -> None:
    require(
        clip.name and not set("/\\") & set(clip.name),
        f"{clip.name!r} can be part of a file name",
        "a slash, or nothing",
    )
    require(
        clip.identity and not set("#/\\") & set(clip.identity),
        f"{clip.identity!r} can be part of a file name",
        "a slash, a #, or nothing",
    )
    require(
        (clip.path is None) != (clip.frames is None),
        f"{clip.name} has either a path or frames",
        "none of them" if clip.path is None else "both",
    )
    require(clip.split in (None, "train", "test"), f"{clip.name} is in train, test or neither", clip.split)
    start, end = clip.start or 0.0, math.inf if clip.end is None else clip.end
    require(0 <= start < end, f"{clip.name} starts before it ends", f"{clip.start} to {clip.end}")
    require(clip.rate is None or 0 < clip.rate < math.inf, f"the frame rate of {clip.name} is above zero", clip.rate)
    require(clip.box is None or 0 < clip.box.area < math.inf, f"the box of {clip.name} has an area", clip.box)
    require(
        clip.box_frame is None or min(clip.box_frame) > 0,
        f"the frame of the box of {clip.name} has an area",
        clip.box_frame,
    )


def _check_frames(name: str, frames: Sequence[Pixels], again: Iterable[Pixels]) -> None:
    require(len(frames) > 1, f"{name} has at least two frames", len(frames))
    for frame in frames:
        require(frame.ndim == 3 and frame.shape[2] == 3, f"frames of {name} are (H, W, 3)", frame)
        require(
            frame.dtype == "uint8" and frame.shape == frames[0].shape, f"frames of {name} are uint8 of one size", frame
        )
    require(all((a == b).all() for a, b in zip(frames, again, strict=True)), f"{name} is the same in every call")


def _check_keypoints(name: str, points: Points, frames: int) -> None:
    fits = points.ndim == 3 and points.shape[2] == 2 and np.issubdtype(points.dtype, np.floating)
    require(fits, f"keypoints of {name} are (T, K, 2) numbers", points)
    require(len(points) == frames, f"{name} has keypoints for every frame", f"{len(points)} for {frames} frames")
    hidden = np.isnan(points)
    require((hidden.all(-1) == hidden.any(-1)).all(), f"keypoints of {name} are hidden in both coordinates or none")
    require((np.abs(points[~hidden]) <= 1).all(), f"keypoints of {name} are in [-1, 1]")


def check_command(spec: CommandSpec) -> None:
    """Check a command: its typer application has something to run."""
    _check_spec("command", spec)
    app = spec.build()
    require(app.registered_commands or app.registered_groups or app.registered_callback, "there is a command to run")


def _check_spec(kind: str, spec: object) -> None:
    fault = spec_fault(kind, spec)
    require(fault is None, fault or "")
    require(getattr(spec, "summary", ""), "the spec has a summary")


def check_metric(spec: MetricSpec, frames: Sequence[Pixels] = ()) -> None:
    """Check a metric, unless it raises MissingError when it is built.

    Scores must be finite or None, and independent of chunk sizes, memory layout and interleaving with another clip; the
    truth must score no worse than the truth with noise; small, black and few frames must not cause errors.

    frames: a true clip of three or more frames (H, W, 3) uint8 that the metric can score; by default a smooth moving
    picture of 64 pixels. Keypoints and embeddings, if the metric uses them, are computed from the colours.
    """
    fault = spec_fault("metric", spec)
    require(fault is None, fault or "")
    require(spec.summary, "the spec has a summary")
    require(
        spec.needs in ("truth", "identity", "driving", "nothing"),
        "needs is truth, identity, driving or nothing",
        spec.needs,
    )
    require(set(spec.uses) <= {"keypoints", "embeddings"}, "uses contains only keypoints and embeddings", spec.uses)
    require(spec.weighting in ("frames", "clips"), "weighting is frames or clips", spec.weighting)
    try:
        metric = spec.build()
    except MissingError:
        return
    truth = np.stack(list(frames) or moving_pictures(7))
    noise = np.random.default_rng(0).normal(0, 40, truth.shape)
    noisy = (truth + noise).round().clip(0, 255).astype(np.uint8)
    _check_order(spec, metric, truth, noisy)
    _check_streaming(spec, metric, truth, noisy)
    _check_odd_clips(spec, metric, truth, noisy)


def moving_pictures(count: int, size: int = 64) -> list[Pixels]:
    """Return squares (size, size, 3) of a smooth picture, each one pixel below and two to the right of the last."""
    (whole,) = pictures(1, size + count, size + 2 * count)
    return [whole[step : step + size, 2 * step : 2 * step + size] for step in range(count)]


def _check_order(spec: MetricSpec, metric: Metric, truth: Pixels, noisy: Pixels) -> None:
    if spec.needs == "nothing":
        return
    same, worse = (_total(spec, [_score(spec, metric, frames, truth)]) for frames in (truth.copy(), noisy))
    if same is not None and worse is not None:
        ordered = same <= worse if spec.lower_is_better else same >= worse
        require(ordered, "the truth scores no worse than the truth with noise", f"{same:g} and {worse:g}")


def _check_streaming(spec: MetricSpec, metric: Metric, truth: Pixels, noisy: Pixels) -> None:
    before = noisy.copy(), truth.copy()
    whole = _score(spec, metric, noisy, truth)
    require(_alike(spec, whole, _score(spec, metric, noisy, truth)), "the same frames have the same score")
    one, other = (metric.clip(_clip(spec)) for _ in range(2))
    middle = [0, 1, 3, len(truth)]
    for first, end in pairwise(middle):
        one.add(_chunk(spec, noisy, truth, first, end, exact=True))
        other.add(_chunk(spec, truth, truth, first, end))
    other.finish()
    require(_alike(spec, whole, one.finish()), "scores do not depend on chunk sizes or other clips")
    mirrored = [np.ascontiguousarray(frames[:, :, ::-1])[:, :, ::-1] for frames in (noisy, truth)]
    require(_alike(spec, whole, _score(spec, metric, *mirrored)), "scores do not depend on the memory layout of frames")
    unchanged = (noisy == before[0]).all() and (truth == before[1]).all()
    require(unchanged, "the frames are not changed")


def _check_odd_clips(spec: MetricSpec, metric: Metric, truth: Pixels, noisy: Pixels) -> None:
    black = np.zeros_like(truth)
    for prediction, reference in (
        (black, black),
        (black, truth),
        (truth, black),
        (noisy[:1], truth[:1]),
        (noisy[:2], truth[:2]),
        (noisy[:, :5, :9], truth[:, :5, :9]),
        (noisy[:, :1, :1], truth[:, :1, :1]),
    ):
        _score(spec, metric, prediction, reference)
    if spec.needs in ("identity", "driving"):
        # Source pictures and driving videos may have other sizes than the prediction.
        _score(spec, metric, noisy, truth[:, ::2, ::3])
    empty = metric.clip(_clip(spec)).finish()
    _check_scores(empty, 0)
    require(empty.value is None, "a clip without frames has no score", empty.value)
    require(_total(spec, [empty]) is None, "clips without scores have no combined score")


def _score(spec: MetricSpec, metric: Metric, prediction: Pixels, truth: Pixels) -> ClipScores:
    scorer = metric.clip(_clip(spec))
    scorer.add(_chunk(spec, prediction, truth, 0, len(prediction)))
    scores = scorer.finish()
    _check_scores(scores, len(prediction))
    return scores


def _chunk(
    spec: MetricSpec, prediction: Pixels, truth: Pixels, first: int, end: int, *, exact: bool = False
) -> FrameChunk:
    frames = prediction[first:end]
    known = None if spec.needs == "nothing" else truth[first:end]
    return FrameChunk(frames, known, (frames / 255).astype(np.float32) if exact else None, first)


def _check_scores(scores: ClipScores, total: int) -> None:
    require(isinstance(scores, ClipScores), "finish() returns ClipScores", scores)
    require(
        scores.value is None or math.isfinite(scores.value),
        "the value is finite or None",
        scores.value,
    )
    require(
        scores.frames.dtype == np.float64 and scores.frames.ndim == 1,
        "scores of frames are (N,) float64",
        scores.frames,
    )
    require(
        len(scores.frames) in (0, total), "there is one score per frame, or none", f"{len(scores.frames)} for {total}"
    )
    require(not np.isinf(scores.frames).any(), "scores of frames are finite or NaN")
    require(
        0 <= scores.scored <= total == scores.total,
        "scored and total count the frames",
        f"{scores.scored} of {scores.total} scored, of {total} given",
    )
    require(scores.value is None or scores.scored, "a value needs scored frames")
    require(all(isinstance(array, np.ndarray) for array in scores.state.values()), "the state consists of arrays")


def _alike(spec: MetricSpec, one: ClipScores, other: ClipScores) -> bool:
    counted = (one.scored, one.total) == (other.scored, other.total)
    frames = one.frames.shape == other.frames.shape and np.allclose(
        one.frames, other.frames, rtol=1e-4, atol=1e-6, equal_nan=True
    )
    values = [(one.value, other.value), (_total(spec, [one]), _total(spec, [other]))]
    return counted and frames and all(_near(*pair) for pair in values)


def _near(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)


def _total(spec: MetricSpec, clips: Sequence[ClipScores]) -> float | None:
    """Return the combined score of several clips; without `combine`, the first clip's."""
    if spec.combine is None:
        return clips[0].value
    value = spec.combine(clips)
    require(value is None or math.isfinite(value), "a combined score is finite or None", value)
    return value


def _clip(spec: MetricSpec) -> MetricClip:
    return MetricClip(
        "clip",
        25.0,
        keypoints=_Centres() if "keypoints" in spec.uses else None,
        embeddings=_Colours() if "embeddings" in spec.uses else None,
    )


class _Centres:
    """Three keypoints per frame: the centres of mass of the colours; NaN in black frames."""

    name = "centres"

    def __call__(self, chunk: FrameChunk) -> tuple[Points, Points | None]:
        return _centres(chunk.prediction), None if chunk.truth is None else _centres(chunk.truth)


def _centres(frames: Pixels) -> Points:
    height, width = frames.shape[1:3]
    bright = frames.astype(np.float64)
    totals = bright.sum((1, 2))
    x, y = np.einsum("nhwk,w->nk", bright, np.arange(width)), np.einsum("nhwk,h->nk", bright, np.arange(height))
    with np.errstate(invalid="ignore"):
        points: Points = np.stack([x, y], -1) / totals[..., None]
    return points


class _Colours:
    """Embeddings that are the mean colours of frames; NaN for black frames."""

    name = "colours"

    def __call__(self, frames: Pixels) -> Points:
        means: Points = frames.mean((1, 2), dtype=np.float64) / 255
        return np.where(means.any(1, keepdims=True), means, np.nan)
