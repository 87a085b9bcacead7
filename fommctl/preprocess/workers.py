"""What a process of `preprocess` does with one clip after another: whatever is raised is a failure of that clip."""

from __future__ import annotations

from dataclasses import dataclass

from fommctl.errors import FULL_DISK, FommctlError, OutputError, out_of_memory
from fommctl.preprocess.clip import ClipJob, Made, make_clip
from fommctl.workers import Tell, Work


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a clip could not be made."""

    message: str
    disk_full: bool = False
    """Then no other clip can be made either."""


Outcome = Made | Failure


def prepare() -> Work[ClipJob, Outcome]:
    """The function that makes clips; it raises no errors."""
    return attempt


def attempt(job: ClipJob, tell: Tell) -> Outcome:
    """Make the clip. tell(frames written, None)."""
    try:
        return make_clip(job, tell)
    except FommctlError as error:
        cause = error.__cause__
        full = isinstance(error, OutputError) and isinstance(cause, OSError) and cause.errno in FULL_DISK
        return Failure(error.message, full)
    except OSError as error:
        return Failure(f"{error.strerror or error}".lower(), error.errno in FULL_DISK)
    except Exception as error:
        if known := out_of_memory(error):
            return Failure(known.message)
        # A data set's own frames may raise anything.
        return Failure(f"{type(error).__name__}: {str(error)[:300]}".rstrip(": "))
