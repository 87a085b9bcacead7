"""X2Face by the commands: a published file animates, also with several pictures of the source, and the model trains."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import x2face_models
from media_factory import write_frames
from PIL import Image
from shots import ASTRONAUT
from training_runs import train_in_two_goes
from x2face_models import NARROW, SIDE

import fommctl
from fommctl.animate.config import AnimateConfig
from fommctl.animate.inputs import find_inputs
from fommctl.detection.detectors import DetectorCache
from fommctl.media.reader import Clip
from fommctl.media.resampling import resize
from fommctl.networks.grids import to_tensor
from fommctl.presets.sections import Framing

PREPARED = ("--crop", "none", "--device", "cpu", "--precision", "fp32", "--json")
TINY = {
    "backend": "x2face",
    "dataset_params": {"frame_shape": [32, 32, 3]},
    "model_params": {name: {**each, "num_downs": 5} for name, each in NARROW.items()},
    "train_params": {
        "num_epochs": 2,
        "batch_size": 3,
        "lr_generator": 1e-3,
        "optimiser": "adam",
        "momentum": 0.5,
        "ema_decay": 0.9,
    },
}


def picture(seed):
    points = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(points).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


DRIVING = [picture(10 + index) for index in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three pictures of a source, five driving frames, and a model in the published layout."""
    from fommctl.host import load_host

    folder, host = tmp_path_factory.mktemp("x2face"), load_host()
    for number in range(3):
        Image.fromarray(picture(number)).save(folder / f"source{number}.png")
    write_frames(folder / "driving", DRIVING)
    x2face_models.write_published(x2face_models.build(host), host, folder / "x2face_model.pth")
    return folder


def rendered(folder, views):
    """Return the networks' results for the driving frames, (5, H, W, 3), in levels."""
    animator = fommctl.load(folder / "x2face_model.pth", device="cpu", precision="fp32")
    renderer = animator.model.backend.prepare(torch.device("cpu"), "fp32", fast=False)
    context = renderer.encode_source(to_tensor([picture(number) for number in range(views)], renderer.device))
    frames = renderer.render(context, renderer.detect(to_tensor(DRIVING, renderer.device)))
    return frames.permute(0, 2, 3, 1).numpy() * 255


@pytest.mark.parametrize("views", [1, 3])
def test_animate(folder, run_cli, tmp_path, views):
    more = [word for number in range(1, views) for word in ("--view", folder / f"source{number}.png")]
    result = run_cli(
        "animate", folder / "source0.png", folder / "driving", "-o", tmp_path / "out" / "%03d.png",
        "--model", folder / "x2face_model.pth", *more, *PREPARED,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    assert result.json()["motion"] == "absolute"
    written = np.stack([np.asarray(Image.open(path), np.float32) for path in sorted((tmp_path / "out").iterdir())])
    assert np.abs(written - rendered(folder, views)).max() <= 1
    assert np.abs(written[0] - written[4]).max() > 5, "the driving frames make a difference"


def test_python_api_takes_views(folder, tmp_path):
    animator = fommctl.load(folder / "x2face_model.pth", device="cpu", precision="fp32")
    frames = np.stack(list(animator.frames(picture(0), DRIVING, views=[picture(1), folder / "source2.png"])))
    assert np.abs(frames - rendered(folder, 3)).max() <= 1
    result = animator.animate(
        folder / "source0.png", folder / "driving", tmp_path / "a.mkv", crop="none",
        views=[str(folder / "source1.png"), folder / "source2.png"], size=2 * SIDE, smooth=True, keypoints=True,
    )  # fmt: skip
    assert (result.frames, result.width, result.height) == (5, 6 * SIDE, 2 * SIDE)
    assert any("no keypoints" in warning for warning in result.warnings)


def test_what_it_cannot_do(folder, run_cli, tmp_path):
    model = ("--model", folder / "x2face_model.pth")
    inputs = ("animate", folder / "source0.png", folder / "driving", "-o", tmp_path / "a.mkv")
    for words, says in (
        (("--motion", "relative"), "Leave out --motion, or use absolute."),
        (("--best-frame", "auto"), "--best-frame first"),
        (("--view", folder / "source1.png") * 16, "Give fewer --view"),
    ):
        result = run_cli(*inputs, *model, *PREPARED, *words)
        assert result.code == 2
        assert says in result.json()["error"]["hint"]
    assert not (tmp_path / "a.mkv").exists()


def test_export_is_as_published(folder, run_cli, tmp_path):
    result = run_cli("models", "export", folder / "x2face_model.pth", "-o", tmp_path / "again.pth")
    assert result.code == 0, result.stderr
    content = torch.load(tmp_path / "again.pth", weights_only=True)
    wanted = torch.load(folder / "x2face_model.pth", weights_only=True)["state_dict"]
    assert set(wanted) < set(content["state_dict"])
    assert all(content["state_dict"][name].equal(tensor) for name, tensor in wanted.items())


def test_train_resume_and_use(folder, run_cli, tmp_path):
    ended = train_in_two_goes(run_cli, TINY, tmp_path)
    assert ended["steps"] == 4
    assert set(ended["losses"]) == {"photometric"}
    assert 0 < ended["validation_l1"] < 0.5
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2, 3]
    grid = np.asarray(Image.open(sorted((tmp_path / "run" / "pictures").glob("*.png"))[-1]))
    assert grid.shape[1] == 5 * 32, "source, driving, prediction, difference, embedded face"
    shot = run_cli(
        "animate", folder / "source0.png", folder / "driving", "-o", tmp_path / "b.mkv",
        "--model", ended["model"], *PREPARED,
    )  # fmt: skip
    assert shot.code == 0, shot.stderr
    assert (shot.json()["width"], shot.json()["motion"]) == (32, "absolute")


def test_views_are_framed_like_the_source(host, tmp_path):
    """The same face elsewhere in a picture is framed equally."""
    whole = np.asarray(Image.open(ASTRONAUT).convert("RGB"))
    wide = np.ascontiguousarray(whole)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(np.ascontiguousarray(whole[:360, 60:420])).save(tmp_path / "source.png")
    config = AnimateConfig(
        source=tmp_path / "source.png",
        driving=tmp_path / "source.png",
        views=(tmp_path / "wide.png",),
        driving_crop="none",
    )
    shot = find_inputs(
        config, Clip(config.driving), Framing(subject="face", width=0.52), (SIDE, SIDE), DetectorCache(host)
    )
    (view,) = shot.views
    assert view.shape == shot.square.shape == (SIDE, SIDE, 3)
    framed, unframed = (np.abs(each.astype(float) - shot.square).mean() for each in (view, resize(wide, (SIDE, SIDE))))
    assert framed < 15 < 40 < unframed  # the detector's boxes of both differ slightly
    assert config.to_json()["views"] == [str(tmp_path / "wide.png")]
    by_hand = replace(config, crop="40,30,100")
    shot = find_inputs(by_hand, Clip(config.driving), None, (SIDE, SIDE), DetectorCache(host))
    assert shot.views[0].tobytes() == resize(np.ascontiguousarray(wide[30:130, 40:140]), (SIDE, SIDE)).tobytes()
