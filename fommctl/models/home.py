"""FOMMCTL_HOME: the folder that holds pulled and imported models."""

import glob
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fommctl.errors import OutputError, UsageError
from fommctl.files import locked

log = logging.getLogger(__name__)
MOST_WAITED_S = 1800.0
"""Seconds for which another process may hold a model: it may fetch some gigabytes."""


def home() -> Path:
    """The folder named by FOMMCTL_HOME, else the user's data folder of this operating system. It may not exist yet.

    Of a user without a home it is a place that is empty and takes no files. Raises UsageError where FOMMCTL_HOME is in
    the home of a user who does not exist.
    """
    named = os.environ.get("FOMMCTL_HOME")
    if named:
        found = os.path.expanduser(named)
        if found.startswith("~") and not os.path.exists(found):
            raise UsageError(f"FOMMCTL_HOME is {named}: there is no such user", "Give the whole path of a folder.")
        return Path(found).absolute()
    import platformdirs

    try:
        folder = Path(platformdirs.user_data_dir("fommctl", appauthor=False))
    except RuntimeError:
        folder = Path()
    return folder if folder.is_absolute() else Path(os.devnull) / "fommctl"


def models_folder() -> Path:
    """Where pulled and imported models lie, each a file NAME.safetensors or NAME.pth.tar."""
    return home() / "models"


def restorer_file(named: Path) -> Path:
    """The weights of a restorer: a path, or the name of a file in the folder `restorers`, without its ending."""
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
    """Keep other processes from changing the files of the model `name` meanwhile; wait for one that does.

    Raises OutputError where nothing can be locked, or another process holds the lock for MOST_WAITED_S.
    """
    folder = make_folder(home() / "locks")
    path = folder / f"{name}.lock"
    with ExitStack() as held:
        try:
            alone = held.enter_context(locked(path))
            if not alone:
                minutes = f"{MOST_WAITED_S / 60:g} minutes"
                log.warning("another fommctl is changing the model %s: waiting for its end, at most %s", name, minutes)
                alone = held.enter_context(locked(path, patience=MOST_WAITED_S))
        except OSError as error:
            raise OutputError(
                f"cannot write to {folder}: {(error.strerror or str(error)).lower()}",
                "Set FOMMCTL_HOME to a folder that you can write to.",
            ) from error
        if not alone:
            raise OutputError(
                f"another process has been changing the model {name} for {minutes}", "Wait for its end, or end it."
            )
        yield
