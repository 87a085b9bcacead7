"""The `fommctl` command: its entry, its signals, and the one place that turns errors into messages and exit codes.

Importing it loads little, so that Ctrl-C is answered from the first moment on: typer is imported by `entry`.
"""

import _thread
import contextlib
import errno
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, SimpleNamespace
from typing import TextIO

from fommctl import signals
from fommctl.errors import (
    FULL_DISK,
    FommctlError,
    InputError,
    InterruptedRunError,
    MissingError,
    OutputError,
    UsageError,
    describe,
    out_of_memory,
    plugin_of,
)

COMMANDS = (
    "animate",
    "edit",
    "batch",
    "farm",
    "crop",
    "preprocess",
    "train",
    "evaluate",
    "inspect",
    "doctor",
    "bench",
    "demo",
    "models",
    "presets",
    "plugins",
)
"""The modules of this package with a command or a group of them, in the order of --help."""
COMPLETION_VARIABLE = "_FOMMCTL_COMPLETE"
LONGEST_IMPORT = 5.0
"""Seconds that an interrupt waits for the end of an import."""
INTERRUPTED = InterruptedRunError("interrupted", "Nothing half-written was left behind.")


def entry() -> None:
    """Run the command line and exit with its code: the console script."""
    # Until `run` takes the signals over there is nothing to clean up, and an exception in the middle of an import is
    # not always passed on: the process ends at once.
    signals.answer(_end)
    _open_standard_streams()
    if "--json" in sys.argv:
        _keep_stdout_for_the_result()
    # Read by torch's OpenMP when it is loaded. Its threads spin for milliseconds between two layers of a network and
    # take the cores from decoder and encoder; beside another busy process this more than halves the speed (measured
    # with one busy loop on two cores: 25 frames/s against 40), and on an idle machine nothing is lost.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        from fommctl.cli import options  # noqa: F401  # with typer

        if sys.argv[1:2] == ["doctor"]:
            # What would fail later.
            import pydantic  # noqa: F401
            import rich.console  # noqa: F401
    except Exception as error:
        sys.exit(_without_libraries(error))
    code = main()
    # The result is printed: a signal from now on must not add an error to it.
    signals.answer(lambda signum, frame: os._exit(code))
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run(lambda: _dispatch(arguments), arguments)


def _dispatch(arguments: list[str]) -> None:
    import typer

    from fommctl.cli.options import build_app

    app = build_app(COMMANDS)
    if COMPLETION_VARIABLE in os.environ:
        app(prog_name="fommctl")
    # Not app(...): typer's own main would turn an EOFError into an abort and swallow KeyboardInterrupt.
    command = typer.main.get_command(app)
    # Parsing empties the list, but the report of `evaluate` shows the whole command.
    with command.make_context("fommctl", list(arguments), obj=tuple(arguments)) as context:
        command.invoke(context)


def _without_libraries(error: Exception) -> int:
    """Handle broken libraries of the command line itself: doctor prints its report without them."""
    if sys.argv[1:2] == ["doctor"]:
        from fommctl.doctor.run import run

        report = run()
        lines = [f"{row.area}, {row.name}: {row.level}: {row.value}" for row in report.rows]
        lines += ["", report.verdict, *(f"{row.area}, {row.name}: {row.advice}" for row in report.problems)]
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(report.to_json()) if "--json" in sys.argv else "\n".join(lines), flush=True)
        return report.exit_code
    message = f"a package that fommctl needs cannot be loaded: {type(error).__name__}: {error}"
    known = MissingError(message, "Run 'fommctl doctor' to see how to fix it.")
    _write(_formatted(known, _flags(sys.argv)), to_stdout="--json" in sys.argv)
    return known.exit_code


def _flags(argv: Sequence[str]) -> SimpleNamespace:
    """Return the shared flags that apply even if the arguments cannot be parsed: json, debug, quiet, log_format."""
    words = list(argv[: argv.index("--")] if "--" in argv else argv)
    after = dict(itertools.pairwise(words))
    formats = ("json", "openjd")
    named = (each for each in formats if f"--log-format={each}" in words or after.get("--log-format") == each)
    return SimpleNamespace(
        json="--json" in words,
        debug="--debug" in words,
        quiet="-q" in words or "--quiet" in words,
        log_format=next(named, "text"),
        ours=next((word for word in words if not word.startswith("-")), None) in COMMANDS,
    )


