"""Building commands from functions and configuration classes, whose options are declared once; the group that builds
commands when they are called; and errors for wrong command lines.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import itertools
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

from fommctl import __version__
from fommctl.cli import console
from fommctl.cli.console import LogFormat, Session, clean, make_console
from fommctl.errors import FommctlError, ProblemsError, UsageError
from fommctl.files import ADDRESS, not_there
from fommctl.presets.config import nearest

if TYPE_CHECKING:
    from fommctl.host import Host
    from fommctl.options import OptionField

EPILOG = (
    "Exit codes: 0 done; 1 bug; 2 usage; 3 input or output; 4 model; 5 something optional is missing; "
    "6 some checks or jobs failed; 130 interrupted."
)
PANEL = "Output and diagnosis"
PANEL_OF_PLUGINS = "Commands of plugins"
SHARED: Mapping[str, tuple[Any, Any]] = {
    "json": (
        Annotated[
            bool,
            typer.Option("--json", help="Print one JSON object, and nothing else, on stdout.", rich_help_panel=PANEL),
        ],
        False,
    ),
    "verbose": (
        Annotated[
            int,
            typer.Option(
                "--verbose", "-v", count=True, help="Print more messages; -vv prints all.", rich_help_panel=PANEL
            ),
        ],
        0,
    ),
    "quiet": (
        Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors, no progress.", rich_help_panel=PANEL)],
        False,
    ),
    "log_format": (
        Annotated[
            LogFormat,
            typer.Option(
                "--log-format",
                help="Format of messages on stderr; openjd: progress and errors on stdout, in the form that Open Job "
                "Description runners read.",
                rich_help_panel=PANEL,
            ),
        ],
        LogFormat.TEXT,
    ),
    "debug": (
        Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=PANEL)],
        False,
    ),
}
"""Options of every command: annotation and default."""
NOT_GIVEN: tuple[Any, ...] = (None, (), [])
_ORDER = "Give the source first and the driving video second, without options: animate SOURCE DRIVING -o RESULT."
HABITS: Mapping[str, str] = {
    "-s": _ORDER,
    "-d": _ORDER,
    "-t": _ORDER,
    "-i": _ORDER,
    "--source": _ORDER,
    "--source-image": _ORDER,
    "--target": _ORDER,
    "--driving": _ORDER,
    "--driving-video": _ORDER,
    "--relative": "Write --motion relative; --motion absolute is the opposite.",
    "--no-relative": "Write --motion absolute.",
    "--find-best-frame": "Write --best-frame auto.",
    "--cpu": "Write --device cpu.",
    "--config": "Write --preset.",
    "--checkpoint": "Write --model.",
    "--result-video": "Write -o.",
    "--log-dir": "Write --out.",
    "--device-ids": "Write --device cuda:N.",
    "-y": "Write --overwrite.",
    "--yes": "Write --overwrite.",
    "--force": "Write --overwrite.",
    "--epochs": "Write --max-steps N, or --set train_params.num_epochs=N.",
    "--num-epochs": "Write --max-steps N, or --set train_params.num_epochs=N.",
}
"""Options of the published FOMM code, LivePortrait, facefusion and ffmpeg, and their names here."""
logger = logging.getLogger("fommctl.cli")


def build_app(modules: Sequence[str]) -> typer.Typer:
    """Return the application with the commands of these modules of `fommctl.cli`, and with those of plugins."""
    app = typer.Typer(
        name="fommctl",
        cls=type("Commands", (Commands,), {"modules": tuple(modules)}),
        help="Animate a still image with the motion of a video.",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
        ] = False,
        plugin: Annotated[
            list[Path] | None,
            typer.Option(
                "--plugin",
                help="Also load a plugin that is not installed, from its project, package or module; repeatable.",
                callback=_add_plugins,
                is_eager=True,
                metavar="PATH",
            ),
        ] = None,
    ) -> None:
        pass

    return app


def built(name: str) -> Any:
    """Return the command, or the group of commands, of a module of `fommctl.cli`."""
    app = typer.Typer(add_completion=False)
    _module(name).register(app)
    return typer.main.get_group(app).commands[name]


def command(
    app: typer.Typer,
    name: str | None = None,
    *,
    reads: Mapping[str, Any] = MappingProxyType({}),
    given: Mapping[str, Any] = MappingProxyType({}),
    panels: Sequence[str] = (),
    unless: str | None = None,
    **kwargs: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `function(session, ...)` as a command of `app` with the shared options added to its own.

    reads: parameters of the function that are replaced by the options of a configuration class, by the class, or by a
    tuple of the class and the fields to use; the function gets the configuration.  given: like `reads`, but without
    defaults: the function gets a mapping of the options that were given.  panels: order of the panels in --help, if it
    differs from the options' order; the first is for `given`.  unless: an option with which arguments of the
    configuration may be missing; they are then empty paths.
    """
    chosen = {key: each if isinstance(each, tuple) else (each,) for key, each in {**reads, **given}.items()}
    classes = {key: each[0] for key, each in chosen.items()}

    def register(function: Callable[..., None]) -> Callable[..., None]:
        signature = list(inspect.signature(function).parameters.values())[1:]
        own = [_evaluated(each, function) for each in signature if each.name not in chosen]
        by_name = {each.name: [each] for each in own} | {
            key: list(_parameters(*each, required=unless is None, panel=panels[0] if key in given else None))
            for key, each in chosen.items()
        }
        options = [parameter for each in signature for parameter in by_name[each.name]]
        options.sort(key=lambda each: panels.index(panel) if (panel := _panel(each)) in panels else -1)
        fields = frozenset(each.name for each in options) - {each.name for each in own}

        def wrapper(
            *, json: bool, verbose: int, quiet: bool, log_format: LogFormat, debug: bool, **values: Any
        ) -> None:
            if quiet and verbose:
                raise UsageError("--quiet and --verbose exclude each other", "Give one of them.")
            collector = console.start_logging(log_format, verbose, quiet)
            session = Session(json, quiet, log_format, verbose, debug, collector, stdout=sys.stdout)
            rest = {each.name: values[each.name] for each in own}
            found = read(classes, values, optional=values.get(unless or "") is not None)
            for key in given:
                named = [each.name for each in by_name[key] if values[each.name] not in NOT_GIVEN]
                found[key] = {name: getattr(found[key], name) for name in named}
            # Output of libraries and plugins must not mix with the JSON object.
            with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
                function(session, **found, **rest)

        shared = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for key, (annotation, default) in SHARED.items()
        ]
        all_of_them = [*(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in options), *shared]
        wrapper.__signature__ = inspect.Signature(all_of_them)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in all_of_them}
        wrapper.__name__, wrapper.__doc__ = function.__name__, function.__doc__
        app.command(name, cls=type("Command", (Command,), {"fields": fields}), **kwargs)(wrapper)
        return function

    return register


