"""The two networks of X2Face (Wiles, Koepke, Zisserman, ECCV 2018, section 3) under the published names.

Both are pix2pix's U-Net, with bilinear upsampling and a convolution in place of each transposed convolution.
Convolutions have no biases. Flows are offsets from the identity grid in [-1, 1], x before y.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fommctl.api import UsageError
from fommctl.api.blocks import between_borders, identity_grid, resize_map, sample


def warped(pictures: Tensor, flow: Tensor) -> Tensor:
    """Sample pictures (B, 3, H, W) at the identity grid plus a flow (B, 2, h, w): (B, 3, H, W), black outside.

    A flow of another size is resized to that of the pictures.
    """
    height, width = pictures.shape[2:]
    offsets = resize_map(flow, height, width, align_corners=True).permute(0, 2, 3, 1)
    return sample(pictures, identity_grid(height, width, like=flow) + offsets, align_corners=True)


def through(flow: Tensor, unwarping: Tensor) -> Tensor:
    """Chain the flows from frames to the embedded face and from there to a picture.

    flow: (B, 2, h, w), to positions in the face.  unwarping: (1, 2, h, w), to positions in the picture.
    Returns the flow (B, h, w, 2) as defined by `fommctl.api.FlowRenderer`.
    """
    height, width = flow.shape[2:]
    identity = identity_grid(height, width, like=flow)
    in_picture = identity.permute(2, 0, 1) + unwarping.float()
    grid = (identity + flow.permute(0, 2, 3, 1)).clamp(-1, 1)
    found = sample(in_picture.expand(len(flow), -1, -1, -1), grid, align_corners=True)
    return between_borders(found.permute(0, 2, 3, 1), (height, width), align_corners=True)


def reduced(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize frames (B, 3, H, W) to the (height, width) that the networks were trained at."""
    if tuple(frames.shape[2:]) == size:
        return frames
    return F.interpolate(frames, size, mode="bilinear", antialias=True)


