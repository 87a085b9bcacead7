"""Rendering a result again from its sidecar, bit for bit where machine and versions are the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fommctl.animate import run as animate
from fommctl.animate.animator import Animator
from fommctl.animate.config import AnimateConfig
from fommctl.animate.recording import NOT_RECORDED, AnimateResult
from fommctl.errors import InputError, ModelError, UsageError
from fommctl.host import Host, load_host
from fommctl.media.files import check_file
from fommctl.media.marking import printable
from fommctl.media.sequences import is_sequence
from fommctl.models import registry
from fommctl.models.files import weights_sha256
from fommctl.models.loading import LoadedModel, load_file, load_model
from fommctl.presets.preset import preset_from_text
from fommctl.provenance.hashing import media_hash
from fommctl.provenance.sidecar import File, Sidecar, differences, environment, read
from fommctl.workers import Progress

LONGEST_PATH = 1000
"""Characters of a path of the sidecar that are shown."""


@dataclass(frozen=True, slots=True)
class RerenderRequest:
    """The rendering that a sidecar describes, with its inputs located and checked."""

    path: Path
    """Path of the sidecar."""
    record: Sidecar
    config: AnimateConfig


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of a second rendering with the recorded one."""

    identical: bool
    recorded_sha256: str
    sha256: str
    differences: tuple[str, ...]
    """Differences between the environments: versions, plugins, processor."""

    def to_json(self) -> dict[str, Any]:
        """Return the entry `reproduction` of --json."""
        return {
            "identical": self.identical,
            "recorded_sha256": self.recorded_sha256,
            "sha256": self.sha256,
            "differences": list(self.differences),
        }


def plan(
    path: Path,
    *,
    source: Path | None = None,
    driving: Path | None = None,
    views: Sequence[Path] = (),
    output: Path | None = None,
    overwrite: bool = False,
    sidecar: bool = False,
) -> RerenderRequest:
    """Read a sidecar and locate its inputs: the given paths, else beside the sidecar or at the recorded paths.

    output: None is the sidecar's name without `.json`. Raises UsageError if `path` is not a sidecar, InputError if an
    input is missing or has changed.
    """
    record = read(path)
    inputs = record.inputs
    if views and len(views) != len(inputs.views):
        raise UsageError(f"{len(views)} --view, the sidecar has {len(inputs.views)}", "Give all of them or none.")
    given_views: Sequence[Path | None] = views or [None] * len(inputs.views)
    paths: dict[str, Any] = {
        "source": _found("the source", inputs.source, source, path.parent),
        "driving": _found("the driving video", inputs.driving, driving, path.parent),
        "views": tuple(
            _found(f"view {number}", file, given, path.parent)
            for number, (file, given) in enumerate(zip(inputs.views, given_views, strict=True), 1)
        ),
    }
    try:
        if wrong := sorted(set(record.options) & set(NOT_RECORDED)):
            raise UsageError(f"it names {wrong[0]}", "Use the .json file that 'fommctl animate --sidecar' wrote.")
        # Sidecars without this option are older than presets' defaults; options left open then behaved as published.
        options: dict[str, Any] = {"as_published": True, **record.options}
        options |= {"output": output or _default_output(path), "overwrite": overwrite, "sidecar": sidecar}
        options["encoder_threads"] = record.settings.encoder_threads
        return RerenderRequest(path, record, AnimateConfig(**paths, **options))
    except UsageError as error:
        raise UsageError(f"the options in {path} cannot be used: {error.message}", error.hint) from error


def load(request: RerenderRequest, *, model: str | None = None, device: str | None = None) -> Animator:
    """Load the sidecar's model with the recorded settings.

    model: name or path of the model's file, if it has moved.  device: device to use instead of the recorded one. Raises
    ModelError if the file is missing or has changed, MissingError for a device that is not available.
    """
    record, host = request.record, load_host()
    torch.manual_seed(record.settings.seed)
    loaded = _load_model(record, host, model, request.path.parent)
    settings = record.settings
    return Animator(loaded, host, device=device or settings.device, precision=settings.precision, seed=settings.seed)


