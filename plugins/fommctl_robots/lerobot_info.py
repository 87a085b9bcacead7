"""Reads meta/info.json of a LeRobot data set: version, cameras, paths and splits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fommctl.api import InputError
from fommctl.api.protocols import Split
from fommctl.api.readers import parse_json

_FIELD = re.compile(r"\{(\w+)(?::0?(\d))?d?\}")
"""A field in a path template, such as `{chunk_index:03d}`."""
_VERSION = re.compile(r"v?(\d+)\.(\d+)")
_SPLITS: dict[str, Split] = {name: "test" for name in ("test", "val", "valid", "validation", "eval")}
_TEMPLATES = {
    "video_path": {
        2: "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        3: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    },
    "data_path": {
        2: "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        3: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    },
}
"""Default path templates, by major version."""


@dataclass(frozen=True)
class Info:
    """The validated contents of meta/info.json."""

    root: Path
    version: int
    """Major version, 2 or 3."""
    frames_per_second: float
    videos: tuple[str, ...]
    """Cameras stored as videos, without depth maps."""
    pictures: tuple[str, ...]
    """Cameras stored as pictures in the Parquet files, without depth maps."""
    templates: Mapping[str, str]
    """Path templates `video_path` and `data_path`."""
    episodes_per_chunk: int
    """Number of episodes per chunk, in version 2."""
    tests: tuple[range, ...]
    """Episodes of the test split; empty if the data set has none."""

    def file(self, template: str, **fields: int | str) -> Path:
        """Return the path that a template gives for these fields. Raises InputError if it would leave the data set."""

        def filled(match: re.Match[str]) -> str:
            if match[1] not in fields:
                raise self.fault(f"{template} has an unknown field {match[0]}")
            return str(fields[match[1]]).zfill(int(match[2] or 0))

        relative = _FIELD.sub(filled, self.templates[template])
        path = PurePosixPath(relative)
        if path.is_absolute() or ".." in path.parts or "\\" in relative or "{" in relative:
            raise self.fault(f"{template} leads to {relative!r}, which is not a file of the data set")
        return self.root / path

    def split(self, episode: int) -> Split | None:
        """Return the split of an episode; None if info.json lists no test episodes, since LeRobot's default is `train`
        for all of them."""
        if not self.tests:
            return None
        return "test" if any(episode in each for each in self.tests) else "train"

    def fault(self, what: str) -> InputError:
        """Return the error for an invalid value in info.json."""
        return InputError(f"{self.root / 'meta/info.json'}: {what}", "Is this a LeRobot data set as published?")


def read_info(root: Path) -> Info:
    """Read meta/info.json of a data set. Raises InputError if it is missing, damaged or of an unsupported version."""
    path = root / "meta/info.json"
    try:
        info = parse_json(path.read_bytes(), finite=False)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", "Give the folder of the data set, which contains meta."
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}", "Download it again.") from error
    if not isinstance(info, dict):
        raise InputError(f"{path} is damaged: it is not a JSON object", "Download it again.")
    version = _version(path, info)
    videos, pictures = (_cameras(path, info, dtype) for dtype in ("video", "image"))
    if not videos and not pictures:
        raise InputError(f"{path} lists no cameras", "Only data sets with pictures can be used.")
    return Info(
        root=root,
        version=version,
        frames_per_second=_number(path, info, "fps", 30.0),
        videos=videos,
        pictures=pictures,
        templates={name: str(info.get(name) or defaults[version]) for name, defaults in _TEMPLATES.items()},
        episodes_per_chunk=max(1, int(_number(path, info, "chunks_size", 1000.0))),
        tests=_tests(path, info),
    )


def _version(path: Path, info: dict[str, Any]) -> int:
    stated = str(info.get("codebase_version", "nothing"))
    match = _VERSION.match(stated)
    if match is None or int(match[1]) not in (2, 3):
        raise InputError(
            f"{path}: codebase_version is {stated!r}; versions 2 and 3 are supported",
            "Convert the data set with LeRobot's scripts.",
        )
    return int(match[1])


def _number(path: Path, info: dict[str, Any], key: str, default: float) -> float:
    value = info.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InputError(f"{path}: {key} is {value!r}, not a positive number", "Download it again.")
    return float(value)


def _cameras(path: Path, info: dict[str, Any], dtype: str) -> tuple[str, ...]:
    features = info.get("features")
    if not isinstance(features, dict):
        raise InputError(f"{path} has no features", "Download it again.")
    described = {key: feature for key, feature in features.items() if isinstance(feature, dict)}
    return tuple(sorted(key for key, each in described.items() if each.get("dtype") == dtype and not _depth(each)))


def _depth(feature: dict[str, Any]) -> bool:
    notes = [feature.get(name) for name in ("info", "video_info")]
    return any(
        isinstance(note, dict) and (note.get("is_depth_map") or note.get("video.is_depth_map")) for note in notes
    )


def _tests(path: Path, info: dict[str, Any]) -> tuple[range, ...]:
    splits = info.get("splits") or {}
    if not isinstance(splits, dict):
        raise InputError(f"{path}: splits is not an object", "Download it again.")
    tests = []
    for name, stated in splits.items():
        if name not in _SPLITS:
            continue
        match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", str(stated))
        if match is None:
            raise InputError(f"{path}: the split {name} is {stated!r}, not FIRST:END", "Write it as 80:100.")
        tests.append(range(int(match[1]), int(match[2])))
    return tuple(tests)
