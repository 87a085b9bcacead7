"""Checks of the distributions that fommctl declares, and of the plugins that are installed."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.doctor.report import Row, describe, note, problem
from fommctl.errors import MissingError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from fommctl.host import Host, PluginInfo

DISPENSABLE = frozenset({"face-alignment", "scikit-video", "huggingface-hub", "filelock", "jinja2", "packaging"})
"""Dependencies that `animate` with the built-in model does without."""
SHARED_MODULES = ("cv2", "dlib", "PIL", "numpy", "torch", "av")
"""Modules that several distributions install under the same name, overwriting each other's files."""
_IMPORT_ADVICE = (
    (
        r"libGL|libgthread|libxcb|libSM|libXext",
        "Run 'apt-get install libgl1 libglib2.0-0', or replace opencv-python by opencv-python-headless.",
    ),
    (
        r"NumPy 1\.x|numpy\.core\.multiarray|dtype size changed|_ARRAY_API",
        "It was built for another numpy: run 'pip install --upgrade --force-reinstall {name} numpy'.",
    ),
    (r"SIGILL|Illegal instruction", "The wheel uses instructions that this processor lacks: install an older {name}."),
    (r"GLIBC|invalid ELF|wrong architecture|not a valid Win32", "The wheel is for another system: reinstall {name}."),
    (r"took more than|not checked", "Run it again with a larger --timeout; a slow network disk may be the cause."),
)


def fits(version: str, wanted: str) -> bool:
    """Return whether a version satisfies a specifier by PEP 440, builds such as 2.6.0+cpu and pre-releases included."""
    return bool(_packaging("specifiers").SpecifierSet(wanted).contains(version, prereleases=True))


def requirements(extra: str = "") -> list[Requirement]:
    """Return what fommctl declares for this platform, or what an extra adds to it; sorted by name."""
    declared = [_packaging("requirements").Requirement(text) for text in metadata.requires("fommctl") or ()]
    plain = [each for each in declared if each.marker is None or each.marker.evaluate({"extra": ""})]
    if extra:
        added = [each for each in declared if each.marker is not None and each.marker.evaluate({"extra": extra})]
        return sorted((each for each in added if each not in plain), key=lambda each: each.name.lower())
    return sorted(plain, key=lambda each: each.name.lower())


def dependencies() -> list[str]:
    """Return the declared dependencies, sorted; none where versions cannot be compared."""
    try:
        return [requirement.name for requirement in requirements()]
    except MissingError:
        return []


def version(name: str) -> str | None:
    """Return the version of an installed distribution; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
    except Exception as error:  # unreadable metadata
        return describe(error)


def modules(name: str) -> list[str]:
    """Return the modules to import from a distribution: the one of its own name, else all public ones."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return []
    tops = set((distribution.read_text("top_level.txt") or "").split())
    for file in distribution.files or ():
        if file.suffix == ".py" and len(file.parts) < 3:
            tops.add(file.stem if len(file.parts) == 1 else file.parts[0] if file.name == "__init__.py" else "")
    public = sorted(top for top in tops if re.fullmatch(r"[A-Za-z]\w*", top))
    return [top for top in public if _normal(top) == _normal(name)] or public


def check_installation() -> Iterator[Row]:
    """Check fommctl's own distribution, whose metadata names its plugins."""
    from fommctl import __version__

    code = Path(__file__).parents[2]
    installed = version("fommctl")
    if installed is None:
        value = f"{__version__} in {code}, not installed: its plugins cannot be found"
        yield problem("packages", "fommctl", value, f"Run 'pip install --editable {code}'.", stops=True)
        return
    editable = _editable(metadata.distribution("fommctl"))
    value = f"{__version__}{', editable' if editable else ''}, in {code}"
    if installed != __version__:
        again = f"--editable {code}" if editable else "--force-reinstall fommctl"
        yield problem(
            "packages", "fommctl", f"{value}, but its metadata is that of {installed}", f"Run 'pip install {again}'."
        )
    else:
        yield Row(area="packages", name="fommctl", value=value)


