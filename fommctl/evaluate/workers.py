"""What a process of `evaluate` does: one model on one clip after another, scored while it is rendered."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fommctl import __version__
from fommctl.api.metrics import ClipScores, Metric, MetricClip
from fommctl.api.specs import MetricSpec
from fommctl.errors import FULL_DISK, FommctlError, InputError, MissingError, OutputError
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.contestants import Contestant, load_engine
from fommctl.evaluate.measuring import Measures, Sources
from fommctl.evaluate.plan import Task
from fommctl.evaluate.predictions import Stream
from fommctl.evaluate.saving import Saver, is_saved
from fommctl.evaluate.scoring import ClipScoring, missing_package, missing_text, unforeseen_text
from fommctl.evaluate.store import Stored, key_of, read_stored, write_stored
from fommctl.evaluate.streams import open_stream
from fommctl.host import Host, load_host
from fommctl.provenance.hashing import media_hash
from fommctl.workers import Tell, Work

if TYPE_CHECKING:
    from fommctl.animate.engine import Engine

log = logging.getLogger(__name__)
PROBLEMS_HINT = "See 'fommctl plugins list'."


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every process has to know."""

    config: EvaluateConfig
    contestants: tuple[Contestant, ...]
    metrics: tuple[str, ...]
    sources: Sources
    threads: int
    """For each process; 0: as many as torch likes."""


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one clip."""

    contestant: int
    task: Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """The scores of a job."""

    key: str
    """Of all that the predictions depend on."""
    frames: int
    rate: float
    scores: Mapping[str, ClipScores]
    hashes: Mapping[str, str]
    """SHA-256 of the files, by what they are: truth, source, prediction."""
    warnings: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    """Metrics whose packages or weights are absent, with what is missing."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Metrics that failed, with why."""
    kept: bool = False
    """Whether all was there already."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a clip could not be scored."""

    error: FommctlError

    @property
    def fatal(self) -> bool:
        """Then no other clip can be scored either."""
        return not isinstance(self.error, InputError)


Outcome = Scored | Failure


def prepare(setup: Setup) -> Work[Job, Outcome]:
    """The function that does the jobs; it raises no errors."""
    try:
        return Worker(setup)
    except FommctlError as error:
        failure = Failure(error)
        return lambda job, tell: failure


