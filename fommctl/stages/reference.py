"""The reference frame of relative motion: the driving frame whose pose stands for the source's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction

import torch

from fommctl.api.protocols import Renderer, SourceContext
from fommctl.core.pixels import to_tensor
from fommctl.core.transfer import Motion
from fommctl.errors import UsageError
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Frame, Reader
from fommctl.stages.best_frame import nearest_pose_by_keypoints, nearest_pose_by_landmarks
from fommctl.stages.options import AnimateConfig
from fommctl.stages.shot import Shot

log = logging.getLogger(__name__)
SEARCH_RATE = Fraction(5)
SEARCH_FRAMES = 300
"""The search looks at five frames a second, and at fewer in a long video."""


def open_driving(config: AnimateConfig, shot: Shot, max_rate: Fraction | None = None) -> Reader:
    """The driving video, trimmed, cropped and resized for the model."""
    return Reader(
        config.driving,
        fps=config.fps,
        start=config.start_s,
        end=config.end_s,
        box=shot.driving_box,
        size=shot.size,
        max_rate=max_rate,
        deinterlace=config.deinterlace,
    )


def find_reference(
    config: AnimateConfig, shot: Shot, info: VideoInfo, renderer: Renderer, context: SourceContext
) -> tuple[Fraction, Motion]:
    """Time (seconds) and motion of the reference frame. Raises UsageError for a frame beyond the end."""
    if config.best_frame != "auto":
        frame = _first(config, shot) if config.best_frame == "first" else _numbered(config, shot)
        return frame.time, renderer.detect(to_tensor([frame.pixels], renderer.device))
    moment = _by_landmarks(shot)
    how = "landmarks"
    if moment is None:
        moment, how = _by_keypoints(config, shot, info, renderer, context), "the model's keypoints"
    frame = next(frame for frame in _frames(config, shot) if frame.time >= moment)
    log.info("reference frame at %.3f s, by %s", float(frame.time), how)
    return frame.time, renderer.detect(to_tensor([frame.pixels], renderer.device))


def _frames(config: AnimateConfig, shot: Shot, max_rate: Fraction | None = None) -> Iterator[Frame]:
    with open_driving(config, shot, max_rate) as reader:
        yield from reader


def _first(config: AnimateConfig, shot: Shot) -> Frame:
    """The first frame with a subject; the very first where none has one."""
    first = next(_frames(config, shot))
    if shot.present(first.time):
        return first
    return next((frame for frame in _frames(config, shot) if shot.present(frame.time)), first)


def _numbered(config: AnimateConfig, shot: Shot) -> Frame:
    frame = None
    for frame in _frames(config, shot):
        if frame.index == int(config.best_frame):
            return frame
    last = 0 if frame is None else frame.index
    raise UsageError(f"--best-frame {config.best_frame} is beyond the end", f"Frames are numbered 0 to {last}.")


def _by_landmarks(shot: Shot) -> Fraction | None:
    """The time of the searched frame whose landmarks are nearest; None where there are no landmarks to compare."""
    if shot.subject is None or shot.subject.landmarks is None:
        return None
    poses = [
        (sighting.time, sighting.detection.landmarks)
        for sighting in shot.sightings
        if sighting.detection is not None and sighting.detection.landmarks is not None
    ]
    if not poses:
        return None
    best, _ = nearest_pose_by_landmarks(shot.subject.landmarks, [landmarks for _, landmarks in poses])
    return poses[best][0]


def _by_keypoints(
    config: AnimateConfig, shot: Shot, info: VideoInfo, renderer: Renderer, context: SourceContext
) -> Fraction:
    if not context.motion.keypoints.shape[1]:
        raise UsageError("this model has no keypoints to compare poses by", "Give --best-frame first or a number.")
    rate = min(SEARCH_RATE, SEARCH_FRAMES / info.duration) if info.duration else SEARCH_RATE
    times, keypoints = [], []
    for frame in _frames(config, shot, rate):
        if shot.present(frame.time):
            times.append(frame.time)
            keypoints.append(renderer.detect(to_tensor([frame.pixels], renderer.device)).keypoints)
    best, _ = nearest_pose_by_keypoints(context.motion, Motion(torch.cat(keypoints)))
    return times[best]
