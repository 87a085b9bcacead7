"""Defaults of `animate`: presets change them, one flag restores all of them, and equal commands give equal files."""

import json

import pytest
from forked_commands import ForkedCommand
from shots import prepared_shot

import fommctl

SETS = ("--set", "animate_params.defaults.smooth=true", "--set", "animate_params.defaults.motion=absolute")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return prepared_shot(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def animate(inputs, run_cli, tmp_path):
    """animate(name, option, ...): returns (bytes of the result, the sidecar)."""

    def run(name, *options):
        out = tmp_path / name
        usual = ("--crop", "none", "--precision", "fp32", "--sidecar")
        result = run_cli("animate", inputs / "portrait.png", inputs / "clip.mp4", "-o", out, *usual, *options)
        assert result.code == 0, result.stderr
        return out.read_bytes(), json.loads(out.with_name(f"{name}.json").read_text())

    return run


def test_equal_commands_at_the_same_time_give_one_file(inputs, tmp_path, isolated):
    """With `--precision auto` and an empty home, each command decides on its own."""
    command = ("animate", inputs / "portrait.png", inputs / "clip.mp4", "--crop", "none", "--json")
    outputs = [tmp_path / f"{number}.mp4" for number in range(2)]
    started = [ForkedCommand(*command, "-o", out) for out in outputs]
    answers = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * len(started), answers
    assert len({json.loads(stdout)["precision"] for stdout, _ in answers}) == 1
    assert len({out.read_bytes() for out in outputs}) == 1
    assert len(list((isolated / "cache").glob("precision-*.json"))) == 1


def test_as_published_is_the_same_whatever_the_preset_says(animate):
    published, sidecar = animate("a.mp4", "--as-published", *SETS)
    by_hand, _ = animate(
        "b.mp4", "--motion", "relative", "--adapt-scale", "--best-frame", "first", "--no-smooth", *SETS,
        "--set", "animate_params.openings=[]",
    )  # fmt: skip
    changed, other = animate("c.mp4", *SETS)
    assert published == by_hand != changed
    options = ("as_published", "motion", "adapt_scale", "best_frame", "smooth", "size")
    assert [sidecar["options"][name] for name in options] == [True, "relative", True, "first", False, None]
    assert [other["options"][name] for name in options] == [False, "absolute", True, *_preset_says(), True, None]


def _preset_says():
    given = fommctl.load(device="cpu", precision="fp32").model.preset.pairs().defaults
    return [(given and given.best_frame) or "first"]


def test_expression_is_of_relative_motion_and_of_models_that_know_openings(animate, inputs, run_cli, tmp_path):
    openings = ("--set", "animate_params.openings=[{keypoints: [0, 1, 11]}, {keypoints: [6, 5]}]")
    once, _ = animate("a.mkv", *openings, "--expression", "1")
    twice, sidecar = animate("b.mkv", *openings, "--expression", "2")
    chosen, _ = animate("c.mkv", *openings, "--set", "animate_params.defaults.expression=2")
    assert once != twice == chosen
    assert sidecar["options"]["expression"] == 2
    files = (
        inputs / "portrait.png",
        inputs / "clip.mp4",
        "-o",
        tmp_path / "d.mkv",
        "--crop",
        "none",
        "--expression",
        "2",
    )
    absolute = run_cli("animate", *files, *openings, "--motion", "absolute")
    assert (absolute.code, absolute.stderr.splitlines()[0]) == (
        2,
        "error: --expression needs relative motion, not --motion absolute",
    )
    unknown = run_cli("animate", *files, "--set", "animate_params.openings=[]")
    assert (unknown.code, unknown.stderr.splitlines()[0]) == (
        2,
        "error: --expression needs a model with keypoints on mouth and eyelids",
    )
    wrong = run_cli("animate", *files, "--set", "animate_params.openings=[{keypoints: [0, 99]}]")
    assert (wrong.code, wrong.stderr.splitlines()[0]) == (
        2,
        "error: animate_params.openings names keypoint 99, the model has 25",
    )


@pytest.mark.parametrize("options", [(), SETS, ("--as-published", *SETS)])
def test_a_sidecar_renders_again_what_the_preset_chose(animate, options, run_cli, tmp_path):
    first, _ = animate("a.mp4", *options)
    again = run_cli("animate", "--from-sidecar", tmp_path / "a.mp4.json", "-o", tmp_path / "again.mp4", "--json")
    assert again.code == 0, again.stderr
    assert again.json()["reproduction"]["identical"]
    assert (tmp_path / "again.mp4").read_bytes() == first


def test_python_takes_the_defaults_of_the_preset_too(inputs):
    from fommctl.media.images import read_picture

    picture = read_picture(inputs / "portrait.png").pixels
    frames = [picture, picture[:, ::-1].copy(), picture]
    smooth = fommctl.load(device="cpu", precision="fp32", sets=[SETS[1], SETS[3]])
    options = {"motion": "absolute", "smooth": True}
    by_preset = list(smooth.frames(picture, frames))
    by_hand = list(fommctl.load(device="cpu", precision="fp32").frames(picture, frames, **options))
    assert all((one == other).all() for one, other in zip(by_preset, by_hand, strict=True))
