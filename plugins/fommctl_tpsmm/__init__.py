"""The backend of the Thin-Plate Spline Motion Model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fommctl.api import BackendSpec, hookimpl


@hookimpl
def fommctl_backends() -> Iterator[BackendSpec]:
    """Yield TPSMM."""
    yield BackendSpec(
        name="tpsmm",
        summary="Thin-Plate Spline Motion Model (Zhao and Zhang, CVPR 2022)",
        schema="fommctl_tpsmm.schema:TpsmmParams",
        recognises=_recognises,
        build="fommctl_tpsmm.backend:TpsmmBackend",
        read_architecture="fommctl_tpsmm.architecture:read_architecture",
        sections="fommctl_tpsmm.sections:SECTIONS",
        motions=("relative", "absolute", "avd"),
    )


def _recognises(model_params: Mapping[str, Any]) -> float:
    common = model_params.get("common_params")
    return float(isinstance(common, Mapping) and "num_tps" in common)
