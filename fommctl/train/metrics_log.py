"""metrics.jsonl: one line a step, cut back where a run goes on from an earlier step."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from fommctl.api import plain_json
from fommctl.errors import OutputError, not_written

_LONGEST_LINE = 2**20


def metrics_path(run: Path) -> Path:
    """Where the lines of a run lie."""
    return run / "metrics.jsonl"


class MetricsLog:
    """Appends to RUN/metrics.jsonl; a context manager.

    When it is made, lines of `from_step` and later go, and with them the first line that cannot be read (torn by a
    kill) and all that follow it: what is left is as the uninterrupted run wrote it. Steps only rise within a file.
    The file is cut in place, so that nothing is copied and a kill in between loses no line before the cut.

    Raises OutputError where the file cannot be written to or the disk is full.
    """

    def __init__(self, run: Path, *, from_step: int) -> None:
        self.path = metrics_path(run)
        try:
            run.mkdir(parents=True, exist_ok=True)
            self._length = _cut_back(self.path, from_step)
            # Unbuffered: a line is in the file, not in this process, when `write` returns.
            self._file: BinaryIO = self.path.open("ab", buffering=0)
        except OSError as error:
            raise self._error(error) from error

    def write(
        self,
        *,
        step: int,
        epoch: int,
        losses: Mapping[str, float],
        samples_per_s: float,
        **more: float | str | None,
    ) -> None:
        """Add the line of a step. JSON knows neither NaN nor infinity: they are written as null.

        losses: by name.  more: such as `learning_rate`, or `waiting`, the share of the time in which the device waited
        for data, in [0, 1].
        """
        values = {
            "step": step,
            "epoch": epoch,
            "losses": {name: _plain(value) for name, value in losses.items()},
            "samples_per_s": _plain(samples_per_s),
            **{name: _plain(value) for name, value in more.items()},
        }
        line = json.dumps(values, allow_nan=False).encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            # Nor half a line for those who read along.
            with contextlib.suppress(OSError):
                self._file.truncate(self._length)
            raise self._error(error) from error
        self._length += len(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _error(self, error: OSError) -> OutputError:
        return not_written(
            self.path, error, "Free some space, or check the permissions of the folder, and go on with --resume auto."
        )


def _plain(value: float | str | None) -> float | str | None:
    if value is None or isinstance(value, int | str):
        return value
    number = float(value)  # one of NumPy is no float for json
    return number if math.isfinite(number) else None


def _cut_back(path: Path, from_step: int) -> int:
    """Keep the whole lines at the start of the file whose steps lie before `from_step`; returns the bytes that stay."""
    length = 0
    with path.open("ab+") as file:
        file.seek(0)
        # What is no line may be as long as the file: read no more than a line can be.
        while (line := file.readline(_LONGEST_LINE)).endswith(b"\n"):
            step = _step_of(line)
            if step is None or step >= from_step:
                break
            length += len(line)
        file.truncate(length)
        os.fsync(file.fileno())
    return length


def _step_of(line: bytes) -> int | None:
    """The step of a line; None where it cannot be read."""
    try:
        values = plain_json.parse(line)
    except ValueError:
        return None
    step = values.get("step") if isinstance(values, dict) else None
    return step if isinstance(step, int) and not isinstance(step, bool) else None
