"""FOMMCTL_HOME: the folder that holds pulled and imported models, and how files get into it whole."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fommctl.errors import OutputError, not_written

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


def remove_left_over(target: Path) -> None:
    """Delete what killed processes have left of `replacing`; only for who holds the lock of `target`."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def replacing(
    target: Path, *, hint: str = "Free some space, or check the permissions of the folder."
) -> Iterator[Path]:
    """Yield a temporary path beside `target`; it takes the place of `target` at the end, or vanishes on an error.

    What was written is on the disk before it takes the name, so that a power cut leaves the old file or the new one.
    Raises OutputError with this hint where the folder cannot be written to or the disk is full.
    """
    make_folder(target.parent)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise not_written(target, error, hint) from error
    finally:
        temporary.unlink(missing_ok=True)
