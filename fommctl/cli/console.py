"""Output of all commands: results, tables, progress and messages, and the session with the output options.

Everything that goes to a terminal passes through `clean`, because file names, model files, servers and plugins may
contain control characters.
"""

import contextlib
import datetime
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

NARROWEST = 60
LOGGERS = ("fommctl", "py.warnings")
"""Our logger, and Python's warnings of libraries, which are shown only with -v."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters except tab and newline, and characters that change the direction of text."""
_REMARK = re.compile(r"(INFO|WARNING|[IW]\d{4} )")
"""Beginning of lines by absl and TensorFlow Lite that are not errors."""
log = logging.getLogger(__name__)


class LogFormat(StrEnum):
    """Format of messages: text and JSON go to stderr, lines for Open Job Description's runners to stdout."""

    TEXT = "text"
    JSON = "json"
    OPENJD = "openjd"


def without_controls(text: str) -> str:
    """Replace characters that could move the cursor, change colours or change the direction of text."""
    return _CONTROL.sub("\ufffd", text)


def clean(text: str) -> str:
    """Replace control characters, and indent all lines after the first, so that none looks like a separate message."""
    first, *more = without_controls(text).split("\n")
    return "\n".join([first, *(line if line.startswith("  ") else f"  {line}" for line in more)])


def on_one_line(name: object) -> str:
    """Return an untrusted name on one line: text after a newline in it could look like a message."""
    return without_controls(str(name)).replace("\n", "\ufffd")


def counted(number: int, noun: str) -> str:
    """Return `1 frame` or `2 frames`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def say(text: str) -> None:
    """Print a message to stderr. If the terminal is gone, the message is lost, but nothing fails."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(without_controls(text), file=sys.stderr, flush=True)


def tell(message: str, *, as_json: bool, logger: str, level: str = "info") -> None:
    """Print a progress message to stderr; not through logging, which by default shows only warnings."""
    text = f"{level}: {message}" if level != "info" else message
    say(json_line(level, message, logger=logger) if as_json else clean(text))


def make_console(*, stderr: bool = False) -> "Console":
    """Return a rich console that replaces control characters."""
    from rich.console import Console
    from rich.segment import Segment

    class CleanConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                plain = segment.control or segment.text.isprintable()
                yield segment if plain else Segment(without_controls(segment.text), segment.style)

    if stderr:
        return CleanConsole(file=_Stderr(), highlight=False)  # type: ignore[arg-type]
    return CleanConsole(highlight=False, soft_wrap=True, markup=False, emoji=False)


class _Stderr:
    """The current sys.stderr, below rich's own stream; writing does nothing if it is gone."""

    terminal: ClassVar[TextIO | None] = None
    """Stream for displays while file descriptor 2 is redirected."""

    @property
    def _stream(self) -> TextIO:
        if self.terminal is not None:
            return self.terminal
        stream: TextIO = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        return stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        if name == "rich_proxied_file":
            raise AttributeError(name)
        return getattr(self._stream, name)


