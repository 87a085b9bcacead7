"""Faster convolutions with torch's results: folded BatchNorm, Winograd, sub-pixel upsampling, bf16 instructions."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Instructions = Literal["tiles", "vectors", "none"]
"""`tiles`: matrix tiles (AMX), several times as fast as fp32. `vectors`: AVX-512 with bf16 products, up to twice as
fast. `none`: bf16 is computed by way of fp32 and slower, or nothing is known of it (ARM)."""
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that limit the CPU instructions of oneDNN, which computes the convolutions."""


@cache
def bf16_instructions() -> Instructions:
    """Return the best instructions that CPU, build of torch and environment allow."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "none"
    limit = next((os.environ[name] for name in _LIMITS if os.environ.get(name)), "default").lower()
    allowed = _allowed(limit)
    # CPU flags are not enough: the kernel must also grant the tiles to the process.
    if allowed == "tiles" and torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx():
        return "tiles"
    return "vectors" if allowed != "none" and torch.cpu._is_avx512_bf16_supported() else "none"


def _allowed(limit: str) -> Instructions:
    """Return the best instructions that oneDNN may use under a limit such as `avx512_core_bf16`."""
    if limit in ("default", "all") or "amx" in limit or limit == "avx10_2":
        return "tiles"
    return "vectors" if limit.startswith(("avx512_core_bf16", "avx512_core_fp16", "avx10")) else "none"


# [phase, tap of the small kernel, tap of the 3x3 kernel]
_TAPS = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])


def upsampling_kernel(weight: Tensor) -> Tensor:
    """Convert weights (O, I, 3, 3) behind nearest upsampling to (4 O, I, 2, 2), whose output with padding 1 is
    staggered phases."""
    outputs, inputs = weight.shape[:2]
    taps = _TAPS.to(weight)
    return torch.einsum("atk,cul,oikl->acoitu", taps, taps, weight).reshape(4 * outputs, inputs, 2, 2)


def interleave_into(out: Tensor, phases: Tensor) -> None:
    """Write staggered phases (B, 4 C, h + 1, w + 1), channels last, as the picture `out` (B, C, 2 h, 2 w)."""
    batch, channels, height, width = out.shape
    h, w = height // 2, width // 2
    row, place = (w + 1) * 4 * channels, 4 * channels
    # Pixel (2 i + a, 2 j + c) lies in row i + a, column j + c, channels from (2 a + c) C on.
    strides = ((h + 1) * row, row, row + 2 * channels, place, place + channels, 1)
    phases = phases.contiguous(memory_format=torch.channels_last)
    pixels = phases.as_strided((batch, h, 2, w, 2, channels), strides, phases.storage_offset())
    out.permute(0, 2, 3, 1).view(batch, h, 2, w, 2, channels).copy_(pixels)


def blank_outside(phases: Tensor) -> Tensor:
    """Zero, in place, the parts of staggered phases (B, 4 C, h + 1, w + 1) that are a row or column outside the
    picture."""
    batch, channels, height, width = phases.shape
    by_phase = phases.view(batch, 2, 2, channels // 4, height, width)
    by_phase[:, 1, :, :, 0].zero_()
    by_phase[:, 0, :, :, -1].zero_()
    by_phase[:, :, 1, :, :, 0].zero_()
    by_phase[:, :, 0, :, :, -1].zero_()
    return phases


def phases_kernel(weight: Tensor) -> Tensor:
    """Convert weights (O, I, 7, 7) to (4 O, 4 I, 4, 4): with padding 1 from blanked staggered phases to plain phases
    (B, 4 O, h, w)."""
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
    """Convert plain phases (B, 4 C, h, w) to pixels (B, 2 h, 2 w, C)."""
    batch, channels, height, width = phases.shape
    by_phase = phases.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2, channels // 4)
    return by_phase.transpose(2, 3).reshape(batch, 2 * height, 2 * width, channels // 4)


def affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale (C) and shift (C) that are equivalent to the normalisation with its running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # On the CPU: not every device computes in double precision.
    weight, bias, mean, variance = (
        values.detach().cpu().double() for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    scale = weight / torch.sqrt(variance + norm.eps)
    shift = bias - mean * scale
    return scale.float(), shift.float()


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Fold a normalisation into the convolution before it: weight (O, I, k, k) and bias (O)."""
    scale, shift = affine_of(norm)
    weight, bias = weight_and_bias(conv)
    return weight * scale[:, None, None, None], bias * scale + shift


