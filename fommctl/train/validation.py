"""How well clips that are kept apart can be reconstructed from their first frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fommctl.api.protocols import Backend
from fommctl.datasets.clips import Clip

FRAMES = 8
"""Of each clip, spread evenly."""
CLIPS = 32
"""At most, the first by name: validation is not to hold up training."""


def reconstruction_error(
    backend: Backend, clips: Sequence[Clip], frame_shape: tuple[int, int, int], device: torch.device
) -> float:
    """Mean absolute difference in [0, 1] between frames and what the model makes of the clip's first frame with their
    motion, a mean over the clips. Leaves the networks in eval mode."""
    from fommctl.media.random_access import read_frames

    renderer = backend.prepare(device, "fp32", fast=False)
    errors = []
    for clip in clips[:CLIPS]:
        indices = np.linspace(0, clip.frames - 1, min(FRAMES, clip.frames)).round().astype(int).tolist()
        frames = _tensor(read_frames(clip.path, indices, size=(frame_shape[1], frame_shape[0])), device)
        context = renderer.encode_source(frames[:1])
        error = [
            (renderer.render(context, renderer.detect(frame[None])) - frame[None]).abs().mean() for frame in frames
        ]
        errors.append(float(torch.stack(error).mean()))
    return float(np.mean(errors))


def _tensor(frames: Sequence[np.ndarray], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(frames)).to(device).permute(0, 3, 1, 2).float() / 255
