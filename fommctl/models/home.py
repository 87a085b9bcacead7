"""FOMMCTL_HOME: the folder that holds pulled and imported models."""

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fommctl.errors import OutputError

if TYPE_CHECKING:
    from filelock import BaseFileLock


def home() -> Path:
    """The folder named by FOMMCTL_HOME, else the user's data folder of this operating system. It may not exist yet."""
    named = os.environ.get("FOMMCTL_HOME")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("fommctl", appauthor=False))


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


def model_lock(name: str) -> "BaseFileLock":
    """A lock between processes for everything that changes the files of the model `name`."""
    from filelock import FileLock

    folder = make_folder(home() / "locks")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write to {folder}", "Set FOMMCTL_HOME to a folder that you can write to.")
    return FileLock(folder / f"{name}.lock")
