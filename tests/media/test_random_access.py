"""Frames read by number equal the reader's, bit for bit, for every codec and container."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_factory import CODECS, damage, moving_square, truncate, write_clip, write_frames, write_gif, write_variant
from PIL import Image

from fommctl.errors import InputError
from fommctl.media import random_access
from fommctl.media.random_access import count_frames, read_frames
from fommctl.media.reader import Reader

X265 = "log-level=none:keyint=12:bframes=3:open-gop=1"
UNEVEN = [Fraction(n * n % 7 + 20 * n, 600) for n in range(40)]
VIDEOS: dict[str, dict[str, Any]] = {
    "one-key.mp4": {"options": {"g": "999", "bf": "3", "sc_threshold": "0"}},
    "many-keys.mp4": {"options": {"g": "8", "bf": "3"}},
    "open-gop.mp4": {"options": {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}},
    "open-gop.mkv": {"options": {"g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}},
    "open-gop-hevc.mp4": {"codec": "libx265", "options": {"x265-params": X265}},
    "pyramid.mkv": {"options": {"g": "40", "bf": "7", "x264-params": "b-pyramid=normal:scenecut=0"}},
    "uneven.mp4": {"times": UNEVEN, "options": {"g": "9", "bf": "2"}},
    "late.mp4": {"start": Fraction(7, 3), "options": {"g": "9", "bf": "2"}},
    "late.mkv": {"start": Fraction(7, 3), "options": {"g": "9", "bf": "2"}},
    "turned.mp4": {"rotation": 90, "options": {"g": "9"}},
    "wide.mp4": {"sample_aspect_ratio": Fraction(3, 2)},
    "golden.webm": {
        "codec": "libvpx-vp9",
        "options": {"cpu-used": "8", "g": "15", "auto-alt-ref": "1", "lag-in-frames": "16"},
    },
}


def noise(index: int) -> np.ndarray:
    """Return a moving square over a texture that differs from frame to frame."""
    picture = moving_square(index).astype(np.int16)
    picture += np.random.default_rng(index // 3).integers(-30, 30, picture.shape, np.int16)
    return np.clip(picture, 0, 255).astype(np.uint8)


def assert_same(path: Path, size: tuple[int, int] | None = None) -> None:
    """Assert equality for all frames in one go, each alone, and a few in any order."""
    expected = [frame.pixels for frame in Reader(path, size=size)]
    assert count_frames(path) == len(expected)
    everything = read_frames(path, range(len(expected)), size=size)
    for index, picture in enumerate(expected):
        np.testing.assert_array_equal(everything[index], picture)
        np.testing.assert_array_equal(read_frames(path, [index], size=size)[0], picture)
    mixed = [len(expected) - 1, 0, len(expected) // 2, 0]
    for index, picture in zip(mixed, read_frames(path, mixed, size=size), strict=True):
        np.testing.assert_array_equal(picture, expected[index])


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_are_those_of_the_reader(name: str, tmp_path: Path) -> None:
    assert_same(write_clip(tmp_path / name, **{"frames": 40, "draw": noise, **VIDEOS[name]}))


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_and_container(name: str, tmp_path: Path) -> None:
    assert_same(write_variant(tmp_path, name, frames=12))


def test_resized_frames_are_those_of_the_reader(tmp_path: Path) -> None:
    assert_same(write_clip(tmp_path / "clip.mp4", frames=6), size=(32, 40))


@pytest.mark.parametrize("name", [name for name in VIDEOS if "mp4" in name or "mkv" in name])
def test_times_are_found_without_decoding(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / name, **{"frames": 40, "draw": noise, **VIDEOS[name]})

    def never(*_: object) -> None:
        raise AssertionError("the clip was decoded from its beginning")

    monkeypatch.setattr(random_access._Video, "_by_counting", never)
    assert len(read_frames(path, range(0, 40, 3))) == 14


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=60, draw=noise, options={"g": "10", "bf": "2", "sc_threshold": "0"})
    decoded: list[int] = []
    original: Callable[..., Any] = random_access._decoded

    def spy(container: Any, stream: Any, targets: list[int], start: int) -> Any:
        decoded.append(start // (stream.duration // 60))
        return original(container, stream, targets, start)

    monkeypatch.setattr(random_access, "_decoded", spy)
    read_frames(path, [35, 38, 52])
    assert decoded == [30, 50]


def test_an_edit_list_that_hides_the_beginning(tmp_path: Path) -> None:
    """Frames before time 0 are in the file but not shown."""
    path = write_clip(
        tmp_path / "cut.mp4", frames=40, draw=noise, start=Fraction(-8, 25), options={"g": "999", "bf": "2"}
    )
    assert_same(path)


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp", "moving.png"])
def test_animations(name: str, tmp_path: Path) -> None:
    pictures = [moving_square(index) for index in range(9)]
    path = tmp_path / name
    if name.endswith(".gif"):
        write_gif(path, pictures, [40, 120, 40, 40, 20, 100, 40, 40, 40])
    else:
        stills = [Image.fromarray(picture) for picture in pictures]
        stills[0].save(path, save_all=True, append_images=stills[1:], duration=40, lossless=True)
    assert_same(path)
    assert_same(path, size=(32, 24))


def test_a_folder_of_frames_of_any_kind(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", [moving_square(index) for index in range(5)], pattern="%d.png", first=8)
    Image.fromarray(moving_square(9)).convert("L").save(folder / "13.png")
    Image.fromarray(np.dstack([moving_square(9), np.full((48, 64), 100, np.uint8)])).save(folder / "14.png")
    assert_same(folder)
    assert_same(folder, size=(24, 24))
    np.testing.assert_array_equal(read_frames(folder, [2])[0], moving_square(2))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_strip_holds_square_frames_side_by_side(mode: str, tmp_path: Path) -> None:
    frames = [np.full((8, 8, 3), 20 * index, np.uint8) for index in range(5)]
    frames[3][2, 5] = 255
    Image.fromarray(np.hstack(frames)).convert(mode).save(tmp_path / "strip.png")
    assert count_frames(tmp_path / "strip.png") == 5
    for expected, picture in zip([frames[3], frames[0]], read_frames(tmp_path / "strip.png", [3, 0]), strict=True):
        np.testing.assert_array_equal(picture, expected)
    assert read_frames(tmp_path / "strip.png", [1], size=(4, 6))[0].shape == (6, 4, 3)


def test_a_wide_photograph_is_no_strip(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((16, 32, 3), np.uint8)).save(tmp_path / "panorama.jpg")
    assert count_frames(tmp_path / "panorama.jpg") == 1
    assert read_frames(tmp_path / "panorama.jpg", [0])[0].shape == (16, 32, 3)


def test_a_strip_may_be_longer_than_a_picture(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64 * 300), np.uint8)).save(tmp_path / "strip.png")
    assert count_frames(tmp_path / "strip.png") == 300
    assert read_frames(tmp_path / "strip.png", [299])[0].shape == (64, 64, 3)


@pytest.mark.parametrize("size", [(48, 48), (60, 48), (48, 96)])
def test_other_pictures_are_one_frame(size: tuple[int, int], tmp_path: Path) -> None:
    Image.fromarray(moving_square(0, *size)).save(tmp_path / "still.jpg")
    assert_same(tmp_path / "still.jpg")
    assert count_frames(tmp_path / "still.jpg") == 1


def test_a_file_that_was_replaced_is_looked_at_again(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=6)
    assert count_frames(path) == 6
    write_clip(path, frames=9)
    assert count_frames(path) == 9


@pytest.mark.parametrize("index", [-1, 6])
def test_a_number_beyond_the_clip_is_refused(index: int, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", frames=6)
    with pytest.raises(InputError, match=rf"clip\.mp4 has 6 readable frames, and number {index} "):
        read_frames(path, [0, index])


def test_a_missing_and_a_broken_file_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        count_frames(tmp_path / "missing.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match="text"):
        read_frames(tmp_path / "text.mp4", [0])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="contains no pictures"):
        count_frames(tmp_path / "empty")


def test_a_cut_file_keeps_what_is_there(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", frames=60, draw=noise, options={"g": "10"})
    expected = [frame.pixels for frame in Reader(path)]
    truncate(path, 0.6)
    count = count_frames(path)
    assert 20 < count < 50
    np.testing.assert_array_equal(read_frames(path, [3])[0], expected[3])


def test_damage_elsewhere_does_not_matter(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", frames=60, draw=noise, options={"g": "10"})
    expected = [frame.pixels for frame in Reader(path)]
    damage(path, 0.5, 0.55)
    np.testing.assert_array_equal(read_frames(path, [2])[0], expected[2])
