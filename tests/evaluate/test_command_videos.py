"""The side-by-side videos of `fommctl evaluate`: their content, and that they are kept."""

import numpy as np
import pytest
from command_line import run_inside
from evaluation_data import write_clips, write_model
from written_media import frames, track

from fommctl.host import load_host


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips and two models; read-only."""
    folder = tmp_path_factory.mktemp("videos")
    write_clips(folder / "data")
    for seed, name in enumerate(("a", "b")):
        write_model(folder / f"{name}.safetensors", load_host(), seed)
    return folder


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """Clips with true keypoints; read-only."""
    data = tmp_path_factory.mktemp("synthetic") / "data"
    made = run_inside(
        "preprocess", "synthetic", "-o", data, "--size", "64", "--format", "png", "--limit", "2", "--workers", "0"
    )
    assert made.code == 0, made.stderr
    return data


def test_side_by_side_videos(folder, run_cli, tmp_path):
    out = tmp_path / "out"
    command = (
        "evaluate", "--models", f"{folder / 'a.safetensors'},{folder / 'b.safetensors'}", "--data", folder / "data",
        "--metrics", "psnr", "-o", out, "--workers", "0", "--device", "cpu", "--json",
    )  # fmt: skip
    result = run_cli(*command)
    assert result.code == 0, result.stderr
    videos = {path.stem: path for path in (out / "videos").glob("*.webm")}
    assert sorted(videos) == ["person0#0", "person1#0", "person2#0"]
    video = track(videos["person1#0"])
    # Source, truth and both models, enlarged to be visible.
    assert (video.codec, len(video.times)) == ("vp9", 20)
    assert "data:video/webm;base64," in (out / "report.html").read_text()
    before = {path: path.stat().st_mtime_ns for path in videos.values()}
    run_cli(*command)
    assert {path: path.stat().st_mtime_ns for path in videos.values()} == before


NONE_DRAWN = "in the truth every model sees others, and none are drawn there"


@pytest.mark.parametrize(
    ("models", "options", "drawn"),
    [("a", (), True), ("a,b", (), False), ("a,b", ("--metrics", "akd", "--keypoints", "true"), True)],
)
def test_the_truth_of_several_models_shows_no_points_of_one_of_them(
    folder, synthetic, run_cli, tmp_path, models, options, drawn
):
    out = tmp_path / "out"
    result = run_cli(
        "evaluate", "--models", ",".join(str(folder / f"{name}.safetensors") for name in models.split(",")),
        "--data", synthetic, "--split", "all", "--max-clips", "1", "--max-frames", "3", "-o", out,
        "--workers", "0", "--device", "cpu", *(options or ("--metrics", "psnr")),
    )  # fmt: skip
    assert result.code == 0, result.stderr
    (video,) = (out / "videos").rglob("*.webm")
    panels = np.split(frames(video)[0], 2 + len(models.split(",")), axis=1)
    # The source is the first true frame, and its points are never drawn.
    difference = np.abs(panels[0].astype(int) - panels[1]).max()
    assert (difference > 100) == drawn
    text = " ".join((out / "report.html").read_text().split())
    assert (NONE_DRAWN in text) == (not drawn)
