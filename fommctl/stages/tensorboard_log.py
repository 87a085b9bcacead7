"""TensorBoard: curves and pictures of a run, where the package is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from fommctl.errors import OutputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

# A killed run loses no more than this of its curves.
_SECONDS_BETWEEN_FLUSHES = 10


def tensorboard_folder(run: Path) -> Path:
    """The folder for `tensorboard --logdir`."""
    return run / "tensorboard"


class TensorBoardLog:
    """Writes to RUN/tensorboard; a context manager. Without the package tensorboard it says so once and does nothing.

    What an earlier part of the run wrote for `from_step` and later is no longer shown. Raises OutputError where the
    files cannot be written or the disk is full.
    """

    def __init__(self, run: Path, *, from_step: int) -> None:
        self.folder = tensorboard_folder(run)
        self._writer: SummaryWriter | None = None
        if importlib.util.find_spec("tensorboard") is None:
            log.warning("no curves for TensorBoard: run 'pip install fommctl[train]' to have them")
            return
        from torch.utils.tensorboard import SummaryWriter

        with self._errors():
            self._writer = SummaryWriter(self.folder, purge_step=from_step, flush_secs=_SECONDS_BETWEEN_FLUSHES)

    def scalars(self, step: int, losses: Mapping[str, float], **more: float) -> None:
        """Add a point to the curves `losses/NAME` and, for the others (such as samples_per_s), `training/NAME`."""
        if self._writer is None:
            return
        curves = {f"losses/{name}": value for name, value in losses.items()}
        curves |= {f"training/{name}": value for name, value in more.items()}
        with self._errors():
            for name, value in curves.items():
                self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Add pixels (H, W, 3) as the picture `pictures/NAME` of a step."""
        if self._writer is None:
            return
        with self._errors():
            self._writer.add_image(f"pictures/{name}", pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Write what is still in memory: with a checkpoint, so that a run resumed from it has no gap in its curves."""
        if self._writer is not None:
            with self._errors():
                self._writer.flush()

    def close(self) -> None:
        """Write what is still in memory and close the files."""
        if self._writer is not None:
            with self._errors():
                self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"cannot write {self.folder}: {error.strerror or error}",
                "Free some space, or check the permissions of the folder, and go on with --resume auto.",
            ) from error
