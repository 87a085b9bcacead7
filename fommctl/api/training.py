"""Parts of a backend's training step. torch is imported on first access to a name that needs it.

A step runs the phases of a backend in turn. Each phase computes losses from the batch and from what the previous phase
generated; their sum is differentiated and the optimisers of that phase step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from fommctl.api.protocols import Backend
from fommctl.presets.sections import BaseTrainParams, DatasetParams, GuidanceParams

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from fommctl.networks.losses import (
        ImagePyramid,
        ThinPlateTransform,
        discriminator_loss,
        feature_matching_loss,
        focus_loss,
        generator_adversarial_loss,
        guidance_loss,
        likeness_loss,
        perceptual_loss,
        pixel_loss,
        revealed_loss,
        span_loss,
    )
    from fommctl.networks.perceptual import PerceptualNetwork

__all__ = [
    "BaseTrainParams",
    "DatasetParams",
    "GuidanceParams",
    "ImagePyramid",
    "PerceptualNetwork",
    "PhaseResult",
    "ThinPlateTransform",
    "TrainableBackend",
    "TrainingBatch",
    "TrainingPhase",
    "TrainingView",
    "discriminator_loss",
    "feature_matching_loss",
    "focus_loss",
    "generator_adversarial_loss",
    "guidance_loss",
    "likeness_loss",
    "perceptual_loss",
    "pixel_loss",
    "revealed_loss",
    "span_loss",
    "trains",
]


def __getattr__(name: str) -> Any:
    # Presets need this module's sections, and commands such as `crop` read presets without needing torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "perceptual" if name == "PerceptualNetwork" else "losses"
    return getattr(import_module(f"fommctl.networks.{module}"), name)


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Pairs of frames, each from one clip, on the device of the networks."""

    source: Tensor
    """(B, 3, H, W) float32 in [0, 1]."""
    driving: Tensor
    """(B, 3, H, W) float32 in [0, 1]."""
    transform: ThinPlateTransform
    """A random transform for each pair, for equivariance losses."""
    source_landmarks: Tensor | None = None
    """(B, N, 2) in [-1, 1], x before y; NaN if none were found. None without `train_params.guidance`."""
    driving_landmarks: Tensor | None = None
    """Landmarks of the driving frames, in the same form."""
    step: int = 0
    """Index of the step, from 0, counted across resumptions."""
    epoch: int = 0
    """Index of the step's epoch, from 0."""


@dataclass(frozen=True, slots=True)
class TrainingView:
    """B pairs and the networks' outputs, for visualisation. Values are in [0, 1] unless noted."""

    source: Tensor
    """(B, 3, H, W)"""
    driving: Tensor
    """(B, 3, H, W)"""
    prediction: Tensor
    """(B, 3, H, W)"""
    source_keypoints: Tensor | None = None
    """(B, K, 2) in [-1, 1]."""
    driving_keypoints: Tensor | None = None
    """(B, K, 2) in [-1, 1]."""
    deformed: Tensor | None = None
    """(B, 3, h, w): the source, warped."""
    mask: Tensor | None = None
    """(B, K + 1, h, w): weights of the parts at each pixel."""
    occlusion: Tensor | None = None
    """(B, 1, h, w)"""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """More pictures (B, 1 or 3, h, w) of a backend, by their titles."""


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """The result of one phase."""

    losses: Mapping[str, Tensor]
    """Weighted scalar losses by name, each a mean over the batch. Their sum is differentiated."""
    generated: Any = None
    """Prediction passed to the next phase."""
    view: TrainingView | None = None
    """Pictures for visualisation; those of the first phase that returns any are used."""


@dataclass(frozen=True, slots=True)
class TrainingPhase:
    """Networks that are trained together."""

    name: str
    module: nn.Module
    """Module with `forward(batch, generated) -> PhaseResult`, where `generated` is the previous phase's, None in the
    first. It registers the networks that its optimisers train and frozen ones, but no others, so that gradients can be
    exchanged between processes."""
    optimisers: Mapping[str, Optimizer]
    """Optimisers by name, those of the published checkpoint (`optimizer_generator`) or any others, with the preset's
    learning rates, to which the schedule is applied. A parameter group may have a `limit`: before each step its
    gradients are scaled down to this norm, of order `limit_norm` (default 2; `inf` for the largest element)."""


class TrainableBackend(Backend, Protocol):
    """A backend with a training step."""

    def training(self, params: Any, perceptual: PerceptualNetwork | None) -> Sequence[TrainingPhase]:
        """Return the phases of a step over the networks of `modules()`, on the device where they are now.

        params: the preset's `train_params`, in this backend's schema if it has one (see `BackendSpec.sections`), else
        BaseTrainParams.  perceptual: the frozen network that `params.features` names, on the same device, or None.
        Raises UsageError if `params` cannot be trained with these networks.
        """
        ...


def trains(backend: Backend) -> TypeGuard[TrainableBackend]:
    """Return whether this backend has a training step."""
    return callable(getattr(backend, "training", None))
