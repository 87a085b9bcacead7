"""LeRobot data sets (https://github.com/huggingface/lerobot), versions 2.0, 2.1 and 3.0.

Version 2: meta/episodes.jsonl, and a video for each episode and camera. Version 3: meta/episodes/*/*.parquet, and
videos that hold many episodes, with the seconds at which each begins and ends.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fommctl.api import ClipRecord, InputError, MissingError
from fommctl.api.folders import file_name_part
from fommctl_robots.lerobot_info import Info, read_info

_AGAIN = "Download it again."


class LeRobot:
    """A clip for each episode and camera.

    An episode is the identity: all its cameras show the same scene, so they stay in one split, while to make the robot
    the identity would leave a data set of one robot without a test split. The split is that of info.json where it
    names test episodes. Depth maps are left out.
    """

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Raises InputError where the description is damaged; videos are not looked at, and may be missing."""
        info = read_info(root)
        seen: set[int] = set()
        for episode, clips in _version_2(info) if info.version == 2 else _version_3(info):
            if episode in seen:
                raise InputError(f"{root}: episode {episode} is listed twice", _AGAIN)
            seen.add(episode)
            for camera, path, start, end in clips:
                yield ClipRecord(
                    name=file_name_part(camera),
                    identity=f"episode_{episode:06d}",
                    split=info.split(episode),
                    path=path,
                    start=start,
                    end=end,
                )
        if not seen:
            raise InputError(f"{root} has no episodes", _AGAIN)


Clips = list[tuple[str, Path, float | None, float | None]]
"""Camera, file, start and end in seconds."""


def _version_2(info: Info) -> Iterator[tuple[int, Clips]]:
    path = info.root / "meta/episodes.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                episode = _episode(f"{path}, line {number}", line)
                chunk = episode // info.episodes_per_chunk
                yield (
                    episode,
                    [
                        (camera, info.video(episode_chunk=chunk, episode_index=episode, video_key=camera), None, None)
                        for camera in info.cameras
                    ],
                )
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", _AGAIN) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: {error.reason}", _AGAIN) from error


def _episode(where: str, line: str) -> int:
    try:
        described = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is damaged: {error}", _AGAIN) from error
    return _whole(where, "episode_index", described.get("episode_index") if isinstance(described, dict) else None)


def _version_3(info: Info) -> Iterator[tuple[int, Clips]]:
    folder = info.root / "meta/episodes"
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise InputError(f"{folder} holds no .parquet files", _AGAIN)
    columns = {
        camera: [f"videos/{camera}/{each}" for each in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")]
        for camera in info.cameras
    }
    for path in files:
        for row in _rows(path, ["episode_index", *(name for each in columns.values() for name in each)]):
            episode = _whole(str(path), "episode_index", row["episode_index"])
            where = f"{path}, episode {episode}"
            yield episode, [(camera, *_placed(info, where, camera, row, columns[camera])) for camera in info.cameras]


def _placed(info: Info, where: str, camera: str, row: dict[str, Any], columns: list[str]) -> tuple[Path, float, float]:
    """The file of an episode's camera, and the seconds between which it lies there.

    Both are brought half a frame forward, because they are sums of rounded durations: the first frame must not be
    lost, nor the first one of the next episode be taken.
    """
    chunk, file = (_whole(where, column, row[column]) for column in columns[:2])
    start, end = (_seconds(where, column, row[column]) for column in columns[2:])
    if end <= start:
        raise InputError(f"{where}: ends at {end} s and starts at {start} s", _AGAIN)
    half = min(0.5 / info.frames_per_second, (end - start) / 2)
    video = info.video(video_key=camera, chunk_index=chunk, file_index=file)
    return video, max(0.0, start - half), end - half


def _rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, a batch of them in memory at a time."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingError(
            "LeRobot data sets of version 3 need the package pyarrow", "pip install 'fommctl[robots]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as table:
            absent = [column for column in columns if column not in table.schema_arrow.names]
            if absent:
                raise InputError(f"{path} has no column {absent[0]}", "Is this a LeRobot data set as published?")
            for batch in table.iter_batches(batch_size=1024, columns=columns):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}", _AGAIN) from error


def _whole(where: str, name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**9:
        raise InputError(f"{where}: {name} is {value!r}, not a whole number", _AGAIN)
    return value


def _seconds(where: str, name: str, value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{where}: {name} is {value!r}, not a time", _AGAIN)
    return float(value)
