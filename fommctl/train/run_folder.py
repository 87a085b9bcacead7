"""The folder of a training run: its lock, the checkpoint to resume from, and atomic writes.

RUN/.fommctl-training               marks the folder as a run's; names the newest checkpoint
RUN/metrics.jsonl
RUN/tensorboard/
RUN/pictures/00001000.png
RUN/checkpoints/step-00001000.pt    to resume from; the last few are kept
RUN/checkpoints/epoch-0050.pt       kept permanently
RUN/checkpoints/best.pt             kept permanently
"""

from __future__ import annotations

import errno
import logging
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fommctl.errors import InputError, ModelError, OutputError, UsageError, not_written
from fommctl.files import atomic_write, held_in_place, locked, read_regular, remove_stale_files, require_in_place

log = logging.getLogger(__name__)

BEST = "best.pt"
MODEL = "model.safetensors"
_LOCK = ".lock"
_MARKER = ".fommctl-training"
# Seconds to wait for the lock, which worker processes of a killed run may hold a moment longer.
_WAIT_FOR_LOCK = 1
_STEP = re.compile(r"step-(\d+)\.pt")
_AUTO = "auto"
_HINT_FULL = "Free some space and resume with --resume auto: the last good checkpoint stays."


def checkpoints_folder(run: Path) -> Path:
    """Return the folder of the checkpoints of a run."""
    return run / "checkpoints"


def step_checkpoint(run: Path, step: int) -> Path:
    """Return the checkpoint after `step` steps, to resume from."""
    return checkpoints_folder(run) / f"step-{step:08d}.pt"


def epoch_checkpoint(run: Path, epoch: int) -> Path:
    """Return the checkpoint after `epoch` epochs, which is kept permanently."""
    return checkpoints_folder(run) / f"epoch-{epoch:04d}.pt"


def best_checkpoint(run: Path) -> Path:
    """Return the checkpoint with the best score so far, which is kept permanently."""
    return checkpoints_folder(run) / BEST


def picture_path(run: Path, step: int) -> Path:
    """Return the picture grid of a step."""
    return run / "pictures" / f"{step:08d}.png"


def step_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of single steps in `folder`, the newest first; none if the folder does not exist."""
    if not folder.is_dir():
        return []
    numbers = {path: int(match[1]) for path in folder.iterdir() if (match := _STEP.fullmatch(path.name))}
    return sorted(numbers, key=numbers.__getitem__, reverse=True)


def is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint by torch.save (a ZIP archive without compression) is complete, by its checksums."""
    try:
        if not checkpoint.is_file():
            return False
        with zipfile.ZipFile(checkpoint) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            return unpacked <= checkpoint.stat().st_size and archive.testzip() is None
    except Exception:  # zipfile fails in any way: names that are no text, packings that it does not know.
        return False


def open_run(out: Path, resume: str | None, *, readable: Callable[[Path], bool] = is_whole) -> Path | None:
    """Return the checkpoint from which the run in `out` resumes, None for a new run. Nothing is written.

    resume: None: start anew; `auto`: the newest checkpoint in `out`, or none if a run ended before its first one; else
    the path of a checkpoint, of a run or of a folder of checkpoints.  readable: whether a file can be used; in a
    folder, a damaged checkpoint is replaced by the next older one, with a warning.

    Raises UsageError if `out` contains files that the run would mix with, InputError if there is nothing to resume from
    or the run's checkpoints are missing, ModelError if every checkpoint is damaged.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"the output is not a folder: {out}", "Name a folder with --out.")
    empty = _is_empty(out)
    if resume is None:
        if not empty:
            raise UsageError(
                f"the output folder is not empty: {out}",
                "Resume with --resume auto, or name another folder with --out.",
            )
        return None
    if resume == _AUTO:
        newest = _newest(checkpoints_folder(out), readable)
        if newest is None and not empty:
            _check_restart(out)
            log.warning("%s contains no checkpoint yet: starting a new run", out)
        return newest
    checkpoint = _named(Path(resume), readable)
    if not empty and not _inside(checkpoint, out):
        raise UsageError(
            f"the output folder is not empty and {checkpoint} is not from that run: {out}",
            "Name another folder with --out, or resume with --resume auto.",
        )
    return checkpoint


def mark(run: Path, newest: Path | None = None) -> None:
    """Mark the folder as a run's, and record its newest checkpoint, so that its loss would be noticed."""
    text = "" if newest is None else f"{newest.name}\n"
    write_atomically(run / _MARKER, lambda path: path.write_text(text, encoding="utf-8"))


def _check_restart(out: Path) -> None:
    """Raise UsageError if the folder contains anything but a run without a checkpoint."""
    try:
        newest = read_regular(out / _MARKER).decode("utf-8", "replace").strip()[:100]
    except OSError as error:
        raise UsageError(
            f"the output folder is not empty and contains no checkpoint: {out}", "Name another folder with --out."
        ) from error
    if newest or (out / MODEL).exists() or checkpoints_folder(out).is_symlink():
        raise InputError(
            f"the checkpoints of the run in {out} are missing{f' ({newest} was the newest)' if newest else ''}",
            f"Restore {checkpoints_folder(out)}, or name another folder with --out.",
        )