def run(work: Callable[[], object], argv: Sequence[str]) -> int:
    """Run `work`, report its error in the format of the flags in argv, and return the exit code: the result of `work`
    if it is an int, else 0. Within `work`, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt."""
    from fommctl.cli import console

    flags = _flags(argv)
    with console.logging_restored():
        console.start_logging(flags.log_format, quiet=flags.quiet)
        try:
            with _signals_raise():
                result = work()
                _flush()
            return result if isinstance(result, int) else 0
        except BaseException as error:  # whatever plugins and libraries raise
            return _code_of(error, flags)


def _code_of(error: BaseException, flags: SimpleNamespace) -> int:
    import typer

    broken = isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError)
    gone, lost = _stdout_is_lost(look=broken)
    if broken and (gone or isinstance(error, SystemExit)):
        return 0  # `| head` has seen enough. rich makes a SystemExit of it.
    if isinstance(error, typer.Exit) or (isinstance(error, SystemExit) and not (flags.ours and _their_plugin(error))):
        return _code_of_exit(error)
    # What stdout cannot take is told on stderr.
    flags.json = flags.json and not lost
    known = _as_known(error)
    if known is None:
        return 2
    _report(known, error, flags)
    return known.exit_code


def _stdout_is_lost(look: bool) -> tuple[bool, bool]:
    """Return whether the reader of our stdout has gone, and whether stdout cannot be written to, for that or another
    reason such as a full disk. Unwritten output is dropped, so that it does not raise again at exit.

    look: query the system too, because unbuffered output leaves nothing to flush.
    """
    try:
        _flush()
        gone = lost = look and _hung_up(sys.stdout)
    except OSError as error:
        gone, lost = isinstance(error, BrokenPipeError), True
    if lost:
        _drop_stdout()
    return gone, lost


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _hung_up(stream: TextIO) -> bool:
    """Return whether the other end of this pipe was closed, on systems that can report it."""
    import select

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
    """Convert the error to one with an exit code; None for a command group without a subcommand, which has printed its
    help."""
    import typer

    if isinstance(error, FommctlError):
        return error
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, typer.Abort) and error.__cause__ is None):
        return INTERRUPTED
    # typer may carry its own copy of click: the base of its exceptions is taken from typer itself.
    if isinstance(error, next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")):
        from fommctl.cli.options import usage_error

        return usage_error(error)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return OutputError(f"the disk is full: {error}", "Free some space or write elsewhere with -o.")
    if isinstance(error, OSError) and error.errno == errno.EIO and error.filename is None:
        return OutputError("the terminal or pipe that fommctl writes to was closed", "Write results to a file.")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"not allowed: {error}", "Check the permissions of the file and of its folder.")
    if isinstance(error, OSError) and error.filename is not None:
        # Moved or removed meanwhile, too long a name, a folder instead of a file.
        reason = (error.strerror or str(error)).lower()
        return InputError(f"{reason}: {str(error.filename)[:200]!r}", "Check the name, and whether it still exists.")
    if isinstance(error, ValueError) and "null byte" in str(error):
        return UsageError("a name contains a null character", "Check what generated it.")
    return out_of_memory(error) or _bug(error)


def _code_of_exit(error: BaseException) -> int:
    """Return the code of typer.Exit or of a SystemExit, whose code may be a message, as for sys.exit itself."""
    code = getattr(error, "exit_code", getattr(error, "code", None))
    if code is None or isinstance(code, int):
        return code or 0
    _write(str(code), to_stdout=False)
    return 1


def _report(known: FommctlError, error: BaseException, flags: SimpleNamespace) -> None:
    if flags.debug:
        import traceback

        _write("".join(traceback.format_exception(error)).rstrip(), to_stdout=False)
    if known is INTERRUPTED and _told_elsewhere():
        return
    to_stdout = flags.json or flags.log_format == "openjd"
    if not _write(_formatted(known, flags), to_stdout=to_stdout) and flags.json:
        # If stdout cannot be written to, because its disk is full, the error goes to stderr.
        _drop_stdout()
        _write(_formatted(known, SimpleNamespace(json=False, log_format=flags.log_format)), to_stdout=False)


