"""Looking at things in processes of their own, which may crash, hang or be killed: the rest is still looked at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

PACKAGE = "fommctl.stages.doctor.looking"
# The path is handed over as it is: the current folder may be on it or not, and what shadows a package in one process
# has to shadow it in the other.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from fommctl.stages.doctor.child import main; main(sys.argv[2], json.loads(sys.argv[3]))"
)
SKIPPED = "not looked at"
"""How the trouble with an item begins that is not to blame itself."""
_DRAIN = 5
"""Seconds in which the output of a killed process has to end; a grandchild may hold the pipe."""


@dataclass(frozen=True)
class Seen:
    """What became of the items that were looked at."""

    facts: dict[str, Any] = field(default_factory=dict)
    """What was found, by item; JSON values."""
    troubles: dict[str, str] = field(default_factory=dict)
    """Why nothing was found, by item: what was raised, or how the process ended."""


class Probes:
    """The processes of one examination; none outlives the `with` block."""

    def __init__(self, limit: float) -> None:
        """limit: seconds for each group of items."""
        self.limit = limit
        self._threads = ThreadPoolExecutor(max_workers=16)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        for process in list(self._running):
            _kill(process)
        self._threads.shutdown(wait=True, cancel_futures=True)

    def start(self, items: Iterable[str], package: str = PACKAGE) -> Future[Seen]:
        """Look at these items ("MODULE.WHAT"), one after the other, in a process beside the others."""
        return self._threads.submit(self._look, list(items), package)

    def _look(self, items: list[str], package: str) -> Seen:
        """Where an item ends the process, a new one goes on behind it."""
        seen, asked = Seen(), items
        deadline = time.monotonic() + self.limit
        while items and not self._over:
            doing, reason, timed_out = self._run(items, package, deadline, seen)
            if doing is None:
                seen.troubles.update(dict.fromkeys(items, reason) if reason else {})
                break
            seen.troubles[doing] = reason
            items = items[items.index(doing) + 1 :]
            if timed_out:
                late = f"{SKIPPED}: {doing.partition('.')[2]} took all of the {self.limit:g} s"
                seen.troubles.update(dict.fromkeys(items, late))
                break
        unknown = [item for item in asked if item not in seen.facts and item not in seen.troubles]
        seen.troubles.update(dict.fromkeys(unknown, SKIPPED))
        return seen

    def _run(self, items: Sequence[str], package: str, deadline: float, seen: Seen) -> tuple[str | None, str, bool]:
        """One process; returns the item that ended it (None: all were done, or it never began), how it ended, and
        whether it took too long."""
        try:
            process = _start(items, package)
        except (OSError, ValueError) as error:
            return None, f"no process could be started: {error}", False
        self._running.add(process)
        if self._over:
            _kill(process)
        try:
            out, err, timed_out = _outcome(process, deadline)
        finally:
            self._running.discard(process)
        doing, begun = None, False
        for answer in _answers(out):
            begun = True
            doing = answer.get("doing")
            if "fact" in answer:
                seen.facts[answer["item"]] = answer["fact"]
            elif "error" in answer:
                seen.troubles[answer["item"]] = answer["error"]
        reason = f"took more than {self.limit:g} s" if timed_out else _end(process.returncode, err)
        return doing, "" if begun and doing is None else reason, timed_out


def _start(items: Sequence[str], package: str) -> subprocess.Popen[bytes]:
    # -P: the path of this process is all that counts.
    command = [sys.executable, "-P", "-c", _START, json.dumps(sys.path), package, json.dumps(list(items))]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=os.name == "posix"
    )


def _outcome(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes, bool]:
    """What it wrote to stdout and stderr, and whether it had to be killed."""
    try:
        return *process.communicate(timeout=max(0.1, deadline - time.monotonic())), False
    except subprocess.TimeoutExpired:
        _kill(process)
    try:
        return *process.communicate(timeout=_DRAIN), True
    except subprocess.TimeoutExpired as late:
        return late.stdout or b"", late.stderr or b"", True


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _answers(out: bytes) -> list[dict[str, Any]]:
    """Those that came whole."""
    answers = []
    for line in out.splitlines():
        with contextlib.suppress(ValueError):
            answers.append(json.loads(line))
    return answers


def _end(code: int | None, err: bytes) -> str:
    """How a process ended, in words."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        more = " (perhaps for want of memory)" if name == "SIGKILL" else ""
        return f"ended the process with {name}{more}"
    lines = err.decode("utf-8", "replace").strip().splitlines()
    return f"ended the process with exit code {code}" + (f": {lines[-1][:200]}" if lines else "")
