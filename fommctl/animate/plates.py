"""Finished frames of more than 8 bits: the animated square pasted in float into the numbers of the source's file.

Outside the matte those numbers are kept bit for bit. Inside it, the model's frame is blended in the display-referred
signal that the model sees, whose curve continues above white, and converted back to the source's space.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fommctl.animate.compose import Composer, Pasted, Rendered, Write
from fommctl.animate.inputs import AnimationInputs, full_square
from fommctl.animate.plan import result_space
from fommctl.api.protocols import FrameFilter
from fommctl.media.boxes import Box
from fommctl.media.colourspaces import SRGB, Floats, Space, convert
from fommctl.media.movie import Frame
from fommctl.media.plates import FLOATING, Plate, from_codes, to_bytes
from fommctl.media.resampling import Pixels, resize
from fommctl.networks.detail import FrameDetail


def _on_screen(plate: Plate, box: Box | None, *, over_black: bool = False) -> Floats:
    """Convert the source to the display-referred signal, (H, W, 3) in levels of 255.

    If the box is inside the picture, only that part is filled in: untouched pages of zeros take no memory.
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
"""Inverse of the part of the soft edge over which the source is mixed with values that went through a view."""


def plate_of(inputs: AnimationInputs) -> Plate:
    """Return the source's plate; a source of 8 bits is converted to floats."""
    picture = inputs.picture
    if picture.plate is not None:
        return picture.plate
    return from_codes(picture.pixels if picture.alpha is None else np.dstack((picture.pixels, picture.alpha)))


def associated(result: Path, plate: Plate) -> bool:
    """Return whether a result has associated alpha: OpenEXR and DPX do, TIFF does if the source does."""
    suffix = result.suffix.lower()
    return suffix in (".exr", ".dpx") or (suffix in (".tif", ".tiff") and plate.associated)