def read(classes: Mapping[str, type], values: Mapping[str, Any], *, optional: bool = False) -> dict[str, Any]:
    """Return a configuration of each class, by the names of the function's parameters.

    values: values from typer, by the name of the field; None and () mean that an option was not given.  optional:
    required paths may be missing. Raises UsageError with the problems of all configurations.
    """
    from fommctl.options import option_fields, together

    found: dict[str, Any] = {}
    problems: list[UsageError] = []
    for parameter, cls in classes.items():
        fields = option_fields(cls)
        given: dict[str, Any] = {name: Path() for name, field in fields.items() if optional and field.required}
        given |= {name: values[name] for name in fields if values.get(name) not in NOT_GIVEN}
        try:
            found[parameter] = cls(**given)
        except ProblemsError as error:
            problems += error.problems
        except UsageError as error:
            problems.append(error)
    if problems:
        raise together(problems)
    return found


def check_there(*paths: Path | None) -> None:
    """Raise InputError for an input that does not exist, before any library is loaded to look into it."""
    for path in paths:
        # A pattern of frames names no file.
        if path is None or (("%" in path.name or "#" in path.name) and not ADDRESS.match(str(path))):
            continue
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise not_there(path) from error
        except (OSError, ValueError):
            # The library that opens it reports the reason.
            continue