def render(
    request: RerenderRequest, animator: Animator, report: Progress | None = None
) -> tuple[AnimateResult, Comparison]:
    """Render and compare the result with the sidecar's hash. Raises the errors of `animate.run`."""
    with _threads(request.record.settings.torch_threads):
        result = animate.run(request.config, animator, report)
        found = media_hash(result.output)
    now = environment(animator.host, animator.device)
    changed = differences(request.record.environment, now)
    if result.device != request.record.settings.device:
        changed.insert(0, f"device {result.device}, then {request.record.settings.device}")
    recorded = request.record.pixels_sha256
    return result, Comparison(found == recorded, recorded, found, tuple(changed))


def _default_output(path: Path) -> Path:
    if path.suffix.lower() != ".json" or not Path(path.stem).suffix:
        raise UsageError(f"the name of {path} does not tell that of the result", "Name the result with -o.")
    return path.with_suffix("")


def _found(what: str, file: File, given: Path | None, folder: Path) -> Path:
    """Return the first candidate path whose content has the recorded hash. Raises InputError if there is none."""
    places = [given] if given is not None else _places(file, folder)
    changed = None
    for place in places:
        found = _hash(place, named=given is not None)
        if found is None:
            continue
        if found == file.sha256:
            return place
        changed = changed or (place, found)
    if changed is not None:
        place, found = changed
        hashes = f"has the SHA-256 {found[:16]}..., the sidecar {file.sha256[:16]}..."
        raise InputError(
            f"{what} has changed: {printable(str(place), LONGEST_PATH)} {hashes}",
            "Restore the original file, or give its new path.",
        )
    raise InputError(
        f"{what} is not there: {printable(file.path, LONGEST_PATH)}",
        "Put it next to the sidecar, or give its new path.",
    )


def _hash(place: Path, *, named: bool) -> str | None:
    """Return the hash of a file or of frames; None if the path is neither, or cannot be read.  named: the user gave
    the path, so raise the reason as InputError instead."""
    frames = os.path.isdir(place) or (is_sequence(place) and os.path.isdir(place.parent))
    if named and not frames:
        check_file(place)
    if not frames and not os.path.isfile(place):
        return None
    try:
        return media_hash(place)
    except InputError:
        if named:
            raise
        return None


def _places(file: File, folder: Path) -> list[Path]:
    """Return where a recorded file may be now: relative to the sidecar, at its recorded path, beside the sidecar."""
    candidates = [] if file.relative is None else [folder / file.relative]
    return [*candidates, Path(file.path), folder / Path(file.path).name]


def _load_model(record: Sidecar, host: Host, given: str | None, folder: Path) -> LoadedModel:
    preset = preset_from_text(record.model.preset, host, source="the preset of the sidecar")
    file, name = record.model.file, record.model.name
    if file is None:
        loaded = load_model(given or name, host, preset=preset.name)
        if loaded.preset.text() != preset.text():
            raise ModelError(
                f"the model {printable(name)} has a different configuration now",
                "Use the version of fommctl that rendered it.",
            )
        return loaded
    if given is not None:
        entry = registry.entries(host).get(given)
        places = [Path(given) if entry is None else registry.file_of(entry)]
    else:
        entry = registry.entries(host).get(name)
        places = [entry.path] if entry is not None else []
        places += _places(file, folder)
    present = [place for place in places if os.path.exists(place)]
    for place in present:
        if weights_sha256(place) == file.sha256:
            return load_file(place, host, name=name, preset=preset)
    if present:
        other = printable(str(present[0]), LONGEST_PATH)
        raise ModelError(
            f"the model has changed: {other} is not the {printable(name)} of the sidecar",
            f"Its SHA-256 was {file.sha256}; name the file with --model.",
        )
    raise ModelError(
        f"the model {printable(name)} is not there",
        f"Pull it, or name its file with --model; it was {printable(file.path, LONGEST_PATH)}.",
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Use this number of torch threads in the block: the rounding of sums depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