class PlateComposer(Composer):
    """Makes finished frames of more than 8 bits; the driving video is never shown beside them."""

    def _lay_background(self, seen: Pixels, size: tuple[int, int], *, detail: bool) -> tuple[Frame, Frame]:
        plan, inputs = self._plan, self._plan.inputs
        self._plate = plate = plate_of(inputs)
        self._space = result_space(plan.config, plate)
        keeps_alpha = plan.alpha and plate.alpha is not None
        straight = plate.alpha is not None and not plate.associated
        on_screen = _on_screen(plate, inputs.source_box, over_black=straight)
        shown, values = on_screen, plate.values
        if straight and keeps_alpha:
            shown = _on_screen(plate, inputs.source_box)
        elif straight:
            # The result has no transparency: composite over black.
            values = plate.values * plate.alpha[..., None]  # type: ignore[index]  # not None
        if plan.paste_back:
            self._background = plate.stacked if keeps_alpha else values
        elif detail:
            self._background = full_square(values, inputs.source_box, mirrored=inputs.mirrored)
        else:
            square = resize(inputs.square, size)
            self._background = plate.display.values(np.asarray(square, np.float32) / np.float32(255))
        return shown, full_square(on_screen, inputs.source_box, mirrored=inputs.mirrored)

    @property
    def pix_fmt(self) -> str | None:
        """Pixel format of a DPX or TIFF result that holds the source's numbers; None where the default one does."""
        plate, suffix = self._plate, self._plan.config.result_path.suffix.lower()
        if suffix in (".tif", ".tiff") and plate.depth in FLOATING:
            return "gbrapf32le" if self.alpha else "gbrpf32le"
        if suffix == ".dpx" and plate.format == "dpx" and not self.alpha:
            return {"uint10": "gbrp10le", "uint12": "gbrp12le"}.get(plate.depth)
        return None

    @property
    def canvas(self) -> tuple[int, int]:
        """(width, height) of the finished frames."""
        height, width = self._plate.framed(self._background).shape[:2] if self._paste else self._background.shape[:2]
        return width, height

    @torch.inference_mode()
    def finish(self, pasted: Pasted, write: Write) -> None:
        """Run a frame through the filters, convert it to the result's colour space, and write it once for each of its
        presentations."""
        planes = replace(pasted.planes, matte=self._around(pasted.planes.matte))
        for number, presentation in enumerate(pasted.timed.presentations, pasted.timed.position):
            shown = pasted.picture
            for change in self._filters:
                shown = self._changed(shown, change, number)
            write(self._written(shown), presentation, number, planes)

    def _around(self, matte: Floats | None) -> Floats | None:
        """Extend the matte by zeros to the result's data window."""
        if matte is None or self._plate.overscan is None:
            return matte
        left, top = self._plate.window
        whole = np.zeros((*self._plate.framed(matte).shape[:2], 1), np.float32)
        whole[-top : matte.shape[0] - top, -left : matte.shape[1] - left] = matte
        return whole

    def _animated(self, batch: Rendered, index: int) -> Frame:
        frame, detail = batch.exact[index], None
        if self._detail is not None and batch.flow is not None:
            detail = self._detail(frame, batch.flow[index])
        if self._square_filters:
            frame, detail = self._filtered_square(frame, detail), None
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
        """Yield the pasted square in the source's colour space, in strips: the rows, and (rows, columns, 3)."""
        assert self._paste is not None
        display = self._plate.display
        if display.in_strips:
            for rows, levels in self._paste.strips(frame, detail):
                yield rows, display.values(levels.div_(255).numpy())
            return
        square = self._values(self._paste.levels(frame, detail))
        if display.view is not None:
            # Near white, the inverse of a tone map amplifies tiny differences: mix the values themselves at the edge.
            own = self._background[self._paste.place][..., :3]
            square = own + np.minimum(1, VIEW_EDGE * self._paste.mask[..., None]) * (square - own)
        yield slice(None), square

    def _values(self, levels: Floats) -> Floats:
        return self._plate.display.values(levels / np.float32(255))

    def _filtered_square(self, frame: Tensor, detail: FrameDetail | None) -> Tensor:
        """Run the square (3, h, w) through the plugins' square filters."""
        squares = frame[None]
        if detail is not None and self._enlarge is not None:
            levels = torch.from_numpy(self._enlarge.levels(frame, detail)).permute(2, 0, 1)
            squares = levels.div(255).clamp(0, 1)[None].contiguous().to(frame.device)
        for change in self._square_filters:
            squares = change(squares).float()
        return squares[0]

    def _changed(self, frame: Floats, change: FrameFilter, number: int) -> Floats:
        """Run a frame through a filter; one that takes 8 bits affects only the pixels that it changes."""
        if getattr(change, "floats", False):
            return np.asarray(change(frame, number), np.float32)  # type: ignore[arg-type]  # it takes floats
        before = to_bytes(self._plate.display.shown(frame[..., :3]))
        if frame.shape[2] == 4:
            before = np.dstack((before, to_bytes(frame[..., 3])))
        after = change(before.copy(), number)
        changed = (after != before).any(axis=2)
        result = frame.copy()
        result[changed, :3] = self._plate.display.values((after[changed][:, :3] / np.float32(255)).astype(np.float32))
        return result

    def _written(self, frame: Floats) -> Floats:
        """Convert a frame to the result's colour space, alpha and data window."""
        look, space, alpha = self._plate.display, self._space, frame[..., 3:]
        values = kept = frame[..., :3]
        if space != look.space:
            # An sRGB result holds exactly the signal that the model has seen.
            values = look.shown(values) if space == Space(SRGB) else convert(values, look.space, space)
        wanted = associated(self._plan.config.result_path, self._plate)
        if alpha.size and wanted != self._plate.associated:
            factor = alpha if wanted else np.reciprocal(np.maximum(alpha, np.float32(1e-6)))
            values = np.asarray(values * factor, np.float32)
        if values is not kept:
            frame = np.concatenate((values, alpha), axis=2)
        return self._plate.framed(frame) if self._paste is not None else frame
