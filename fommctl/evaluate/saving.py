"""Predictions kept as they were scored, bit for bit, so that others can score them too."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.contestants import Contestant
from fommctl.evaluate.plan import Task
from fommctl.media.writer import Writer

FOLDER = "predictions"
_PICTURES = "%07d.png"


def saved_at(config: EvaluateConfig, contestant: Contestant, task: Task) -> Path:
    """The file (FFV1 in Matroska), or the folder of pictures."""
    name = task.name if config.save == "png" else f"{task.name}.{config.save}"
    return config.output / FOLDER / contestant.folder / name


def is_saved(config: EvaluateConfig, contestant: Contestant, task: Task, saved: str) -> bool:
    """Whether the predictions are there as `--save` wants them.  saved: how an earlier run saved them."""
    return config.save == "none" or (saved == config.save and saved_at(config, contestant, task).exists())


class Saver:
    """Writes the predictions of a clip while they come, if they are wanted; all or nothing."""

    def __init__(self, config: EvaluateConfig, contestant: Contestant, task: Task, rate: float) -> None:
        self._wanted = config.save != "none"
        self._pictures = config.save == "png"
        self._target = saved_at(config, contestant, task)
        # Pictures take their place together: a folder of some of them would pass for a short clip.
        self._folder = self._target.with_name(f".{self._target.name[:40]}.{os.getpid()}.tmp")
        self._step = 1 / Fraction(rate).limit_denominator(100_000)
        self._opened = ExitStack()
        self._writer: Writer | None = None

    def __enter__(self) -> Self:
        return self

    def add(self, frames: NDArray[np.uint8]) -> None:
        """(N, H, W, 3)"""
        if not self._wanted:
            return
        for pixels in frames:
            writer = self._writer or self._open(pixels)
            number = writer.frames_written
            writer.write(pixels, number * self._step, self._step)

    def _open(self, pixels: NDArray[np.uint8]) -> Writer:
        height, width = pixels.shape[:2]
        self._target.parent.mkdir(parents=True, exist_ok=True)
        path = self._folder / _PICTURES if self._pictures else self._target
        writer = Writer(path, width=width, height=height, rate=1 / self._step, overwrite=True, threads=1)
        self._writer = self._opened.enter_context(writer)
        return writer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._opened.__exit__(kind, error, trace)
            if kind is None and self._folder.is_dir():
                shutil.rmtree(self._target, ignore_errors=True)
                self._folder.rename(self._target)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
