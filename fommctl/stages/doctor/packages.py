"""The distributions that fommctl declares: are they there, recent enough, whole and alone?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.stages.doctor.child import describe
from fommctl.stages.doctor.findings import Finding
from fommctl.stages.doctor.machine import check_python_version, fits, packaging, python_versions
from fommctl.stages.doctor.probe import SKIPPED, Seen

if TYPE_CHECKING:
    from packaging.requirements import Requirement

AREA, EXTRAS = "packages", "extras"
DISTRIBUTION = "fommctl"
ELSEWHERE = frozenset({"face-alignment", "scikit-video", "huggingface-hub", "filelock", "jinja2", "packaging"})
"""Dependencies that `animate` with the built-in model does without: for other detectors, metrics, downloads, reports
and for this command."""
RIVALS = ("cv2", "dlib", "PIL", "numpy", "torch", "av")
"""Modules that more than one distribution offers under its own name: the one installed last wins, by halves."""
DEVELOPERS = frozenset({"dev"})
"""Extras that are no concern of users."""
_ADVICE = (
    (
        r"libGL|libgthread|libxcb|libSM|libXext",
        "Run 'apt-get install libgl1 libglib2.0-0', or put opencv-python-headless in place of opencv-python.",
    ),
    (
        r"NumPy 1\.x|numpy\.core\.multiarray|dtype size changed|_ARRAY_API",
        "It was built for another numpy: run 'pip install --upgrade --force-reinstall {name} numpy'.",
    ),
    (r"SIGILL|Illegal instruction", "The wheel uses instructions that this processor lacks: install an older {name}."),
    (r"GLIBC|invalid ELF|wrong architecture|not a valid Win32", "The wheel is for another system: reinstall {name}."),
    (r"seconds|not looked at", "Run it again with a larger --timeout; a slow network disk may be why."),
)
"""What to do about what an import says; {name} is the distribution."""


def versions() -> dict[str, str]:
    """Of fommctl, Python, the platform and every dependency that is installed, by its declared name."""
    found = python_versions()
    for requirement in requirements():
        version = _version(requirement.name)
        if version is not None:
            found[requirement.name] = version
    return found


def requirements(extra: str = "") -> list[Requirement]:
    """What fommctl declares for this platform, beyond the plain ones where an extra is named; sorted by name.

    Raises MissingError where the package that reads and compares versions does not work.
    """
    Requirement = packaging("requirements").Requirement
    declared = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or ()]
    plain = [each for each in declared if each.marker is None or each.marker.evaluate({"extra": ""})]
    if not extra:
        return sorted(plain, key=lambda each: each.name.lower())
    wanted = [each for each in declared if each.marker is not None and each.marker.evaluate({"extra": extra})]
    return sorted((each for each in wanted if each not in plain), key=lambda each: each.name.lower())


def import_items() -> list[str]:
    """What `looking.imports` is asked for: DISTRIBUTION:MODULE of every dependency that is installed."""
    names = [requirement.name for requirement in requirements()]
    return [f"imports.{name}:{module}" for name in names for module in modules(name)]


def modules(name: str) -> list[str]:
    """What is imported from a distribution: of several modules the one of its own name, else all public ones."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return []
    tops = set((distribution.read_text("top_level.txt") or "").split())
    for file in distribution.files or ():
        if file.suffix == ".py" and len(file.parts) < 3 and not file.parts[0].startswith("."):
            tops.add(file.parts[0] if len(file.parts) == 2 and file.name == "__init__.py" else "")
            tops.add(file.stem if len(file.parts) == 1 else "")
    public = sorted(top for top in tops if re.fullmatch(r"[A-Za-z]\w*", top))
    own = [top for top in public if _normal(top) == _normal(name)]
    return own or public


def check_python() -> Iterator[Finding]:
    """Python itself, against what fommctl declares."""
    declared: Sequence[str] = metadata.metadata(DISTRIBUTION).get_all("Requires-Python") or ()
    yield from check_python_version(declared[0] if declared else "")


def check_installation() -> Iterator[Finding]:
    """fommctl's own distribution, by whose metadata plugins and presets are found."""
    from fommctl import __version__

    code = Path(__file__).parents[3]
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        value = f"{__version__} in {code}, not installed: its plugins cannot be found"
        advice = f"Run 'pip install --editable {code}'."
        yield _broken(DISTRIBUTION, value, advice, stops=True)
        return
    editable = _editable(distribution)
    value = f"{__version__}{', editable' if editable else ''}, in {code}"
    if distribution.version != __version__:
        again = f"--editable {code}" if editable else "--force-reinstall fommctl"
        value += f", but its metadata is that of {distribution.version}"
        yield _broken(DISTRIBUTION, value, f"Run 'pip install {again}'.", stops=False)
    else:
        yield Finding(area=AREA, name=DISTRIBUTION, value=value)


def check_dependencies(seen: Seen) -> Iterator[Finding]:
    """Each declared dependency: installed, of a fitting version, and can it be imported?

    seen: what `looking.imports` found for `import_items`.
    """
    declared = requirements()
    hidden = {}
    for name in (requirement.name for requirement in declared):
        for fact in (seen.facts.get(f"imports.{name}:{module}", {}) for module in modules(name)):
            if fact.get("error") and fact.get("file") and not _belongs(name, fact["file"]):
                hidden[fact["error"]] = name
    yield from (_dependency(requirement, seen, hidden) for requirement in declared)


