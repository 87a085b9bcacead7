"""A video as source: each of its frames is moved by the driving frame at the same time, to the end of the shorter
one."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import write_frames
from PIL import Image
from shots import face_clip
from written_media import frames as frames_of

import fommctl
from fommctl.media.probe import probe
from fommctl.media.reader import Reader

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = {"detail": False}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A talking head of 9 frames at 25 per second as driving video, and another of 6 frames as source."""
    folder = tmp_path_factory.mktemp("films")
    face_clip(folder / "driving.mp4", count=9, rate=Fraction(25))
    face_clip(folder / "source.mkv", count=6, rate=Fraction(25))
    return folder


def pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


def own(film: Path) -> list[np.ndarray]:
    with Reader(film) as reader:
        return [frame.pixels for frame in reader]


def test_each_frame_is_that_of_its_picture_as_a_still(animator, films, tmp_path):
    animator.animate(
        films / "source.mkv", films / "driving.mp4", tmp_path / "film" / "%03d.png", source_video=True, crop="none",
        driving_crop="auto", **OPTIONS,
    )  # fmt: skip
    found = pictures(tmp_path / "film")
    assert len(found) == 6
    write_frames(tmp_path / "stills", own(films / "source.mkv"))
    stills = sorted((tmp_path / "stills").iterdir())
    for number in (0, 4):
        animator.animate(
            stills[number], films / "driving.mp4", tmp_path / str(number) / "%03d.png", crop="none",
            driving_crop="auto", adapt_scale=False, frames=f"{number + 1}-{number + 1}", **OPTIONS,
        )  # fmt: skip
    animator.animate(
        films / "source.mkv", films / "driving.mp4", tmp_path / "plain" / "%03d.png", source_video=True, crop="none",
        driving_crop="auto", adapt_scale=False, frames="1-5", **OPTIONS,
    )  # fmt: skip
    plain = pictures(tmp_path / "plain")
    for number in (0, 4):
        np.testing.assert_array_equal(plain[number], pictures(tmp_path / str(number))[0])


def test_parts_equal_the_whole_and_a_motion_file_drives(animator, films, tmp_path):
    common = {"source_video": True, **OPTIONS}
    motion = tmp_path / "take.motion"
    animator.animate(
        films / "source.mkv", films / "driving.mp4", tmp_path / "whole" / "%03d.png", motion_out=motion, **common
    )
    whole = pictures(tmp_path / "whole")
    assert len(fommctl.Motion.load(motion)) >= 6
    animator.animate(films / "source.mkv", motion, tmp_path / "part" / "%03d.png", frames="4-9", **common)
    np.testing.assert_array_equal(pictures(tmp_path / "part"), whole[3:])


def test_the_rest_of_each_picture_is_the_source(animator, films, tmp_path):
    animator.animate(
        films / "source.mkv", films / "driving.mp4", tmp_path / "film" / "%03d.png", source_video=True, **OPTIONS
    )
    found, source = pictures(tmp_path / "film"), np.stack(own(films / "source.mkv"))
    assert found.shape == source.shape
    edge = np.s_[:, :4]
    np.testing.assert_array_equal(found[edge], source[edge])
    assert (found != source).any(axis=(1, 2, 3)).all()


def test_a_source_with_another_rate_is_held_and_the_sound_ends_with_it(animator, tmp_path):
    face_clip(tmp_path / "driving.mp4", count=20, rate=Fraction(25))
    face_clip(tmp_path / "slow.mkv", count=4, rate=Fraction(10))
    result = animator.animate(
        tmp_path / "slow.mkv", tmp_path / "driving.mp4", tmp_path / "out.mkv", source_video=True, crop="none",
        driving_crop="auto", adapt_scale=False, **OPTIONS,
    )  # fmt: skip
    assert result.frames == 10
    info = probe(tmp_path / "out.mkv")
    assert info.duration == Fraction(4, 10)


def test_the_command_and_its_sidecar(films, run_cli, tmp_path):
    out = tmp_path / "a.mp4"
    first = run_cli(
        "animate",
        films / "source.mkv",
        films / "driving.mp4",
        "-o",
        out,
        "--source-video",
        "--sidecar",
        "--json",
        "--device",
        "cpu",
    )
    assert first.code == 0, first.stderr
    assert json.loads(first.stdout)["frames"] == 6
    again = run_cli("animate", "--from-sidecar", f"{out}.json", "-o", tmp_path / "b.mp4", "--json", "--device", "cpu")
    assert again.code == 0, again.stderr
    assert [frame.tobytes() for frame in frames_of(tmp_path / "b.mp4")] == [frame.tobytes() for frame in frames_of(out)]


def test_a_batch_looks_at_the_source_as_at_a_video(films, run_cli, tmp_path):
    write_frames(tmp_path / "frames", own(films / "source.mkv")[:2])
    Image.new("RGB", (64, 64)).save(tmp_path / "still.png")
    job = {"driving": str(films / "driving.mp4"), "source_video": True}
    jobs = [{**job, "source": name, "output": f"{name}.mkv"} for name in ("frames", "still.png")]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    planned = run_cli("batch", tmp_path / "jobs.jsonl", "--dry-run", "--json", "--keep-going", "--device", "cpu")
    rows = planned.json()["plan"]
    assert [row["runs"] for row in rows] == [True, False]
    assert "still.png is one picture" in rows[1]["reason"]
