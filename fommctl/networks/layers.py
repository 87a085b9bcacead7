"""Blocks of the published networks, with the attribute names of the published checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from fommctl.networks.inference.convolutions import upsampling_kernel
from fommctl.networks.motion import Motion


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Turn autocast off on the device of `like`: keypoints, grids, inverses and losses lose too much in bf16.

    The caller must still convert outputs of convolutions under autocast to float32.
    """
    return torch.autocast(like.device.type, enabled=False)


def single(x: Tensor) -> Tensor:
    """Convert x to float32 if it is in half precision, by autocast; otherwise return it unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


@dataclass(frozen=True, slots=True)
class PlainSource:
    """The source picture and its motion; the plain renderer computes everything else anew for each frame."""

    frame: Tensor
    motion: Motion


class PlainRenderer:
    """The published networks as they are, in fp32, with nothing cached: the reference for speed and exactness."""

    def __init__(self, keypoint_detector: nn.Module, generator: nn.Module, device: torch.device) -> None:
        """keypoint_detector: maps frames to Motion.  generator: maps source frames, their motion and the driving motion
        to an object with a `prediction` (B, C, H, W) in [0, 1]; its optional method `flow_of` maps that object to the
        flow of `fommctl.api.FlowRenderer`, or None."""
        self.device = device
        self._keypoint_detector = keypoint_detector.to(device).eval()
        self._generator = generator.to(device).eval()

    @torch.inference_mode()
    def detect(self, frames: Tensor) -> Motion:
        """See `fommctl.api.Renderer`."""
        motion: Motion = self._keypoint_detector(frames)
        return motion

    def encode_source(self, frame: Tensor) -> PlainSource:
        """See `fommctl.api.Renderer`."""
        return PlainSource(frame, self.detect(frame))

    @torch.inference_mode()
    def render(self, context: object, motion: Motion) -> Tensor:
        """See `fommctl.api.Renderer`."""
        return self._generated(context, motion)[0]

    @torch.inference_mode()
    def render_with_flow(self, context: object, motion: Motion) -> tuple[Tensor, Tensor | None]:
        """See `fommctl.api.FlowRenderer`."""
        return self._generated(context, motion)

    def _generated(self, context: object, motion: Motion) -> tuple[Tensor, Tensor | None]:
        assert isinstance(context, PlainSource)
        source = context.frame.expand(len(motion), -1, -1, -1)
        generated = self._generator(source, context.motion, motion)
        flow_of = getattr(self._generator, "flow_of", None)
        return generated.prediction, None if flow_of is None else flow_of(generated)


def width_at(expansion: int, level: int, maximum: int) -> int:
    """Return the number of channels at a level of an encoder: doubled at each level up to a maximum."""
    return min(maximum, expansion << level)


def rounds_freely(x: Tensor) -> bool:
    """Return whether convolutions of x may be computed in another order than published: only under autocast on a CPU,
    where bf16 rounds more than that changes. In single precision the published rounding is kept."""
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def heads(x: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Return the outputs of two convolutions of the same kernel size on x.

    A single output channel costs as much as sixteen: both become one convolution if rounding allows it.
    """
    if not rounds_freely(x) or first.bias is None or second.bias is None:
        return first(x), second(x)
    weight, bias = torch.cat((first.weight, second.weight)), torch.cat((first.bias, second.bias))
    out = F.conv2d(x, weight, bias, padding=first.padding)
    return out[:, : first.out_channels], out[:, first.out_channels :]


Norm = Callable[[int], nn.Module]
"""norm(channels): makes the normalisation of a block, by default BatchNorm."""


