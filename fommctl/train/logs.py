"""Logs of a run: metrics.jsonl, curves for TensorBoard, pictures."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from math import ceil, sqrt
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional

from fommctl.api.training import TrainingView
from fommctl.errors import OutputError, not_written
from fommctl.journal import Journal
from fommctl.media.drawing import Colour, draw_keypoints, label
from fommctl.presets.sections import VisualizerParams
from fommctl.train.run_folder import picture_path, write_atomically

_HINT = "Free some space, or check the permissions of the folder, and resume with --resume auto."


class Metrics(BaseModel):
    """A line of metrics.jsonl, for one step. It may have more values, such as `learning_rate`."""

    model_config = ConfigDict(strict=True, extra="allow")

    step: int
    epoch: int | None = None
    losses: dict[str, float | None] = {}
    samples_per_s: float | None = None


class MetricsLog:
    """Appends to RUN/metrics.jsonl.

    The constructor removes lines of `from_step` and later, and everything from the first unreadable line on (torn by a
    kill, or damaged: see `Journal.cut`), so that the file is as an uninterrupted run would have written it. Steps
    increase within a file. It is cut in place, so that a kill meanwhile loses no line before the cut.

    Raises OutputError if the file cannot be written or the disk is full.
    """

    def __init__(self, run: Path, *, from_step: int) -> None:
        path = run / "metrics.jsonl"
        try:
            run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_written(path, error, _HINT) from error
        self._journal = Journal(path, Metrics, hint=_HINT)
        self._journal.cut(lambda line: line.step < from_step)

    def write(
        self,
        *,
        step: int,
        epoch: int,
        losses: Mapping[str, float],
        samples_per_s: float,
        **more: float | str | None,
    ) -> None:
        """Add the line of a step, with NaN and infinity as null.

        losses: by name.  more: other values, such as `learning_rate`, or `waiting`, the share of time in [0, 1] that
        the device waited for data.
        """
        numbers = {name: _plain(value) for name, value in losses.items()}
        others: dict[str, Any] = {name: _plain(value) for name, value in more.items()}
        line = Metrics.model_validate(
            {"step": step, "epoch": epoch, "losses": numbers, "samples_per_s": _plain(samples_per_s), **others}
        )
        self._journal.append(line, durable=False)


def _plain(value: float | str | None) -> float | str | None:
    if value is None or isinstance(value, int | str):
        return value
    number = float(value)  # one of NumPy is no float for json
    return number if math.isfinite(number) else None


log = logging.getLogger(__name__)

_FILE_VERSION = "brain.Event:2"
_RGB = 3


def tensorboard_folder(run: Path) -> Path:
    """Return the folder for `tensorboard --logdir`."""
    return run / "tensorboard"


class TensorBoardLog:
    """Writes to RUN/tensorboard; a context manager. Without the package tensorboard it logs that once and does nothing.

    Values of an earlier part of the run for `from_step` and later are no longer shown. Raises OutputError if the files
    cannot be written or the disk is full.
    """

    # Not torch's SummaryWriter: it writes in a thread, so that a kill loses up to two minutes of curves, and prints a
    # traceback if the disk is full.

    def __init__(self, run: Path, *, from_step: int) -> None:
        self.folder = tensorboard_folder(run)
        self._records: Any = None
        if importlib.util.find_spec("tensorboard") is None:
            log.warning("no curves for TensorBoard: run pip install 'fommctl[train]' to get them")
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
        # This event invalidates values of this step and later ones in other files.
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
        # After an error, report that one, not that the disk is still full.
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
            raise not_written(self.folder, error, _HINT) from error


Pixels = NDArray[np.uint8]

LABEL_HEIGHT = 20
GAIN = 4
"""Factor by which the difference is brightened."""
_FAR_OFF = 4
_WHITE = (255.0, 255.0, 255.0)
# matplotlib's gist_rainbow: where along it the colour is which.
_RAINBOW = (
    (0.000, (1.00, 0.00, 0.16)),
    (0.030, (1.00, 0.00, 0.00)),
    (0.215, (1.00, 1.00, 0.00)),
    (0.400, (0.00, 1.00, 0.00)),
    (0.586, (0.00, 1.00, 1.00)),
    (0.770, (0.00, 0.00, 1.00)),
    (0.954, (1.00, 0.00, 1.00)),
    (1.000, (1.00, 0.00, 0.75)),
)


def training_grid(pairs: TrainingView, params: VisualizerParams | None = None, *, rows: int = 4) -> Pixels:
    """Draw the first `rows` pairs below a line of labels: (LABEL_HEIGHT + rows H, columns W, 3) uint8.

    Columns: source and driving frame with their keypoints, the warped source, the masks (the background's grey, each
    other in the colour of its keypoint), the occlusion map, the prediction, `GAIN` times its difference from the
    driving frame, and `extra`; those that the model does not have are left out.
    params: radius and colours of the keypoints, and whether each picture has a white border.
    """
    params = params or VisualizerParams()
    shown = min(rows, len(pairs.source))
    columns = list(_columns(pairs, params, shown))
    header = np.concatenate([label(name, cells.shape[2], LABEL_HEIGHT) for name, cells in columns], axis=1)
    body = np.concatenate([_bordered(cells) if params.draw_border else cells for _, cells in columns], axis=2)
    return np.concatenate([header, *body])


def save_training_grid(run: Path, step: int, grid: Pixels) -> Path:
    """Write the grid (H, W, 3) of a step as RUN/pictures/00001000.png; returns the path. Raises OutputError."""
    from fommctl.media.images_out import encode_png

    path = picture_path(run, step)
    write_atomically(path, lambda temporary: temporary.write_bytes(encode_png(grid, "rgb24")))
    return path


def rainbow(count: int) -> list[Colour]:
    """Return the published colours of `count` keypoints: RGB, 0 to 255, at equal steps along matplotlib's
    gist_rainbow."""
    places, shades = zip(*_RAINBOW, strict=True)
    channels = np.array(shades).T * 255
    points = np.arange(count) / max(1, count)
    red, green, blue = (np.interp(points, places, channel).tolist() for channel in channels)
    return list(zip(red, green, blue, strict=True))


def _columns(pairs: TrainingView, params: VisualizerParams, shown: int) -> Iterator[tuple[str, Pixels]]:
    """Label and cells (shown, H, W, 3) of each column."""
    size = (pairs.source.shape[2], pairs.source.shape[3])

    def cells(tensor: Tensor) -> Pixels:
        return _cells(tensor[:shown], size)

    yield "source", _with_keypoints(cells(pairs.source), pairs.source_keypoints, params)
    yield "driving", _with_keypoints(cells(pairs.driving), pairs.driving_keypoints, params)
    if pairs.deformed is not None:
        yield "warped source", cells(pairs.deformed)
    if pairs.mask is not None:
        yield "masks", _tiles(pairs.mask[:shown], size)
    if pairs.occlusion is not None:
        yield "occlusion", cells(pairs.occlusion)
    yield "prediction", cells(pairs.prediction)
    difference = (pairs.prediction[:shown].float() - pairs.driving[:shown].float()).abs()
    yield f"difference x{GAIN}", cells(difference * GAIN)
    for name, tensor in pairs.extra.items():
        yield name, cells(tensor)


def _cells(tensor: Tensor, size: tuple[int, int]) -> Pixels:
    """Convert (B, C, h, w) in [0, 1] to pictures (B, *size, 3): in colour, in grey, or as tiles of channels."""
    if tensor.shape[1] in (1, 3):
        return _pixels(tensor.expand(-1, 3, -1, -1), size)
    return _tiles(tensor, size)


def _tiles(tensor: Tensor, size: tuple[int, int]) -> Pixels:
    """Return a small picture for each channel of (B, C, h, w), the first in grey, row by row in (B, *size, 3)."""
    channels = tensor.shape[1]
    across = ceil(sqrt(channels))
    height, width = size[0] // across, size[1] // across
    cells = np.zeros((len(tensor), *size, 3), np.uint8)
    for number, shade in enumerate([_WHITE, *rainbow(channels - 1)]):
        top, left = number // across * height, number % across * width
        paint = torch.tensor(shade, device=tensor.device)[:, None, None] / 255
        tile = tensor[:, number : number + 1].float() * paint
        cells[:, top : top + height, left : left + width] = _pixels(tile, (height, width))
    return cells


def _pixels(tensor: Tensor, size: tuple[int, int]) -> Pixels:
    """Convert (B, 3, h, w) in [0, 1] to (B, *size, 3) uint8; NaN is black."""
    floats = tensor.detach().float()
    if tuple(floats.shape[2:]) != size:
        floats = functional.interpolate(floats, size, mode="bilinear", antialias=True)
    levels = (floats.nan_to_num(0, 1, 0).clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())


def _with_keypoints(cells: Pixels, keypoints: Tensor | None, params: VisualizerParams) -> Pixels:
    if keypoints is None:
        return cells
    places = keypoints.detach()[: len(cells)].float().cpu().numpy()
    shades = rainbow(places.shape[1])
    # Keypoints of a diverging model may be NaN or far outside: they are not drawn.
    known = [(np.abs(points) < _FAR_OFF).all(1) for points in places]
    drawn = [
        draw_keypoints(
            cell, points[here], radius=params.kp_size, colours=[shades[number] for number in np.flatnonzero(here)]
        )
        for cell, points, here in zip(cells, places, known, strict=True)
    ]
    return np.stack(drawn)


def _bordered(cells: Pixels) -> Pixels:
    framed = cells.copy()
    framed[:, [0, -1]] = 255
    framed[:, :, [0, -1]] = 255
    return framed
