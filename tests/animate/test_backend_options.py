"""Options of a model's family, -O NAME=VALUE, are read alike from the command line, job files, Python and sidecars."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from media_factory import moving_square, write_frames
from PIL import Image

import fommctl
from fommctl.errors import UsageError
from fommctl.host import load_host
from fommctl.models.checkpoint import write_native
from fommctl.options import backend_options
from fommctl.presets.preset import load_preset
from fommctl_liveportrait.fast import FastRenderer

PREPARED = ("--crop", "none", "--device", "cpu", "--precision", "fp32")
STILL = ("-O", "multiplier=0", "-O", "stitching=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A source, two driving frames, and small LivePortrait networks with random weights."""
    folder, host = tmp_path_factory.mktemp("options"), load_host()
    preset = load_preset("small-liveportrait", host)
    torch.manual_seed(0)
    networks = host.backends["liveportrait"].build(preset.model_params).modules()
    groups = {name: module.state_dict() for name, module in networks.items()}
    write_native(folder / "portrait.safetensors", groups, {"backend": "liveportrait", "preset": preset.text()})
    Image.fromarray(moving_square(0, 64, 64)).save(folder / "source.png")
    write_frames(folder / "driving", [moving_square(index, 64, 64) for index in (0, 12)])
    return folder


def read(path):
    return [np.asarray(Image.open(each)).astype(int) for each in sorted(path.glob("*.png"))]


def test_the_command_and_its_sidecar(folder, run_cli, tmp_path):
    words = (
        "animate",
        folder / "source.png",
        folder / "driving",
        "--model",
        folder / "portrait.safetensors",
        *PREPARED,
    )
    for name, options in (("moving", ()), ("still", STILL)):
        (tmp_path / name).mkdir()
        result = run_cli(*words, *options, "-o", tmp_path / name / "%02d.png", "--sidecar", "--motion", "absolute")
        assert result.code == 0, result.stderr
    moving, still = read(tmp_path / "moving"), read(tmp_path / "still")
    assert np.abs(still[0] - still[1]).max() <= 1
    assert np.abs(moving[0] - moving[1]).max() > 1
    (sidecar,) = tmp_path.rglob("still/*.json") or tmp_path.rglob("still*.json")
    assert json.loads(sidecar.read_text())["options"]["options"] == ["multiplier=0", "stitching=false"]
    again = run_cli("animate", "--from-sidecar", sidecar, "-o", tmp_path / "again" / "%02d.png", "--json")
    assert again.code == 0, again.stdout
    assert again.json()["reproduction"]["identical"]


def test_unknown_and_wrong_options_are_reported_at_once(folder, run_cli):
    words = ("animate", folder / "source.png", folder / "driving", *PREPARED, "-o", folder / "no.mkv")
    result = run_cli(*words, "--model", folder / "portrait.safetensors", "-O", "multiplyer=2", "-O", "scale")
    assert result.code == 2
    assert "liveportrait models have no option 'multiplyer' (did you mean 'multiplier'?)" in result.stderr
    assert "-O scale has no value. Write -O NAME=VALUE." in result.stderr
    result = run_cli(*words, "-O", "multiplier=2")
    assert result.stderr == "error: fomm models have no option 'multiplier'\nhint: Leave out -O.\n"
    assert not (folder / "no.mkv").exists()


def test_python_takes_a_mapping(folder):
    animator = fommctl.load(folder / "portrait.safetensors", device="cpu", precision="fp32")
    frames = [moving_square(index, 64, 64) for index in (0, 12)]
    options = {"multiplier": 0.0, "stitching": False}
    first, second = animator.frames(folder / "source.png", frames, motion="absolute", options=options)
    assert np.abs(first.astype(int) - second).max() <= 1
    with pytest.raises(UsageError, match="-O multiplier cannot be"):
        list(animator.frames(folder / "source.png", frames, options={"multiplier": 9.0}))


class Dimmed:
    """A renderer whose frames have the brightness given by an option."""

    def __init__(self, renderer, options):
        self._renderer, self._options = renderer, options

    def __getattr__(self, name):
        return getattr(self._renderer, name)

    def render(self, context, motion):
        return self._renderer.render(context, motion) * self._options.multiplier


