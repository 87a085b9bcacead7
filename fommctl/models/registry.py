"""The models that this installation knows: shipped, downloadable (offered by plugins), imported."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fommctl.api.readers import parse_json
from fommctl.api.specs import ModelFile, ModelSpec
from fommctl.download import Expected, Report, download
from fommctl.errors import MissingError, ModelError, OutputError, UsageError
from fommctl.files import atomic_write, file_sha256, read_regular
from fommctl.home import model_lock, models_folder
from fommctl.models.files import read_metadata, sniff, weights_sha256
from fommctl.presets.config import nearest

if TYPE_CHECKING:
    from fommctl.host import Host

log = logging.getLogger(__name__)

Status = Literal["built-in", "available", "not pulled"]

BUILT_IN = ModelSpec(
    name="faces-mini",
    summary="faces at 256 pixels, small; ships with fommctl",
    preset="faces-mini",
    licence="MIT; see the card for the clips that it was trained on",
    path=Path(__file__).parent / "builtin" / "faces-mini.safetensors",
    default=True,
)


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """One model of the registry."""

    name: str
    summary: str
    preset: str
    """Name of the model's preset; empty for an imported model, which carries its own."""
    licence: str
    status: Status
    path: Path
    """Path where the file is, or will be once pulled."""
    spec: ModelSpec | None = None
    """The plugin's spec; None for an imported model that no plugin knows."""


def entries(host: Host) -> dict[str, RegisteredModel]:
    """Return every known model by name: the built-in one, those of plugins, imported ones by name."""
    specs = {BUILT_IN.name: BUILT_IN, **host.models}
    found = {name: _entry(spec) for name, spec in specs.items()}
    for path in sorted(models_folder().glob("*.safetensors")):
        name = path.name.removesuffix(".safetensors")
        if not is_shipped(specs.get(name)) and not name.startswith("."):
            found[name] = _imported(name, path, specs.get(name))
    return found


def find(name: str, host: Host) -> RegisteredModel:
    """Return the model of this name. Raises UsageError with the nearest name if there is none."""
    known = entries(host)
    if name in known:
        return known[name]
    path = Path(name)
    if path.exists() or path.name != name:
        if not path.is_file() and not path.is_dir():
            # `sniff` raises an error with what the path is, such as a pipe.
            sniff(path)
        what = "a folder" if path.is_dir() else "a file"
        raise UsageError(
            f"{name} is {what}, not the name of a model", "Name it with 'fommctl models import PATH' first."
        )
    near = nearest(name, known)
    hint = f"Did you mean {near!r}?" if near else f"Known: {', '.join(known)}."
    raise UsageError(
        f"unknown model {name!r}", f"{hint} A file is given by its path, for example ./{name}.safetensors."
    )


def default(host: Host) -> RegisteredModel:
    """Return the default model. Raises UsageError if plugins disagree on it."""
    chosen = [spec.name for spec in (BUILT_IN, *host.models.values()) if spec.default]
    if len(chosen) > 1:
        raise UsageError(f"several models claim to be the default: {', '.join(chosen)}", "Name one with --model.")
    return find(chosen[0], host)


def file_of(entry: RegisteredModel) -> Path:
    """Return the model's file. Raises MissingError with the command to pull it if it is absent."""
    if entry.status == "not pulled":
        raise MissingError(
            f"the weights of {entry.name} are not on this machine", f"Run 'fommctl models pull {entry.name}'."
        )
    return entry.path


def for_preset(preset: str, canonical: Callable[[str], str], host: Host) -> RegisteredModel:
    """Return the registered weights for a preset: present ones before those to pull, then in the order of registration.

    preset: its proper name.  canonical: from a name or alias to the proper name.
    Raises UsageError if no weights are registered for it.
    """
    fitting = [entry for entry in entries(host).values() if entry.preset and canonical(entry.preset) == preset]
    if not fitting:
        raise UsageError(f"no weights are registered for the preset {preset}", "Name a model with --model.")
    return min(fitting, key=lambda entry: entry.status == "not pulled")


def model_files(spec: ModelSpec, path: Path) -> list[tuple[ModelFile, Path]]:
    """Return the files of a downloadable model at `path`, each with its path: one file, or those in a folder."""
    if not spec.files:
        alone = ModelFile(name=path.name, urls=spec.urls, sha256=spec.sha256, md5=spec.md5, size=spec.size)
        return [(alone, path)]
    return [
        (file if file.urls else dataclasses.replace(file, urls=(f"{spec.repository}/{file.name}",)), path / file.name)
        for file in spec.files
    ]


def pull(name: str, host: Host, report: Report = lambda done, total: None) -> tuple[RegisteredModel, bool]:
    """Download the weights of `name` if absent or damaged; return the model and whether anything was downloaded.

    A model imported under this name counts as present. If the publisher states no SHA-256, that of the first download
    is recorded in FOMMCTL_HOME and later ones must match.
    Raises MissingError if a file cannot be obtained, with where to get it and where to put it.
    """
    entry = find(name, host)
    spec = entry.spec
    if spec is None or is_shipped(spec):
        return entry, False
    with model_lock(name):
        entry = find(name, host)
        if entry.path.suffix == ".safetensors" and entry.path.is_file():
            if entry.path == pulled_path(spec) and spec.sha256 is None and not origin(name):
                # Its record could not be written after the download.
                _trust(name, _found(model_files(spec, entry.path)[0][0], entry.path), must=False)
            return entry, False
        before = origin(name)
        known = before.get("files", {entry.path.name: before})
        notes, fetched = {}, False
        for file, target in model_files(spec, entry.path):
            note = _fetch(name, file, target, known.get(file.name, {}).get("sha256"), report)
            fetched |= note is not None
            notes[file.name] = note or known.get(file.name) or _found(file, target)
        record = {"sha256": weights_sha256(entry.path), "files": notes} if spec.files else notes[entry.path.name]
        if fetched or (not before and spec.sha256 is None):
            _trust(name, record, must=fetched)
    return find(name, host), fetched


