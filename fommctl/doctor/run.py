"""All checks of `fommctl doctor`, in this process and in a child.

Every check that loads libraries, drivers or plugins runs in one child process: its crash or hang costs one row. The
child writes one line for each row and each finished step. Where a step ends the process, a new child goes on with the
next step; after a timeout the rest is not checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from typing import NoReturn

from fommctl.doctor import devices, machine, packages, trial
from fommctl.doctor.report import Redactor, Report, Row, describe, problem
from fommctl.errors import FommctlError

LIMIT = 60.0
"""Seconds for each check; a healthy machine takes about five for all of them."""
_AREAS = ["machine", "packages", "extras", "devices", "codecs", "plugins", "weights", "disk", "environment", "trial"]
_HERE: tuple[tuple[str, Callable[[], Iterable[Row]]], ...] = (
    ("machine", machine.check_machine),
    ("packages", packages.check_installation),
    ("packages", packages.check_duplicates),
    ("extras", packages.check_extras),
    ("disk", machine.check_folders),
    ("disk", machine.check_shared_memory),
    ("environment", machine.check_environment),
)
"""Checks in this process, by area."""
_IN_CHILD: Mapping[str, tuple[Callable[[str], Iterable[Row]], Callable[[], Iterable[str]]]] = {
    "packages": (packages.check_dependency, packages.dependencies),
    "devices": (devices.check_device, lambda: devices.DEVICES),
    "codecs": (trial.check_codec, lambda: trial.CODECS),
    "plugins": (packages.check_plugin, packages.plugin_names),
    "weights": (trial.check_weights, lambda: trial.WEIGHTS),
    "trial": (trial.check_trial, lambda: ("animate",)),
}
"""Checks that load libraries, by area, and the names to check."""
Step = tuple[str, str]
"""Area and name of a check in the child."""
_MARK = "fommctl-doctor:"
"""Beginning of the child's own lines; everything else in its output was printed by libraries."""


def run(limit: float = LIMIT) -> Report:
    """Check this installation and this machine; a check that fails is a row of its own."""
    rows: list[Row] = []
    for area, check in _HERE:
        rows += _guarded(area, check)
    rows += run_steps([(area, name) for area, (_, names) in _IN_CHILD.items() for name in names()], limit)
    rows = list(Redactor().rows(sorted(rows, key=lambda row: _AREAS.index(row.area))))
    return Report(tuple(rows), _versions(rows))


def _guarded(area: str, check: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    try:
        yield from check()
    except Exception as error:
        hint = error.hint if isinstance(error, FommctlError) else None
        advice = hint or "Report it as a bug of fommctl, with this report."
        name, value = check.__name__.rpartition("_")[2], f"could not be checked: {describe(error)}"
        yield problem(area, name, value, advice)


def _versions(rows: Iterable[Row]) -> dict[str, str]:
    """Return the versions of fommctl, Python, the platform, the dependencies and the built-in model."""
    import platform

    from fommctl import __version__

    found = {
        "fommctl": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
    }
    found |= {name: metadata.version(name) for name in packages.dependencies() if packages.version(name)}
    for row in rows:
        if row.area == "weights" and "sha256" in row.facts:
            found["built-in model"] = row.facts["sha256"]
    return found


_NOT_CHECKED = "not checked"
_EXIT = 5
"""Seconds that a process gets to exit, after its output has ended or it was killed."""
_ADVICE = {
    "devices": "See torch under packages; try 'nvidia-smi', and --device cpu until then.",
    "codecs": "Free some disk space, or run 'pip install --force-reinstall --only-binary av av'.",
    "plugins": "Uninstall it or leave it out of FOMMCTL_PLUGINS, and tell its authors.",
    "weights": "See plugins, and FOMMCTL_HOME under disk.",
    "trial": "Solve the other problems first; if it stays, report the output of 'fommctl demo --debug'.",
}
_STOPPING = frozenset(
    {("devices", "torch"), ("devices", "cuda"), ("codecs", "PyAV"), ("codecs", ".mp4"), ("weights", "built-in")}
)
"""Steps without which `animate` with the built-in model does not work, beside packages, plugins and trial."""


def run_steps(steps: Iterable[Step], limit: float) -> Iterator[Row]:
    """Yield the rows of all steps; each may take `limit` seconds."""
    left = list(steps)
    while left:
        process = _start(left)
        noise = ""
        try:
            for line in _lines(process, limit):
                mark, _, message = line.partition(_MARK)
                if not message:
                    noise = mark.strip() or noise
                elif message.startswith("["):
                    _, why = json.loads(message)
                    yield from [_failure(left[0], why)] if why else []
                    del left[0]
                else:
                    yield Row(**json.loads(message))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_EXIT)
        except TimeoutError:
            late = left.pop(0)
            yield _failure(late, f"took more than {limit:g} s")
            yield from (_failure(step, f"{_NOT_CHECKED}: {late[1]} took more than {limit:g} s") for step in left)
            return
        finally:
            _kill(process)
        if left:
            yield _failure(left.pop(0), _end(process.wait(), noise))


def main(steps: list[Step]) -> NoReturn:
    """Run the steps in this process, the child."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    for area, name in steps:
        why = None
        try:
            for row in _IN_CHILD[area][0](name):
                print(f"\n{_MARK}{json.dumps(asdict(row), allow_nan=False)}", file=answers, flush=True)
        except BaseException as error:  # SystemExit included: a broken package may end the process
            why = describe(error)
        print(f"\n{_MARK}{json.dumps([name, why])}", file=answers, flush=True)
    # Exit handlers of libraries may hang.
    os._exit(0)


def _failure(step: Step, why: str) -> Row:
    area, name = step
    if area == "packages":
        row = packages.import_failure(name, f"'import {', '.join(packages.modules(name))}' {why}")
    else:
        stops = step in _STOPPING or area in ("plugins", "trial")
        row = problem(area, name, f"fails: {why}", _ADVICE[area], stops=stops)
    if area != "trial" and why.startswith(_NOT_CHECKED):
        return Row(area=area, name=name, value=why, level="note", advice="Run it again with a larger --timeout.")
    return row


def _start(steps: list[Step]) -> subprocess.Popen[str]:
    # What hides a package from this process has to hide it from the child, too: same path, in the same order.
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "fommctl.doctor.run", json.dumps(steps)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=os.name == "posix",
    )


def _lines(process: subprocess.Popen[str], limit: float) -> Iterator[str]:
    """Yield the lines of the child's output. Raises TimeoutError where a step takes longer than `limit` seconds."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            return
        yield line


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_EXIT)


def _end(code: int, noise: str) -> str:
    """Describe how a process ended."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"ended the process with {name}{' (perhaps for want of memory)' if name == 'SIGKILL' else ''}"
    return f"ended the process with exit code {code}" + (f": {noise[:200]}" if noise else "")


if __name__ == "__main__":
    main([(area, name) for area, name in json.loads(sys.argv[1])])
