"""BatchNorm in evaluation mode is an affine map of each channel: fold it into the convolution before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale (C) and shift (C) that the normalisation with its running statistics amounts to."""
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
    """Weight (O, I, k, k) and bias (O) of the convolution and the normalisation behind it in one."""
    scale, shift = affine_of(norm)
    weight, bias = weight_and_bias(conv)
    return weight * scale[:, None, None, None], bias * scale + shift


def weight_and_bias(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight (O, I, k, k) and bias (O) of a convolution, copied to the CPU: nothing keeps the networks alive."""
    weight = conv.weight.detach().to("cpu", copy=True)
    bias = torch.zeros(weight.shape[0]) if conv.bias is None else conv.bias.detach().to("cpu", copy=True)
    return weight, bias


def joined(*convs: nn.Conv2d | None) -> tuple[Tensor, Tensor]:
    """One convolution with the outputs of several that read the same features; None is left out."""
    pairs = [weight_and_bias(conv) for conv in convs if conv is not None]
    return torch.cat([weight for weight, _ in pairs]), torch.cat([bias for _, bias in pairs])
