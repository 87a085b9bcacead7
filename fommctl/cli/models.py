"""`fommctl models`: the weights that fommctl knows."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fommctl.cli.console import Session
from fommctl.cli.options import command, complete_models

if TYPE_CHECKING:
    from fommctl.download import Report
    from fommctl.models.config import ExportConfig, ImportConfig
    from fommctl.models.registry import RegisteredModel

HELP = "List, show, pull, import, export and remove weights."
EXAMPLES = """Examples:

fommctl models list

fommctl models pull vox-adv

fommctl models import vox-adv-cpk.pth.tar --name vox-adv --half

fommctl models export runs/vox/model.safetensors -o vox.pth.tar"""

NameArgument = Annotated[
    str, typer.Argument(help="A model from 'fommctl models list'.", metavar="NAME", autocompletion=complete_models)
]


def register(app: typer.Typer) -> None:
    """Add `models` and its subcommands to `app`."""
    from fommctl.models.config import ExportConfig, ImportConfig

    models = typer.Typer(help=HELP, epilog=EXAMPLES, no_args_is_help=True)
    app.add_typer(models, name="models")
    command(models, "list", epilog="Example: fommctl models list --json")(list_models)
    command(models, "show", epilog="Example: fommctl models show faces-mini")(show_model)
    command(models, "pull", epilog="Example: fommctl models pull vox taichi")(pull_models)
    command(
        models,
        "import",
        reads={"config": ImportConfig},
        epilog="Example: fommctl models import my.pth.tar --preset my.yaml --half",
    )(import_file)
    command(
        models,
        "export",
        reads={"config": ExportConfig},
        epilog="Example: fommctl models export runs/vox/model.safetensors -o vox.pth.tar",
    )(export_file)
    command(models, "remove", epilog="Example: fommctl models remove vox")(remove_model)


def list_models(session: Session) -> None:
    """List the known models: built-in, available (pulled or imported), not pulled."""
    from rich import box
    from rich.table import Table

    from fommctl.host import load_host
    from fommctl.models import registry

    rows = [_row(entry) for entry in registry.entries(load_host()).values()]
    table = Table("name", "status", "size", "preset", "summary", box=box.SIMPLE)
    for number in (0, 1):  # names are copied
        table.columns[number].no_wrap = True
    table.columns[3].overflow = "fold"
    for row in rows:
        table.add_row(row["name"], row["status"], _size_text(row["size"]), row["preset"] or "its own", row["summary"])
    session.result({"models": rows}, table)


def show_model(session: Session, name: NameArgument) -> None:
    """Show a model: card, licence, origin, checksum, size, parameters, preset."""
    from rich.text import Text

    from fommctl.host import load_host
    from fommctl.models import registry

    entry = registry.find(name, load_host())
    details = {**_row(entry), **_details(entry)}
    lines = [f"{key.replace('_', ' ')}: {_plain(value)}" for key, value in details.items() if key != "card" and value]
    card = [f"\n{details['card']}"] if details["card"] else []
    session.result(details, Text("\n".join([*lines, *card])))


def pull_models(
    session: Session,
    names: Annotated[
        list[str], typer.Argument(help="Models to download.", metavar="NAME...", autocompletion=complete_models)
    ],
) -> None:
    """Download published weights; an interrupted download resumes where it stopped."""
    from rich.text import Text

    from fommctl.host import load_host
    from fommctl.models import registry

    host = load_host()
    for name in names:
        registry.find(name, host)
    pulled = []
    for name in names:
        with session.progress(f"pulling {name}", unit="MB") as report:
            entry, fetched = registry.pull(name, host, _in_megabytes(report))
        pulled.append({**_row(entry), "fetched": fetched})
    lines = [f"{row['name']}: {row['path']}{'' if row['fetched'] else ' (already there)'}" for row in pulled]
    session.summary({"models": pulled}, Text("\n".join(lines)))


def import_file(session: Session, config: ImportConfig) -> None:
    """Check a model file, convert it to safetensors, and keep it under a name."""
    from rich.text import Text

    from fommctl.host import load_host
    from fommctl.models import registry
    from fommctl.models.loading import import_model

    host = load_host()
    options = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "path"}
    imported = import_model(config.path, host, **options)
    row = {**_row(registry.find(imported.name, host)), "notes": list(imported.notes)}
    session.summary(row, Text(f"{imported.name}: {row['path']}"))


def export_file(session: Session, config: ExportConfig) -> None:
    """Write a model in the layout of the published checkpoints, in single precision."""
    from rich.text import Text

    from fommctl.host import load_host
    from fommctl.models.files import weights_in
    from fommctl.models.loading import export_model

    exported = export_model(
        config.model, config.output, load_host(), preset=config.preset, sets=config.sets, overwrite=config.overwrite
    )
    details = {
        "model": exported.model,
        "path": str(exported.path),
        "size": sum(file.stat().st_size for file in weights_in(exported.path)),
        "networks": list(exported.groups),
        "epoch": exported.epoch,
    }
    session.summary(details, Text(f"{exported.path}: {', '.join(exported.groups)} after epoch {exported.epoch}"))


def remove_model(session: Session, name: NameArgument) -> None:
    """Delete the file of a pulled or imported model."""
    from rich.text import Text

    from fommctl.host import load_host
    from fommctl.models import registry

    path = registry.remove(name, load_host())
    session.summary({"name": name, "removed": str(path)}, Text(f"removed {path}"))


def _in_megabytes(report: Report) -> Report:
    return lambda done, total: report(done // 10**6, None if total is None else total // 10**6)


def _row(entry: RegisteredModel) -> dict[str, Any]:
    from fommctl.models.files import weights_in

    present = entry.status != "not pulled" and entry.path.exists()
    return {
        "name": entry.name,
        "summary": entry.summary,
        "preset": entry.preset or None,
        "licence": entry.licence,
        "status": entry.status,
        "size": sum(file.stat().st_size for file in weights_in(entry.path)) if present else _stated_size(entry),
        "path": str(entry.path) if present else None,
    }


def _stated_size(entry: RegisteredModel) -> int | None:
    if entry.spec is None or not entry.spec.files:
        return entry.spec.size if entry.spec else None
    sizes = [file.size for file in entry.spec.files]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _details(entry: RegisteredModel) -> dict[str, Any]:
    """Return the details that `show` adds to a row of the list."""
    from fommctl.models import files, registry

    present = entry.status != "not pulled" and entry.path.exists()
    native = present and entry.path.is_file() and files.sniff(entry.path) == "safetensors"
    metadata = files.read_metadata(entry.path) if native else {}
    card = entry.path.with_name("card.md")
    return {
        "urls": list(entry.spec.urls) if entry.spec else [],
        "files": _files(entry),
        "put_it_at": None if present else str(entry.path),
        "origin": registry.origin(entry.name) or None,
        "sha256": files.weights_sha256(entry.path) if present else entry.spec.sha256 if entry.spec else None,
        "md5": entry.spec.md5 if entry.spec else None,
        "parameters": files.count_values(entry.path) if native else None,
        "training": _training(metadata.get("training")),
        "imported_from": metadata.get("imported_from"),
        "preset_text": metadata.get("preset"),
        "card": card.read_text(encoding="utf-8") if entry.status == "built-in" and card.exists() else None,
    }


def _files(entry: RegisteredModel) -> list[dict[str, Any]]:
    """Describe each of several files of a model."""
    from fommctl.models import registry

    if entry.spec is None or not entry.spec.files or entry.path.is_file():
        return []
    return [
        {
            "name": file.name,
            "licence": file.licence or entry.licence,
            "size": target.stat().st_size if target.exists() else file.size,
            "urls": list(file.urls),
            "there": target.exists(),
        }
        for file, target in registry.model_files(entry.spec, entry.path)
    ]


def _training(text: str | None) -> Any:
    """Return a file's metadata about its training, parsed if it is JSON, else as text. It is not trustworthy."""
    from fommctl.api.readers import parse_json

    try:
        return None if text is None else parse_json(text)
    except (ValueError, RecursionError):
        return text


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "".join(f"\n  {_plain(each)}" for each in value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"\n{value}" if "\n" in str(value) else str(value)


def _size_text(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB"
