"""The reference frame of relative motion, one a shot: the driving frame whose pose stands for the source's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch

from fommctl.animate.best_frame import nearest_pose_by_keypoints, nearest_pose_by_landmarks
from fommctl.animate.config import AnimateConfig
from fommctl.animate.driving import DrivingReader
from fommctl.animate.shot import Shot
from fommctl.api.protocols import Renderer, SourceContext
from fommctl.errors import UsageError
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Frame
from fommctl.networks.grids import to_tensor
from fommctl.networks.transfer import Motion

log = logging.getLogger(__name__)
SEARCH_RATE = Fraction(5)
SEARCH_FRAMES = 300
"""The search looks at five frames a second, and at fewer in a long video."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference frame of a shot."""

    time: Fraction
    """Of the frame in the driving video, seconds since --start."""
    motion: Motion
    """One frame, on the CPU."""


def find_references(
    config: AnimateConfig, shot: Shot, info: VideoInfo, renderer: Renderer, context: SourceContext
) -> tuple[Reference, ...]:
    """The reference of each shot of the driving video. Raises UsageError for a frame beyond the end.

    A frame that is asked for by number is that of its shot; the other shots take their first.
    """
    numbered = _numbered(config, shot) if config.best_frame not in (None, "first", "auto") else None
    references = []
    for number, (begin, end) in enumerate(_bounds(shot)):
        if numbered is not None and shot.number_at(numbered.time) == number:
            frame = numbered
        elif config.best_frame == "auto":
            frame = _best(config, shot, (begin, end), info, renderer, context)
        else:
            frame = _first(config, shot, (begin, end))
        motion = renderer.detect(to_tensor([frame.pixels], renderer.device))
        references.append(Reference(frame.time, motion.to("cpu")))
    return tuple(references)


Bounds = tuple[Fraction, Fraction | None]
"""Beginning and end of a shot, seconds since --start; None where the clip ends."""


def _bounds(shot: Shot) -> list[Bounds]:
    starts = [Fraction(0), *shot.starts[1:]]
    return list(zip(starts, [*starts[1:], None], strict=True))


def _frames(config: AnimateConfig, shot: Shot, bounds: Bounds, max_rate: Fraction | None = None) -> Iterator[Frame]:
    with DrivingReader(config, shot, begin=bounds[0], end=bounds[1], max_rate=max_rate) as reader:
        yield from reader


def _first(config: AnimateConfig, shot: Shot, bounds: Bounds) -> Frame:
    """The first frame with a subject; the very first where none has one."""
    first = next(_frames(config, shot, bounds))
    if shot.present(first.time):
        return first
    return next((frame for frame in _frames(config, shot, bounds) if shot.present(frame.time)), first)


def _numbered(config: AnimateConfig, shot: Shot) -> Frame:
    frame, number = None, int(config.best_frame or 0)
    for frame in _frames(config, shot, (Fraction(0), None)):
        if frame.index == number:
            return frame
    last = 0 if frame is None else frame.index
    raise UsageError(f"--best-frame {config.best_frame} is beyond the end", f"Frames are numbered 0 to {last}.")


def _best(
    config: AnimateConfig, shot: Shot, bounds: Bounds, info: VideoInfo, renderer: Renderer, context: SourceContext
) -> Frame:
    """The frame of a shot whose pose is nearest to the source's."""
    moment = _by_landmarks(shot, bounds)
    how = "landmarks"
    if moment is None:
        moment, how = _by_keypoints(config, shot, bounds, info, renderer, context), "the model's keypoints"
    frame = next(frame for frame in _frames(config, shot, bounds) if frame.time >= moment)
    log.info("reference frame at %.3f s, by %s", float(frame.time), how)
    return frame


def _by_landmarks(shot: Shot, bounds: Bounds) -> Fraction | None:
    """The time of the searched frame whose landmarks are nearest; None where there are no landmarks to compare."""
    if shot.subject is None or shot.subject.landmarks is None or not shot.shots:
        return None
    poses = [
        (sighting.time, sighting.detection.landmarks)
        for sighting in shot.shots[shot.number_at(bounds[0])].sightings
        if sighting.detection is not None and sighting.detection.landmarks is not None
    ]
    if not poses:
        return None
    best, _ = nearest_pose_by_landmarks(shot.subject.landmarks, [landmarks for _, landmarks in poses])
    return poses[best][0]


def _by_keypoints(
    config: AnimateConfig, shot: Shot, bounds: Bounds, info: VideoInfo, renderer: Renderer, context: SourceContext
) -> Fraction:
    if not context.motion.keypoints.shape[1]:
        raise UsageError("this model has no keypoints to compare poses by", "Give --best-frame first or a number.")
    rate = min(SEARCH_RATE, SEARCH_FRAMES / info.duration) if info.duration else SEARCH_RATE
    times, keypoints = [], []
    for frame in _frames(config, shot, bounds, rate):
        if shot.present(frame.time):
            times.append(frame.time)
            keypoints.append(renderer.detect(to_tensor([frame.pixels], renderer.device)).keypoints)
    best, _ = nearest_pose_by_keypoints(context.motion, Motion(torch.cat(keypoints)))
    return times[best]
