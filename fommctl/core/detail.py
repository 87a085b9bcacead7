"""The detail of a source at full resolution, given back to frames that a network made of a small copy of it.

A network's flow tells where in the source each place of a frame comes from. The source itself is read along it at its
own resolution ("kept"), and so is the small copy. Wherever the frame is what was read of the small copy, it is given
what the large one has more; what the network painted stays as it is.

Pixels are squares: places are told from one border of the picture (-1) to the other (1), so that pixel i of n lies at
(2 i + 1) / n - 1 whatever the resolution, and frames, flow and source lie on each other exactly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 0.06
"""Mean absolute difference of frame and kept source, in [0, 1], at which confidence has fallen to 1 / e."""
COMPARED = 2
"""Frame and kept source are compared over squares of so many pixels: networks blur, and a blurred hair is still that
hair."""
COLOUR = 4
"""Pixels of the frame over which a difference from the kept source counts as one of light and colour: it stays."""
SQUEEZED = (0.3, 0.6)
"""Least local stretch of the flow (source pixels a frame pixel) without detail, and from which on it has all: below,
detail is smeared, and the flow is folded where it is negative."""
STRETCHED = (2.0, 3.0)
"""Largest local stretch of the flow with all detail, and from which on it has none."""
TABLE = 64 << 20
"""Bytes that the enlarged source should not exceed."""
FINEST, COARSEST = 5, 3
"""How finely places are told apart, in parts of a source pixel; odd, so that the pixels themselves are among them."""


class Detail:
    """Gives frames of one source what its full resolution has more. Use it in one thread at a time."""

    def __init__(
        self,
        square: Tensor,
        small: Tensor,
        *,
        weight: Tensor | None = None,
        part: tuple[slice, slice] = (slice(None), slice(None)),
        edges: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """square: (H, W, 3) uint8, the source at full resolution.  small: (h, w, 3) uint8, as the network sees it.

        part: rows and columns of the square that are wanted.  weight: (rows, columns) of that part, multiplied into
        what is given. Both pictures are on the device that is to compute.
        edges: of that part (rows, columns) how much of its displacement each pixel keeps, and the share of the frame
        in it; the rest is the source along what is left of the flow.
        """
        self._size = height, width = square.shape[0], square.shape[1]
        self._part = part
        self._weight = weight
        self._motion, self._rest = None, None
        if edges is not None:
            self._motion, own = edges
            whole = torch.ones_like(own) if weight is None else weight
            self._weight, self._rest = whole * own, whole * (1 - own)
        self._fineness = _fineness(height, width)
        self._table = _table(square, self._fineness)
        self._small = small.permute(2, 0, 1)[None].float().div_(255)
        rows, columns = (torch.arange(side, device=square.device) for side in self._size)
        self._rows = _in_table(rows[part[0]].float(), self._fineness)[:, None]
        self._columns = _in_table(columns[part[1]].float(), self._fineness)
        self._flow_shape: tuple[int, ...] = ()

    @torch.inference_mode()
    def __call__(self, frame: Tensor, flow: Tensor) -> Tensor:
        """What is to be added to the frame enlarged to the square's size, in levels of 255: (rows, columns, 3).

        frame: (3, h, w) in [0, 1].  flow: (fh, fw, 2), where in the source each place of the frame comes from, from
        border to border.
        """
        shift = displacement(flow)
        kept = self._kept_small(shift, frame.shape[1:])
        confidence = confidence_of(frame, kept)
        confidence *= resize(steadiness(shift)[None], confidence.shape)[0]
        # Where there is detail, only the frame's light and colour are its own.
        base = (frame - coarse(frame - kept)).clamp_(0, 1)
        kept_full = self._kept(shift).float()
        share = resize(confidence[None], self._size)[0][self._part]
        share = share.mul_(self._weight) if self._weight is not None else share
        added = kept_full - self._enlarged(base)
        added.mul_(share[..., None])
        return added if self._rest is None else added.add_(kept_full.mul_(self._rest[..., None]))

    def _kept_small(self, shift: Tensor, size: torch.Size) -> Tensor:
        """The small source along the flow: (3, h, w)."""
        height, width = size
        moved = spread(height, shift.shape[1], shift) @ shift @ spread(width, shift.shape[2], shift).T
        grid = centres(height, width, like=shift) + moved.permute(1, 2, 0)
        return F.grid_sample(self._small, grid[None], padding_mode="border", align_corners=False)[0]

    def _kept(self, shift: Tensor) -> Tensor:
        """The full source along the flow: (rows, columns, 3) uint8."""
        if shift.shape != self._flow_shape:
            self._flow_shape = shift.shape
            height, width = self._size
            scale = self._fineness / 2
            self._down = spread(height, shift.shape[1], shift)[self._part[0]]
            across = spread(width, shift.shape[2], shift)[self._part[1]].T
            self._across = torch.stack((across * (width * scale), across * (height * scale)))
        x, y = (self._down @ shift) @ self._across
        if self._motion is not None:
            x, y = x * self._motion, y * self._motion
        rows, columns, _ = self._table.shape
        x = x.add_(self._columns).round_().clamp_(0, columns - 1).int()
        y = y.add_(self._rows).round_().clamp_(0, rows - 1).int()
        pixels = self._table.view(torch.int32).view(-1).index_select(0, y.mul_(columns).add_(x).view(-1))
        return pixels.view(*x.shape, 1).view(torch.uint8)[..., :3]

    def _enlarged(self, frame: Tensor) -> Tensor:
        """(3, h, w) in [0, 1] at the square's size, the wanted part of it, in levels: (rows, columns, 3)."""
        pixels = (frame * 255).round_()
        if frame.device.type == "cpu":
            # Bytes with their channels together are enlarged ten times as fast as floats.
            pixels = pixels.to(torch.uint8)
        planes = pixels.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
        large = F.interpolate(planes, self._size, mode="bicubic", antialias=True)[0].permute(1, 2, 0)
        return large[self._part]


