"""Checking all jobs before the first one starts."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from fommctl.animate.config import ModelChoice
from fommctl.animate.engine import Engine, check_views, choose_motion
from fommctl.animate.inputs import one_picture
from fommctl.animate.motion import DrivingFraming, Motion, is_motion_file
from fommctl.animate.plan import check_outputs, choose_sound
from fommctl.api.specs import BackendSpec
from fommctl.batch.job_files import Problem
from fommctl.batch.jobs import Job
from fommctl.errors import FommctlError, InputError, OutputError, UsageError
from fommctl.host import Host
from fommctl.media.containers import resolve_encoding
from fommctl.media.output_paths import is_pattern, number_of
from fommctl.media.probe import VideoInfo, probe
from fommctl.models.loading import load_model
from fommctl.networks.inference.devices import resolve_device, resolve_precision
from fommctl.options import backend_options
from fommctl.provenance.hashing import model_identity
from fommctl.provenance.signing import check_signing

_NO_DOUBLES = "Give every job an output of its own; {source.stem}, {driving.stem} and {number} tell them apart."
_NO_CHAINS = "Jobs run in any order, at once or on several machines: make one file after the other."


@dataclass(frozen=True, slots=True)
class Model:
    """What the checks need to know about a model."""

    family: BackendSpec
    identity: Mapping[str, Any]
    sizes: frozenset[int]
    """Requested sizes that it does not support."""


@dataclass(slots=True)
class Checker:
    """Checks jobs one by one; files and models that they share are read once."""

    host: Host
    root: Path | None
    """Folder that must contain all outputs; None: anywhere."""
    local: bool
    """Whether the jobs run on this machine, so that its devices can be checked."""
    models: dict[ModelChoice, Model | FommctlError] = field(default_factory=dict)
    _media: dict[tuple[Path, Fraction | None], VideoInfo | FommctlError] = field(default_factory=dict)

    def check(self, jobs: Sequence[Job], report: Callable[[int], None]) -> Iterator[Problem]:
        """Yield every problem of every job. report(number of jobs checked)."""
        self._load(jobs)
        yield from shared_paths(jobs)
        for done, job in enumerate(jobs, start=1):
            checks = (self._source, self._driving, self._views, self._model, self._detector, self._device, self._output)
            errors: dict[str, FommctlError] = {}
            for check in checks:
                try:
                    check(job)
                except FommctlError as error:
                    # One cause may fail several checks: a name without a suffix can hold neither sound nor pictures.
                    errors.setdefault(error.message, error)
            yield from (Problem.of(job.where, error, job.number, job.output) for error in errors.values())
            report(done)

    def identity(self, job: Job) -> Mapping[str, Any]:
        """Return the identity of the job's model. Raises the error of loading it."""
        return self._known(job).identity

    def _load(self, jobs: Sequence[Job]) -> None:
        """Load one model at a time, and keep only what the checks need."""
        sizes: dict[ModelChoice, set[int]] = {}
        for job in jobs:
            sizes.setdefault(architecture(job.choice), set()).update([job.config.size] if job.config.size else [])
        for choice, asked in sizes.items():
            try:
                loaded = load_model(choice.model, self.host, preset=choice.preset, sets=choice.sets)
                engine = Engine(loaded, self.host, device="cpu", precision="fp32")
                refused = frozenset(size for size in asked if not _takes(engine, size))
                self.models[choice] = Model(engine.family, model_identity(loaded), refused)
            except FommctlError as error:
                self.models[choice] = error

    def _known(self, job: Job) -> Model:
        found = self.models[architecture(job.choice)]
        if isinstance(found, FommctlError):
            raise found
        return found

    def _source(self, job: Job) -> None:
        config = job.config
        if not config.source_video:
            self._picture(config.source)
        elif self._probed(config.source, config.fps).frames == 1:
            raise one_picture(config.source)

    def _views(self, job: Job) -> None:
        for path in job.config.views:
            self._picture(path)

    def _picture(self, path: Path) -> None:
        if self._probed(path, None).kind == "sequence":
            raise InputError(f"{path} is a folder, not a file", "Name a picture or a video in it.")

    def _driving(self, job: Job) -> None:
        config = job.config
        if is_motion_file(config.driving):
            choose_sound(config, Motion.load(config.driving).driving, must_check=True)
            return
        info = self._probed(config.driving, config.fps)
        config = config.timed(info)
        choose_sound(config, DrivingFraming(info, config.start_s, config.end_s, None, (), None))
        if info.duration is not None and config.start_s >= info.duration:
            raise UsageError(
                f"--start {float(config.start_s):g} is beyond the end of {config.driving.name}",
                f"It is {float(info.duration):.3f} s long.",
            )

    def _probed(self, path: Path, fps: Fraction | None) -> VideoInfo:
        if (path, fps) not in self._media:
            try:
                self._media[path, fps] = probe(path, fps=fps)
            except FommctlError as error:
                self._media[path, fps] = error
        found = self._media[path, fps]
        if isinstance(found, FommctlError):
            raise found
        return found

    def _model(self, job: Job) -> None:
        model, config = self._known(job), job.config
        choose_motion(model.family, config.motion)
        check_views(model.family, len(config.views))
        backend_options(model.family.options(), config.options, model.family.name)
        if config.size in model.sizes:
            raise UsageError(f"--size {config.size} does not fit this model", "Use a multiple of its own size.")

    def _detector(self, job: Job) -> None:
        if job.config.detector is not None:
            self.host.find("detector", job.config.detector)

    def _device(self, job: Job) -> None:
        if self.local:
            device = resolve_device(job.choice.device)
            if job.choice.precision != "auto":
                resolve_precision(job.choice.precision, device)

    def _output(self, job: Job) -> None:
        config, output = job.config, job.output
        if self.root is not None:
            target = output.parent if is_pattern(output) else output
            if not Path(os.path.realpath(target)).is_relative_to(os.path.realpath(self.root)):
                raise UsageError(f"the output is outside {self.root}: {output}", "Outputs must be inside --root.")
        folder = output.parent.parent if is_pattern(output) else output.parent
        if folder.exists():
            # `plan_job` decides later, by the status file, whether an existing output may be replaced.
            check_outputs(replace(config, overwrite=True))
            return
        resolve_encoding(output, codec=config.codec, crf=config.crf, pix_fmt=config.pix_fmt)
        check_signing(config.result_path, config.sign, config.sign_key)
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"cannot make the output folder in {folder}", "Choose another output.")


