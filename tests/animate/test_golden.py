"""The published vectors through the Python API and the command line: frames in, frames out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fommctl

GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"
NAMES = ["vox-tiny", "vox-tiny-ac0", "vox-adv-tiny", "mgif-tiny"]
MODES = {
    "absolute": ("--motion", "absolute"),
    "relative": ("--no-adapt-scale",),
    "relative_adapt": (),
}


def files(name):
    return str(GOLDEN / f"{name}.pth.tar"), str(GOLDEN / f"{name}.model_params.yaml")


def pictures(name, key):
    return np.load(GOLDEN / f"{name}.npz")[key].transpose(0, 2, 3, 1)


@pytest.fixture(scope="module", params=NAMES)
def golden(request, tmp_path_factory):
    """Return name, source picture, and driving frames as a folder of PNG files, for each vector."""
    folder = tmp_path_factory.mktemp(request.param)
    Image.fromarray(pictures(request.param, "source")[0]).save(folder / "source.png")
    (folder / "driving").mkdir()
    for index, frame in enumerate(pictures(request.param, "driving")):
        Image.fromarray(frame).save(folder / "driving" / f"{index:03d}.png")
    return request.param, folder


@pytest.mark.parametrize("mode", MODES)
def test_command_line(golden, mode, run_cli, tmp_path):
    name, folder = golden
    model, preset = files(name)
    result = run_cli(
        "animate", folder / "source.png", folder / "driving", "-o", tmp_path / "out" / "%03d.png", "--crop", "none",
        "--model", model, "--preset", preset, "--precision", "fp32", "--json", *MODES[mode],
    )  # fmt: skip
    assert result.code == 0, result.stderr
    expected = np.load(GOLDEN / f"{name}.npz")[f"prediction_{mode}"].transpose(0, 2, 3, 1) * 255
    written = sorted((tmp_path / "out").iterdir())
    assert len(written) == len(expected) == result.json()["frames"]
    for path, frame in zip(written, expected, strict=True):
        difference = np.abs(np.asarray(Image.open(path), np.float32) - frame)
        assert difference.max() <= 1.0, path  # one level, including rounding of the result


def test_frames_are_those_of_the_command(golden):
    name, folder = golden
    model, preset = files(name)
    animator = fommctl.load(model, preset=preset, device="cpu", precision="fp32")
    driving = list(pictures(name, "driving"))
    frames = list(animator.frames(folder / "source.png", iter(driving), adapt_scale=False, batch_size=2))
    expected = np.load(GOLDEN / f"{name}.npz")["prediction_relative"].transpose(0, 2, 3, 1) * 255
    assert len(frames) == len(expected)
    for frame, wanted in zip(frames, expected, strict=True):
        assert frame.dtype == np.uint8
        assert np.abs(frame - wanted).max() <= 1.0
