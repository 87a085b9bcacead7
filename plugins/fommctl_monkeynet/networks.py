"""The networks of Monkey-Net (Siarohin et al., CVPR 2019): keypoints, dense motion, generator, discriminator."""

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
"""A heatmap whose keypoint is far outside the frame has no sum to divide by."""


def heatmaps(motion: Motion, height: int, width: int, variance: float | None) -> Tensor:
    """Return Gaussians (B, K, H, W) in (0, 1] around keypoints: exp(-d' covariance^-1 d / 2), d the way to the
    keypoint.

    variance: one for all keypoints; None for the covariances of `motion`.
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
    """The part of an embedding that depends on the source."""

    frames: Tensor
    """(B, C, h, w): the source at the resolution of the embedding."""
    motion: Motion
    heatmaps: Tensor | None
    """(B, K, h, w), divided; None where the embedding does not use them."""


class KeypointEmbedding:
    """Keypoints of source and driving frame as channels: for each part its heatmap, way and shifted source.

    background: a part that stands still comes first.
    """

    def __init__(self, params: KeypointEmbeddingParams, common: CommonParams, *, background: bool) -> None:
        self._params = params
        self._align_corners = common.align_corners
        self._variance = common.kp_variance if isinstance(common.kp_variance, (int, float)) else None
        self.parts = common.num_kp + background
        self._background = background
        shifted = common.num_channels * params.use_deformed_source_image
        self.channels = self.parts * (params.use_heatmap + 2 * params.use_difference + shifted)

    def of_source(self, frames: Tensor, motion: Motion) -> EmbeddedSource:
        """Prepare source frames.

        frames: (B, C, h, w) at the resolution of the embedding; motion: theirs.
        """
        used = self._params.use_heatmap and self._params.heatmap_type == "difference"
        return EmbeddedSource(frames, motion, self._heatmaps(motion, frames) if used else None)

    def __call__(self, source: EmbeddedSource, driving: Motion) -> Tensor:
        """Return channels (B, C, h, w); source may hold one frame for all driving ones."""
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
            ways = source.motion.keypoints - driving.keypoints
            if self._background:
                ways = torch.cat((torch.zeros_like(ways[:, :1]), ways), 1)
            channels.append(ways[..., None, None].expand(-1, -1, -1, height, width))
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
"""Added to heatmaps before their covariances are taken, as published."""


def covariances(heatmaps: Tensor, keypoints: Tensor) -> Tensor:
    """Return (B, K, 2, 2) of heatmaps (B, K, H, W), each of which sums to 1, around their means (B, K, 2)."""
    grid = identity_grid(heatmaps.shape[2], heatmaps.shape[3], like=heatmaps)
    offsets = (grid - keypoints[:, :, None, None]).flatten(2, 3)
    weighted = (heatmaps.flatten(2) + FLOOR)[..., None] * offsets
    return weighted.transpose(2, 3) @ offsets


def at_least(matrices: Tensor, extent: float) -> Tensor:
    """Return covariances (B, K, 2, 2), scaled up where their smaller eigenvalue (which is a variance) is below
    `extent`."""
    a, b, d = matrices[..., 0, 0], matrices[..., 0, 1], matrices[..., 1, 1]
    # The square of the difference of the eigenvalues; above zero, so that its root has a gradient for a round heatmap.
    spread = ((a - d).square() + 4 * b.square()).clamp_min(1e-20).sqrt()
    smaller = ((a + d - spread) / 2).clamp_min(1e-12)
    return matrices * (smaller.clamp_min(extent) / smaller)[..., None, None]


def motion_from_maps(
    logits: Tensor, temperature: float, kp_variance: str | float, clip_variance: float | None
) -> Motion:
    """Return keypoints by soft-argmax, and the covariances of their heatmaps; logits: (B, K, h, w) float32.

    See `MonkeyKeypointDetector` for the others.
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
    """Frames (B, C, H, W) in [0, 1] to K keypoints with covariances.

    kp_variance: `matrix`: a covariance matrix each; `single`: one variance each; a number: none are estimated.
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
    """Read flow and mask off the maps of the hourglass.

    maps: (B, K + 1 if mask + 2 if correction, h, w) float32, of the hourglass.

    Returns where in the source each place of the driving frame comes from (B, h, w, 2), and which part each place
    belongs to (B, K + 1, h, w), background first; None without masks.
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
    """Weighs the keypoints' shifts into one flow and adds a correction to it."""

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
        """Return the flow (B, h, w, 2) and the mask, see `flow_from_maps`, for source frames (B, C, H, W) in [0, 1]."""
        with full_precision(source):
            embedded = self.embedding(self.of_source(source, source_motion), driving_motion)
        # The leaky ReLU behind each published group block changes nothing: a ReLU comes before it.
        for block in self.group_blocks:
            embedded = block(embedded)
        maps = single(self.hourglass(embedded))
        with full_precision(source):
            return flow_from_maps(
                maps, source_motion, driving_motion, mask=self.use_mask, correction=self.use_correction
            )

    def of_source(self, source: Tensor, motion: Motion) -> EmbeddedSource:
        """Return what depends on the source alone."""
        return self.embedding.of_source(single(self.down(source)), motion)


@dataclass(frozen=True, slots=True)
class Generated:
    """A prediction and what led to it."""

    prediction: Tensor
    """(B, C, H, W) in [0, 1]."""
    deformed: Tensor
    """(B, C, H, W): the source itself, warped by the flow."""
    mask: Tensor | None
    """(B, K + 1, h, w): which part each place belongs to, background first; sums to 1."""
    flow: Tensor | None
    """(B, h, w, 2), corner pixels at -1 and 1; None where nothing is moved."""


class MotionTransferGenerator(nn.Module):
    """Warps the source's features along the dense motion and paints the frame from them and the keypoints."""

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
        """Render source frames (B, C, H, W) in [0, 1], as many as driving frames."""
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
        painted = self.refinement_module(self.video_decoder(warped))
        moved = None if self.dense_motion_module is None else flow
        return Generated(torch.sigmoid(single(painted)), self.warp(source, flow), mask, moved)

    def warp(self, values: Tensor, flow: Tensor) -> Tensor:
        """Return values (B, C, H, W) along a flow (B, h, w, 2) of any resolution."""
        grid = resize_grid(flow, values.shape[2], values.shape[3], self.mode)
        return sample(values, grid, align_corners=self.align_corners)

    def flow_of(self, generated: Generated) -> Tensor | None:
        """Return what moved the source itself: the flow (B, h, w, 2) of `fommctl.api.FlowRenderer`."""
        if generated.flow is None:
            return None
        height, width = generated.prediction.shape[2:]
        return between_borders(generated.flow, (height, width), align_corners=self.align_corners)

    def _resized(self, maps: Tensor, like: Tensor) -> Tensor:
        return resize_map(maps, like.shape[2], like.shape[3], self.mode)


class KeypointDiscriminator(Discriminator):
    """Frames and their keypoints to maps."""

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
        """Judge frames (B, C, H, W) in [0, 1] under the motion `driving`.

        Returns the frames themselves, the features behind each block and the map of realness (B, 1, h, w).
        """
        seen = self.down(frames)
        if self.embedding is not None:
            with full_precision(frames):
                shown = self.embedding(self.embedding.of_source(seen, source), driving)
            seen = torch.cat((seen, shown), 1)
        features, realness = self(seen)
        return [frames, *features, realness]
