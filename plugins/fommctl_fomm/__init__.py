"""The First Order Motion Model backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fommctl.api import Architecture, Backend, BackendSpec, ModelSpec, hookimpl
from fommctl_fomm.weights import PUBLISHED

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import Tensor


@hookimpl
def fommctl_backends() -> Iterator[BackendSpec]:
    """Yield FOMM."""
    yield BackendSpec(
        name="fomm",
        summary="First Order Motion Model (Siarohin et al., NeurIPS 2019)",
        schema=_schema,
        recognises=_recognises,
        build=_build,
        read_architecture=_read_architecture,
        sections=_sections,
    )


@hookimpl
def fommctl_models() -> Iterator[ModelSpec]:
    """Yield the published weights."""
    yield from PUBLISHED


def _schema() -> type[BaseModel]:
    from fommctl_fomm.schema import FommParams

    return FommParams


def _sections() -> Mapping[str, type[BaseModel]]:
    from fommctl_fomm.sections import TrainParams

    return {"train_params": TrainParams}


def _recognises(model_params: Mapping[str, Any]) -> float:
    """Rate a configuration. Successors keep many of FOMM's keys and add sections of their own."""
    common, generator = model_params.get("common_params"), model_params.get("generator_params")
    if not isinstance(generator, Mapping) or generator.keys().isdisjoint(
        {"num_bottleneck_blocks", "estimate_occlusion_map"}
    ):
        return 0.0
    sections = {"common_params", "kp_detector_params", "generator_params", "discriminator_params"}
    keypoints = isinstance(common, Mapping) and "num_kp" in common
    return 1.0 if keypoints and model_params.keys() <= sections else 0.25


def _build(params: BaseModel) -> Backend:
    from fommctl_fomm.backend import FommBackend
    from fommctl_fomm.schema import FommParams

    return FommBackend(FommParams.model_validate(params))


def _read_architecture(groups: Mapping[str, Mapping[str, Tensor]]) -> Architecture | None:
    from fommctl_fomm.architecture import read_architecture

    return read_architecture(groups)
