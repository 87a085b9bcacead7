"""Plans an evaluation: the models or folders of results, and the clips to score them on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fommctl.api.folders import MEDIA_SUFFIXES, file_name_part, is_published, media_below, stem
from fommctl.datasets.clips import Clip, find_clips, read_pairs_list
from fommctl.errors import InputError, UsageError
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.streams import STRIP_SUFFIXES, count_strip
from fommctl.files import not_there
from fommctl.host import Host
from fommctl.media.random_access import count_frames
from fommctl.presets.config import nearest

if TYPE_CHECKING:
    from fommctl.animate.engine import Engine
    from fommctl.presets.sections import Preset


LONGEST_NAME = 200
"""Most bytes of a name, so that suffixes and temporary names fit."""
LISTED = 5
"""Most names in a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One clip to score."""

    name: str
    """Unique name, which may contain `/`, of the clip's files in the output."""
    truth: Path
    """The clip to reconstruct, the driving clip, or the reference of finished results."""
    source: Path | None = None
    """The clip whose first frame is animated; None for `truth`."""
    predictions: tuple[Path, ...] = ()
    """Finished results, one for each folder of predictions."""
    frames: int = 0
    """Number of frames of `truth`; 0 if they cannot be counted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All clips to score, in order."""

    tasks: tuple[Task, ...]
    warnings: tuple[str, ...] = ()


def reconstructions(config: EvaluateConfig, most: int | None) -> Plan:
    """Plan the reconstruction of all clips of the split with more than one frame.

    most: limit without `--max-clips`; None for no limit.  Raises InputError if there are no such clips.
    """
    clips, warnings = _clips(config)
    moving = [clip for clip in clips if not clip.still]
    if not moving:
        raise InputError(
            f"{config.data} contains no clips of more than one frame", "Clips are videos or folders of frames."
        )
    chosen = moving[: config.max_clips or most]
    names = _names(clip.name for clip in chosen)
    tasks = (Task(name=name, truth=clip.path, frames=clip.frames) for name, clip in zip(names, chosen, strict=True))
    return Plan(tuple(tasks), warnings)


def animations(config: EvaluateConfig, most: int, pairs_list: Path | None) -> Plan:
    """Plan the animation of pairs (source, driving) from `--pairs`, else `pairs_list` if it exists, else random ones.

    most: limit without `--max-clips`.  pairs_list: CSV file that the preset names.  Raises the errors of
    `read_pairs_list` and `draw_pairs`.
    """
    clips, warnings = _clips(config)
    clips = tuple(clip for clip in clips if clip.frames)
    most = config.max_clips or most
    listed = config.pairs or (pairs_list if pairs_list is not None and pairs_list.is_file() else None)
    pairs = list(read_pairs_list(listed, clips)[:most]) if listed else draw_pairs(clips, most, config.seed)
    names = _names(f"{_flat(source.name)}--{_flat(driving.name)}" for source, driving in pairs)
    tasks = (
        Task(name=name, truth=driving.path, source=source.path, frames=driving.frames)
        for name, (source, driving) in zip(names, pairs, strict=True)
    )
    return Plan(tuple(tasks), warnings)


def draw_pairs(clips: Sequence[Clip], count: int, seed: int) -> list[tuple[Clip, Clip]]:
    """Draw at most `count` different random pairs of a source and a driving clip.

    Pairs are of different identities, or if there is only one identity, of different clips. Raises InputError if there
    are no pairs.
    """
    pairs = [(one, other) for one in clips for other in clips if one is not other and not other.still]
    crossed = [pair for pair in pairs if pair[0].identity != pair[1].identity] or pairs
    if not crossed:
        raise InputError("there are fewer than two clips to pair", "Cross-identity animation needs at least two clips.")
    chosen = np.random.default_rng(seed).permutation(len(crossed))[:count]
    return [crossed[index] for index in sorted(chosen.tolist())]


def finished_results(config: EvaluateConfig) -> Plan:
    """Match finished results with references by name; unmatched ones are listed in the warnings.

    Raises InputError if nothing matches, or there are no clips.
    """
    assert config.truth is not None
    truths, *predicted = _matched([results_in(path) for path in (config.truth, *config.predictions)])
    if len(truths) == 1 and all(len(names) == 1 for names in predicted) and config.truth.name not in truths:
        # A single clip on each side matches whatever its name.
        name = next(iter(truths))
        predicted = [dict.fromkeys((name,), next(iter(names.values()))) for names in predicted]
    common = [name for name in truths if all(name in names for names in predicted)]
    warnings = tuple(_unmatched(config, truths, predicted))
    if not common:
        raise InputError(
            f"no prediction has the name of a true clip: {', '.join(list(predicted[0])[:LISTED])}",
            f"The true clips are {', '.join(list(truths)[:LISTED])}; names of results may continue after a dot.",
        )
    tasks = (
        Task(
            name=_shortened(name),
            truth=truths[name],
            predictions=tuple(names[name] for names in predicted),
            frames=_counted(truths[name]),
        )
        for name in common[: config.max_clips]
    )
    return Plan(tuple(tasks), warnings)


