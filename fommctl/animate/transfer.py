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

# After the subject was missing, the held pose passes over into its own in so many seconds: a jump would show.
EASE = 0.4
# The subject of a source goes on into the last part of its room ever more slowly: this part of it, and at the end it
# stays this far (in half sides) from the edge.
SOFT = 0.35
# A motion that had to be cut by more than this, in half sides, is told.
TOLD = 0.1
M = TypeVar("M", bound=MotionParts)
TransferRule = Callable[[Any, Any, Any], MotionParts]
"""rule(driving frames, reference, source): the source's motion for each driving frame."""


def rule_of(renderer: Renderer, mode: str, options: Any = None, *, film: bool = False) -> TransferRule | None:
    """Return how the model's own family transfers motion; None where it does as FOMM does. Raises ModelError for a mode
    that this model of its family lacks the networks for.  film: to the frames of a video."""
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
    """Properties of a driving frame beside its pixels."""

    time: float
    """Seconds since --start."""
    present: bool = True
    """Whether it shows the subject."""
    shot: int = 0
    """Number of the shot that it belongs to."""
    travel: Travel = STILL
    """The part of the subject's movement that the moving square took away and that is put back."""


class MotionTransfer:
    """Applies travel, smoothing, hold, transfer and the limit of the square, in this order; remembers what it needs
    from batch to batch."""

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
    ) -> None:
        """source: one frame.  references: one frame for each shot of the driving video, by the shot's number; they may
        be added later, before the first frame of their shot.  adapt_scale counts for relative motion only.  room: of
        the source's subject in its square.  ease: a pose that was held passes over into the next one slowly.
        rule: of the model's family; None: that of FOMM, to which adapt_scale, room and openings belong.
        openings: see `fommctl.networks.transfer.expressed`; of relative motion only."""
        self.source = source
        self.mode = mode
        self.limited: list[float] = []
        """Times of the frames whose motion was cut so that the subject stays in the square."""
        self._references = references
        self._adapt_scale = adapt_scale and mode == "relative"
        self._smooth = smooth
        self._ease = ease
        self._rule = rule
        self._openings = openings
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
        """Time of the last frame without the subject, as long as the pose that was held then is passing over."""
        self._shot: int | None = None

    def __call__(
        self, driving: MotionParts, moments: Sequence[Moment], sources: MotionParts | None = None
    ) -> MotionParts:
        """Return the source's motion for B driving frames; where a frame's subject is not present, the last motion of
        its shot before it (the reference before any) is held.  sources: those of a video, one a driving frame."""
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
        """Forget what came before: a shot has its own reference."""
        self._shot = shot
        self.reference = self._references[shot]
        """Reference of the shot that is being moved."""
        self._scale = 1.0
        if self._adapt_scale and isinstance(self.source, Motion) and isinstance(self.reference, Motion):
            self._scale = transfer.movement_scale(self.source, self.reference)
        self._smoother: Smoother | None = None
        if self._smooth:
            self._smoother = MotionSmoother() if isinstance(self.reference, Motion) else self.reference.smoother()
        self._held = self.reference
        self._missed = None

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
        if self._openings:
            openings = [(each.keypoints, each.opens, each.closes) for each in self._openings]
            moved = transfer.expressed(moved, driving, self.reference, openings, self._scale)
        return moved if self._room is None else self._limited(moved, source, moments, self._room)

    def _hold(self, driving: MotionParts, moments: Sequence[Moment]) -> MotionParts:
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
                frames.append(self._held.between(own, share * share * (3 - 2 * share)))
                continue
            frames.append(self._held)
        return MotionParts.cat(frames)

    def _smooth_motion(self, driving: MotionParts, moments: Sequence[Moment]) -> MotionParts:
        return driving if self._smoother is None else self._smoother(driving, [moment.time for moment in moments])

    def _limited(self, moved: Motion, source: Motion, moments: Sequence[Moment], room: Room) -> Motion:
        """Return the motion, shifted as a whole so that the subject stays inside its square.

        What is lost of the subject's own motion is remembered; what is lost of the travel that is put back is not.
        """
        shift = (moved.keypoints - source.keypoints).mean(1)
        put_back = self._scale * shift.new_tensor([moment.travel.shift for moment in moments])
        cut = (shift - put_back - _inside(shift - put_back, room)).abs().amax(1)
        self.limited += [moment.time for moment, much in zip(moments, (cut > TOLD).tolist(), strict=True) if much]
        return replace(moved, keypoints=moved.keypoints + (_inside(shift, room) - shift)[:, None])


def _inside(shift: Tensor, room: Room) -> Tensor:
    """Return a shift (B, 2), shortened where it nears the end of the room."""
    low, high = shift.new_tensor((room.left, room.up)), shift.new_tensor((room.right, room.down))
    return softly(shift.clamp(min=0), high) - softly((-shift).clamp(min=0), low)


def softly(way: Tensor, room: Tensor) -> Tensor:
    """Return the way, 0 or more, as it is at first and never more than the room, which it nears ever more slowly.

    Both (..., 2); equal to `way` up to (1 - SOFT) of the room, and smooth there.
    """
    soft = (SOFT * room).clamp(min=1e-6)
    free = room - soft
    return torch.where(way > free, free + soft * (1 - torch.exp(-(way - free).clamp(min=0) / soft)), way)


def travelled(driving: M, travels: Sequence[Travel]) -> M:
    """Return the motions of B frames moved by what their squares took away; where that is nothing, bit for bit as they
    are."""
    if all(each == STILL for each in travels):
        return driving
    like = next(part for part in driving.parts() if part is not None)
    scale, angle = like.new_tensor([each.scale for each in travels]), like.new_tensor([each.angle for each in travels])
    return driving.travelled(scale, angle, like.new_tensor([each.shift for each in travels]))
