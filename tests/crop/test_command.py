"""`fommctl crop` on real files: subjects, clips, sound, manifests, and continuing after a kill. The first tests have
real faces; the others use a plugin that finds red blobs, which takes almost no time."""

import csv
import json
import os
import shlex
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from command_line import environment
from crop_shots import BLOBS, blob, blob_clip, heads
from distributions import install
from forked_commands import ForkedCommand
from media_factory import write_clip, write_gif, write_mjpeg, write_sound
from PIL import Image
from shots import ASTRONAUT, carphone_frames, face_clip
from written_media import frames, track


@pytest.fixture
def blobs(third_party):
    third_party(BLOBS, name="blob-plugin", entry="blobs")
    return ("--detector", "blobs", "--workers", "1", "--json")


def rows(folder: Path) -> list[dict]:
    return json.loads((folder / "manifest.json").read_text())


# Real faces.


def test_a_talking_head_becomes_one_square_clip_with_its_sound(run_cli, tmp_path):
    clip = face_clip(tmp_path / "talk.mp4", count=36)
    result = run_cli("crop", clip, "-o", tmp_path / "out", "--workers", "1", "--json")
    assert result.code == 0, result.stderr
    (found,) = result.json()["clips"]
    assert {key: found[key] for key in ("source", "start", "size", "detector", "frames", "fps")} == {
        "source": str(clip), "start": 0.0, "size": 256, "detector": "dlib-hog", "frames": 36, "fps": "30000/1001",
    }  # fmt: skip
    assert found["end"] == float(36 * Fraction(1001, 30000))
    left, top, right, bottom = found["box"]
    # By eye, the head moves about (166, 134) in these frames; see test_framing.
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((166, 124), abs=16)
    assert right - left == bottom - top == pytest.approx(200, abs=40)
    cut = Path(found["output"])
    assert cut == tmp_path / "out" / "talk#track0.mp4"
    assert track(cut).times == track(clip).times
    written = frames(cut)
    assert written[0].shape == (256, 256, 3)
    whole = carphone_frames(36)
    for number in (0, 35):
        expected = Image.fromarray(whole[number]).crop((left, top, right, bottom)).resize((256, 256))
        assert np.abs(written[number].astype(int) - np.asarray(expected)).mean() < 4
    sound, original = track(cut, "audio"), track(clip, "audio")
    assert sound.payloads == original.payloads[: len(sound.payloads)]
    assert len(sound.payloads) >= len(original.payloads) - 1


def test_a_stretch_without_a_face_divides_and_a_moment_does_not(run_cli, tmp_path):
    def place(number: int):
        # Away from 2.0 to 4.0 s, and for a moment at 0.6 s.
        return None if 20 <= number < 40 or number == 6 else (100, 30)

    clip = write_clip(tmp_path / "away.mp4", width=480, height=300, frames=60, rate=Fraction(10), draw=heads([place]))
    result = run_cli("crop", clip, "-o", tmp_path / "out", "--workers", "1", "--no-cuts", "--json")
    assert result.code == 0, result.stderr
    times = [(found["start"], found["end"], found["frames"]) for found in result.json()["clips"]]
    # Searched every 0.2 s: last seen at 1.8 s, and again at 4.0 s.
    assert times == [(0.0, 1.9, 19), (4.0, 6.0, 20)]
    for found in result.json()["clips"]:
        assert len(frames(Path(found["output"]))) == found["frames"]


def test_two_faces_that_cross_never_share_a_clip(run_cli, tmp_path):
    # One has no blue and stays in front, the other has no red; moving by their width per second, they cross in the
    # middle.
    draw = heads([lambda n: (300 - 8 * n, 20), lambda n: (-40 + 8 * n, 30)], tint=True)
    clip = write_clip(tmp_path / "cross.mp4", width=480, height=300, frames=44, rate=Fraction(10), draw=draw)
    result = run_cli(
        "crop", clip, "-o", tmp_path / "out", "--workers", "1", "--min-duration", "0.3", "--rate", "10", "--json"
    )
    assert result.code == 0, result.stderr
    clips = result.json()["clips"]
    assert len(clips) >= 4
    shown = []
    for found in clips:
        middles = [picture[100:180, 88:168].astype(int) for picture in frames(Path(found["output"]))]
        # More red than blue: the front one. When the other comes near, its edge may be in the square.
        signs = [np.sign((middle[..., 0] - middle[..., 2]).mean()) for middle in middles]
        assert abs(sum(signs)) == len(signs), found
        shown.append(signs[0])
    assert {1, -1} == set(shown)


