"""The renderer of models with a keypoint detector and a generator that does nothing but run them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fommctl.networks.transfer import Motion


@dataclass(frozen=True, slots=True)
class PlainSource:
    """The source picture and its motion; the plain renderer computes everything else anew for each frame."""

    frame: Tensor
    motion: Motion


class PlainRenderer:
    """The published networks as they are, in fp32, with nothing cached: the reference for speed and exactness."""

    def __init__(self, keypoint_detector: nn.Module, generator: nn.Module, device: torch.device) -> None:
        """keypoint_detector: frames to Motion.  generator: source frames, their motion and the driving motion to what
        has a `prediction` (B, C, H, W) in [0, 1]; its `flow_of`, if it has one, makes of that the flow of
        `fommctl.api.FlowRenderer`, or None."""
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
        return self._generated(context, motion)[0]

    @torch.inference_mode()
    def render_with_flow(self, context: object, motion: Motion) -> tuple[Tensor, Tensor | None]:
        """See `fommctl.api.FlowRenderer`."""
        return self._generated(context, motion)

    def _generated(self, context: object, motion: Motion) -> tuple[Tensor, Tensor | None]:
        assert isinstance(context, PlainSource)
        source = context.frame.expand(len(motion), -1, -1, -1)
        generated = self._generator(source, context.motion, motion)
        flow_of = getattr(self._generator, "flow_of", None)
        return generated.prediction, None if flow_of is None else flow_of(generated)
