"""TensorBoard: curves and pictures of a run, where the package is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fommctl.errors import OutputError, not_written

log = logging.getLogger(__name__)

_FILE_VERSION = "brain.Event:2"
_RGB = 3


def tensorboard_folder(run: Path) -> Path:
    """The folder for `tensorboard --logdir`."""
    return run / "tensorboard"


class TensorBoardLog:
    """Writes to RUN/tensorboard; a context manager. Without the package tensorboard it says so once and does nothing.

    What an earlier part of the run wrote for `from_step` and later is no longer shown. Raises OutputError where the
    files cannot be written or the disk is full.
    """

    # Not torch's SummaryWriter: it writes from a thread of its own, which a kill robs of up to two minutes of curves,
    # and which prints a traceback of its own where the disk is full.

    def __init__(self, run: Path, *, from_step: int) -> None:
        self.folder = tensorboard_folder(run)
        self._records: Any = None
        if importlib.util.find_spec("tensorboard") is None:
            log.warning("no curves for TensorBoard: run pip install 'fommctl[train]' to have them")
            return
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        # TensorBoard reads its files in the order of their names.
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        name = f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}.{socket.gethostname()}.{os.getpid()}"
        with self._errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter((self.folder / name).open("xb"))
        self._add(file_version=_FILE_VERSION)
        # From here on, what other files hold of this step and later ones is void.
        self._add(step=from_step, session_log=SessionLog(status=SessionLog.START))
        self._flush()

    def scalars(self, step: int, losses: Mapping[str, float], **more: float) -> None:
        """Add a point to the curves `losses/NAME` and, for the others (such as samples_per_s), `training/NAME`."""
        if self._records is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        curves = {f"losses/{name}": value for name, value in losses.items()}
        curves |= {f"training/{name}": value for name, value in more.items()}
        points = [Summary.Value(tag=name, simple_value=float(value)) for name, value in curves.items()]
        self._add(step=step, summary=Summary(value=points))
        self._flush()

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Add pixels (H, W, 3) as the picture `pictures/NAME` of a step."""
        if self._records is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        from fommctl.media.images_out import encode_png

        height, width = pixels.shape[:2]
        png = encode_png(pixels, "rgb24")
        image = Summary.Image(height=height, width=width, colorspace=_RGB, encoded_image_string=png)
        self._add(step=step, summary=Summary(value=[Summary.Value(tag=f"pictures/{name}", image=image)]))
        self._flush()

    def close(self) -> None:
        """Close the file."""
        if self._records is not None:
            with self._errors():
                self._records.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an error, that one is to be told, and not that the same disk is still full.
        with contextlib.suppress(OutputError) if error is not None else contextlib.nullcontext():
            self.close()

    def _add(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        with self._errors():
            self._records.write(Event(wall_time=time.time(), **content).SerializeToString())

    def _flush(self) -> None:
        with self._errors():
            self._records.flush()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = "Free some space, or check the permissions of the folder, and go on with --resume auto."
            raise not_written(self.folder, error, hint) from error