def test_they_reach_a_renderer_that_asks_for_them(folder, monkeypatch):
    monkeypatch.setattr(FastRenderer, "with_options", lambda self, options: Dimmed(self, options), raising=False)
    animator = fommctl.load(folder / "portrait.safetensors", device="cpu", precision="fp32")
    frame = moving_square(0, 64, 64)
    (dark,) = animator.frames(folder / "source.png", [frame], options={"multiplier": 0})
    assert not dark.any()
    (bright,) = animator.frames(folder / "source.png", [frame], options={"multiplier": 1})
    assert bright.any()
    animator.animate(
        folder / "source.png", folder / "driving", folder / "dark" / "%d.png", crop="none", options={"multiplier": 0}
    )
    assert not any(picture.any() for picture in read(folder / "dark"))


def test_a_renderer_may_see_when_a_driving_frame_is_shown(folder, monkeypatch):
    seen = []

    def detect_driving(renderer, frames, moments):
        assert len(frames) == len(moments)
        seen.extend((moment.number, moment.time, moment.present) for moment in moments)
        return renderer.detect(frames)

    monkeypatch.setattr(FastRenderer, "detect_driving", detect_driving, raising=False)
    animator = fommctl.load(folder / "portrait.safetensors", device="cpu", precision="fp32")
    animator.animate(folder / "source.png", folder / "driving", folder / "seen" / "%d.png", crop="none")
    assert seen == [(1, 0, True), (2, Fraction(1, 25), True)]


def test_a_batch_takes_them_as_a_field(folder, run_cli, tmp_path):
    job = {"source": str(folder / "source.png"), "driving": str(folder / "driving"), "output": "one.mkv"}
    jobs = tmp_path / "jobs.jsonl"
    words = ("batch", jobs, "--model", folder / "portrait.safetensors", "--device", "cpu", "--default", "crop=none")
    jobs.write_text(json.dumps({**job, "options": {"multiplier": 0.5}}))
    result = run_cli(*words, "--json")
    assert result.code == 0, result.stdout
    assert result.json()["counts"]["done"] == 1
    jobs.write_text(json.dumps({**job, "options": ["multiplier=0.5"]}))
    assert run_cli(*words, "--json").json()["counts"]["kept"] == 1
    jobs.write_text(json.dumps({**job, "options": {"multiplier": 0.25}}))
    assert run_cli(*words, "--json").json()["counts"]["done"] == 1
    jobs.write_text(json.dumps({**job, "options": {"size": 2}}))
    assert "liveportrait models have no option 'size'" in run_cli(*words).stderr
    jobs.write_text(json.dumps(job))
    assert run_cli(*words, "-O", "multiplier=0.25", "--json").json()["counts"]["kept"] == 1


def test_help_lists_them_beside_a_preset_or_a_model(folder, run_cli):
    for words in (("--preset", "small-liveportrait"), ("--model", folder / "portrait.safetensors")):
        text = run_cli("animate", *words, "--help").stdout
        assert "Options of liveportrait" in text
        assert "-O friendly" in text
    assert "Options of" not in run_cli("animate", "--preset", "vox", "--help").stdout
    shown = run_cli("plugins", "show", "liveportrait", "--json").json()["plugins"][0]
    assert shown["options"]["liveportrait"]["multiplier"] == {
        "type": "a number",
        "default": "1.0",
        "help": "Factor of all motion.",
    }


def test_values_are_read_from_text():
    cls = load_host().backends["liveportrait"].options()
    chosen = backend_options(cls, ["eyes-open=0.3", "region = pose:0.5,lips", "neutral=yes"], "liveportrait")
    assert (chosen.eyes_open, chosen.regions, chosen.neutral) == (0.3, {"pose": 0.5, "lips": 1.0}, True)
    with pytest.raises(UsageError, match="-O region cannot be 'hair'"):
        backend_options(cls, ["region=hair"], "liveportrait")
