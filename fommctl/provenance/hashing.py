"""Content hashes: what a result was made from, whatever it was called and whenever it was written."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from fommctl.errors import InputError
from fommctl.files import file_sha256
from fommctl.media.sequences import is_pattern, listed
from fommctl.models.loading import LoadedModel


def media_hash(path: Path, file_hash: Callable[[Path], str] = file_sha256) -> str:
    """SHA-256, hexadecimal: of a file's bytes; for a folder or a pattern of frames, of the places and contents of its
    frames in order, so that renaming all of them changes nothing. file_hash: of one file.

    Raises InputError for what cannot be read.
    """
    try:
        if not (path.is_dir() or is_pattern(path)):
            return file_hash(path)
        digest = sha256()
        for position, frame in listed(path):
            digest.update(f"{position} {file_hash(frame)}\n".encode())
        return digest.hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "Check the path and its permissions.") from error


def model_identity(model: LoadedModel) -> dict[str, Any]:
    """What a model is, as JSON values: two that are equal render alike. `sha256`: of its file, None where its weights
    come from none; `preset`: the resolved configuration, as YAML."""
    return {
        "name": model.name,
        "sha256": None if model.path is None else file_sha256(model.path),
        "preset": model.preset.text(),
    }
