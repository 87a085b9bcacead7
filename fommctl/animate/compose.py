"""Rendered squares to finished frames: pasted back, drawn on, filtered, written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fommctl.animate.config import AnimateConfig
from fommctl.animate.paste import Floats, Paste, resting
from fommctl.animate.shot import Shot, full_square, on_black
from fommctl.animate.timing import Cue
from fommctl.api.protocols import FrameFilter, SquareFilter
from fommctl.media.boxes import Box
from fommctl.media.drawing import compare, draw_keypoints
from fommctl.media.images import Pixels, resize
from fommctl.media.writer import Writer
from fommctl.networks.detail import Detail, FrameDetail
from fommctl.networks.grids import HostPixels
from fommctl.networks.transfer import Motion


@dataclass(frozen=True, slots=True)
class Rendered:
    """A batch on its way out."""

    pixels: HostPixels
    cues: Sequence[Cue]
    driving: Motion
    """Of the driving frames, as detected."""
    transferred: Motion
    """Of the rendered frames."""
    frames: Tensor
    """(B, 3, h, w) in [0, 1]: the pixels before they were rounded, on the model's device."""
    flow: Tensor | None = None
    """(B, fh, fw, 2), see `fommctl.api.FlowRenderer`; None where nobody asked for it."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a finished frame shows."""

    paste_back: bool
    alpha: bool
    compare: bool
    keypoints: bool
    detail: bool = False
    """Of the source, at its resolution."""


class Composer:
    """Makes and writes the finished frames of a shot."""

    def __init__(
        self,
        config: AnimateConfig,
        shot: Shot,
        look: Look,
        source_motion: Motion,
        reconstruction: Pixels,
        filters: Sequence[FrameFilter],
        square_filters: Sequence[SquareFilter] = (),
        first_frame: int = 0,
    ) -> None:
        """reconstruction: (N, N, 3), the model's rendering of the unmoved source; its colours are matched.
        filters, square_filters: of plugins, for the finished frames and for squares before they are pasted back.
        first_frame: number of the first finished one that is to come."""
        self._filters = filters
        self._square_filters = square_filters
        self._skip_absent = config.on_missing == "skip"
        self._shot = shot
        self._look = look
        self._still = shot.square
        self._paste: Paste | None = None
        self._enlarge: Paste | None = None
        self._detail: Detail | None = None
        self._source_panel = shot.square
        full = full_square(on_black(shot.picture), shot.source_box, mirrored=shot.mirrored)
        motion: Floats | None = None
        apart = False
        if look.detail:
            self._source_panel = full
        if look.paste_back and shot.source_box is not None:
            self._source_panel = on_black(shot.picture)
            if look.alpha and shot.picture.alpha is not None:
                self._source_panel = np.dstack((shot.picture.pixels, shot.picture.alpha))
            if look.detail and shot.mirrored:
                motion = resting(shot.source_box, *self._source_panel.shape[1::-1])
            # What happens to the square itself needs it as a picture of its own first.
            apart = look.keypoints or bool(square_filters)
            self._paste = Paste(
                self._source_panel,
                shot.source_box,
                reconstruction,
                mirrored=shot.mirrored,
                motion=None if apart else motion,
            )
        if look.detail:
            if self._paste is None or apart:
                self._enlarge = Paste(full, Box(0, 0, full.shape[1], full.shape[0]), motion=motion)
            self._detail = _detail(full, shot.square, self._enlarge or self._paste, source_motion.keypoints.device)
        if look.keypoints:
            still = shot.square if self._enlarge is None else full
            self._source_panel = self._placed(self._marked(still, source_motion, 0))
        self._count = first_frame

    @property
    def alpha(self) -> bool:
        """Do the finished frames have four channels?"""
        return bool(self._source_panel.shape[2] == 4)

    @property
    def wants_flow(self) -> bool:
        """Are frames wanted with their flow?"""
        return self._detail is not None

    @property
    def canvas(self) -> tuple[int, int]:
        """(width, height) of the finished frames."""
        panel = self._source_panel
        if self._look.compare:
            panel = compare(panel, self._still, panel)
        return panel.shape[1], panel.shape[0]

    @torch.inference_mode()
    def write(self, batch: Rendered, writer: Writer) -> None:
        """Compose a batch, run its frames through the filters, write them."""
        squares = batch.pixels.array()
        for index, (cue, square) in enumerate(zip(batch.cues, squares, strict=True)):
            finished = self._finished(cue, square, batch, index)
            for showing in cue.showings:
                shown = finished
                for change in self._filters:
                    shown = change(shown, self._count)
                self._count += 1
                writer.write(shown, showing.time, showing.duration)

    def _finished(self, cue: Cue, square: Pixels, batch: Rendered, index: int) -> Pixels:
        absent = self._skip_absent and not self._shot.present(cue.frame.time)
        result = self._source_panel if absent else self._animated(square, batch, index)
        if not self._look.compare:
            return result
        return compare(self._source_panel, self._marked(cue.frame.pixels, batch.driving, index), result)

    def _animated(self, square: Pixels, batch: Rendered, index: int) -> Pixels:
        detail = None
        if self._detail is not None and batch.flow is not None:
            detail = self._detail(batch.frames[index], batch.flow[index])
        if self._square_filters:
            square, detail = self._filtered(square, batch.frames[index], detail), None
        elif self._enlarge is not None:
            square, detail = self._enlarge(square, detail), None
        return self._placed(self._marked(square, batch.transferred, index), detail)

    def _filtered(self, square: Pixels, frame: Tensor, detail: FrameDetail | None) -> Pixels:
        """The square after the filters of plugins."""
        squares = frame[None]
        if detail is not None and self._enlarge is not None:
            squares = self._enlarge.floats(square, detail).to(frame.device)
        size = squares.shape[3], squares.shape[2]
        for change in self._square_filters:
            squares = change(squares).float()
        changed = HostPixels(squares).array()[0]
        # What is pasted back is resized there.
        return changed if self._paste is not None else resize(changed, size)

    def _placed(self, square: Pixels, detail: FrameDetail | None = None) -> Pixels:
        return square if self._paste is None else self._paste(square, detail)

    def _marked(self, square: Pixels, motion: Motion, index: int) -> Pixels:
        if not self._look.keypoints:
            return square
        jacobians = None if motion.jacobians is None else motion.jacobians[index].cpu().numpy()
        return draw_keypoints(square, motion.keypoints[index].cpu().numpy(), jacobians)


def _detail(full: Pixels, small: Pixels, paste: Paste | None, device: torch.device) -> Detail:
    """What gives squares their detail, for the part of them that `paste` shows."""
    assert paste is not None

    def there(values: Floats | Pixels) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    edges = None if paste.motion is None or paste.own is None else (there(paste.motion), there(paste.own))
    return Detail(there(full), there(small), there(paste.mask), paste.part, edges)
