"""Convolutions with fixed weights, channels last: prepacked by oneDNN on a CPU where that works, plain elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fommctl.networks.inference.instructions import bf16_instructions
from fommctl.networks.inference.winograd import VALUES, WinogradConvolution, Workspace, transformed


class Convolution(Protocol):
    """A convolution of stride 1, with its ReLU if it has one. Inputs and outputs (B, C, H, W) are channels last."""

    def __call__(self, x: Tensor) -> Tensor:
        """The result, a new tensor."""
        ...

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """`total` with the result of the convolution (which has no ReLU) added, in place where that is faster."""
        ...


@dataclass(frozen=True, slots=True)
class Numerics:
    """Where a network runs and in what type its convolutions compute."""

    device: torch.device
    dtype: torch.dtype
    workspace: Workspace = field(default_factory=Workspace)

    def convolution(
        self, weight: Tensor, bias: Tensor, *, padding: int, relu: bool = False, groups: int = 1
    ) -> Convolution:
        """The convolution with weight (O, I / groups, k, k) and bias (O)."""
        return self._direct(weight, bias, padding, relu, groups)

    def wide_convolution(self, weight: Tensor, bias: Tensor, *, relu: bool = False) -> Convolution:
        """The 3x3 convolution with padding 1 for many places; weight (O, I, 3, 3), bias (O)."""
        if self._winograd_pays(min(weight.shape[:2])):
            pointwise = self._direct(*transformed(weight, bias), 0, relu=False, groups=VALUES * VALUES)
            return WinogradConvolution(pointwise, len(bias), self.dtype, relu, self.workspace)
        return self._direct(weight, bias, 1, relu)

    def _winograd_pays(self, channels: int) -> bool:
        """The transforms take as long as they do in any type: with fast enough products they are not worth it."""
        if self.device.type != "cpu" or not packing_works(self.dtype):
            return False
        if self.dtype == torch.float32:
            return channels >= 96
        return channels >= 256 and bf16_instructions() != "tiles"

    def _direct(self, weight: Tensor, bias: Tensor, padding: int, relu: bool, groups: int = 1) -> Convolution:
        weight = weight.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        bias = bias.to(self.device, self.dtype)
        if self.device.type == "cpu" and packing_works(self.dtype):
            return PackedConvolution(weight, bias, padding, relu, groups)
        return PlainConvolution(weight, bias, padding, relu, groups)


class PlainConvolution:
    """A convolution by torch's public operators."""

    def __init__(self, weight: Tensor, bias: Tensor, padding: int, relu: bool, groups: int = 1) -> None:
        self._weight, self._bias, self._padding, self._relu, self._groups = weight, bias, padding, relu, groups

    def __call__(self, x: Tensor) -> Tensor:
        out = F.conv2d(x, self._weight, self._bias, padding=self._padding, groups=self._groups)
        return out.relu_() if self._relu else out

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        return total.add_(self(x))


class PackedConvolution:
    """A convolution whose weights lie in memory as oneDNN wants them for the input size of the first call.

    Uses private operators of torch: see `packing_works`. Other input sizes are right too, but may be slower.
    """

    def __init__(self, weight: Tensor, bias: Tensor, padding: int, relu: bool, groups: int = 1) -> None:
        self._weight, self._bias, self._padding, self._groups = weight, bias, [padding, padding], groups
        self._activation = "relu" if relu else "none"
        self._packed = False

    def __call__(self, x: Tensor) -> Tensor:
        self._pack(x)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self._bias, self._padding, [1, 1], [1, 1], self._groups, self._activation, [], ""
        )
        return out

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        self._pack(x)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            total, x, self._weight, self._bias, self._padding, [1, 1], [1, 1], self._groups, "add", 1.0, None, [], None
        )
        return out

    def _pack(self, x: Tensor) -> None:
        if not self._packed:
            # The plain weights are let go here: only one copy stays in memory.
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight, self._padding, [1, 1], [1, 1], self._groups, list(x.shape)
            )
            self._packed = True


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether this torch has the private oneDNN operators, and they give what the public ones give."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 8, 8, generator=random).to(dtype, memory_format=torch.channels_last)
    weight = (torch.randn(16, 16, 3, 3, generator=random) / 12).to(dtype)
    bias = torch.randn(16, generator=random).to(dtype)
    try:
        with torch.inference_mode():
            packed = PackedConvolution(weight, bias, 1, relu=False)
            results = packed(x), packed.add_to(x.clone(), x) - x
            expected = F.conv2d(x.float(), weight.float(), bias.float(), padding=1)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    return all(torch.allclose(result.float(), expected, atol=tolerance, rtol=0) for result in results)
