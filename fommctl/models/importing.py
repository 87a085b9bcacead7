"""Keeping a model file under a name, checked and converted to the native format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fommctl import __version__
from fommctl.files import file_sha256, remove_stale_files
from fommctl.models import registry
from fommctl.models.checkpoint import halved, write_native
from fommctl.models.home import model_lock
from fommctl.models.loading import LoadedModel, file_stem, load_file

if TYPE_CHECKING:
    from fommctl.host import Host


def import_model(
    path: Path,
    host: Host,
    *,
    name: str | None = None,
    preset: str | None = None,
    sets: Sequence[str] = (),
    half: bool = False,
    licence: str | None = None,
    summary: str | None = None,
    overwrite: bool = False,
) -> LoadedModel:
    """Read any model file, check that it fits its architecture, and keep it in FOMMCTL_HOME as `name`.

    preset: as in `load_model`; where neither it nor the file says, the preset registered for `name` counts.
    half: store weights in half precision (see `halved`).
    Raises UsageError for a name that is taken or cannot be used, otherwise as `load_model` does.
    """
    name = name or file_stem(path)
    registry.import_path(name, host, overwrite)
    loaded = load_file(path, host, name=name, entry=registry.entries(host).get(name), preset=preset, sets=sets)
    networks = loaded.backend.modules()
    groups = {group: dict(networks[group].state_dict()) for group in loaded.groups}
    spec = host.models.get(name)
    metadata = {
        **loaded.metadata,
        "backend": loaded.preset.backend,
        "preset": loaded.preset.text(),
        "licence": licence or loaded.metadata.get("licence") or (spec.licence if spec else ""),
        "summary": summary or loaded.metadata.get("summary") or (spec.summary if spec else ""),
        "imported_from": f"{path.name}, SHA-256 {file_sha256(path)}",
        "imported_by": f"fommctl {__version__}",
    }
    with model_lock(name):
        target = registry.import_path(name, host, overwrite)
        remove_stale_files(target.parent, target)
        write_native(
            target, halved(groups) if half else groups, {key: value for key, value in metadata.items() if value}
        )
    return loaded
