"""Dense motion from the keypoints' shifts (Monkey-Net, section 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fommctl.api.blocks import (
    Hourglass,
    Motion,
    NearestDownsample,
    SameBlock,
    full_precision,
    identity_grid,
    single,
)
from fommctl_monkeynet.embedding import EmbeddedSource, KeypointEmbedding

if TYPE_CHECKING:
    from fommctl_monkeynet.schema import CommonParams, DenseMotionParams


def flow_from_maps(
    maps: Tensor, source: Motion, driving: Motion, *, mask: bool, correction: bool
) -> tuple[Tensor, Tensor | None]:
    """maps: (B, K + 1 if mask + 2 if correction, h, w) float32, of the hourglass.

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
        """source: (B, C, H, W) in [0, 1].  Returns the flow (B, h, w, 2) and the mask; see `flow_from_maps`."""
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
        """What depends on the source alone."""
        return self.embedding.of_source(single(self.down(source)), motion)
