"""All checks of `fommctl doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import metadata

from fommctl.doctor import codecs, devices, disk, machine, packages, plugins, weights
from fommctl.doctor.child import Step, run_steps
from fommctl.doctor.report import Redactor, Report, Row, describe
from fommctl.errors import FommctlError

LIMIT = 60.0
"""Seconds for each check; a healthy machine takes about five for all of them."""
_AREAS = ["machine", "packages", "extras", "devices", "codecs", "plugins", "weights", "disk", "environment", "trial"]
_CHECKS: tuple[tuple[str, Callable[[], Iterable[Row]]], ...] = (
    ("machine", machine.check_machine),
    ("packages", packages.check_installation),
    ("packages", packages.check_duplicates),
    ("extras", packages.check_extras),
    ("disk", disk.check_folders),
    ("disk", disk.check_shared_memory),
    ("environment", machine.check_environment),
)


def run(limit: float = LIMIT) -> Report:
    """Check this installation and this machine; a check that fails is a row of its own."""
    rows: list[Row] = []
    for area, check in _CHECKS:
        rows += _guarded(area, check)
    rows += run_steps(_steps(), limit)
    rows = list(Redactor().rows(sorted(rows, key=lambda row: _AREAS.index(row.area))))
    return Report(tuple(rows), _versions(rows))


def _steps() -> Iterator[Step]:
    """Yield what the child has to check."""
    for area, names in (
        ("packages", packages.names()),
        ("devices", devices.NAMES),
        ("codecs", codecs.NAMES),
        ("plugins", plugins.names()),
        ("weights", weights.NAMES),
        ("trial", ("animate",)),
    ):
        yield from ((area, name) for name in names)


def _guarded(area: str, check: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    try:
        yield from check()
    except Exception as error:
        hint = error.hint if isinstance(error, FommctlError) else None
        advice = hint or "Report it as a bug of fommctl, with this report."
        name, value = check.__name__.rpartition("_")[2], f"could not be checked: {describe(error)}"
        yield Row(area=area, name=name, value=value, level="problem", advice=advice)


def _versions(rows: Iterable[Row]) -> dict[str, str]:
    """Return the versions of fommctl, Python, the platform, the dependencies and the built-in model."""
    import platform

    from fommctl import __version__

    found = {
        "fommctl": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
    }
    found |= {name: metadata.version(name) for name in packages.names() if packages.version(name)}
    for row in rows:
        if row.area == "weights" and "sha256" in row.facts:
            found["built-in model"] = row.facts["sha256"]
    return found