def _matched(sides: Sequence[dict[str, Path]]) -> list[dict[str, Path]]:
    """Rename the clips of truth and predictions so that matching ones have equal names.

    Names are cut at their first dot, as published. If that makes names of one side equal, a result instead gets the
    name of the true clip that its own continues after a dot.
    """
    if all(len({_up_to_dot(name) for name in side}) == len(side) for side in sides):
        return [{_up_to_dot(name): path for name, path in side.items()} for side in sides]
    truths = sides[0]
    counted = [Counter(_continued(name, truths) for name in side) for side in sides]
    return [
        {known if counts[known := _continued(name, truths)] == 1 else name: path for name, path in side.items()}
        for side, counts in zip(sides, counted, strict=True)
    ]


def _continued(name: str, known: Collection[str]) -> str:
    """Return the known name that `name` continues after a dot, such as `a.1` for `a.1.reconstructed`, else `name`."""
    start = name
    while start not in known and "." in start:
        start = start.rpartition(".")[0]
    return start if start in known else name


def results_in(path: Path) -> dict[str, Path]:
    """Return the clips in a folder (videos, folders of frames, PNG or JPEG strips) by relative path without suffix.

    If the folder has splits, only test is read. A file, or a folder with nothing but frames, is a single clip.
    Raises InputError if there are no clips.
    """
    if not path.exists():
        raise not_there(path)
    if path.is_file():
        return {_stem(path): path}
    folder = path / "test" if is_published(path) else path
    found = list(media_below(folder, published=True))
    files = [each for each in found if each.is_file() and each.parent == folder]
    pictures = [each for each in files if each.suffix.lower() in STRIP_SUFFIXES]
    if found and len(pictures) == len(found) > 1 and all(count_strip(each, jpeg=True) == 1 for each in pictures[:2]):
        return {folder.name: folder}
    if not found:
        raise InputError(f"{folder} contains no videos, folders of frames or strips", "Check the folder.")
    named: dict[str, Path] = {}
    for each in found:
        name = each.relative_to(folder).with_name(_stem(each)).as_posix()
        named[name if name not in named else each.relative_to(folder).as_posix()] = each
    return named


def _clips(config: EvaluateConfig) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
    """Return the clips of the requested split, and warnings; `auto` means all if the data has no splits.

    Unreadable files become clips with 0 frames, so that they fail by name.
    """
    root, split = config.data, config.split
    assert root is not None
    published = is_published(root)
    if split == "auto":
        split = "test" if published else "all"
    if split != "all":
        found = find_clips(root, split, seed=config.seed)
    elif published:
        found = (*find_clips(root, "train"), *find_clips(root, "test"))
    else:
        found = find_clips(root, "train", test_fraction=0)
    if published or split == "all":
        folders = [root] if not published else [root / each for each in ("train", "test") if split in (each, "all")]
        found = tuple(_with_broken(folders, found, published=published))
    if not found:
        raise InputError(f"the {split} split of {root} is empty", "Use --split all, or --split train.")
    unsplit = config.split == "auto" and not published
    note = f"{root} has no test split: all of it is scored (--split test scores only what training sets aside)"
    return found, (note,) if unsplit else ()


def _with_broken(folders: Sequence[Path], clips: Sequence[Clip], *, published: bool) -> Iterator[Clip]:
    """Yield all media of these folders in order; unreadable files become clips with 0 frames."""
    readable = {clip.path: clip for clip in clips}
    for folder in folders:
        for path in media_below(folder, published=published):
            name = path.relative_to(folder).as_posix()
            yield readable.get(path) or Clip(path, name, name, 0)


def _counted(path: Path) -> int:
    try:
        return count_frames(path, jpeg_strips=True)
    except InputError:
        # The clip fails with this error when it is scored.
        return 0


def _unmatched(
    config: EvaluateConfig, truths: Mapping[str, Path], predicted: Sequence[Mapping[str, Path]]
) -> Iterable[str]:
    for folder, names in zip(config.predictions, predicted, strict=True):
        for what, lone, other in (
            ("true clips have no prediction in", [name for name in truths if name not in names], names),
            ("predictions have no true clip, in", [name for name in names if name not in truths], truths),
        ):
            if lone:
                near = nearest(lone[0], other)
                close = f" (is it '{near}'?)" if near else ""
                more = ", ..." if len(lone) > LISTED else ""
                yield f"{len(lone)} {what} {folder}: {', '.join(lone[:LISTED])}{more}{close}"


def _names(names: Iterable[str]) -> list[str]:
    """Return unique names without suffixes, none longer than LONGEST_NAME."""
    whole = list(names)
    stems = [str(Path(name).with_name(_stem(Path(name)))) for name in whole]
    counted = Counter(stems)
    wanted = [short if counted[short] == 1 else name for short, name in zip(stems, whole, strict=True)]
    repeated = Counter(wanted)
    if any(count > 1 for count in repeated.values()):
        wanted = [f"{name}-{number:05d}" if repeated[name] > 1 else name for number, name in enumerate(wanted)]
    return [_shortened(name) for name in wanted]


