"""The backend of the First Order Motion Model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fommctl.api import BackendSpec, ModelSpec, hookimpl
from fommctl_fomm.weights import PUBLISHED


@hookimpl
def fommctl_backends() -> Iterator[BackendSpec]:
    """Yield FOMM."""
    yield BackendSpec(
        name="fomm",
        summary="First Order Motion Model (Siarohin et al., NeurIPS 2019)",
        schema="fommctl_fomm.schema:FommParams",
        recognises=_recognises,
        build="fommctl_fomm.backend:FommBackend",
        read_architecture="fommctl_fomm.architecture:read_architecture",
        sections="fommctl_fomm.sections:SECTIONS",
    )


@hookimpl
def fommctl_models() -> Iterator[ModelSpec]:
    """Yield the published weights."""
    yield from PUBLISHED


def _recognises(model_params: Mapping[str, Any]) -> float:
    """Return how well `model_params` fit FOMM, in [0, 1]: 0.25 with sections that FOMM lacks, as in its successors."""
    common, generator = model_params.get("common_params"), model_params.get("generator_params")
    if not isinstance(generator, Mapping) or generator.keys().isdisjoint(
        {"num_bottleneck_blocks", "estimate_occlusion_map"}
    ):
        return 0.0
    sections = {"common_params", "kp_detector_params", "generator_params", "discriminator_params"}
    keypoints = isinstance(common, Mapping) and "num_kp" in common
    return 1.0 if keypoints and model_params.keys() <= sections else 0.25