def architecture(choice: ModelChoice) -> ModelChoice:
    """Return the choice without device, precision and seed, which do not matter for the checks."""
    return ModelChoice(model=choice.model, preset=choice.preset, sets=choice.sets)


def _takes(engine: Engine, size: int) -> bool:
    try:
        engine.renderer(size)
    except UsageError:
        return False
    return True


def shared_paths(jobs: Sequence[Job]) -> Iterator[Problem]:
    """Yield a problem for each output that two jobs share, or that is an input of a job.

    Names that differ only in case, and links to one file, count as the same.
    """
    inputs, folders = _inputs(jobs)
    outputs: dict[str, Job] = {}
    within: dict[str, Job] = {}
    for job in jobs:
        output = job.output
        names, around = list(_output_names(output)), list(_patterns_around(output))
        first = next((outputs[name] for name in names if name in outputs), None)
        mixed = [outputs.get(name) for name in around] + [within.get(name) for name in names]
        meets = first or next(filter(None, mixed), None)
        if meets is not None:
            place = "of this line" if meets.where == job.where else f"of {meets.where}"
            how = "the frames mix with those" if first is None else "the output is also that"
            yield Problem(job.where, f"{how} {place}: {output}", _NO_DOUBLES, number=job.number, output=output)
            continue
        outputs.update(dict.fromkeys(names, job))
        within.update(dict.fromkeys(around, job))
        reader = next((inputs[name] for name in names if name in inputs), None)
        if reader is None and is_pattern(output):
            reader = _reader_of_frames(output, inputs, folders)
        if reader is not None:
            place = "this job" if reader is job else reader.where
            yield Problem(
                job.where, f"the output is an input of {place}: {output}", _NO_CHAINS, number=job.number, output=output
            )


def _inputs(jobs: Sequence[Job]) -> tuple[dict[str, Job], dict[str, list[tuple[Path, Job]]]]:
    """Return the jobs by the files that they read, and by the folders that contain these files."""
    inputs: dict[str, Job] = {}
    folders: dict[str, list[tuple[Path, Job]]] = {}
    read = {path: job for job in reversed(jobs) for path in job.config.inputs}
    for path, reader in read.items():
        for name in _output_names(path):
            inputs.setdefault(name, reader)
        inputs.setdefault(_same(path), reader)
        folders.setdefault(_same(path.parent), []).append((path, reader))
    return inputs, folders


def _reader_of_frames(output: Path, inputs: dict[str, Job], folders: dict[str, list[tuple[Path, Job]]]) -> Job | None:
    """Return the job that reads the folder to which frames are written, or a picture that would be among them."""
    folder = _same(output.parent)
    if folder in inputs:
        return inputs[folder]
    beside = folders.get(folder, [])
    return next((job for path, job in beside if number_of(output, path.name) is not None), None)


def _output_names(path: Path) -> Iterator[str]:
    """Yield the names by which an output is compared: its path, and the identity of an existing file."""
    if is_pattern(path):
        # Patterns that differ only in their digits would mix.
        yield _same(path.parent / re.sub(r"%0?\d*d", "#", path.name))
        return
    yield _same(path)
    try:
        status = path.stat()
    except (OSError, ValueError):
        return
    yield f"{status.st_dev}:{status.st_ino}"


def _patterns_around(path: Path) -> Iterator[str]:
    """Yield patterns whose frames can have the names of this one's: `a%d.png` for `a12%d.png`."""
    if is_pattern(path):
        before, number_on = re.findall(r"^((?:[^%]|%%)*)(.*)$", path.name, re.DOTALL)[0]
        while before[-1:].isdigit():
            before = before[:-1]
            yield from _output_names(path.with_name(before + number_on))


def _same(path: Path) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()
