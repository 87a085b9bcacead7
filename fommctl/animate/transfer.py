"""From the motion of the driving video to the motion of the source, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fommctl.animate.config import MotionMode
from fommctl.detection.framing import Room
from fommctl.detection.tracking import STILL, Travel
from fommctl.networks import transfer
from fommctl.networks.smoothing import MotionSmoother

# After the subject was missing, the held pose passes over into its own in so many seconds: a jump would show.
EASE = 0.4
# The subject of a source goes on into the last part of its room ever more slowly: this part of it, and at the end it
# stays this far (in half sides) from the edge.
SOFT = 0.35
# A motion that had to be cut by more than this, in half sides, is told.
TOLD = 0.1


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known of a driving frame beside its pixels."""

    time: float
    """Seconds since --start."""
    present: bool = True
    """Does it show the subject?"""
    shot: int = 0
    """Number of the shot that it belongs to."""
    travel: Travel = STILL
    """What its square took of the subject's movement and is put back."""


class MotionTransfer:
    """Applies travel, smoothing, hold, transfer and the limit of the square, in this order; remembers what it needs
    from batch to batch."""

    def __init__(
        self,
        source: transfer.Motion,
        references: Sequence[transfer.Motion] | Mapping[int, transfer.Motion],
        *,
        mode: MotionMode,
        adapt_scale: bool,
        smooth: bool,
        room: Room | None = None,
        ease: bool = False,
    ) -> None:
        """source: one frame.  references: one frame for each shot of the driving video, by the shot's number; they may
        be added later, before the first frame of their shot.  adapt_scale counts for relative motion only.  room: of
        the source's subject in its square.  ease: a pose that was held passes over into the next one slowly."""
        self.source = source
        self.mode = mode
        self.limited: list[float] = []
        """Times of the frames whose motion was cut so that the subject stays in the square."""
        self._references = references
        self._adapt_scale = adapt_scale and mode == "relative"
        self._smooth = smooth
        self._ease = ease
        self._room = room if mode == "relative" and source.keypoints.shape[1] else None
        self._missed: float | None = None
        """Time of the last frame without the subject, as long as the pose that was held then is passing over."""
        self._shot: int | None = None

    def __call__(self, driving: transfer.Motion, moments: Sequence[Moment]) -> transfer.Motion:
        """The source's motion for B driving frames; where a frame's subject is not present, the last motion of its shot
        before it (the reference before any) is held."""
        parts, first = [], 0
        for last in range(1, len(moments) + 1):
            if last == len(moments) or moments[last].shot != moments[first].shot:
                if moments[first].shot != self._shot:
                    self._begin(moments[first].shot)
                parts.append(self._moved(driving[first:last], moments[first:last]))
                first = last
        return parts[0] if len(parts) == 1 else transfer.Motion.cat(parts)

    def _begin(self, shot: int) -> None:
        """Forget what came before: a shot has its own reference."""
        self._shot = shot
        self.reference = self._references[shot]
        """Of the shot that is being moved."""
        self._scale = transfer.movement_scale(self.source, self.reference) if self._adapt_scale else 1.0
        self._smoother = MotionSmoother() if self._smooth else None
        self._held = self.reference
        self._missed = None

    def _moved(self, driving: transfer.Motion, moments: Sequence[Moment]) -> transfer.Motion:
        driving = travelled(driving, [moment.travel for moment in moments])
        driving = self._hold(driving, moments)
        if self.mode == "absolute":
            return driving
        moved = transfer.relative(driving, self.reference, self.source, self._scale)
        return moved if self._room is None else self._limited(moved, moments, self._room)

    def _hold(self, driving: transfer.Motion, moments: Sequence[Moment]) -> transfer.Motion:
        """Smooth the frames that show the subject; absent ones get the motion of the last of these.

        Those that come after absent ones pass over to their own.
        """
        if self._missed is None and all(moment.present for moment in moments):
            driving = self._smooth_motion(driving, moments)
            self._held = driving[-1:]
            return driving
        frames = []
        for index, moment in enumerate(moments):
            if not moment.present:
                self._missed = moment.time
                frames.append(self._held)
                continue
            own = self._smooth_motion(driving[index : index + 1], [moment])
            if self._missed is None:
                self._held = own
            elif not self._ease or moment.time - self._missed >= EASE:
                self._held, self._missed = own, None
            else:
                share = (moment.time - self._missed) / EASE
                frames.append(_between(self._held, own, share * share * (3 - 2 * share)))
                continue
            frames.append(self._held)
        return transfer.Motion.cat(frames)

    def _smooth_motion(self, driving: transfer.Motion, moments: Sequence[Moment]) -> transfer.Motion:
        return driving if self._smoother is None else self._smoother(driving, [moment.time for moment in moments])

    def _limited(self, moved: transfer.Motion, moments: Sequence[Moment], room: Room) -> transfer.Motion:
        """The motion, shifted as a whole so that the subject stays inside its square.

        What is lost of the subject's own motion is remembered; what is lost of the travel that is put back is not.
        """
        shift = (moved.keypoints - self.source.keypoints).mean(1)
        put_back = self._scale * shift.new_tensor([moment.travel.shift for moment in moments])
        cut = (shift - put_back - _inside(shift - put_back, room)).abs().amax(1)
        self.limited += [moment.time for moment, much in zip(moments, (cut > TOLD).tolist(), strict=True) if much]
        return replace(moved, keypoints=moved.keypoints + (_inside(shift, room) - shift)[:, None])


def _inside(shift: Tensor, room: Room) -> Tensor:
    """A shift (B, 2), shortened where it nears the end of the room."""
    low, high = shift.new_tensor((room.left, room.up)), shift.new_tensor((room.right, room.down))
    return softly(shift.clamp(min=0), high) - softly((-shift).clamp(min=0), low)


def _between(one: transfer.Motion, other: transfer.Motion, share: float) -> transfer.Motion:
    """The motion that lies this share of the way from one to the other."""
    keypoints, *others = (
        None if first is None or second is None else torch.lerp(first, second, share)
        for first, second in zip(one.parts(), other.parts(), strict=True)
    )
    assert keypoints is not None
    return transfer.Motion(keypoints, *others)


def softly(way: Tensor, room: Tensor) -> Tensor:
    """The way, 0 or more, as it is at first and never more than the room, which it nears ever more slowly.

    Both (..., 2); equal to `way` up to (1 - SOFT) of the room, and smooth there.
    """
    soft = (SOFT * room).clamp(min=1e-6)
    free = room - soft
    return torch.where(way > free, free + soft * (1 - torch.exp(-(way - free).clamp(min=0) / soft)), way)


def travelled(driving: transfer.Motion, travels: Sequence[Travel]) -> transfer.Motion:
    """The motions of B frames moved by what their squares took away; where that is nothing, bit for bit as they are."""
    if all(each == STILL for each in travels):
        return driving
    like = driving.keypoints
    turns = like.new_tensor(
        [[[math.cos(t.angle), -math.sin(t.angle)], [math.sin(t.angle), math.cos(t.angle)]] for t in travels]
    )
    maps = (turns * like.new_tensor([t.scale for t in travels])[:, None, None])[:, None]
    shifts = like.new_tensor([t.shift for t in travels])[:, None]
    keypoints = (maps @ driving.keypoints[..., None])[..., 0] + shifts
    jacobians = None if driving.jacobians is None else maps @ driving.jacobians
    covariances = None if driving.covariances is None else maps @ driving.covariances @ maps.mT
    return replace(driving, keypoints=keypoints, jacobians=jacobians, covariances=covariances)
