"""From the motion of the driving video to the motion of the source, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from fommctl.animate.config import MotionMode
from fommctl.api.protocols import ClipTransferRenderer, Renderer, TransferRenderer
from fommctl.api.schema import Opening
from fommctl.detection.framing import Room
from fommctl.detection.tracking import STILL, Travel
from fommctl.errors import ModelError, UsageError
from fommctl.networks import transfer
from fommctl.networks.motion import Motion, MotionParts, Smoother
from fommctl.networks.transfer import MotionSmoother

# Seconds in which the held pose blends into the subject's own after the subject was missing: a jump would be visible.
EASE = 0.4
# How far lips have to move since the reference, in coordinates of keypoints, until they are compared with closed ones
# (see `Opening.rest`): a motion that stands still shows the source as it is.
STIRRED = 0.03
# Last part of the subject's room, relative to all of it, in which the subject slows down towards the edge.
SOFT = 0.35
# Least reduction of a motion, in half sides, that the user is warned about.
REPORTED = 0.1
M = TypeVar("M", bound=MotionParts)
N = TypeVar("N", float, Tensor)
TransferRule = Callable[[Any, Any, Any], MotionParts]
"""rule(driving frames, reference, source): the source's motion for each driving frame."""


def rule_of(renderer: Renderer, mode: str, options: Any = None, *, film: bool = False) -> TransferRule | None:
    """Return the family's own transfer rule for this mode; None for FOMM's rule.  film: whether the source is a video.

    Raises ModelError for a mode that this model lacks the networks for.
    """
    own = isinstance(renderer, TransferRenderer) and mode in getattr(renderer, "own_modes", (mode,))
    if not own and mode not in ("relative", "absolute"):
        raise ModelError(f"this model has no network for --motion {mode}", "Leave out --motion, or use other weights.")
    if not own or not isinstance(renderer, TransferRenderer):
        return None
    if isinstance(renderer, ClipTransferRenderer) and film:
        return partial(renderer.transfer_clip, mode=mode, options=options)
    return partial(renderer.transfer, mode=mode, options=options)


@dataclass(frozen=True, slots=True)
class Moment:
    """What the transfer needs to know about a driving frame, besides its motion."""

    time: float
    """Seconds since --start."""
    present: bool = True
    """Whether it shows the subject."""
    shot: int = 0
    """Index of the shot that it belongs to."""
    travel: Travel = STILL
    """The part of the subject's movement that was lost to a following square and is added back."""


