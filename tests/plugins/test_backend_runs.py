"""Training runs of Monkey-Net and X2Face: killed, resumed, and started from another model's weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from monkeynet_models import narrow_params
from training_runs import SIDE, assert_same_checkpoint, assert_same_model, config, lines, train
from x2face_models import NARROW

from fommctl.host import load_host
from fommctl.models.checkpoint import read_checkpoint
from fommctl.models.loading import load_model
from fommctl.train.config import TrainConfig
from fommctl.train.run_folder import step_checkpoint

STEPS = 4
LEARNING = {
    "num_epochs": 2,
    "batch_size": 3,
    "schedule": "cosine",
    "warmup_steps": 1,
    "ema_decay": 0.5,
    "checkpoint_every_steps": 2,
}
BACKENDS = {
    "monkeynet": {
        "model_params": narrow_params(),
        "train_params": {"lr": 1e-3, "loss_weights": {"reconstruction": [10, 10, 1]}, "detach_kp_discriminator": False},
    },
    "x2face": {
        "model_params": {name: {**each, "num_downs": 5} for name, each in NARROW.items()},
        "train_params": {"lr_generator": 1e-2},  # gradient descent with momentum has a state too
    },
}
pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(BaseException):
    """Ends a run like a kill: nothing more is written to files."""


def write_preset(folder: Path, name: str, **learning: object) -> str:
    own = BACKENDS[name]
    preset = {
        "backend": name,
        "dataset_params": {"frame_shape": [SIDE, SIDE, 3]},
        "model_params": own["model_params"],
        "train_params": {**LEARNING, **own["train_params"], **learning},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(preset))
    return str(path)


def own_config(data: Path, out: Path, preset: str, **options: str) -> TrainConfig:
    """Return the configuration without the settings of the preset smoke."""
    return replace(config(data, out, preset=preset, **options), sets=())


@pytest.fixture(scope="module", params=BACKENDS)
def whole(request, training_clips, tmp_path_factory):
    """Return the name of the backend and the folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp(request.param)
    train(own_config(training_clips, folder / "run", write_preset(folder, request.param)), load_host())
    return request.param, folder / "run"


def test_a_killed_run_continues_as_if_nothing_had_happened(whole, training_clips, tmp_path, host):
    name, uninterrupted = whole
    own = own_config(training_clips, tmp_path / "run", write_preset(tmp_path, name), resume="auto")

    def kill(step: int) -> None:
        if step == STEPS - 1:
            raise Killed

    with pytest.raises(Killed):
        train(own, host, kill)
    train(own, host)
    assert lines(own.out) == lines(uninterrupted)
    assert len(lines(own.out)) == STEPS
    assert_same_checkpoint(step_checkpoint(own.out, STEPS), step_checkpoint(uninterrupted, STEPS))
    assert_same_model(own.out / "model.safetensors", uninterrupted / "model.safetensors")


def test_a_run_begins_with_the_weights_of_another(whole, training_clips, tmp_path, host):
    """A run with learning rate 0 ends with the same weights, except for BatchNorm's statistics."""
    name, before = whole
    still = {"x2face": {"lr_generator": 0.0}, "monkeynet": {"lr": 0.0}}[name]
    preset = write_preset(tmp_path, name, ema_decay=None, **still)
    own = own_config(training_clips, tmp_path / "run", preset, init_from=str(before / "model.safetensors"))
    train(own, host)
    wanted = read_checkpoint(before / "model.safetensors").groups
    for group, network in load_model(str(own.out / "model.safetensors"), host).backend.modules().items():
        if group in wanted:
            assert all(torch.equal(wanted[group][key], weights.detach()) for key, weights in network.named_parameters())
