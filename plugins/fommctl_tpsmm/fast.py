"""The fast renderer: the source is encoded once, its features are gathered as rows, and convolutions run before the
upsampling, at the small size.

Instance norm depends on the frame and cannot be folded into a convolution; with channels last, group norm with one
channel per group is a faster equivalent.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fommctl.api.blocks import (
    DTYPES,
    LARGEST_TENSOR,
    DownBlock,
    GraphedRenderer,
    Motion,
    Numerics,
    ResidualBlock,
    SameBlock,
    UpBlock,
    between_borders,
    downsample_at,
    exact_convolutions,
    neighbours,
    resize_grid,
    resize_map,
    sample,
    weight_and_bias,
    weighted_rows,
)
from fommctl_tpsmm.avd import AvdNetwork, AvdRenderer
from fommctl_tpsmm.encoders import BackgroundPredictor, BasicBlock, KeypointDetector, ResNet18, reduced
from fommctl_tpsmm.inpainting import InpaintingNetwork
from fommctl_tpsmm.motion import DenseMotionNetwork, motion_inputs

# [phase, tap of the small kernel, tap of the 3x3 kernel]: after nearest upsampling, two of three taps read one value.
_TAPS = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])


@dataclass(frozen=True, slots=True)
class Features:
    """Features of the source at one level."""

    table: Tensor
    """(h w, F): one row per position."""
    height: int
    width: int

    def warped(self, deformation: Tensor, gain: Tensor) -> Tensor:
        """Sample at a deformation (B, h', w', 2), times gain (B, 1, h, w): (B, F, h, w), channels last."""
        grid = resize_grid(deformation, self.height, self.width, align_corners=True)
        indices, weights = neighbours(grid, self.height, self.width, align_corners=True, gain=gain)
        rows = weighted_rows(self.table, indices, weights)
        return rows.view(len(grid), self.height, self.width, -1).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class FastSource:
    """Everything that depends only on the source."""

    motion: Motion
    small: Tensor
    """(1, C, h, w): the source at the motion network's resolution."""
    pixels: Tensor
    """(1, C, H, W): the source itself."""
    features: tuple[Features, ...]
    """Features of the source, fine to coarse."""


class FastNorm:
    """Applies instance norm and ReLU to channels-last features."""

    def __init__(self, norm: nn.InstanceNorm2d, numerics: Numerics) -> None:
        assert norm.weight is not None
        assert norm.bias is not None
        self._weight = norm.weight.detach().to(numerics.device, numerics.dtype, copy=True)
        self._bias = norm.bias.detach().to(numerics.device, numerics.dtype, copy=True)
        self._epsilon = norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        """Return the result for x (B, C, H, W) as a new tensor."""
        return F.group_norm(x, x.shape[1], self._weight, self._bias, self._epsilon).relu_()


class FastSame:
    """`SameBlock` for inference."""

    def __init__(self, block: SameBlock, numerics: Numerics) -> None:
        padding = int(block.conv.padding[0])
        weight, bias = weight_and_bias(block.conv)
        self._conv = numerics.convolution(weight, bias, padding=padding)
        self._norm = FastNorm(block.norm, numerics)

    def __call__(self, x: Tensor) -> Tensor:
        return self._norm(self._conv(x))


