"""Finished frames of more than 8 bits: the animated square pasted in float into the numbers of the source's file.

Outside the matte those numbers are kept bit for bit. Inside it, the model's frame is blended in the display-referred
signal that the model sees, whose curve goes on above white, and taken back to the source's space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fommctl.animate.compose import CompositionOptions, Pasted, Planes, Rendered, Write, detail_of, plane_maker
from fommctl.animate.config import AnimateConfig
from fommctl.animate.inputs import AnimationInputs, full_square
from fommctl.animate.paste import Floats, Mask, Paste, TurnedPaste, resting
from fommctl.api.protocols import FrameFilter, SquareFilter
from fommctl.media.boxes import Box
from fommctl.media.colourspaces import SRGB, Space, convert
from fommctl.media.images import Pixels, resize
from fommctl.media.plates import FLOATING, Plate, from_codes, to_bytes
from fommctl.networks.detail import Detail, FrameDetail
from fommctl.networks.motion import MotionParts


def _on_screen(plate: Plate, box: Box | None, *, over_black: bool = False) -> Floats:
    """Return what a display shows of the source, (H, W, 3) in levels of 255.

    Where the box lies in the picture, only that is filled in: pages of zeros that nobody writes to take no memory.
    """
    height, width = plate.values.shape[:2]
    part = (slice(height), slice(width))
    if box is not None and min(box.left, box.top) >= 1 and box.right < width and box.bottom < height:
        part = (slice(int(box.top) - 1, int(box.bottom) + 2), slice(int(box.left) - 1, int(box.right) + 2))
    shown = np.zeros(plate.values.shape, np.float32)
    shown[part] = plate.display.shown(plate.values[part]) * np.float32(255)
    if over_black and plate.alpha is not None:
        shown[part] *= plate.alpha[part][..., None]
    return shown


VIEW_EDGE = 4
"""The part of the soft edge, as its inverse, over which the source passes into what comes back through a view."""


def plate_of(inputs: AnimationInputs) -> Plate:
    """Return the source as its file holds it; one of 8 bits in floats."""
    picture = inputs.picture
    if picture.plate is not None:
        return picture.plate
    return from_codes(picture.pixels if picture.alpha is None else np.dstack((picture.pixels, picture.alpha)))


def associated(result: Path, plate: Plate) -> bool:
    """Tell whether the numbers of a result are multiplied by alpha: OpenEXR and DPX want that, TIFF may be as the
    source."""
    suffix = result.suffix.lower()
    return suffix in (".exr", ".dpx") or (suffix in (".tif", ".tiff") and plate.associated)


class PlateComposer:
    """Makes the finished frames of a result that holds more than 8 bits. As `Composer`, without what shows the driving
    video beside it."""

    def __init__(
        self,
        config: AnimateConfig,
        inputs: AnimationInputs,
        look: CompositionOptions,
        space: Space | None,
        source_motion: MotionParts,
        reconstruction: Pixels,
        filters: Sequence[FrameFilter],
        square_filters: Sequence[SquareFilter] = (),
        *,
        associated: bool = False,
        mask: Mask | None = None,
    ) -> None:
        """space: of the result; None is the source's own.  associated: does the result hold values multiplied by alpha?
        The others: see `Composer`."""
        self._associated = associated
        self._plate = plate = plate_of(inputs)
        self._space = space
        self._suffix = config.result_path.suffix.lower()
        self._filters = filters
        self._square_filters = square_filters
        self._skip_absent = config.on_missing == "skip"
        self._alpha = look.alpha and plate.alpha is not None and look.paste_back and inputs.source_box is not None
        self._paste: Paste | TurnedPaste | None = None
        self._enlarge: Paste | None = None
        self._detail: Detail | None = None
        motion: Floats | None = None
        straight = plate.alpha is not None and not plate.associated
        on_screen = _on_screen(plate, inputs.source_box, over_black=straight)
        shown, values = on_screen, plate.values
        if straight and self._alpha:
            shown = _on_screen(plate, inputs.source_box)
        elif straight:
            # What cannot keep transparency is laid over black.
            values = plate.values * plate.alpha[..., None]  # type: ignore[index]  # not None
        full = full_square(on_screen, inputs.source_box, mirrored=inputs.mirrored)
        if look.paste_back and inputs.source_box is not None:
            if look.detail and inputs.mirrored:
                motion = resting(inputs.source_box, shown.shape[1], shown.shape[0])
            if inputs.turned is not None:
                self._paste = TurnedPaste(shown, inputs.turned, inputs.full, reconstruction, mask)
            else:
                self._paste = Paste(
                    shown,
                    inputs.source_box,
                    reconstruction,
                    mirrored=inputs.mirrored,
                    motion=None if square_filters else motion,
                    truth=inputs.full,
                )
            self._background = plate.stacked if self._alpha else values
        elif look.detail:
            self._background = full_square(values, inputs.source_box, mirrored=inputs.mirrored)
        else:
            square = resize(inputs.square, reconstruction.shape[1::-1])
            self._background = plate.display.values(np.asarray(square, np.float32) / np.float32(255))
        if look.detail:
            if self._paste is None or square_filters:
                self._enlarge = Paste(full, Box(0, 0, full.shape[1], full.shape[0]), motion=motion)
            device = source_motion.points().device
            self._detail = detail_of(full, inputs.square, self._enlarge or self._paste, device)
        self._wants_flow = look.detail or look.uv
        self._planes = plane_maker(look, inputs, self._paste, source_motion.points().device)

    @property
    def alpha(self) -> bool:
        """Whether the finished frames have four channels."""
        return self._alpha

    @property
    def pix_fmt(self) -> str | None:
        """The pixel format of a DPX or TIFF result that holds the source's numbers; None where the usual one does."""
        plate = self._plate
        if self._suffix in (".tif", ".tiff") and plate.depth in FLOATING:
            return "gbrapf32le" if self._alpha else "gbrpf32le"
        if self._suffix == ".dpx" and plate.format == "dpx" and not self._alpha:
            return {"uint10": "gbrp10le", "uint12": "gbrp12le"}.get(plate.depth)
        return None

    @property
    def wants_flow(self) -> bool:
        """Whether frames are wanted with their flow."""
        return self._wants_flow

    @property
    def canvas(self) -> tuple[int, int]:
        """(width, height) of the finished frames."""
        height, width = self._plate.framed(self._background).shape[:2] if self._paste else self._background.shape[:2]
        return width, height

    @torch.inference_mode()
    def paste(self, batch: Rendered) -> Iterator[Pasted]:
        """Yield the frames of a batch that are wanted, in order, in the source's numbers."""
        for index, timed in enumerate(batch.frames):
            if timed is None:
                continue
            absent = self._skip_absent and not timed.frame.present
            picture = self._background if absent else self._animated(batch, index)
            planes = Planes()
            if self._planes is not None:
                planes = self._planes(None if batch.flow is None else batch.flow[index], absent=absent)
            yield Pasted(timed, picture, planes)

    @torch.inference_mode()
    def finish(self, pasted: Pasted, write: Write) -> None:
        """Run a frame through the filters, bring it into the result's space, and write it each time that it is
        shown."""
        planes = replace(pasted.planes, matte=self._around(pasted.planes.matte))
        for number, presentation in enumerate(pasted.timed.presentations, pasted.timed.position):
            shown = pasted.picture
            for change in self._filters:
                shown = self._changed(shown, change, number)
            write(self._written(shown), presentation, number, planes)

    def _around(self, matte: Floats | None) -> Floats | None:
        """Return the matte in the window of the result; around the source nothing is animated."""
        if matte is None or self._plate.overscan is None:
            return matte
        left, top = self._plate.window
        whole = np.zeros((*self._plate.framed(matte).shape[:2], 1), np.float32)
        whole[-top : matte.shape[0] - top, -left : matte.shape[1] - left] = matte
        return whole

    def _animated(self, batch: Rendered, index: int) -> Floats:
        frame, detail = batch.exact[index], None
        if self._detail is not None and batch.flow is not None:
            detail = self._detail(frame, batch.flow[index])
        if self._square_filters:
            frame, detail = self._filtered(frame, detail), None
        elif self._enlarge is not None:
            return self._values(self._enlarge.levels(frame, detail))
        if self._paste is None:
            if frame.shape[1:] != self._background.shape[:2]:
                size = self._background.shape[0], self._background.shape[1]
                frame = F.interpolate(frame[None].float(), size, mode="bicubic", antialias=True)[0]
            return self._values(frame.float().cpu().permute(1, 2, 0).numpy() * np.float32(255))
        result = self._background.copy()
        place = result[self._paste.place][..., :3]
        for rows, square in self._squares(frame, detail):
            shown = self._paste.mask[rows] > 0
            for channel in range(3):
                np.copyto(place[rows, :, channel], square[..., channel], where=shown)
        return result

    def _squares(self, frame: Tensor, detail: FrameDetail | None) -> Iterator[tuple[slice, Floats]]:
        """Yield the square as it is pasted, in the source's numbers: which of its rows, and (rows, columns, 3)."""
        assert self._paste is not None
        display = self._plate.display
        if display.in_strips:
            for rows, levels in self._paste.strips(frame, detail):
                yield rows, display.values(levels.div_(255).numpy())
            return
        square = self._values(self._paste.levels(frame, detail))
        if display.view is not None:
            # Near white a tone map turns next to nothing into much: along the edge the numbers themselves are mixed.
            own = self._background[self._paste.place][..., :3]
            square = own + np.minimum(1, VIEW_EDGE * self._paste.mask[..., None]) * (square - own)
        yield slice(None), square

    def _values(self, levels: Floats) -> Floats:
        return self._plate.display.values(levels / np.float32(255))

    def _filtered(self, frame: Tensor, detail: FrameDetail | None) -> Tensor:
        """Return the square (3, h, w) after the filters of plugins."""
        squares = frame[None]
        if detail is not None and self._enlarge is not None:
            levels = torch.from_numpy(self._enlarge.levels(frame, detail)).permute(2, 0, 1)
            squares = levels.div(255).clamp(0, 1)[None].contiguous().to(frame.device)
        for change in self._square_filters:
            squares = change(squares).float()
        return squares[0]

    def _changed(self, frame: Floats, change: FrameFilter, number: int) -> Floats:
        """Return a frame after a filter: one of 8 bits changes those pixels only that it has changed."""
        if getattr(change, "floats", False):
            return np.asarray(change(frame, number), np.float32)  # type: ignore[arg-type]  # it asks for floats
        before = to_bytes(self._plate.display.shown(frame[..., :3]))
        if frame.shape[2] == 4:
            before = np.dstack((before, to_bytes(frame[..., 3])))
        after = change(before.copy(), number)
        changed = (after != before).any(axis=2)
        result = frame.copy()
        result[changed, :3] = self._plate.display.values((after[changed][:, :3] / np.float32(255)).astype(np.float32))
        return result

    def _written(self, frame: Floats) -> Floats:
        """Return the frame in the result's space and window."""
        look, space, alpha = self._plate.display, self._space, frame[..., 3:]
        values = kept = frame[..., :3]
        if space is not None and space != look.space:
            # What a display shows is what the model has seen.
            values = look.shown(values) if space == Space(SRGB) else convert(values, look.space, space)
        if alpha.size and self._associated != self._plate.associated:
            factor = alpha if self._associated else np.reciprocal(np.maximum(alpha, np.float32(1e-6)))
            values = np.asarray(values * factor, np.float32)
        if values is not kept:
            frame = np.concatenate((values, alpha), axis=2)
        return self._plate.framed(frame) if self._paste is not None else frame
