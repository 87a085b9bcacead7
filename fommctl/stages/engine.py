"""A loaded model on a device: what every job that uses it shares."""

from __future__ import annotations

from fommctl.api.protocols import Renderer
from fommctl.core.fast.devices import resolve_device, resolve_precision
from fommctl.errors import UsageError
from fommctl.host import Host
from fommctl.models.loading import LoadedModel


class Engine:
    """One model on one device in one precision; holds what jobs share."""

    def __init__(self, model: LoadedModel, host: Host, *, device: str = "auto", precision: str = "auto") -> None:
        self.model = model
        self.host = host
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self._renderers: dict[float, Renderer] = {}

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
