"""The backend of X2Face."""

from __future__ import annotations

from collections.abc import Iterator

from fommctl.api import BackendSpec, hookimpl

MOST_VIEWS = 16
"""Largest number of pictures of a source, which are embedded in one batch; more are of little use."""


@hookimpl
def fommctl_backends() -> Iterator[BackendSpec]:
    """Yield X2Face."""
    yield BackendSpec(
        name="x2face",
        summary="X2Face (Wiles, Koepke, Zisserman, ECCV 2018)",
        schema="fommctl_x2face.schema:X2FaceParams",
        recognises=lambda params: float({"embedding_params", "driving_params"} <= params.keys()),
        build="fommctl_x2face.backend:X2FaceBackend",
        read_architecture="fommctl_x2face.published:read_architecture",
        sections="fommctl_x2face.training:SECTIONS",
        from_published="fommctl_x2face.published:from_published",
        to_published="fommctl_x2face.published:to_published",
        motions=("absolute",),
        source_views=MOST_VIEWS,
    )
