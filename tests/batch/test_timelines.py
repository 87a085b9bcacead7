"""`fommctl batch` with a timeline: clips conformed by timecode, their names and ranges, and errors."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from batches import EXACT, TINY
from media_factory import moving_square, write_clip, write_frames
from shots import portrait

from fommctl.media.probe import probe
from fommctl.media.reader import Reader

otio = pytest.importorskip("opentimelineio")
RATE = 25
WORDS = ("--workers", "0", "--default", "source=a.png", "--default", "crop=none", *map(str, (*TINY, *EXACT)))
EDL = """TITLE: SHOTS
FCM: NON-DROP FRAME

001  REELA    V     C        01:00:00:05 01:00:00:10 00:00:00:00 00:00:00:05
* FROM CLIP NAME: talk.mov
002  REELB    V     C        10:00:00:00 10:00:00:04 00:00:00:05 00:00:00:09
* FROM CLIP NAME: LISTEN
003  REELA    V     C        01:00:00:12 01:00:00:15 00:00:00:09 00:00:00:12
* FROM CLIP NAME: talk.mov
"""
CONFORMED = {
    "talk": ("01:00:00:05", "01:00:00:10", 5),
    "LISTEN": ("10:00:00:00", "10:00:00:04", 4),
    "talk_2": ("01:00:00:12", "01:00:00:15", 3),
}
"""By name of the clip: start and end timecode, and the number of frames."""
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a portrait and two movies with timecodes, one named like its reel."""
    portrait(tmp_path / "a.png", 64)
    for name, speed, start in (("talk.mov", 1, "01:00:00:00"), ("REELB.mov", 2, "10:00:00:00")):
        write_clip(
            tmp_path / name, width=64, height=64, frames=16, rate=Fraction(RATE), timecode=start,
            draw=lambda index, speed=speed: moving_square(index * speed, 64, 64),
        )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    return tmp_path


def time(value: float, rate: float = RATE):
    return otio.opentime.RationalTime(value, rate)


def clip(name: str, start: float, frames: int, reference=None, **more):
    return otio.schema.Clip(
        name, reference or otio.schema.MissingReference(), otio.opentime.TimeRange(time(start), time(frames)), **more
    )


def write(path: Path, *clips, **metadata) -> Path:
    timeline = otio.schema.Timeline("shots")
    timeline.metadata.update(metadata)
    track = otio.schema.Track("V1", kind="Video")
    track.extend(clips)
    timeline.tracks.append(track)
    otio.adapters.write_to_file(timeline, str(path))
    return path


def starts(jobs: Path, run_cli, *more: str) -> dict[str, str]:
    """Return the starts that a dry run prints for each clip."""
    done = run_cli("batch", jobs, "--dry-run", "--keep-going", "--json", *WORDS, *more)
    assert done.stdout.startswith('{"plan"'), done.stdout
    return {each["where"]: each["reason"] for each in done.json()["plan"]}


@pytest.mark.parametrize("kind", ["edl", "otio"])
def test_three_clips_are_conformed_by_timecode(kind, folder, run_cli):
    jobs = folder / f"shots.{kind}"
    if kind == "edl":
        jobs.write_text(EDL)
    else:
        hour = 3600 * RATE
        reel = {"cmx_3600": {"reel": "REELB"}}
        write(
            jobs,
            clip("talk.mov", hour + 5, 5),
            clip("LISTEN", 10 * hour, 4, metadata=reel),
            clip("talk.mov", hour + 12, 3),
        )
    done = run_cli("batch", jobs, *WORDS, "--json")
    assert done.code == 0, done.stderr
    for name, (begin, end, frames) in CONFORMED.items():
        found = probe(folder / f"a--{name}.mov")
        assert (found.timecode, found.frames) == (begin, frames)
        # The files do not state their reels; the first timeline of each kind does.
        assert found.reel == ("REELB" if name == "LISTEN" else "REELA" if kind == "edl" else None)
        media = "REELB.mov" if name == "LISTEN" else "talk.mov"
        alone = run_cli(
            "animate", "a.png", media, "--timecode", "--start", begin, "--end", end, "-o", "alone.mov", "--overwrite",
            "--crop", "none", *TINY, *EXACT,
        )  # fmt: skip
        assert alone.code == 0, alone.stderr
        one, other = (list(Reader(folder / each)) for each in ("alone.mov", f"a--{name}.mov"))
        assert all((a.pixels == b.pixels).all() and a.time == b.time for a, b in zip(one, other, strict=True))
    # Completed jobs are not done again.
    assert run_cli("batch", jobs, *WORDS, "--json").json()["counts"] == {
        "done": 0, "kept": 3, "failed": 0, "not started": 0,
    }  # fmt: skip


