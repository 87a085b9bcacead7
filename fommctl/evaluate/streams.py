"""The stream of one clip, for one model or one folder of finished results."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fommctl.errors import InputError
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.footage import Footage
from fommctl.evaluate.plan import Task
from fommctl.evaluate.predictions import Stream, finished

if TYPE_CHECKING:
    from fommctl.animate.engine import Engine


def open_stream(
    config: EvaluateConfig, task: Task, contestant: int, engine: Engine | None, limit: int | None = None
) -> Stream:
    """What is scored of this clip.

    contestant: number of the folder of predictions.  engine: the model; None for finished results.  limit: frames at
    most, beside `--max-frames`. Raises InputError, also while it is read.
    """
    limits = [most for most in (config.max_frames, limit) if most is not None]
    most = min(limits) if limits else None
    if engine is None:
        return _finished(config, task, contestant, most)
    # Importing torch takes longer than scoring a short clip.
    from fommctl.evaluate import animated, rendered

    if config.mode == "defaults" and task.source is not None:
        return animated.animated(engine, task.source, task.truth, most)
    clip = Footage(task.truth, size=engine.frame_size(), limit=most)
    if task.source is None:
        return rendered.reconstruction(engine, clip)
    return rendered.animation(engine, Footage(task.source, size=engine.frame_size(), limit=1), clip)


def _finished(config: EvaluateConfig, task: Task, contestant: int, most: int | None) -> Stream:
    truth = Footage(task.truth, limit=most, jpeg_strips=True)
    first = next(iter(replace(truth, limit=1)), None)
    if first is None:
        raise InputError(f"{task.truth.name} has no frame that can be read", "Copy it again.")
    size = (first.shape[1], first.shape[0])
    prediction = Footage(
        task.predictions[contestant],
        size=size if config.resize else None,
        limit=most,
        column=config.column,
        cell=size,
        jpeg_strips=True,
    )
    return finished(prediction, truth)
