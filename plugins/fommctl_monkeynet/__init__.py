"""The backend of Monkey-Net."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fommctl.api import BackendSpec, hookimpl


@hookimpl
def fommctl_backends() -> Iterator[BackendSpec]:
    """Yield Monkey-Net."""
    yield BackendSpec(
        name="monkeynet",
        summary="Monkey-Net (Siarohin et al., CVPR 2019)",
        schema="fommctl_monkeynet.schema:MonkeyNetParams",
        recognises=_recognises,
        build="fommctl_monkeynet.backend:MonkeyNetBackend",
        read_architecture="fommctl_monkeynet.architecture:read_architecture",
        sections="fommctl_monkeynet.schema:SECTIONS",
        from_published="fommctl_monkeynet.architecture:from_published",
        to_published="fommctl_monkeynet.architecture:to_published",
    )


def _recognises(model_params: Mapping[str, Any]) -> float:
    common, generator = model_params.get("common_params"), model_params.get("generator_params")
    if isinstance(common, Mapping) and "kp_variance" in common:
        return 1.0
    return float(isinstance(generator, Mapping) and "num_refinement_blocks" in generator)