def test_a_cut_ends_a_clip_at_the_very_frame(run_cli, tmp_path):
    # The second shot has a face at the same position: by the boxes alone, it would be one track.
    first = carphone_frames(33)
    astronaut = Image.open(ASTRONAUT).convert("RGB").crop((20, 0, 428, 334)).resize((352, 288))

    def draw(number: int) -> np.ndarray:
        return first[number] if number < 33 else np.asarray(astronaut)

    clip = write_clip(tmp_path / "cut.mp4", width=352, height=288, frames=66, draw=draw, options={"crf": "10"})
    result = run_cli("crop", clip, "-o", tmp_path / "out", "--workers", "1", "--json")
    assert result.code == 0, result.stderr
    assert [(found["start"], found["end"], found["frames"]) for found in result.json()["clips"]] == [
        (0.0, 33 / 25, 33),
        (33 / 25, 66 / 25, 33),
    ]
    before, after = (frames(Path(found["output"])) for found in result.json()["clips"])
    assert np.abs(before[-1].astype(int) - before[0]).mean() < 25
    assert np.abs(after[0].astype(int) - after[-1]).mean() < 2
    joined = run_cli("crop", clip, "--dry-run", "--no-cuts", "--workers", "1", "--json").json()["clips"]
    assert [found["frames"] for found in joined] == [66]


def test_a_picture_becomes_a_picture_framed_as_animate_frames_it(run_cli, tmp_path):
    result = run_cli("crop", ASTRONAUT, "-o", tmp_path / "out", "--workers", "1", "--json")
    assert result.code == 0, result.stderr
    (found,) = result.json()["clips"]
    left, top, right, _ = found["box"]
    # The face is 92 wide with its centre at (227, 124); see test_framing.
    assert right - left == pytest.approx(92 / 0.52, rel=0.08)
    assert (left + 0.5 * (right - left), top + 0.5625 * (right - left)) == pytest.approx((227, 124), abs=8)
    assert (found["frames"], found["fps"]) == (1, None)
    with Image.open(found["output"]) as picture:
        assert (picture.format, picture.size, picture.mode) == ("PNG", (256, 256), "RGB")


# Output and options.


def test_sound_and_times_are_those_of_the_part(run_cli, blobs, tmp_path):
    def draw(number: int) -> np.ndarray:
        return blob(number, left=30 if 30 <= number < 80 else 200)

    # The blob is in the picture from 1.2 to 3.2 s, and outside it in the other frames.
    def seen(number: int) -> np.ndarray:
        return draw(number) if 30 <= number < 80 else blob(number, side=0)

    clip = blob_clip(tmp_path / "part.mp4", frames=100, draw=seen, audio=("aac",))
    result = run_cli("crop", clip, "-o", tmp_path / "out", "--rate", "25", "--no-cuts", *blobs)
    assert result.code == 0, result.stderr
    (found,) = result.json()["clips"]
    assert (found["start"], found["end"], found["frames"]) == (1.2, 3.2, 50)
    cut = Path(found["output"])
    assert track(cut).times == [Fraction(index, 25) for index in range(50)]
    sound, packet = track(cut, "audio"), Fraction(1024, 44100)
    assert -2 * packet <= sound.times[0] <= Fraction(1, 25)
    assert abs(sound.times[-1] + sound.durations[-1] - 2) <= Fraction(1, 25)
    # Copied from the start of the part.
    payloads = track(clip, "audio").payloads
    start = payloads.index(sound.payloads[2])
    assert abs(start * packet - Fraction(12, 10) - 2 * packet) <= Fraction(1, 25) + packet
    silent = run_cli("crop", clip, "-o", tmp_path / "silent", "--audio", "none", "--no-cuts", *blobs)
    with av.open(silent.json()["clips"][0]["output"]) as container:
        assert not container.streams.audio


