"""What every command shares: the common options, where results, logs and progress go."""

import contextlib
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from fommctl.cli import logs
from fommctl.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PANEL = "Output and diagnosis"
NARROWEST = 60


class LogFormat(StrEnum):
    """How messages on stderr look."""

    TEXT = "text"
    JSON = "json"


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.", rich_help_panel=PANEL)
]
VerboseOption = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="More messages; twice for all.", rich_help_panel=PANEL)
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only, no progress.", rich_help_panel=PANEL)]
LogFormatOption = Annotated[
    LogFormat, typer.Option("--log-format", help="How messages on stderr look.", rich_help_panel=PANEL)
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=PANEL)]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the preset (a.b=c); repeatable."),
]


@dataclass
class Session:
    """One run of one command."""

    json: bool = False
    quiet: bool = False
    log_format: str = LogFormat.TEXT
    verbose: int = 0
    debug: bool = False
    warnings: "logs.WarningCollector | None" = field(default=None, repr=False)
    """What was warned of so far."""
    stdout: TextIO | None = field(default=None, repr=False)
    """Where the result goes; None: sys.stdout."""
    _stderr: "Console | None" = field(default=None, repr=False)

    @property
    def stderr(self) -> "Console":
        """A rich console on stderr, made when first needed."""
        if self._stderr is None:
            from rich.console import Console

            self._stderr = Console(stderr=True, highlight=False)
        return self._stderr

    @property
    def shows_progress(self) -> bool:
        """Whether stderr is a terminal with a person before it, who wants to see how far the work is."""
        wanted = not self.quiet and not self.json and self.log_format == LogFormat.TEXT
        return wanted and sys.stderr.isatty()

    def result(self, data: Mapping[str, Any], text: "RenderableType | None" = None) -> None:
        """The result of the command: `data` under --json, else `text` for people.

        A string is printed as it is (brackets of a file name are no markup); for colours give a rich Text.
        Whatever was warned of is in the JSON too, where it has a list of warnings.
        Raises ValueError where `data` holds NaN or infinity.
        """
        if self.json:
            told = data.get("warnings")
            if isinstance(told, list) and self.warnings is not None:
                data = {**data, "warnings": list(dict.fromkeys([*told, *self.warnings.messages]))}
            print(json.dumps(data, allow_nan=False), file=self.stdout, flush=True)
        elif text is not None:
            from rich.console import Console

            console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
            # In fewer columns a table drops its cells; the terminal breaks its lines instead.
            console.width = max(console.width, NARROWEST)
            console.print(text)

    def summary(self, data: Mapping[str, Any], text: "RenderableType | None" = None) -> None:
        """As `result`, for a command whose result is what it wrote: --quiet prints nothing then."""
        self.result(data, None if self.quiet else text)

    @contextlib.contextmanager
    def progress(self, label: str, unit: str = "frames") -> Iterator[Callable[[int, int | None], None]]:
        """A progress bar with ETA and rate on stderr; yields report(done, total). Silent without a terminal,
        and where stdout or stderr is for machines."""
        if not self.shows_progress:
            yield lambda done, total: None
            return
        from rich import progress
        from rich.text import Text

        class Rate(progress.ProgressColumn):
            def render(self, task: Any) -> Text:
                return Text(f"{task.speed:.1f} {unit}/s" if task.speed else "")

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            Rate(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=self.stderr, transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def command(
    app: typer.Typer, name: str | None = None, **kwargs: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `function(session, ...)` as a command of `app` with the shared options added to its own."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def wrapper(
            *args: Any, json: bool, verbose: int, quiet: bool, log_format: LogFormat, debug: bool, **own: Any
        ) -> None:
            if quiet and verbose:
                raise UsageError("--quiet and --verbose exclude each other", "Give one of them.")
            collector = logs.start(log_format, verbose, quiet)
            session = Session(json, quiet, log_format, verbose, debug, collector, stdout=sys.stdout)
            # What a library or a plugin prints must not mix with the JSON object.
            with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
                function(session, *args, **own)

        shared = {
            "json": (JsonOption, False),
            "verbose": (VerboseOption, 0),
            "quiet": (QuietOption, False),
            "log_format": (LogFormatOption, LogFormat.TEXT),
            "debug": (DebugOption, False),
        }
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        extra = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for key, (annotation, default) in shared.items()
        ]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        wrapper.__signature__ = inspect.Signature([*own, *extra])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *extra]}
        del wrapper.__wrapped__
        app.command(name, **kwargs)(wrapper)
        return function

    return register
