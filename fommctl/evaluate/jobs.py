"""The worker of evaluate, which renders a clip with a model and scores it at the same time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fommctl import __version__
from fommctl.api.metrics import Metric
from fommctl.api.specs import MetricSpec
from fommctl.errors import FommctlError, InputError, MissingError, unforeseen
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.keypoint_sources import ChosenSources, SourceFactory
from fommctl.evaluate.plan import EvaluatedModel, Task, load_engine
from fommctl.evaluate.results import ClipResult
from fommctl.evaluate.scoring import ClipScoring, missing_package, missing_text
from fommctl.evaluate.store import PredictionWriter, StoredScores, is_saved, key_of, read_stored, write_stored
from fommctl.evaluate.streams import ClipFrames, FrameStream, compare_files
from fommctl.host import Host, load_host
from fommctl.provenance.hashing import InputFile
from fommctl.workers import ENDING, Progress

if TYPE_CHECKING:
    from fommctl.animate.engine import Engine

log = logging.getLogger(__name__)
PROBLEMS_HINT = "See 'fommctl plugins list'."


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The arguments of a worker process."""

    config: EvaluateConfig
    models: tuple[EvaluatedModel, ...]
    metrics: tuple[str, ...]
    sources: ChosenSources
    threads: int
    """Threads per process; 0 for torch's default."""


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one clip."""

    model: int
    """Index among the models of the setup."""
    task: Task


class Worker:
    """Does the jobs of one process; keeps the last model and all metrics loaded."""

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
        self._sources = SourceFactory(self._host, setup.sources)
        self._engine: tuple[int, Engine] | None = None

    def __call__(self, job: Job, report: Progress) -> ClipResult:
        """Score a clip, or read its stored scores.

        report: called as report(frames done, total frames or None).  Raises FommctlError; other errors of plugins
        become InputError or, for missing packages, MissingError.
        """
        try:
            return self._outcome(job, report)
        except (FommctlError, OSError, *ENDING):
            raise
        except ImportError as error:
            raise missing_package(error) from error
        except BaseException as error:
            raise InputError(unforeseen(error)) from error

    def _outcome(self, job: Job, report: Progress) -> ClipResult:
        model, task, config = self._setup.models[job.model], job.task, self.config
        paths = {"truth": task.truth, "source": task.source}
        if config.finished:
            paths["prediction"] = task.predictions[job.model]
        files = {what: InputFile.of(path) for what, path in paths.items() if path is not None}
        hashes = {what: file.sha256() for what, file in files.items()}
        key = key_of({**_options(config), **model.identity, **hashes})
        path = config.output / "clips" / model.folder / f"{task.name}.npz"
        wanted = {name: key_of(self._sources.describe(spec, task)) for name, spec in self._specs.items()}
        stored = None if config.overwrite else read_stored(path, key)
        if stored is not None:
            stored.forget(wanted)
        lacking = [name for name in wanted if stored is None or name not in stored.scores]
        metrics = {name: metric for name in lacking if (metric := self._metric(name)) is not None}
        if stored is not None and not metrics and is_saved(config, model, task, stored.saved):
            report(stored.frames, task.frames)
            return self._scored(stored, hashes, kept=True)
        scoring, frames, stream = self._scoring(job, metrics, report)
        scores = scoring.finish()
        for file in files.values():
            file.require_unchanged()
        if stored is None:
            stored = StoredScores(key, frames, stream.rate, warnings=tuple(stream.warnings))
        stored.keys.update({name: wanted[name] for name in scores})
        stored.scores.update(scores)
        stored.saved = stored.saved if config.save == "none" else config.save
        write_stored(path, stored)
        outcome = self._scored(stored, hashes)
        return replace(outcome, missing={**self._missing, **scoring.missing}, problems=scoring.problems)

    def _scoring(
        self, job: Job, metrics: Mapping[str, tuple[MetricSpec, Metric]], report: Progress
    ) -> tuple[ClipScoring, int, FrameStream]:
        """Score the whole clip with these metrics; also return the number of frames, and the stream."""
        model, task = self._setup.models[job.model], job.task
        engine = None if self.config.finished else self._loaded(job.model)
        stream = open_stream(self.config, task, job.model, engine)
        scoring: ClipScoring | None = None
        frames = 0
        with PredictionWriter(self.config, model, task, stream.rate) as writer:
            for batch in stream:
                if scoring is None:
                    height, width = batch.driving.shape[1:3]
                    describe_clip = partial(
                        self._sources.clip, task=task, rate=stream.rate, size=(width, height), engine=engine
                    )
                    scoring = ClipScoring(metrics, describe_clip)
                scoring.add(batch)
                writer.add(batch.chunk.prediction)
                frames += len(batch.chunk)
                report(frames, task.frames)
            if scoring is None:
                raise InputError("there are no frames to compare", "Check the files of both sides.")
        return scoring, frames, stream

    def _scored(self, stored: StoredScores, hashes: Mapping[str, str], *, kept: bool = False) -> ClipResult:
        return ClipResult(
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
        """Build a metric when it is first needed; None if something that it needs is missing."""
        if name not in self._metrics and name not in self._missing:
            spec = self._specs[name]
            try:
                self._metrics[name] = spec, spec.build()
            except FommctlError as error:
                self._missing[name] = missing_text(error)
            except ImportError as error:
                log.debug("%s cannot be built", name, exc_info=True)
                self._missing[name] = missing_text(missing_package(error))
            except Exception as error:
                log.debug("%s cannot be built", name, exc_info=True)
                self._missing[name] = unforeseen(error)
            if self._setup.threads and "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(self._setup.threads)
        return self._metrics.get(name)

    def _loaded(self, number: int) -> Engine:
        """Load a model; only the last is kept, as jobs are ordered by model."""
        if self._engine is None or self._engine[0] != number:
            self._engine = None
            self._engine = number, load_engine(self._setup.models[number].model, self.config, self._host)
        return self._engine[1]


def _options(config: EvaluateConfig) -> dict[str, Any]:
    """Return all options that affect the predictions."""
    mode: dict[str, Any] = {"mode": "files" if config.finished else config.mode}
    if config.mode == "defaults":
        from fommctl.evaluate.rendering import animate_defaults

        mode["animate"] = animate_defaults()
    return {
        "fommctl": __version__,
        **mode,
        **({"options": config.options} if config.options else {}),
        "max_frames": config.max_frames,
        "resize": config.resize,
        "column": config.column,
    }


def _not_offered(host: Host) -> str:
    """Explain why a metric is missing in a worker process, although the main process has it."""
    problems = "; ".join(f"plugin {plugin.name!r}: {plugin.problem}" for plugin in host.plugins if plugin.problem)
    return f"no plugin offers it in a worker process ({problems or 'no plugin has problems'})"


def open_stream(config: EvaluateConfig, task: Task, number: int, engine: Engine | None) -> FrameStream:
    """Open the stream of a clip to score.

    number: index of the model or of the folder of predictions.  engine: the model; None for finished results.
    Raises InputError, also while the stream is read.
    """
    most = config.max_frames
    if engine is None:
        return _open_files(config, task, number, most)
    # Imports torch, which finished results do not need.
    from fommctl.evaluate import rendering

    if config.mode == "defaults" and task.source is not None:
        return rendering.animation_by_default(engine, task.source, task.truth, most, config.options)
    clip = ClipFrames(task.truth, size=engine.frame_size(), limit=most)
    if task.source is None:
        return rendering.reconstruction(engine, clip)
    source = ClipFrames(task.source, size=engine.frame_size(), limit=1)
    return rendering.animation(engine, source, clip, config.options)


def _open_files(config: EvaluateConfig, task: Task, number: int, most: int | None) -> FrameStream:
    truth = ClipFrames(task.truth, limit=most, jpeg_strips=True)
    first = next(iter(replace(truth, limit=1)), None)
    if first is None:
        raise InputError(f"{task.truth.name} has no readable frames", "Copy it again.")
    size = (first.shape[1], first.shape[0])
    prediction = ClipFrames(
        task.predictions[number],
        size=size if config.resize else None,
        limit=most,
        column=config.column,
        cell=size,
        jpeg_strips=True,
    )
    return compare_files(prediction, truth)