class SameBlock(nn.Module):
    """Convolution, norm, ReLU at one resolution."""

    norm: Any

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, groups: int = 1, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class DownBlock(SameBlock):
    """SameBlock, then 2x2 average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


class UpBlock(SameBlock):
    """Nearest upsampling by 2, then SameBlock."""

    def forward(self, x: Tensor) -> Tensor:
        # Two to four times as fast.
        if rounds_freely(x):
            return F.relu(self.norm(self._convolved_small(x)))
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))

    def _convolved_small(self, x: Tensor) -> Tensor:
        """Compute the convolution of the upsampled x at the size of x, see
        `fommctl.networks.inference.convolutions`."""
        bias = self.conv.bias
        phases = F.conv2d(x, upsampling_kernel(self.conv.weight), None if bias is None else bias.repeat(4), padding=1)
        batch, _, height, width = x.shape
        phases = phases.view(batch, 2, 2, -1, height + 1, width + 1)
        rows = [
            torch.stack((phases[:, a, 0, :, a : a + height, :width], phases[:, a, 1, :, a : a + height, 1:]), -1)
            for a in (0, 1)
        ]
        return torch.stack(rows, 3).reshape(batch, -1, 2 * height, 2 * width)


class ResidualBlock(nn.Module):
    """Pre-activation residual block."""

    norm1: Any
    norm2: Any

    def __init__(self, features: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.norm1 = norm(features)
        self.norm2 = norm(features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv1(F.relu(self.norm1(x)))
        out = self.conv2(F.relu(self.norm2(out)))
        return out + x


class Encoder(nn.Module):
    """Down blocks; returns the input and the output of every block."""

    def __init__(self, expansion: int, inputs: int, blocks: int, maximum: int, *, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        widths = [inputs, *(width_at(expansion, level, maximum) for level in range(1, blocks + 1))]
        self.down_blocks = nn.ModuleList(DownBlock(*pair, norm=norm) for pair in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = [x]
        for block in self.down_blocks:
            outputs.append(block(outputs[-1]))
        return outputs


class Decoder(nn.Module):
    """Up blocks with the encoder's outputs concatenated behind each, the encoder's input last.

    extra: channels appended to each of the encoder's outputs.  outputs: channels of a last 3x3 convolution; None: no
    such convolution.
    """

    def __init__(
        self,
        expansion: int,
        inputs: int,
        blocks: int,
        maximum: int,
        *,
        extra: int = 0,
        outputs: int | None = None,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.up_blocks = nn.ModuleList()
        self.widths = [width_at(expansion, blocks, maximum) + extra]
        """Number of channels of each result of `levels`."""
        for level in reversed(range(blocks)):
            here = width_at(expansion, level, maximum)
            self.up_blocks.append(UpBlock(self.widths[-1], here, norm=norm))
            self.widths.append(here + (here if level else inputs) + extra)
        self.out_filters = self.widths[-1]
        self.conv: nn.Conv2d | None = None
        if outputs is not None:
            self.conv = nn.Conv2d(self.out_filters, outputs, 3, padding=1)
            self.out_filters = outputs

    def levels(self, outputs: list[Tensor]) -> list[Tensor]:
        """Return the result of every level, coarse first: the encoder's, then each block's."""
        *skips, out = outputs
        levels = [out]
        for block in self.up_blocks:
            levels.append(torch.cat((block(levels[-1]), skips.pop()), 1))
        return levels

    def forward(self, outputs: list[Tensor]) -> Tensor:
        out = self.levels(outputs)[-1]
        return out if self.conv is None else self.conv(out)


class Hourglass(nn.Module):
    """U-Net over its input: (B, C, H, W) to (B, expansion + C, H, W); H and W divisible by 2^blocks.

    outputs: channels of a last 3x3 convolution, and so of the result; None: no such convolution.
    """

    def __init__(
        self,
        expansion: int,
        inputs: int,
        blocks: int,
        maximum: int,
        outputs: int | None = None,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(expansion, inputs, blocks, maximum, norm=norm)
        self.decoder = Decoder(expansion, inputs, blocks, maximum, outputs=outputs, norm=norm)
        self.out_filters = self.decoder.out_filters

    def levels(self, x: Tensor) -> list[Tensor]:
        """Return the result of every level of the decoder, coarse first, with `decoder.widths` channels."""
        return self.decoder.levels(self.encoder(x))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(x))
        return out


class AntiAliasDownsample(nn.Module):
    """Gaussian blur, then every n-th pixel from the first one, n = 1 / scale.

    sigma = (n - 1) / 2, kernel 2 round(4 sigma) + 1 wide, zero padding: 13x13 for a scale of 1/4.
    """

    weight: Tensor

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.step = round(1 / scale)
        sigma = (self.step - 1) / 2
        radius = round(4 * sigma)
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
        line = torch.exp(-(offsets**2) / (2 * sigma**2)) if sigma else torch.ones(1)
        kernel = torch.outer(line, line)
        self.register_buffer("weight", (kernel / kernel.sum()).expand(channels, 1, -1, -1).clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.step == 1:
            return x
        radius, channels = self.weight.shape[-1] // 2, self.weight.shape[0]
        return F.conv2d(x, self.weight, stride=self.step, padding=radius, groups=channels)


class NearestDownsample(nn.Module):
    """Every n-th pixel from the first one, n = 1 / scale: nearest-neighbour resizing where n divides the size."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.step = round(1 / scale)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.step, :: self.step]


KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Sum(torch.autograd.Function):
    """The sum over processes. Each process's gradient is the sum of the gradients of all processes."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """BatchNorm with statistics (at least in float32) over the inputs of all processes in training.

    x: (B, C, ...); B may differ between processes.  Names, running mean and unbiased running variance are torch's.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        x = single(input)
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        variance, mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
        own = x.new_tensor([x.numel() // x.shape[1]])
        sums: Tensor = _Sum.apply(torch.cat([mean * own, own]))  # type: ignore[no-untyped-call]
        count = sums[-1]
        centre = sums[:-1] / count
        # Deviations from the common mean, not a difference of large sums of squares.
        spread: Tensor = _Sum.apply(own * (variance + (mean - centre).square())) / count  # type: ignore[no-untyped-call]
        self._remember(centre.detach(), spread.detach() * count.detach() / (count.detach() - 1))
        scale = torch.rsqrt(spread + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        out = (x - centre.view(shape)) * scale.view(shape)
        if self.bias is not None:
            out = out + self.bias.view(shape)
        return out.to(input.dtype)

    def _remember(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased_variance.to(self.running_var.dtype), share)


def synchronise(network: nn.Module) -> None:
    """Replace every BatchNorm in `network`, in place, by one over the whole batch; parameters, statistics and names are
    kept."""
    for module in network.modules():
        if type(module) in KINDS:
            # The attributes of the three kinds are the same; only the dimensions that they accept differ.
            module.__class__ = SynchronisedBatchNorm
