"""Ending a long run at a good moment: the first signal asks, the second one interrupts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fommctl import signals

_TWICE = 1.0
"""Seconds."""


class Stop:
    """Whether the run should end, and why."""

    def __init__(self, max_time: float | None = None) -> None:
        """max_time: seconds from now."""
        self._deadline = None if max_time is None else time.monotonic() + max_time
        self.signalled = False

    @property
    def due(self) -> bool:
        """Has a signal arrived or the time run out?"""
        return self.signalled or (self._deadline is not None and time.monotonic() >= self._deadline)


@contextmanager
def stoppable(max_time: float | None = None) -> Iterator[Stop]:
    """Inside, the first SIGINT, SIGTERM or SIGHUP only sets `signalled`; the next raises KeyboardInterrupt.

    The same signal again within a second is not the next one: a cluster signals all processes, and so does the one
    that launched them. Signals that the caller ignores (nohup, a background job) stay ignored; in another thread
    than the main one, all stay as they are.
    """
    stop = Stop(max_time)
    last: tuple[int, float] = (0, 0.0)

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal last
        (previous, then), last = last, (number, time.monotonic())
        if stop.signalled and (number != previous or last[1] - then > _TWICE):
            raise KeyboardInterrupt
        stop.signalled = True

    with signals.handled(handle):
        yield stop