class FastUp:
    """`UpBlock` for inference, with the convolution before the upsampling: four phases, 4/9 of the multiplications."""

    def __init__(self, block: UpBlock, numerics: Numerics) -> None:
        weight, bias = weight_and_bias(block.conv)
        phases = torch.einsum("atk,cul,oikl->acoitu", _TAPS, _TAPS, weight).reshape(-1, weight.shape[1], 2, 2)
        self._conv = numerics.convolution(phases, bias.repeat(4), padding=1)
        self._norm = FastNorm(block.norm, numerics)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the output (B, O, 2 h, 2 w) for x (B, I, h, w)."""
        phases = self._conv(x)
        batch, _, height, width = x.shape
        channels = phases.shape[1] // 4
        out = x.new_empty((batch, 2 * height, 2 * width, channels)).permute(0, 3, 1, 2)
        for index, part in enumerate(torch.split(phases, channels, 1)):
            row, column = divmod(index, 2)
            out[:, :, row::2, column::2] = part[:, :, row : row + height, column : column + width]
        return self._norm(out)


class FastResidual:
    """`ResidualBlock` for inference."""

    def __init__(self, block: ResidualBlock, numerics: Numerics) -> None:
        self._norms = [FastNorm(norm, numerics) for norm in (block.norm1, block.norm2)]
        self._inner = numerics.wide_convolution(*weight_and_bias(block.conv1))
        self._outer = numerics.wide_convolution(*weight_and_bias(block.conv2))

    def __call__(self, x: Tensor) -> Tensor:
        """Change x (B, C, h, w) in place."""
        return self._outer.add_to(x, self._norms[1](self._inner(self._norms[0](x))))


class FastDenseMotion:
    """`DenseMotionNetwork` for inference."""

    def __init__(self, network: DenseMotionNetwork, numerics: Numerics, channels: int, scale: float) -> None:
        self._down = copy.deepcopy(downsample_at(network.down, channels, scale))
        if self._down is not None:
            self._down.to(numerics.device)
        self._dtype = numerics.dtype
        self._encoder = [_same(block, numerics) for block in network.hourglass.encoder.down_blocks]
        self._decoder = [_up(block, numerics) for block in network.hourglass.decoder.up_blocks]
        self._finer = [_up(block, numerics) for block in network.up]
        self._from_decoder = network.from_decoder
        self._parts = network.maps.out_channels
        heads = [weight_and_bias(conv) for conv in network.occlusion]  # type: ignore[arg-type]
        # One convolution for the maps and the occlusion that are computed from the same features.
        shared = network.from_decoder - 1
        weight, bias = weight_and_bias(network.maps)
        heads[shared] = torch.cat((weight, heads[shared][0])), torch.cat((bias, heads[shared][1]))
        self._heads = [numerics.convolution(*head, padding=3) for head in heads]

    def reduced(self, frame: Tensor) -> Tensor:
        """Return the source (1, C, H, W) at the motion network's resolution."""
        return frame if self._down is None else self._down(frame)

    def __call__(
        self, small: Tensor, source: Motion, driving: Motion, background: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the deformation (B, h, w, 2) and the occlusion maps, coarse to fine (see `TpsMotion`)."""
        heatmaps, deformed, warps = motion_inputs(small.expand(len(driving), -1, -1, -1), source, driving, background)
        x = torch.cat((heatmaps, deformed.flatten(1, 2)), 1).to(self._dtype, memory_format=torch.channels_last)
        skips = [x]
        for same in self._encoder:
            skips.append(F.avg_pool2d(same(skips[-1]), 2))
        levels = [skips.pop()]
        for up in self._decoder:
            levels.append(torch.cat((up(levels[-1]), skips.pop()), 1))
        seen = levels[-self._from_decoder :]
        for up in self._finer:
            seen.append(up(seen[-1]))
        maps = [head(features).float() for head, features in zip(self._heads, seen, strict=True)]
        shared = maps[self._from_decoder - 1]
        maps[self._from_decoder - 1] = shared[:, self._parts :]
        contributions = shared[:, : self._parts].softmax(1)
        deformation = torch.einsum("bphw,bphwc->bhwc", contributions, warps)
        return deformation, [each.sigmoid() for each in maps]


class FastInpainting:
    """`InpaintingNetwork` for inference, for a source that is encoded once."""

    def __init__(self, network: InpaintingNetwork, numerics: Numerics) -> None:
        exact = Numerics(numerics.device, torch.float32)
        self._dtype = numerics.dtype
        self._multi_mask = network.multi_mask
        self._first = FastSame(network.first, exact)
        self._down = [_same(block, exact) for block in network.down_blocks]
        self._residual = [FastResidual(block, numerics) for block in network.resblock]  # type: ignore[arg-type]
        self._up = [_up(block, numerics) for block in network.up_blocks]
        self._final = numerics.convolution(*weight_and_bias(network.final), padding=3)

    def encode(self, frame: Tensor) -> tuple[Features, ...]:
        """Return the features of a source (1, C, H, W) in [0, 1], fine to coarse."""
        values = [self._first(frame.contiguous(memory_format=torch.channels_last))]
        for same in self._down:
            values.append(F.avg_pool2d(same(values[-1]), 2))
        return tuple(
            Features(value.permute(0, 2, 3, 1).flatten(0, 2).to(self._dtype), *value.shape[2:]) for value in values
        )

    def __call__(self, source: FastSource, deformation: Tensor, occlusions: list[Tensor]) -> Tensor:
        """Return frames (B, C, H, W) in [0, 1]."""
        coarsest = len(source.features) - 1
        out = self._shown(source, coarsest, deformation, occlusions)
        for index, up in enumerate(self._up):
            for block in self._residual[2 * index : 2 * index + 2]:
                out = block(out)
            out = up(out)
            if index < coarsest - 1:
                out = torch.cat((out, self._shown(source, coarsest - 1 - index, deformation, occlusions)), 1)
        finest = source.features[0]
        hidden = resize_map(occlusions[-1], finest.height, finest.width, align_corners=True)
        out = torch.addcmul(finest.warped(deformation, hidden), out, (1 - hidden).to(self._dtype))
        decoded = self._final(out).float().sigmoid_()
        grid = resize_grid(deformation, finest.height, finest.width, align_corners=True)
        deformed = sample(source.pixels.expand(len(grid), -1, -1, -1), grid, align_corners=True)
        return torch.lerp(decoded, deformed, hidden).contiguous()

    def _shown(self, source: FastSource, level: int, deformation: Tensor, occlusions: list[Tensor]) -> Tensor:
        features = source.features[level]
        hidden = occlusions[-1 - level if self._multi_mask else -1]
        gain = resize_map(hidden, features.height, features.width, align_corners=True)
        return features.warped(deformation, gain)


class FastRenderer(GraphedRenderer[FastSource], AvdRenderer):
    """The networks, rewritten for inference (see `fommctl.api.Renderer`).

    Keypoints, splines, occlusions and the softmax of the maps stay in float32 whatever the precision of the
    convolutions. The renderer keeps no reference to the original networks.
    """

    def __init__(
        self,
        detector: KeypointDetector,
        dense_motion: DenseMotionNetwork,
        inpainting: InpaintingNetwork,
        device: torch.device,
        precision: str = "fp32",
        scale: float = 1.0,
        *,
        avd: AvdNetwork | None = None,
        background: BackgroundPredictor | None = None,
    ) -> None:
        GraphedRenderer.__init__(self, device)
        AvdRenderer.__init__(self, copy.deepcopy(avd).to(device) if avd is not None else None)
        self._background = None if background is None else copy.deepcopy(background).to(device)
        numerics = Numerics(device, DTYPES[precision])
        self._scale = scale
        with torch.inference_mode():
            self._detector = folded(detector).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._motion = FastDenseMotion(dense_motion, numerics, inpainting.num_channels, scale)
            self._inpainting = FastInpainting(inpainting, numerics)
        self._bytes_per_pixel = inpainting.final.in_channels * numerics.dtype.itemsize

    def _detect(self, frames: Tensor) -> Motion:
        motion: Motion = self._detector(reduced(frames, self._scale).contiguous(memory_format=torch.channels_last))
        return motion

    def _encode(self, frame: Tensor) -> FastSource:
        return FastSource(
            self._detect(frame), self._motion.reduced(frame), frame.contiguous(), self._inpainting.encode(frame)
        )

    def _render(self, context: FastSource, motion: Motion) -> Tensor:
        return self._rendered(context, motion)[0]

    def _render_with_flow(self, context: FastSource, motion: Motion) -> tuple[Tensor, Tensor | None]:
        frames, deformation = self._rendered(context, motion)
        return frames, flow_of(deformation, (context.pixels.shape[2], context.pixels.shape[3]))

    @torch.inference_mode()
    def reconstruct(self, context: FastSource, motion: Motion, driving: Tensor) -> Tensor:
        """See `fommctl.api.ReconstructionRenderer`; the background moves too."""
        if self._background is None:
            return self.render(context, motion)
        source = context.pixels.expand(len(driving), -1, -1, -1)
        background = self._background(reduced(source, self._scale), reduced(driving, self._scale))
        with exact_convolutions():
            return self._rendered(context, motion, background)[0]

    def _rendered(self, context: FastSource, motion: Motion, background: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return frames and their deformation.  background: (B, 3, 3), from `BackgroundPredictor`."""
        count = len(motion)
        if self.device.type == "cpu":
            count = max(1, LARGEST_TENSOR // (self._bytes_per_pixel * context.pixels[0, 0].numel()))
        parts = []
        for start in range(0, max(len(motion), 1), max(count, 1)):
            part = slice(start, start + count)
            moved = None if background is None else background[part]
            deformation, occlusions = self._motion(context.small, context.motion, motion[part], moved)
            parts.append((self._inpainting(context, deformation, occlusions), deformation))
        frames, deformations = zip(*parts, strict=True)
        return torch.cat(frames), torch.cat(deformations)


def flow_of(deformation: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the flow as defined by `fommctl.api.FlowRenderer`, for a deformation (B, h, w, 2), at the frames' size
    (height, width)."""
    return between_borders(resize_grid(deformation, *size, align_corners=True), size, align_corners=True)


def folded(detector: KeypointDetector) -> KeypointDetector:
    """Return a copy with BatchNorms folded into the convolutions before them."""
    found = copy.deepcopy(detector).eval()
    for module in list(found.modules()):
        if isinstance(module, (BasicBlock, ResNet18)):
            for number in (1, 2) if isinstance(module, BasicBlock) else (1,):
                conv, norm = (getattr(module, f"{name}{number}") for name in ("conv", "bn"))
                setattr(module, f"conv{number}", fuse_conv_bn_eval(conv, norm))
                setattr(module, f"bn{number}", nn.Identity())
        if isinstance(module, BasicBlock) and module.downsample is not None:
            conv, norm = module.downsample
            module.downsample = nn.Sequential(fuse_conv_bn_eval(conv, norm))  # type: ignore[arg-type, type-var]
    return found


def _same(block: nn.Module, numerics: Numerics) -> FastSame:
    assert isinstance(block, DownBlock)
    return FastSame(block, numerics)


def _up(block: nn.Module, numerics: Numerics) -> FastUp:
    assert isinstance(block, UpBlock)
    return FastUp(block, numerics)
