"""The hooks of fommctl. Each returns frozen specs (or is told of an event); none changes shared state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from fommctl.api.specs import (
    BackendSpec,
    CommandSpec,
    DatasetSpec,
    DetectorSpec,
    EmbedderSpec,
    MetricSpec,
    ModelSpec,
    PresetSpec,
    StageEvent,
)

if TYPE_CHECKING:
    from fommctl.api.protocols import FrameFilter, SquareFilter

PROJECT = "fommctl"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """All hook specifications; examples of each are in plugins/README.md."""

    @hookspec
    def fommctl_backends(self) -> Iterable[BackendSpec]:
        """Model families."""
        return ()

    @hookspec
    def fommctl_datasets(self) -> Iterable[DatasetSpec]:
        """Data set adapters."""
        return ()

    @hookspec
    def fommctl_detectors(self) -> Iterable[DetectorSpec]:
        """Subject detectors."""
        return ()

    @hookspec
    def fommctl_embedders(self) -> Iterable[EmbedderSpec]:
        """Embeddings of subjects."""
        return ()

    @hookspec
    def fommctl_metrics(self) -> Iterable[MetricSpec]:
        """Scores for `evaluate`."""
        return ()

    @hookspec
    def fommctl_presets(self) -> Iterable[PresetSpec]:
        """Named configurations."""
        return ()

    @hookspec
    def fommctl_models(self) -> Iterable[ModelSpec]:
        """Weights, shipped or downloadable."""
        return ()

    @hookspec
    def fommctl_commands(self) -> Iterable[CommandSpec]:
        """Extra subcommands."""
        return ()

    @hookspec
    def fommctl_stage_started(self, event: StageEvent) -> None:
        """A stage begins."""

    @hookspec
    def fommctl_stage_finished(self, event: StageEvent) -> None:
        """A stage ended well; `event.details` holds its result."""

    @hookspec
    def fommctl_square(self, event: StageEvent) -> SquareFilter | None:
        """A filter for the animated squares of this run, before they are pasted back, or None; in the same order."""

    @hookspec
    def fommctl_frame(self, event: StageEvent) -> FrameFilter | None:
        """A filter for the finished frames of this run, or None; filters run in the order of plugin registration."""
