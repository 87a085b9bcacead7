"""Chooses metrics, and runs them on the stream of one clip."""

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
    """Return metrics by name, where a family's name (`akd`) means all its variants.

    Without names, returns all metrics that are ready and possible in this mode, those without a detector first.
    Raises UsageError for an unknown name, and for a metric that needs true frames in a mode without them.
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
    """Return whether this mode has the frames that the metric needs."""
    return mode in ("reconstruction", "files") or spec.needs != "truth"


def _is_ready(spec: MetricSpec) -> bool:
    reason = why_not_ready(spec)
    if reason is not None:
        log.info("%s was left out: %s", spec.name, reason)
    return reason is None


class ClipScoring:
    """Scores one clip with several metrics; a metric that fails is dropped, and the others continue."""

    def __init__(
        self,
        metrics: Mapping[str, tuple[MetricSpec, Metric]],
        describe_clip: Callable[[MetricSpec], MetricClip],
    ) -> None:
        """describe_clip: returns the clip's description for a metric; may raise MissingError."""
        self.missing: dict[str, str] = {}
        """What is missing, by metric, for metrics without their packages or weights."""
        self.problems: dict[str, str] = {}
        """Reasons by metric, for metrics that failed."""
        self._specs = {name: spec for name, (spec, _) in metrics.items()}
        self._scorers: dict[str, ClipScorer] = {}
        for name, (spec, metric) in metrics.items():

            def begin(name: str = name, spec: MetricSpec = spec, metric: Metric = metric) -> None:
                self._scorers[name] = metric.clip(describe_clip(spec))

            self._guarded(name, begin)

    def add(self, batch: FrameBatch) -> None:
        """Score the next frames."""
        # Metrics share the same chunk objects, for which keypoint sources cache their results.
        chunks = {"identity": batch.against_source(), "driving": batch.against_driving()}
        for name, scorer in list(self._scorers.items()):
            chunk = chunks.get(self._specs[name].needs, batch.chunk)
            self._guarded(name, lambda scorer=scorer, chunk=chunk: scorer.add(chunk))  # type: ignore[misc]

    def finish(self) -> dict[str, ClipScores]:
        """Return the scores of all metrics that did not fail, after the last frames."""
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
            # Metrics are from plugins, and one that fails must not affect the others.
            log.debug("%s failed", name, exc_info=True)
            self.problems[name] = unforeseen(error)
        else:
            return
        self._scorers.pop(name, None)


def missing_text(error: FommctlError) -> str:
    """Return the message and the hint of an error in one line."""
    return error.message if error.hint is None else f"{error.message}. {error.hint}"


def missing_package(error: ImportError) -> MissingError:
    """Return the MissingError for a failed import in a plugin."""
    return MissingError(unforeseen(error), "Install the package; see the plugin's documentation.")


def finite(scores: ClipScores) -> ClipScores:
    """Replace infinities, which JSON and means cannot have, by NaN or None."""
    frames = np.where(np.isfinite(scores.frames), scores.frames, np.nan)
    value = scores.value if scores.value is not None and math.isfinite(scores.value) else None
    return ClipScores(frames, None if value is None else float(value), scores.scored, scores.total, scores.state)
