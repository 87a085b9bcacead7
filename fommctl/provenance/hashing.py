"""Content hashes: what a result was made from, whatever it was called and whenever it was written."""

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
    from fommctl.models.loading import LoadedModel  # loads torch, which hashing does without


def media_hash(path: Path, file_hash: Callable[[Path], str] = file_sha256) -> str:
    """Return the SHA-256, hexadecimal, of a file's bytes; for a folder or a pattern of frames, of the places and
    contents of its frames in order, so that renaming all of them changes nothing.  file_hash: hashes one file.

    Raises InputError for what cannot be read.
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
    """An input as it was when a job began to read it: a file, or a folder or pattern of frames.

    Its hash is that of the bytes which the job has read: one that was written to meanwhile has none.
    """

    path: Path
    fingerprint: FileFingerprint

    @classmethod
    def of(cls, path: Path) -> InputFile:
        """Take the fingerprint, before anything of the input is read. Raises InputError for what cannot be read."""
        return cls(path, _fingerprint(path))

    def sha256(self) -> str:
        """Hash the content. Raises InputError where the input was written to, or replaced, since `of`."""
        digest = _sha256(self)
        self.require_unchanged()
        return digest

    def require_unchanged(self) -> None:
        """Raise InputError where the input was written to, or replaced, since `of`."""
        if not self.unchanged:
            raise InputError(
                f"{self.path} changed while it was being read: no hash can vouch for the result",
                "Run the command again, on inputs that nothing else writes to.",
            )

    @property
    def unchanged(self) -> bool:
        """Whether the input is what it was at `of`, as far as its times, sizes and places on the disk tell."""
        try:
            return self.fingerprint.agrees_with(_fingerprint(self.path))
        except InputError:
            return False


@lru_cache(maxsize=64)
def _sha256(file: InputFile) -> str:
    """Hash a file once for all that is made of it."""
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
    """Identify a model by JSON values: two that are equal render alike. `sha256`: of its file, None where its weights
    come from none; `preset`: the resolved configuration, as YAML; `backend`: distribution and version of its plugin,
    where it is not fommctl's.

    Raises InputError where the file was changed since the weights were read.
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
