"""Animation via disentanglement (Zhao and Zhang 2022, section 3.5): keypoints with the source's shape and the driving
frame's pose."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from fommctl.api.blocks import Motion
from fommctl_tpsmm.splines import POINTS


class AvdNetwork(nn.Module):
    """Combines the shape of one set of keypoints with the pose of another."""

    def __init__(self, *, num_tps: int, id_bottle_size: int, pose_bottle_size: int) -> None:
        super().__init__()
        numbers = num_tps * POINTS * 2
        self.id_encoder = _perceptron(numbers, 256, 512, 1024, id_bottle_size)
        self.pose_encoder = _perceptron(numbers, 256, 512, 1024, pose_bottle_size)
        self.decoder = _perceptron(id_bottle_size + pose_bottle_size, 1024, 512, 256, numbers)

    @property
    def trained(self) -> bool:
        """Whether the network was trained, that is, its statistics differ from newly initialised ones."""
        norms = (module for module in self.modules() if isinstance(module, nn.BatchNorm1d))
        return any(norm.running_mean is not None and bool(norm.running_mean.any()) for norm in norms)

    def forward(self, source: Motion, driving: Motion) -> Motion:
        """Return the keypoints of B driving frames with the shape of the source.  source: one frame, or B."""
        shape = self.id_encoder(source.keypoints.flatten(1)).expand(len(driving), -1)
        pose = self.pose_encoder(driving.keypoints.flatten(1))
        return Motion(self.decoder(torch.cat((pose, shape), 1)).view_as(driving.keypoints))


class AvdRenderer:
    """Base of both renderers: the transfer for `--motion avd`."""

    def __init__(self, avd: AvdNetwork | None) -> None:
        self._avd = avd if avd is not None and avd.trained else None
        self.own_modes = () if self._avd is None else ("avd",)

    @torch.inference_mode()
    def transfer(self, driving: Motion, reference: Motion, source: Motion, *, mode: str, options: None) -> Motion:
        """See `fommctl.api.TransferRenderer`."""
        assert self._avd is not None
        motion: Motion = self._avd(source, driving)
        return motion


def _perceptron(*widths: int) -> nn.Sequential:
    """Return linear layers, with BatchNorm and ReLU after each but the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-2])