def _shortened(name: str) -> str:
    if len(Path(name).name.encode("utf-8", "surrogateescape")) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{name.encode('utf-8', 'surrogateescape')[: LONGEST_NAME // 2].decode('utf-8', 'ignore')}-{digest}"


def _flat(name: str) -> str:
    path = Path(name)
    return path.with_name(_stem(path)).as_posix().replace("/", "_")


def _stem(path: Path) -> str:
    """Return a file name without media suffixes: `clip` for `clip.mp4` and for the published `clip.mp4.png`."""
    name = stem(path)
    while name != (shorter := stem(Path(name))) and Path(name).suffix.lower() in MEDIA_SUFFIXES:
        name = shorter
    return name


def _up_to_dot(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + (last.partition(".")[0] or last)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedModel:
    """A model, or a folder of finished results."""

    name: str
    """Name in tables."""
    folder: str
    """Name of its folders in the output, unique among the models."""
    model: str | None = None
    """Name or path for `load_model`."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for everything that predictions depend on besides the clip and the options."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values for the saved configuration."""
    warnings: tuple[str, ...] = ()


def finished_predictions(config: EvaluateConfig) -> tuple[EvaluatedModel, ...]:
    """Return the folders or files of finished results, with unique names."""
    names = config.names or distinct([path.resolve().as_posix() for path in config.predictions])
    return tuple(
        EvaluatedModel(name=name, folder=folder, details={"predictions": str(path)})
        for name, folder, path in zip(names, folders(names), config.predictions, strict=True)
    )


def load_models(config: EvaluateConfig, host: Host) -> tuple[tuple[EvaluatedModel, ...], Preset]:
    """Load every model once to describe it; return the models and the preset of the first. Raises the errors of
    `load_model`."""
    from fommctl.models import registry

    engines = [load_engine(model, config, host) for model in config.models]
    labels = [
        engine.model.name if model is None or model in registry.entries(host) else Path(model).resolve().as_posix()
        for model, engine in zip(config.models, engines, strict=True)
    ]
    names = config.names or distinct(labels)
    models = [
        _evaluated_model(name, folder, model, engine)
        for name, folder, model, engine in zip(names, folders(names), config.models, engines, strict=True)
    ]
    return tuple(models), engines[0].model.preset


def load_engine(model: str | None, config: EvaluateConfig, host: Host) -> Engine:
    """Load a model on the device of the configuration. Raises the errors of `load_model`, and UsageError for options
    that it does not have."""
    # Imports torch, which finished results do not need.
    from fommctl.animate.engine import Engine
    from fommctl.models.loading import load_model

    loaded = load_model(model, host, preset=config.preset, sets=config.sets)
    engine = Engine(loaded, host, device=config.device, precision=config.precision)
    engine.options(config.options)
    return engine


def _evaluated_model(name: str, folder: str, model: str | None, engine: Engine) -> EvaluatedModel:
    from fommctl.provenance.hashing import model_identity

    loaded = engine.model
    width, height = engine.frame_size()
    about = model_identity(loaded)
    identity: dict[str, Any] = {
        **{name: about[name] for name in ("sha256", "preset", "backend") if name in about},
        "device": engine.device.type,
        "precision": engine.precision,
    }
    details = {
        "model": loaded.name,
        "file": str(loaded.path),
        "sha256": identity["sha256"],
        "frame_size": [width, height],
        "device": str(engine.device),
        "precision": engine.precision,
        "preset": identity["preset"],
    }
    return EvaluatedModel(
        name=name,
        folder=folder,
        model=model,
        identity=identity,
        details=details,
        warnings=tuple(f"{name}: {note}" for note in loaded.notes),
    )


def distinct(paths: Sequence[str]) -> tuple[str, ...]:
    """Return short unique names for paths.

    A name is the last part of a path without suffix, preceded by as many folders as are needed to make all unique; if
    that is not enough, with suffix. Raises UsageError if a path occurs twice.
    """
    parts = [tuple(part for part in Path(path).parts if part != "/") for path in paths]
    for shorten in (_model_stem, str):
        for depth in range(1, max(map(len, parts)) + 1):
            names = ["/".join((*each[-depth:-1], shorten(each[-1]))) for each in parts]
            if len(set(names)) == len(names):
                return tuple(names)
    twice = next(path for path, times in Counter(paths).items() if times > 1)
    raise UsageError(f"'{twice}' is given twice", "Give each model once, or give each a name with --names.")


def folders(names: Sequence[str]) -> tuple[str, ...]:
    """Return a folder name for each name, unique even if case is ignored."""
    found: dict[str, None] = {}
    for name in names:
        plain = file_name_part(name).lstrip(".") or "_"
        wanted = chain((plain,), (f"{plain}-{number}" for number in count(2)))
        found[next(each for each in wanted if each.casefold() not in map(str.casefold, found))] = None
    return tuple(found)


def _model_stem(name: str) -> str:
    for suffix in (".tar", ".pth", ".safetensors"):
        name = name.removesuffix(suffix)
    return stem(Path(name))
