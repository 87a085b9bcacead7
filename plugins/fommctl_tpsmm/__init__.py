"""The backend of the Thin-Plate Spline Motion Model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fommctl.api import Architecture, Backend, BackendSpec, Groups, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel


@hookimpl
def fommctl_backends() -> Iterator[BackendSpec]:
    """Yield TPSMM."""
    yield BackendSpec(
        name="tpsmm",
        summary="Thin-Plate Spline Motion Model (Zhao and Zhang, CVPR 2022)",
        schema=_schema,
        recognises=_recognises,
        build=_build,
        read_architecture=_read_architecture,
        sections=_sections,
        motions=("relative", "absolute", "avd"),
    )


def _schema() -> type[BaseModel]:
    from fommctl_tpsmm.schema import TpsmmParams

    return TpsmmParams


def _sections() -> Mapping[str, type[BaseModel]]:
    from fommctl_tpsmm.sections import SECTIONS

    return SECTIONS


def _recognises(model_params: Mapping[str, Any]) -> float:
    common = model_params.get("common_params")
    return float(isinstance(common, Mapping) and "num_tps" in common)


def _build(params: BaseModel) -> Backend:
    from fommctl_tpsmm.backend import TpsmmBackend
    from fommctl_tpsmm.schema import TpsmmParams

    return TpsmmBackend(TpsmmParams.model_validate(params))


def _read_architecture(groups: Groups) -> Architecture | None:
    from fommctl_tpsmm.architecture import read_architecture

    return read_architecture(groups)
