"""Signals that end a program, and what its parts do while they come."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, the request to end, and the end of the terminal."""
Handler = Callable[[int, FrameType | None], object]


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Let `handler` answer the signals that end a program; afterwards those before it do.

    A signal that the caller ignores (nohup, a background job) stays ignored. Outside the main thread nothing changes.
    """
    if current_thread() is not main_thread():
        yield
        return
    before = answer(handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def answer(handler: Handler) -> dict[int, Any]:
    """Let `handler` answer the signals that end a program from now on, but for ignored ones; return those before it."""
    heeded = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heeded}


def leave_to_parent(handler: Handler) -> None:
    """Ignore Ctrl-C, which reaches the whole group, and let `handler` answer SIGTERM: for worker processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, handler)


def ignore_sigterm() -> None:
    """Let no further request to end disturb the cleaning up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def kept() -> Iterator[None]:
    """Put back the handlers that a library replaces meanwhile. Outside the main thread nothing can replace them."""
    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_back(numbers: Collection[int] = ENDING) -> Iterator[None]:
    """Hold signals back until the end of the block, also from threads and processes that are started meanwhile, which
    inherit this."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def send_to_main_thread(number: int) -> None:
    """Raise a signal in the main thread, so that whatever it waits for is interrupted."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def name_of(number: int) -> str:
    """Return the name of a signal, such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
