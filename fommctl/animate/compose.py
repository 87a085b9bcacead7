"""Rendered squares to finished frames: pasted back, drawn on, filtered, written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fommctl.animate.inputs import full_square, on_black
from fommctl.animate.motion import DrivingFrame, Presentation, TimedFrame
from fommctl.animate.paste import Mask, Paste, TurnedPaste, resting
from fommctl.animate.plan import AnimationPlan
from fommctl.api.protocols import FrameFilter, SquareFilter
from fommctl.errors import UsageError
from fommctl.media.boxes import Box
from fommctl.media.colourspaces import Floats
from fommctl.media.drawing import compare, draw_keypoints, draw_numbers
from fommctl.media.movie import Frame
from fommctl.media.plates import to_bytes
from fommctl.media.resampling import Pixels, resize
from fommctl.networks.detail import Detail, FrameDetail
from fommctl.networks.grids import HostPixels
from fommctl.networks.motion import MotionParts


@dataclass(frozen=True, slots=True)
class Planes:
    """Matte and ST map of one frame, (H, W) of the source; None where they are not wanted."""

    matte: Floats | None = None
    """(H, W, 1) in [0, 1], the share of the animated square in the result; where it is 0 the frame is the source."""
    uv: Floats | None = None
    """(H, W, 2) in [0, 1], an ST map: S runs from the left to the right of the source, T from its bottom to its top."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A batch of rendered squares, to be composed into finished frames."""

    pixels: HostPixels
    frames: Sequence[TimedFrame | None]
    """The frames to compose; None for one that was rendered with its batch but is not wanted."""
    driving: MotionParts
    """Motion of the driving frames, as detected."""
    transferred: MotionParts
    """Motion of the rendered frames."""
    exact: Tensor
    """(B, 3, h, w) in [0, 1]: the pixels before they were rounded, on the model's device."""
    flow: Tensor | None = None
    """(B, fh, fw, 2), see `fommctl.api.FlowRenderer`; None if no flow was wanted."""
    composed: Callable[[], Composer] | None = None
    """Makes the composer of these frames, where their source is a frame of a video."""


@dataclass(frozen=True, slots=True)
class Pasted:
    """A frame with its animated squares in place, before filters and the conversion to the result's colour space."""

    timed: TimedFrame
    picture: Frame
    planes: Planes
    driving: Pixels | None = None
    """The driving frame to show beside it, with --compare."""
    source: Pixels | None = None
    """The source to show beside it, with --compare, where the source is a frame of a video."""


Write = Callable[[Frame, Presentation, int, Planes], None]
"""write(finished frame, when it is shown, its number in the whole result from 0, its planes)."""


