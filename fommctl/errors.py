"""Every error that a user can meet: one short message, one hint, one exit code."""

import errno
from collections.abc import Sequence

LONGEST_MESSAGE = 32_000
"""Characters: what a broken file holds may stand in a message, and may be as long as the file."""
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of the system where nothing more can be written: the disk, a quota or a limit is full."""

MORE_MEMORY = "Free some, use smaller pictures, or fewer --workers and --batch-size 1."
_NO_MEMORY = (
    "can't allocate memory",
    "annot allocate memory",
    "failed to map segment",
    "can't start new thread",
    "could not create a primitive",
    "could not create a memory object",
)
"""Messages of torch, the dynamic loader, Python's threads and oneDNN, whose errors have no type or number of their
own."""


class FommctlError(Exception):
    """Base of all expected errors; the command line prints `message` and `hint` and exits with `exit_code`."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]} ..."
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            # For Python: a traceback shows the hint below the message.
            self.add_note(f"hint: {hint}")


class UsageError(FommctlError):
    """Wrong usage or configuration, or an output that exists already."""

    exit_code = 2


class ProblemsError(UsageError):
    """Several problems of one call or configuration, told at once."""

    def __init__(self, message: str, hint: str | None = None, problems: Sequence[UsageError] = ()) -> None:
        super().__init__(message, hint)
        self.problems = tuple(problems)


class InputError(FommctlError):
    """An input that cannot be used (missing, broken, without a subject)."""

    exit_code = 3


class OutputError(FommctlError):
    """An output that cannot be written (permissions, full disk, unknown codec)."""

    exit_code = 3


def not_written(path: object, error: OSError, hint: str) -> OutputError:
    """Return the error for a file that cannot be written, to be raised from `error`; a full disk is called so
    everywhere."""
    if error.errno in FULL_DISK:
        return OutputError(f"the disk is full: {path}", hint)
    return OutputError(f"cannot write {path}: {error.strerror or error}", hint)


def out_of_memory(error: BaseException) -> InputError | None:
    """Return what to tell where memory ran out, whoever noticed it; None where `error` is another one."""
    said = isinstance(error, RuntimeError | OSError | ImportError) and any(text in str(error) for text in _NO_MEMORY)
    if not said and not isinstance(error, MemoryError) and getattr(error, "errno", None) != errno.ENOMEM:
        return None
    return InputError("not enough memory", MORE_MEMORY)


class ModelError(FommctlError):
    """A model file that cannot be used."""

    exit_code = 4


class MissingError(FommctlError):
    """Something optional is absent: a package, weights, the network."""

    exit_code = 5


class JobsFailedError(FommctlError):
    """Some of several jobs failed."""

    exit_code = 6


class InterruptedRunError(FommctlError):
    """Ctrl-C or SIGTERM."""

    exit_code = 130


def plugin_of(error: BaseException) -> str | None:
    """Name the plugin in whose code an error arose, the innermost one; None where none took part."""
    # Every command imports this module, few of them fail.
    from importlib import metadata
    from traceback import walk_tb

    frames = [frame.f_globals.get("__name__") or "" for frame, _ in walk_tb(error.__traceback__)]
    plugins = {entry.module.partition(".")[0]: entry for entry in metadata.entry_points(group="fommctl")}
    for package in (name.partition(".")[0] for name in reversed(frames)):
        if package in plugins:
            entry = plugins[package]
            return f"plugin {entry.name!r} ({entry.value}) of {entry.dist.name if entry.dist else 'unknown'}"
    return None


def describe(error: BaseException) -> str:
    """Return `ValueError: its message`, at most about 300 characters."""
    return f"{type(error).__name__}: {str(error)[:300]}".rstrip(": ")


def first_line(error: BaseException) -> str:
    """Return what an error says, the first line and at most 200 characters of it; its type where it says nothing."""
    said = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    return said[0][:200] if said else type(error).__name__


def unforeseen(error: BaseException) -> str:
    """Describe an error that no one raised on purpose, and name the plugin in whose code it arose."""
    plugin = plugin_of(error)
    return describe(error) if plugin is None else f"{describe(error)}, in {plugin}"
