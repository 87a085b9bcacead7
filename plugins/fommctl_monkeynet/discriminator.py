"""The discriminator, which sees the keypoints beside the frame (Monkey-Net, section 3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fommctl.api.blocks import Discriminator, Motion, NearestDownsample, full_precision
from fommctl_monkeynet.embedding import KeypointEmbedding

if TYPE_CHECKING:
    from fommctl_monkeynet.schema import CommonParams, DiscriminatorParams


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
        """frames: (B, C, H, W) in [0, 1], under the motion `driving`.

        Returns the frames themselves, the features behind each block and the map of realness (B, 1, h, w).
        """
        seen = self.down(frames)
        if self.embedding is not None:
            with full_precision(frames):
                shown = self.embedding(self.embedding.of_source(seen, source), driving)
            seen = torch.cat((seen, shown), 1)
        features, realness = self(seen)
        return [frames, *features, realness]
