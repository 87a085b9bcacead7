"""ResNet-18 (He et al. 2016) with a head for keypoints or for the background's motion."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fommctl.api.blocks import Motion, single
from fommctl_tpsmm.splines import POINTS

WIDTHS = (64, 64, 128, 256, 512)
"""Channels of ResNet-18 after its first convolution and after each level."""


def reduced(frames: Tensor, scale: float) -> Tensor:
    """Resize frames (B, C, H, W) by a factor `scale`, to the size that the networks were trained at."""
    if scale == 1:
        return frames
    size = [round(side * scale) for side in frames.shape[2:]]
    return F.interpolate(frames, size, mode="bilinear", antialias=True)


class BasicBlock(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """ResNet-18 from frames (B, C, H, W) to (B, outputs), with torchvision's tensor names."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        for level, (inputs, width) in enumerate(pairwise(WIDTHS), 1):
            stride = 1 if level == 1 else 2
            layer = nn.Sequential(BasicBlock(inputs, width, stride), BasicBlock(width, width, 1))
            self.add_module(f"layer{level}", layer)
        self.fc = nn.Linear(WIDTHS[-1], outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        for level in range(1, 5):
            x = getattr(self, f"layer{level}")(x)
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class KeypointDetector(nn.Module):
    """Detects the control points of each spline."""

    def __init__(self, num_tps: int, channels: int) -> None:
        super().__init__()
        self.fg_encoder = ResNet18(channels, num_tps * POINTS * 2)

    def forward(self, frames: Tensor) -> Motion:
        """Detect the keypoints (B, 5 K, 2) in (-1, 1) of frames (B, C, H, W) in [0, 1], which are not normalised with
        ImageNet's statistics."""
        logits = single(self.fg_encoder(frames))
        return Motion((torch.sigmoid(logits) * 2 - 1).view(len(frames), -1, 2))


class BackgroundPredictor(nn.Module):
    """Predicts the affine map from the background of a driving frame to the source's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bg_encoder = ResNet18(2 * channels, 6)
        nn.init.zeros_(self.bg_encoder.fc.weight)
        with torch.no_grad():
            self.bg_encoder.fc.bias.copy_(torch.eye(2, 3).flatten())

    def forward(self, source: Tensor, driving: Tensor) -> Tensor:
        """Return the affine maps (B, 3, 3), with last row 0, 0, 1, for frames (B, C, H, W) in [0, 1] each."""
        upper = single(self.bg_encoder(torch.cat((source, driving), 1))).view(-1, 2, 3)
        lower = upper.new_tensor((0.0, 0.0, 1.0)).expand(len(upper), 1, 3)
        return torch.cat((upper, lower), 1)
