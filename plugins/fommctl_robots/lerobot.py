"""LeRobot data sets (https://github.com/huggingface/lerobot), versions 2.0, 2.1 and 3.0.

Version 2 has meta/episodes.jsonl and one video per episode and camera. Version 3 has meta/episodes/*/*.parquet and
videos of many episodes, with the start and end of each in seconds. In both, the pictures of a camera may be in the
Parquet files of the data instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fommctl.api import ClipRecord, InputError
from fommctl.api.folders import file_name_part
from fommctl.api.readers import parse_json
from fommctl_robots.lerobot_info import Info, read_info
from fommctl_robots.parquet import EpisodePictures, rows

_AGAIN = "Download it again."


class LeRobot:
    """A LeRobot data set, with one clip per episode and camera.

    The identity is the episode: its cameras show the same scene and so stay in one split. If it were the robot, a data
    set of a single robot would have no test split. The split is that of info.json if it lists test episodes. Depth maps
    are left out.
    """

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield a clip for each episode and camera. Raises InputError if the metadata is damaged or lists no episodes;
        videos are not opened, and may be missing."""
        info = read_info(root)
        seen: set[int] = set()
        for episode, clips in _version_2(info) if info.version == 2 else _version_3(info):
            if episode in seen:
                raise InputError(f"{root}: episode {episode} is listed twice", _AGAIN)
            seen.add(episode)
            yield from clips
        if not seen:
            raise InputError(f"{root} has no episodes", _AGAIN)


Episodes = Iterator[tuple[int, list[ClipRecord]]]
"""Index and clips of each episode."""


def _version_2(info: Info) -> Episodes:
    path = info.root / "meta/episodes.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    episode = _episode(f"{path}, line {number}", line)
                    yield episode, _clips_2(info, episode)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", _AGAIN) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: {error.reason}", _AGAIN) from error


def _clips_2(info: Info, episode: int) -> list[ClipRecord]:
    where = {"episode_chunk": episode // info.episodes_per_chunk, "episode_index": episode}
    clips = [
        _clip(info, episode, camera, path=info.file("video_path", video_key=camera, **where)) for camera in info.videos
    ]
    data = info.file("data_path", **where)
    return clips + [_in_parquet(info, episode, camera, data) for camera in info.pictures]


def _episode(where: str, line: str) -> int:
    try:
        described = parse_json(line, finite=False)
    except ValueError as error:
        raise InputError(f"{where} is damaged: {error}", _AGAIN) from error
    return _whole(where, "episode_index", described.get("episode_index") if isinstance(described, dict) else None)


def _version_3(info: Info) -> Episodes:
    folder = info.root / "meta/episodes"
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise InputError(f"{folder} contains no .parquet files", _AGAIN)
    columns = ["episode_index"]
    for camera in info.videos:
        columns += [f"videos/{camera}/{each}" for each in ("chunk_index", "file_index")]
        columns += [f"videos/{camera}/{each}" for each in ("from_timestamp", "to_timestamp")]
    if info.pictures:
        columns += ["data/chunk_index", "data/file_index"]
    for path in files:
        for row in rows(path, columns):
            episode = _whole(str(path), "episode_index", row["episode_index"])
            yield episode, _clips_3(info, f"{path}, episode {episode}", episode, row)


def _clips_3(info: Info, where: str, episode: int, row: dict[str, Any]) -> list[ClipRecord]:
    def numbers(prefix: str) -> dict[str, int]:
        names = ("chunk_index", "file_index")
        return {name: _whole(where, f"{prefix}/{name}", row[f"{prefix}/{name}"]) for name in names}

    clips = []
    for camera in info.videos:
        start, end = _times(info, where, f"videos/{camera}", row)
        path = info.file("video_path", video_key=camera, **numbers(f"videos/{camera}"))
        clips.append(_clip(info, episode, camera, path=path, start=start, end=end))
    if info.pictures:
        data = info.file("data_path", **numbers("data"))
        clips += [_in_parquet(info, episode, camera, data) for camera in info.pictures]
    return clips


def _times(info: Info, where: str, prefix: str, row: dict[str, Any]) -> tuple[float, float]:
    """Return start and end of an episode in its video, in seconds.

    Both are moved half a frame earlier: they are sums of rounded durations, and must neither lose the first frame nor
    include the first one of the next episode.
    """
    names = (f"{prefix}/from_timestamp", f"{prefix}/to_timestamp")
    start, end = (_seconds(where, name, row[name]) for name in names)
    if end <= start:
        raise InputError(f"{where} ends at {end} s but starts at {start} s", _AGAIN)
    half = min(0.5 / info.frames_per_second, (end - start) / 2)
    return max(0.0, start - half), end - half


def _in_parquet(info: Info, episode: int, camera: str, data: Path) -> ClipRecord:
    return _clip(info, episode, camera, frames=EpisodePictures(data, camera, episode), rate=info.frames_per_second)


def _clip(info: Info, episode: int, camera: str, **more: Any) -> ClipRecord:
    identity = f"episode_{episode:06d}"
    return ClipRecord(name=file_name_part(camera), identity=identity, split=info.split(episode), **more)


def _whole(where: str, name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**9:
        raise InputError(f"{where}: {name} is {value!r}, not a whole number", _AGAIN)
    return value


def _seconds(where: str, name: str, value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{where}: {name} is {value!r}, not a time", _AGAIN)
    return float(value)
