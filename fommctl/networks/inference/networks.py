"""The model's networks as sequences of folded convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fommctl.networks.fomm import Generator
from fommctl.networks.inference.convolutions import (
    Numerics,
    affine_of,
    blank_outside,
    folded,
    interleave_into,
    phases_kernel,
    pixels_from_phases,
    upsampling_kernel,
    weight_and_bias,
)
from fommctl.networks.layers import Hourglass, ResidualBlock, UpBlock


class FastUpsampling:
    """Nearest upsampling by 2, convolution, BatchNorm and ReLU."""

    def __init__(self, block: UpBlock, numerics: Numerics) -> None:
        weight, bias = folded(block.conv, block.norm)
        self.channels = len(bias)
        self._conv = numerics.convolution(upsampling_kernel(weight), bias.repeat(4), padding=1, relu=True)

    def phases(self, x: Tensor) -> Tensor:
        """Convert (B, I, h, w) to staggered phases (B, 4 O, h + 1, w + 1)."""
        return self._conv(x)

    def __call__(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """Convert (B, I, h, w) to (B, O, 2 h, 2 w), with the channels of `beside` (B, S, 2 h, 2 w) behind."""
        batch, _, height, width = x.shape
        extra = 0 if beside is None else beside.shape[1]
        out = torch.empty(
            (batch, self.channels + extra, 2 * height, 2 * width),
            device=x.device, dtype=x.dtype, memory_format=torch.channels_last,
        )  # fmt: skip
        interleave_into(out[:, : self.channels], self.phases(x))
        if beside is not None:
            out[:, self.channels :].copy_(beside)
        return out


class FastHourglass:
    """A U-Net and the heads that read its output, as one convolution.

    order: which of the published input channels each channel of the input given here is; channels left out are
    taken as zero.
    """

    def __init__(
        self,
        hourglass: Hourglass,
        heads: tuple[Tensor, Tensor],
        padding: int,
        numerics: Numerics,
        order: Tensor | None = None,
    ) -> None:
        self._down = []
        for index, block in enumerate(hourglass.encoder.down_blocks):
            weight, bias = folded(block.conv, block.norm)  # type: ignore[arg-type]
            if index == 0 and order is not None:
                weight = weight[:, order]
            self._down.append(numerics.convolution(weight, bias, padding=1, relu=True))
        self._up = [FastUpsampling(block, numerics) for block in hourglass.decoder.up_blocks]  # type: ignore[arg-type]
        weight, bias = heads
        if order is not None:
            own = self._up[-1].channels
            weight = torch.cat((weight[:, :own], weight[:, own:][:, order]), 1)
        self._heads = numerics.convolution(weight, bias, padding=padding)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the heads' maps of x (B, C, H, W)."""
        outputs = [x]
        for conv in self._down:
            outputs.append(F.avg_pool2d(conv(outputs[-1]), 2))
        out = outputs.pop()
        for up in self._up:
            out = up(out, outputs.pop())
        return self._heads(out)


class FastResidualBlock:
    """Pre-activation residual block: an affine map and ReLU, a convolution with ReLU, a convolution that adds."""

    def __init__(self, block: ResidualBlock, numerics: Numerics) -> None:
        scale, shift = affine_of(block.norm1)
        self._scale = scale.to(numerics.device, numerics.dtype).view(-1, 1, 1)
        self._shift = shift.to(numerics.device, numerics.dtype).view(-1, 1, 1)
        self._inner = numerics.wide_convolution(*folded(block.conv1, block.norm2), relu=True)
        self._outer = numerics.wide_convolution(*weight_and_bias(block.conv2))

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the block to x (B, C, h, w), which is changed in place."""
        activated = torch.addcmul(self._shift, x, self._scale).relu_()
        return self._outer.add_to(x, self._inner(activated))


LARGEST_TENSOR = 20 << 20
"""Bytes that one tensor of the decoder should not exceed on a CPU: beyond 32 MB the C library gives memory back to
the system at each free, and page faults and cache misses cost more than larger batches gain."""


class FastDecoder:
    """Bottleneck, upsampling and heads of the generator; the heads are one convolution, for the colours and, if the
    model blends the source in, its share."""

    def __init__(self, generator: Generator, numerics: Numerics) -> None:
        self._blocks = [FastResidualBlock(block, numerics) for block in generator.bottleneck]  # type: ignore[arg-type]
        self._up = [FastUpsampling(block, numerics) for block in generator.up_blocks]  # type: ignore[arg-type]
        heads = [generator.final] if generator.blend is None else [generator.final, generator.blend]
        weight, bias = (torch.cat(parts) for parts in zip(*map(weight_and_bias, heads), strict=True))
        if self._up:
            self._final = numerics.convolution(phases_kernel(weight), bias.repeat(4), padding=1)
        else:
            self._final = numerics.convolution(weight, bias, padding=3)

    def __call__(self, features: Tensor) -> Tensor:
        """Decode features (B, F, h, w), warped and attenuated, in place.  Returns (B, H, W, C or C + 1) before the
        sigmoid."""
        if features.device.type != "cpu":
            return self._paint(features)
        parts = [self._paint(part) for part in torch.split(features, self._frames_at_once(features))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _frames_at_once(self, features: Tensor) -> int:
        frame = features[0].numel()
        for level, up in enumerate(self._up):
            frame = max(frame, 4 * up.channels * (features[0, 0].numel() << 2 * level))
        return max(1, LARGEST_TENSOR // (frame * features.element_size()))

    def _paint(self, features: Tensor) -> Tensor:
        for block in self._blocks:
            features = block(features)
        if not self._up:
            return self._final(features).permute(0, 2, 3, 1)
        for up in self._up[:-1]:
            features = up(features)
        return pixels_from_phases(self._final(blank_outside(self._up[-1].phases(features))))


class FastEncoder:
    """The generator's encoder, which runs once per source."""

    def __init__(self, generator: Generator, numerics: Numerics) -> None:
        first = generator.first
        self._first = numerics.convolution(*folded(first.conv, first.norm), padding=3, relu=True)
        self._down = [
            numerics.convolution(*folded(block.conv, block.norm), padding=1, relu=True)  # type: ignore[arg-type]
            for block in generator.down_blocks
        ]

    def __call__(self, frame: Tensor) -> Tensor:
        """Return features (1, F, h, w) of a frame (1, C, H, W) in [0, 1]."""
        features = self._first(frame.contiguous(memory_format=torch.channels_last))
        for conv in self._down:
            features = F.avg_pool2d(conv(features), 2)
        return features
