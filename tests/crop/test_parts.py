"""Parts of `crop`: names, squares, ffmpeg's commands, the journal, the processes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import media_factory
import pytest
from command_line import environment
from crop_shots import BLOBS, blob_clip
from distributions import install
from hypothesis import given
from hypothesis import strategies as st

from fommctl.api import Box
from fommctl.crop.clips import ffmpeg_command
from fommctl.crop.config import CropConfig
from fommctl.crop.inputs import expand, key_of, names_of, safe_name
from fommctl.crop.manifest import JOURNAL, Manifest
from fommctl.crop.search import Piece, square_of
from fommctl.detection.framing import fitted, ideal
from fommctl.files import temporary_path
from fommctl.media.probe import probe
from fommctl.presets.sections import Framing

FACE = Framing(subject="face", width=0.52)


# Squares


def test_without_a_framing_the_square_is_the_union_with_the_published_margin():
    boxes = [Box(400, 300, 500, 380), Box(420, 310, 520, 390)]
    # The union is 120 by 90 at (460, 345); a tenth of 120 on each side makes 144.
    assert square_of(boxes, 0.1, None, 1920, 1080) == Box(388, 272, 532, 416)


def test_a_face_that_stands_still_is_framed_as_animate_frames_it():
    box = Box(600, 400, 700, 500)
    wanted = ideal(box, 0.52, "face")
    square = square_of([box] * 9, 0.1, FACE, 1920, 1080)
    assert square == fitted(wanted.center, wanted.width, 1920, 1080, 2)
    assert box.width / square.width == pytest.approx(0.52, abs=0.01)


def test_the_margin_around_the_union_is_kept_where_it_asks_for_more():
    boxes = [Box(600, 400, 700, 500), Box(650, 400, 750, 500)]
    square = square_of(boxes, 2.0, FACE, 4000, 3000)
    assert square.width == 5 * 150
    assert square.left <= 600 - 300 + 1
    assert square.right >= 750 + 300 - 1
    assert square.top <= 400 - 300 + 1
    assert square.bottom >= 500 + 300 - 1


sides = st.integers(20, 200)
spots = st.builds(lambda x, y, side: Box(x, y, x + side, y + side), st.integers(300, 600), st.integers(300, 600), sides)


@given(st.lists(spots, min_size=1, max_size=12), st.floats(0, 1), st.sampled_from([FACE, None]))
def test_the_square_holds_the_union_and_its_margin_in_a_large_picture(boxes, margin, framing):
    square = square_of(boxes, margin, framing, 8000, 8000)
    left, right = min(box.left for box in boxes), max(box.right for box in boxes)
    top, bottom = min(box.top for box in boxes), max(box.bottom for box in boxes)
    room_x, room_y = margin * (right - left), margin * (bottom - top)
    # Rounding to whole even pixels may take two.
    assert square.left <= max(0, left - room_x) + 2
    assert square.top <= max(0, top - room_y) + 2
    assert square.right >= right + room_x - 2
    assert square.bottom >= bottom + room_y - 2
    assert square.width == square.height
    assert all(side % 2 == 0 for side in (square.left, square.top, square.width))


# Names


@given(st.text(max_size=300))
def test_safe_names_are_safe(stem):
    name = safe_name(stem)
    assert name
    assert not set('#%/\\:*?"<>|\0\n') & set(name)
    assert name == name.strip(" .")
    assert len(name.encode()) <= 150


def test_two_files_of_one_name_get_a_number_each_and_keep_it(tmp_path):
    one, other, third = (tmp_path / part for part in ("a/talk.mp4", "b/TALK.mov", "walk.mp4"))
    names = names_of([one, other, third], {}, [])
    assert names[third] == "walk"
    assert names[one].startswith("talk-")
    assert names[other].startswith("TALK-")
    # Only one this time, but an earlier run gave the name to the other.
    assert names_of([other], {key_of(one): "talk"}, ["talk#track0.mp4"])[other].startswith("TALK-")
    assert names_of([one], {key_of(one): "talk"}, ["talk#track0.mp4"])[one] == "talk"
    # A file not written by fommctl.
    assert names_of([third], {}, ["walk#track0.mp4"])[third].startswith("walk-")


def test_inputs_are_files_folders_and_patterns_each_file_once(tmp_path):
    for name in ("a/1.mp4", "a/.hidden.mp4", "a/note.txt", "a/b/2.PNG", "out/3.mp4", "c/.d/4.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files, missing = expand([str(tmp_path)], tmp_path / "out")
    assert [file.relative_to(tmp_path).as_posix() for file in files] == ["a/1.mp4", "a/b/2.PNG", "out/3.mp4"]
    assert missing == []
    files, missing = expand([str(tmp_path / "a/*.mp4"), str(tmp_path / "a/1.mp4"), str(tmp_path / "no*")], None)
    assert [file.name for file in files] == ["1.mp4"]
    assert missing == [(tmp_path / "no*", "matches no file")]
    assert expand([str(tmp_path / "a/note.txt")], None)[0] == [tmp_path / "a/note.txt"]


def test_links_to_folders_are_followed_once(tmp_path):
    """Users with videos on several disks create links; preprocess follows them too."""
    for name in ("disk/1.mp4", "raw/2.mxf"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    for name in ("more", "again"):
        (tmp_path / "raw" / name).symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(tmp_path / "raw")
    files, _ = expand([str(tmp_path / "raw")], None)
    assert [file.relative_to(tmp_path / "raw").as_posix() for file in files] == ["2.mxf", "again/1.mp4"]


def test_clips_among_their_sources_are_no_sources(tmp_path, monkeypatch):
    """As with `fommctl crop *.mp4 -o .`, whose second run is given the clips of the first one."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "a#track0.mp4", "p#track12.png", "b#track1.mkv", "sub/a#track0.mp4"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    for inputs in (["."], ["b#track1.mkv", "a#track0.mp4", "a.mp4", "sub"]):
        files, missing = expand(inputs, tmp_path)
        assert sorted(map(str, files)) == ["a.mp4", "b#track1.mkv", "sub/a#track0.mp4"]
        assert missing == []
    assert expand(["a#track0.mp4"], Path()) == ([], [(Path("a#track0.mp4"), "is a clip of an earlier run")])