def usage_error(error: Any) -> UsageError | None:
    """Convert typer's error about a command line; None for a group that has printed its help."""
    message = error.format_message()
    if not message:
        return None
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "fommctl"
    message = message.replace("Value error, ", "")
    message = message[:1].lower() + message[1:].rstrip(".")
    hint = f"See '{path} --help'."
    option = (getattr(error, "option_name", None) or "").replace("_", "-")
    if option:
        message = message.partition(" (")[0]
        close = nearest(option, getattr(error, "possibilities", None) or ())
        words = context.obj if context is not None and isinstance(context.obj, tuple) else ()
        file = next((word for word in words if re.match(r"-[^-].*\.\w+$", word) and word.startswith(option)), None)
        hint = HABITS.get(option) or (f"Did you mean {close}? {hint}" if close else hint)
        hint = f"Write a file name that starts with a dash as ./{file}." if file else hint
    elif "extra argument" in message and path == "fommctl animate":
        hint = "Name the result with -o: fommctl animate SOURCE DRIVING -o RESULT."
    elif message.startswith("no such command") and context is not None:
        close = nearest(message.split("'")[1], context.command.list_commands(context))
        hint = f"Did you mean {close}? {hint}" if close else hint
    return UsageError(message, hint)


class Command(TyperCommand):
    """A command whose configuration class reports missing arguments, together with all other problems."""

    fields: frozenset[str] = frozenset()
    """The parameters that the configuration class reads."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, then the options of the family of the model or preset that the command line names."""
        super().format_help(ctx, formatter)
        if "options" in self.fields and isinstance(ctx.obj, tuple):
            _print_family_options(dict(itertools.pairwise(ctx.obj)))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, with arguments that the configuration class requires as optional."""
        for each in self.params:
            if each.required and each.name in self.fields:
                each.process_value = partial(_unless_missing, each)  # type: ignore[method-assign]
        return super().parse_args(ctx, args)


def _print_family_options(after: Mapping[str, str]) -> None:
    """Show the options of the family that the command line names.

    after: the word behind each word of the command line.
    """
    preset, model = after.get("--preset", after.get("-p")), after.get("--model", after.get("-m"))
    if preset is None and model is None:
        return
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from fommctl.host import load_host
    from fommctl.models.loading import backend_of
    from fommctl.options import listed_options

    host = load_host()
    spec = host.find("backend", backend_of(model, preset, host))
    table = Table(box=None, show_header=False, padding=(0, 1))
    for name, about in listed_options(spec.options()).items():
        default = f" [default: {about['default']}]" if about["default"] else ""
        table.add_row(Text(f"-O {name}", "cyan"), Text(str(about["type"]), "yellow"), Text(f"{about['help']}{default}"))
    if table.rows:
        make_console().print(Panel(table, title=f"Options of {spec.name}", title_align="left", border_style="dim"))


def _unless_missing(parameter: Any, ctx: Any, value: Any) -> Any:
    return None if parameter.value_is_missing(value) else type(parameter).process_value(parameter, ctx, value)


class Commands(TyperGroup):
    """The built-in commands, then the plugins'. A command is built when it is called, and the host is loaded only if a
    plugin's command may be meant."""

    modules: tuple[str, ...] = ()

    @cached_property
    def host(self) -> Host:
        from fommctl.host import load_host

        host = load_host(check=False)
        for name in sorted(set(host.names("command")) & set(self.modules)):
            owner = host.owner("command", name)
            logger.warning("skipping the command %r of %s: fommctl has a command of this name", name, owner)
        return host

    def list_commands(self, ctx: Any) -> list[str]:
        return [*self.modules, *(name for name in self.host.names("command") if name not in self.modules)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command for --help and completion, with only a name and a summary, because building it is slow."""
        if cmd_name in self.modules:
            return TyperCommand(cmd_name, help=_summary(cmd_name))
        if cmd_name not in self.host.names("command"):
            return None
        spec = self.host.commands.get(cmd_name)
        summary = spec.summary if spec else "Offered by two plugins: see 'fommctl plugins list'."
        return TyperCommand(cmd_name, help=clean(summary), rich_help_panel=PANEL_OF_PLUGINS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Build the command that is called."""
        name = args[0]
        if name in self.modules:
            return name, built(name), args[1:]
        if name not in self.host.names("command"):
            return super().resolve_command(ctx, args)
        build = self.host.find("command", name).build
        try:
            command = typer.main.get_command(build())
        except FommctlError:
            raise
        except Exception as error:
            owner = self.host.owner("command", name)
            message = f"the command {name!r} of {owner} cannot be built: {type(error).__name__}: {error}"
            raise FommctlError(message, "Tell the authors of the plugin; --debug shows the traceback.") from error
        # A separate typer application would offer to install completion for the whole program.
        command.params = [each for each in command.params if each.name not in ("install_completion", "show_completion")]
        return name, command, args[1:]


def _summary(name: str) -> str:
    module = _module(name)
    return str(inspect.getdoc(getattr(module, name, None)) or module.HELP)


def _module(name: str) -> Any:
    return importlib.import_module(f"fommctl.cli.{name}")


def _add_plugins(paths: list[Path] | None) -> None:
    for path in paths or ():
        from fommctl.host import add_plugin

        add_plugin(path)


def _print_version(value: bool) -> None:
    if value:
        print(f"fommctl {__version__}")
        raise typer.Exit


def _parameters(cls: type, *names: str, required: bool, panel: str | None) -> Iterator[inspect.Parameter]:
    """Yield the parameters of options; with a `panel`, under that heading and without defaults."""
    from fommctl.options import option_fields

    for field in option_fields(cls).values():
        if field.info is not None and (field.name in names or not names):
            yield _parameter(field, required=field.required and required, panel=panel)


def _parameter(field: OptionField, *, required: bool, panel: str | None) -> inspect.Parameter:
    info: Any = copy.copy(field.info)
    kind: Any = str if field.reads is not None else field.kind if field.kind in (bool, int, float, Path) else str
    many = field.many and field.reads is None
    default = _shown_default(field)
    if panel is not None:
        info.rich_help_panel, default = panel, None
    if isinstance(info, OptionInfo) and kind is not bool:
        # The configuration class parses values, to report all problems at once; typer passes them on unchanged.
        info.parser = str
        if field.choices or field.name in COMPLETED:
            info.autocompletion = COMPLETED.get(field.name) or _complete(field.choices)
        if kind is Path and info.metavar is None:
            info.metavar = "<list[Path]>" if many else "<path>"
    annotation = list[kind] if many else kind
    if default is None and not required:
        annotation = annotation | None
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=Annotated[annotation, info],
    )