def centres(height: int, width: int, like: Tensor) -> Tensor:
    """Places (H, W, 2) of the pixels' centres, x before y, the picture's borders at -1 and 1."""
    x, y = (
        (2 * torch.arange(count, device=like.device, dtype=like.dtype) + 1) / count - 1 for count in (width, height)
    )
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1)


def displacement(flow: Tensor) -> Tensor:
    """How far from each place its source lies: (2, fh, fw) of a flow (fh, fw, 2) brought inside the picture."""
    return (flow.float().clamp(-1, 1) - centres(flow.shape[0], flow.shape[1], like=flow.float())).permute(2, 0, 1)


def confidence_of(frame: Tensor, kept: Tensor) -> Tensor:
    """How surely a frame (3, h, w) is the kept source (3, h, w): in [0, 1], smaller than they are."""
    apart = F.avg_pool2d(frame - kept, COMPARED, ceil_mode=True).abs_().mean(0)
    return torch.exp(-((apart / TOLERANCE) ** 2))


def steadiness(shift: Tensor) -> Tensor:
    """1 where a displacement (2, h, w), from border to border, keeps shapes; falling to 0 where it smears, folds or
    crowds them: (h, w)."""
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
    """0 up to `low`, 1 from `high` on, smooth between."""
    part = ((values - low) / (high - low)).clamp_(0, 1)
    return part * part * (3 - 2 * part)


def coarse(values: Tensor) -> Tensor:
    """What maps (C, h, w) have of slow changes."""
    return resize(F.avg_pool2d(values, COLOUR, ceil_mode=True), values.shape[1:])


def resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Maps (C, h, w) at another (height, width), linearly."""
    return F.interpolate(maps[None], tuple(size), mode="bilinear")[0]


def spread(length: int, count: int, like: Tensor) -> Tensor:
    """The matrix (length, count) that enlarges a line of `count` values smoothly (bicubic), pixels being areas."""
    eye = torch.eye(count, device=like.device)[None, None]
    return F.interpolate(eye, (length, count), mode="bicubic", antialias=True)[0, 0]


def _fineness(height: int, width: int) -> int:
    return FINEST if 4 * height * width * FINEST**2 <= TABLE else COARSEST


def _table(square: Tensor, fineness: int) -> Tensor:
    """The square (H, W, 3) enlarged, so that reading it needs no interpolation: (k H, k W, 4) uint8."""
    height, width = square.shape[:2]
    padded = F.pad(square, (0, 1)).contiguous()[None].permute(0, 3, 1, 2)
    planes = padded if square.device.type == "cpu" else padded.float()
    large = F.interpolate(planes, (fineness * height, fineness * width), mode="bicubic", antialias=True)
    return large.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).contiguous()


def _in_table(places: Tensor, fineness: int) -> Tensor:
    """Indices in a line of the table of places in a line of the square."""
    return places * fineness + fineness // 2