# ffmpeg


def words_for(path: Path, box: Box, start: Fraction, end: Fraction, **options) -> list[str]:
    config = CropConfig(inputs=(str(path),), dry_run=True, **options)
    piece = Piece(start, end, 1, box, 1.0)
    return shlex.split(ffmpeg_command(probe(path), piece, Path("out/x#track0.mp4"), config))


def test_the_command_repeats_the_border_where_the_square_leaves_the_picture(tmp_path):
    clip = media_factory.write_clip(tmp_path / "c.mp4")
    words = words_for(clip, Box(-10, -8, 70, 72), Fraction(1001, 30000), Fraction(1), size=128)
    # 64x48: ten columns at the left and six at the right, eight rows above and 24 below.
    assert words[words.index("-vf") + 1].split(",") == [
        "pad=80:80:10:8",
        "fillborders=left=10:right=6:top=8:bottom=24:mode=smear",
        "crop=80:80:0:0:exact=1",
        "scale=128:128:flags=bicubic",
    ]
    # 0.0333666... rounded up would leave out the frame itself.
    assert words[words.index("-ss") + 1] == "0.033366"
    assert words[words.index("-to") + 1] == "1.000000"


def test_the_command_counts_from_the_first_picture_and_makes_pixels_square(tmp_path):
    clip = media_factory.write_clip(
        tmp_path / "c.mkv", start=Fraction(5), audio=("libopus",), sample_aspect_ratio=Fraction(4, 3)
    )
    words = words_for(clip, Box(0, 0, 40, 40), Fraction(1, 5), Fraction(2, 5))
    origin = probe(clip).origin
    assert words[1:3] == ["-seek_timestamp", "1"]
    assert float(words[words.index("-ss") + 1]) == pytest.approx(float(origin) + 0.2, abs=1e-6)
    assert words[words.index("-vf") + 1].startswith("scale=85:48,setsar=1,crop=40:40:0:0")
    assert words[words.index("-map") + 3] == "0:1"


