"""The Monkey-Net backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fommctl.api import Architecture, Backend, BackendSpec, Groups, hookimpl

if TYPE_CHECKING:
    from pydantic import BaseModel


@hookimpl
def fommctl_backends() -> Iterator[BackendSpec]:
    """Yield Monkey-Net."""
    yield BackendSpec(
        name="monkeynet",
        summary="Monkey-Net (Siarohin et al., CVPR 2019)",
        schema=_schema,
        recognises=_recognises,
        build=_build,
        read_architecture=_read_architecture,
        sections=_sections,
        from_published=_from_published,
        to_published=_to_published,
    )


def _schema() -> type[BaseModel]:
    from fommctl_monkeynet.schema import MonkeyNetParams

    return MonkeyNetParams


def _sections() -> Mapping[str, type[BaseModel]]:
    from fommctl_monkeynet.schema import SECTIONS

    return SECTIONS


def _recognises(model_params: Mapping[str, Any]) -> float:
    common, generator = model_params.get("common_params"), model_params.get("generator_params")
    if isinstance(common, Mapping) and "kp_variance" in common:
        return 1.0
    return float(isinstance(generator, Mapping) and "num_refinement_blocks" in generator)


def _build(params: BaseModel) -> Backend:
    from fommctl_monkeynet.backend import MonkeyNetBackend
    from fommctl_monkeynet.schema import MonkeyNetParams

    return MonkeyNetBackend(MonkeyNetParams.model_validate(params))


def _read_architecture(groups: Groups) -> Architecture | None:
    from fommctl_monkeynet.architecture import read_architecture

    return read_architecture(groups)


def _from_published(groups: Groups) -> Groups:
    from fommctl_monkeynet.architecture import from_published

    return from_published(groups)


def _to_published(groups: Groups) -> Groups:
    from fommctl_monkeynet.architecture import to_published

    return to_published(groups)