@dataclass
class Session:
    """One run of one command."""

    json: bool = False
    quiet: bool = False
    log_format: str = LogFormat.TEXT
    verbose: int = 0
    debug: bool = False
    warnings: "WarningCollector | None" = field(default=None, repr=False)
    """Warnings so far."""
    stdout: TextIO | None = field(default=None, repr=False)
    """Stream of the result; None: sys.stdout."""
    _stderr: "Console | None" = field(default=None, repr=False)

    @property
    def stderr(self) -> "Console":
        """A rich console on stderr, created when first needed."""
        if self._stderr is None:
            self._stderr = make_console(stderr=True)
        return self._stderr

    @property
    def shows_progress(self) -> bool:
        """Whether to show progress: stderr is an interactive terminal, and progress is not switched off."""
        wanted = not self.quiet and not self.json and self.log_format == LogFormat.TEXT
        return wanted and sys.stderr.isatty()

    def result(self, data: Mapping[str, Any], text: "RenderableType | None" = None) -> None:
        """Print the result of the command: `data` under --json, else `text` for people.

        A string is printed literally (brackets in a file name are not markup); for colours pass a rich Text.
        Warnings are added to the JSON's list of warnings, if it has one.
        Raises ValueError if `data` contains NaN or infinity.
        """
        if self.json:
            told = data.get("warnings")
            if isinstance(told, list) and self.warnings is not None:
                data = {**data, "warnings": list(dict.fromkeys([*told, *self.warnings.messages]))}
            print(json.dumps(data, allow_nan=False), file=self.stdout, flush=True)
        elif text is not None:
            console = make_console()
            # With fewer columns a table would drop cells; let the terminal wrap its lines instead.
            console.width = max(console.width, NARROWEST)
            console.print(text)

    def summary(self, data: Mapping[str, Any], text: "RenderableType | None" = None) -> None:
        """Print a result like `result`, but not under --quiet: for commands whose actual result is files."""
        self.result(data, None if self.quiet else text)

    @contextlib.contextmanager
    def progress(self, label: str, unit: str = "frames") -> Iterator["Report"]:
        """Show a progress bar with ETA and rate on stderr; yields report(done, total). Nothing is shown without a
        terminal or with machine-readable output; Open Job Description's runners get their own lines."""
        if self.log_format == LogFormat.OPENJD:
            yield openjd_progress(label)
            return
        if not self.shows_progress:
            yield Report(label)
            return
        from rich import progress
        from rich.text import Text

        class Rate(progress.ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.speed:.1f} {unit}/s" if task.speed else "")

        class Bar(progress.BarColumn):
            def render(self, task: Any) -> Any:
                # For an unknown total rich would draw a full bar.
                return super().render(task) if task.total is not None else Text("...")

        class Count(progress.MofNCompleteColumn):
            def render(self, task: Any) -> Text:
                return super().render(task) if task.completed or task.total is not None else Text("")

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            Bar(),
            Count(),
            Rate(),
            progress.TimeRemainingColumn(),
        )
        with undisturbed(self.stderr), progress.Progress(*columns, console=self.stderr, transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield Report(label, lambda **now: bar.update(task, **now))


@dataclass(frozen=True, slots=True)
class Report:
    """Callback to a progress bar: report(done, total or None), and the phase before it."""

    label: str
    _show: Callable[..., None] = lambda **now: None

    def __call__(self, done: int, total: int | None) -> None:
        self._show(description=self.label, completed=done, total=total)

    def phase(self, text: str) -> None:
        """Show what is being done before there is anything to count."""
        self._show(description=text)


@contextlib.contextmanager
def undisturbed(display: "Console") -> Iterator[None]:
    """Print what native libraries write to file descriptor 2 above a display, line by line.

    Written directly, such lines would garble the display. Lines that are not errors are shown only with -v.
    """
    source, sink = os.pipe()
    terminal = os.dup(2)
    os.dup2(sink, 2)
    os.close(sink)
    _Stderr.terminal = os.fdopen(terminal, "w", encoding=sys.stderr.encoding, errors="backslashreplace")
    passing = threading.Thread(target=_pass_on, args=(source, display), daemon=True)
    passing.start()
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        # Processes started meanwhile may keep the other end open.
        passing.join(0.5)
        with contextlib.suppress(OSError, ValueError):
            _Stderr.terminal.close()
        _Stderr.terminal = None


def _pass_on(source: int, display: "Console") -> None:
    with os.fdopen(source, encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            if _REMARK.match(line):
                log.info("%s", line.rstrip())
            else:
                display.print(line.rstrip(), markup=False, emoji=False)


class LogFormatter(logging.Formatter):
    """One record as text or as a JSON object with time (UTC, ISO 8601), level, logger and message."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        message = clean(record.getMessage().rstrip())
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        if self.json:
            return json_line(record.levelname.lower(), message, logger=record.name)
        return f"{record.levelname.lower()}: {message}"


def json_line(level: str, message: str, **more: object) -> str:
    """Return a message as a line of JSON."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "level": level, "message": message, **more})


def openjd_line(kind: str, message: str) -> str:
    """Return one line for a runner of Open Job Description.  kind: `progress`, `status` or `fail`."""
    return f"openjd_{kind}: {' '.join(clean(message).split())}"


def openjd_progress(label: str) -> Report:
    """Return a report that prints lines for a runner of Open Job Description: each phase, and each percent once."""
    last, phase = -1, ""

    def show(description: str, completed: int = 0, total: int | None = None) -> None:
        nonlocal last, phase
        if description != phase:
            phase = description
            print(openjd_line("status", phase), flush=True)
        percent = min(100, 100 * completed // total) if total else 0
        if percent > last:
            last = percent
            print(openjd_line("progress", str(percent)), flush=True)

    report = Report(label, show)
    report.phase(label)
    return report


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the current sys.stderr, so that messages and a progress bar do not overwrite each other."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class WarningCollector(logging.Handler):
    """Keeps the warnings of a run, for its JSON."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self.messages.append(record.getMessage())


def start_logging(style: str, verbosity: int = 0, quiet: bool = False) -> WarningCollector:
    """Send the records of fommctl to stderr: warnings; with verbosity 1 information too, with 2 all; quiet: errors.

    Returns what collects the warnings, whether they are shown or not.
    """
    handler, collector = StderrHandler(), WarningCollector()
    handler.setFormatter(LogFormatter(style))
    level = logging.ERROR if quiet else {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    handler.setLevel(level)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        ours = name == "fommctl"
        logger.handlers[:] = [handler, collector] if ours else [handler]
        logger.propagate = False
        logger.setLevel(min(level, logging.WARNING) if ours else level if verbosity else logging.ERROR)
    logging.captureWarnings(True)
    return collector


@contextlib.contextmanager
def logging_restored() -> Iterator[None]:
    """Leave logging as it was: the command line may run inside another program."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, handlers, propagate, level in before:
            logger.handlers[:] = handlers
            logger.propagate = propagate
            logger.setLevel(level)