def test_names_that_look_like_options_or_addresses_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-y.mp4", "a:b c.mp4"):
        media_factory.write_clip(tmp_path / "plain.mp4").rename(name)
        words = words_for(Path(name), Box(0, 0, 40, 40), Fraction(0), Fraction(1), crf=30, codec="h265")
        assert words[words.index("-i") + 1] == f"file:{name}"
        assert words[words.index("-c:v") + 1] == "libx265"
        assert words[words.index("-crf") + 1] == "30"


# The journal


def row(name: str) -> dict:
    return {
        "source": "s", "output": name, "start": 0.0, "end": 1.0, "box": [0, 0, 2, 2], "size": 256, "detector": "d",
        "score": 1.0, "frames": 25, "fps": "25/1",
    }  # fmt: skip


def test_a_torn_line_costs_that_line_only(tmp_path):
    with Manifest(tmp_path, overwrite=False) as manifest:
        for key in ("/a", "/b"):
            manifest.begin(key, key[1:])
            (tmp_path / f"{key[1:]}#track0.mp4").write_bytes(b"x")
            manifest.finish(key, key, [1, 2], "options", [row(f"{key[1:]}#track0.mp4")])
    whole = (tmp_path / JOURNAL).read_text()
    (tmp_path / JOURNAL).write_text(whole + '{"key": "/c", "na')
    with Manifest(tmp_path, overwrite=False) as manifest:
        assert manifest.is_current("/a", [1, 2], "options")
        assert not manifest.is_current("/a", [1, 3], "options")
        assert not manifest.is_current("/a", [1, 2], "others")
        assert not manifest.is_current("/c", [1, 2], "options")
        (tmp_path / "b#track0.mp4").unlink()
        assert not manifest.is_current("/b", [1, 2], "options")
    assert len(json.loads((tmp_path / "manifest.json").read_text())) == 2


def test_clips_that_are_no_more_are_removed_and_leftovers_of_a_kill_too(tmp_path):
    with Manifest(tmp_path, overwrite=False) as manifest:
        manifest.begin("/a", "a")
        for number in (0, 1):
            (tmp_path / f"a#track{number}.mp4").write_bytes(b"x")
        manifest.finish("/a", "/a", [1, 2], "options", [row("a#track0.mp4"), row("a#track1.mp4")])
    left = temporary_path(tmp_path / "a#track0.mp4").name
    dead = left.replace(f"-{os.getpid()}-", "-999999999-")
    (tmp_path / dead).write_bytes(b"half")
    # What `animate` is writing there now.
    (tmp_path / left).write_bytes(b"half")
    (tmp_path / "mine.mp4").write_bytes(b"x")
    with Manifest(tmp_path, overwrite=False) as manifest:
        manifest.begin("/a", "a")
        assert not manifest.is_current("/a", [1, 2], "options")
        manifest.finish("/a", "/a", [1, 2], "more", [row("a#track0.mp4")])
    assert sorted(path.name for path in tmp_path.glob("[!.]*.mp4")) == ["a#track0.mp4", "mine.mp4"]
    assert [path.name for path in tmp_path.glob(".*.tmp*")] == [left]


# Processes


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc here")
def test_processes_end_when_their_parent_is_killed(tmp_path):
    plugins = install(tmp_path / "site", BLOBS, name="blob-plugin", entry="blobs")
    (tmp_path / "raw").mkdir()
    for number in range(2):
        blob_clip(tmp_path / "raw" / f"{number}.mp4", frames=200, audio=())
    parent = subprocess.Popen(
        [sys.executable, "-m", "fommctl", "crop", tmp_path / "raw", "-o", tmp_path / "out", "--detector", "blobs",
         "--workers", "2", "--size", "2048", "-q"],
        env=environment(plugins, FOMMCTL_MARK=str(tmp_path)), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/.*track*")):
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while mine := _running(f"FOMMCTL_MARK={tmp_path}"):
        assert time.monotonic() < deadline, mine
        time.sleep(0.05)
    # What they were writing is gone too.
    assert list(tmp_path.glob("out/.*track*")) == []


def _running(mark: str) -> list[str]:
    """Return the processes with this in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(entry.name)
        except OSError:
            continue
    return found
