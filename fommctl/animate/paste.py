"""Pasting animated squares back into the picture that they were cut out of: masks, colours, detail."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fommctl.detection.landmarks import bounds
from fommctl.media.boxes import Box, TurnedSquare
from fommctl.media.colourspaces import Floats
from fommctl.media.resampling import Pixels, resize
from fommctl.networks.detail import FrameDetail, enlarged, enlarged_strips

Mask = Callable[[int], Floats]
"""mask(side): opacity of a square, (side, side) in [0, 1]."""

# Width of the soft edge in sides of the square, and at its top, where it has to end before the hair begins: of hair
# within it, a copy that does not move would shine through. Elsewhere it also hides what networks do at their border.
FEATHER, TOP_FEATHER = 0.12, 0.06
# Nothing moves along the picture's edge, because what is beyond it is unknown; displacements fade in over this part of
# the square's side.  OWN: the share of the displacement at which pixels begin to be the network's, instead of warped
# source, and at which they are the network's alone.
REST, OWN = 0.18, (0.5, 0.9)
# Standard deviation, in sides, of the blur before colours are matched: detail that the model loses is not colour.
BLUR = 0.06
# Largest change of contrast by a match; without a limit, a flat square could give any gain.
GAIN = 1.25
WHITE = 235.0, 250.0
"""Levels between which a frame turns white, and may then be as bright as the source at that place."""
STRIP = 1 << 19
"""Bytes of floats that are computed at a time."""
# Least standard deviation of a channel, in levels of 255, from which a gain is estimated.
SPREAD = 8.0


class Paste:
    """Pastes frame after frame into one picture. Not thread-safe: it reuses its work space."""

    def __init__(
        self,
        background: NDArray[Any],
        box: Box,
        reconstruction: Pixels | None = None,
        truth: Pixels | None = None,
        *,
        motion: Floats | None = None,
    ) -> None:
        """Compute mask, colour correction and the share of the background, once for all frames.

        background: (H, W, 3), or (H, W, 4) with straight alpha, which is kept; for `levels` in floats, where 255 is
        white and values may be outside 0 to 255.
        box: the square that was cut out, in whole pixels; it may reach beyond the picture.
        reconstruction: (h, w, 3), the model's rendering of the unmoved source. Every frame is corrected by the same
        amount, the difference in colour between this and `truth`, so that nothing flickers; None corrects nothing.
        truth: (side, side, 3), the square as it was cut out, over black; required with a reconstruction.
        motion: (side, side), the share of its displacement that each pixel keeps, see `resting`.
        """
        height, width = background.shape[:2]
        self._background = background
        self._size = round(box.width), round(box.height)
        inside = box.clipped(width, height)
        self._rows = slice(round(inside.top), round(inside.bottom))
        self._columns = slice(round(inside.left), round(inside.right))
        self.part = (
            slice(round(inside.top - box.top), round(inside.bottom - box.top)),
            slice(round(inside.left - box.left), round(inside.right - box.left)),
        )
        """Rows and columns of the square that are inside the picture."""
        mask = feather(box, width, height)[self.part][..., None]
        self.mask = mask[..., 0]
        """Opacity of that part, (rows, columns) in [0, 1]."""
        self.motion = motion = None if motion is None else motion[self.part]
        """Share of the flow's displacement that is kept near the edges of the picture, (rows, columns) in [0, 1]."""
        self.own = None if motion is None else _smoothstep((motion - OWN[0]) / (OWN[1] - OWN[0]))
        """Share of the network's pixels near the edges, (rows, columns) in [0, 1]; the rest is warped source."""
        gain, shift = np.ones(3, np.float32), np.zeros((*self._size[::-1], 3), np.float32)
        if reconstruction is not None and truth is not None:
            gain, shift = match(reconstruction, truth)
        # mask * (gain * frame + shift) + (1 - mask) * background, as one product and one sum per frame.
        below = background[self._rows, self._columns, :3].astype(np.float32, copy=False)
        shown = mask if self.own is None else mask * self.own[..., None]
        self._above: Floats | None = None
        if background.dtype != np.uint8:
            # Squares of plates are large: keep only what is needed, in planes, the layout of `Detail`.
            self._background = np.empty((0, 0, 3), np.float32)
            self._shown, self._gain = torch.from_numpy(shown), torch.from_numpy(gain)
            self._below = torch.empty(3, *shown.shape[:2]).permute(1, 2, 0)
            self._below.copy_(torch.from_numpy(shown * shift[self.part] + (1 - mask) * below))
            if (below > np.float32(255)).any():
                self._above = mask * np.maximum(below - np.float32(255), 0)
            return
        self._factor = np.ascontiguousarray(shown * gain)
        self._summand = np.ascontiguousarray(shown * shift[self.part] + (1 - mask) * below + np.float32(0.5))
        self._work = np.empty_like(self._summand)
        self._with_fourth: tuple[Tensor, ...] | None = None

    def __call__(self, frame: Pixels, detail: FrameDetail | None = None) -> Pixels:
        """Paste a square into the background, and return a new picture of the background's shape.

        frame: (h, w, 3), the animated square in any size.
        detail: detail of the part of the square that is inside the picture, weighted by `mask`.
        """
        if detail is not None:
            return self._detailed(frame, detail)
        large = _resized(frame, self._size)[self.part]
        np.multiply(large, self._factor, out=self._work)
        np.add(self._work, self._summand, out=self._work)
        np.clip(self._work, 0, 255, out=self._work)
        picture = self._background.copy()
        picture[self._rows, self._columns, :3] = self._work
        return picture

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that the square covers."""
        return self._rows, self._columns

    def levels(self, frame: Tensor, detail: FrameDetail | None = None) -> Floats:
        """Return the square blended with the background, not rounded: (rows, columns, 3) of the part inside the
        picture.  frame, detail: see `strips`."""
        result = np.empty((*self.mask.shape, 3), np.float32)
        for rows, levels in self.strips(frame, detail):
            result[rows] = levels.numpy()
        return result

    def strips(self, frame: Tensor, detail: FrameDetail | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Yield the result of `levels` from top to bottom, in strips that fit into the processor's cache: the rows, and
        (rows, columns, 3), which the caller may change.

        frame: (3, h, w) in [0, 1].  Values of the background above white are restored by the detail; without detail,
        only where the frame is white too.
        """
        large = enlarged_strips(frame.float().cpu() * 255, self._size[::-1], self.part)
        height = max(1, STRIP // (12 * self.mask.shape[1]))
        for start in range(0, len(self.mask), height):
            rows = slice(start, min(start + height, len(self.mask)))
            animated = large(rows)
            work = (animated * self._gain).mul_(self._shown[rows]).add_(self._below[rows])
            if detail is not None:
                work += detail.strip(rows).cpu()
            elif self._above is not None:
                white = _smoothstep((animated.numpy() - WHITE[0]) / np.float32(WHITE[1] - WHITE[0]))
                work += torch.from_numpy(self._above[rows] * white)
            yield rows, work

    def floats(self, frame: Pixels, detail: FrameDetail) -> Tensor:
        """Return the whole square with its detail, not rounded and not pasted: (1, 3, side, side) in [0, 1]."""
        levels = F.pad(torch.from_numpy(np.require(frame, requirements=["C", "W"])), (0, 1))
        work = enlarged(levels, self._size[::-1])[self.part].float()
        if self.own is not None:
            work.mul_(torch.from_numpy(self.own)[..., None])
        work.add_(detail.strip(slice(None)).cpu())
        return work[..., :3].permute(2, 0, 1)[None].div(255).clamp_(0, 1).contiguous()

    def _detailed(self, frame: Pixels, detail: FrameDetail) -> Pixels:
        """Paste with detail. A fourth channel, dropped at the end, makes this several times as fast."""
        if self._with_fourth is None:
            self._with_fourth = tuple(F.pad(torch.from_numpy(each), (0, 1)) for each in (self._factor, self._summand))
        factor, summand = self._with_fourth
        levels = F.pad(torch.from_numpy(np.require(frame, requirements=["C", "W"])), (0, 1))
        large = enlarged(levels, self._size[::-1])[self.part]
        picture = self._background.copy()
        shown = torch.from_numpy(picture)[self._rows, self._columns, :3]
        height = max(1, STRIP // (16 * shown.shape[1]))
        for start in range(0, len(shown), height):
            rows = slice(start, start + height)
            work = large[rows].float().mul_(factor[rows]).add_(summand[rows]).add_(detail.strip(rows).cpu())
            # Cast by numpy: torch takes five times as long.
            shown[rows].copy_(torch.from_numpy(work.clamp_(0, 255).numpy().astype(np.uint8))[..., :3])
        return picture


class TurnedPaste:
    """Pastes frame after frame into one picture where the square is turned; see `Paste`."""

    def __init__(
        self,
        background: NDArray[Any],
        square: TurnedSquare,
        truth: Pixels,
        reconstruction: Pixels | None = None,
        mask: Mask | None = None,
    ) -> None:
        """Compute the sampling grid, mask and colour correction, once for all frames.

        background, reconstruction: see `Paste`.  truth: (side, side, 3), the square as it was cut out, upright.  mask:
        None gives the soft edge of `Paste`.
        """
        height, width = background.shape[:2]
        self._background = background
        side = self._side = truth.shape[0]
        inside = bounds(square).clipped(width, height)
        self._rows = slice(round(inside.top), round(inside.bottom))
        self._columns = slice(round(inside.left), round(inside.right))
        x, y = (torch.arange(part.start, part.stop, dtype=torch.float32) + 0.5 for part in (self._columns, self._rows))
        x, y = (x - square.center[0])[None], (y - square.center[1])[:, None]
        angle, scale = math.radians(square.angle), 2 / square.side
        right, down = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
        self._grid = torch.stack((right * scale, down * scale), -1)[None]
        # Unlike in `Paste`, edges at the border of the picture are soft too: they need not be parallel to it.
        whole = feather(Box(1, 1, side + 1, side + 1), side + 3, side + 3) if mask is None else mask(side)
        self._shown = self._placed(torch.from_numpy(whole)[None], "zeros").numpy()
        self.mask = self._shown[..., 0]
        """Opacity of the square, (rows, columns) in [0, 1]."""
        self._gain, self._shift = np.ones(3, np.float32), np.zeros((side, side, 3), np.float32)
        if reconstruction is not None:
            self._gain, self._shift = match(reconstruction, truth)
        below = background[self._rows, self._columns, :3].astype(np.float32)
        self._below = (1 - self._shown) * below + np.float32(0.5 if background.dtype == np.uint8 else 0)

    def __call__(self, frame: Pixels, detail: FrameDetail | None = None) -> Pixels:
        """Paste a square into the background, and return a new picture of the background's shape.

        frame: (h, w, 3), the animated square in any size.  detail: ignored.
        """
        picture = self._background.copy()
        large = _resized(frame, (self._side, self._side)).astype(np.float32)
        picture[self._rows, self._columns, :3] = np.clip(self._blended(large), 0, 255)
        return picture

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that the square covers."""
        return self._rows, self._columns

    def levels(self, frame: Tensor, detail: FrameDetail | None = None) -> Floats:
        """Return what `Paste.levels` returns; values of the background above white are not restored."""
        large = F.interpolate(frame[None].float().cpu() * 255, (self._side, self._side), mode="bicubic", antialias=True)
        return self._blended(large[0].permute(1, 2, 0).numpy())

    def strips(self, frame: Tensor, detail: FrameDetail | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Yield the result of `levels`, all rows at once."""
        yield slice(None), torch.from_numpy(self.levels(frame, detail))

    def _blended(self, large: Floats) -> Floats:
        matched = torch.from_numpy(large * self._gain + self._shift)
        blended: Floats = self._shown * self._placed(matched.permute(2, 0, 1), "border").numpy() + self._below
        return blended

    def _placed(self, square: Tensor, beyond: str) -> Tensor:
        """Resample (C, side, side) to its place in the picture: (rows, columns, C).  beyond: `zeros` or `border`."""
        there = F.grid_sample(square[None], self._grid, mode="bilinear", padding_mode=beyond, align_corners=False)
        return there[0].permute(1, 2, 0)


def feather(box: Box, width: int, height: int) -> Floats:
    """Return the mask of a square, (side, side) in [0, 1]: 1 inside, falling smoothly to 0 at its edges.

    Edges on or beyond the border of the picture (width, height) have nothing to blend with: the mask stays 1 there.
    """
    across = _ramp(round(box.width), box.left <= 0, box.right >= width, (FEATHER, FEATHER))
    down = _ramp(round(box.height), box.top <= 0, box.bottom >= height, (TOP_FEATHER, FEATHER))
    return down[:, None] * across[None]


def resting(box: Box, width: int, height: int) -> Floats:
    """Return the share of its displacement that each pixel of a square keeps, (side, side) in [0, 1]: 0 on edges of the
    picture (width, height) that the square reaches, 1 further inside."""
    across = _rest(round(box.width), box.left, width)
    down = _rest(round(box.height), box.top, height)
    return down[:, None] * across[None]


def _rest(length: int, start: float, limit: int) -> Floats:
    place = np.arange(length, dtype=np.float32) + np.float32(start)
    ways = [np.full(length, np.inf, np.float32)]
    if start <= 0:
        ways.append(place)
    if start + length >= limit:
        ways.append(limit - 1 - place)
    return _smoothstep(np.minimum.reduce(ways) / max(1.0, REST * length))


def _ramp(length: int, open_start: bool, open_end: bool, widths: tuple[float, float]) -> Floats:
    """Return a smoothstep from both ends of a line of pixels; at an open end the value stays 1.

    widths: of the rise at the start and at the end, in lengths of the line.
    """
    place = np.arange(length, dtype=np.float32)
    to_start = np.full(length, np.inf, np.float32) if open_start else place / max(1.0, widths[0] * length)
    to_end = np.full(length, np.inf, np.float32) if open_end else (length - 1 - place) / max(1.0, widths[1] * length)
    return _smoothstep(np.minimum(to_start, to_end))


def _smoothstep(way: NDArray[np.floating]) -> Floats:
    """Return the smoothstep of values: 0 to 1 as `way` goes from 0 to 1, with slope 0 at both ends."""
    part: Floats = np.clip(way, 0, 1).astype(np.float32)
    return part * part * (3 - 2 * part)


def match(reconstruction: Pixels, truth: Pixels) -> tuple[Floats, Floats]:
    """Return the correction gain * frame + shift that gives the model's frames the colours of the source.

    reconstruction: (h, w, 3).  truth: (H, W, 3).  Returns gain (3,), one contrast per channel, and shift (H, W, 3) in
    levels: one offset per channel, plus, towards the edges, the low-frequency difference that remains.
    """
    side = reconstruction.shape[0]
    seen = _blurred(reconstruction, BLUR * side)
    wanted = _blurred(resize(truth, (reconstruction.shape[1], side)), BLUR * side)
    flat_seen, flat_wanted = seen.reshape(-1, 3), wanted.reshape(-1, 3)
    spread_seen, spread_wanted = flat_seen.std(0), flat_wanted.std(0)
    # The ratio of standard deviations, not a regression: a small displacement must not reduce contrast.
    gain = np.where(spread_seen >= SPREAD, spread_wanted / np.maximum(spread_seen, 1e-6), 1)
    gain = np.clip(gain, 1 / GAIN, GAIN).astype(np.float32)
    offset = flat_wanted.mean(0) - gain * flat_seen.mean(0)
    left = (wanted - gain * seen - offset) * _near_edges(*seen.shape[:2])[..., None]
    shift = _enlarged(left + offset, truth.shape[0], truth.shape[1])
    return gain, shift


def _near_edges(height: int, width: int) -> Floats:
    """Return (height, width): 1 at the edges of a picture, falling smoothly to 0 at a quarter of its side."""

    def ramp(length: int) -> Floats:
        place = np.arange(length, dtype=np.float32)
        return _smoothstep(np.minimum(place, length - 1 - place) / (length / 4))

    return (1 - ramp(height)[:, None] * ramp(width)[None]).astype(np.float32)


def _blurred(pixels: Pixels, sigma: float) -> Floats:
    """Blur (H, W, 3) by a Gaussian, with the border mirrored."""
    radius = max(1, min(round(3 * sigma), min(pixels.shape[:2]) - 1))
    place = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (place / max(sigma, 1e-3)) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    planes = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    planes = F.conv2d(F.pad(planes, (radius, radius, 0, 0), "reflect"), kernel, groups=3)
    planes = F.conv2d(F.pad(planes, (0, 0, radius, radius), "reflect"), kernel.transpose(2, 3), groups=3)
    return planes[0].permute(1, 2, 0).numpy()


def _enlarged(field: Floats, height: int, width: int) -> Floats:
    planes = torch.from_numpy(field.astype(np.float32)).permute(2, 0, 1)[None]
    return F.interpolate(planes, (height, width), mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()


def _resized(frame: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize bicubically with anti-aliasing, like `fommctl.media.resampling.resize` but three times as fast."""
    if frame.shape[1::-1] == size:
        return frame
    # With the batch axis added first, torch recognises channels-last memory and keeps it.
    planes = torch.from_numpy(np.require(frame, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    return F.interpolate(planes, size[::-1], mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
