"""A loaded model on a device: what every job that uses it shares."""

from __future__ import annotations

from typing import cast

from fommctl.api.protocols import Renderer
from fommctl.api.specs import BackendSpec
from fommctl.core.fast.devices import resolve_device, resolve_precision
from fommctl.errors import UsageError
from fommctl.host import Host
from fommctl.models.loading import LoadedModel
from fommctl.stages.options import MotionMode


class Engine:
    """One model on one device in one precision; holds what jobs share."""

    def __init__(self, model: LoadedModel, host: Host, *, device: str = "auto", precision: str = "auto") -> None:
        self.model = model
        self.host = host
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self._renderers: dict[float, Renderer] = {}

    @property
    def family(self) -> BackendSpec:
        """The backend that the model is of."""
        spec: BackendSpec = self.host.find("backend", self.model.preset.backend)
        return spec

    def motion(self, asked: str | None) -> MotionMode:
        """How motion is transferred: as asked, else as the model's family does it first of all.

        Raises UsageError where it cannot be as asked.
        """
        possible = self.family.motions
        if asked is not None and asked not in possible:
            raise UsageError(
                f"a model of {self.family.name} has no {asked} motion",
                f"Leave out --motion, or take --motion {possible[0]}.",
            )
        return cast(MotionMode, asked or possible[0])

    def check_views(self, more: int) -> None:
        """Raise UsageError unless the model makes use of `more` pictures of the source beside the first."""
        most = self.family.source_views
        if more and most == 1:
            raise UsageError(f"a model of {self.family.name} takes one picture of the source", "Leave out --view.")
        if more >= most:
            raise UsageError(
                f"{more + 1} pictures of the source, a model of {self.family.name} takes {most}", "Give fewer --view."
            )

    def frame_size(self, size: int | None = None) -> tuple[int, int]:
        """(width, height) of the model's frames at a `--size` (its side; None: native)."""
        height, width, _ = self.model.preset.frame_shape
        return (width, height) if size is None else (size, round(size * height / width))

    def renderer(self, size: int | None = None) -> Renderer:
        """The model ready to run on frames of this size. Raises UsageError for a size that its networks cannot take."""
        native = self.model.preset.frame_shape[1]
        scale = 1.0 if size is None else native / size
        if scale not in self._renderers:
            try:
                self._renderers[scale] = self.model.backend.prepare(self.device, self.precision, scale=scale)
            except UsageError as error:
                hint = f"The native size is {native}; {2 * native} and other whole multiples work."
                raise UsageError(f"--size {size}: {error.message}", hint) from error
        return self._renderers[scale]
