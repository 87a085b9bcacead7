"""Driving frames in, finished frames out: every step in a thread of its own, a few batches apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

from fommctl.animate.compose import Rendered
from fommctl.animate.config import AnimateConfig
from fommctl.animate.preparation import Prepared
from fommctl.animate.rendering import Rendering, batches
from fommctl.animate.timing import Cue, as_driven, at_rate
from fommctl.media.probe import VideoInfo
from fommctl.media.reader import Frame
from fommctl.media.writer import Writer
from fommctl.threads import ReadAhead, WriteBehind

Progress = Callable[[int, int | None], None]
"""report(frames done, frames in all or None)."""
QUEUED_BATCHES = 3


def cues_of(
    frames: Iterable[Frame], config: AnimateConfig, *, first: Fraction | None = None, shown: int = 0
) -> Iterator[Cue]:
    """Which of the driving frames are rendered, and when each is shown.  first, shown: see `at_rate`."""
    if not config.fps:
        return as_driven(frames)
    length = None if config.end_s is None else config.end_s - config.start_s
    return at_rate(frames, config.fps, length, first=first, shown=shown)


def stream(
    prepared: Prepared,
    cues: Iterable[Cue],
    rendering: Rendering,
    writer: Writer,
    report: Progress | None,
    total: int | None,
) -> None:
    """Read, render, compose and write.  total: for `report` only."""

    def finish(batch: Rendered) -> None:
        prepared.composer.write(batch, writer)

    with (
        WriteBehind(finish, QUEUED_BATCHES) as sink,
        ReadAhead(batches(cues, rendering.batch_size), QUEUED_BATCHES) as read,
    ):
        for batch in read:
            for rendered in rendering(batch):
                sink.put(rendered)
                if report:
                    report(rendering.frames, total)


def expected_frames(config: AnimateConfig, info: VideoInfo) -> int | None:
    """For progress only."""
    rate = config.fps or info.rate
    if info.duration is None:
        return info.frames
    end = min(config.end_s or info.duration, info.duration)
    return max(0, round((end - config.start_s) * rate))
