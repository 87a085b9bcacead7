"""The backend of LivePortrait: portraits and animals, 512 pixels out of 256."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.api import Architecture, Backend, BackendSpec, Groups, ModelSpec, hookimpl
from fommctl_liveportrait.weights import PUBLISHED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel

    from fommctl.api.blocks import MotionParts
    from fommctl.api.schema import Edits


@hookimpl
def fommctl_backends() -> Iterator[BackendSpec]:
    """Yield LivePortrait."""
    yield BackendSpec(
        name="liveportrait",
        summary="LivePortrait (Guo et al., 2024)",
        schema=_schema,
        recognises=_recognises,
        build=_build,
        read_architecture=_read_architecture,
        from_published=_from_published,
        to_published=_to_published,
        motions=("relative", "absolute", "animal"),
        motion=_motion,
        mask=_mask,
        read_motion=_read_motion,
        edits=_edits,
        options=_options,
    )


@hookimpl
def fommctl_models() -> Iterator[ModelSpec]:
    """Yield the published weights."""
    yield from PUBLISHED


def _schema() -> type[BaseModel]:
    from fommctl_liveportrait.schema import LivePortraitParams

    return LivePortraitParams


def _recognises(model_params: Mapping[str, Any]) -> float:
    return float("spade_generator_params" in model_params and "warping_module_params" in model_params)


def _build(params: BaseModel) -> Backend:
    from fommctl_liveportrait.backend import LivePortraitBackend
    from fommctl_liveportrait.schema import LivePortraitParams

    return LivePortraitBackend(LivePortraitParams.model_validate(params))


def _read_architecture(groups: Groups) -> Architecture | None:
    from fommctl_liveportrait.architecture import read_architecture

    return read_architecture(groups)


def _from_published(groups: Groups) -> Groups:
    from fommctl_liveportrait.published import from_published

    return from_published(groups)


def _to_published(groups: Groups) -> Groups:
    from fommctl_liveportrait.published import to_published

    return to_published(groups)


def _options() -> type[BaseModel]:
    from fommctl_liveportrait.options import FaceOptions

    return FaceOptions


def _motion() -> type[MotionParts]:
    from fommctl_liveportrait.motion import FaceMotion

    return FaceMotion


def _mask(side: int) -> NDArray[np.float32]:
    from fommctl_liveportrait.mask import mask

    return mask(side)


def _read_motion(path: Path) -> tuple[float, Mapping[str, NDArray[np.float32]]] | None:
    from fommctl_liveportrait.templates import read_template

    return read_template(path)


def _edits() -> type[Edits]:
    from fommctl_liveportrait.edits import FaceEdits

    return FaceEdits
