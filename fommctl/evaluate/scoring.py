"""Choosing metrics, and running all of them over the stream of one clip."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fommctl.api.metrics import ClipScorer, ClipScores, Metric, MetricClip
from fommctl.api.specs import MetricSpec
from fommctl.errors import FommctlError, MissingError, UsageError, unforeseen
from fommctl.evaluate.config import Mode
from fommctl.evaluate.streams import FrameBatch
from fommctl.host import Host, why_not_ready
from fommctl.presets.config import nearest
from fommctl.workers import ENDING

log = logging.getLogger(__name__)


def choose_metrics(names: Sequence[str], host: Host, mode: Mode) -> tuple[MetricSpec, ...]:
    """Choose metrics by name; a family's name (`akd`) stands for all its variants. Without names: all that fit this
    mode and are ready, those that need no detector first.

    Raises UsageError for an unknown name, and for a metric that needs true frames where there are none.
    """
    specs = host.metrics
    if not names:
        fitting = [spec for spec in specs.values() if fits(spec, mode) and _is_ready(spec)]
        return tuple(sorted(fitting, key=lambda spec: len(spec.uses)))
    chosen: dict[str, MetricSpec] = {}
    for name in names:
        family = [spec for spec in specs.values() if spec.name.partition(".")[0] == name]
        found = [specs[name]] if name in specs else family
        if not found:
            known = sorted({*specs, *(each.partition(".")[0] for each in specs)})
            near = nearest(name, known)
            hint = f"Did you mean '{near}'?" if near else f"Known: {', '.join(specs) or 'none'}."
            raise UsageError(f"unknown metric '{name}'", hint)
        fitting = [spec for spec in found if fits(spec, mode)]
        if not fitting:
            raise UsageError(f"{name} needs true frames, which an animation does not have", f"Leave out --mode {mode}.")
        chosen.update({spec.name: spec for spec in fitting})
    return tuple(chosen.values())


def fits(spec: MetricSpec, mode: Mode) -> bool:
    """Return whether this mode provides what the metric needs."""
    return mode in ("reconstruction", "files") or spec.needs != "truth"


def _is_ready(spec: MetricSpec) -> bool:
    reason = why_not_ready(spec)
    if reason is not None:
        log.info("%s is left out: %s", spec.name, reason)
    return reason is None


class ClipScoring:
    """Several metrics over one clip. A metric that fails is dropped, and the others continue."""

    def __init__(
        self,
        metrics: Mapping[str, tuple[MetricSpec, Metric]],
        describe_clip: Callable[[MetricSpec], MetricClip],
        host: Host,
    ) -> None:
        """Start every metric.  describe_clip: makes what a metric may know of the clip; may raise MissingError."""
        self.missing: dict[str, str] = {}
        """Metrics whose packages or weights are absent, with what is missing."""
        self.problems: dict[str, str] = {}
        """Metrics that failed, with why."""
        self._host = host
        self._specs = {name: spec for name, (spec, _) in metrics.items()}
        self._scorers: dict[str, ClipScorer] = {}
        for name, (spec, metric) in metrics.items():

            def begin(name: str = name, spec: MetricSpec = spec, metric: Metric = metric) -> None:
                self._scorers[name] = metric.clip(describe_clip(spec))

            self._guarded(name, begin)

    def add(self, batch: FrameBatch) -> None:
        """Score the next frames."""
        # One object for all of them: keypoint sources remember their answer to it.
        chunks = {"identity": batch.against_source(), "driving": batch.against_driving()}
        for name, scorer in list(self._scorers.items()):
            chunk = chunks.get(self._specs[name].needs, batch.chunk)
            self._guarded(name, lambda scorer=scorer, chunk=chunk: scorer.add(chunk))  # type: ignore[misc]

    def finish(self) -> dict[str, ClipScores]:
        """Return, after the last frames, the scores of the metrics that have not failed."""
        scores: dict[str, ClipScores] = {}
        for name, scorer in list(self._scorers.items()):

            def end(name: str = name, scorer: ClipScorer = scorer) -> None:
                scores[name] = finite(scorer.finish())

            self._guarded(name, end)
        return scores

    def _guarded(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except MissingError as error:
            self.missing[name] = missing_text(error)
        except FommctlError as error:
            self.problems[name] = error.message
        except ImportError as error:
            log.debug("%s failed", name, exc_info=True)
            self.missing[name] = missing_text(missing_package(error))
        except ENDING:
            raise
        except BaseException as error:
            # Metrics are plugins: one that fails must not cost the scores of the others.
            log.debug("%s failed", name, exc_info=True)
            self.problems[name] = unforeseen(error)
        else:
            return
        self._scorers.pop(name, None)


def missing_text(error: FommctlError) -> str:
    """Describe in one line what is missing and how to get it."""
    return error.message if error.hint is None else f"{error.message}. {error.hint}"


def missing_package(error: ImportError) -> MissingError:
    """Convert a failed import in a plugin to what it means: something is not installed."""
    return MissingError(unforeseen(error), "Install what it needs; see its documentation.")


def finite(scores: ClipScores) -> ClipScores:
    """Replace infinities, which no mean and no JSON can hold, by NaN or None."""
    frames = np.where(np.isfinite(scores.frames), scores.frames, np.nan)
    value = scores.value if scores.value is not None and math.isfinite(scores.value) else None
    return ClipScores(frames, None if value is None else float(value), scores.scored, scores.total, scores.state)