class Composer:
    """Makes the finished frames of one face: pastes its squares back, marks keypoints, runs filters."""

    _background: Frame
    """The finished frame without any animation."""

    def __init__(
        self,
        plan: AnimationPlan,
        source_motion: MotionParts,
        *,
        reconstruction: Pixels,
        filters: Sequence[FrameFilter],
        square_filters: Sequence[SquareFilter],
        mask: Mask | None,
        detail: bool,
        faces: int,
    ) -> None:
        """Prepare the background, the paste and the detail, once for all frames.

        source_motion: motion of the source, one frame.
        reconstruction: (N, N, 3), the model's rendering of the unmoved source; colours are matched by it.
        filters, square_filters: plugins' filters for finished frames, and for squares before they are pasted back.
        mask: the model family's mask for turned squares.
        detail: transfer the detail of the source at its own resolution.
        faces: number of faces whose driving frames are shown beside the result.
        """
        inputs = plan.inputs
        self._plan, self._faces = plan, faces
        self._filters, self._square_filters = filters, square_filters
        self._skip_absent = plan.config.on_missing == "skip"
        seen = inputs.full
        below, full = self._lay_background(seen, reconstruction.shape[1::-1], detail=detail)
        # Keypoints and square filters work on the square as a picture of its own, before it is pasted.
        apart = plan.config.keypoints or bool(square_filters)
        motion: Floats | None = None
        self._paste: Paste | TurnedPaste | None = None
        if plan.paste_back and inputs.source_box is not None:
            # A video as source is not colour-corrected: a correction computed for each of its frames would flicker.
            colours = reconstruction if inputs.film is None else None
            if detail and inputs.mirrored:
                motion = resting(inputs.source_box, *below.shape[1::-1])
            if inputs.turned is not None:
                self._paste = TurnedPaste(below, inputs.turned, seen, colours, mask)
            else:
                self._paste = Paste(below, inputs.source_box, colours, seen, motion=None if apart else motion)
        device = source_motion.points().device
        self._enlarge: Paste | None = None
        self._detail: Detail | None = None
        if detail:
            if self._paste is None or apart:
                self._enlarge = Paste(full, Box(0, 0, full.shape[1], full.shape[0]), motion=motion)
            self._detail = detail_of(full, inputs.square, self._enlarge or self._paste, device)
        self._planes = plane_maker(plan, self._paste, device)
        if plan.config.keypoints:
            still = full if self._enlarge is not None else self._background if self._paste is None else inputs.square
            self._background = self._placed(self._marked(still, source_motion, 0))

    def _lay_background(self, seen: Pixels, size: tuple[int, int], *, detail: bool) -> tuple[Frame, Frame]:
        """Set `_background`. Return the picture that squares are pasted into, and the unmoved square at its resolution.

        seen: the unmoved square in 8 bits, over black.  size: (width, height) of the model's frames.
        """
        plan, picture = self._plan, self._plan.inputs.picture
        self._background = seen if detail else plan.inputs.square
        if plan.paste_back:
            self._background = on_black(picture)
            if plan.alpha and picture.alpha is not None:
                self._background = np.dstack((picture.pixels, picture.alpha))
        elif not detail and size != plan.inputs.square.shape[1::-1]:
            self._background = resize(seen, size)
        return self._background, seen

    @property
    def alpha(self) -> bool:
        """Whether the finished frames have four channels."""
        return bool(self._background.shape[2] == 4)

    @property
    def wants_flow(self) -> bool:
        """Whether squares must be rendered with their flow."""
        return self._detail is not None or self._plan.config.uv is not None

    @property
    def canvas(self) -> tuple[int, int]:
        """(width, height) of the finished frames."""
        panel = self._background
        if self._plan.side_by_side:
            panel = compare(panel, np.concatenate([self._plan.inputs.square] * self._faces), panel)
        return panel.shape[1], panel.shape[0]

    @property
    def pix_fmt(self) -> str | None:
        """Pixel format of the result, where it is not the container's default."""
        return None

    @torch.inference_mode()
    def paste(self, batch: Rendered) -> Iterator[Pasted]:
        """Yield the wanted frames of a batch, in order, with their squares pasted back."""
        if batch.composed is not None:
            own = batch.composed()
            yield from (replace(pasted, source=own._background) for pasted in own.paste(replace(batch, composed=None)))
            return
        for index, timed in enumerate(batch.frames):
            if timed is None:
                continue
            absent = self._skip_absent and not timed.frame.present
            picture = self._background if absent else self._animated(batch, index)
            planes = Planes()
            if self._planes is not None:
                planes = self._planes(None if batch.flow is None else batch.flow[index], absent=absent)
            beside = self._driving_panel(timed.frame, batch, index) if self._plan.side_by_side else None
            yield Pasted(timed, picture, planes, beside)

    @torch.inference_mode()
    def finish(self, pasted: Pasted, write: Write) -> None:
        """Put a frame beside its driving frame (with --compare), run it through the filters, and write it once for each
        of its presentations."""
        shown = pasted.picture
        if pasted.driving is not None:
            source = self._labelled_source if pasted.source is None else pasted.source
            shown = compare(source, pasted.driving, shown)
        for number, presentation in enumerate(pasted.timed.presentations, pasted.timed.position):
            frame = shown
            for change in self._filters:
                frame = apply_filter(frame, change, number)
            write(frame, presentation, number, pasted.planes)

    @cached_property
    def _labelled_source(self) -> Pixels:
        """The source to show beside the result, with its faces numbered if there are several."""
        boxes = self._plan.inputs.all_boxes
        if self._paste is None or len(boxes) < 2:
            return self._background
        return draw_numbers(self._background, list(enumerate(boxes, 1)))

    def _driving_panel(self, frame: DrivingFrame, batch: Rendered, index: int) -> Pixels:
        """Return a driving frame to show beside the result, with the number of the driving face if there are
        several."""
        assert frame.pixels is not None, "pixels of driving frames are kept for --compare"
        pixels = self._marked(frame.pixels, batch.driving, index)
        video = self._plan.inputs.driving
        shot = video.shots[video.number_at(frame.time)] if video.shots else None
        if shot is None or shot.found < 2:
            return pixels
        return draw_numbers(pixels, [(shot.number, Box(0, 0, pixels.shape[1] / 3, pixels.shape[0] / 3))])

    def _animated(self, batch: Rendered, index: int) -> Frame:
        square, detail = batch.pixels.array()[index], None
        if self._detail is not None and batch.flow is not None:
            detail = self._detail(batch.exact[index], batch.flow[index])
        if self._square_filters:
            square, detail = self._filtered(square, batch.exact[index], detail), None
        elif self._enlarge is not None:
            square, detail = self._enlarge(square, detail), None
        return self._placed(self._marked(square, batch.transferred, index), detail)

    def _filtered(self, square: Pixels, frame: Tensor, detail: FrameDetail | None) -> Pixels:
        """Run the square through the plugins' square filters."""
        squares = frame[None]
        if detail is not None and self._enlarge is not None:
            squares = self._enlarge.floats(square, detail).to(frame.device)
        size = squares.shape[3], squares.shape[2]
        for change in self._square_filters:
            squares = change(squares).float()
        changed = HostPixels(squares).array()[0]
        # `Paste` resizes what it pastes.
        return changed if self._paste is not None else resize(changed, size)

    def _placed(self, square: Pixels, detail: FrameDetail | None = None) -> Pixels:
        return square if self._paste is None else self._paste(square, detail)

    def _marked(self, square: Pixels, motion: MotionParts, index: int) -> Pixels:
        if not self._plan.config.keypoints:
            return square
        jacobians = getattr(motion, "jacobians", None)
        frames = None if jacobians is None else jacobians[index].cpu().numpy()
        return draw_keypoints(square, motion.points()[index].cpu().numpy(), frames)


