"""Which of several subjects is meant: by its number, its size or its place.

Subjects of a picture are numbered from left to right; so are those of a shot, and those that come later follow those
that are there when it begins.
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
# One that is first seen within so many seconds was there from the beginning: detectors miss a face now and then.
FROM_THE_START = 1


def check_face(text: str, flag: str, words: tuple[str, ...] = (LARGEST, "all")) -> str:
    """Return a text that names a subject: one of the words, a number from 1 on, or a place `X,Y`. Raises UsageError."""
    if text in words or re.fullmatch(r"0*[1-9][0-9]{0,3}|[0-9]{1,6},[0-9]{1,6}", text):
        return text
    raise UsageError(
        f"{flag} cannot be '{text}'",
        f"Give {', '.join(words)}, a number from 1 (from left to right), or a point X,Y in pixels.",
    )


def chosen(face: str, ordered: Sequence[T], numbered: Sequence[T], box: Callable[[T], Box]) -> tuple[T, int] | None:
    """Return the subject that is meant and its number; None where there is none.

    ordered: the largest first.  numbered: the same by their numbers.
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
    """Return the distance from a box, 0 within it, and that from its middle."""
    across = max(box.left - x, 0.0, x - box.right)
    down = max(box.top - y, 0.0, y - box.bottom)
    (middle_x, middle_y) = box.center
    return across**2 + down**2, (x - middle_x) ** 2 + (y - middle_y) ** 2


def left_to_right(detections: Sequence[Detection]) -> list[Detection]:
    """Return the subjects of a picture by their numbers."""
    return sorted(detections, key=lambda each: each.box.center)


def numbered_tracks(tracks: Sequence[Track], times: Sequence[Fraction]) -> list[Track]:
    """Return the subjects of a shot by their numbers.  times: of its searched frames."""

    def place(track: Track) -> tuple[Fraction, float]:
        late = times[track.samples[0]] - times[0]
        return (late if late >= FROM_THE_START else Fraction(0)), track.detections[0].box.center[0]

    return sorted(tracks, key=place)


def no_such(subject: str, face: str, count: int, name: str) -> InputError:
    """Return the error of a picture or clip that has subjects, and not the one that is meant."""
    return InputError(
        f"there is no {subject} {face} in {name}",
        f"It has {count}, numbered from left to right: 'fommctl crop --dry-run' and 'animate --compare' show them.",
    )
