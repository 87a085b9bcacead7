"""What is written behind a loop is complete, whatever ends the loop."""

import signal
import sys
import time

import pytest

from fommctl.threads import WriteBehind


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
