"""Running all checks of `fommctl doctor`, in this process and in a child.

Every check that loads libraries, drivers or plugins is a job of the child process, so that a crash or hang costs only
one row.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata

from fommctl import __version__
from fommctl.doctor import environment, libraries
from fommctl.doctor.report import AREAS, Report, Row, problem, redactor
from fommctl.workers import Done, Failed, Progress, TimedOut, Work, failure, run_jobs

LIMIT = 60.0
"""Seconds for each check; a healthy machine takes about five for all of them."""
HERE: tuple[tuple[str, Callable[[], Iterable[Row]]], ...] = (
    ("machine", environment.check_machine),
    ("packages", environment.check_installation),
    ("extras", environment.check_extras),
    ("disk", environment.check_disk),
    ("environment", environment.check_variables),
)
"""Checks in this process, by area."""
IN_CHILD: Mapping[str, tuple[Callable[[str], Iterable[Row]], Callable[[], Iterable[str]]]] = {
    "packages": (libraries.check_dependency, libraries.dependencies),
    "devices": (libraries.check_device, lambda: libraries.DEVICES),
    "codecs": (libraries.check_codec, lambda: libraries.CODECS),
    "plugins": (libraries.check_plugin, libraries.plugin_names),
    "weights": (libraries.check_weights, lambda: libraries.WEIGHTS),
    "trial": (libraries.check_trial, lambda: ("animate",)),
}
"""Checks that load libraries, by area, and the names to check."""
Step = tuple[str, str]
"""Area and name of a check in the child."""
ADVICE = {
    "devices": "See torch under packages; try 'nvidia-smi', and --device cpu until then.",
    "codecs": "Free some disk space, or run 'pip install --force-reinstall --only-binary av av'.",
    "plugins": "Uninstall it or leave it out of FOMMCTL_PLUGINS, and tell its authors.",
    "weights": "See plugins, and FOMMCTL_HOME under disk.",
    "trial": "Solve the other problems first; if it stays, report the output of 'fommctl demo --debug'.",
}
"""Advice for a check that fails, by area."""
STOPPING = frozenset(
    {("devices", "torch"), ("devices", "cuda"), ("codecs", "PyAV"), ("codecs", ".mp4"), ("weights", "built-in")}
)
"""Steps that `animate` with the built-in model needs, besides packages, plugins and trial."""


def run(limit: float = LIMIT) -> Report:
    """Check this installation and this machine; a failing check becomes a row.  limit: seconds for each check."""
    rows = [row for area, check in HERE for row in _checked(area, check)]
    rows += run_steps([(area, name) for area, (_, names) in IN_CHILD.items() for name in names()], limit)
    rows = list(map(redactor(), sorted(rows, key=lambda row: AREAS.index(row.area))))
    versions = {
        "fommctl": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
    }
    versions |= {name: metadata.version(name) for name in libraries.dependencies() if environment.version(name)}
    for row in rows:
        if row.area == "weights" and "sha256" in row.facts:
            versions["built-in model"] = row.facts["sha256"]
    return Report(tuple(rows), versions)


def _checked(area: str, check: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    try:
        yield from (replace(row, area=area) for row in check())
    except Exception as error:
        failed = failure(error)
        again = f"Run 'pip install --force-reinstall {error.name}'." if isinstance(error, ImportError) else None
        advice = failed.hint or again or "Report it as a bug of fommctl, with this report."
        name = check.__name__.removeprefix("check_")
        yield replace(problem(name, f"could not be checked: {failed.message}", advice), area=area)


def run_steps(steps: Sequence[Step], limit: float) -> Iterator[Row]:
    """Yield the rows of all steps; each may take `limit` seconds, and after one that takes longer no more are begun."""
    left = list(steps)
    with contextlib.closing(run_jobs(steps, _make_worker, workers=1, timeout=limit)) as outcomes:
        for step, outcome in outcomes:
            left.remove(step)
            found = outcome.result if isinstance(outcome, Done) else [_failure(step, outcome)]
            yield from (replace(row, area=step[0]) for row in found)
            if isinstance(outcome, TimedOut):
                break
    for area, name in left:
        value, advice = f"not checked: {step[1]} took more than {limit:g} s", "Run it again with a larger --timeout."
        # The verdict is whether `animate` works, which only the trial shows.
        known = area != "trial"
        yield Row(name, value, "note" if known else "problem", advice, not known, area=area)


def _make_worker() -> Work[Step, list[Row]]:
    """Return the function that runs a step in the child, where all output of libraries is discarded."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    def work(step: Step, report: Progress) -> list[Row]:
        area, name = step
        return list(IN_CHILD[area][0](name))

    return work


def _failure(step: Step, failed: Failed) -> Row:
    area, name = step
    if area == "packages":
        return libraries.import_failure(name, failed.message)
    stops = step in STOPPING or area in ("plugins", "trial")
    return problem(name, f"fails: {failed.message}", ADVICE[area], stops=stops)
