"""The one place that turns errors into a message, a hint and an exit code."""

import _thread
import contextlib
import errno
import itertools
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import current_thread, main_thread
from types import FrameType
from typing import TextIO

import typer

from fommctl.cli import logs
from fommctl.errors import (
    FULL_DISK,
    FommctlError,
    InputError,
    InterruptedRunError,
    OutputError,
    UsageError,
    out_of_memory,
)

# typer may carry its own copy of click: the base of its exceptions is taken from typer itself.
ClickException = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
LONGEST_IMPORT = 5.0
"""Seconds that an interrupt waits for the end of an import."""
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Flags:
    """The shared flags that count even where the arguments cannot be parsed."""

    json: bool
    debug: bool
    quiet: bool
    log_format: str

    @classmethod
    def scan(cls, argv: Sequence[str]) -> "Flags":
        """Read them off the arguments up to `--`."""
        words = list(argv[: argv.index("--")] if "--" in argv else argv)
        after = dict(itertools.pairwise(words))
        style = "json" if "--log-format=json" in words or after.get("--log-format") == "json" else "text"
        return cls("--json" in words, "--debug" in words, "-q" in words or "--quiet" in words, style)


def run(work: Callable[[], object], argv: Sequence[str]) -> int:
    """Run `work`, report what it raises as the flags in argv say, return the exit code. A result other than an int
    is 0. Within `work`, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt."""
    flags = Flags.scan(argv)
    with logs.restored():
        logs.start(flags.log_format, quiet=flags.quiet)
        try:
            with _signals_raise():
                result = work()
                _flush()
            return result if isinstance(result, int) else 0
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            return _code_of(error, flags)


def _code_of(error: BaseException, flags: Flags) -> int:
    broken = isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError)
    gone = _reader_has_gone(look=broken)
    if broken and (gone or isinstance(error, SystemExit)):
        return 0  # `| head` has seen enough. rich makes a SystemExit of it.
    if isinstance(error, SystemExit | typer.Exit):
        return _code_of_exit(error)
    known = _as_known(error)
    if known is None:
        return 2
    _report(known, error, flags)
    return known.exit_code


def _reader_has_gone(look: bool) -> bool:
    """Has the reader of our stdout gone? What cannot be written is dropped, for it must not raise again at exit.

    look: ask the system too, because unbuffered output leaves nothing to flush.
    """
    try:
        _flush()
        gone = lost = look and _hung_up(sys.stdout)
    except OSError as error:
        gone, lost = isinstance(error, BrokenPipeError), True
    if lost:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def _hung_up(stream: TextIO) -> bool:
    """Has the other end of this pipe been closed, where the system can tell?"""
    if not hasattr(select, "poll"):
        return False
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except OSError:
        return False


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _as_known(error: BaseException) -> FommctlError | None:
    """The error as one that has an exit code; None for a command group without a subcommand, which printed its help."""
    if isinstance(error, FommctlError):
        return error
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, typer.Abort) and error.__cause__ is None):
        return InterruptedRunError("interrupted", "Nothing half-written was left behind.")
    if isinstance(error, ClickException):
        message = error.format_message()  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "fommctl"
        message = message.replace("Value error, ", "")
        message = message[:1].lower() + message[1:].rstrip(".")
        return UsageError(message, f"See '{command} --help'.") if message else None
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return OutputError(f"the disk is full: {error}", "Free some space or write elsewhere with -o.")
    if isinstance(error, OSError) and error.errno in NOT_ALLOWED:
        return InputError(f"not allowed: {error}", "Check the permissions of the file and of its folder.")
    return out_of_memory(error) or _bug(error)


def _code_of_exit(error: BaseException) -> int:
    """The code of typer.Exit or of a SystemExit, whose code may be a message, as for sys.exit itself."""
    code = getattr(error, "exit_code", getattr(error, "code", None))
    if code is None or isinstance(code, int):
        return code or 0
    _write(str(code), to_stdout=False)
    return 1


def _report(known: FommctlError, error: BaseException, flags: Flags) -> None:
    if flags.debug:
        _write("".join(traceback.format_exception(error)).rstrip(), to_stdout=False)
    body = {"message": known.message, "hint": known.hint, "exit_code": known.exit_code}
    if flags.json:
        _write(json.dumps({"error": body}), to_stdout=True)
    elif flags.log_format == "json":
        line = logs.json_line("error", known.message, logger="fommctl", hint=known.hint, exit_code=known.exit_code)
        _write(line, to_stdout=False)
    else:
        hint = f"\nhint: {known.hint}" if known.hint else ""
        _write(f"error: {known.message}{hint}", to_stdout=False)


def _write(text: str, *, to_stdout: bool) -> None:
    stream = sys.stdout if to_stdout else sys.stderr
    if stream is None:
        return
    # Nobody listens any more: the exit code is all that can still be told.
    with contextlib.suppress(OSError, ValueError):
        print(text, file=stream, flush=True)


def _bug(error: BaseException) -> FommctlError:
    """An error that nobody foresaw: the traceback goes to a log that a report can carry."""
    message = f"this is a bug in fommctl: {type(error).__name__}: {str(error)[:200]}".rstrip(": ")
    text = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix="fommctl-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"command: {' '.join(sys.argv)}\n{text}")
    except OSError:
        return FommctlError(message, "Please report it with the traceback that --debug shows.")
    return FommctlError(message, f"Please report it with the log {name}.")


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP become KeyboardInterrupt, so that every `with` block cleans up as for Ctrl-C.

    A signal that the caller ignores (nohup, a background job) stays ignored. Signals that follow within a second
    (an impatient second Ctrl-C, a supervisor that signals the whole group) do not disturb the cleaning up. In the
    middle of an import, where libraries catch whatever is raised, the interrupt waits for its end.
    """
    if current_thread() is not main_thread():
        yield
        return
    last = float("-inf")
    asked: float | None = None

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal last, asked
        now = time.monotonic()
        asked = now if asked is None else asked
        if _importing(frame) and now - asked < LONGEST_IMPORT:
            # Not threading.Thread: what is interrupted may be just starting one, and hold its lock.
            _thread.start_new_thread(_signal_again, (signum,))
            return
        previous, last, asked = last, now, None
        if last - previous > 1:
            raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _importing(frame: FrameType | None) -> bool:
    """Whether this frame runs for an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _signal_again(signum: int) -> None:
    time.sleep(0.02)
    if hasattr(signal, "pthread_kill"):
        # To this very thread: what it waits for is interrupted.
        signal.pthread_kill(main_thread().ident or 0, signum)
    else:
        signal.raise_signal(signum)
