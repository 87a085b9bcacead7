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
    """FOMM."""
    yield BackendSpec(
        name="fomm",
        summary="First Order Motion Model (Siarohin et al., NeurIPS 2019)",
        schema=_schema,
        recognises=_recognises,
        build=_build,
        groups=("generator", "kp_detector"),
        optional_groups=("discriminator",),
        read_architecture=_read_architecture,
        sections=_sections,
    )


@hookimpl
def fommctl_models() -> Iterator[ModelSpec]:
    """The published weights."""
    yield from PUBLISHED


def _schema() -> type[BaseModel]:
    from fommctl_fomm.schema import FommParams

    return FommParams


def _sections() -> Mapping[str, type[BaseModel]]:
    from fommctl_fomm.sections import TrainParams

    return {"train_params": TrainParams}


def _recognises(model_params: Mapping[str, Any]) -> bool:
    generator = model_params.get("generator_params")
    return isinstance(generator, Mapping) and not generator.keys().isdisjoint(
        {"num_bottleneck_blocks", "estimate_occlusion_map"}
    )


def _build(params: BaseModel) -> Backend:
    from fommctl_fomm.backend import FommBackend
    from fommctl_fomm.schema import FommParams

    return FommBackend(FommParams.model_validate(params))


def _read_architecture(groups: Mapping[str, Mapping[str, Tensor]]) -> Architecture | None:
    from fommctl_fomm.architecture import read_architecture

    return read_architecture(groups)
