"""Helpers for loops over frames: batches, and threads that read ahead and write behind while the model computes."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
_END = object()
_POLL_SECONDS = 0.2


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items; the last may be shorter."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


class _Worker(ABC):
    """A thread with a bounded queue; `_stop` ends it early, `_error` is the error that ended it."""

    def __init__(self, name: str, depth: int) -> None:
        self._queue: queue.Queue[object] = queue.Queue(depth)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    @abstractmethod
    def _work(self) -> None: ...

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def _join(self) -> None:
        """Wait for the end of the thread, even after a signal: otherwise it would die in the middle of a file.

        Not by Thread.join, which after an interruption by a signal takes the thread for ended (Python 3.11).
        """
        try:
            self._ended.wait()
        except BaseException:
            self._stop.set()
            self._ended.wait()
            raise

    def _offer(self, item: object) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue


class ReadAhead(_Worker, Generic[T]):
    """Iterates over `items` in a thread, at most `depth` items ahead; errors of the thread are raised in the loop."""

    def __init__(self, items: Iterable[T], depth: int) -> None:
        super().__init__("read-ahead", depth)
        self._items = items

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._join()

    def __iter__(self) -> Iterator[T]:
        while (item := self._queue.get()) is not _END:
            yield item  # type: ignore[misc]
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            for item in self._items:
                self._offer(item)
                if self._stop.is_set():
                    break
        except BaseException as error:
            self._error = error
        finally:
            self._offer(_END)


class WriteBehind(_Worker, Generic[T]):
    """Calls `consume` for each item in a thread, in order; its errors are raised at the next `put` or at the end.

    At a normal exit of the block, waits until everything is consumed; after an exception, drops waiting items.
    """

    def __init__(self, consume: Callable[[T], None], depth: int) -> None:
        super().__init__("write-behind", depth)
        self._consume = consume

    def put(self, item: T) -> None:
        """Add an item; blocks while `depth` items are waiting."""
        self._offer(item)
        if self._error is not None:
            raise self._error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._stop.set()
        try:
            self._offer(_END)
        except BaseException:
            self._stop.set()
            raise
        finally:
            self._join()
        if kind is None and self._error is not None:
            raise self._error

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                item = self._queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if item is _END:
                return
            try:
                self._consume(item)  # type: ignore[arg-type]
            except BaseException as error:
                self._error = error
                self._stop.set()
