"""The console script. It imports little, so that Ctrl-C is answered from the first moment on."""

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

INTERRUPTED = 130
MISSING = 5
PLAIN = b"error: interrupted\nhint: Nothing half-written was left behind.\n"
JSON = b'{"error": {"message": "interrupted", "hint": "Nothing half-written was left behind.", "exit_code": 130}}\n'


def entry() -> None:
    """Run the command line and exit with its code."""
    _end_at_a_signal(_end)
    _open_standard_streams()
    if "--json" in sys.argv:
        _keep_stdout_for_the_result()
    # Read by torch's OpenMP when it is loaded. Its threads spin for milliseconds between two layers of a network and
    # take the cores from decoder and encoder; beside another busy process this more than halves the speed (measured
    # with one busy loop on two cores: 25 frames/s against 40), and on an idle machine nothing is lost.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        from fommctl.cli.app import build_app, main

        if sys.argv[1:2] == ["doctor"]:
            # What would fail later.
            import pydantic  # noqa: F401
            import rich.console  # noqa: F401

            build_app()
    except Exception as error:
        sys.exit(_without_libraries(error))
    code = main()
    # The result is told: a signal that comes now must not add an error to it.
    _end_at_a_signal(lambda signum, frame: os._exit(code))
    sys.exit(code)


def _without_libraries(error: Exception) -> int:
    """Answer where the libraries of the command line itself are broken: doctor prints its report without them."""
    if sys.argv[1:2] == ["doctor"]:
        from fommctl.doctor.run import run

        report = run()
        lines = [f"{row.area}, {row.name}: {row.level}: {row.value}" for row in report.rows]
        lines += ["", report.verdict, *(f"{row.area}, {row.name}: {row.advice}" for row in report.problems)]
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(report.to_json()) if "--json" in sys.argv else "\n".join(lines), flush=True)
        return report.exit_code
    message = f"a package that fommctl needs cannot be loaded: {type(error).__name__}: {error}"
    hint = "Run 'fommctl doctor'; it says what to do."
    if "--json" in sys.argv:
        print(json.dumps({"error": {"message": message, "hint": hint, "exit_code": MISSING}}))
    else:
        print(f"error: {message}\nhint: {hint}", file=sys.stderr)
    return MISSING


def _end_at_a_signal(end: Callable[[int, FrameType | None], None]) -> None:
    """Until `boundary.run` takes the signals over there is nothing to clean up, and an exception in the middle of an
    import is not always passed on: the process ends at once. Signals that the caller ignores stay ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


def _end(signum: int, frame: FrameType | None) -> None:
    stream, text = (sys.stdout, JSON) if "--json" in sys.argv else (sys.stderr, PLAIN)
    try:
        if stream is not None:
            os.write(stream.fileno(), text)
    finally:
        os._exit(INTERRUPTED)


def _open_standard_streams() -> None:
    """Where the caller closed one of the three (`2>&-`), the next file to be opened would take its number, and what
    a library then prints would end up in the result."""
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
    """What a library or a program that it starts writes to file descriptor 1 goes to stderr; sys.stdout keeps the
    way to where the caller reads."""
    stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(2, 1)
    sys.stdout = stdout
