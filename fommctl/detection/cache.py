"""Searches for subjects that several jobs have in common: detectors are built once, clips are searched once."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from fommctl.api.protocols import Detector
from fommctl.api.specs import DetectorSpec
from fommctl.detection.framing import ClipSquare, choose_detector
from fommctl.detection.shots import DrivingCrop, squares_in_clip
from fommctl.host import Host
from fommctl.media.reader import Clip

CLIPS = 16


class Searches:
    """The detectors of a host, and what they found in the last clips."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._detectors: dict[tuple[str, str | None], tuple[DetectorSpec, Detector]] = {}
        self._clips: OrderedDict[tuple[Any, ...], tuple[ClipSquare, ...]] = OrderedDict()

    def detector(self, subject: str, name: str | None) -> tuple[DetectorSpec, Detector]:
        """As `choose_detector`."""
        if (subject, name) not in self._detectors:
            self._detectors[subject, name] = choose_detector(self._host, subject, name)
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
    ) -> tuple[ClipSquare, ...]:
        """As `squares_in_clip`; a file that was not written to since is not searched again."""
        spec, built = detector
        part = clip.fps, clip.start, clip.end, clip.deinterlace
        key = (*_state(clip.path), part, spec.name, width, subject, driving_crop, cuts)
        found = self._clips.pop(key, None)
        if found is None:
            found = squares_in_clip(clip, built, width, subject=subject, driving_crop=driving_crop, cuts=cuts)
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