def _starting(words: Sequence[str], incomplete: str) -> list[str]:
    """Return the words that the shell may complete this one to."""
    return [word for word in words if word.startswith(incomplete)]


def _complete(words: Sequence[str]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return _starting(words, incomplete)

    return complete


def complete_models(incomplete: str) -> list[str]:
    """Return the models that are known."""
    from fommctl.host import load_host
    from fommctl.models import registry

    return _starting(list(registry.entries(load_host(check=False))), incomplete)


def complete_presets(incomplete: str) -> list[str]:
    """Return the presets and their aliases."""
    from fommctl.host import load_host
    from fommctl.presets.preset import preset_specs

    specs = preset_specs(load_host(check=False))
    return _starting([*specs, *(alias for spec in specs.values() for alias in spec.aliases)], incomplete)


def complete_metrics(incomplete: str) -> list[str]:
    """Return the list so far with each metric that may follow."""
    from fommctl.host import load_host

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _starting(load_host(check=False).names("metric"), last)]


def complete_motions(incomplete: str) -> list[str]:
    """Return the motion modes of the installed families."""
    from fommctl.host import load_host

    motions = (name for spec in load_host(check=False).backends.values() for name in spec.motions)
    return _starting(list(dict.fromkeys(motions)), incomplete)


COMPLETED: Mapping[str, Callable[[str], list[str]]] = {
    "model": complete_models,
    "preset": complete_presets,
    "metrics": complete_metrics,
    "motion": complete_motions,
}
"""Options whose values the shell completes, by the name of the field; those with choices need no entry."""


def _evaluated(parameter: inspect.Parameter, function: Any) -> inspect.Parameter:
    if isinstance(parameter.annotation, str):
        return parameter.replace(annotation=eval(parameter.annotation, function.__globals__))
    return parameter


def _shown_default(field: OptionField) -> Any:
    """Return the default as --help shows it."""
    if field.default is None or field.many:
        return field.reads.default if field.reads is not None else None
    return field.default if isinstance(field.default, bool | int | float | Path | str) else str(field.default)


def _panel(parameter: inspect.Parameter) -> str | None:
    infos = [each for each in getattr(parameter.annotation, "__metadata__", ()) if hasattr(each, "rich_help_panel")]
    return infos[0].rich_help_panel if infos else None
