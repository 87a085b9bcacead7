"""Choosing detectors, and caching them and their results for several jobs."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

from fommctl.api.protocols import Detector
from fommctl.api.specs import DetectorSpec
from fommctl.detection.framing import ClipCrop
from fommctl.detection.shots import DrivingCrop, SearchedClip, crops_in_clip, search_clip
from fommctl.errors import MissingError, describe
from fommctl.host import Host, why_not_ready
from fommctl.media.reader import Clip

log = logging.getLogger(__name__)
CLIPS = 16


class DetectorCache:
    """The detectors of a host, and their results in the last clips."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._detectors: dict[tuple[str, str | None], tuple[DetectorSpec, Detector]] = {}
        self._clips: OrderedDict[tuple[Any, ...], tuple[ClipCrop, ...]] = OrderedDict()
        self._searched: tuple[tuple[Any, ...], SearchedClip] | None = None
        """The last clip that was searched, so that other subjects in it need no second search."""

    def detector(self, subject: str, name: str | None) -> tuple[DetectorSpec, Detector]:
        """Return the result of `choose_detector`, cached."""
        if (subject, name) not in self._detectors:
            self._detectors[subject, name] = choose_detector(self.host, subject, name)
        return self._detectors[subject, name]

    def in_clip(
        self,
        clip: Clip,
        detector: tuple[DetectorSpec, Detector],
        width: float,
        *,
        subject: str,
        driving_crop: DrivingCrop,
        cuts: bool,
        face: str,
    ) -> tuple[ClipCrop, ...]:
        """Return the result of `crops_in_clip`, cached as long as the file does not change."""
        spec, built = detector
        part = clip.fps, clip.start, clip.end, clip.deinterlace
        same = (*_state(clip.path), part, spec.name, getattr(built, "square", None), cuts)
        key = (*same, width, subject, driving_crop, face)
        found = self._clips.pop(key, None)
        if found is None:
            if (self._searched is None or self._searched[0] != same) and not (driving_crop == "fixed" and not cuts):
                self._searched = same, search_clip(clip, built, cuts)
            found = crops_in_clip(
                clip,
                built,
                width,
                subject=subject,
                driving_crop=driving_crop,
                cuts=cuts,
                face=face,
                searched=None if self._searched is None else self._searched[1],
            )
        if clip.path.is_file():
            self._clips[key] = found
        while len(self._clips) > CLIPS:
            self._clips.popitem(last=False)
        return found


def _state(path: Path) -> tuple[Path, int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return path, 0, 0, 0
    return path, status.st_ino, status.st_size, status.st_mtime_ns


def ready_detectors(host: Host, subject: str) -> list[DetectorSpec]:
    """Return the detectors of this subject that work without downloads, in order of priority."""
    fitting = [spec for spec in host.detectors.values() if spec.subject == subject and why_not_ready(spec) is None]
    return sorted(fitting, key=lambda spec: -spec.priority)


def choose_detector(host: Host, subject: str, name: str | None = None) -> tuple[DetectorSpec, Detector]:
    """Return the named detector, or the first ready one that can be built.

    A named detector may download its weights. Raises UsageError for an unknown name, and MissingError if no detector of
    `subject` works.
    """
    if name is not None:
        spec: DetectorSpec = host.find("detector", name)
        return spec, spec.build()
    for spec in ready_detectors(host, subject):
        try:
            return spec, spec.build()
        except MissingError as error:
            log.warning("detector %s: %s", spec.name, error.message)
        except Exception as error:
            log.warning("detector %s: %s", spec.name, describe(error))
    reasons = [
        f"{spec.name}: {why_not_ready(spec) or 'cannot be loaded'}"
        for spec in host.detectors.values()
        if spec.subject == subject
    ]
    raise MissingError(
        f"no {subject} detector is ready ({'; '.join(reasons) or 'none is installed'})",
        "Give --crop none or --crop X,Y,SIZE, or install what is missing.",
    )
