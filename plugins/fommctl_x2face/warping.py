"""Pictures moved by flows, and several of them made into one embedded face."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fommctl.api.blocks import between_borders, identity_grid, sample
from fommctl_x2face.networks import EmbeddingNetwork


def warped(pictures: Tensor, flow: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) read at the identity grid plus flow (B, 2, h, w): (B, 3, H, W), black outside.

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
    """Maps (B, C, h, w) at another (height, width), corner pixels onto corner pixels."""
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def reduced(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames (B, 3, H, W) at the (height, width) that the networks were trained at."""
    if tuple(frames.shape[2:]) == size:
        return frames
    return F.interpolate(frames, size, mode="bilinear", antialias=True)


def embedded_face(network: EmbeddingNetwork, views: Tensor, size: tuple[int, int]) -> Tensor:
    """The face (1, 3, H, W) that views (S, 3, H, W) of one subject show together, weighted by how sure each place is.

    size: (height, width) that the network sees.
    """
    flow, weights = network(reduced(views, size))
    weights = resized(weights, (views.shape[2], views.shape[3]))
    return (warped(views, flow) * weights).sum(0, keepdim=True) / weights.sum(0, keepdim=True)
