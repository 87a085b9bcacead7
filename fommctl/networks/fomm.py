"""The networks of FOMM (Siarohin et al. 2019): keypoints, dense motion, the generator, and the discriminator of the
adversarial variants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fommctl.networks.grids import between_borders, gaussians, identity_grid, resize_grid, resize_map, sample
from fommctl.networks.layers import (
    AntiAliasDownsample,
    DownBlock,
    Hourglass,
    ResidualBlock,
    SameBlock,
    UpBlock,
    full_precision,
    heads,
    single,
    width_at,
)
from fommctl.networks.motion import Motion


def soft_argmax(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the expected position of each keypoint under a softmax over its map.

    logits: (B, K, H, W).  temperature: divides the logits; 0.1 in the published models.
    Returns keypoints (B, K, 2) in [-1, 1] and heatmaps (B, K, H, W), each of which sums to 1.
    """
    heatmaps = (logits.flatten(2) / temperature).softmax(-1).view(logits.shape)
    grid = identity_grid(logits.shape[2], logits.shape[3], like=logits)
    return torch.einsum("bkhw,hwc->bkc", heatmaps, grid), heatmaps


class KeypointDetector(nn.Module):
    """Frames (B, C, H, W) in [0, 1] to K keypoints with 2x2 Jacobians.

    pad: padding of the 7x7 heads; 0 in the published weights, whose maps are 6 pixels smaller than the features
    but still span [-1, 1].  single_jacobian_map: one Jacobian map for all keypoints instead of one each.
    estimate_jacobian: False leaves a zeroth-order model.
    """

    down: AntiAliasDownsample | None

    def __init__(
        self,
        *,
        num_kp: int,
        num_channels: int,
        block_expansion: int,
        max_features: int,
        num_blocks: int,
        temperature: float,
        estimate_jacobian: bool = True,
        single_jacobian_map: bool = False,
        scale_factor: float = 1.0,
        pad: int = 0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.predictor = Hourglass(block_expansion, num_channels, num_blocks, max_features)
        self.kp = nn.Conv2d(self.predictor.out_filters, num_kp, 7, padding=pad)
        self.jacobian: nn.Conv2d | None = None
        if estimate_jacobian:
            maps = 1 if single_jacobian_map else num_kp
            self.jacobian = nn.Conv2d(self.predictor.out_filters, 4 * maps, 7, padding=pad)
            nn.init.zeros_(self.jacobian.weight)
            with torch.no_grad():
                self.jacobian.bias.copy_(torch.eye(2).flatten().repeat(maps))  # type: ignore[union-attr]
        self.down = AntiAliasDownsample(num_channels, scale_factor) if scale_factor != 1 else None

    def forward(self, frames: Tensor) -> Motion:
        features = self.predictor(frames if self.down is None else self.down(frames))
        logits = self.kp(features)
        jacobian_maps = None if self.jacobian is None else single(self.jacobian(features))
        with full_precision(frames):
            return motion_from_maps(single(logits), jacobian_maps, self.temperature)


def motion_from_maps(logits: Tensor, jacobian_maps: Tensor | None, temperature: float) -> Motion:
    """Detect keypoints by soft-argmax, Jacobians as the average of their maps under the keypoints' heatmaps.

    logits: (B, K, H, W).  jacobian_maps: (B, 4 K or 4, H, W), rows of the matrices first; None for zeroth order.
    """
    keypoints, heatmaps = soft_argmax(logits, temperature)
    if jacobian_maps is None:
        return Motion(keypoints)
    batch, count, height, width = logits.shape
    per_keypoint = jacobian_maps.view(batch, -1, 4, height, width).expand(-1, count, -1, -1, -1)
    # Not by einsum: gradients are rounded as in the published training (see sparse_motions).
    jacobians = (heatmaps[:, :, None] * per_keypoint).flatten(3).sum(-1)
    return Motion(keypoints, jacobians.view(batch, count, 2, 2))


@dataclass(frozen=True, slots=True)
class DenseMotion:
    """Motion at each position, at the resolution (h, w) of the motion network."""

    deformation: Tensor
    """(B, h, w, 2): the position in the source from which each position of the driving frame comes."""
    mask: Tensor
    """(B, K + 1, h, w): weights of the parts at each position, background first; they sum to 1."""
    sparse_deformed: Tensor
    """(B, K + 1, C, h, w): the source warped by each part's motion alone."""
    occlusion: Tensor | None
    """(B, 1, h, w) in [0, 1]: 0 where the source does not show what is needed."""


def sparse_motions(source: Motion, driving: Motion, height: int, width: int) -> Tensor:
    """Return the motion of each part near its keypoint, to first order (equation 4), the background standing still.

    source, driving: of B frames each (source may hold one).  Returns sampling grids (B, K + 1, H, W, 2):
    J_source J_driving^-1 (z - p_driving) + p_source.
    """
    grid = identity_grid(height, width, like=driving.keypoints)
    batch, count = driving.keypoints.shape[:2]
    offsets = grid - driving.keypoints[:, :, None, None]
    if driving.jacobians is not None and source.jacobians is not None:
        # By elimination, as published: in closed form, gradients are rounded differently, and Adam turns the changed
        # sign of one near zero into a full step in the other direction.  inv_ex does not synchronise the GPU.
        maps = source.jacobians @ torch.linalg.inv_ex(driving.jacobians).inverse
        offsets = torch.einsum("bkij,bkhwj->bkhwi", maps, offsets)
    moved = offsets + source.keypoints[:, :, None, None]
    background = grid.expand(batch, 1, height, width, 2)
    return torch.cat((background, moved.expand(batch, count, -1, -1, -1)), 1)


def keypoint_heatmaps(source: Motion, driving: Motion, height: int, width: int) -> Tensor:
    """Return the difference of the Gaussians around driving and source keypoints, with an empty one for the background
    first.

    Returns (B, K + 1, H, W) in [-1, 1] (equation 6).
    """
    difference = gaussians(driving.keypoints, height, width) - gaussians(source.keypoints, height, width)
    return torch.cat((torch.zeros_like(difference[:, :1]), difference), 1)


def deform_by_parts(source: Tensor, motions: Tensor, *, align_corners: bool) -> Tensor:
    """Sample the source (B, C, h, w) at each of the grids (B, P, h, w, 2) of P parts: (B, P, C, h, w).

    One call: the grids are laid end to end along the height, so that the source is not repeated.
    """
    batch, parts, height, width, _ = motions.shape
    grids = motions.reshape(batch, parts * height, width, 2)
    flat = sample(source, grids, align_corners=align_corners)
    return flat.view(batch, -1, parts, height, width).transpose(1, 2)


class DenseMotionNetwork(nn.Module):
    """Combines the parts' motions to one flow, and estimates the occlusion."""

    down: AntiAliasDownsample | None

    def __init__(
        self,
        *,
        num_kp: int,
        num_channels: int,
        block_expansion: int,
        max_features: int,
        num_blocks: int,
        scale_factor: float = 1.0,
        estimate_occlusion_map: bool = False,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.hourglass = Hourglass(block_expansion, (num_kp + 1) * (num_channels + 1), num_blocks, max_features)
        self.mask = nn.Conv2d(self.hourglass.out_filters, num_kp + 1, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.out_filters, 1, 7, padding=3) if estimate_occlusion_map else None
        self.down = AntiAliasDownsample(num_channels, scale_factor) if scale_factor != 1 else None

    def forward(self, source: Tensor, source_motion: Motion, driving_motion: Motion) -> DenseMotion:
        """Estimate the dense motion.  source: (B, C, H, W) in [0, 1]."""
        small = source if self.down is None else self.down(source)
        height, width = small.shape[2:]
        with full_precision(source):
            motions = sparse_motions(source_motion, driving_motion, height, width)
            heatmaps = keypoint_heatmaps(source_motion, driving_motion, height, width)
            deformed = deform_by_parts(single(small), motions, align_corners=self.align_corners)
        # The published networks expect each part's heatmap in front of its three colour channels.
        features = self.hourglass(torch.cat((heatmaps[:, :, None], deformed), 2).flatten(1, 2))
        if self.occlusion is None:
            logits, hidden = self.mask(features), None
        else:
            logits, hidden = heads(features, self.mask, self.occlusion)
        mask = single(logits).softmax(1)
        with full_precision(source):
            deformation = torch.einsum("bkhw,bkhwc->bhwc", mask, motions)
        occlusion = None if hidden is None else torch.sigmoid(single(hidden))
        return DenseMotion(deformation, mask, deformed, occlusion)


@dataclass(frozen=True, slots=True)
class Generated:
    """A prediction and its intermediate results."""

    prediction: Tensor
    """(B, C, H, W) in [0, 1]."""
    deformed: Tensor
    """(B, C, H, W): the source itself, warped by the flow."""
    motion: DenseMotion


EMBEDDED_VARIANCE = 0.0025
"""Variance of the Gaussians that a generator embeds: narrower than those of the motion, since eyelids are close to each
other."""
EMBEDDED_HEIGHT = 20.0
"""Their height: how far lids are open is a small difference of two of them, told by weights that learn no faster than
others."""


class Generator(nn.Module):
    """Warps the source's features along the dense motion, attenuates occluded ones, and decodes the frame.

    blend_source: an additional head predicts where to take pixels of the warped source itself. Our addition, after the
    last skip connection of Siarohin et al. 2021 (Motion Representations for Articulated Animation): a small network
    cannot carry fine detail through its bottleneck.
    embed_keypoints: add the driving keypoints' positions to the warped features, after Monkey-Net (Siarohin et al.
    2019, Animating Arbitrary Objects via Deep Motion Transfer): a coarse flow does not show how far lips and eyelids
    are open.
    """

    def __init__(
        self,
        dense_motion_network: DenseMotionNetwork,
        *,
        num_channels: int,
        block_expansion: int,
        max_features: int,
        num_down_blocks: int,
        num_bottleneck_blocks: int,
        align_corners: bool = True,
        blend_source: bool = False,
        embed_keypoints: bool | None = None,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.num_channels = num_channels
        self.dense_motion_network = dense_motion_network
        widths = [width_at(block_expansion, level, max_features) for level in range(num_down_blocks + 1)]
        self.first = SameBlock(num_channels, widths[0], kernel=7)
        self.down_blocks = nn.ModuleList(map(DownBlock, widths[:-1], widths[1:]))
        self.up_blocks = nn.ModuleList(map(UpBlock, widths[:0:-1], widths[-2::-1]))
        self.bottleneck = nn.Sequential()
        for index in range(num_bottleneck_blocks):
            self.bottleneck.add_module(f"r{index}", ResidualBlock(widths[-1]))
        self.final = nn.Conv2d(widths[0], num_channels, 7, padding=3)
        self.blend = nn.Conv2d(widths[0], 1, 7, padding=3) if blend_source else None
        self.embedding: nn.Conv2d | None = None
        if embed_keypoints:
            self.embedding = nn.Conv2d(dense_motion_network.mask.out_channels - 1, widths[-1], 3, padding=1)

    def encode(self, source: Tensor) -> Tensor:
        """Return the features (B, F, H / 2^n, W / 2^n) of source (B, C, H, W); they do not depend on the driving
        frame."""
        features: Tensor = self.first(source)
        for block in self.down_blocks:
            features = block(features)
        return features

    def decode(self, features: Tensor, motion: DenseMotion, driving: Motion, kept: Tensor) -> Tensor:
        """Decode a frame (B, C, H, W) from the source's features under a motion.

        driving: the motion's keypoints.  kept: the warped source, for `blend_source`.
        """
        height, width = features.shape[2:]
        out = self.warp(features, motion.deformation)
        if motion.occlusion is not None:
            out = out * resize_map(motion.occlusion, height, width)
        if self.embedding is not None:
            with full_precision(features):
                heatmaps = gaussians(driving.keypoints, height, width, EMBEDDED_VARIANCE) * EMBEDDED_HEIGHT
            out = out + self.embedding(heatmaps)
        out = self.bottleneck(out)
        for block in self.up_blocks:
            out = block(out)
        if self.blend is None:
            return torch.sigmoid(single(self.final(out)))
        decoded, blend = (torch.sigmoid(single(each)) for each in heads(out, self.final, self.blend))
        return torch.lerp(decoded, kept, blend)

    def warp(self, values: Tensor, deformation: Tensor) -> Tensor:
        """Warp values (B, C, H, W) along a flow of any resolution."""
        return sample(values, resize_grid(deformation, *values.shape[2:]), align_corners=self.align_corners)

    def forward(self, source: Tensor, source_motion: Motion, driving_motion: Motion) -> Generated:
        motion = self.dense_motion_network(source, source_motion, driving_motion)
        deformed = self.warp(source, motion.deformation)
        kept = deformed if self.blend is None else self.warp(source, inside(motion.deformation))
        return Generated(self.decode(self.encode(source), motion, driving_motion, kept), deformed, motion)

    def flow_of(self, generated: Generated) -> Tensor:
        """Return the flow (B, h, w, 2) for `fommctl.api.FlowRenderer`: the flow of the source's pixels if they are
        blended in, else of its features, at their size."""
        smaller = 0 if self.blend is not None else len(self.down_blocks)
        height, width = (side >> smaller for side in generated.prediction.shape[2:])
        return between_borders(generated.motion.deformation, (height, width), align_corners=self.align_corners)


def inside(deformation: Tensor) -> Tensor:
    """Clamp a flow (B, h, w, 2) to the source, so that it never samples the black outside."""
    return deformation.clamp(-1, 1)


class DiscriminatorBlock(nn.Module):
    """4x4 convolution without padding, instance normalisation, leaky ReLU, 2x2 average pooling."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool, pool: bool, spectral: bool) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, 4)
        self.conv = nn.utils.spectral_norm(conv) if spectral else conv
        self.norm = nn.InstanceNorm2d(outputs, affine=True) if norm else None
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        if self.norm is not None:
            out = self.norm(out)
        out = F.leaky_relu(out, 0.2)
        return F.avg_pool2d(out, 2) if self.pool else out


class Discriminator(nn.Module):
    """The patch discriminator of one scale: frames to a map of scores.

    use_kp: the keypoints' Gaussians are additional input channels.  pool_last: the last block pools like the others.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        block_expansion: int,
        max_features: int,
        num_blocks: int,
        sn: bool = False,
        use_kp: bool = False,
        num_kp: int = 0,
        pool_last: bool = False,
    ) -> None:
        super().__init__()
        inputs = num_channels + (num_kp if use_kp else 0)
        widths = [inputs, *(width_at(block_expansion, level, max_features) for level in range(1, num_blocks + 1))]
        self.use_kp = use_kp
        self.down_blocks = nn.ModuleList(
            DiscriminatorBlock(
                widths[index],
                widths[index + 1],
                norm=index > 0,
                pool=pool_last or index < num_blocks - 1,
                spectral=sn,
            )
            for index in range(num_blocks)
        )
        conv = nn.Conv2d(widths[-1], 1, 1)
        self.conv = nn.utils.spectral_norm(conv) if sn else conv

    def forward(self, x: Tensor, keypoints: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """Judge frames.  x: (B, C, H, W) in [0, 1].  keypoints: (B, K, 2), needed with use_kp.

        Returns the features behind each block and the map (B, 1, h, w).
        """
        if self.use_kp:
            if keypoints is None:
                raise ValueError("this discriminator needs keypoints")
            x = torch.cat((x, gaussians(keypoints, *x.shape[2:])), 1)
        features = []
        for block in self.down_blocks:
            x = block(x)
            features.append(x)
        return features, self.conv(x)


class MultiScaleDiscriminator(nn.Module):
    """One discriminator per scale of an image pyramid."""

    def __init__(self, scales: Sequence[float], **params: int | bool) -> None:
        super().__init__()
        self.scales = tuple(scales)
        # Module names cannot hold a dot: the published ones write 0-5 for 0.5.
        self.discs = nn.ModuleDict({_key(scale): Discriminator(**params) for scale in scales})  # type: ignore[arg-type]

    def forward(
        self, pyramid: Mapping[float, Tensor], keypoints: Tensor | None = None
    ) -> dict[float, tuple[list[Tensor], Tensor]]:
        """Judge frames at each scale.  pyramid: {scale: (B, C, H scale, W scale)}.  Returns {scale: (features,
        map)}."""
        return {scale: self.discs[_key(scale)](pyramid[scale], keypoints) for scale in self.scales}


def _key(scale: float) -> str:
    return str(scale).replace(".", "-")
