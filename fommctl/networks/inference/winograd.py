"""3x3 convolutions with a quarter of the multiplications (Lavin and Gray 2016, F(4x4, 3x3)).

The picture is cut into tiles of 4x4 results, each of which depends on 6x6 values. Both are seen as polynomials, and
a product of polynomials is a product of their values at enough points: 36 multiplications a tile and pair of
channels instead of 144. The points 0, +-sqrt(1/2), +-sqrt(2) and infinity keep the error in float32 near that of the
direct sum (2e-7 of the result's deviation); with products in bfloat16 it is 7e-3, of the direct sum 2.5e-3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

Pointwise = Callable[[Tensor], Tensor]
RESULTS = 4
"""Side of a tile of results."""
VALUES = 6
"""Side of the values that a tile depends on."""
_POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))


@cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Matrices of values (6, 6), kernel (6, 3) and results (4, 6) in one dimension, float64 (Toom-Cook)."""
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
    """Coefficients of the polynomial with these roots, the constant first."""
    coefficients = torch.ones(1, dtype=torch.float64)
    for root in roots:
        coefficients = F.pad(coefficients, (1, 0)) - root * F.pad(coefficients, (0, 1))
    return coefficients


def transformed(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A 3x3 convolution (O, I, 3, 3) with bias (O) as a 1x1 one of 36 groups: (36 O, I, 1, 1) and (36 O)."""
    _, kernel, results = transforms()
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1).double()
    points = torch.kron(kernel, kernel) @ taps
    # Values whose results are 1 everywhere: times the bias, they add it without a pass of its own.
    ones = torch.linalg.pinv(results) @ torch.ones(RESULTS, dtype=torch.float64)
    biases = torch.einsum("i,j,c->ijc", ones, ones, bias.double())
    return points.reshape(-1, weight.shape[1], 1, 1).float(), biases.flatten().float()


class Workspace:
    """Float32 buffers that the convolutions of one network share, for one size of picture at a time.

    Fresh ones would come from the system and go back to it at every call, and the page faults cost a third of the time.
    """

    def __init__(self) -> None:
        self._key: tuple[int, ...] = ()

    def fit(self, batch: int, inputs: int, outputs: int, height: int, width: int) -> None:
        """Make the buffers for pictures (batch, inputs, height, width), unless they are there."""
        key = (batch, inputs, outputs, height, width)
        if key == self._key:
            return
        rows, columns = -(-height // RESULTS), -(-width // RESULTS)
        count, points = batch * rows * columns, VALUES * VALUES
        self._key = key
        # Its border stays zero, and so does what lies beyond the picture in the last tiles.
        self.padded = torch.zeros(batch, rows * RESULTS + 2, columns * RESULTS + 2, inputs)
        self.windows = torch.empty(batch, rows, columns, VALUES, VALUES, inputs)
        self.points = torch.empty(count, points, inputs)
        self.products = torch.empty(count, points, outputs)
        self.results = torch.empty(count, RESULTS * RESULTS, outputs)


class WinogradConvolution:
    """For the CPU, padding 1, transforms in float32; called like `fommctl.networks.inference.convolutions.Convolution`.

    pointwise: the 1x1 convolution of `transformed`.  dtype: of its inputs and of the results.
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
        """Results (B, rows, 4, columns, 4, O), strided, of x (B, I, H, W); beyond the picture they are meaningless."""
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