def _fetch(name: str, file: ModelFile, target: Path, known: str | None, report: Report) -> dict[str, Any] | None:
    """Fetch a file of a model, unless the right one is there; returns what to record of it.

    known: SHA-256 of the first download.
    """
    sha256 = file.sha256 or known
    if target.exists() and sha256 in (None, file_sha256(target)):
        return None
    if not file.urls:
        raise MissingError(f"nothing says where {name} comes from", f"Put it at {target}.")
    hint = (
        f"Fetch {file.urls[0]} by other means and put it at {target}, "
        f"or run 'fommctl models import FILE --name {name}'."
    )
    if not file.sha256 and sha256:
        hint += f" If the publisher changed the file and you trust it, delete {record_path(name)} first."
    expected = Expected(sha256=sha256, md5=file.md5, size=file.size, check=sniff)
    fetched = download(file.urls, target, expected, hint=hint, report=report)
    return {"url": fetched.url, "sha256": fetched.sha256, "size": fetched.size}


def _found(file: ModelFile, target: Path) -> dict[str, Any]:
    return {"url": file.urls[0] if file.urls else "", "sha256": file_sha256(target)}


def _trust(name: str, note: dict[str, Any], *, must: bool) -> None:
    """Record the hash that later downloads must match. Raises OutputError if that fails and `must` is set, else
    warns."""
    hint = f"The file stays; run 'fommctl models pull {name}' again to record its hash."
    try:
        with atomic_write(record_path(name), hint=hint) as temporary:
            temporary.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    except OutputError as error:
        if must:
            raise
        log.warning("%s: a later file of %s cannot be compared with this one", error.message, name)


def remove(name: str, host: Host) -> Path:
    """Delete the file of a pulled or imported model. Raises UsageError for one that is shipped or absent."""
    entry = find(name, host)
    if is_shipped(entry.spec):
        raise UsageError(f"{name} ships with its package and cannot be removed", "Uninstall the package instead.")
    with model_lock(name):
        if not entry.path.exists():
            raise UsageError(f"{name} is not on this machine; nothing to remove", "See 'fommctl models list'.")
        shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink()
    return entry.path


def import_path(name: str, host: Host, overwrite: bool) -> Path:
    """Return the path of a model imported as `name`. Raises UsageError for a name that cannot be used or is taken."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name.lower().endswith(".safetensors"):
        raise UsageError(
            f"{name!r} cannot be the name of a model", "Use letters, digits, dots, dashes and underscores."
        )
    known = entries(host).get(name)
    if known is not None and is_shipped(known.spec):
        raise UsageError(f"{name} is a built-in model", "Choose another name with --name.")
    if known is not None and known.status == "available" and not overwrite:
        raise UsageError(f"there is a model {name} already", "Choose another name with --name, or give --overwrite.")
    return models_folder() / f"{name}.safetensors"


def is_shipped(spec: ModelSpec | None) -> bool:
    """Return whether this model's file comes with a package."""
    return spec is not None and spec.path is not None


def pulled_path(spec: ModelSpec) -> Path:
    """Return the path of a downloadable model: a folder for several files, else a file with the suffix of its
    URL."""
    if spec.files:
        return models_folder() / spec.name
    ending = re.search(r"(\.pth\.tar|\.\w+)$", spec.urls[0].partition("?")[0]) if spec.urls else None
    suffix = ending[1] if ending else ".pth.tar"
    return models_folder() / f"{spec.name}{suffix}"


def record_path(name: str) -> Path:
    """Return the path of a pulled file's hash, which stays when the file is removed."""
    return models_folder() / f"{name}.origin.json"


def origin(name: str) -> dict[str, Any]:
    """Return the record of a pull: url, sha256, size; empty if there was none.

    Raises ModelError if the record is damaged.
    """
    path = record_path(name)
    if not path.exists():
        return {}
    try:
        record: dict[str, Any] = parse_json(read_regular(path).decode("utf-8"))
        return {"sha256": record["sha256"], **record}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged", "Delete it to accept the next download as the right one.") from error


def _entry(spec: ModelSpec) -> RegisteredModel:
    path = spec.path or pulled_path(spec)
    there = all(target.exists() for _, target in model_files(spec, path))
    status: Status = "built-in" if is_shipped(spec) else "available" if there else "not pulled"
    fields = {"name": spec.name, "summary": spec.summary, "preset": spec.preset, "licence": spec.licence}
    return RegisteredModel(**fields, status=status, path=path, spec=spec)


def _imported(name: str, path: Path, spec: ModelSpec | None) -> RegisteredModel:
    try:
        metadata = read_metadata(path)
    except ModelError as error:
        metadata = {"summary": f"damaged: {error.message}"}
    own = RegisteredModel(
        name=name,
        summary=metadata.get("summary", ""),
        preset="",
        licence=metadata.get("licence", ""),
        status="available",
        path=path,
        spec=spec,
    )
    return own if spec is None else dataclasses.replace(own, summary=own.summary or spec.summary, preset=spec.preset)