def test_uneven_times_are_kept(run_cli, blobs, tmp_path):
    times = [Fraction(part, 90000) for part in (0, 3000, 9000, 10001, 20000, 26011, 60000, 99000)]
    clip = blob_clip(tmp_path / "vfr.mp4", times=times, audio=(), start=Fraction(5))
    result = run_cli("crop", clip, "-o", tmp_path / "out", "--rate", "1000", *blobs)
    assert result.code == 0, result.stderr
    assert track(Path(result.json()["clips"][0]["output"])).times == times


def test_a_rotated_clip_is_cropped_as_it_is_shown(run_cli, blobs, tmp_path):
    clip = blob_clip(tmp_path / "turned.mp4", rotation=90, audio=())
    found = run_cli("crop", clip, "-o", tmp_path / "out", *blobs).json()["clips"][0]
    # The blob at (30..50, 20..40) of 96x64, rotated by 90 degrees counterclockwise: (20..40, 46..66) of 64x96.
    left, top, right, bottom = found["box"]
    assert left <= 20 < 40 <= right
    assert top <= 46 < 66 <= bottom
    assert right <= 64
    middle = frames(Path(found["output"]))[0][:, :, 0].astype(int)
    assert middle[150:160, 120:136].min() > 180


def test_a_picture_of_another_shape_is_another_clip(run_cli, blobs, tmp_path):
    """A rotated phone: 20 frames of 160x120 and 20 of 120x160, with the blob in the middle of both."""

    def picture(width: int, height: int) -> np.ndarray:
        canvas = np.full((height, width, 3), 60, np.uint8)
        canvas[height // 2 - 20 : height // 2 + 20, width // 2 - 20 : width // 2 + 20] = (220, 30, 30)
        return canvas

    clip = write_mjpeg(tmp_path / "turned.mkv", [picture(160, 120)] * 20 + [picture(120, 160)] * 20)
    result = run_cli("crop", clip, "-o", tmp_path / "out", *blobs).json()
    found = [(one["start"], one["end"], one["frames"]) for one in result["clips"]]
    assert found == [(0.0, 2.0, 20), (2.0, 4.0, 20)]
    # The later picture is 90x120 pixels in the middle, and its square contains none of the bars.
    left, top, right, bottom = result["clips"][1]["box"]
    assert (35 <= left < right <= 125, bottom - top) == (True, right - left)
    assert frames(Path(result["clips"][1]["output"]))[3].min(axis=2).min() > 10
    assert any("changes from 160x120 to 120x160" in warning for warning in result["warnings"])


def test_names_are_unique_and_manifests_agree(run_cli, blobs, tmp_path):
    def two(number: int) -> np.ndarray:
        picture = blob(number, width=160)
        picture[24:44, 110:130] = (220, 30, 30)
        return picture

    for folder in ("a", "b/c"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        blob_clip(tmp_path / "raw" / folder / "talk.mp4", audio=())
    blob_clip(tmp_path / "raw" / "b" / 'odd #1: né, "x".mkv', draw=two, audio=())
    Image.fromarray(two(0)).save(tmp_path / "raw" / "still.png")
    write_gif(tmp_path / "raw" / "move.gif", [blob(index, step=1) for index in range(20)], [100] * 20)
    (tmp_path / "raw" / "notes.txt").write_text("no media")
    result = run_cli("crop", tmp_path / "raw", "-o", tmp_path / "raw" / "out", *blobs)
    assert result.code == 0, result.stderr
    outputs = [Path(found["output"]).name for found in result.json()["clips"]]
    assert len(outputs) == len(set(outputs)) == 7
    assert sum(name.startswith("talk-") for name in outputs) == 2
    assert {"odd _1_ né, _x_#track0.mp4", "odd _1_ né, _x_#track1.mp4", "still#track1.png", "move#track0.mp4"} <= set(
        outputs
    )
    assert sorted(outputs) == sorted(path.name for path in (tmp_path / "raw/out").iterdir() if "#" in path.name)
    with (tmp_path / "raw/out/manifest.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    listed = rows(tmp_path / "raw/out")
    assert [row["output"] for row in table] == [row["output"] for row in listed]
    for cells, row in zip(table, listed, strict=True):
        assert [int(side) for side in cells["box"].split()] == row["box"]
        assert (float(cells["start"]), float(cells["end"])) == (row["start"], row["end"])
        assert cells["source"] == row["source"]
    # Results are not inputs of the next run.
    again = run_cli("crop", tmp_path / "raw", "-o", tmp_path / "raw" / "out", *blobs).json()
    assert (len(again["clips"]), len(again["skipped"])) == (7, 5)


def test_a_second_run_does_only_what_is_new_or_has_changed(run_cli, blobs, tmp_path):
    out, raw = tmp_path / "out", tmp_path / "raw"
    raw.mkdir()
    for name in ("one", "two"):
        blob_clip(raw / f"{name}.mp4", audio=())
    arguments = ("crop", raw, "-o", out, *blobs)
    first = run_cli(*arguments).json()
    made = {path.name: path.stat().st_mtime_ns for path in out.glob("*#*")}
    second = run_cli(*arguments).json()
    assert second["clips"] == first["clips"]
    assert len(second["skipped"]) == 2
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*#*")} == made
    blob_clip(raw / "two.mp4", frames=50, audio=())
    (out / "one#track0.mp4").unlink()
    blob_clip(raw / "three.mp4", audio=())
    third = run_cli(*arguments).json()
    assert third["skipped"] == []
    assert sorted(found["frames"] for found in third["clips"]) == [40, 40, 50]
    # Other options make other clips; --overwrite replaces them.
    assert run_cli(*arguments, "--size", "64").json()["skipped"] == []
    assert frames(out / "one#track0.mp4")[0].shape == (64, 64, 3)
    assert run_cli(*arguments, "--size", "64", "--overwrite").json()["skipped"] == []
    assert len(run_cli(*arguments, "--size", "64").json()["skipped"]) == 3
    # Nothing is found any more: the clips are removed.
    gone = run_cli(*arguments, "--min-duration", "60")
    assert gone.code == 3
    assert sorted(Path(name).name for name in gone.json()["without_subject"]) == ["one.mp4", "three.mp4", "two.mp4"]
    assert list(out.glob("*#*")) == []
    assert rows(out) == []


@pytest.mark.slow
def test_killed_and_run_again_it_ends_as_if_it_had_not_been(run_cli, blobs, tmp_path):
    raw, plugins = tmp_path / "raw", install(tmp_path / "site", BLOBS, name="blob-plugin", entry="blobs")
    raw.mkdir()
    picture = blob(0, width=320, height=240)
    for number in range(3):
        blob_clip(raw / f"{number}.mp4", frames=75, audio=("aac",), draw=lambda index: picture)
    own = ["crop", str(raw), "--size", "400", *blobs]
    killed = ForkedCommand(*own, "-o", tmp_path / "out", path=plugins)
    journal = tmp_path / "out" / ".crop.jsonl"
    deadline = time.monotonic() + 120
    # The first file is done, the second is being written.
    while not (
        journal.exists() and '"options"' in journal.read_text() and list((tmp_path / "out").glob(".*1#track0*.mp4"))
    ):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "out" / "manifest.json").exists()
    again = run_cli(*own, "-o", tmp_path / "out").json()
    assert [Path(source).name for source in again["skipped"]] == ["0.mp4"]
    assert len(run_cli(*own, "-o", tmp_path / "whole").json()["clips"]) == 3
    for name in ("manifest.json", "manifest.csv", *(f"{number}#track0.mp4" for number in range(3))):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert sorted(os.listdir(tmp_path / "out")) == sorted(os.listdir(tmp_path / "whole"))


def test_what_cannot_be_used_is_listed_and_the_rest_is_done(run_cli, blobs, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "text.mp4").write_text("this is no video\n" * 50)
    (raw / "empty.mp4").touch()
    (raw / "broken.mp4").symlink_to(tmp_path / "gone.mp4")
    write_sound(raw / "sound.mp4")
    blob_clip(raw / "good.mp4", audio=())
    write_clip(raw / "nobody.mp4", draw=lambda number: np.full((48, 64, 3), 90, np.uint8), frames=30)
    result = run_cli("crop", raw, tmp_path / "absent.mp4", "-o", tmp_path / "out", *blobs)
    data = result.json()
    assert result.code == 6
    assert data["error"]["exit_code"] == 6
    assert [Path(found["source"]).name for found in data["clips"]] == ["good.mp4"]
    assert [Path(source).name for source in data["without_subject"]] == ["nobody.mp4"]
    messages = {Path(each["source"]).name: each["message"] for each in data["failed"]}
    assert sorted(messages) == ["absent.mp4", "broken.mp4", "empty.mp4", "sound.mp4", "text.mp4"]
    assert messages["broken.mp4"] == f"{raw / 'broken.mp4'} cannot be read: no such file or directory"
    assert "is empty" in messages["empty.mp4"]
    assert "does not exist" in messages["absent.mp4"]
    assert [row["output"] for row in rows(tmp_path / "out")] == ["good#track0.mp4"]
    # The text about the failed ones is for users too.
    text = run_cli("crop", raw, "-o", tmp_path / "out", *blobs[:-1])
    assert text.code == 6
    assert "error: 4 of the inputs failed" in text.stderr
    assert "no face, or not for long enough: " in text.stdout


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: (folder / "raw").mkdir(), "contains no videos or pictures"),
        (lambda folder: (folder / "raw").write_text("text"), "is not a readable video or picture"),
        (lambda folder: None, "does not exist"),
        (lambda folder: write_clip(folder / "raw.mp4", frames=2).rename(folder / "raw"), "no face was found"),
    ],
    ids=["empty folder", "text", "absent", "no subject"],
)  # fmt: skip
def test_nothing_usable_is_exit_code_3(run_cli, blobs, tmp_path, make, message):
    make(tmp_path)
    result = run_cli("crop", tmp_path / "raw", "-o", tmp_path / "out", *blobs)
    assert result.code == 3
    assert message in result.json()["error"]["message"]
    assert result.json()["clips"] == []


