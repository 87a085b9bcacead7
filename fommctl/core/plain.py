"""The renderer of models with a keypoint detector and a generator that does nothing but run them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fommctl.core.transfer import Motion


@dataclass(frozen=True, slots=True)
class PlainSource:
    """The source picture and its motion; the plain renderer computes everything else anew for each frame."""

    frame: Tensor
    motion: Motion


class PlainRenderer:
    """The published networks as they are, in fp32, with nothing cached: the reference for speed and exactness."""

    def __init__(self, keypoint_detector: nn.Module, generator: nn.Module, device: torch.device) -> None:
        """keypoint_detector: frames to Motion.  generator: source frames, their motion and the driving motion to what
        has a `prediction` (B, C, H, W) in [0, 1]."""
        self.device = device
        self._keypoint_detector = keypoint_detector.to(device).eval()
        self._generator = generator.to(device).eval()

    @torch.inference_mode()
    def detect(self, frames: Tensor) -> Motion:
        """See `fommctl.api.Renderer`."""
        motion: Motion = self._keypoint_detector(frames)
        return motion

    def encode_source(self, frame: Tensor) -> PlainSource:
        """See `fommctl.api.Renderer`."""
        return PlainSource(frame, self.detect(frame))

    @torch.inference_mode()
    def render(self, context: object, motion: Motion) -> Tensor:
        """See `fommctl.api.Renderer`."""
        assert isinstance(context, PlainSource)
        source = context.frame.expand(len(motion), -1, -1, -1)
        prediction: Tensor = self._generator(source, context.motion, motion).prediction
        return prediction
