"""Nearest upsampling by 2 and the convolution behind it, done at the small resolution.

Phase (a, c) of a picture holds its pixels of rows 2 i + a and columns 2 j + c. After nearest upsampling a 3x3
convolution sees only 2x2 different values, so that each phase is a 2x2 convolution of the small picture: 4/9 of the
arithmetic. With padding 1 the four are one convolution, whose output has a row and a column more than the input:
phase (a, c) of pixel (2 i + a, 2 j + c) is found at (i + a, j + c). So a place (g, k) of that output holds the pixels
of rows 2 g and 2 g - 1: here such a layout is called staggered phases. Channels are ordered (a, c, channel).
"""

from __future__ import annotations

import torch
from torch import Tensor

# [phase, tap of the small kernel, tap of the 3x3 kernel]
_TAPS = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])


def upsampling_kernel(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) behind nearest upsampling to (4 O, I, 2, 2), whose output with padding 1 is staggered phases."""
    outputs, inputs = weight.shape[:2]
    taps = _TAPS.to(weight)
    return torch.einsum("atk,cul,oikl->acoitu", taps, taps, weight).reshape(4 * outputs, inputs, 2, 2)


def interleave_into(out: Tensor, phases: Tensor) -> None:
    """Staggered phases (B, 4 C, h + 1, w + 1), channels last, to the picture `out` (B, C, 2 h, 2 w)."""
    batch, channels, height, width = out.shape
    h, w = height // 2, width // 2
    row, place = (w + 1) * 4 * channels, 4 * channels
    # Pixel (2 i + a, 2 j + c) lies in row i + a, column j + c, channels from (2 a + c) C on.
    strides = ((h + 1) * row, row, row + 2 * channels, place, place + channels, 1)
    phases = phases.contiguous(memory_format=torch.channels_last)
    pixels = phases.as_strided((batch, h, 2, w, 2, channels), strides, phases.storage_offset())
    out.permute(0, 2, 3, 1).view(batch, h, 2, w, 2, channels).copy_(pixels)


def blank_outside(phases: Tensor) -> Tensor:
    """Staggered phases (B, 4 C, h + 1, w + 1) with zeros, in place, where they reach a row or column over the edge."""
    batch, channels, height, width = phases.shape
    by_phase = phases.view(batch, 2, 2, channels // 4, height, width)
    by_phase[:, 1, :, :, 0].zero_()
    by_phase[:, 0, :, :, -1].zero_()
    by_phase[:, :, 1, :, :, 0].zero_()
    by_phase[:, :, 0, :, :, -1].zero_()
    return phases


def phases_kernel(weight: Tensor) -> Tensor:
    """(O, I, 7, 7) to (4 O, 4 I, 4, 4): with padding 1 from blanked staggered phases to plain phases (B, 4 O, h, w)."""
    outputs, inputs = weight.shape[:2]
    select = torch.zeros(2, 4, 2, 7).to(weight)
    for phase in (0, 1):
        for tap in range(7):
            row = phase + tap - 3
            place, parity = -(-row // 2), row % 2
            select[phase, place + 1, parity, tap] = 1
    kernel = torch.einsum("xtak,yucl,oikl->xyoacitu", select, select, weight)
    return kernel.reshape(4 * outputs, 4 * inputs, 4, 4)


def pixels_from_phases(phases: Tensor) -> Tensor:
    """Plain phases (B, 4 C, h, w) to pixels (B, 2 h, 2 w, C)."""
    batch, channels, height, width = phases.shape
    by_phase = phases.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2, channels // 4)
    return by_phase.transpose(2, 3).reshape(batch, 2 * height, 2 * width, channels // 4)
