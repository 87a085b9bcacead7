"""The fast renderer: the source is encoded once, and nothing is computed twice.

Volumes are stored as slices (B depth, C, h, w), channels last, so that a 3x3x3 convolution is a 3x3 convolution of each
slice concatenated with its neighbours. Keypoints shift a volume as a whole, so the parts are moved along one axis after
the other. SPADE reads a map enlarged by nearest upsampling, so its convolutions run at the small size, one for each
phase.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fommctl.api.blocks import (
    DTYPES,
    GraphedRenderer,
    Numerics,
    folded,
    interleave_into,
    upsampling_kernel,
    weight_and_bias,
)
from fommctl_liveportrait.appearance import AppearanceExtractor
from fommctl_liveportrait.layers import identity_volume, reduced, sample_volume
from fommctl_liveportrait.motion import FaceMotion, face_motion
from fommctl_liveportrait.motion_extractor import MotionExtractor
from fommctl_liveportrait.spade import Spade, SpadeBlock, SpadeGenerator
from fommctl_liveportrait.transfer import Correctors, FaceTransfer
from fommctl_liveportrait.warping import WarpingNetwork, heatmaps


@dataclass(frozen=True, slots=True)
class FastSource:
    """Everything that depends only on the source."""

    motion: FaceMotion
    keypoints: Tensor
    """(1, K, 3) in [-1, 1]"""
    volume: Tensor
    """(1, C, d, h, w): features of the source."""
    small: Tensor
    """(c, d, h, w): the compressed features, which the parts move."""
    still: Tensor
    """(1, c, d, h, w): the compressed features under the static part."""
    heatmaps: Tensor
    """(1, K, d, h, w): Gaussians around the keypoints."""
    grid: Tensor
    """(d, h, w, 3): the identity grid."""


class FastWarping:
    """`WarpingNetwork` for inference, for a source that is encoded once."""

    def __init__(self, network: WarpingNetwork, numerics: Numerics) -> None:
        dense = network.dense_motion_network
        self._dtype, self._depth = numerics.dtype, 0
        parts = dense.mask.out_channels
        channels = dense.compress.out_channels
        # Heatmaps first, without that of the static part, which is zero; then the moved features.
        own = torch.arange(parts * (channels + 1)).view(parts, channels + 1)
        order = torch.cat((own[1:, 0], own[:, 1:].flatten()))
        self._compress = copy.deepcopy(nn.Sequential(dense.compress, dense.norm)).to(numerics.device)
        self._down = []
        for index, block in enumerate(dense.hourglass.encoder.down_blocks):
            weight, bias = _folded3d(block)
            if index == 0:
                weight = weight[:, order]
            self._down.append(_wide(numerics, _slices(weight), bias, relu=True))
        self._up = []
        for block in dense.hourglass.decoder.up_blocks:
            weight, bias = _folded3d(block)
            kernel = upsampling_kernel(_slices(weight))
            self._up.append((len(bias), numerics.convolution(kernel, bias.repeat(4), padding=1, relu=True)))
        decoder = dense.hourglass.decoder
        weight, bias = _folded3d(decoder)
        width = self._up[-1][0]
        beside = torch.cat((torch.arange(width), width + order))
        self._last = _wide(numerics, _slices(weight[:, beside]), bias, relu=True)
        self._mask = _Conv3d(dense.mask.weight, dense.mask.bias, (3, 3, 3), numerics)
        occlusion = dense.occlusion
        volume = occlusion.weight.view(1, dense.mask.in_channels, -1, *occlusion.weight.shape[2:])
        self._occlusion = _Conv3d(volume, occlusion.bias, (0, 3, 3), numerics)
        weight, bias = folded(network.third.conv, network.third.norm)
        self._third = _wide(numerics, weight, bias)
        self._fourth = numerics.convolution(*weight_and_bias(network.fourth), padding=0)

    def compressed(self, volume: Tensor) -> Tensor:
        """See `DenseMotionNetwork`."""
        small: Tensor = self._compress(volume).relu_()
        return small

    def __call__(self, source: FastSource, driving: Tensor) -> Tensor:
        """Return the generator's input (B, C, h, w) for driving keypoints (B, K, 3)."""
        batch, depth = len(driving), source.grid.shape[0]
        shifts = source.keypoints - driving
        moved = torch.cat((source.still.expand(batch, 1, *source.still.shape[1:]), _shifted(source, shifts)), 1)
        difference = heatmaps(driving, source.grid) - source.heatmaps
        channels = torch.cat((difference, moved.flatten(1, 2)), 1).to(self._dtype)
        x = _stacked(channels)
        skips = [x]
        for conv in self._down:
            skips.append(F.avg_pool2d(conv(_beside(skips[-1], depth)), 2))
        out = skips.pop()
        for width, conv in self._up:
            skip = skips.pop()
            larger = torch.empty(
                (len(skip), width + skip.shape[1], *skip.shape[2:]),
                device=x.device, dtype=x.dtype, memory_format=torch.channels_last,
            )  # fmt: skip
            interleave_into(larger[:, :width], conv(_beside(out, depth)))
            larger[:, width:].copy_(skip)
            out = larger
        features = self._last(_beside(out, depth)).unflatten(0, (batch, depth)).transpose(1, 2)
        mask = self._mask(features).float().softmax(1)
        # The mask sums to 1 over the parts, so only the shifts have to be weighted.
        deformation = source.grid + torch.einsum("bkdhw,bkc->bdhwc", mask[:, 1:], shifts)
        occlusion = self._occlusion(features)[:, :, 0].float().sigmoid_()
        warped = sample_volume(source.volume.expand(batch, -1, -1, -1, -1), deformation).flatten(1, 2)
        warped = self._third(warped.to(self._dtype, memory_format=torch.channels_last))
        return self._fourth(F.leaky_relu_(warped, 0.01)) * occlusion.to(self._dtype)


