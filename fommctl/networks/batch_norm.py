"""BatchNorm over the batches of all processes, on devices for which torch's SyncBatchNorm is not made (CPU)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fommctl.networks.layers import single

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Sum(torch.autograd.Function):
    """Over the processes. What each of them makes of the sum counts for the gradient of its own part."""

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
    """In training, statistics (in float32 at least) of what all processes give it; else as torch's BatchNorm.

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
    """Let every BatchNorm in `network` see the whole batch, in place: parameters, statistics and names stay."""
    for module in network.modules():
        if type(module) in KINDS:
            # The attributes of the three kinds are the same; only the dimensions that they accept differ.
            module.__class__ = SynchronisedBatchNorm
