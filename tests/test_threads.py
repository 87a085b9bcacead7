"""Reading ahead and writing behind: order, back-pressure, errors, early exits, and complete output."""

import signal
import sys
import threading
import time

import pytest

from fommctl.threads import ReadAhead, WriteBehind


class Ended(BaseException):
    """Raised by a signal."""


@pytest.mark.skipif(sys.platform == "win32", reason="alarms are POSIX")
def test_a_signal_while_the_last_item_is_written_waits_for_it() -> None:
    def end(*_: object) -> None:
        raise Ended

    written: list[int] = []

    def consume(item: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(0.4)
        written.append(item)

    before = signal.signal(signal.SIGALRM, end)
    try:
        with pytest.raises(Ended), WriteBehind(consume, 2) as behind:
            behind.put(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert written == [1]


def test_items_arrive_in_order():
    with ReadAhead(range(100), depth=3) as read:
        assert list(read) == list(range(100))


def test_reading_stays_at_most_depth_items_ahead():
    taken = []

    def items():
        for index in range(50):
            taken.append(index)
            yield index

    with ReadAhead(items(), depth=2) as read:
        first = next(iter(read))
        time.sleep(0.1)
        assert first == 0
        assert len(taken) <= 4  # the one given, two queued, one in hand


def test_an_error_while_reading_arises_in_the_loop_after_what_was_read():
    def items():
        yield 1
        raise ValueError("torn")

    with ReadAhead(items(), depth=5) as read:
        loop = iter(read)
        assert next(loop) == 1
        with pytest.raises(ValueError, match="torn"):
            next(loop)


def test_leaving_early_stops_the_reading_thread():
    with ReadAhead(iter(range(10**9)), depth=2) as read:
        next(iter(read))
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def test_everything_is_written_in_order_before_the_block_ends():
    written = []
    with WriteBehind(lambda item: (time.sleep(0.002), written.append(item)), depth=2) as sink:
        for index in range(30):
            sink.put(index)
    assert written == list(range(30))


def test_an_error_while_writing_arises_at_the_end_at_the_latest():
    def fail(item):
        raise OSError("full")

    with pytest.raises(OSError, match="full"), WriteBehind(fail, depth=2) as sink:
        sink.put(1)


def test_an_error_while_writing_does_not_block_the_producer():
    def fail(item):
        raise OSError("full")

    def produce():
        with WriteBehind(fail, depth=1) as sink:
            for index in range(1000):
                sink.put(index)

    with pytest.raises(OSError, match="full"):
        produce()


def test_an_exception_drops_what_waits():
    written = []

    def interrupted():
        with WriteBehind(lambda item: (time.sleep(0.05), written.append(item)), depth=100) as sink:
            for index in range(50):
                sink.put(index)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(written) < 50
