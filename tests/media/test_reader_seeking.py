"""Reading from the middle of a file gives the same frames and times as reading all of it, bit for bit."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import write_clip

from fommctl.media.reader import Reader

RATE = Fraction(25)
NOISE = np.random.default_rng(7).integers(0, 255, (48, 64 + 200, 3), np.uint8)
OPEN_GOP = "keyint=20:min-keyint=20:scenecut=0:bframes=3:b-adapt=0:open-gop=1"
CLIPS: dict[str, dict] = {
    "closed-gop.mp4": {"options": {"g": "12", "bf": "3"}},
    "open-gop.mp4": {"options": {"x264-params": OPEN_GOP}},
    "open-gop.mkv": {"options": {"x264-params": OPEN_GOP}},
    "open-gop-hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:keyint=20:min-keyint=20:bframes=3:b-adapt=0:open-gop=1"},
    },
    "one-key-frame.mov": {"options": {"g": "999"}},
    "no-key-frame-but-the-first.mkv": {"options": {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}},
    "late.mp4": {"start": Fraction(7, 3), "options": {"g": "10"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "10", "bf": "2", "qscale": "2"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "10", "bf": "2"}},
    "mpeg2.mkv": {"codec": "mpeg2video", "options": {"g": "10", "bf": "2"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "g": "10"}},
    "uneven.mp4": {
        "times": [Fraction(int(tick), 90000) for tick in np.random.default_rng(1).integers(900, 9000, 75).cumsum()],
        "options": {"g": "16", "bf": "2"},
    },
}


def drawn(index: int) -> np.ndarray:
    """Return moving noise: frames predicted from wrong references would differ."""
    return np.ascontiguousarray(NOISE[:, 2 * index : 2 * index + 64])


def whole(path: Path) -> list:
    return [(frame.time, frame.duration, frame.pixels) for frame in Reader(path)]


def check_from(path: Path, first: int, frames: list) -> None:
    start = frames[first][0]
    reader = Reader(path, start=start)
    given = [(frame.time + start, frame.duration, frame.pixels) for frame in reader]
    assert [frame[:2] for frame in given] == [frame[:2] for frame in frames[first:]], f"from frame {first}"
    for index, (mine, other) in enumerate(zip(given, frames[first:], strict=True)):
        assert np.array_equal(mine[2], other[2]), f"frame {first + index}, read from frame {first} on"
    assert reader.warnings == []


@pytest.mark.parametrize("name", CLIPS)
def test_any_start_gives_the_frames_of_the_whole(tmp_path, name):
    path = write_clip(tmp_path / name, **{"frames": 75, "rate": RATE, "draw": drawn, **CLIPS[name]})
    frames = whole(path)
    assert len(frames) == 75
    for first in (*range(24, 48), 60, 74):
        check_from(path, first, frames)