def test_a_name_makes_no_line_of_its_own(run_cli, blobs, tmp_path):
    clip = blob_clip(tmp_path / "a\nerror: b.mp4")
    result = run_cli("crop", clip, "--dry-run", *(word for word in blobs if word != "--json"))
    assert result.code == 0, result.stderr
    assert "1 clip found" in result.stdout
    assert not any(line.startswith("error:") for line in result.stdout.splitlines())


def test_an_output_that_cannot_be_written(run_cli, blobs, tmp_path):
    clip = blob_clip(tmp_path / "clip.mp4", audio=())
    (tmp_path / "file").write_text("in the way")
    result = run_cli("crop", clip, "-o", tmp_path / "file" / "out", *blobs)
    assert result.code == 3
    assert "cannot make the folder" in result.json()["error"]["message"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.csv").write_text("mine")
    refused = run_cli("crop", clip, "-o", tmp_path / "out", *blobs)
    assert refused.code == 2
    assert (tmp_path / "out" / "manifest.csv").read_text() == "mine"
    assert os.listdir(tmp_path / "out") == ["manifest.csv"]
    assert run_cli("crop", clip, *blobs).code == 2


def test_a_worker_that_dies_costs_its_file_only(run_beside, tmp_path):
    deadly = BLOBS.replace(
        "return [self._of(frame.astype(int)) for frame in frames]",
        "import os\n            if frames[0].shape[1] == 100:\n                os.kill(os.getpid(), 9)\n"
        "            return [self._of(frame.astype(int)) for frame in frames]",
    )
    plugins = install(tmp_path / "site", deadly, name="blob-plugin", entry="blobs")
    (tmp_path / "raw").mkdir()
    for name in ("a", "b", "c"):
        width = 100 if name == "b" else 96
        blob_clip(tmp_path / "raw" / f"{name}.mp4", audio=(), draw=lambda n, width=width: blob(n, width=width))
    result = run_beside(
        "crop", tmp_path / "raw", "-o", tmp_path / "out", "--detector", "blobs", "--workers", "2", "--json",
        path=plugins,
    )  # fmt: skip
    assert result.code == 6, result.stderr
    assert [Path(found["source"]).name for found in result.json()["clips"]] == ["a.mp4", "c.mp4"]
    (failed,) = result.json()["failed"]
    assert failed["source"].endswith("b.mp4")
    assert "killed by SIGKILL" in failed["message"]


def files(folder: Path) -> list[Path]:
    """Return all files below a folder, except Python's cache of a plugin imported from there."""
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


def test_a_dry_run_prints_boxes_and_commands_and_writes_nothing(run_cli, blobs, tmp_path):
    clip = blob_clip(tmp_path / "a 'b'.mp4", frames=60, draw=lambda n: blob(n, left=2))
    before = files(tmp_path)
    data = run_cli("crop", clip, "-o", tmp_path / "out dir", "--dry-run", *blobs).json()
    (found,) = data["clips"]
    assert files(tmp_path) == before
    words = shlex.split(found["command"])
    assert words[0] == "ffmpeg"
    assert words[words.index("-i") + 1] == str(clip)
    assert words[-1] == str(tmp_path / "out dir" / "a _b_#track0.mp4") or words[-1].endswith("#track0.mp4")
    assert (words[words.index("-ss") + 1], words[words.index("-to") + 1]) == ("0.000000", "2.400000")
    assert words[words.index("-c:a") + 1] == "copy"
    left, top, right, bottom = found["box"]
    filters = words[words.index("-vf") + 1].split(",")
    assert f"crop={right - left}:{bottom - top}:{max(0, left)}:{max(0, top)}:exact=1" in filters
    assert filters[-1].startswith("scale=256:256")
    text = run_cli("crop", clip, "--dry-run", *blobs[:-1])
    assert text.code == 0
    assert "ffmpeg " in text.stdout
    assert f"crop {left},{top},{right - left}" in text.stdout


def test_frames_in_a_folder_are_pictures_and_a_pattern_is_a_clip(run_cli, blobs, tmp_path):
    (tmp_path / "frames").mkdir()
    for number in range(30):
        Image.fromarray(blob(number)).save(tmp_path / "frames" / f"{number + 5:03d}.png")
    pictures = run_cli("crop", tmp_path / "frames", "--dry-run", *blobs).json()["clips"]
    assert len(pictures) == 30
    (found,) = run_cli(
        "crop", tmp_path / "frames" / "%03d.png", "-o", tmp_path / "out", "--fps", "24000/1001", *blobs
    ).json()["clips"]
    assert (found["frames"], found["fps"]) == (30, "24000/1001")
    assert track(Path(found["output"])).times == [index * Fraction(1001, 24000) for index in range(30)]
    many = run_cli("crop", tmp_path / "frames" / "00[5-7].png", "--dry-run", *blobs).json()["clips"]
    assert [Path(each["source"]).name for each in many] == ["005.png", "006.png", "007.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--iou", "1.5"), "--iou cannot be 1.5"),
        (("--margin", "-1"), "--margin cannot be -1"),
        (("--min-duration", "soon"), "a time of 'soon'"),
        (("--detector", "blob"), "unknown detector 'blob'"),
        (("--preset", "taichi"), "does not name a subject"),
        (("--size", "4"), "--size cannot be 4"),
        (("--workers", "0"), "--workers cannot be 0"),
        (("--codec", "prores"), "cannot be written with codec 'prores'"),
    ],
)
def test_wrong_options(run_cli, third_party, tmp_path, options, message):
    third_party(BLOBS, name="blob-plugin", entry="blobs")
    result = run_cli("crop", tmp_path, "-o", tmp_path / "out", *options, "--json")
    assert result.code in (2, 3)
    assert message in result.json()["error"]["message"]
    assert result.json()["error"]["hint"]
    assert not (tmp_path / "out").exists()


PEAK = """
import json, resource, sys
from fommctl.cli.main import main
code = main(sys.argv[1:])
print(json.dumps({"code": code, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_peak_memory_of_100_and_900_frames(tmp_path):
    plugins = install(tmp_path / "site", BLOBS, name="blob-plugin", entry="blobs")
    peaks = []
    pictures = [blob(number, width=192, height=128) for number in range(50)]
    for count in (100, 900):
        clip = blob_clip(tmp_path / f"{count}.mp4", frames=count, draw=lambda number: pictures[number % 50])
        arguments = ["crop", clip, "-o", tmp_path / "out", "--detector", "blobs", "--workers", "1", "-q"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *map(str, arguments)],
            capture_output=True, text=True, check=True, env=environment(plugins),
        )  # fmt: skip
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["code"] == 0, done.stderr
        peaks.append(result["peak"] / (2**20 if sys.platform == "darwin" else 2**10))
    # 800 more frames of 192x128, or their crops at 256x256, would be 59 MB or 157 MB.
    assert abs(peaks[1] - peaks[0]) < 40
