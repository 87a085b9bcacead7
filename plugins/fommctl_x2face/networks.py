"""The two networks of X2Face (Wiles, Koepke, Zisserman, ECCV 2018, section 3) under the published names.

Both are U-Nets of pix2pix whose transposed convolutions are replaced by bilinear doubling and a convolution.
Convolutions have no biases. Flows are offsets from the identity grid, x before y.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fommctl.api import UsageError
from fommctl.api.blocks import between_borders, identity_grid, sample


def warped(pictures: Tensor, flow: Tensor) -> Tensor:
    """Return pictures (B, 3, H, W) read at the identity grid plus flow (B, 2, h, w): (B, 3, H, W), black outside.

    A flow of another size than the pictures is resized, corner pixels onto corner pixels.
    """
    height, width = pictures.shape[2:]
    grid = identity_grid(height, width, like=flow) + resized(flow, (height, width)).permute(0, 2, 3, 1)
    return sample(pictures, grid, align_corners=True)


def through(flow: Tensor, unwarping: Tensor) -> Tensor:
    """Follow frames through the embedded face back to a picture: the flow (B, h, w, 2) of `fommctl.api.FlowRenderer`.

    flow: (B, 2, h, w), places in the face.  unwarping: (1, 2, h, w), places in the picture.
    """
    height, width = flow.shape[2:]
    identity = identity_grid(height, width, like=flow)
    in_picture = identity.permute(2, 0, 1) + unwarping.float()
    grid = (identity + flow.permute(0, 2, 3, 1)).clamp(-1, 1)
    found = sample(in_picture.expand(len(flow), -1, -1, -1), grid, align_corners=True)
    return between_borders(found.permute(0, 2, 3, 1), (height, width), align_corners=True)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (B, C, h, w) at another (height, width), corner pixels onto corner pixels."""
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def reduced(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Return frames (B, 3, H, W) at the (height, width) that the networks were trained at."""
    if tuple(frames.shape[2:]) == size:
        return frames
    return F.interpolate(frames, size, mode="bilinear", antialias=True)


def embedded_face(network: EmbeddingNetwork, views: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the face (1, 3, H, W) that views (S, 3, H, W) of one subject show together, weighted by how sure each
    place is.

    size: (height, width) that the network sees.
    """
    flow, weights = network(reduced(views, size))
    weights = resized(weights, (views.shape[2], views.shape[3]))
    return (warped(views, flow) * weights).sum(0, keepdim=True) / weights.sum(0, keepdim=True)


SLOPE = 0.2
WIDEST = 8
"""Ratio of the channels of the widest level to the first."""
START = 0.01
"""The size of fresh weights of a network's last convolution beside the others: its flow then begins close
to zero. The published training begins with flows as long as the frame, and needs days to find the identity."""


class Level(nn.Module):
    """A halving of the resolution, the levels below it, and the doubling back to it."""

    def __init__(self, outside: int, inside: int, below: Level | None, *, skips: bool) -> None:
        """outside, inside: channels before the halving and after it.  skips: whether the level hands on its input."""
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
        # What a level hands on is its input after the activation: the published activation works in place.
        activated = self.down[0](x)
        inner = self.down[1:](activated)
        out: Tensor = self.up(inner if self.submodule is None else self.submodule(inner))
        return torch.cat((out, activated), 1) if self._skips else out

    def encode(self, x: Tensor) -> Tensor:
        """Return the innermost features (B, C, h, w), after their ReLU."""
        inner: Tensor = self.down(x)
        return F.relu(inner) if self.submodule is None else self.submodule.encode(inner)

    def decode(self, code: Tensor) -> Tensor:
        """Return the other half of `forward` where the levels have no skips."""
        out: Tensor = self.up(code if self.submodule is None else self.submodule.decode(code))
        return out


class OutermostLevel(nn.Module):
    """The level of the frames themselves: no normalisation, nothing handed on."""

    def __init__(self, channels: int, inside: int, below: Level, outputs: int, *, skips: bool) -> None:
        super().__init__()
        self.down = nn.Sequential(_halving(channels, inside))
        self.up = nn.Sequential(nn.ReLU(), _doubling(), _convolution(inside * 2 if skips else inside, outputs))
        self.submodule = below

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(self.submodule(self.down(x)))
        return out


class Hourglass(nn.Module):
    """A U-Net over frames (B, 3, H, W); H and W divisible by 2^num_downs."""

    def __init__(self, outputs: int, *, ngf: int, num_downs: int, inner_channels: int, skips: bool) -> None:
        """ngf: channels after the first halving; they double up to eightfold.  inner_channels: of the innermost."""
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
        """Initialise weights by Xavier's rule, as published, but for the last convolution. BatchNorms begin with a
        weight of one; the published call, which draws them from 1 down to 0.02, is refused by a current torch."""
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
                f"frames of {width}x{height} pixels cannot be halved as often as this model does",
                f"The sides of dataset_params.frame_shape have to be multiples of {self.step}, or lower num_downs.",
            )


class EmbeddingNetwork(Hourglass):
    """A network that finds each place of the embedded face in a picture, with its certainty."""

    def __init__(self, *, ngf: int, num_downs: int, inner_channels: int) -> None:
        super().__init__(3, ngf=ngf, num_downs=num_downs, inner_channels=inner_channels, skips=True)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return, for frames (B, 3, H, W), flow (B, 2, H, W) in (-1, 1) and weights (B, 1, H, W) above 0.1, float32."""
        self.check(frames)
        maps: Tensor = self.model(frames).float()
        return torch.tanh(maps[:, :2]), maps[:, 2:].exp() + 0.1


class DrivingNetwork(Hourglass):
    """Encodes the motion of a frame as a short code, and decodes a code to a flow."""

    def __init__(self, *, ngf: int, num_downs: int, inner_channels: int) -> None:
        super().__init__(2, ngf=ngf, num_downs=num_downs, inner_channels=inner_channels, skips=False)

    def encode(self, frames: Tensor) -> Tensor:
        """Return, for frames (B, 3, H, W), codes (B, C, H / 2^num_downs, W / 2^num_downs), at least 0, float32."""
        self.check(frames)
        outermost = self.model
        return outermost.submodule.encode(outermost.down(frames)).float()

    def decode(self, codes: Tensor) -> Tensor:
        """Return flow (B, 2, H, W) in (-tanh 1, tanh 1), float32: the published network ends in a tanh, and what calls
        it takes the tanh of that again."""
        return torch.tanh(self.offsets(codes))

    def offsets(self, codes: Tensor) -> Tensor:
        """Return what the published network itself returns: (B, 2, H, W) in (-1, 1), float32."""
        outermost = self.model
        maps: Tensor = outermost.up(outermost.submodule.decode(codes))
        return torch.tanh(maps.float())

    def forward(self, frames: Tensor) -> Tensor:
        """Return `decode` of `encode`."""
        return self.decode(self.encode(frames))


def _halving(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _doubling() -> nn.Upsample:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
