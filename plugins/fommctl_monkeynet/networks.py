"""Monkey-Net's networks (Siarohin et al., CVPR 2019): keypoint detector, dense motion, generator, discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fommctl.api.blocks import (
    Decoder,
    Discriminator,
    Encoder,
    Hourglass,
    Motion,
    NearestDownsample,
    ResidualBlock,
    SameBlock,
    between_borders,
    deform_by_parts,
    full_precision,
    gaussians,
    identity_grid,
    inverse,
    resize_grid,
    resize_map,
    sample,
    single,
    soft_argmax,
    sparse_motions,
)

if TYPE_CHECKING:
    from fommctl_monkeynet.schema import (
        CommonParams,
        DenseMotionParams,
        DiscriminatorParams,
        GeneratorParams,
        KeypointEmbeddingParams,
    )


SMALLEST_SUM = 1e-12
"""Least divisor of a heatmap; the sum is zero if the keypoint is far outside the frame."""


def heatmaps(motion: Motion, height: int, width: int, variance: float | None) -> Tensor:
    """Return Gaussians (B, K, H, W) in (0, 1] around keypoints: exp(-d' covariance^-1 d / 2) at offset d.

    variance: variance of all keypoints; None for the covariances of `motion`.
    """
    if variance is not None:
        return gaussians(motion.keypoints, height, width, variance)
    assert motion.covariances is not None
    xx, xy, yx, yy = inverse(motion.covariances).flatten(2)[..., None, None].unbind(2)
    offsets = identity_grid(height, width, like=motion.keypoints) - motion.keypoints[:, :, None, None]
    x, y = offsets.unbind(-1)
    return torch.exp(-0.5 * (xx * x * x + (xy + yx) * x * y + yy * y * y))


@dataclass(frozen=True, slots=True)
class EmbeddedSource:
    """The part of a keypoint embedding that depends only on the source."""

    frames: Tensor
    """(B, C, h, w): the source at the resolution of the embedding."""
    motion: Motion
    heatmaps: Tensor | None
    """(B, K, h, w), normalised; None if the embedding does not use them."""


class KeypointEmbedding:
    """Represents the keypoints of source and driving frame as channels: heatmap, difference, shifted source of each."""

    def __init__(self, params: KeypointEmbeddingParams, common: CommonParams, *, background: bool) -> None:
        """background: whether the channels of a static background precede those of the keypoints."""
        self._params = params
        self._align_corners = common.align_corners
        self._variance = common.kp_variance if isinstance(common.kp_variance, (int, float)) else None
        self.parts = common.num_kp + background
        self._background = background
        shifted = common.num_channels * params.use_deformed_source_image
        self.channels = self.parts * (params.use_heatmap + 2 * params.use_difference + shifted)

    def of_source(self, frames: Tensor, motion: Motion) -> EmbeddedSource:
        """Return the part that depends only on the source.

        frames: (B, C, h, w) at the resolution of the embedding.  motion: that of these frames.
        """
        used = self._params.use_heatmap and self._params.heatmap_type == "difference"
        return EmbeddedSource(frames, motion, self._heatmaps(motion, frames) if used else None)

    def __call__(self, source: EmbeddedSource, driving: Motion) -> Tensor:
        """Return the embedding (B, C, h, w) of B driving frames.  source: one frame, or B."""
        batch, (height, width) = len(driving), source.frames.shape[2:]
        first = 0 if self._background else 1
        channels = []
        if self._params.use_heatmap:
            found = self._heatmaps(driving, source.frames)
            if source.heatmaps is not None:
                found = found - source.heatmaps
            if self._background:
                found = torch.cat((torch.zeros_like(found[:, :1]), found), 1)
            channels.append(found[:, :, None])
        if self._params.use_difference:
            shifts = source.motion.keypoints - driving.keypoints
            if self._background:
                shifts = torch.cat((torch.zeros_like(shifts[:, :1]), shifts), 1)
            channels.append(shifts[..., None, None].expand(-1, -1, -1, height, width))
        if self._params.use_deformed_source_image:
            grids = sparse_motions(Motion(source.motion.keypoints), Motion(driving.keypoints), height, width)
            frames = source.frames.expand(batch, -1, -1, -1)
            channels.append(deform_by_parts(frames, grids[:, first:], align_corners=self._align_corners))
        return torch.cat(channels, 2).flatten(1, 2)

    def _heatmaps(self, motion: Motion, frames: Tensor) -> Tensor:
        found = heatmaps(motion, frames.shape[2], frames.shape[3], self._variance)
        if isinstance(self._params.norm_const, str):
            return found / found.sum((2, 3), keepdim=True).clamp_min(SMALLEST_SUM)
        return found / self._params.norm_const


FLOOR = 1e-7
"""Added to heatmaps before computing their covariances, as published."""


def covariances(heatmaps: Tensor, keypoints: Tensor) -> Tensor:
    """Return the covariances (B, K, 2, 2) of heatmaps (B, K, H, W), each of which sums to 1, around their means
    `keypoints` (B, K, 2)."""
    grid = identity_grid(heatmaps.shape[2], heatmaps.shape[3], like=heatmaps)
    offsets = (grid - keypoints[:, :, None, None]).flatten(2, 3)
    weighted = (heatmaps.flatten(2) + FLOOR)[..., None] * offsets
    return weighted.transpose(2, 3) @ offsets


def at_least(matrices: Tensor, extent: float) -> Tensor:
    """Scale covariances (B, K, 2, 2) up so that their smaller eigenvalue, a variance, is at least `extent`."""
    a, b, d = matrices[..., 0, 0], matrices[..., 0, 1], matrices[..., 1, 1]
    # Difference of the eigenvalues. Its square is kept above zero, so that a round heatmap has a finite gradient.
    spread = ((a - d).square() + 4 * b.square()).clamp_min(1e-20).sqrt()
    smaller = ((a + d - spread) / 2).clamp_min(1e-12)
    return matrices * (smaller.clamp_min(extent) / smaller)[..., None, None]


def motion_from_maps(
    logits: Tensor, temperature: float, kp_variance: str | float, clip_variance: float | None
) -> Motion:
    """Return keypoints by soft-argmax, with the covariances of their heatmaps (section 3.2).

    logits: (B, K, h, w) float32.  temperature: divides the logits.  kp_variance: see `MonkeyKeypointDetector`.
    clip_variance: least variance of a covariance matrix along any axis; None for no limit.
    """
    keypoints, heatmaps = soft_argmax(logits, temperature)
    if not isinstance(kp_variance, str):
        return Motion(keypoints)
    found = covariances(heatmaps, keypoints)
    if kp_variance == "single":
        mean = found.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        found = mean * torch.eye(2, device=found.device)
    elif clip_variance is not None:
        found = at_least(found, clip_variance)
    return Motion(keypoints, covariances=found)


class MonkeyKeypointDetector(nn.Module):
    """Detects K keypoints with covariances in frames (B, C, H, W) in [0, 1] (section 3.2).

    kp_variance: `matrix` for a covariance matrix per keypoint, `single` for a variance per keypoint, or a number for a
    fixed variance.
    """

    def __init__(
        self,
        *,
        num_kp: int,
        num_channels: int,
        kp_variance: str | float,
        temperature: float,
        block_expansion: int,
        max_features: int,
        num_blocks: int,
        scale_factor: float = 1.0,
        clip_variance: float | None = None,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.kp_variance = kp_variance
        self.clip_variance = clip_variance
        self.predictor = Hourglass(block_expansion, num_channels, num_blocks, max_features, outputs=num_kp)
        self.down = NearestDownsample(scale_factor)

    def forward(self, frames: Tensor) -> Motion:
        logits = single(self.predictor(self.down(frames)))
        with full_precision(frames):
            return motion_from_maps(logits, self.temperature, self.kp_variance, self.clip_variance)


def flow_from_maps(
    maps: Tensor, source: Motion, driving: Motion, *, mask: bool, correction: bool
) -> tuple[Tensor, Tensor | None]:
    """Convert the hourglass's output to a flow and a mask (section 3.3).

    maps: float32 (B, N, h, w), with K + 1 channels for the mask, if any, and two for the correction, if any.
    Returns the flow (B, h, w, 2), positions in the source in [-1, 1], and the mask (B, K + 1, h, w) of background and
    keypoints, which sums to 1 over them; None without a mask.
    """
    deformation = identity_grid(maps.shape[2], maps.shape[3], like=maps).expand(len(maps), -1, -1, -1)
    parts = None
    if mask:
        shifts = (source.keypoints - driving.keypoints).expand(len(maps), -1, -1)
        parts = maps[:, : shifts.shape[1] + 1].softmax(1)
        deformation = deformation + torch.einsum("bkhw,bkc->bhwc", parts[:, 1:], shifts)
    if correction:
        deformation = deformation + maps[:, -2:].permute(0, 2, 3, 1)
    return deformation, parts


class DenseMotionModule(nn.Module):
    """Combines the keypoints' shifts to one flow by a mask, and adds a correction to it (section 3.3)."""

    def __init__(self, common: CommonParams, params: DenseMotionParams) -> None:
        super().__init__()
        self.use_mask = params.use_mask
        self.use_correction = params.use_correction
        self.embedding = KeypointEmbedding(params.mask_embedding_params, common, background=True)
        self.down = NearestDownsample(params.scale_factor)
        channels = self.embedding.channels
        self.group_blocks = nn.ModuleList(
            SameBlock(channels, channels, kernel=1, groups=self.embedding.parts) for _ in range(params.num_group_blocks)
        )
        outputs = (common.num_kp + 1) * params.use_mask + 2 * params.use_correction
        self.hourglass = Hourglass(
            params.block_expansion, channels, params.num_blocks, params.max_features, outputs=outputs
        )
        head = self.hourglass.decoder.conv
        assert head is not None
        assert head.bias is not None
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        if params.use_mask:
            nn.init.constant_(head.bias[:1], params.bg_init)

    def forward(self, source: Tensor, source_motion: Motion, driving_motion: Motion) -> tuple[Tensor, Tensor | None]:
        """Return flow and mask (see `flow_from_maps`) for source frames (B, C, H, W) in [0, 1]."""
        with full_precision(source):
            embedded = self.embedding(self.of_source(source, source_motion), driving_motion)
        # The published leaky ReLU after each group block has no effect, because a ReLU precedes it.
        for block in self.group_blocks:
            embedded = block(embedded)
        maps = single(self.hourglass(embedded))
        with full_precision(source):
            return flow_from_maps(
                maps, source_motion, driving_motion, mask=self.use_mask, correction=self.use_correction
            )

    def of_source(self, source: Tensor, motion: Motion) -> EmbeddedSource:
        """Return the part of the embedding that depends only on the source (B, C, H, W)."""
        return self.embedding.of_source(single(self.down(source)), motion)


@dataclass(frozen=True, slots=True)
class Generated:
    """A prediction and its intermediate results."""

    prediction: Tensor
    """(B, C, H, W) in [0, 1]."""
    deformed: Tensor
    """(B, C, H, W): the source, warped by the flow."""
    mask: Tensor | None
    """(B, K + 1, h, w): weights of background and keypoints, which sum to 1; None without a mask."""
    flow: Tensor | None
    """(B, h, w, 2), corner pixels at -1 and 1; None without a motion network."""


class MotionTransferGenerator(nn.Module):
    """Warps the source's features along the dense motion and decodes them, with the keypoints, to a frame (section
    3.4)."""

    def __init__(self, common: CommonParams, params: GeneratorParams) -> None:
        super().__init__()
        self.align_corners = common.align_corners
        self.mode = "nearest" if params.interpolation_mode == "nearest" else "bilinear"
        channels, shape = common.num_channels, (params.num_blocks, params.max_features)
        self.appearance_encoder = Encoder(params.block_expansion, channels, *shape)
        self.dense_motion_module: DenseMotionModule | None = None
        if params.dense_motion_params is not None:
            self.dense_motion_module = DenseMotionModule(common, params.dense_motion_params)
        self.embedding: KeypointEmbedding | None = None
        self.embedding_down = NearestDownsample(1)
        if params.kp_embedding_params is not None:
            shown = params.kp_embedding_params
            self.embedding = KeypointEmbedding(shown, common, background=shown.add_bg_feature_map)
            self.embedding_down = NearestDownsample(shown.scale_factor)
        extra = 0 if self.embedding is None else self.embedding.channels
        self.video_decoder = Decoder(params.block_expansion, channels, *shape, extra=extra)
        width = self.video_decoder.out_filters
        self.refinement_module = nn.Sequential()
        for index in range(params.num_refinement_blocks):
            self.refinement_module.add_module(f"r{index}", ResidualBlock(width))
        self.refinement_module.add_module("conv-last", nn.Conv2d(width, channels, 1))

    def forward(self, source: Tensor, source_motion: Motion, driving_motion: Motion) -> Generated:
        """Render source frames (B, C, H, W) in [0, 1] under B driving motions."""
        features = self.appearance_encoder(source)
        if self.dense_motion_module is None:
            flow = identity_grid(source.shape[2], source.shape[3], like=driving_motion.keypoints)
            flow, mask = flow.expand(len(source), -1, -1, -1), None
        else:
            flow, mask = self.dense_motion_module(source, source_motion, driving_motion)
        warped = [self.warp(values, flow) for values in features]
        if self.embedding is not None:
            with full_precision(source):
                shown = self.embedding(
                    self.embedding.of_source(single(self.embedding_down(source)), source_motion), driving_motion
                )
            warped = [torch.cat((values, self._resized(shown, values)), 1) for values in warped]
        decoded = self.refinement_module(self.video_decoder(warped))
        moved = None if self.dense_motion_module is None else flow
        return Generated(torch.sigmoid(single(decoded)), self.warp(source, flow), mask, moved)

    def warp(self, values: Tensor, flow: Tensor) -> Tensor:
        """Warp values (B, C, H, W) along a flow (B, h, w, 2) of any resolution."""
        grid = resize_grid(flow, values.shape[2], values.shape[3], self.mode)
        return sample(values, grid, align_corners=self.align_corners)

    def flow_of(self, generated: Generated) -> Tensor | None:
        """Return the flow (B, h, w, 2) as defined by `fommctl.api.FlowRenderer`; None without a motion network."""
        if generated.flow is None:
            return None
        height, width = generated.prediction.shape[2:]
        return between_borders(generated.flow, (height, width), align_corners=self.align_corners)

    def _resized(self, maps: Tensor, like: Tensor) -> Tensor:
        return resize_map(maps, like.shape[2], like.shape[3], self.mode)


class KeypointDiscriminator(Discriminator):
    """A discriminator that also sees keypoints."""

    def __init__(self, common: CommonParams, params: DiscriminatorParams) -> None:
        shown = params.kp_embedding_params
        embedding = None if shown is None else KeypointEmbedding(shown, common, background=False)
        super().__init__(
            num_channels=common.num_channels + (embedding.channels if embedding is not None else 0),
            block_expansion=params.block_expansion,
            max_features=params.max_features,
            num_blocks=params.num_blocks,
            pool_last=True,
        )
        self.embedding = embedding
        self.down = NearestDownsample(params.scale_factor)

    def maps(self, frames: Tensor, source: Motion, driving: Motion) -> list[Tensor]:
        """Return the frames themselves, the features after each block, and the prediction map (B, 1, h, w).

        frames: (B, C, H, W) in [0, 1], real or generated.  source, driving: the motions that lead to them.
        """
        inputs = self.down(frames)
        if self.embedding is not None:
            with full_precision(frames):
                shown = self.embedding(self.embedding.of_source(inputs, source), driving)
            inputs = torch.cat((inputs, shown), 1)
        features, prediction = self(inputs)
        return [frames, *features, prediction]
