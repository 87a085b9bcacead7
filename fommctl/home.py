"""FOMMCTL_HOME: the folder that holds pulled and imported models."""

import glob
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fommctl.errors import OutputError, UsageError
from fommctl.files import locked, read_regular

log = logging.getLogger(__name__)
_SILENT_S = 1.0
_PATIENCE_S = 1800.0
"""Longest wait for another process in seconds: a large model on a slow line."""


def home() -> Path:
    """Return the folder named by FOMMCTL_HOME, else the user's data folder of this system. It may not exist yet.

    Of a user without a home it is a place that is empty and takes no files. Raises UsageError where FOMMCTL_HOME is in
    the home of a user who does not exist.
    """
    named = os.environ.get("FOMMCTL_HOME")
    if named:
        found = os.path.expanduser(named)
        if found.startswith("~") and not os.path.exists(found):
            raise UsageError(f"FOMMCTL_HOME is {named}: there is no such user", "Give the full path of a folder.")
        return Path(found).absolute()
    import platformdirs

    try:
        folder = Path(platformdirs.user_data_dir("fommctl", appauthor=False))
    except RuntimeError:
        folder = Path()
    return folder if folder.is_absolute() else Path(os.devnull) / "fommctl"


def models_folder() -> Path:
    """Return the folder of pulled and imported models, each a file NAME.safetensors or NAME.pth.tar."""
    return home() / "models"


def restorer_file(named: Path) -> Path:
    """Return the weights of a restorer: a path, or the name of a file in the folder `restorers`, without its ending."""
    if named.exists() or named.name != str(named) or named.suffix:
        return named
    found = sorted(home().glob(f"restorers/{glob.escape(named.name)}.*"))
    return found[0] if found else named


def make_folder(folder: Path) -> Path:
    """Create `folder` where it is missing. Raises OutputError where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot create the folder {folder}: {error.strerror}",
            "Set FOMMCTL_HOME to a folder that you can write to.",
        ) from error
    return folder


@contextmanager
def model_lock(name: str) -> Iterator[None]:
    """Keep other processes from changing the files of the model `name`; wait for one that does, as for a download.

    Raises UsageError where another process holds the lock for too long, OutputError where nothing can be locked.
    """
    folder = make_folder(home() / "locks")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write to {folder}", "Set FOMMCTL_HOME to a folder that you can write to.")
    path, note = folder / f"{name}.lock", folder / f"{name}.holder"
    with ExitStack() as held:
        if not held.enter_context(locked(path, patience=_SILENT_S)):
            holder = _holder(note)
            log.warning("waiting for %s, which is working on the model %s", holder, name)
            if not held.enter_context(locked(path, patience=_PATIENCE_S)):
                raise UsageError(
                    f"{_holder(note)} is still working on the model {name}",
                    "Wait for it to finish, or stop it, then run the same command again.",
                )
        with suppress(OSError):
            note.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield


def _holder(note: Path) -> str:
    try:
        return read_regular(note).decode("utf-8")[:200] or "another process"
    except (OSError, ValueError):
        return "another process"
