"""`fommctl plugins`: what is installed, what each registers, what is broken, and for authors: a new one, and checks."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fommctl.api.specs import PROJECT
from fommctl.cli.console import Session
from fommctl.cli.options import command
from fommctl.errors import JobsFailedError, UsageError
from fommctl.presets.config import did_you_mean

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fommctl.host import Host, PluginInfo
    from fommctl.plugin_checks import Check

HELP = "The plugins of this installation."


def register(app: typer.Typer) -> None:
    """Add `plugins list`, `plugins show`, `plugins new` and `plugins check`."""
    group = typer.Typer(help=HELP, no_args_is_help=True)
    app.add_typer(group, name="plugins")
    command(group, "list", epilog="Example: fommctl plugins list --json")(list_plugins)
    command(group, "show", epilog="Example: fommctl plugins show fomm")(show_plugin)
    command(group, "new", epilog="Example: fommctl plugins new cats --kind dataset")(new_plugin)
    command(group, "check", epilog="Example: fommctl plugins check synthetic")(check_plugin)


def list_plugins(session: Session) -> None:
    """List the plugins, what each registers, and what is wrong with it.

    Broken plugins do not stop fommctl; they are listed here with the reason.
    """
    from fommctl.host import load_host

    host = load_host(check=False)
    infos = host.plugins
    warnings = [*host.warnings, *(conflict.message for conflict in host.conflicts())]
    data = {"plugins": [_data(info) for info in infos], "warnings": warnings}
    session.result(data, None if session.json else _table(infos, warnings))


def show_plugin(
    session: Session,
    name: Annotated[str, typer.Argument(help="Name of a plugin (its entry point), or of its distribution.")],
) -> None:
    """Show one plugin: everything that it registers, and the traceback if it is broken."""
    from fommctl.host import load_host

    host = load_host(check=False)
    infos = _named(host, name)
    details = [
        {
            **_data(info),
            "summaries": _summaries(host, info),
            "options": _options(host, info, "options"),
            "edits": _options(host, info, "edits"),
            "traceback": info.traceback,
        }
        for info in infos
    ]
    session.result({"plugins": details, "warnings": list(host.warnings)}, "\n\n".join(map(_shown, details)))


def new_plugin(
    session: Session,
    name: Annotated[str, typer.Argument(help="Name of the plugin: cats becomes the package fommctl-cats.")],
    kind: Annotated[str, typer.Option(help="dataset, backend, detector or metric.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="New folder for the package. Default: fommctl-NAME.")
    ] = None,
) -> None:
    """Write a package with a working plugin and tests, as a starting point for your own."""
    from fommctl.host import load_host
    from fommctl.plugin_checks import guide
    from fommctl.scaffold import ScaffoldConfig, run

    result = run(ScaffoldConfig(name, kind, output), load_host(check=False))
    steps = (
        f"pip install -e {shlex.quote(f'{result.folder}[dev]')}",
        f"fommctl plugins check {result.name}{' --data RAW' if kind == 'dataset' else ''}",
        f"pytest {shlex.quote(str(result.folder))}",
    )
    told = f"{result.folder} contains the plugin {result.name!r}, a working {kind}. Next:"
    text = "\n".join((told, *(f"  {step}" for step in steps), f"The guide for plugin authors: {guide()}"))
    session.summary({**result.to_json(), "next": list(steps), "guide": str(guide())}, text)


def check_plugin(
    session: Session,
    name: Annotated[str, typer.Argument(help="Name of a plugin (its entry point), or of its distribution.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder with raw data, for data set adapters that read files.")
    ] = None,
) -> None:
    """Check that a plugin meets its contracts, and explain each failure; for plugin authors.

    -v shows the tracebacks of errors that the plugin raised.
    """
    from fommctl import plugin_checks
    from fommctl.host import load_host

    host, guide = load_host(), plugin_checks.guide()
    infos = _named(host, name)
    checks = [each for info in infos for each in plugin_checks.check_plugin(info, host, data)]
    problems = [info.problem for info in infos if info.problem]
    result = {"checks": [asdict(each) for each in checks], "problems": problems, "guide": str(guide)}
    session.result(result, _explained(checks, guide, tracebacks=session.debug or session.verbose > 0))
    if any(each.problem for each in checks):
        raise typer.Exit(JobsFailedError.exit_code)


def _explained(checks: "Sequence[Check]", guide: Path, *, tracebacks: bool) -> str:
    """Return a line for each check, more where it failed, and what it comes to."""
    lines = []
    for each in checks:
        lines.append(f"{each.kind} {each.name}: {each.problem or each.note or 'passed'}")
        details = {"got": each.got, "at": each.where, "do": each.advice}
        if each.problem:
            details |= {"read": each.read and f"{each.read!r} in {guide}", "repeat": each.repeat}
        lines += [f"    {what}: {text}" for what, text in details.items() if text]
        lines += each.traceback.rstrip().splitlines() if tracebacks and each.traceback else []
    failed = [each for each in checks if each.problem]
    if any(each.traceback for each in failed) and not tracebacks:
        lines.append("-v shows the tracebacks.")
    return "\n".join([*lines, f"{len(checks)} checks, {len(failed)} failed"])


def _named(host: "Host", name: str) -> "list[PluginInfo]":
    infos = [info for info in host.plugins if name in (info.name, info.distribution)]
    if not infos:
        known = [info.name for info in host.plugins]
        near = did_you_mean(name, [*known, *(info.distribution for info in host.plugins)])
        hint = f"Loaded: {', '.join(known) or 'none'}. FOMMCTL_PLUGINS may restrict them."
        raise UsageError(f"no plugin {name!r} is loaded{near}", hint)
    return infos


def _data(info: "PluginInfo") -> dict[str, Any]:
    fields = asdict(info)
    fields.pop("traceback")
    return fields


def _summaries(host: "Host", info: "PluginInfo") -> dict[str, dict[str, str]]:
    """Return {kind: {name: summary}} of specs whose name is theirs alone."""
    return {
        kind: {name: host.find(kind, name).summary for name in names if name in getattr(host, f"{kind}s")}
        for kind, names in info.registers.items()
        if kind != "hook"
    }


def _options(host: "Host", info: "PluginInfo", kind: str) -> dict[str, Any]:
    """Return {backend: {name: {type, default, help}}} of backends with options or edits of their own."""
    from fommctl.options import listed_options

    names = [name for name in info.registers.get("backend", ()) if name in host.backends]
    found = {name: listed_options(host.ask("backend", name, kind, default=None)) for name in names}
    return {name: options for name, options in found.items() if options}


def _table(infos: "tuple[PluginInfo, ...]", warnings: list[str]) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("plugin", "distribution", "version", "requires", "entry point", "registers"):
        table.add_column(heading, overflow="fold")
    for info in infos:
        registers = "\n".join(f"{kind}: {', '.join(names)}" for kind, names in info.registers.items())
        cells = (info.name, info.distribution, info.version, _required(info.requires), info.entry_point, registers)
        table.add_row(*map(Text, cells))
    problems = [Text(f"{info.name}: {info.problem}", "red") for info in infos if info.problem]
    return Group(table, *problems, *(Text(warning, "yellow") for warning in warnings))


def _required(versions: str | None) -> str:
    return "-" if versions is None else f"{PROJECT}{versions}"


def _shown(details: dict[str, Any]) -> str:
    lines = [f"{key.replace('_', ' ')}: {details[key]}" for key in ("name", "distribution", "version", "entry_point")]
    lines.append(f"requires: {_required(details['requires'])}")
    for kind, names in details["registers"].items():
        lines.append(f"{kind}:")
        lines += [f"  {name}  {details['summaries'].get(kind, {}).get(name, '')}".rstrip() for name in names]
    for kind, what in (("options", "options of {}, -O NAME=VALUE:"), ("edits", "edits of {}, edit -O NAME=VALUE:")):
        for backend, options in details[kind].items():
            lines.append(what.format(backend))
            lines += [
                f"  {name}={about['default'] or ''}  {about['type']}  {about['help']}"
                for name, about in options.items()
            ]
    lines += [f"problem: {details['problem']}"] if details["problem"] else []
    return "\n".join([*lines, *([details["traceback"].rstrip()] if details["traceback"] else [])])
