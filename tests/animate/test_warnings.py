"""Warnings of reader and writer reach the user: in text, in JSON, and in the lines of a batch."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import moving_square, truncate, write_clip, write_frames
from PIL import Image
from shots import ASTRONAUT, portrait

import fommctl

NONE = ("--crop", "none", "--precision", "fp32")


def told(run_cli, *arguments) -> tuple[str, list[str]]:
    """Return a run's stderr and the warnings in its JSON, which have the same warnings."""
    result = run_cli("animate", *arguments, "--json")
    assert result.code == 0, result.stderr
    for warning in result.json()["warnings"]:
        assert f"warning: {warning}" in result.stderr
    return result.stderr, result.json()["warnings"]


def test_a_video_that_is_cut_short_and_a_timecode_left_out(run_cli, tmp_path):
    clip = write_clip(
        tmp_path / "a.mov",
        frames=30,
        timecode="01:00:00:00",
        options={"g": "5"},
        container_options={"movflags": "faststart"},
        draw=lambda index: np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8),
    )
    truncate(clip, 0.5)
    _, warnings = told(run_cli, ASTRONAUT, clip, "-o", tmp_path / "out.mp4", *NONE)
    assert any(warning.startswith("a.mov is cut short: only ") for warning in warnings)
    assert "the timecode 01:00:00:00 is left out: only .mov and .mxf hold one" in warnings


def test_numbers_that_are_missing_and_a_size_made_even(run_cli, tmp_path):
    folder = write_frames(tmp_path / "frames", [moving_square(index) for index in range(4)])
    (folder / "00002.png").unlink()
    source = tmp_path / "odd.png"
    Image.open(ASTRONAUT).convert("RGB").resize((321, 321)).save(source)
    crop = ("--crop", "40,40,200", "--driving-crop", "none", "--precision", "fp32")
    _, warnings = told(run_cli, source, folder / "%05d.png", "-o", tmp_path / "out.mp4", *crop)
    assert any("1 number is missing" in warning for warning in warnings)
    assert any("321x321 became 322x322" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("name", "kept"), [("out.mp4", False), ("out.gif", False), ("out.webm", True), ("out.mov", True)]
)
def test_transparency_is_kept_or_its_loss_reported(run_cli, tmp_path, name, kept):
    pixels = np.array(Image.open(ASTRONAUT).convert("RGBA"))
    pixels[:, :100, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    clip = write_clip(tmp_path / "a.mp4", frames=3)
    crop = ("--crop", "150,20,200", "--driving-crop", "none", "--precision", "fp32")
    _, warnings = told(run_cli, tmp_path / "clear.png", clip, "-o", tmp_path / name, *crop)
    lost = [warning for warning in warnings if warning.startswith("the transparency of clear.png is laid over black")]
    assert lost == ([] if kept else [f"{lost[0]}"])
    if name == "out.webm":
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        with av.open(str(tmp_path / name)) as container:
            frame = decoder.decode(next(container.demux(video=0)))[0]
        alpha = frame.to_ndarray(format="rgba")[..., 3]
        assert (alpha[200, 20], alpha[200, 300]) == (0, 255)


def test_quiet_prints_nothing_and_the_json_has_the_warnings(run_cli, tmp_path):
    clip = write_clip(tmp_path / "a.mov", frames=3, timecode="01:00:00:00")
    quiet = run_cli("animate", ASTRONAUT, clip, "-o", tmp_path / "out.mp4", *NONE, "--quiet")
    assert (quiet.code, quiet.stdout, quiet.stderr) == (0, "", "")
    again = run_cli("animate", ASTRONAUT, clip, "-o", tmp_path / "out.mp4", *NONE, "-q", "--json", "--overwrite")
    assert again.stderr == ""
    assert any("timecode" in warning for warning in again.json()["warnings"])


def test_a_batch_reports_the_warnings_of_its_jobs(run_cli, tmp_path):
    portrait(tmp_path / "p.png")
    write_clip(tmp_path / "a.mov", width=256, height=256, frames=3, rate=Fraction(25), timecode="01:00:00:00")
    (tmp_path / "jobs.jsonl").write_text(
        json.dumps({"source": "p.png", "driving": "a.mov", "output": "out.mp4", "crop": "none", "precision": "fp32"})
    )
    result = run_cli("batch", tmp_path / "jobs.jsonl", "--workers", "0")
    assert result.code == 0, result.stderr
    left_out = "the timecode 01:00:00:00 is left out: only .mov and .mxf hold one"
    assert f"warning: out.mp4: {left_out}" in result.stderr
    assert result.stderr.count(left_out) == 1
    assert "timecode" in result.stdout
    assert Path(tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--crop", "none"), ["a.mp4 is 96x54 and is squeezed to 256x256: see --crop"]),
        (("--crop", "400,400,200", "--driving-crop", "0,0,54"), ["--crop reaches beyond astronaut.png (512x512)"]),
        (("--crop", "100,10,200", "--driving-crop", "50,10,54"), ["--driving-crop reaches beyond a.mp4 (96x54)"]),
        (("--crop", "100,10,200", "--driving-crop", "10,0,54"), []),
    ],
)
def test_squeezed_pictures_and_squares_beyond_them_are_reported(run_cli, tmp_path, options, expected):
    clip = write_clip(tmp_path / "a.mp4", width=96, height=54, frames=2)
    _, warnings = told(run_cli, ASTRONAUT, clip, "-o", tmp_path / "out.mp4", "--precision", "fp32", *options)
    assert len(warnings) == len(expected)
    assert all(found.startswith(start) for found, start in zip(warnings, expected, strict=True))


def test_frames_takes_the_middle_of_pictures_of_another_shape():
    animator = fommctl.load(device="cpu", precision="fp32")
    wide = np.zeros((256, 456, 3), np.uint8)
    face = np.array(Image.open(ASTRONAUT).convert("RGB").crop((100, 0, 356, 256)))
    wide[:, 100:356] = face
    # What is outside the square does not matter.
    wide[:, :100], wide[:, 356:] = 255, 40
    squares = list(animator.frames(face, [face]))
    np.testing.assert_array_equal(squares, list(animator.frames(wide, [wide])))