def set_newer_aside(run: Path, step: int) -> None:
    """Rename checkpoints after `step` to `*.abandoned`: a run resumed from `step` diverges from them, and `--resume
    auto` must not return to them."""
    for path in step_checkpoints(checkpoints_folder(run)):
        if _number(path) > step:
            os.replace(path, path.with_name(f"{path.name}.abandoned"))
            log.warning("%s is from after the step that the run resumes from: renamed to *.abandoned", path.name)


def keep_last(folder: Path, count: int) -> None:
    """Delete all but the newest `count` (at least one) checkpoints of single steps; the best one and those of epochs
    are kept."""
    for path in step_checkpoints(folder)[max(1, count) :]:
        path.unlink(missing_ok=True)


@contextmanager
def lock_run(out: Path) -> Iterator[None]:
    """Create the folder `out` if it is missing, and lock out every other training.

    The lock ends with the process, however that ends. Unfinished files of a killed run are removed, and so are folders
    that were created here and are still empty at the end. Raises UsageError if another training holds the lock,
    OutputError if the folder is not writable.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    with ExitStack() as held:
        try:
            out.mkdir(parents=True, exist_ok=True)
            alone = held.enter_context(locked(out / _LOCK, patience=_WAIT_FOR_LOCK))
        except FileExistsError as error:
            raise UsageError(f"the output is not a folder: {out}", "Name a folder with --out.") from error
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"cannot write to {out}: {reason}", "Name another folder with --out.") from error
        if not alone:
            raise UsageError(
                f"another training run is writing to {out}", "Wait for it, or name another folder with --out."
            )
        held.enter_context(held_in_place(out))
        try:
            for folder in (out, checkpoints_folder(out), picture_path(out, 0).parent):
                remove_stale_files(folder)
            yield
        finally:
            if not (out / _MARKER).exists():
                # A folder in which no run has begun is left as it was.
                # While it is held: who waits for it sees that its file is gone, and begins anew.
                (out / _LOCK).unlink(missing_ok=True)
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it to disk, and rename it to `path`.

    A kill, a power cut or an error leaves the previous file. Raises OutputError if the disk is full or the folder is
    not writable; other errors of `write` are propagated.
    """
    require_in_place(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, hint=_HINT_FULL) as temporary:
            write(temporary)
    except OSError as error:
        raise not_written(path, error, _HINT_FULL) from error
    except RuntimeError as error:
        hidden = _error_behind(error)
        if hidden is None:
            raise
        raise not_written(path, hidden, _HINT_FULL) from error


def _error_behind(error: RuntimeError) -> OSError | None:
    """Return the system's error behind a failed torch.save; None for any other error.

    The archive writer hides it behind a RuntimeError about positions in the file or, if the disk is full at the very
    end, about a C++ stream.
    """
    if not any(part in str(error) for part in ("inline_container", "PytorchStreamWriter", "iostream error")):
        return None
    context = error.__context__
    if isinstance(context, OSError):
        return context
    # It may also be failing: nothing tells.
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _newest(folder: Path, readable: Callable[[Path], bool]) -> Path | None:
    """Return the newest checkpoint of a step that can be read."""
    found = step_checkpoints(folder)
    for path in found:
        if readable(path):
            return path
        log.warning("%s is damaged: going back to the checkpoint before it", path)
    if found:
        raise ModelError(
            f"every checkpoint in {folder} is damaged",
            "Name an older one with --resume PATH, or start in another --out.",
        )
    return None


def _named(path: Path, readable: Callable[[Path], bool]) -> Path:
    """Return the checkpoint for `--resume path`."""
    if path.is_dir():
        folder = checkpoints_folder(path)
        checkpoint = _newest(folder if folder.is_dir() else path, readable)
        if checkpoint is None:
            raise InputError(f"there is no checkpoint in {path}", "Name a run, or a file step-*.pt of one.")
        return checkpoint
    if not path.exists():
        raise InputError(f"there is no checkpoint {path}", "Name a run or a checkpoint, or resume with --resume auto.")
    if not readable(path):
        raise ModelError(
            f"the checkpoint {path} is damaged", "Name its folder, and the newest intact checkpoint is used."
        )
    return path


def _is_empty(out: Path) -> bool:
    return not out.exists() or all(entry.name == _LOCK for entry in out.iterdir())


def _inside(checkpoint: Path, out: Path) -> bool:
    return checkpoint.resolve().is_relative_to(out.resolve())


def _number(path: Path) -> int:
    match = _STEP.fullmatch(path.name)
    assert match is not None
    return int(match[1])
