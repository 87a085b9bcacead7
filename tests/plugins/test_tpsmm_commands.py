"""TPSMM by the commands: a published file animates, is evaluated and exported, and the model trains."""

import json

import numpy as np
import pytest
import torch
import yaml
from media_factory import write_frames
from PIL import Image
from tpsmm_models import TINY, narrow_resnets
from training_runs import SIDE, train_in_two_goes

import fommctl
from fommctl.host import load_host
from fommctl.networks.grids import to_tensor
from fommctl.networks.transfer import movement_scale, relative

PREPARED = ("--crop", "none", "--device", "cpu", "--precision", "fp32", "--json")
MODEL = {**TINY, "dense_motion_params": {**TINY["dense_motion_params"], "num_blocks": 2}}
TRAINED = {
    "backend": "tpsmm",
    "dataset_params": {"frame_shape": [SIDE, SIDE, 3]},
    "model_params": MODEL,
    "train_params": {
        "num_epochs": 2,
        "batch_size": 3,
        "bg_start": 1,
        "perceptual_network": "none",
        "loss_weights": {"perceptual": [0, 0, 0, 0, 0], "pixel": 10},
    },
    "train_avd_params": {"num_epochs": 1, "batch_size": 3},
}


def picture(seed):
    points = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(points).resize((64, 64), Image.Resampling.BICUBIC))


DRIVING = [picture(10 + index) for index in range(4)]


@pytest.fixture(scope="module")
def resnets():
    with narrow_resnets():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, resnets):
    """A source, four driving frames, and a model in the published layout."""
    folder, spec = tmp_path_factory.mktemp("tpsmm"), load_host().find("backend", "tpsmm")
    Image.fromarray(picture(0)).save(folder / "source.png")
    write_frames(folder / "driving", DRIVING)
    torch.manual_seed(0)
    backend = spec.build(spec.schema().model_validate(MODEL))
    for module in backend.avd.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            # A trained network has statistics.
            module.running_mean.uniform_(-0.1, 0.1)
    groups = {name: network.state_dict() for name, network in backend.modules().items()}
    torch.save({**groups, "epoch": 99}, folder / "vox.pth.tar")
    small = {"dataset_params": {"frame_shape": [64, 64, 3]}, "model_params": MODEL}
    (folder / "vox.yaml").write_text(yaml.safe_dump(small), encoding="utf-8")
    return folder


def test_animate_moves_relatively_by_the_ratio_of_sizes(folder, run_cli, tmp_path):
    result = run_cli(
        "animate", folder / "source.png", folder / "driving", "-o", tmp_path / "out" / "%03d.png",
        "--model", folder / "vox.pth.tar", "--preset", folder / "vox.yaml", *PREPARED,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    assert result.json()["motion"] == "relative"
    written = np.stack([np.asarray(Image.open(path), np.float32) for path in sorted((tmp_path / "out").iterdir())])
    animator = fommctl.load(folder / "vox.pth.tar", preset=folder / "vox.yaml", device="cpu", precision="fp32")
    renderer = animator.model.backend.prepare(torch.device("cpu"), "fp32", fast=False)
    context = renderer.encode_source(to_tensor([picture(0)], renderer.device))
    driving = renderer.detect(to_tensor(DRIVING, renderer.device))
    scale = movement_scale(context.motion, driving[:1])
    frames = renderer.render(context, relative(driving, driving[:1], context.motion, scale))
    assert np.abs(written - frames.permute(0, 2, 3, 1).numpy() * 255).max() <= 1


def test_export_is_as_published(folder, run_cli, tmp_path):
    result = run_cli("models", "export", folder / "vox.pth.tar", "-o", tmp_path / "again.pth")
    assert result.code == 0, result.stderr
    content, wanted = (torch.load(path, weights_only=True) for path in (tmp_path / "again.pth", folder / "vox.pth.tar"))
    for group in ("inpainting_network", "dense_motion_network", "kp_detector", "bg_predictor", "avd_network"):
        assert content[group].keys() == wanted[group].keys()
        assert all(content[group][name].equal(tensor) for name, tensor in wanted[group].items())


def test_train_resume_and_use(folder, run_cli, tmp_path):
    ended = train_in_two_goes(run_cli, TRAINED, tmp_path)
    assert ended["steps"] == 4
    assert set(ended["losses"]) == {"pixel", "equivariance_value", "warp_loss", "bg"}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ["bg" in line["losses"] for line in lines] == [False, False, True, True]
    shot = run_cli(
        "animate", folder / "source.png", folder / "driving", "-o", tmp_path / "b.mkv",
        "--model", ended["model"], *PREPARED,
    )  # fmt: skip
    assert shot.code == 0, shot.stderr
    assert shot.json()["width"] == SIDE
    second = run_cli(
        "train", "--stage", "avd", "--preset", tmp_path / "tiny.yaml", "--init-from", ended["model"], "--data",
        tmp_path / "data", "--out", tmp_path / "avd", "--device", "cpu", "--precision", "fp32", "--workers", 0,
        "--json",
    )  # fmt: skip
    assert second.code == 0, second.stderr
    assert set(second.json()["losses"]) == {"rec_kp"}
    moved = run_cli(
        "animate", folder / "source.png", folder / "driving", "-o", tmp_path / "c.mkv", "--motion", "avd",
        "--model", second.json()["model"], *PREPARED,
    )  # fmt: skip
    assert moved.code == 0, moved.stderr
    assert moved.json()["motion"] == "avd"
    unknown = run_cli(
        "train", "--stage", "none", "--preset", tmp_path / "tiny.yaml", "--data", tmp_path / "data", "--json"
    )
    assert unknown.code == 2
    assert "no section 'train_none_params'" in unknown.json()["error"]["message"]