def check_dependency(name: str) -> Iterator[Row]:
    """Check one dependency by importing it, which can crash: runs in the child."""
    requirement = next(each for each in requirements() if each.name == name)
    wanted, installed = str(requirement.specifier), version(name)
    if installed is None:
        advice = f"Run 'pip install \"{requirement}\"'."
        yield problem("packages", name, f"not installed; needed: {wanted or 'any'}", advice, stops=essential(name))
        return
    if not fits(installed, wanted):
        yield problem(
            "packages", name, f"{installed}; needed: {wanted}", f"Run 'pip install --upgrade \"{requirement}\"'."
        )
        return
    for module in modules(name):
        spec = importlib.util.find_spec(module)
        file, error = spec.origin if spec else None, None
        try:
            importlib.import_module(module)
        except BaseException as raised:  # SystemExit included
            error = describe(raised)
        if file and not _belongs(name, file):
            value = f"{installed}; 'import {module}' loads {file}, which is not of this distribution"
            advice = f"Rename or remove {file}; it hides the package."
            yield problem("packages", name, f"{value}: {error}" if error else value, advice, stops=essential(name))
            return
        if error:
            yield import_failure(name, f"'import {module}' fails: {error}")
            return
    yield Row(area="packages", name=name, value=installed)


def import_failure(name: str, why: str) -> Row:
    """Return the row of a dependency that cannot be imported, with the usual remedy."""
    found = (advice.format(name=name) for pattern, advice in _IMPORT_ADVICE if re.search(pattern, why))
    advice = next(found, f"Run 'pip install --force-reinstall {name}'.")
    return problem("packages", name, f"{version(name)}; {why}", advice, stops=essential(name))


def essential(name: str) -> bool:
    """Return whether `animate` with the built-in model needs this dependency."""
    return _normal(name) not in DISPENSABLE


def check_duplicates() -> Iterator[Row]:
    """Check for modules installed by several distributions, and for dependencies installed twice."""
    owners = metadata.packages_distributions()
    for module in SHARED_MODULES:
        names = sorted({_normal(name) for name in owners.get(module, ())})
        if len(names) > 1:
            value = f"{module} comes from {' and '.join(names)}, which overwrite each other's files"
            again = f"'pip uninstall {' '.join(names)}', then 'pip install --force-reinstall {names[0]}'"
            yield problem("packages", module, value, f"Keep one: run {again}.")
    declared = {_normal(re.split(r"[^\w.-]", text)[0]) for text in metadata.requires("fommctl") or ()}
    copies: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"] if distribution.metadata else None
        if name and _normal(name) in declared:
            copies.setdefault(_normal(name), set()).add(f"{distribution.version}")
    for name, versions in sorted(copies.items()):
        if len(versions) > 1:
            value = f"installed more than once: {' and '.join(sorted(versions))}"
            advice = f"Run 'pip uninstall {name}' until it is gone, then 'pip install {name}'."
            yield note("packages", name, value, advice)


def check_extras() -> Iterator[Row]:
    """Check the optional dependencies."""
    for extra in sorted(set(metadata.metadata("fommctl").get_all("Provides-Extra") or ()) - {"dev"}):
        found = {each: version(each.name) for each in requirements(extra)}
        lacking = [each for each, number in found.items() if number is None or not fits(number, str(each.specifier))]
        if lacking:
            value = f"lacks {', '.join(str(each).partition(';')[0].strip() for each in lacking)}"
            advice = f"Run \"pip install 'fommctl[{extra}]'\" if you need it."
            yield note("extras", extra, value, advice)
        else:
            value = ", ".join(f"{each.name} {number}" for each, number in found.items())
            yield Row(area="extras", name=extra, value=value or "nothing to install on this platform")


def _packaging(module: str) -> Any:
    try:
        return importlib.import_module(f"packaging.{module}")
    except Exception as error:
        hint = "Run 'pip install --force-reinstall packaging'."
        raise MissingError(f"versions cannot be compared: packaging does not load: {describe(error)}", hint) from error


def _belongs(name: str, file: str) -> bool:
    """Return whether a file lies where the distribution is installed; an editable one may lie anywhere."""
    distribution = metadata.distribution(name)
    place = Path(str(distribution.locate_file(""))).resolve()
    return _editable(distribution) or Path(file).resolve().is_relative_to(place)


def _editable(distribution: metadata.Distribution) -> bool:
    try:
        address = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(address.get("dir_info", {}).get("editable"))


