"""The one place that turns errors into a message, a hint and an exit code."""

import errno
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import typer

from fommctl.errors import FommctlError, InterruptedRunError, OutputError, UsageError

# typer may carry its own copy of click: the base of its exceptions is taken from typer itself.
ClickException = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


class LogFormatter(logging.Formatter):
    """`warning: text` for people, one JSON object a line for machines."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        level, message = record.levelname.lower(), record.getMessage()
        if self.json:
            return json.dumps({"level": level, "logger": record.name, "message": message})
        return f"{level}: {message}"


def run(work: Callable[[], object], argv: Sequence[str]) -> int:
    """Run `work`, report what it raises, return the exit code. The flags --json, --debug and --log-format of argv count
    even where the arguments could not be parsed."""
    restore = _raise_on_sigterm()
    try:
        code = work()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _report(InterruptedRunError("interrupted", "Nothing half-written was left behind."), argv)
    except ClickException as error:
        message = error.format_message()  # type: ignore[attr-defined]
        return _report(UsageError(message, "See 'fommctl --help' or 'fommctl COMMAND --help'."), argv) if message else 2
    except FommctlError as error:
        return _report(error, argv)
    except BrokenPipeError:
        # The reader of our stdout has gone (`| head`); what remains must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return _report(OutputError(f"the disk is full: {error}", "Free some space or write elsewhere with -o."), argv)
        return _report(_bug(error), argv)
    except Exception as error:
        return _report(_bug(error), argv)
    finally:
        restore()


def _report(error: FommctlError, argv: Sequence[str]) -> int:
    if "--debug" in argv:
        traceback.print_exc()
    body = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
    if "--json" in argv:
        print(json.dumps({"error": body}))
    elif "json" in argv or "--log-format=json" in argv:
        print(json.dumps({"level": "error", **body}), file=sys.stderr)
    else:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code


def _bug(error: Exception) -> FommctlError:
    """An error that nobody foresaw: the traceback goes to a log that a report can carry."""
    text = "".join(traceback.format_exception(error))
    handle, name = tempfile.mkstemp(prefix="fommctl-", suffix=".log")
    with os.fdopen(handle, "w") as log:
        log.write(f"command: {' '.join(sys.argv)}\n{text}")
    message = f"this is a bug in fommctl: {type(error).__name__}: {str(error)[:200]}"
    return FommctlError(message, f"Please report it with the log {Path(name)}.")


def _raise_on_sigterm() -> Callable[[], None]:
    """SIGTERM becomes KeyboardInterrupt, so that every `with` block cleans up as for Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    return lambda: signal.signal(signal.SIGTERM, previous) and None
