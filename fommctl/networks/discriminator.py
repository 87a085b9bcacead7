"""The multi-scale discriminator of the adversarial variants (Siarohin et al. 2019, supplementary material)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fommctl.networks.grids import gaussians
from fommctl.networks.layers import width_at


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
    """Patches of one scale to a map of realness.

    use_kp: the keypoints' Gaussians are further input channels.  pool_last: the last block pools as the others do.
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
    """One discriminator a scale of an image pyramid."""

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