class MotionTransfer:
    """Applies travel, smoothing, hold, transfer and the limit of the square, in this order; has state, so that a clip
    can be processed batch by batch."""

    def __init__(
        self,
        source: MotionParts,
        references: Sequence[MotionParts] | Mapping[int, MotionParts],
        *,
        mode: MotionMode,
        adapt_scale: bool,
        smooth: bool,
        room: Room | None = None,
        ease: bool = False,
        rule: TransferRule | None = None,
        openings: Sequence[Opening] = (),
        expression: float = 1.0,
    ) -> None:
        """source: motion of the source, one frame.  references: one frame per shot of the driving video, by the shot's
        index; they may be added later, before the first frame of their shot.  adapt_scale: for relative motion only.
        room: room of the source's subject in its square.  ease: blend a held pose slowly into the next one.  rule: the
        family's own rule; None: FOMM's, the only one that uses adapt_scale, room and openings.  openings,
        expression: see `OpeningTransfer`; for relative motion only.

        Raises UsageError for openings with keypoints that the model does not have.
        """
        self.source = source
        self.mode = mode
        self.limited: list[float] = []
        """Times of the frames whose motion was reduced to keep the subject in the square."""
        self._references = references
        self._adapt_scale = adapt_scale and mode == "relative"
        self._smooth = smooth
        self._ease = ease
        self._rule = rule
        self._openings = openings
        self._expression = expression
        last, count = (
            max((number for each in openings for number in each.keypoints), default=-1),
            source.points().shape[1],
        )
        if last >= count:
            raise UsageError(
                f"animate_params.openings names keypoint {last}, the model has {count}", "Keypoints count from 0."
            )
        keypoints = isinstance(source, Motion) and source.keypoints.shape[1]
        self._room = room if rule is None and mode == "relative" and keypoints else None
        self._missed: float | None = None
        """Time of the last frame without the subject, while the pose held then is still blending into the next."""
        self._shot: int | None = None

    def __call__(
        self, driving: MotionParts, moments: Sequence[Moment], sources: MotionParts | None = None
    ) -> MotionParts:
        """Return the source's motion for B driving frames.

        For a frame without the subject, the last motion in its shot (or the reference) is held.  sources: for a video
        as source, its motion at each driving frame.
        """
        parts, first = [], 0
        for last in range(1, len(moments) + 1):
            if last == len(moments) or moments[last].shot != moments[first].shot:
                if moments[first].shot != self._shot:
                    self._begin(moments[first].shot)
                own = None if sources is None else sources[first:last]
                parts.append(self._moved(driving[first:last], moments[first:last], own))
                first = last
        return parts[0] if len(parts) == 1 else MotionParts.cat(parts)

    def _begin(self, shot: int) -> None:
        """Reset the state for a new shot, which has its own reference."""
        self._shot = shot
        self.reference = self._references[shot]
        """Reference of the current shot."""
        self._scale = 1.0
        if self._adapt_scale and isinstance(self.source, Motion) and isinstance(self.reference, Motion):
            self._scale = transfer.movement_scale(self.source, self.reference)
        self._smoother: Smoother | None = None
        if self._smooth:
            self._smoother = MotionSmoother() if isinstance(self.reference, Motion) else self.reference.smoother()
        self._held = self.reference
        self._missed = None
        self._opening: OpeningTransfer | None = None
        if self._openings and isinstance(self.reference, Motion):
            self._opening = OpeningTransfer(self._openings, self.reference, self._scale, self._expression)

    def _moved(
        self, driving: MotionParts, moments: Sequence[Moment], sources: MotionParts | None = None
    ) -> MotionParts:
        driving = travelled(driving, [moment.travel for moment in moments])
        driving = self._hold(driving, moments)
        if self._rule is not None:
            return self._rule(driving, self.reference, self.source if sources is None else sources)
        if self.mode == "absolute":
            return driving
        assert isinstance(driving, Motion)
        assert isinstance(self.reference, Motion)
        source = self.source if sources is None else sources
        assert isinstance(source, Motion)
        moved = transfer.relative(driving, self.reference, source, self._scale)
        if self._opening is not None:
            moved = self._opening(moved, driving, source)
        return moved if self._room is None else self._limited(moved, source, moments, self._room)

    def _hold(self, driving: MotionParts, moments: Sequence[Moment]) -> MotionParts:
        """Smooth the frames that show the subject; other frames get the motion of the last one that does.

        Frames after a gap blend from the held motion into their own.
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
                frames.append(self._held.between(own, _eased((moment.time - self._missed) / EASE)))
                continue
            frames.append(self._held)
        return MotionParts.cat(frames)

    def _smooth_motion(self, driving: MotionParts, moments: Sequence[Moment]) -> MotionParts:
        return driving if self._smoother is None else self._smoother(driving, [moment.time for moment in moments])

    def _limited(self, moved: Motion, source: Motion, moments: Sequence[Moment], room: Room) -> Motion:
        """Shift the motion as a whole so that the subject stays inside its square.

        Frames that lose much of the subject's own motion are noted in `limited`; a loss of added-back travel is not.
        """
        shift = (moved.keypoints - source.keypoints).mean(1)
        put_back = self._scale * shift.new_tensor([moment.travel.shift for moment in moments])
        cut = (shift - put_back - _inside(shift - put_back, room)).abs().amax(1)
        self.limited += [moment.time for moment, much in zip(moments, (cut > REPORTED).tolist(), strict=True) if much]
        return replace(moved, keypoints=moved.keypoints + (_inside(shift, room) - shift)[:, None])


class OpeningTransfer:
    """Makes mouth and eyelids of relative motion open and close as far as a model needs it to show them, batch after
    batch of one shot.

    Only distances count, so that turning heads keep their shape.
    """

    def __init__(
        self, openings: Sequence[Opening], reference: Motion, scale: float = 1.0, expression: float = 1.0
    ) -> None:
        """reference: the shot's reference, one frame.  scale: of the movement, as in `relative`.  expression: factor of
        all openings and closings, besides their own."""
        self._openings = openings
        self._expression = expression
        self._scale = scale
        self._before = [_distance(reference, each) for each in openings]
        self._moved = [torch.zeros_like(each) for each in self._before]
        """How far each has moved at most since the shot began, (1,)."""

    def __call__(self, moved: Motion, driving: Motion, source: Motion) -> Motion:
        """Return the moved motion of B frames with these openings.  source: one frame, or B.

        The second keypoint of an opening never passes the first, and at 0 times what the source shows is kept. `opens`
        falls to 1 along a line from closed lips to `widest`.  With `rest`, changes come to count from the source or
        from rest, whichever is further open, where the reference is open beyond both: the mouth of a source could only
        close if its driver began with an open one. That takes until the driving one has moved, so that a motion that
        stands still shows the source as it is.
        """
        keypoints = moved.keypoints.clone()
        for number, (opening, before) in enumerate(zip(self._openings, self._before, strict=True)):
            stays, *moving = opening.keypoints
            now, own = _distance(driving, opening), _distance(source, opening)
            change = seen = self._scale * (now - before)
            if opening.rest is not None:
                furthest = torch.cat((self._moved[number], (now - before).abs())).cummax(0).values
                self._moved[number] = furthest[-1:]
                settled = _eased((furthest[1:] / STIRRED).clamp(max=1))
                at_rest, most = opening.rest
                less = before.clamp_max(most) - (own / self._scale).clamp_min(at_rest)
                change = seen + self._scale * settled * less.clamp_min(0)
            opens = torch.full_like(change, opening.opens)
            if opening.widest is not None:
                opens = 1 + (opens - 1) * (1 - (2 * own + change) / opening.widest).clamp(0, 1)
            wanted = self._expression * torch.where(change > 0, opens, opening.closes) * change
            # Lips that relative motion closes too far have passed each other: it is the chin that shows the way.
            axis = keypoints[:, moving[-1]] - keypoints[:, stays]
            axis = axis / axis.norm(dim=-1, keepdim=True).clamp_min(1e-6)
            apart = ((keypoints[:, moving[0]] - keypoints[:, stays]) * axis).sum(-1)
            keypoints[:, moving] += ((wanted - seen).maximum(-apart)[:, None] * axis)[:, None]
        return replace(moved, keypoints=keypoints)


def _distance(motion: Motion, opening: Opening) -> Tensor:
    """Return (B,): how far apart the first two keypoints of an opening are."""
    first, second = opening.keypoints[:2]
    apart: Tensor = (motion.keypoints[:, second] - motion.keypoints[:, first]).norm(dim=-1)
    return apart


def _eased(share: N) -> N:
    """Return how far a transition is after this share of it, 0 to 1, smooth at both ends."""
    return share * share * (3 - 2 * share)


def _inside(shift: Tensor, room: Room) -> Tensor:
    """Shorten shifts (B, 2) that come near the end of the room."""
    low, high = shift.new_tensor((room.left, room.up)), shift.new_tensor((room.right, room.down))
    return softly(shift.clamp(min=0), high) - softly((-shift).clamp(min=0), low)


def softly(way: Tensor, room: Tensor) -> Tensor:
    """Limit non-negative distances softly: unchanged up to (1 - SOFT) of the room, then approaching the room
    asymptotically, with a continuous slope.  way, room: (..., 2)."""
    soft = (SOFT * room).clamp(min=1e-6)
    free = room - soft
    return torch.where(way > free, free + soft * (1 - torch.exp(-(way - free).clamp(min=0) / soft)), way)


def travelled(driving: M, travels: Sequence[Travel]) -> M:
    """Add to the motions of B frames the travel that their squares took away; without any, they are unchanged bit for
    bit."""
    if all(each == STILL for each in travels):
        return driving
    like = next(part for part in driving.parts() if part is not None)
    scale, angle = like.new_tensor([each.scale for each in travels]), like.new_tensor([each.angle for each in travels])
    return driving.travelled(scale, angle, like.new_tensor([each.shift for each in travels]))
