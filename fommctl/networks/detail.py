"""Transferring the detail of a source at full resolution to frames that a network made from a small copy of it.

A network's flow gives, for each position in a frame, the position in the source that it comes from. Both the source at
its own resolution and the small copy are warped along it ("kept"). Where the frame matches the warped small copy, the
difference between the two is added; what the network has painted itself is unchanged.

Coordinates run from one border of the picture (-1) to the other (1), so that pixel i of n is at (2 i + 1) / n - 1 at
any resolution, and frames, flow and source coincide exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 0.06
"""Mean absolute difference of frame and kept source, in [0, 1], at which confidence has fallen to 1 / e."""
COMPARED = 2
"""Side in pixels of the squares over which frame and kept source are compared: networks blur, and a blurred hair still
matches."""
COLOUR = 4
"""Scale in pixels from which on a difference from the kept source is light or colour, which the frame keeps."""
SQUEEZED = (0.3, 0.6)
"""Local stretch of the flow (source pixels per frame pixel) up to which there is no detail, and from which on there is
all: with less stretch, detail is smeared, and with a negative one the flow is folded."""
STRETCHED = (2.0, 3.0)
"""Local stretch of the flow up to which there is all detail, and from which on there is none."""
FINENESS = 3
"""Positions per source pixel in the sampling table; odd, so that pixel centres are among them."""


Strips = Callable[[slice], Tensor]
"""strip(rows): some rows of a large picture, (rows, columns, C)."""


class Detail:
    """Computes the detail of one source for its frames. Not thread-safe.

    Large pictures of 8 bits are (rows, columns, 4), with an unused last channel: pixels of four bytes are read,
    enlarged and multiplied several times as fast as pixels of three. Float pictures are (rows, columns, 3), planar in
    memory, and never enlarged as a whole.
    """

    def __init__(
        self,
        square: Tensor,
        small: Tensor,
        weight: Tensor,
        part: tuple[slice, slice],
        edges: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Prepare a source. All tensors must be on the device that computes.

        square: (H, W, 3) at full resolution: uint8, or float32 where 255 is white and values may be outside 0 to 255.
        small: (h, w, 3) uint8, as the network sees it.
        part: rows and columns of the square that are needed.  weight: (rows, columns) of that part, multiplied into the
        detail.
        edges: for that part, (rows, columns) each: the share of its displacement that each pixel keeps, and the share
        of the frame in it; the rest is the source warped along the reduced flow.
        """
        self._size = square.shape[0], square.shape[1]
        self._part = part
        self._exact = square.is_floating_point()
        channels = 1 if self._exact else 4
        self._motion: Tensor | None = None
        self.rest: Tensor | None = None
        if edges is not None:
            self._motion, own = edges
            self.rest = (weight * (1 - own))[..., None].repeat(1, 1, channels)
            weight = weight * own
        self.weight = weight[..., None].repeat(1, 1, channels).div_(255)
        self._fineness = 1 if self._exact else FINENESS
        self._table = square.permute(2, 0, 1)[None].contiguous() if self._exact else _table(square)
        self._compared = _over(small.permute(2, 0, 1).float().div_(255), COMPARED)[None]
        rows, columns = (torch.arange(side, device=square.device).float() for side in self._size)
        self._rows, self._columns = (
            places * self._fineness + self._fineness // 2 for places in (rows[part[0]][:, None], columns[part[1]])
        )
        self._flow_shape: tuple[int, ...] = ()

    def __call__(self, frame: Tensor, flow: Tensor) -> FrameDetail:
        """Return the detail of a frame (3, h, w) in [0, 1].  flow: (fh, fw, 2), positions in the source, borders at -1
        and 1."""
        shift = displacement(flow)
        if shift.shape != self._flow_shape:
            self._fit(shift)
        apart = _over(frame, COMPARED) - self.kept_small(shift)
        confidence = confidence_of(apart).mul_(resize(steadiness(shift)[None], apart.shape[1:])[0])
        # Where there is detail, only light and colour are the frame's own.
        base = frame - resize(_over(apart, COLOUR // COMPARED), frame.shape[1:])
        if self._exact:
            return FrameDetail(self, shift, self._strips(base), self._strips(confidence[None]))
        levels, share = (self._enlarged(planes) for planes in (base, confidence.expand(3, -1, -1)))
        return FrameDetail(self, shift, levels.__getitem__, share.__getitem__)

    def _fit(self, shift: Tensor) -> None:
        """Precompute what depends only on the size of the flow."""
        self._flow_shape = shift.shape
        (height, width), (rows, columns) = self._size, self._part
        down = spread(height, shift.shape[1], shift.device)[rows]
        across = spread(width, shift.shape[2], shift.device)[columns].T
        scale = self._fineness / 2
        self._down, self._across = down, torch.stack((across * (width * scale), across * (height * scale)))
        height, width = self._compared.shape[2:]
        self._small_down, self._small_across = (
            spread(height, shift.shape[1], shift.device),
            spread(width, shift.shape[2], shift.device).T,
        )
        self._small_centres = centres(height, width, like=shift)

    def kept_small(self, shift: Tensor) -> Tensor:
        """Warp the small source along the flow, for the comparison: (3, h, w)."""
        moved = self._small_down @ shift @ self._small_across
        grid = self._small_centres + moved.permute(1, 2, 0)
        return F.grid_sample(self._compared, grid[None], padding_mode="border", align_corners=False)[0]

    def kept(self, shift: Tensor, rows: slice) -> Tensor:
        """Warp rows of the needed part of the source along the flow: (rows, columns, 3 or 4), in the source's type."""
        x, y = self._in_table(shift, rows)
        if self._exact:
            height, width = self._size
            grid = torch.stack((x.mul_(2).add_(1).div_(width).sub_(1), y.mul_(2).add_(1).div_(height).sub_(1)), -1)[
                None
            ]
            kept = F.grid_sample(self._table, grid, mode="bicubic", padding_mode="border", align_corners=False)
            return kept[0].permute(1, 2, 0)
        height, width, _ = self._table.shape
        x = x.round_().clamp_(0, width - 1).int()
        y = y.round_().clamp_(0, height - 1).int()
        pixels = self._table.view(torch.int32).view(-1).index_select(0, y.mul_(width).add_(x).view(-1))
        return pixels.view(*x.shape, 1).view(torch.uint8)

    def sources(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Return where each pixel of the needed part comes from by a flow (fh, fw, 2): columns and rows in pixels of
        the square."""
        shift = displacement(flow)
        if shift.shape != self._flow_shape:
            self._fit(shift)
        x, y = self._in_table(shift, slice(None))
        return (x - self._fineness // 2) / self._fineness, (y - self._fineness // 2) / self._fineness

    def _in_table(self, shift: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Return where pixels of some rows come from, as columns and rows of the sampling table."""
        x, y = (self._down[rows] @ shift) @ self._across
        if self._motion is not None:
            x, y = x.mul_(self._motion[rows]), y.mul_(self._motion[rows])
        return x.add_(self._columns), y.add_(self._rows[rows])

    def _enlarged(self, planes: Tensor) -> Tensor:
        """Enlarge (3, h, w) in [0, 1] to levels at the square's size, and cut out the needed part: (rows, columns, 4),
        bytes on a CPU, which enlarges them far faster than floats."""
        levels = F.pad((planes * 255).round_().clamp_(0, 255), (0, 0, 0, 0, 0, 1)).permute(1, 2, 0).contiguous()
        if levels.device.type == "cpu":
            levels = levels.to(torch.uint8)
        return enlarged(levels, self._size)[self._part]

    def _strips(self, planes: Tensor) -> Strips:
        """Enlarge (C, h, w) to the needed part of the square strip by strip: (rows, columns, C)."""
        return enlarged_strips(planes * 255, self._size, self._part)


@dataclass(frozen=True, slots=True)
class FrameDetail:
    """Detail to add to one frame enlarged to the square's size, in levels of 255, computed in strips of rows: work that
    fits into the processor's cache is several times as fast."""

    detail: Detail
    shift: Tensor
    base: Strips
    """The part of the frame that the kept source replaces: (rows, columns, 3 or 4)."""
    share: Strips
    """Share of the detail, 0 to 255: (rows, columns, 1 or 4)."""

    def kept(self, rows: slice) -> Tensor:
        """Return some rows of the warped full source, of the needed part: (rows, columns, 3 or 4)."""
        return self.detail.kept(self.shift, rows)

    def strip(self, rows: slice) -> Tensor:
        """Return the detail of some rows of the needed part: (rows, columns, 3 or 4) float32."""
        kept, rest = self.kept(rows).float(), self.detail.rest
        added = (kept - self.base(rows)).mul_(self.share(rows)).mul_(self.detail.weight[rows])
        return added if rest is None else added.add_(kept.mul_(rest[rows]))


def enlarged(levels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize levels (h, w, C) to another (height, width), bicubically."""
    planes = levels[None].permute(0, 3, 1, 2)
    return F.interpolate(planes, size, mode="bicubic", antialias=True)[0].permute(1, 2, 0)


def enlarged_strips(maps: Tensor, size: tuple[int, int], part: tuple[slice, slice]) -> Strips:
    """Resize maps (C, h, w) to another (height, width), bicubically: all rows at once, then columns for strips of a
    part of the result on demand.

    `enlarged` needs 75 MB for a square of 2160 pixels, and is bound by memory bandwidth.
    """
    count, source_rows, source_columns = maps.shape
    top = part[0].indices(size[0])[0]
    down = spread(size[0], source_rows, maps.device)[part[0]]
    across = spread(size[1], source_columns, maps.device)[part[1]]
    columns = len(across)
    wide = (maps.transpose(0, 1).reshape(-1, source_columns) @ across.T).view(source_rows, count * columns)
    scale = source_rows / size[0]
    reach = 2 * max(1.0, scale) + 1

    def strip(rows: slice) -> Tensor:
        start, stop, _ = rows.indices(len(down))
        # Each row depends on a few rows around its position; all other factors are 0.
        first = max(0, int((top + start + 0.5) * scale - reach))
        last = min(source_rows, int((top + stop - 0.5) * scale + reach) + 1)
        made = down[start:stop, first:last] @ wide[first:last]
        return made.view(stop - start, count, columns).transpose(1, 2)

    return strip


def centres(height: int, width: int, like: Tensor) -> Tensor:
    """Return the coordinates (H, W, 2) of the pixel centres, x before y, with the picture's borders at -1 and 1."""
    x, y = (
        (2 * torch.arange(count, device=like.device, dtype=like.dtype) + 1) / count - 1 for count in (width, height)
    )
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1)


def displacement(flow: Tensor) -> Tensor:
    """Return the displacements (2, fh, fw) of a flow (fh, fw, 2), which is first clamped to the picture."""
    return (flow.float().clamp(-1, 1) - centres(flow.shape[0], flow.shape[1], like=flow.float())).permute(2, 0, 1)


def confidence_of(apart: Tensor) -> Tensor:
    """Return the confidence (h, w) in [0, 1] that a frame shows the source, from its difference (3, h, w) to the kept
    source."""
    return torch.exp(-((apart.abs().mean(0) / TOLERANCE) ** 2))


def steadiness(shift: Tensor) -> Tensor:
    """Return (h, w) in [0, 1]: 1 where a displacement (2, h, w) keeps shapes, falling to 0 where it smears, folds or
    crowds them."""
    height, width = shift.shape[1:]
    along_x = torch.gradient(shift, dim=2)[0] * (width / 2)
    along_y = torch.gradient(shift, dim=1)[0] * (height / 2)
    # The map is identity plus displacement; its singular values, the smaller one with the sign of the determinant.
    a, c = along_x[0] + 1, along_x[1] * (height / width)
    b, d = along_y[0] * (width / height), along_y[1] + 1
    even, odd = torch.hypot(a + d, c - b), torch.hypot(a - d, b + c)
    largest, smallest = (even + odd) / 2, (even - odd) / 2
    return _ramp(smallest, *SQUEEZED) * (1 - _ramp(largest, *STRETCHED))


def _ramp(values: Tensor, low: float, high: float) -> Tensor:
    """Return a smoothstep: 0 up to `low`, 1 from `high` on."""
    part = ((values - low) / (high - low)).clamp_(0, 1)
    return part * part * (3 - 2 * part)


def _over(values: Tensor, side: int) -> Tensor:
    """Return the means of maps (C, h, w) over squares of `side` pixels."""
    return F.avg_pool2d(values, side, ceil_mode=True)


def resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Resize maps (C, h, w) to another (height, width), linearly."""
    return F.interpolate(maps[None], tuple(size), mode="bilinear")[0]


@lru_cache(maxsize=16)
def spread(length: int, count: int, device: torch.device) -> Tensor:
    """Return the matrix (length, count) that enlarges a line of `count` values bicubically, with pixels as areas."""
    eye = torch.eye(count, device=device)[None, None]
    return F.interpolate(eye, (length, count), mode="bicubic", antialias=True)[0, 0]


def _table(square: Tensor) -> Tensor:
    """Return the sampling table, the square (H, W, 3) enlarged so that reading needs no interpolation: (k H, k W, 4)
    uint8."""
    height, width = square.shape[:2]
    padded = F.pad(square, (0, 1))
    large = enlarged(padded if square.device.type == "cpu" else padded.float(), (FINENESS * height, FINENESS * width))
    return large.round().clamp(0, 255).to(torch.uint8).contiguous()