def _formatted(known: FommctlError, flags: SimpleNamespace) -> str:
    """Format an error by the flags: JSON for stdout, else a line of JSON or text for stderr, or one for a runner of
    Open Job Description."""
    from fommctl.cli.console import clean, json_line, openjd_line

    if flags.json:
        return json.dumps({"error": {"message": known.message, "hint": known.hint, "exit_code": known.exit_code}})
    if flags.log_format == "json":
        return json_line("error", known.message, logger="fommctl", hint=known.hint, exit_code=known.exit_code)
    if flags.log_format == "openjd":
        return openjd_line("fail", f"{known.message}. {known.hint or ''}")
    hint = f"\nhint: {clean(known.hint)}" if known.hint else ""
    return f"error: {clean(known.message)}{hint}"


def _write(text: str, *, to_stdout: bool) -> bool:
    """Print a line; return whether that worked. If the stream is closed, only the exit code can still be reported."""
    from fommctl.cli.console import without_controls

    stream = sys.stdout if to_stdout else sys.stderr
    try:
        if stream is not None:
            print(without_controls(text), file=stream, flush=True)
    except (OSError, ValueError):
        return False
    return True


def _their_plugin(error: BaseException) -> str | None:
    """Return the name of the third-party plugin in whose code an error was raised; None if there is none."""
    plugin = plugin_of(error)
    return None if plugin is None or plugin.endswith(" of fommctl") else plugin


def _bug(error: BaseException) -> FommctlError:
    """Convert an unexpected error, ours or a plugin's; the traceback is written to a log for a bug report."""
    import tempfile
    import traceback

    plugin = _their_plugin(error)
    message = f"{'this is a bug in fommctl' if plugin is None else f'{plugin} failed'}: {describe(error)}"
    report = "Leave the plugin out with FOMMCTL_PLUGINS, or report it to its authors" if plugin else "Please report it"
    text = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix="fommctl-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"command: {' '.join(sys.argv)}\n{text}")
    except OSError:
        return FommctlError(message, f"{report} with the traceback that --debug shows.")
    return FommctlError(message, f"{report} with the log {name}.")


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, so that every `with` block cleans up as for Ctrl-C.

    A signal that the caller ignores (nohup, a background job) stays ignored. Signals within a second of the first (a
    second Ctrl-C, a supervisor that signals the whole group) do not disturb cleaning up. During an import, where
    libraries may catch any exception, the interrupt waits for its end.
    """
    last = float("-inf")
    asked: float | None = None

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal last, asked
        now = time.monotonic()
        asked = now if asked is None else asked
        if _importing(frame) and now - asked < LONGEST_IMPORT:
            # Not threading.Thread: the interrupted code may be starting one, and hold its lock.
            _thread.start_new_thread(_signal_again, (signum,))
            return
        previous, last, asked = last, now, None
        if last - previous > 1:
            raise KeyboardInterrupt

    with signals.handled(interrupt):
        yield


def _importing(frame: FrameType | None) -> bool:
    """Return whether this frame is part of an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _signal_again(signum: int) -> None:
    time.sleep(0.02)
    signals.send_to_main_thread(signum)


def _told_elsewhere() -> bool:
    """Return whether another process reports the cause: torchrun ends all processes of a run when one has failed."""
    return sys.argv[1:2] == ["train"] and os.environ.get("RANK", "0") != "0"


def _end(signum: int, frame: FrameType | None) -> None:
    as_json = "--json" in sys.argv
    body = {"message": INTERRUPTED.message, "hint": INTERRUPTED.hint, "exit_code": INTERRUPTED.exit_code}
    text = json.dumps({"error": body}) if as_json else f"error: {INTERRUPTED.message}\nhint: {INTERRUPTED.hint}"
    stream = sys.stdout if as_json else sys.stderr
    try:
        if stream is not None and not _told_elsewhere():
            os.write(stream.fileno(), f"{text}\n".encode())
    finally:
        os._exit(INTERRUPTED.exit_code)


def _open_standard_streams() -> None:
    """Reopen closed standard streams (`2>&-`): otherwise the next file opened would get their number, and output of
    libraries would end up in it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A file name need not be text in the encoding of the terminal.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _keep_stdout_for_the_result() -> None:
    """Send what libraries and their programs write to file descriptor 1 to stderr; sys.stdout keeps the
    way to where the caller reads."""
    stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(2, 1)
    sys.stdout = stdout