class _Conv3d:
    """A 3D convolution for inference."""

    def __init__(self, weight: Tensor, bias: Tensor | None, padding: tuple[int, int, int], numerics: Numerics) -> None:
        assert bias is not None
        weight = weight.detach().to(numerics.device, numerics.dtype, copy=True)
        self._weight = weight.contiguous(memory_format=torch.channels_last_3d)
        self._bias = bias.detach().to(numerics.device, numerics.dtype, copy=True)
        self._padding = padding

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv3d(x, self._weight, self._bias, padding=self._padding)


def _folded3d(block: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight (O, I, 3, 3, 3) and bias (O,) of a convolution with the normalisation after it folded in."""
    conv, norm = block.conv, block.norm
    assert isinstance(conv, nn.Conv3d)
    assert isinstance(norm, nn.BatchNorm3d)
    fused = fuse_conv_bn_eval(conv, norm)
    assert fused.bias is not None
    return fused.weight.detach().cpu(), fused.bias.detach().cpu()


def _slices(weight: Tensor) -> Tensor:
    """Convert a kernel (O, I, 3, 3, 3) to one (O, 3 I, 3, 3) for slices with their neighbours (see `_beside`)."""
    return weight.permute(0, 2, 1, 3, 4).flatten(1, 2)


def _stacked(volume: Tensor) -> Tensor:
    """Convert a volume (B, C, d, h, w) to slices (B d, C, h, w), channels last."""
    return volume.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _beside(slices: Tensor, depth: int) -> Tensor:
    """Concatenate each of the slices (B d, C, h, w) with its neighbours: (B d, 3 C, h, w); zeros at both ends."""
    count, channels, height, width = slices.shape
    out = slices.new_empty((count, height, width, 3 * channels)).permute(0, 3, 1, 2)
    target = out.unflatten(0, (-1, depth))  # type: ignore[no-untyped-call]
    given = slices.unflatten(0, (-1, depth))  # type: ignore[no-untyped-call]
    target[:, 0, :channels].zero_()
    target[:, 1:, :channels].copy_(given[:, :-1])
    target[:, :, channels : 2 * channels].copy_(given)
    target[:, :-1, 2 * channels :].copy_(given[:, 1:])
    target[:, -1, 2 * channels :].zero_()
    return out


def _shifted(source: FastSource, shifts: Tensor) -> Tensor:
    """Return the compressed features under each shift (B, K, 3): (B, K, c, d, h, w), equal to `sample_volume`."""
    grid = source.grid
    lines = grid[0, 0, :, 0], grid[0, :, 0, 1], grid[:, 0, 0, 2]
    x, y, z = (_interpolation(line, shifts[..., axis]) for axis, line in enumerate(lines))
    moved = torch.einsum("cdhw,bkxw->bkcdhx", source.small, x)
    moved = torch.einsum("bkcdhx,bkyh->bkcdyx", moved, y)
    return torch.einsum("bkcdyx,bkzd->bkczyx", moved, z)


def _interpolation(line: Tensor, shift: Tensor) -> Tensor:
    """Return the matrices (B, K, n, n) that interpolate along an axis, with coordinates (n,), after shifts (B, K)."""
    count = len(line)
    places = ((line + shift[..., None] + 1) * count - 1) / 2
    return (1 - (places[..., None] - torch.arange(count, device=line.device)).abs()).clamp_min(0)


class Level:
    """Creates the convolutions of one resolution; those with equal widths share a work space of up to 600 MB."""

    def __init__(self, numerics: Numerics) -> None:
        self.numerics = numerics
        self._shared: dict[tuple[int, ...], Numerics] = {}

    def wide(self, weight: Tensor, bias: Tensor, *, relu: bool = False) -> Any:
        """Return a 3x3 convolution."""
        fresh = Numerics(self.numerics.device, self.numerics.dtype)
        return self._shared.setdefault(weight.shape[:2], fresh).wide_convolution(weight, bias, relu=relu)


class FastSpade:
    """The scale and shift of `Spade` for inference, from the output of `SharedMaps`."""

    def __init__(self, norm: Spade, level: Level) -> None:
        gamma, beta = weight_and_bias(norm.mlp_gamma), weight_and_bias(norm.mlp_beta)
        weight, bias = torch.cat((gamma[0], beta[0])), torch.cat((gamma[1] + 1, beta[1]))
        self._conv = level.wide(weight, bias)

    def __call__(self, normalised: Tensor, shared: Tensor) -> Tensor:
        """Scale and shift normalised features.

        normalised: (B, C, h, w).  shared: (B, hidden, h, w).
        """
        gamma, beta = self._conv(shared.contiguous(memory_format=torch.channels_last)).chunk(2, 1)
        return torch.addcmul(beta, normalised, gamma)


class FastSpadeBlock:
    """`SpadeBlock` for inference, from the output of `SharedMaps`."""

    def __init__(self, block: SpadeBlock, level: Level) -> None:
        self._first, self._second = FastSpade(block.norm_0, level), FastSpade(block.norm_1, level)
        self._conv_0 = level.wide(*weight_and_bias(block.conv_0))
        self._conv_1 = level.wide(*weight_and_bias(block.conv_1))
        self._shortcut = self._conv_s = None
        if block.conv_s is not None:
            self._shortcut = FastSpade(block.norm_s, level)
            self._conv_s = level.numerics.convolution(*weight_and_bias(block.conv_s), padding=0)

    def __call__(self, x: Tensor, shared: tuple[Tensor, ...], scale: int = 1) -> Tensor:
        """Return the block's output for x (B, C, h, w), enlarged by `scale` first.

        x is changed in place if the block does not change the number of channels.  shared: the maps of each
        normalisation, the shortcut's last.
        """
        # Nearest upsampling does not change the statistics.
        normalised = F.group_norm(x, x.shape[1])
        if scale > 1:
            normalised = F.interpolate(normalised, scale_factor=scale)
        if self._shortcut is not None and self._conv_s is not None:
            x = self._conv_s(self._shortcut(normalised, shared[2]))
        out = self._conv_0(F.leaky_relu_(self._first(normalised, shared[0]), 0.2))
        out = self._second(F.group_norm(out, out.shape[1]), shared[1])
        total: Tensor = self._conv_1.add_to(x, F.leaky_relu_(out, 0.2))
        return total


class SharedMaps:
    """The `mlp_shared` of several `Spade`, for features that are enlarged by 1, 2 or 4."""

    def __init__(self, norms: list[Spade], scale: int, numerics: Numerics) -> None:
        pairs = [weight_and_bias(norm.mlp_shared[0]) for norm in norms]  # type: ignore[arg-type]
        weight, bias = (torch.cat(each) for each in zip(*pairs, strict=True))
        self._scale, self._count, self._channels = scale, len(norms), len(bias)
        if scale == 1:
            self._convs = [_wide(numerics, weight, bias, relu=True)]
            return
        self._convs = [numerics.convolution(upsampling_kernel(weight), bias.repeat(4), padding=1, relu=True)]
        if scale == 4:
            # Of four adjacent positions, the inner two read a single source position; the outer two read two, as with a
            # factor of 2.
            across, down = weight.sum(2), weight.sum(3)
            staggered = _staggered(across)[:, :, None], _staggered(down)[:, :, :, None]
            self._convs += [
                numerics.convolution(_square(staggered[0]), bias.repeat(2), padding=1, relu=True),
                numerics.convolution(_square(staggered[1]), bias.repeat(2), padding=1, relu=True),
                numerics.convolution(weight.sum((2, 3), keepdim=True), bias, padding=0, relu=True),
            ]

    def __call__(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return a map (B, hidden, scale h, scale w) for each normalisation."""
        if self._scale == 1:
            maps: Tensor = self._convs[0](features)
            return maps.chunk(self._count, 1)
        batch, _, height, width = features.shape
        corners = features.new_empty((batch, 2 * height, 2 * width, self._channels)).permute(0, 3, 1, 2)
        interleave_into(corners, self._convs[0](features))
        if self._scale == 2:
            return corners.chunk(self._count, 1)
        out = features.new_empty((batch, 4 * height, 4 * width, self._channels)).permute(0, 3, 1, 2)
        across, down, middle = (conv(features) for conv in self._convs[1:])
        for row in range(4):
            for column in range(4):
                outer_row, outer_column = row in (0, 3), column in (0, 3)
                if outer_row and outer_column:
                    part = corners[:, :, row // 2 :: 2, column // 2 :: 2]
                elif outer_column:
                    part = across.chunk(2, 1)[column // 2]
                elif outer_row:
                    part = down.chunk(2, 1)[row // 2]
                else:
                    part = middle
                out[:, :, row::4, column::4] = part
        return out.chunk(self._count, 1)


def _staggered(taps: Tensor) -> Tensor:
    """Convert a kernel (O, I, 3) that follows nearest upsampling to (2 O, I, 2), for the first and last position."""
    first = torch.stack((taps[..., 0], taps[..., 1] + taps[..., 2]), -1)
    last = torch.stack((taps[..., 0] + taps[..., 1], taps[..., 2]), -1)
    return torch.cat((first, last))


def _square(kernel: Tensor) -> Tensor:
    """Convert a 1x2 or 2x1 kernel of `_staggered` to the 3x3 kernel, padded by 1, that reads the same positions."""
    out = kernel.new_zeros((*kernel.shape[:2], 3, 3))
    half = len(kernel) // 2
    if kernel.shape[2] == 1:
        out[:half, :, 1, :2] = kernel[:half, :, 0]
        out[half:, :, 1, 1:] = kernel[half:, :, 0]
    else:
        out[:half, :, :2, 1] = kernel[:half, :, :, 0]
        out[half:, :, 1:, 1] = kernel[half:, :, :, 0]
    return out


class FastGenerator:
    """`SpadeGenerator` for inference."""

    def __init__(self, network: SpadeGenerator, numerics: Numerics) -> None:
        self._fc = _wide(numerics, *weight_and_bias(network.fc))
        middle, level = network.middle, Level(numerics)
        norms = [norm for block in middle for norm in (block.norm_0, block.norm_1)]
        self._shared = SharedMaps(norms, 1, numerics)
        self._middle = [FastSpadeBlock(block, level) for block in middle]
        self._up = []
        for scale, block in ((2, network.up_0), (4, network.up_1)):
            maps = SharedMaps([block.norm_0, block.norm_1, block.norm_s], scale, numerics)
            self._up.append((maps, FastSpadeBlock(block, Level(numerics))))
        conv, shuffle = network.conv_img
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(shuffle, nn.PixelShuffle)
        self._image, self._factor = numerics.convolution(*weight_and_bias(conv), padding=1), shuffle.upscale_factor

    def __call__(self, features: Tensor) -> Tensor:
        """Return frames (B, 3, H, W) in [0, 1], float32."""
        features = features.contiguous(memory_format=torch.channels_last)
        shared = self._shared(features)
        x = self._fc(features)
        for index, block in enumerate(self._middle):
            x = block(x, shared[2 * index : 2 * index + 2])
        for maps, block in self._up:
            x = block(x, maps(features), 2)
        image = self._image(F.leaky_relu_(x, 0.2))
        return F.pixel_shuffle(image.float().contiguous(), self._factor).sigmoid_()


def _wide(numerics: Numerics, weight: Tensor, bias: Tensor, *, relu: bool = False) -> Any:
    """Return a 3x3 convolution with its own work space; a shared one would be reallocated for each size."""
    return Numerics(numerics.device, numerics.dtype).wide_convolution(weight, bias, relu=relu)


class FastRenderer(FaceTransfer, GraphedRenderer[FastSource]):
    """The networks, rewritten for inference (see `fommctl.api.Renderer`).

    Keypoints, deformations and the softmax of the masks stay in float32 whatever the precision of the convolutions. The
    renderer keeps no reference to the original networks.
    """

    def __init__(
        self,
        appearance: AppearanceExtractor,
        extractor: MotionExtractor,
        warping: WarpingNetwork,
        generator: SpadeGenerator,
        correctors: Correctors,
        device: torch.device,
        precision: str = "fp32",
        step: int = 1,
    ) -> None:
        """step: factor by which frames are reduced for the networks."""
        super().__init__(device)
        numerics = Numerics(device, DTYPES[precision])
        self._correctors, self._step = correctors, step
        with torch.inference_mode():
            self._appearance = copy.deepcopy(appearance).to(device)
            self._extractor = copy.deepcopy(extractor).to(device)
            self._warping = FastWarping(warping, numerics)
            self._generator = FastGenerator(generator, numerics)

    def _detect(self, frames: Tensor) -> FaceMotion:
        return face_motion(self._extractor(reduced(frames, self._step)))

    def _encode(self, frame: Tensor) -> FastSource:
        frame = reduced(frame, self._step)
        motion = face_motion(self._extractor(frame))
        volume = self._appearance(frame)
        small = self._warping.compressed(volume)
        grid = identity_volume(volume, *volume.shape[2:])
        keypoints = motion.keypoints()
        return FastSource(
            motion, keypoints, volume, small[0], sample_volume(small, grid[None]), heatmaps(keypoints, grid), grid
        )

    def _render(self, context: FastSource, motion: FaceMotion) -> Tensor:
        keypoints = motion.keypoints()
        step = 1 if self.device.type == "cpu" else len(keypoints)
        frames = [
            self._generator(self._warping(context, part)) for part in torch.split(keypoints, max(1, step)) if len(part)
        ]
        return torch.cat(frames) if frames else keypoints.new_zeros((0, 3, 1, 1))
