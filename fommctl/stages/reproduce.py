"""Reproduce: the systems of the paper trained on the same clips, scored on held-out ones, and set beside the paper.

OUT/data/                   the synthetic clips, where no others are given
OUT/runs/SYSTEM/seed-N/     a training run each
OUT/evaluation/seed-N/      scores and page of all systems that were trained with one seed
OUT/settings.json           what the trained models depend on
OUT/results.json, OUT/README.md
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fommctl.api import plain_json
from fommctl.api.specs import BackendSpec, StageEvent
from fommctl.datasets.clips import find_clips
from fommctl.errors import FommctlError, InputError, JobsFailedError, UsageError
from fommctl.evaluate import run as evaluate
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.results import Evaluation
from fommctl.evaluate.scoring import choose_metrics
from fommctl.files import exclusive_folder, write_text
from fommctl.host import Host
from fommctl.machine import usable_cores
from fommctl.models.building import build_backend
from fommctl.models.perceptual import load_perceptual
from fommctl.networks.inference.devices import resolve_device
from fommctl.preprocess import run as preprocess
from fommctl.presets.preset import Preset, load_preset
from fommctl.stages.reproduction.found import Network, results
from fommctl.stages.reproduction.markdown import markdown
from fommctl.stages.reproduction.options import ReproduceConfig, unused_sets
from fommctl.stages.reproduction.standings import Standings
from fommctl.stages.reproduction.training import Failed, TrainingJob, prepare
from fommctl.workers import Died, run_jobs

log = logging.getLogger(__name__)
Report = Callable[[int, int | None], None]
Watch = Callable[[str, str], AbstractContextManager[Report]]
"""watch(label, unit): shows a part of the work while it is under way; gives report(done, total)."""
DATASET = "synthetic-shapes"
LOCK, SETTINGS, RESULTS, README = ".reproduce.lock", "settings.json", "results.json", "README.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReproduceResult:
    """What came out."""

    output: Path
    standings: Standings
    data: Mapping[str, Any]
    """What results.json holds."""
    text: str
    """What README.md holds."""
    failed: tuple[Mapping[str, Any], ...]
    """`system`, `seed` and `message` of trainings that came to nothing."""

    def to_json(self) -> dict[str, Any]:
        """For --json: more keys may be added, none of these changes."""
        return {"output": str(self.output), "failed": [dict(each) for each in self.failed], **self.data}


def unwatched(label: str, unit: str) -> AbstractContextManager[Report]:
    """Nobody looks on."""
    return nullcontext(lambda done, total: None)


def run(config: ReproduceConfig, host: Host, watch: Watch = unwatched) -> ReproduceResult:
    """Do what is left to do of data, trainings and scores, and write the tables to `config.output`.

    Raises what preprocess, train and evaluate raise; UsageError also where the folder holds another reproduction.
    Trainings that fail are in the result; if all of them do, what the first one raised is raised.
    """
    presets = _presets(config, host)
    _check(config, presets, host)
    host.started(StageEvent(stage="reproduce", details={"config": config.to_json()}))
    begun = time.monotonic()
    with exclusive_folder(config.output, LOCK):
        settled = {**config.settled(), "presets": _before(config).get("presets", {}) | _texts(presets)}
        write_text(config.output / SETTINGS, json.dumps(settled, indent=2) + "\n")
        data = config.data or _synthetic(config, presets, host, watch)
        jobs = _jobs(config, data)
        failed = _train(config, jobs, watch)
        trained = [job for job in jobs if job.finished]
        evaluations = [
            _evaluate(config, seed, own, data, host, watch)
            for seed in range(config.seed, config.seed + config.seeds)
            if (own := [job for job in trained if job.seed == seed])
        ]
        standings = Standings(evaluations, config.seed)
        networks = {name: _network(preset, host) for name, preset in presets.items()}
        found = results(config, standings, trained, networks, seconds=time.monotonic() - begun)
        text = markdown(found)
        write_text(config.output / RESULTS, json.dumps(found, indent=2, allow_nan=False) + "\n")
        write_text(config.output / README, text)
    result = ReproduceResult(output=config.output, standings=standings, data=found, text=text, failed=failed)
    host.finished(StageEvent(stage="reproduce", details=result.to_json()))
    return result


def exit_code(result: ReproduceResult) -> int:
    """0, or 6 where some trainings failed."""
    return JobsFailedError.exit_code if result.failed else 0


def _presets(config: ReproduceConfig, host: Host) -> dict[str, Preset]:
    """By name of the system."""
    presets = {_name(path): load_preset(path, host, sets=config.sets_of(_name(path))) for path in config.presets}
    strangers = unused_sets(config.sets, list(presets))
    if strangers:
        raise UsageError(f"no system is meant by --set '{strangers[0]}'", f"They are {', '.join(presets)}.")
    if len(presets) < len(config.presets):
        raise UsageError("two systems have the same name", "Give the preset files different names.")
    shapes = {preset.frame_shape for preset in presets.values()}
    if len(shapes) > 1:
        sizes = ", ".join(f"{name} {shape[1]}x{shape[0]}" for name, shape in _frame_shapes(presets).items())
        raise UsageError(f"the systems' frames differ in size: {sizes}", "Set dataset_params.frame_shape for all.")
    return presets


def _check(config: ReproduceConfig, presets: Mapping[str, Preset], host: Host) -> None:
    """Find before hours of work what would stop it: raises what the trainings and evaluations would."""
    _check_folder(config, presets)
    resolve_device(config.device)
    choose_metrics(config.metrics, host, "reconstruction")
    if config.data is not None:
        for split in ("train", "test"):
            if not find_clips(config.data, split):
                raise InputError(f"{config.data} has no clips to {split} with", "Put some into train/ and test/.")
    for name in {preset.section("train_params").features for preset in presets.values()} - {None}:
        load_perceptual(name)


def _network(preset: Preset, host: Host) -> Network:
    spec: BackendSpec = host.find("backend", preset.backend)
    modules = build_backend(spec, preset.model_params).modules()
    parameters = sum(weights.numel() for group in spec.groups for weights in modules[group].parameters())
    return Network(backend=spec.name, parameters=parameters, frame_side=preset.frame_shape[0])


def _frame_shapes(presets: Mapping[str, Preset]) -> dict[str, tuple[int, int, int]]:
    return {name: preset.frame_shape for name, preset in presets.items()}


def _name(preset: str) -> str:
    return Path(preset).stem if preset.endswith((".yaml", ".yml")) else preset


def _check_folder(config: ReproduceConfig, presets: Mapping[str, Preset]) -> None:
    """Raise UsageError where the folder holds something else than this reproduction, begun earlier."""
    before = _before(config)
    if not before:
        if config.output.is_dir() and any(path.name != LOCK for path in config.output.iterdir()):
            raise UsageError(
                f"the output folder is not empty and holds no reproduction: {config.output}",
                "Choose another one with -o.",
            )
        return
    changed = [key for key, value in config.settled().items() if before.get(key) != value]
    trained = before.get("presets", {})
    changed += [f"{name} preset" for name, text in _texts(presets).items() if trained.get(name, text) != text]
    if changed:
        raise UsageError(
            f"{config.output} holds a reproduction with other {' and '.join(changed)}",
            "Give the same options to go on with it, or choose another folder with -o.",
        )


def _before(config: ReproduceConfig) -> dict[str, Any]:
    """The settings of what the folder holds; none where it holds no reproduction."""
    try:
        found = plain_json.parse((config.output / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _texts(presets: Mapping[str, Preset]) -> dict[str, str]:
    """Whole configurations, overrides included, by system."""
    return {name: preset.text() for name, preset in presets.items()}


def _synthetic(config: ReproduceConfig, presets: Mapping[str, Preset], host: Host, watch: Watch) -> Path:
    """The synthetic clips with their true keypoints, lossless; those that are there already stay."""
    folder = config.output / "data"
    height, width, _ = next(iter(presets.values())).frame_shape
    if height != width:
        raise UsageError(f"the synthetic frames are squares, not {width}x{height}", "Give clips of your own: --data.")
    order = preprocess.PreprocessConfig(
        dataset=DATASET, raw=None, output=folder, format="mkv", size=height, workers=config.workers
    )
    with watch("making clips", "clips") as report:
        preprocess.run(order, host, report)
    return folder


def _jobs(config: ReproduceConfig, data: Path) -> list[TrainingJob]:
    """Seed by seed, so that an unfinished reproduction has whole ones."""
    return [
        TrainingJob(
            preset=preset,
            name=_name(preset),
            seed=seed,
            run=config.output / "runs" / _name(preset) / f"seed-{seed}",
            data=data,
            steps=config.steps,
            sets=config.sets_of(_name(preset)),
            device=config.device,
            precision=config.precision,
        )
        for seed in range(config.seed, config.seed + config.seeds)
        for preset in config.presets
    ]


def _train(config: ReproduceConfig, jobs: Sequence[TrainingJob], watch: Watch) -> tuple[Mapping[str, Any], ...]:
    """Train what is not trained yet; gives what failed."""
    todo = [job for job in jobs if not job.finished]
    done = dict.fromkeys((job.run for job in jobs if job.finished), config.steps)
    failed: list[tuple[TrainingJob, Failed]] = []
    with watch("training", "steps") as report:

        def tell(job: TrainingJob, step: int, _: int | None) -> None:
            done[job.run] = step
            report(sum(done.values()), config.steps * len(jobs))

        with closing(run_jobs(todo, prepare, workers=_workers(config, len(todo)), tell=tell)) as outcomes:
            for job, outcome in outcomes:
                if isinstance(outcome, Died):
                    outcome = Failed(outcome.reason, None, JobsFailedError.exit_code)
                if outcome is not None:
                    failed.append((job, outcome))
                    log.warning("%s, seed %d: %s", job.name, job.seed, outcome.message)
                else:
                    log.info("%s, seed %d: trained in %.0f s", job.name, job.seed, job.record()["seconds"])
    if failed and len(failed) == len(jobs):
        raise _error(failed[0][1])
    return tuple({"system": job.name, "seed": job.seed, "message": why.message} for job, why in failed)


def _workers(config: ReproduceConfig, jobs: int) -> int:
    wanted = config.workers
    if wanted is None:
        wanted = usable_cores() if resolve_device(config.device).type == "cpu" else 0
    return min(wanted, jobs)


def _error(failed: Failed) -> FommctlError:
    """The error that a worker met, as it would have been raised here."""
    kinds = {kind.exit_code: kind for kind in FommctlError.__subclasses__()}
    return kinds.get(failed.exit_code, FommctlError)(failed.message, failed.hint)


def _evaluate(
    config: ReproduceConfig, seed: int, jobs: Sequence[TrainingJob], data: Path, host: Host, watch: Watch
) -> Evaluation:
    """All systems that were trained with one seed, on the same clips."""
    order = EvaluateConfig(
        output=config.output / "evaluation" / f"seed-{seed}",
        models=tuple(str(job.model) for job in jobs),
        names=tuple(job.name for job in jobs),
        data=data,
        split="test",
        metrics=config.metrics,
        keypoints=config.keypoints,
        workers=config.workers,
        device=config.device,
    )
    with watch(f"scoring seed {seed}", "frames") as report:
        return evaluate.run(order, host, report).evaluation