class Worker:
    """Holds the model of its last job, and the metrics."""

    def __init__(self, setup: Setup) -> None:
        self.config = setup.config
        self._setup = setup
        self._host: Host = load_host()
        offered = self._host.metrics
        self._specs: dict[str, MetricSpec] = {name: offered[name] for name in setup.metrics if name in offered}
        self._metrics: dict[str, tuple[MetricSpec, Metric]] = {}
        self._missing = {name: _not_offered(self._host) for name in setup.metrics if name not in offered}
        if self._missing and not self._specs:
            raise MissingError("; ".join(f"{name}: {why}" for name, why in self._missing.items()), PROBLEMS_HINT)
        self._measures = Measures(self._host, setup.sources)
        self._engine: tuple[int, Engine] | None = None

    def __call__(self, job: Job, tell: Tell) -> Outcome:
        """Score, or read what is stored. tell(frames done, frames in all or None)."""
        try:
            return self._outcome(job, tell)
        except FommctlError as error:
            return Failure(error)
        except OSError as error:
            reason = f"{error.strerror or error}".lower()
            return Failure((OutputError if error.errno in FULL_DISK else InputError)(reason))
        except ImportError as error:
            log.debug("%s failed", job.task.name, exc_info=True)
            return Failure(missing_package(error, self._host))
        except Exception as error:
            # What a clip brings to the surface in a library or a plugin must not end the others.
            log.debug("%s failed", job.task.name, exc_info=True)
            return Failure(InputError(unforeseen_text(error, self._host)))

    def _outcome(self, job: Job, tell: Tell) -> Outcome:
        contestant, task, config = self._setup.contestants[job.contestant], job.task, self.config
        files = {"truth": task.truth, "source": task.source}
        if config.finished:
            files["prediction"] = task.predictions[job.contestant]
        hashes = {what: media_hash(path) for what, path in files.items() if path is not None}
        key = key_of({**_options(config), **contestant.identity, **hashes})
        path = config.output / "clips" / contestant.folder / f"{task.name}.npz"
        wanted = {name: key_of(self._measures.describe(spec, task)) for name, spec in self._specs.items()}
        stored = None if config.overwrite else read_stored(path, key)
        if stored is not None:
            stored.forget(wanted)
        lacking = [name for name in wanted if stored is None or name not in stored.scores]
        metrics = {name: metric for name in lacking if (metric := self._metric(name)) is not None}
        if stored is not None and not metrics and is_saved(config, contestant, task, stored.saved):
            tell(stored.frames, task.frames)
            return self._scored(stored, hashes, kept=True)
        scoring, frames, stream = self._scoring(job, metrics, tell)
        scores = scoring.finish()
        if stored is None:
            stored = Stored(key, frames, stream.rate, warnings=tuple(stream.warnings))
        stored.keys.update({name: wanted[name] for name in scores})
        stored.scores.update(scores)
        stored.saved = stored.saved if config.save == "none" else config.save
        write_stored(path, stored)
        outcome = self._scored(stored, hashes)
        return replace(outcome, missing={**self._missing, **scoring.missing}, problems=scoring.problems)

    def _scoring(
        self, job: Job, metrics: Mapping[str, tuple[MetricSpec, Metric]], tell: Tell
    ) -> tuple[ClipScoring, int, Stream]:
        """These metrics over the whole clip, with the number of frames."""
        contestant, task = self._setup.contestants[job.contestant], job.task
        engine = None if self.config.finished else self._loaded(job.contestant)
        stream = open_stream(self.config, task, job.contestant, engine)
        scoring: ClipScoring | None = None
        frames = 0
        with Saver(self.config, contestant, task, stream.rate) as saver:
            for part in stream:
                if scoring is None:
                    height, width = part.driving.shape[1:3]
                    clip_for = partial(self._clip, task, stream.rate, (width, height), engine)
                    scoring = ClipScoring(metrics, clip_for, self._host)
                scoring.add(part)
                saver.add(part.chunk.prediction)
                frames += len(part.chunk)
                tell(frames, task.frames)
            if scoring is None:
                raise InputError("there is no frame to compare", "Check the files of both sides.")
        return scoring, frames, stream

    def _clip(
        self, task: Task, rate: float, size: tuple[int, int], engine: Engine | None, spec: MetricSpec
    ) -> MetricClip:
        return self._measures.clip(spec, task, rate, size, engine)

    def _scored(self, stored: Stored, hashes: Mapping[str, str], *, kept: bool = False) -> Scored:
        return Scored(
            key=stored.key,
            frames=stored.frames,
            rate=stored.rate,
            scores={name: stored.scores[name] for name in self._specs if name in stored.scores},
            hashes=hashes,
            warnings=stored.warnings,
            missing=dict(self._missing),
            kept=kept,
        )

    def _metric(self, name: str) -> tuple[MetricSpec, Metric] | None:
        """Built when it is first needed; None where something that it needs is missing."""
        if name not in self._metrics and name not in self._missing:
            spec = self._specs[name]
            try:
                self._metrics[name] = spec, spec.build()
            except FommctlError as error:
                self._missing[name] = missing_text(error)
            except ImportError as error:
                log.debug("%s cannot be built", name, exc_info=True)
                self._missing[name] = missing_text(missing_package(error, self._host))
            except Exception as error:
                log.debug("%s cannot be built", name, exc_info=True)
                self._missing[name] = unforeseen_text(error, self._host)
            if self._setup.threads and "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(self._setup.threads)
        return self._metrics.get(name)

    def _loaded(self, number: int) -> Engine:
        """One model at a time: jobs come model by model."""
        if self._engine is None or self._engine[0] != number:
            self._engine = None
            self._engine = number, load_engine(self._setup.contestants[number].model, self.config, self._host)
        return self._engine[1]


def _options(config: EvaluateConfig) -> dict[str, Any]:
    """What beside files and models the predictions depend on."""
    mode: dict[str, Any] = {"mode": "files" if config.finished else config.mode}
    if config.mode == "defaults":
        from fommctl.evaluate.animated import defaults

        mode["animate"] = defaults()
    return {
        "fommctl": __version__,
        **mode,
        "max_frames": config.max_frames,
        "resize": config.resize,
        "column": config.column,
    }


def _not_offered(host: Host) -> str:
    """Why a metric that the command found is not to be found by its process."""
    problems = "; ".join(f"plugin {plugin.name!r}: {plugin.problem}" for plugin in host.plugins if plugin.problem)
    return f"no plugin offers it in a process of its own ({problems or 'none has problems'})"
