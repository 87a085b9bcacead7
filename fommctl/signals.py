"""Handling of signals that end a program."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, a request to terminate, and the loss of the terminal."""
Handler = Callable[[int, FrameType | None], object]


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Handle the signals that end a program by `handler` within the block.

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
    """Handle the signals that end a program by `handler` from now on, except ignored ones; return the old handlers."""
    heeded = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heeded}


def leave_to_parent(handler: Handler) -> None:
    """Set up a worker process: ignore Ctrl-C, which reaches the whole group, and handle SIGTERM by `handler`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, handler)


def ignore_sigterm() -> None:
    """Ignore SIGTERM from now on, so that it does not disturb cleaning up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def kept() -> Iterator[None]:
    """Restore, after the block, handlers that a library has replaced. Outside the main thread none can be replaced."""
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
    """Block signals until the end of the block, also in threads and processes started meanwhile, which inherit
    this."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def send_to_main_thread(number: int) -> None:
    """Send a signal to the main thread, to interrupt whatever it waits for."""
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