def weight_and_bias(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Return weight (O, I, k, k) and bias (O) of a convolution, as copies on the CPU that do not keep it alive."""
    weight = conv.weight.detach().to("cpu", copy=True)
    bias = torch.zeros(weight.shape[0]) if conv.bias is None else conv.bias.detach().to("cpu", copy=True)
    return weight, bias


def joined(*convs: nn.Conv2d | None) -> tuple[Tensor, Tensor]:
    """Concatenate convolutions that read the same features into one; None is skipped."""
    pairs = [weight_and_bias(conv) for conv in convs if conv is not None]
    return torch.cat([weight for weight, _ in pairs]), torch.cat([bias for _, bias in pairs])


Pointwise = Callable[[Tensor], Tensor]
RESULTS = 4
"""Side of a tile of results."""
VALUES = 6
"""Side of the values that a tile depends on."""
_POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))


@cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices of values (6, 6), kernel (6, 3) and results (4, 6) in one dimension, float64 (Toom-Cook)."""
    points = torch.tensor(_POINTS, dtype=torch.float64)
    infinity = torch.zeros(1, VALUES, dtype=torch.float64)
    infinity[0, -1] = 1
    powers = points[:, None] ** torch.arange(VALUES)
    # At infinity only the highest coefficient counts.
    results = torch.cat((powers[:, :RESULTS], infinity[:, -RESULTS:])).t()
    values, kernel = [], []
    for index, point in enumerate(_POINTS):
        others = [other for other in _POINTS if other != point]
        values.append(F.pad(_with_roots(others), (0, 1)))
        kernel.append(powers[index, :3] / torch.prod(point - torch.tensor(others, dtype=torch.float64)))
    values.append(_with_roots(list(_POINTS)))
    kernel.append(infinity[0, -3:])
    return torch.stack(values), torch.stack(kernel), results.contiguous()


def _with_roots(roots: list[float]) -> Tensor:
    """Return the coefficients of the polynomial with these roots, the constant first."""
    coefficients = torch.ones(1, dtype=torch.float64)
    for root in roots:
        coefficients = F.pad(coefficients, (1, 0)) - root * F.pad(coefficients, (0, 1))
    return coefficients


def transformed(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Convert a 3x3 convolution (O, I, 3, 3) with bias (O) to a 1x1 one of 36 groups: (36 O, I, 1, 1) and (36 O)."""
    _, kernel, results = transforms()
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1).double()
    points = torch.kron(kernel, kernel) @ taps
    # Values whose results are 1 everywhere: multiplied by the bias, they add it without a separate pass.
    ones = torch.linalg.pinv(results) @ torch.ones(RESULTS, dtype=torch.float64)
    biases = torch.einsum("i,j,c->ijc", ones, ones, bias.double())
    return points.reshape(-1, weight.shape[1], 1, 1).float(), biases.flatten().float()


class Workspace:
    """Float32 buffers that the convolutions of one network share, for one size of picture at a time.

    New buffers would be requested from the system at every call, and page faults would cost a third of the time.
    """

    def __init__(self) -> None:
        self._key: tuple[int, ...] = ()

    def fit(self, batch: int, inputs: int, outputs: int, height: int, width: int) -> None:
        """Allocate the buffers for pictures (batch, inputs, height, width), unless they exist."""
        key = (batch, inputs, outputs, height, width)
        if key == self._key:
            return
        rows, columns = -(-height // RESULTS), -(-width // RESULTS)
        count, points = batch * rows * columns, VALUES * VALUES
        self._key = key
        # Its border stays zero, and so does the part of the last tiles outside the picture.
        self.padded = torch.zeros(batch, rows * RESULTS + 2, columns * RESULTS + 2, inputs)
        self.windows = torch.empty(batch, rows, columns, VALUES, VALUES, inputs)
        self.points = torch.empty(count, points, inputs)
        self.products = torch.empty(count, points, outputs)
        self.results = torch.empty(count, RESULTS * RESULTS, outputs)


class WinogradConvolution:
    """A 3x3 `Convolution` with padding 1 on the CPU, by Winograd's method with transforms in float32.

    pointwise: the 1x1 convolution from `transformed`.  dtype: type of its inputs and of the results.
    """

    def __init__(
        self, pointwise: Pointwise, outputs: int, dtype: torch.dtype, relu: bool, workspace: Workspace
    ) -> None:
        values, _, results = transforms()
        self._values = torch.kron(values, values).float()
        self._results = torch.kron(results, results).float()
        self._pointwise = pointwise
        self._outputs = outputs
        self._dtype = dtype
        self._relu = relu
        self._workspace = workspace

    def __call__(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        tiles = self._tiles(x)
        rows, columns, channels = tiles.shape[1], tiles.shape[3], tiles.shape[5]
        out = torch.empty(batch, rows * RESULTS, columns * RESULTS, channels, dtype=self._dtype)
        out.view(tiles.shape).copy_(tiles)
        if self._relu:
            out.relu_()
        return out[:, :height, :width].permute(0, 3, 1, 2)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % RESULTS or width % RESULTS:
            return total.add_(self(x))
        tiles = self._tiles(x)
        total.permute(0, 2, 3, 1).view(tiles.shape).add_(tiles)
        return total

    def _tiles(self, x: Tensor) -> Tensor:
        """Return the results (B, rows, 4, columns, 4, O), strided, for x (B, I, H, W); outside the picture they are
        undefined."""
        batch, inputs, height, width = x.shape
        work, outputs = self._workspace, self._outputs
        work.fit(batch, inputs, outputs, height, width)
        work.padded[:, 1 : height + 1, 1 : width + 1].copy_(x.permute(0, 2, 3, 1))
        windows = work.padded.unfold(1, VALUES, RESULTS).unfold(2, VALUES, RESULTS)
        work.windows.copy_(windows.permute(0, 1, 2, 4, 5, 3))
        count, points, _ = work.points.shape
        torch.bmm(self._values.expand(count, -1, -1), work.windows.view(work.points.shape), out=work.points)
        pixels = work.points.to(self._dtype).view(1, count, 1, points * inputs)
        products = self._pointwise(pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        products = products.reshape(count, points, outputs)
        if self._dtype != torch.float32:
            products = work.products.copy_(products)
        torch.bmm(self._results.expand(count, -1, -1), products, out=work.results)
        rows, columns = work.windows.shape[1:3]
        return work.results.view(batch, rows, columns, RESULTS, RESULTS, outputs).permute(0, 1, 3, 2, 4, 5)


class Convolution(Protocol):
    """A convolution of stride 1, with its ReLU if it has one. Inputs and outputs (B, C, H, W) are channels last."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the result, a new tensor."""
        ...

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Return `total` with the result of the convolution (which has no ReLU) added, in place where that is
        faster."""
        ...


@dataclass(frozen=True, slots=True)
class Numerics:
    """Device of a network, and the data type of its convolutions."""

    device: torch.device
    dtype: torch.dtype
    workspace: Workspace = field(default_factory=Workspace)

    def convolution(
        self, weight: Tensor, bias: Tensor, *, padding: int, relu: bool = False, groups: int = 1
    ) -> Convolution:
        """Return the convolution with weight (O, I / groups, k, k) and bias (O)."""
        return self._direct(weight, bias, padding, relu, groups)

    def wide_convolution(self, weight: Tensor, bias: Tensor, *, relu: bool = False) -> Convolution:
        """Return the 3x3 convolution with padding 1 for large maps; weight (O, I, 3, 3), bias (O)."""
        if self._winograd_pays(min(weight.shape[:2])):
            pointwise = self._direct(*transformed(weight, bias), 0, relu=False, groups=VALUES * VALUES)
            return WinogradConvolution(pointwise, len(bias), self.dtype, relu, self.workspace)
        return self._direct(weight, bias, 1, relu)

    def _winograd_pays(self, channels: int) -> bool:
        """Return whether Winograd's method is faster: its transforms take as long in any type, which is too long if
        products are fast."""
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
    """A convolution whose weights are packed in oneDNN's layout for the input size of the first call.

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
            # Release the plain weights, to keep only one copy in memory.
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight, self._padding, [1, 1], [1, 1], self._groups, list(x.shape)
            )
            self._packed = True


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Return whether this torch has the private oneDNN operators, with the same results as the public ones."""
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
