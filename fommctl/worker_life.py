"""The life of a process that does jobs for another one: it ends when it is told to, and when that other one ends."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

PATIENCE = 10
"""Seconds that a process has to clean up."""


def serve(
    pipe: Connection, prepare: Callable[..., Callable[..., Any]], threads: int, arguments: tuple[Any, ...]
) -> None:
    """Do the jobs that come through the pipe until it is closed, with what prepare(*arguments) returns.

    What is sent back: ("begun",), ("progress", done, total), ("done", result) or ("unreadable", why a job could not be
    received).
    """
    # Ctrl-C goes to the whole group; the parent closes the pipe, and the job in hand cleans up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    # stdout belongs to the result of the command.
    sys.stdout = sys.stderr
    logging.getLogger("fommctl").addHandler(logging.NullHandler())
    work = prepare(*arguments)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        # OMP_NUM_THREADS may have asked for fewer.
        torch.set_num_threads(max(1, min(threads, torch.get_num_threads())))

    def tell(done: int, total: int | None) -> None:
        try:
            pipe.send(("progress", done, total))
        except OSError:
            sys.exit(1)

    with contextlib.suppress(EOFError, OSError):
        while True:
            packed = pipe.recv_bytes()
            try:
                job = pickle.loads(packed)
            except Exception as error:
                pipe.send(("unreadable", f"it cannot be handed to a process: {error}"))
                continue
            pipe.send(("begun",))
            pipe.send(("done", work(job, tell)))


def _leave(signum: int, frame: FrameType | None) -> None:
    """Let every `with` block clean up; a second signal does not disturb that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def _leave_with_parent() -> None:
    """Where the parent is killed, nobody waits for the job in hand."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    if hasattr(signal, "pthread_kill"):
        # To this very thread: what the main one waits for is interrupted.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(PATIENCE)
    os._exit(1)