def frames_of(folder: Path, jobs: Path, run_cli, *more: str) -> dict[str, int]:
    done = run_cli("batch", jobs, *WORDS, "--json", *more)
    assert done.code == 0, done.stdout + done.stderr
    return {Path(job["output"]).name: job["frames"] for job in done.json()["jobs"]}


def test_handles_and_the_range_that_the_timeline_knows(folder, run_cli):
    """Media whose first frame is 1001 in the timeline, and handles that extend before its start."""
    known = otio.schema.ExternalReference("talk.mov", otio.opentime.TimeRange(time(1001), time(16)))
    disabled = clip("sh020", 1008, 4, known.clone())
    disabled.enabled = False
    jobs = write(folder / "shots.otio", clip("sh010", 1003, 4, known), disabled)
    assert frames_of(folder, jobs, run_cli) == {"a--sh010.mov": 4}
    assert probe(folder / "a--sh010.mov").timecode == "01:00:00:02"
    more = ("--handles", "3", "-o", "with/{clip}_{number}.mov")
    (folder / "with").mkdir()
    assert frames_of(folder, jobs, run_cli, *more) == {"sh010_1.mov": 9}
    assert probe(folder / "with/sh010_1.mov").timecode == "01:00:00:00"


def test_pictures_and_fields_in_the_metadata(folder, run_cli):
    write_frames(folder / "plate", [moving_square(index, 64, 64) for index in range(6)])
    names = sorted(path.name for path in (folder / "plate").iterdir())
    pictures = otio.schema.ImageSequenceReference(
        "plate/", "", ".png", start_frame=int(names[0][:-4]), frame_zero_padding=len(names[0]) - 4, rate=24,
        available_range=otio.opentime.TimeRange(time(24 * 3600, 24), time(6, 24)),
    )  # fmt: skip
    shot = otio.schema.Clip(
        "sh030",
        pictures,
        otio.opentime.TimeRange(time(24 * 3600 + 2, 24), time(3, 24)),
        metadata={"fommctl": {"smooth": True}},
    )
    jobs = write(folder / "shots.otio", shot, fommctl={"output": "{clip}_{smooth}.mov"})
    assert frames_of(folder, jobs, run_cli) == {"sh030_True.mov": 3}
    found = probe(folder / "sh030_True.mov")
    assert (found.rate, found.timecode) == (24, "01:00:00:02")


def test_what_is_wrong_with_clips(folder, run_cli):
    fast = clip("talk.mov", 3600 * RATE, 4)
    fast.effects.append(otio.schema.LinearTimeWarp("fast", time_scalar=2.0))
    jobs = write(
        folder / "shots.otio",
        clip("gone.mov", 0, 4),
        clip("talk.mov", 5, 4),
        fast,
        clip("talk.mov", 3601 * RATE, 4),
        clip("talk.mov", 3600 * RATE, 4, metadata={"fommctl": {"smoth": True}}),
    )
    said = starts(jobs, run_cli)
    assert said["clip 1"] == "the media of 'gone.mov' is not found"
    assert said["clip 2"] == "the clip 'talk.mov' begins before its media"
    assert said["clip 3"] == "the clip 'talk.mov' is retimed"
    assert "beyond the end of talk.mov" in said["clip 4"]
    assert "unknown field 'smoth'" in said["clip 5"]
    assert run_cli("batch", jobs, *WORDS).code == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.otio", "{", "is not a timeline"),
        ("a.otio", json.dumps({"OTIO_SCHEMA": "Clip.2", "name": "x"}), "is not a timeline"),
        ("a.otio", otio.schema.Timeline("empty").to_json_string(), "contains no clips"),
        ("a.edl", "TITLE: X\n001 A V C nonsense\n", "is not a timeline"),
    ],
)
def test_what_is_no_timeline(name, text, message, folder, run_cli):
    (folder / name).write_text(text)
    done = run_cli("batch", name, *WORDS)
    assert (done.code, message in done.stderr) == (2, True), done.stderr


def test_without_the_extra(folder, run_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    done = run_cli("batch", write(folder / "a.otio", clip("talk.mov", 0, 4)), *WORDS)
    assert (done.code, "fommctl[otio]" in done.stderr) == (5, True)
    assert run_cli("batch", "x.csv", "--handles", "2").code in (2, 3)
