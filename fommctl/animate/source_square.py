"""The square of the source: wide enough for the motion to come, and how far its subject may move inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fommctl.api.protocols import Detector
from fommctl.detection.following import travel
from fommctl.detection.framing import CENTERS, MIDDLE, OUTER, ClipSquare, Square, ideal, not_found
from fommctl.detection.search import all_detections, looked_at_again
from fommctl.detection.subjects import subjects
from fommctl.media.boxes import Box, TurnedSquare, square

# How far a head with its hair reaches from the middle of its face, in widths of the face as HOG measures it.
HEAD = Box(-0.75, -0.95, 0.75, 0.75)
# A source is never framed looser than this (face over square): its face would have too few of the network's pixels.
LOOSEST = 0.3
# A subject may always move by this many widths of its box, however near the picture's edge is.
LEAST = 0.15
# A square moves by up to this part of its side to lie inside the picture; what then is outside is reflected.
MOVED = 0.08

Move = tuple[float, float]
"""From where the subject is in the reference frame, right and down, in widths of its box."""


@dataclass(frozen=True, slots=True)
class Room:
    """How far the subject of a source may move before its head leaves the square, in sides / 2 (so -1 to 1 is all)."""

    left: float
    up: float
    right: float
    down: float
    """None is negative."""


def excursions(shots: Sequence[ClipSquare], head_motion: float) -> list[Move]:
    """The moves that the source's subject will make, from where it was seen in the driving video.

    head_motion: share of the travel that is put back where the square follows.
    """
    moves: list[Move] = []
    for shot in shots:
        seen = [(float(one.time), one.detection.box) for one in shot.sightings if one.detection is not None]
        first: TurnedSquare | None = None
        width = float(np.median([box.width for _, box in seen]))
        places: list[Move] = []
        for time, box in seen:
            if shot.path is None:
                places.append((box.center[0] / width, box.center[1] / width))
                continue
            at = shot.path.at(time)
            first = first or at
            put_back = travel(at, first, head_motion)
            sides = first.side / width
            x, y = (
                sides * ((box.center[axis] - at.center[axis]) / at.side + put_back.shift[axis] / 2) for axis in (0, 1)
            )
            places.append((x, y))
        origin = places[0]
        moves += [(x - origin[0], y - origin[1]) for x, y in places]
    return moves


def source_square(
    pixels: NDArray[np.uint8],
    detector: Detector,
    width: float,
    moves: Sequence[Move],
    *,
    subject: str = "face",
    name: str = "the picture",
) -> Square:
    """The square around the largest sure subject of a picture (H, W, 3), with room for its moves.

    width: of the subject's box over the side of the square, where the moves leave it so; never less than LOOSEST.
    Raises InputError where no subject is found.
    """
    sure = subjects(all_detections(pixels, detector))
    if not sure:
        raise not_found(subject, name)
    box = looked_at_again(pixels, sure[0].box, detector)
    side = max(1 / width, min(_side_for(moves, subject), 1 / LOOSEST)) * box.width
    wanted = ideal(box, box.width / side, subject)
    placed = square(wanted.center, side)
    inside = placed.shifted_inside(pixels.shape[1], pixels.shape[0])
    limit = round(MOVED * side)
    x, y = (
        float(np.clip(new - old, -limit, limit)) for new, old in ((inside.left, placed.left), (inside.top, placed.top))
    )
    return Square(placed.shifted(x, y), len(sure), sure[0].score, sure[0])


def room_in(found: Square, width: int, height: int) -> Room:
    """How far the subject may move in its square, in a picture of this size (pixels).

    Its head stays in the square, and in the picture. Nor does it leave an edge by more than lies between: beyond the
    edge the picture is its own reflection, in which there is a second head.
    """
    box, at = found.box, found.subject.box
    x, y = at.center
    head = Box(*(middle + side * at.width for middle, side in zip((x, y, x, y), _sides(HEAD), strict=True)))
    beside = min(head.left, width - head.right)
    left, right = min(head.left - box.left, beside), min(box.right - head.right, beside)
    up, down = min(head.top - box.top, head.top), min(box.bottom - head.bottom, head.top)
    return Room(*(2 * max(LEAST * at.width, each) / box.width for each in (left, up, right, down)))


def _side_for(moves: Sequence[Move], subject: str) -> float:
    """Side of the square, in widths of the subject, that holds its head in all moves but stray ones."""
    if not moves:
        return 0.0
    x, y = CENTERS.get(subject, MIDDLE)
    left, up = np.minimum(0, np.percentile(moves, OUTER, axis=0))
    right, down = np.maximum(0, np.percentile(moves, 100 - OUTER, axis=0))
    across = max((-HEAD.left - left) / x, (HEAD.right + right) / (1 - x))
    return float(max(across, (-HEAD.top - up) / y, (HEAD.bottom + down) / (1 - y)))


def _sides(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.right, box.bottom