def _normal(name: str) -> str:
    """Return a distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


ALL_PLUGINS = "plugins"
_REINSTALL_PLUGINS = "Run 'pip install --force-reinstall fommctl'."


def plugin_names() -> list[str]:
    """Return what to check: the entry points to load, one by one, then ALL_PLUGINS together."""
    found = sorted({entry.name for entry in metadata.entry_points(group="fommctl")})
    wanted = os.environ.get("FOMMCTL_PLUGINS")
    return [*(name for name in found if wanted is None or name in re.split(r"[,\s]+", wanted)), ALL_PLUGINS]


def check_plugin(name: str) -> Iterator[Row]:
    """Load one plugin, or ask the host about ALL_PLUGINS: runs in the child."""
    if name != ALL_PLUGINS:
        # An error is told by the host below; this step is here for plugins that end the process.
        for entry in metadata.entry_points(group="fommctl", name=name):
            with contextlib.suppress(Exception, SystemExit):
                entry.load()
        return
    from fommctl.host import load_host

    host = load_host(check=False)
    yield from map(_plugin, host.plugins)
    if not any(plugin.distribution == "fommctl" for plugin in host.plugins):
        yield problem(
            "plugins",
            ALL_PLUGINS,
            "none of fommctl's own is loaded",
            f"Unset FOMMCTL_PLUGINS; else: {_REINSTALL_PLUGINS}",
            stops=True,
        )
    for warning in host.warnings:
        yield problem("plugins", "FOMMCTL_PLUGINS", warning, "Correct it; 'fommctl plugins list' shows the names.")
    for conflict in host.conflicts():
        yield problem("plugins", "conflict", conflict.message, conflict.hint, stops=True)
    yield from _detectors(host)
    yield from _readiness("embedders", host)
    yield from _readiness("metrics", host)


def _plugin(plugin: PluginInfo) -> Row:
    of = f"{plugin.distribution} {plugin.version}"
    if plugin.problem is None:
        counts = {kind: len(registered) for kind, registered in plugin.registers.items()}
        offers = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items())
        return Row(area="plugins", name=plugin.name, value=f"{of}; {offers or 'offers nothing'}")
    own = plugin.distribution == "fommctl"
    upgrade = f"Run 'pip install --upgrade {plugin.distribution}' or uninstall it; "
    advice = _REINSTALL_PLUGINS if own else f"{upgrade}'fommctl plugins show {plugin.name}' has the traceback."
    return problem("plugins", plugin.name, f"{of}; {plugin.problem}", advice, stops=own)


def _detectors(host: Host) -> Iterator[Row]:
    """Yield a row for each detector: ready, chosen by default, or what it lacks."""
    from fommctl.host import why_not_ready

    chosen: dict[str, str] = {}
    for spec in sorted(host.detectors.values(), key=lambda spec: -spec.priority):
        reason = why_not_ready(spec)
        if reason is None:
            first = chosen.setdefault(spec.subject, spec.name) == spec.name
            value = f"{spec.subject}: ready{', the default' if first else ''}"
            yield Row(area="plugins", name=spec.name, value=value)
        else:
            fetched = "package" not in reason and "raised" not in reason
            advice = f"It fetches weights when named: '--detector {spec.name}'." if fetched else None
            value = f"{spec.subject}: {reason}"
            yield Row(area="plugins", name=spec.name, value=value, level="note", advice=advice)
    if "face" not in chosen:
        advice = "Run 'pip install --force-reinstall dlib-bin'; until then use --crop none or --crop X,Y,SIZE."
        yield problem(
            "plugins", "detectors", "no face detector is ready, so --crop auto cannot work", advice, stops=True
        )


def _readiness(kinds: str, host: Host) -> Iterator[Row]:
    """Yield one row for all embedders or metrics, and one for each reason why some are not ready."""
    from fommctl.host import why_not_ready

    reasons: dict[str | None, list[str]] = {}
    for spec in getattr(host, kinds).values():
        reasons.setdefault(why_not_ready(spec), []).append(spec.name)
    ready = reasons.pop(None, [])
    total = len(ready) + sum(map(len, reasons.values()))
    yield Row(area="plugins", name=kinds, value=f"{len(ready)} of {total} ready")
    for reason, found in reasons.items():
        yield Row(area="plugins", name=kinds, value=f"{', '.join(found)}: {reason}", level="note")
