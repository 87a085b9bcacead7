"""The reference frame of relative motion: the driving frame whose pose stands for the source's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction

import torch

from fommctl.api.protocols import Detector, Renderer, SourceContext
from fommctl.core.pixels import to_tensor
from fommctl.core.transfer import Motion
from fommctl.errors import InputError, UsageError
from fommctl.host import Host
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Frame, Reader
from fommctl.presets import Framing
from fommctl.stages.best_frame import nearest_pose_by_keypoints, nearest_pose_by_landmarks
from fommctl.stages.framing import ready_detectors
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
        start=config.start,
        end=config.end,
        box=shot.driving_box,
        size=shot.size,
        max_rate=max_rate,
    )


def find_reference(
    config: AnimateConfig,
    shot: Shot,
    info: VideoInfo,
    renderer: Renderer,
    context: SourceContext,
    framing: Framing | None,
    host: Host,
) -> tuple[int, Motion]:
    """The number of the reference frame and its motion. Raises UsageError for a frame beyond the end."""
    if config.best_frame != "auto":
        frame = _first(config, shot) if config.best_frame == "first" else _numbered(config, shot)
        return frame.index, renderer.detect(to_tensor([frame.pixels], renderer.device))
    rate = SEARCH_RATE
    if info.duration:
        rate = min(rate, SEARCH_FRAMES / info.duration)
    detector = _landmark_detector(framing, host)
    if detector is not None and (found := _by_landmarks(config, shot, rate, detector)) is not None:
        log.info("reference: frame %d, by landmarks", found.index)
        return found.index, renderer.detect(to_tensor([found.pixels], renderer.device))
    index, motion = _by_keypoints(config, shot, rate, renderer, context)
    log.info("reference: frame %d, by the model's keypoints", index)
    return index, motion


def _frames(config: AnimateConfig, shot: Shot, max_rate: Fraction | None = None) -> Iterator[Frame]:
    with open_driving(config, shot, max_rate) as reader:
        yield from reader


def _first(config: AnimateConfig, shot: Shot) -> Frame:
    """The first frame with a subject, or the first of all where there is none anywhere."""
    first: Frame | None = None
    for frame in _frames(config, shot):
        if shot.present(frame.time):
            return frame
        first = first or frame
    return _existing(first, config)


def _numbered(config: AnimateConfig, shot: Shot) -> Frame:
    count, frame = 0, None
    for frame in _frames(config, shot):
        if count == int(config.best_frame):
            return frame
        count += 1
    _existing(frame, config)
    raise UsageError(f"--best-frame {config.best_frame} is beyond the end", f"Frames are numbered 0 to {count - 1}.")


def _existing(frame: Frame | None, config: AnimateConfig) -> Frame:
    if frame is None:
        raise InputError(f"no frames of {config.driving.name} lie between --start and --end", "Check the times.")
    return frame


def _landmark_detector(framing: Framing | None, host: Host) -> Detector | None:
    if framing is None:
        return None
    spec = next((spec for spec in ready_detectors(host, framing.subject) if spec.landmarks), None)
    return None if spec is None else spec.build()


def _by_landmarks(config: AnimateConfig, shot: Shot, rate: Fraction, detector: Detector) -> Frame | None:
    source = detector.detect([shot.square])[0]
    if not source or source[0].landmarks is None:
        return None
    best: tuple[float, Frame] | None = None
    for frame in _frames(config, shot, rate):
        found = detector.detect([frame.pixels])[0]
        if not found or found[0].landmarks is None:
            continue
        _, distance = nearest_pose_by_landmarks(source[0].landmarks, [found[0].landmarks])
        if best is None or distance < best[0]:
            best = distance, frame
    return None if best is None else best[1]


def _by_keypoints(
    config: AnimateConfig, shot: Shot, rate: Fraction, renderer: Renderer, context: SourceContext
) -> tuple[int, Motion]:
    indices, motions = [], []
    for frame in _frames(config, shot, rate):
        if shot.present(frame.time):
            indices.append(frame.index)
            motions.append(renderer.detect(to_tensor([frame.pixels], renderer.device)))
    if not motions:
        frame = _first(config, shot)
        return frame.index, renderer.detect(to_tensor([frame.pixels], renderer.device))
    jacobians = [motion.jacobians for motion in motions if motion.jacobians is not None]
    joined = Motion(torch.cat([motion.keypoints for motion in motions]), torch.cat(jacobians) if jacobians else None)
    best, _ = nearest_pose_by_keypoints(context.motion, joined)
    return indices[best], joined[best : best + 1]
