"""Contracts that every plugin must keep, as plain functions: run them on yours, from any test runner.

Each raises AssertionError with the promise that was broken. They need no network, and no file but those that are
given. `fommctl plugins show NAME` lists what a plugin registers; `fommctl.host.load_host()` gives the specs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from fommctl.api.promises import promise as _promise
from fommctl.api.specs import CommandSpec, DatasetSpec, DetectorSpec, EmbedderSpec
from fommctl.api.testing_backend import check_backend as check_backend
from fommctl.api.validation import spec_fault
from fommctl.api.values import ClipRecord, Detection
from fommctl.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fommctl.api.protocols import Detector


def pictures(count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    """Smooth random pictures (height, width, 3) uint8, the same at every call."""
    import numpy as np

    random = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = random.uniform(1, 6, (count, 3, 3))
    return [
        np.round(127.5 + 127.5 * np.stack([np.sin(a * x + b * y + c) for a, b, c in each], -1)).astype(np.uint8)
        for each in waves
    ]


def check_detector(spec: DetectorSpec, frames: Sequence[NDArray[np.uint8]] = ()) -> None:
    """frames: pictures (H, W, 3) with a subject in each. A detector that is not ready is not built: that could
    need the network."""
    import numpy as np

    if not _ready("detector", spec):
        return
    detector = spec.build()
    nothing = detector.detect([])
    _promise(nothing == [], "no pictures, no answers", nothing)
    blank = [np.full((64, 48, 3), level, np.uint8) for level in (0, 128)]
    found = [list(each) for each in detector.detect(blank)]
    _promise(found == [[], []], "nothing is found in blank pictures", found)
    _promise(len(detector.detect([blank[0][:1, :1]])) == 1, "a picture of one pixel is no error")
    _check_detections(spec, detector, [*frames, *pictures(2, 96, 128)], len(frames))


def _ready(kind: str, spec: DetectorSpec | EmbedderSpec) -> bool:
    _check_spec(kind, spec)
    _promise(spec.subject, "the subject is named")
    reason = spec.ready()
    _promise(reason is None or (isinstance(reason, str) and reason), "ready() is None or a reason", reason)
    return reason is None


def _check_detections(
    spec: DetectorSpec, detector: Detector, frames: Sequence[NDArray[np.uint8]], subjects: int
) -> None:
    before = [frame.copy() for frame in frames]
    found = detector.detect(frames)
    _promise(len(found) == len(frames), "one list for each picture", f"{len(found)} for {len(frames)}")
    _promise(all(found[:subjects]), "the subject in each picture is found", found[:subjects])
    for detection in (each for several in found for each in several):
        _promise(isinstance(detection, Detection), "detections are Detection objects", detection)
        _promise(detection.box.width > 0 and detection.box.height > 0, "boxes have an area", detection.box)
        _promise(math.isfinite(detection.score), "scores are finite", detection.score)
        shape = None if detection.landmarks is None else tuple(detection.landmarks.shape)
        _promise(
            shape == ((spec.landmarks, 2) if spec.landmarks else None), f"{spec.landmarks} landmarks (N, 2)", shape
        )
    scores = [[each.score for each in several] for several in found]
    _promise(all(each == sorted(each, reverse=True) for each in scores), "the surest comes first", scores)
    _promise(all((a == b).all() for a, b in zip(frames, before, strict=True)), "the pictures stay as they are")
    alone = [detector.detect([frame])[0] for frame in frames]
    counts = [[len(each) for each in several] for several in (found, alone)]
    _promise(counts[0] == counts[1], "each picture is judged on its own", f"{counts[1]} alone, {counts[0]} together")


def check_embedder(spec: EmbedderSpec, frames: Sequence[NDArray[np.uint8]] = ()) -> None:
    """frames: pictures (H, W, 3) with a subject in each. One that is not ready is not built, as for detectors."""
    import numpy as np

    if not _ready("embedder", spec):
        return
    embedder = spec.build()
    nothing = embedder.embed([])
    _promise(nothing == [], "no pictures, no answers", nothing)
    several = [*frames, np.full((64, 48, 3), 128, np.uint8), np.zeros((1, 1, 3), np.uint8)]
    before = [frame.copy() for frame in several]
    found = embedder.embed(several)
    _promise(len(found) == len(several), "one answer for each picture", f"{len(found)} for {len(several)}")
    _promise(all(each is not None for each in found[: len(frames)]), "the subject in each picture is found")
    for vector, alone in zip(found, [embedder.embed([frame])[0] for frame in several], strict=True):
        if vector is None or alone is None:
            _promise(vector is alone, "each picture is judged on its own")
            continue
        fits = vector.shape == (spec.dimension,) and vector.dtype == np.float32 and np.isfinite(vector).all()
        _promise(fits, "embeddings are (D,) float32 and finite", vector, f"D is {spec.dimension}")
        _promise(np.allclose(vector, alone, atol=1e-4), "each picture is judged on its own")
    _promise(all((a == b).all() for a, b in zip(several, before, strict=True)), "the pictures stay as they are")


def check_dataset(spec: DatasetSpec, root: Path | None = None, *, limit: int = 4) -> None:
    """root: a folder in the raw layout of the data set, of which files may be missing, but not all; None for a data
    set that makes its frames itself.

    limit: of how many clips the frames are made and looked at.
    """
    _check_spec("dataset", spec)
    _promise(spec.licence, "the licence is stated")
    adapter = spec.build()
    with tempfile.TemporaryDirectory() as empty:
        try:
            of_nothing = list(adapter.clips(Path(empty)))
        except InputError:
            of_nothing = []
        _promise(
            all(clip.frames for clip in of_nothing), "an empty folder has no clips, or raises InputError", of_nothing
        )
        clips = list(adapter.clips(root or Path(empty)))
        again = list(adapter.clips(root or Path(empty)))
    _promise(clips, "there are clips")
    strange = [clip for clip in clips if not isinstance(clip, ClipRecord)]
    _promise(not strange, "clips are ClipRecord objects", *strange[:1])
    names = [(clip.identity, clip.name) for clip in clips]
    _promise(names == [(clip.identity, clip.name) for clip in again], "the order is fixed")
    twice = [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
    _promise(not twice, "names are unique among the clips of an identity", *twice[:1])
    parts = {split: {clip.identity for clip in clips if clip.split == split} for split in ("train", "test")}
    both = parts["train"] & parts["test"]
    _promise(not both, "no identity is in both splits", *sorted(both)[:1])
    for clip in clips:
        _check_clip(clip)
        inside = clip.path is None or root is None or clip.path.absolute().is_relative_to(root.absolute())
        _promise(inside, f"the file of {clip.name} is in the raw folder", clip.path)
    _promise(
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
    _promise(
        clip.name and not set("/\\") & set(clip.name),
        f"{clip.name!r} can be part of a file name",
        "a slash, or nothing",
    )
    _promise(
        clip.identity and not set("#/\\") & set(clip.identity),
        f"{clip.identity!r} can be part of a file name",
        "a slash, a #, or nothing",
    )
    _promise(
        (clip.path is None) != (clip.frames is None),
        f"{clip.name} has either a path or frames",
        "none of them" if clip.path is None else "both",
    )
    _promise(clip.split in (None, "train", "test"), f"{clip.name} is in train, test or neither", clip.split)
    start, end = clip.start or 0.0, math.inf if clip.end is None else clip.end
    _promise(0 <= start < end, f"{clip.name} starts before it ends", f"{clip.start} to {clip.end}")
    _promise(clip.rate is None or 0 < clip.rate < math.inf, f"the frame rate of {clip.name} is above zero", clip.rate)
    _promise(clip.box is None or 0 < clip.box.area < math.inf, f"the box of {clip.name} has an area", clip.box)
    _promise(
        clip.box_frame is None or min(clip.box_frame) > 0,
        f"the frame of the box of {clip.name} has an area",
        clip.box_frame,
    )


def _check_frames(name: str, frames: Sequence[NDArray[np.uint8]], again: Iterable[NDArray[np.uint8]]) -> None:
    _promise(len(frames) > 1, f"{name} has two frames or more", len(frames))
    for frame in frames:
        _promise(frame.ndim == 3 and frame.shape[2] == 3, f"frames of {name} are (H, W, 3)", frame)
        _promise(
            frame.dtype == "uint8" and frame.shape == frames[0].shape, f"frames of {name} are uint8 of one size", frame
        )
    _promise(all((a == b).all() for a, b in zip(frames, again, strict=True)), f"{name} is the same every time")


def _check_keypoints(name: str, points: NDArray[np.float64], frames: int) -> None:
    import numpy as np

    fits = points.ndim == 3 and points.shape[2] == 2 and np.issubdtype(points.dtype, np.floating)
    _promise(fits, f"keypoints of {name} are (T, K, 2) numbers", points)
    _promise(len(points) == frames, f"{name} has keypoints of every frame", f"{len(points)} for {frames} frames")
    hidden = np.isnan(points)
    _promise((hidden.all(-1) == hidden.any(-1)).all(), f"keypoints of {name} are hidden in both coordinates or none")
    _promise((np.abs(points[~hidden]) <= 1).all(), f"keypoints of {name} are in [-1, 1]")


def check_command(spec: CommandSpec) -> None:
    """Builds the typer application of the command."""
    _check_spec("command", spec)
    app = spec.build()
    _promise(app.registered_commands or app.registered_groups or app.registered_callback, "there is a command to run")


def _check_spec(kind: str, spec: object) -> None:
    fault = spec_fault(kind, spec)
    _promise(fault is None, fault or "")
    _promise(getattr(spec, "summary", ""), "the summary says what it is")
