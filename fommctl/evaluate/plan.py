"""What is to be scored: clips to reconstruct, pairs to animate, finished results with their references."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fommctl.api.folders import MEDIA_SUFFIXES, is_published, media_below, stem
from fommctl.datasets.clips import Clip, find_clips, read_pairs_list
from fommctl.errors import InputError
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.footage import STRIP_SUFFIXES, count_strip
from fommctl.media.random_access import count_frames
from fommctl.presets.config import nearest

LONGEST_NAME = 200
"""Characters, so that a file of this name with an ending can be written."""
LISTED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One clip to score."""

    name: str
    """Unique; may hold `/`. Files of the results are named by it."""
    truth: Path
    """The clip to reconstruct, the driving clip, or the reference."""
    source: Path | None = None
    """The clip whose first frame is animated; None: that of `truth`."""
    predictions: tuple[Path, ...] = ()
    """Finished results, one for each folder of predictions."""
    frames: int = 0
    """Of `truth`; 0 where they cannot be counted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All clips to score, in order."""

    tasks: tuple[Task, ...]
    warnings: tuple[str, ...] = ()


def reconstructions(config: EvaluateConfig, most: int | None) -> Plan:
    """The clips of the split, stills left out; at most `most` (None: all) where `--max-clips` does not say."""
    clips, warnings = _clips(config)
    moving = [clip for clip in clips if not clip.still]
    if not moving:
        raise InputError(f"{config.data} holds no clip of more than one frame", "Videos or folders of frames are.")
    chosen = moving[: config.max_clips or most]
    names = _names(clip.name for clip in chosen)
    tasks = (Task(name=name, truth=clip.path, frames=clip.frames) for name, clip in zip(names, chosen, strict=True))
    return Plan(tuple(tasks), warnings)


def animations(config: EvaluateConfig, most: int, pairs_list: Path | None) -> Plan:
    """Pairs (source, driving) of `--pairs`, else of `pairs_list` where that file exists, else drawn by the seed: of
    different identities where there are some, each pair once. At most `most` where `--max-clips` does not say."""
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
    """So many different pairs of a source and a driving clip, of different identities where there are any, else of
    different clips. Fewer where there are not so many. Raises InputError where there is none."""
    pairs = [(one, other) for one in clips for other in clips if one is not other and not other.still]
    crossed = [pair for pair in pairs if pair[0].identity != pair[1].identity] or pairs
    if not crossed:
        raise InputError("there are no two clips to pair", "Cross-identity animation needs two clips or more.")
    chosen = np.random.default_rng(seed).permutation(len(crossed))[:count]
    return [crossed[index] for index in sorted(chosen.tolist())]


def finished_results(config: EvaluateConfig) -> Plan:
    """Finished results with the references of the same name; those without one on the other side are in the warnings.

    Raises InputError where no name is on both sides.
    """
    assert config.truth is not None
    truths, *predicted = _matched([results_in(path) for path in (config.truth, *config.predictions)])
    if len(truths) == 1 and all(len(names) == 1 for names in predicted) and config.truth.name not in truths:
        # One clip each: what they are called says nothing.
        name = next(iter(truths))
        predicted = [dict.fromkeys((name,), next(iter(names.values()))) for names in predicted]
    common = [name for name in truths if all(name in names for names in predicted)]
    warnings = tuple(_unmatched(config, truths, predicted))
    if not common:
        raise InputError(
            f"no prediction has the name of a true clip: {', '.join(list(predicted[0])[:LISTED])}",
            f"The true clips are {', '.join(list(truths)[:LISTED])}; results may add to that after a dot.",
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
    """Clips by the names that truth and predictions share. Names are compared up to their first dot, as published;
    where clips would become one by that, results are those of the clip whose name they continue after a dot."""
    if all(len({_up_to_dot(name) for name in side}) == len(side) for side in sides):
        return [{_up_to_dot(name): path for name, path in side.items()} for side in sides]
    truths = sides[0]
    counted = [Counter(_continued(name, truths) for name in side) for side in sides]
    return [
        {known if counts[known := _continued(name, truths)] == 1 else name: path for name, path in side.items()}
        for side, counts in zip(sides, counted, strict=True)
    ]


def _continued(name: str, known: Collection[str]) -> str:
    """`a.1` of `a.1.reconstructed`, where that is known."""
    start = name
    while start not in known and "." in start:
        start = start.rpartition(".")[0]
    return start if start in known else name


def results_in(path: Path) -> dict[str, Path]:
    """Clips in a folder by their names below it without endings: videos, folders of frames, strips (PNG or JPEG);
    those of the test split where there are splits. A file, or a folder that holds nothing but frames, is one clip.

    Raises InputError where there are none.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist", "Check the spelling and the folder.")
    if path.is_file():
        return {_stem(path): path}
    folder = path / "test" if is_published(path) else path
    found = list(media_below(folder, published=True))
    files = [each for each in found if each.is_file() and each.parent == folder]
    pictures = [each for each in files if each.suffix.lower() in STRIP_SUFFIXES]
    if found and len(pictures) == len(found) > 1 and all(count_strip(each, jpeg=True) == 1 for each in pictures[:2]):
        return {folder.name: folder}
    if not found:
        raise InputError(f"{folder} holds no videos, folders of frames or strips", "Check the folder.")
    named: dict[str, Path] = {}
    for each in found:
        name = each.relative_to(folder).with_name(_stem(each)).as_posix()
        named[name if name not in named else each.relative_to(folder).as_posix()] = each
    return named


def _clips(config: EvaluateConfig) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
    """The clips of the split that was asked for, and those that cannot be read, with no frames: they fail by name. Of
    data without splits, `auto` takes all."""
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
    note = f"{root} has no test split: all of it is scored (--split test takes what training sets aside)"
    return found, (note,) if unsplit else ()


def _with_broken(folders: Sequence[Path], clips: Sequence[Clip], *, published: bool) -> Iterator[Clip]:
    """All media of these folders in order: the clips, and as clips without frames what is none."""
    readable = {clip.path: clip for clip in clips}
    for folder in folders:
        for path in media_below(folder, published=published):
            name = path.relative_to(folder).as_posix()
            yield readable.get(path) or Clip(path, name, name, 0)


def _counted(path: Path) -> int:
    try:
        return count_frames(path, jpeg_strips=True)
    except InputError:
        # The clip fails by itself, and tells why.
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
    """Unique names of files without endings, none longer than a file system takes."""
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
    """The name without its media endings: `clip` of `clip.mp4` and of the published `clip.mp4.png`."""
    name = stem(path)
    while name != (shorter := stem(Path(name))) and Path(name).suffix.lower() in MEDIA_SUFFIXES:
        name = shorter
    return name


def _up_to_dot(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + (last.partition(".")[0] or last)
