"""X2Face's training step as released: the photometric loss, on pairs of frames of one clip."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from fommctl.api.training import BaseTrainParams, PhaseResult, TrainingBatch, TrainingPhase, TrainingView
from fommctl_x2face.networks import DrivingNetwork, EmbeddingNetwork, warped


class X2FaceTrainParams(BaseTrainParams):
    """X2Face's training parameters. Training on pairs corresponds to the published script with num_views 2."""

    unused: ClassVar[tuple[str, ...]] = ("lr_discriminator", "lr_kp_detector", "transform_params")
    lr_generator: Annotated[float, Field(ge=0)] = 1e-3
    """Learning rate of both networks, published as --lr."""
    optimiser: Literal["sgd", "adam"] = "sgd"
    """Ours: the published choice is sgd, which converges slowly; use adam for short runs."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd; beta1 of adam."""


SECTIONS = {"train_params": X2FaceTrainParams}
"""Schemas of the preset sections that differ from the shared ones."""


class PhotometricPhase(nn.Module):
    """Computes the mean absolute difference between driving frame and prediction."""

    def __init__(self, embedding: EmbeddingNetwork, driving: DrivingNetwork) -> None:
        super().__init__()
        self.embedding = embedding
        self.driving = driving

    def forward(self, batch: TrainingBatch, _: Any = None) -> PhaseResult:
        # For a single view, the weights of the mean over views cancel out.
        flow, _weights = self.embedding(batch.source)
        face = warped(batch.source, flow)
        prediction = warped(face, self.driving(batch.driving))
        loss = (prediction - batch.driving).abs().mean()
        view = TrainingView(
            batch.source, batch.driving, prediction.detach().clamp(0, 1), extra={"embedded face": face.detach()}
        )
        return PhaseResult({"photometric": loss}, None, view)


def phases(embedding: EmbeddingNetwork, driving: DrivingNetwork, params: X2FaceTrainParams) -> list[TrainingPhase]:
    """See `fommctl.api.training.TrainableBackend`."""
    module = PhotometricPhase(embedding, driving)
    return [TrainingPhase("photometric", module, {"optimizer_generator": _optimiser(module, params)})]


def _optimiser(module: nn.Module, params: X2FaceTrainParams) -> torch.optim.Optimizer:
    weights, rate = module.parameters(), params.lr_generator
    if params.optimiser == "adam":
        return torch.optim.Adam(weights, lr=rate, betas=(params.momentum, 0.999))
    return torch.optim.SGD(weights, lr=rate, momentum=params.momentum)
