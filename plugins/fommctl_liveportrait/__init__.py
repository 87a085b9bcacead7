"""The backend of LivePortrait, for portraits and animals: frames of 512 pixels from inputs of 256."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fommctl.api import BackendSpec, ModelSpec, hookimpl
from fommctl_liveportrait.weights import FILES, PUBLISHED


@hookimpl
def fommctl_backends() -> Iterator[BackendSpec]:
    """Yield LivePortrait."""
    yield BackendSpec(
        name="liveportrait",
        summary="LivePortrait (Guo et al., 2024)",
        schema="fommctl_liveportrait.schema:LivePortraitParams",
        recognises=_recognises,
        build="fommctl_liveportrait.backend:LivePortraitBackend",
        read_architecture="fommctl_liveportrait.architecture:read_architecture",
        from_published="fommctl_liveportrait.published:from_published",
        to_published="fommctl_liveportrait.published:to_published",
        published_files=FILES,
        motions=("relative", "absolute", "animal"),
        motion="fommctl_liveportrait.motion:FaceMotion",
        mask="fommctl_liveportrait.mask:mask",
        read_motion="fommctl_liveportrait.templates:read_template",
        edits="fommctl_liveportrait.edits:FaceEdits",
        options="fommctl_liveportrait.options:FaceOptions",
    )


@hookimpl
def fommctl_models() -> Iterator[ModelSpec]:
    """Yield the published weights."""
    yield from PUBLISHED


def _recognises(model_params: Mapping[str, Any]) -> float:
    return float("spade_generator_params" in model_params and "warping_module_params" in model_params)
