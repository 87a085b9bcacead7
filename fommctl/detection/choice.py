"""Choosing one of several subjects, by its number, size or position.

Subjects of a picture are numbered from left to right. In a shot, so are those present at its beginning; subjects that
appear later follow in order of time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

from fommctl.errors import InputError, UsageError

if TYPE_CHECKING:
    from fommctl.api.protocols import Detection
    from fommctl.detection.tracking import Track
    from fommctl.media.boxes import Box

T = TypeVar("T")
LARGEST = "largest"
# A subject first seen within this many seconds counts as present from the beginning: detectors miss a face sometimes.
FROM_THE_START = 1


def check_face(text: str, flag: str, words: tuple[str, ...] = (LARGEST, "all")) -> str:
    """Check a choice of subject (one of `words`, a number from 1, or a position `X,Y`) and return it. Raises
    UsageError."""
    if text in words or re.fullmatch(r"0*[1-9][0-9]{0,3}|[0-9]{1,6},[0-9]{1,6}", text):
        return text
    raise UsageError(
        f"{flag} cannot be '{text}'",
        f"Give {', '.join(words)}, a number from 1 (from left to right), or a point X,Y in pixels.",
    )


def chosen(face: str, ordered: Sequence[T], numbered: Sequence[T], box: Callable[[T], Box]) -> tuple[T, int] | None:
    """Return the chosen subject and its number; None if there is no such subject.

    ordered: all subjects, the largest first.  numbered: the same subjects in order of their numbers.
    """
    if not ordered:
        return None
    if face == LARGEST:
        found = ordered[0]
    elif "," in face:
        x, y = (int(part) for part in face.split(","))
        found = min(ordered, key=lambda each: _distance(box(each), x, y))
    else:
        if int(face) > len(numbered):
            return None
        found = numbered[int(face) - 1]
    return found, 1 + next(index for index, each in enumerate(numbered) if each is found)


def _distance(box: Box, x: float, y: float) -> tuple[float, float]:
    """Return the squared distances of a point from a box (0 inside) and from its centre."""
    across = max(box.left - x, 0.0, x - box.right)
    down = max(box.top - y, 0.0, y - box.bottom)
    (middle_x, middle_y) = box.center
    return across**2 + down**2, (x - middle_x) ** 2 + (y - middle_y) ** 2


def left_to_right(detections: Sequence[Detection]) -> list[Detection]:
    """Return the subjects of a picture in order of their numbers."""
    return sorted(detections, key=lambda each: each.box.center)


def numbered_tracks(tracks: Sequence[Track], times: Sequence[Fraction]) -> list[Track]:
    """Return the subjects of a shot in order of their numbers.  times: times of the searched frames."""

    def place(track: Track) -> tuple[Fraction, float]:
        late = times[track.samples[0]] - times[0]
        return (late if late >= FROM_THE_START else Fraction(0)), track.detections[0].box.center[0]

    return sorted(tracks, key=place)


def no_such(subject: str, face: str, count: int, name: str) -> InputError:
    """Return the error for a picture or clip that has subjects, but not the chosen one."""
    return InputError(
        f"there is no {subject} {face} in {name}",
        f"It has {count}, numbered from left to right: 'fommctl crop --dry-run' and 'animate --compare' show them.",
    )
