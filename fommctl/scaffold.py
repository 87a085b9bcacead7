"""`fommctl plugins new`: an installable package with a plugin that works, to be changed into one's own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl import __version__
from fommctl.errors import OutputError, UsageError
from fommctl.presets.config import did_you_mean
from fommctl.presets.preset import preset_specs

if TYPE_CHECKING:
    from fommctl.host import Host

TEMPLATES = Path(__file__).with_name("templates")
PREFIX = "fommctl-"
LONGEST = 40
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Kind:
    """Names of a kind of plugin in its texts, and its needs."""

    title: str
    summary: str
    packages: tuple[str, ...] = ()


KINDS = {
    "dataset": Kind("data set", "Videos in one folder for each identity"),
    "backend": Kind("model backend", "Keypoints that pull the picture along", ("pydantic>=2.9", "torch>=2.6")),
    "detector": Kind("subject detector", "What stands out from a plain ground", ("numpy>=1.26",)),
    "metric": Kind("metric", "Difference of gradients", ("numpy>=1.26",)),
}
"""Kinds by their names on the command line, which are those of the host."""


@dataclass(frozen=True)
class ScaffoldConfig:
    """Configuration of a new plugin."""

    name: str
    """Name that the user gives: `cats` or `fommctl-cats`."""
    kind: str
    output: Path | None = None
    """The folder of the package, which must not exist; None: the name of the distribution, in the current folder."""


@dataclass(frozen=True)
class ScaffoldResult:
    """A clip that was written."""

    name: str
    """Name of the entry point, and of what the plugin registers: `cats`."""
    kind: str
    distribution: str
    """`fommctl-cats`"""
    module: str
    """`fommctl_cats`"""
    folder: Path
    files: tuple[str, ...]
    """Relative to the folder."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "folder": str(self.folder), "files": list(self.files)}


def run(config: ScaffoldConfig, host: Host) -> ScaffoldResult:
    """Write the package, all or nothing.

    Raises UsageError for a kind that there is not, a name that cannot be one or is taken, and a folder that exists;
    OutputError where the folder cannot be written.
    """
    if config.kind not in KINDS:
        hint = f"Known: {', '.join(KINDS)}."
        raise UsageError(f"unknown kind of plugin {config.kind!r}{did_you_mean(config.kind, KINDS)}", hint)
    name = short_name(config.name)
    distribution, module = f"{PREFIX}{name}", f"{PREFIX}{name}".replace("-", "_")
    owner = _owner(name, config.kind, distribution, module, host)
    if owner:
        hint = f"Choose another name, such as {f'my-{name}'!r}; 'fommctl plugins list' shows those in use."
        raise UsageError(f"the name {name!r} is taken: {owner}", hint)
    folder = config.output or Path(distribution)
    if os.path.lexists(folder):
        raise UsageError(f"{folder} already exists", "Name another folder with -o, or remove this one.")
    texts = dict(_texts(name, config.kind, distribution, module))
    _write(folder, texts)
    return ScaffoldResult(name, config.kind, distribution, module, folder, tuple(sorted(texts)))


def short_name(name: str) -> str:
    """Return `cats` of `cats`, `Cats`, `fommctl-cats` and `fommctl_cats`: lower-case letters and digits, joined by
    hyphens.

    Raises UsageError where the name could not be that of a distribution.
    """
    plain = re.sub(r"[-_.]+", "-", name).lower().removeprefix(PREFIX)
    if _NAME.fullmatch(name) and plain != PREFIX.strip("-") and len(plain) <= LONGEST:
        return plain
    near = re.sub(r"[^a-z0-9]+", "-", plain)[:LONGEST].strip("-")
    rule = f"A name is of letters, digits, '-', '_' and '.', and at most {LONGEST} characters long."
    hint = f"Did you mean {near!r}? {rule}" if near and near != PREFIX.strip("-") else rule
    raise UsageError(f"{name!r} cannot be the name of a plugin", hint)


def _owner(name: str, kind: str, distribution: str, module: str, host: Host) -> str | None:
    """Return what has a name that the new plugin would need; None where all names are free."""
    for info in host.plugins:
        if info.name == name or info.entry_point.partition(":")[0] == module:
            return f"the plugin {info.name!r} of {info.distribution} {info.version} is installed"
    if name in host.names(kind):
        return f"{host.owner(kind, name)} has a {kind} of this name"
    presets = preset_specs(host).values() if kind == "backend" else ()
    if any(name in (preset.name, *preset.aliases) for preset in presets):
        return "there is a preset of this name, and a backend comes with one of its own"
    try:
        return f"{distribution} {metadata.version(distribution)} is installed"
    except metadata.PackageNotFoundError:
        return f"there is a module {module}" if importlib.util.find_spec(module) else None


def _texts(name: str, kind: str, distribution: str, module: str) -> Iterator[tuple[str, str]]:
    """Yield the files of the package: their paths, with '/', and their contents."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    about = KINDS[kind]
    major = int(__version__.partition(".")[0])
    dependencies = sorted((f"fommctl>={major},<{major + 1}", *about.packages))
    values = {
        "name": name,
        "kind": kind,
        "distribution": distribution,
        "module": module,
        "title": about.title,
        "summary": about.summary,
        "dependencies": json.dumps(dependencies),
    }
    for part in ("package", kind):
        for path in sorted((TEMPLATES / part).rglob("*.jinja")):
            inner = path.relative_to(TEMPLATES / part).with_suffix("")
            if inner.name != "use.md":  # a part of the README
                target = "/".join(module if each == "module" else each for each in inner.parts)
                text = environment.get_template(path.relative_to(TEMPLATES).as_posix()).render(values)
                yield ".gitignore" if target == "gitignore" else target, text


def _write(folder: Path, texts: dict[str, str]) -> None:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        for name, text in texts.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_text(text, encoding="utf-8")
        os.rename(temporary, folder)
    except OSError as error:
        hint = "Free some space, or choose another folder with -o."
        raise OutputError(f"cannot write {folder}: {(error.strerror or str(error)).lower()}", hint) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