def _dependency(requirement: Requirement, seen: Seen, hidden: Mapping[str, str]) -> Finding:
    """hidden: names of packages that another file hides, by what that file raises; others fail by it, too."""
    name, wanted = requirement.name, str(requirement.specifier)
    version = _version(name)
    stops = _normal(name) not in ELSEWHERE
    if version is None:
        return _broken(
            name, f"not installed; needed: {wanted or 'any'}", f"Run 'pip install \"{requirement}\"'.", stops
        )
    if not fits(version, wanted):
        # The trial tells whether it does all the same.
        advice = f"Run 'pip install --upgrade \"{requirement}\"'."
        return _broken(name, f"{version}; needed: {wanted}", advice, stops=False)
    for module in modules(name):
        if seen.troubles.get(f"imports.{name}:{module}", "").startswith(SKIPPED):
            value = f"{version}; {seen.troubles[f'imports.{name}:{module}']}"
            return Finding(area=AREA, name=name, value=value, level="note", advice=import_advice(name, value))
        fault = _import_fault(name, module, seen, hidden)
        if fault is not None:
            return _broken(name, f"{version}; {fault[0]}", fault[1], stops)
    return Finding(area=AREA, name=name, value=version)


def _broken(name: str, value: str, advice: str, stops: bool) -> Finding:
    return Finding(area=AREA, name=name, value=value, level="problem", advice=advice, stops=stops)


def _import_fault(name: str, module: str, seen: Seen, hidden: Mapping[str, str]) -> tuple[str, str] | None:
    """What is wrong with the import of a module, and what to do about it."""
    item = f"imports.{name}:{module}"
    fact: Mapping[str, Any] = seen.facts.get(item, {})
    error = fact.get("error") or seen.troubles.get(item)
    file = fact.get("file")
    if file and not _belongs(name, file):
        what = f"'import {module}' loads {file}, which is not of this distribution"
        return (f"{what}: {error}" if error else what), f"Rename or remove {file}; it hides the package."
    if not error:
        return None
    root = hidden.get(error)
    advice = f"Solve what is said of {root} first." if root else import_advice(name, error)
    return f"'import {module}' fails: {error}", advice


def import_advice(name: str, error: str) -> str:
    """What to do where the import of a distribution fails with this message."""
    for pattern, advice in _ADVICE:
        if re.search(pattern, error):
            return advice.format(name=name)
    return f"Run 'pip install --force-reinstall {name}'."


def _belongs(name: str, file: str) -> bool:
    """Whether a file lies where the distribution is installed; an editable one may lie anywhere."""
    distribution = metadata.distribution(name)
    if _editable(distribution):
        return True
    place = Path(str(distribution.locate_file(""))).resolve()
    return Path(file).resolve().is_relative_to(place)


def _editable(distribution: metadata.Distribution) -> bool:
    try:
        address = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(address.get("dir_info", {}).get("editable"))


def check_rivals() -> Iterator[Finding]:
    """Several distributions with the same module, and one that is installed twice."""
    owners = metadata.packages_distributions()
    for module in RIVALS:
        names = sorted({_normal(name) for name in owners.get(module, ())})
        if len(names) > 1:
            advice = (
                f"Keep one: run 'pip uninstall {' '.join(names)}', then 'pip install --force-reinstall {names[0]}'."
            )
            value = f"{module} comes from {' and '.join(names)}, which overwrite each other's files"
            yield Finding(area=AREA, name=module, value=value, level="problem", advice=advice)
    declared = {_normal(re.split(r"[^\w.-]", text)[0]) for text in metadata.requires(DISTRIBUTION) or ()}
    copies: dict[str, set[str]] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"] if distribution.metadata else None
        if name:
            copies.setdefault(_normal(name), set()).add(f"{distribution.version}")
    for name in sorted(declared):
        if len(copies.get(name, ())) > 1:
            value = f"installed more than once: {' and '.join(sorted(copies[name]))}"
            advice = f"Run 'pip uninstall {name}' until it is gone, then 'pip install {name}'."
            yield Finding(area=AREA, name=name, value=value, level="note", advice=advice)


def check_extras() -> Iterator[Finding]:
    """What can be installed beside, by the metadata of fommctl; a note where it is not."""
    offered = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ()
    for extra in sorted(set(offered) - DEVELOPERS):
        wanted = requirements(extra)
        there = [f"{each.name} {_version(each.name)}" for each in wanted if _satisfied(each)]
        lacking = [str(each).partition(";")[0].strip() for each in wanted if not _satisfied(each)]
        if not wanted:
            yield Finding(area=EXTRAS, name=extra, value="nothing to install on this platform")
        elif lacking:
            advice = f"Run \"pip install 'fommctl[{extra}]'\" if you need it."
            yield Finding(area=EXTRAS, name=extra, value=f"lacks {', '.join(lacking)}", level="note", advice=advice)
        else:
            yield Finding(area=EXTRAS, name=extra, value=", ".join(there))


def _satisfied(requirement: Requirement) -> bool:
    version = _version(requirement.name)
    return version is not None and fits(version, str(requirement.specifier))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except Exception as error:  # metadata that cannot be read, too
        return None if isinstance(error, metadata.PackageNotFoundError) else describe(error)


def _normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
