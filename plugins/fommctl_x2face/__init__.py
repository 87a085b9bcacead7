"""The X2Face backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from fommctl.api import Architecture, Backend, BackendSpec, Groups, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel


MOST_VIEWS = 16
"""Pictures of a source; more are of little use, and all are embedded at once."""


@hookimpl
def fommctl_backends() -> Iterator[BackendSpec]:
    """Yield X2Face."""
    yield BackendSpec(
        name="x2face",
        summary="X2Face (Wiles, Koepke, Zisserman, ECCV 2018)",
        schema=_schema,
        recognises=lambda params: float({"embedding_params", "driving_params"} <= params.keys()),
        build=_build,
        read_architecture=_read_architecture,
        sections=_sections,
        from_published=_from_published,
        to_published=_to_published,
        motions=("absolute",),
        source_views=MOST_VIEWS,
    )


def _schema() -> type[BaseModel]:
    from fommctl_x2face.schema import X2FaceParams

    return X2FaceParams


def _sections() -> Mapping[str, type[BaseModel]]:
    from fommctl_x2face.training import X2FaceTrainParams

    return {"train_params": X2FaceTrainParams}


def _build(params: BaseModel) -> Backend:
    from fommctl_x2face.backend import X2FaceBackend
    from fommctl_x2face.schema import X2FaceParams

    return X2FaceBackend(X2FaceParams.model_validate(params))


def _read_architecture(groups: Groups) -> Architecture | None:
    from fommctl_x2face.published import read_architecture

    return read_architecture(groups)


def _from_published(groups: Groups) -> Groups:
    from fommctl_x2face.published import from_published

    return from_published(groups)


def _to_published(groups: Groups) -> Groups:
    from fommctl_x2face.published import to_published

    return to_published(groups)