def embedded_face(network: EmbeddingNetwork, views: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the embedded face (1, 3, H, W) of views (S, 3, H, W) of one subject, their mean weighted by certainty.

    size: (height, width) of the network's input.
    """
    flow, weights = network(reduced(views, size))
    weights = resize_map(weights, views.shape[2], views.shape[3], align_corners=True)
    return (warped(views, flow) * weights).sum(0, keepdim=True) / weights.sum(0, keepdim=True)


SLOPE = 0.2
"""Slope of the leaky ReLUs."""
WIDEST = 8
"""Ratio of the channels of the widest level to those of the first."""
START = 0.01
"""Factor of the initial weights of a network's last convolution, so that flows start close to zero. With the published
initialisation, they start as long as the frame, and training takes days to find the identity."""


class Level(nn.Module):
    """A level of the U-Net: downsampling by 2, the levels below, upsampling by 2."""

    def __init__(self, outside: int, inside: int, below: Level | None, *, skips: bool) -> None:
        """outside, inside: channels before and after downsampling.  skips: whether the output includes the input."""
        super().__init__()
        inputs = inside * 2 if skips and below is not None else inside
        down: list[nn.Module] = [nn.LeakyReLU(SLOPE), _halving(outside, inside)]
        if below is not None:
            down.append(nn.BatchNorm2d(inside))
        self.down = nn.Sequential(*down)
        self.up = nn.Sequential(nn.ReLU(), _doubling(), _convolution(inputs, outside), nn.BatchNorm2d(outside))
        self.submodule = below
        self._skips = skips

    def forward(self, x: Tensor) -> Tensor:
        # The skip connection carries the activated input, because the published activation works in place.
        activated = self.down[0](x)
        inner = self.down[1:](activated)
        out: Tensor = self.up(inner if self.submodule is None else self.submodule(inner))
        return torch.cat((out, activated), 1) if self._skips else out

    def encode(self, x: Tensor) -> Tensor:
        """Return the innermost features (B, C, h, w), after their ReLU."""
        inner: Tensor = self.down(x)
        return F.relu(inner) if self.submodule is None else self.submodule.encode(inner)

    def decode(self, code: Tensor) -> Tensor:
        """Return the output for a code (B, C, h, w), the second half of `forward` in networks without skips."""
        out: Tensor = self.up(code if self.submodule is None else self.submodule.decode(code))
        return out


class OutermostLevel(nn.Module):
    """The outermost level, without normalisation and skip connection."""

    def __init__(self, channels: int, inside: int, below: Level, outputs: int, *, skips: bool) -> None:
        super().__init__()
        self.down = nn.Sequential(_halving(channels, inside))
        self.up = nn.Sequential(nn.ReLU(), _doubling(), _convolution(inside * 2 if skips else inside, outputs))
        self.submodule = below

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(self.submodule(self.down(x)))
        return out


class Hourglass(nn.Module):
    """A U-Net for frames (B, 3, H, W), with H and W divisible by 2^num_downs."""

    def __init__(self, outputs: int, *, ngf: int, num_downs: int, inner_channels: int, skips: bool) -> None:
        """ngf: channels after the first downsampling, which double at each level, up to eightfold.  num_downs: number
        of levels.  inner_channels: channels of the innermost level."""
        super().__init__()
        self.step = 1 << num_downs
        widths = [ngf * min(WIDEST, 1 << level) for level in range(num_downs - 1)]
        below = Level(widths[-1], inner_channels, None, skips=skips)
        for outside, inside in reversed(list(pairwise(widths))):
            below = Level(outside, inside, below, skips=skips)
        self.model = OutermostLevel(3, ngf, below, outputs, skips=skips)
        self._begin()

    @torch.no_grad()
    def _begin(self) -> None:
        """Initialise convolutions by Xavier's rule, as published, except for the last one (see START).

        BatchNorms start with weight 1: the published call, `uniform_` from 1 to 0.02, is an error in current torch.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
        last = self.model.up[-1]
        assert isinstance(last, nn.Conv2d)
        last.weight.mul_(START)

    def check(self, frames: Tensor) -> None:
        """Raise UsageError unless frames (B, 3, H, W) can be halved as often as this network does."""
        height, width = frames.shape[2:]
        if height % self.step or width % self.step:
            raise UsageError(
                f"the sides of frames of {width}x{height} pixels are not multiples of {self.step}",
                f"Set dataset_params.frame_shape to multiples of {self.step}, or use fewer num_downs.",
            )


class EmbeddingNetwork(Hourglass):
    """Estimates where each position of the embedded face lies in a picture, with its certainty."""

    def __init__(self, *, ngf: int, num_downs: int, inner_channels: int) -> None:
        super().__init__(3, ngf=ngf, num_downs=num_downs, inner_channels=inner_channels, skips=True)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the flow (B, 2, H, W) in (-1, 1) and the weights (B, 1, H, W), above 0.1, of frames (B, 3, H, W) in
        [0, 1]; both float32."""
        self.check(frames)
        maps: Tensor = self.model(frames).float()
        return torch.tanh(maps[:, :2]), maps[:, 2:].exp() + 0.1


class DrivingNetwork(Hourglass):
    """Encodes the motion of a frame as a code, and decodes a code to a flow."""

    def __init__(self, *, ngf: int, num_downs: int, inner_channels: int) -> None:
        super().__init__(2, ngf=ngf, num_downs=num_downs, inner_channels=inner_channels, skips=False)

    def encode(self, frames: Tensor) -> Tensor:
        """Return the codes (B, C, H / 2^num_downs, W / 2^num_downs) of frames (B, 3, H, W) in [0, 1]; non-negative,
        float32."""
        self.check(frames)
        outermost = self.model
        return outermost.submodule.encode(outermost.down(frames)).float()

    def decode(self, codes: Tensor) -> Tensor:
        """Return the flow (B, 2, H, W) in (-tanh 1, tanh 1), float32; as published, a second tanh follows that of the
        network."""
        return torch.tanh(self.offsets(codes))

    def offsets(self, codes: Tensor) -> Tensor:
        """Return the output of the published network itself, (B, 2, H, W) in (-1, 1), float32."""
        outermost = self.model
        maps: Tensor = outermost.up(outermost.submodule.decode(codes))
        return torch.tanh(maps.float())

    def forward(self, frames: Tensor) -> Tensor:
        """Return the flow (B, 2, H, W) of frames (B, 3, H, W)."""
        return self.decode(self.encode(frames))


def _halving(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _doubling() -> nn.Upsample:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