def plane_maker(plan: AnimationPlan, paste: Paste | TurnedPaste | None, device: torch.device) -> PlaneMaker | None:
    """Return the maker of the planes that the options ask for, None if they ask for none. Raises UsageError if nothing
    is pasted back."""
    inputs = plan.inputs
    if plan.config.matte is None and plan.config.uv is None:
        return None
    if paste is None or inputs.source_box is None:
        raise UsageError(
            "--matte and --uv need a square that is pasted back",
            "Leave out --crop none and --no-paste-back, or leave these out.",
        )
    mapper = None
    if plan.config.uv is not None:
        full = full_square(on_black(inputs.picture), inputs.source_box, mirrored=inputs.mirrored)
        mapper = detail_of(full, inputs.square, paste, device)
    height, width = inputs.picture.pixels.shape[:2]
    return PlaneMaker(paste, inputs.source_box, (width, height), mapper)


class PlaneMaker:
    """Makes the planes of frames that are pasted into one source."""

    def __init__(self, paste: Paste | TurnedPaste, box: Box, size: tuple[int, int], mapper: Detail | None) -> None:
        """Prepare the planes of a frame without animation.

        size: (width, height) of the source.  mapper: maps pixels of the square, of the part that `paste` shows, to
        where they come from; None if no ST map is wanted.
        """
        self._paste = paste
        self._corner = round(box.left), round(box.top)
        self._size = width, height = size
        self._mapper = mapper
        self._matte = np.zeros((height, width, 1), np.float32)
        self._matte[(*paste.place, 0)] = paste.mask
        self._still = self._coordinates(np.arange(width, dtype=np.float32)[None], np.arange(height)[:, None])

    def __call__(self, flow: Tensor | None, *, absent: bool) -> Planes:
        """Return the matte and the ST coordinates of a frame.

        flow: the frame's flow, see `fommctl.api.FlowRenderer`.  absent: whether the frame shows the unmoved source.
        """
        matte = np.zeros_like(self._matte) if absent else self._matte
        if self._mapper is None:
            return Planes(matte)
        uv = self._still.copy()
        if flow is not None and not absent:
            columns, rows = (each.cpu().numpy() for each in self._mapper.sources(flow))
            moved = self._coordinates(columns + self._corner[0], rows + self._corner[1])
            np.copyto(uv[self._paste.place], moved, where=(self._paste.mask > 0)[..., None])
        return Planes(matte, uv)

    def _coordinates(self, columns: NDArray[np.floating], rows: NDArray[np.floating] | NDArray[np.integer]) -> Floats:
        """Convert positions in pixels to ST coordinates."""
        width, height = self._size
        s, t = np.broadcast_arrays((columns + 0.5) / width, 1 - (rows + 0.5) / height)
        return np.stack((s, t), axis=-1).astype(np.float32)


def apply_filter(frame: Pixels, change: FrameFilter, number: int) -> Pixels:
    """Run a frame of 8 bits through a filter, as floats in [0, 1] if the filter has `floats` set."""
    if not getattr(change, "floats", False):
        return change(frame, number)
    return to_bytes(change(frame / np.float32(255), number))  # type: ignore[arg-type]  # it takes floats


def detail_of(full: Pixels | Floats, small: Pixels, paste: Paste | TurnedPaste | None, device: torch.device) -> Detail:
    """Return the `Detail` of a square, for the part of it that `paste` shows."""
    assert isinstance(paste, Paste), "turned squares have no detail"

    def there(values: Floats | Pixels) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    edges = None if paste.motion is None or paste.own is None else (there(paste.motion), there(paste.own))
    return Detail(there(full), there(small), there(paste.mask), paste.part, edges)
