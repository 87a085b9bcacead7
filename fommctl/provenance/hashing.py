"""Content hashes of inputs and models, independent of their names and dates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.errors import InputError
from fommctl.files import FileFingerprint, file_sha256
from fommctl.media.sequences import is_sequence, listed
from fommctl.models.files import weights_in, weights_sha256

if TYPE_CHECKING:
    from fommctl.models.loading import LoadedModel  # imports torch


def media_hash(path: Path, file_hash: Callable[[Path], str] = file_sha256) -> str:
    """Return the hexadecimal SHA-256 of a file, or of a folder or pattern of frames.

    For frames, it covers their positions and contents in order, so that renaming all of them does not change it.
    file_hash: hashes one file.  Raises InputError if the input cannot be read.
    """
    try:
        if not (path.is_dir() or is_sequence(path)):
            return file_hash(path)
        digest = sha256()
        for position, frame in listed(path):
            digest.update(f"{position} {file_hash(frame)}\n".encode())
        return digest.hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


@dataclass(frozen=True, slots=True)
class InputFile:
    """An input in the state in which a job began to read it: a file, or a folder or pattern of frames.

    Its hash is certain to be that of the bytes that the job read, as an input that changed meanwhile is refused.
    """

    path: Path
    fingerprint: FileFingerprint

    @classmethod
    def of(cls, path: Path) -> InputFile:
        """Take the input's fingerprint, before it is read. Raises InputError if it cannot be read."""
        return cls(path, _fingerprint(path))

    def sha256(self) -> str:
        """Return the hash of the content. Raises InputError if the input was changed or replaced since `of`."""
        digest = _sha256(self)
        self.require_unchanged()
        return digest

    def require_unchanged(self) -> None:
        """Raise InputError if the input was changed or replaced since `of`."""
        if not self.unchanged:
            raise InputError(
                f"{self.path} changed while it was being read, so its hash is not that of what was used",
                "Run the command again, on inputs that nothing else writes to.",
            )

    @property
    def unchanged(self) -> bool:
        """Whether the input is the same as at `of`, by times, sizes and places on the disk."""
        try:
            return self.fingerprint.agrees_with(_fingerprint(self.path))
        except InputError:
            return False


@lru_cache(maxsize=64)
def _sha256(file: InputFile) -> str:
    """Hash an input once for all results made from it."""
    return media_hash(file.path)


def _fingerprint(path: Path) -> FileFingerprint:
    try:
        frames = path.is_dir() or is_sequence(path)
        return FileFingerprint.of(*(frame for _, frame in listed(path))) if frames else FileFingerprint.of(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot read {path}: {error.strerror}", "Check the path and its permissions.")


def model_identity(model: LoadedModel) -> dict[str, Any]:
    """Return JSON values that identify a model: models with equal values render the same frames.

    `name`; `sha256`: of the file of weights, None without a file; `preset`: the resolved configuration as YAML;
    `backend`: distribution and version of the backend's plugin, unless it is fommctl's.
    Raises InputError if the file was changed since the weights were read.
    """
    backend = {} if model.publisher is None else {"backend": model.publisher}
    return {
        **backend,
        "name": model.name,
        "sha256": None if model.path is None else _weights_sha256(model.path, model.fingerprint),
        "preset": model.preset.text(),
    }


def _weights_sha256(path: Path, fingerprint: FileFingerprint | None) -> str | None:
    if fingerprint is None:
        return None
    if not path.is_dir():
        return InputFile(path, fingerprint).sha256()
    digest = weights_sha256(path)
    if not fingerprint.agrees_with(FileFingerprint.of(*weights_in(path))):
        raise InputError(f"{path} was changed while it was read", "Run the command again.")
    return digest
