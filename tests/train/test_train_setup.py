"""Before the first step: configurations that are rejected, initial weights, and events."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import training_runs
from distributions import LISTENER
from media_factory import write_frames
from training_runs import MILESTONES, SMALL, config, lines, names, train

from fommctl.api.specs import BackendSpec
from fommctl.errors import FommctlError, InputError, MissingError, ModelError, UsageError
from fommctl.host import Host, load_host
from fommctl.models.checkpoint import read_checkpoint, write_native
from fommctl.presets.preset import load_preset
from fommctl.train.run_folder import step_checkpoint
from fommctl.train.setup import initialise

STILL = """
    from pydantic import BaseModel
    from torch import nn

    from fommctl.api import BackendSpec, hookimpl


    class Params(BaseModel):
        size: int = 1


    class Still:
        "Animates, or would, but has no training step."

        def __init__(self, params):
            self.net = nn.Linear(params.size, 1)

        def modules(self):
            return {"net": self.net}

        def needed_groups(self):
            return ["net"]

        def prepare(self, device, precision, *, fast=True, scale=1.0):
            raise NotImplementedError


    @hookimpl
    def fommctl_backends():
        yield BackendSpec(
            name="still", summary="", schema=lambda: Params, recognises=lambda params: "size" in params, build=Still,
        )
"""
FAILS = """
    def training(self, params, perceptual):
        raise RuntimeError("no idea")


    Still.training = training
"""
BLIND = """
    from fommctl.api import DetectorSpec, hookimpl


    @hookimpl
    def fommctl_detectors():
        yield DetectorSpec(
            name="blind", summary="", subject="face", build=object, ready=lambda: "the package eyes is absent",
            landmarks=5,
        )
        yield DetectorSpec(name="sparse", summary="", subject="face", build=object, landmarks=2)
"""
PLAIN_PRESET = """
backend: still
dataset_params: {frame_shape: [32, 32, 3]}
model_params: {size: 2}
train_params: {num_epochs: 1, batch_size: 2}
"""
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(training_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, without an average."""
    out = tmp_path_factory.mktemp("trained") / "run"
    train(config(training_clips, out, sets=MILESTONES, max_steps=2), load_host())
    return out


def refused(kind: type[FommctlError], out: Path, act: Callable[[], object]) -> FommctlError:
    """Assert that the run is rejected without creating a folder, and return the error."""
    with pytest.raises(kind) as caught:
        act()
    assert not out.exists()
    assert not out.parent.exists()
    return caught.value


def test_data_that_is_not_there_or_holds_no_clip(training_clips: Path, tmp_path: Path, host: Host) -> None:
    out = tmp_path / "runs" / "one"
    error = refused(InputError, out, lambda: train(config(tmp_path / "nowhere", out), host))
    assert (error.exit_code, "is not a folder" in error.message) == (3, True)
    (tmp_path / "empty").mkdir()
    error = refused(InputError, out, lambda: train(config(tmp_path / "empty", out), host))
    assert (error.exit_code, "contains no readable clips" in error.message) == (3, True)
    write_frames(tmp_path / "stills" / "stills", [training_runs.moving_square(0)])
    error = refused(InputError, out, lambda: train(config(tmp_path / "stills", out), host))
    assert "no clip of more than one frame" in error.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": ("train_params.batch=2",)}, "unknown key"),
        ({"sets": ("train_params.batch_size=100",)}, "a batch of 100 is larger than an epoch of 6 pairs"),
        ({"device": "gpu"}, "unknown device"),
    ],
)
def test_wrong_usage_leaves_nothing(
    options: dict[str, object], message: str, training_clips: Path, tmp_path: Path, host: Host
) -> None:
    out = tmp_path / "runs" / "one"
    error = refused(UsageError, out, lambda: train(config(training_clips, out, **options), host))  # type: ignore[arg-type]
    assert error.exit_code == 2
    assert message in error.message


def test_a_perceptual_network_that_is_not_here_says_what_works_offline(
    training_clips: Path, tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    own = config(
        training_clips, tmp_path / "runs" / "one", sets=("train_params.loss_weights.perceptual=[1, 1, 1, 1, 1]",)
    )
    error = refused(MissingError, own.out, lambda: train(own, host))
    assert error.exit_code == 5
    assert "efficientnet-lite0" in str(error.hint)


def test_a_backend_without_a_training_step(
    training_clips: Path, tmp_path: Path, third_party: Callable[..., None]
) -> None:
    third_party(STILL, name="still-life", entry="still-life")
    preset = tmp_path / "still.yaml"
    preset.write_text(PLAIN_PRESET)
    own = config(training_clips, tmp_path / "runs" / "one", preset=str(preset))
    own = training_runs.replace(own, sets=())
    error = refused(UsageError, own.out, lambda: train(own, load_host()))
    assert (error.exit_code, error.message) == (2, "the backend 'still' cannot be trained")


def test_what_fails_in_a_plugin_is_called_its_failure(
    training_clips: Path, tmp_path: Path, third_party: Callable[..., None], run_cli: Callable[..., Any]
) -> None:
    third_party(f"{STILL}{FAILS}", name="still-life", entry="still-life")
    preset = tmp_path / "still.yaml"
    preset.write_text(PLAIN_PRESET)
    result = run_cli(
        "train", "--preset", preset, "--data", training_clips, "--out", tmp_path / "run", "--device", "cpu"
    )
    assert result.code == 1
    assert result.stderr.splitlines()[0].endswith(
        "plugin 'still-life' (still_life) of still-life failed: RuntimeError: no idea"
    )


def test_a_detector_that_is_not_ready(training_clips: Path, tmp_path: Path, third_party: Callable[..., None]) -> None:
    third_party(BLIND, name="blind", entry="blind")
    host = load_host()
    out = tmp_path / "runs" / "one"

    def start(*sets: str) -> None:
        train(config(training_clips, out, sets=sets), host)

    guided = ("train_params.guidance={detector: blind, points: [[0], [1, 2]]}", "train_params.loss_weights.guidance=1")
    error = refused(MissingError, out, lambda: start(*guided))
    assert error.exit_code == 5
    assert "'blind' that guides the training is not ready: the package eyes is absent" in error.message
    without = "train without: --set train_params.loss_weights.guidance=0"
    assert str(error.hint).endswith(without)
    expressions = "dataset_params.expressions={fraction: 0.5, candidates: 2, distances: [[0, 1]]}"
    error = refused(MissingError, out, lambda: start(*guided, expressions))
    assert str(error.hint).endswith(f"{without} --set dataset_params.expressions=null")
    guided = ("train_params.guidance={detector: sparse, points: [[0], [1, 2]]}", "train_params.loss_weights.focus=1")
    error = refused(UsageError, out, lambda: start(*guided))
    assert "gives 2 landmarks, number 2 is asked for" in error.message
    guided = ("train_params.guidance={detector: sparse, points: [[0]]}", "train_params.loss_weights.focus=1")
    error = refused(UsageError, out, lambda: start(*guided, "train_params.guidance.focus_points=[[1, 3]]"))
    assert "number 3 is asked for" in error.message
    assert error.hint == "Correct train_params.guidance.focus_points."
    expressive = "dataset_params.expressions={fraction: 1, distances: [[0, 4]]}"
    error = refused(UsageError, out, lambda: start(*guided, expressive))
    assert error.hint == "Correct dataset_params.expressions.distances."
    error = refused(UsageError, out, lambda: start(expressive))
    assert "expressions needs the detector of train_params.guidance" in error.message


def test_a_run_starts_from_another_model_and_reports_the_weights_used(
    training_clips: Path, trained: Path, tmp_path: Path, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """Also with --resume auto if there is no run yet."""
    sets = ("model_params.common_params.num_kp=4", "train_params.lr_generator=0", *MILESTONES)
    own = config(
        training_clips,
        tmp_path / "run",
        sets=sets,
        max_steps=1,
        resume="auto",
        init_from=str(step_checkpoint(trained, 2)),
    )
    train(own, host)
    (told,) = [record.getMessage() for record in caplog.records if "tensors taken" in record.getMessage()]
    assert told.startswith(f"{step_checkpoint(trained, 2)}: ")
    # Tensors that depend on the number of keypoints, by name.
    anew = told.partition("these start anew: ")[2].split(", ")
    assert {"kp_detector/kp.weight", "kp_detector/kp.bias", "generator/dense_motion_network.mask.weight"} <= set(anew)
    assert not [name for name in anew if name.startswith("discriminator")]
    before, after = (
        read_checkpoint(step_checkpoint(out, n)).groups["generator"] for out, n in ((trained, 2), (own.out, 1))
    )
    assert torch.equal(after["final.weight"], before["final.weight"])
    caplog.clear()
    train(training_runs.replace(own, max_steps=2), host)
    assert "tensors taken" not in caplog.text


def build(host: Host, *sets: str):
    spec: BackendSpec = host.find("backend", "fomm")
    return spec.build(load_preset("smoke", host, sets=(*SMALL, *sets)).model_params)


def test_statistics_of_batch_norm_come_along(trained: Path, host: Host) -> None:
    backend = build(host)
    taken = initialise(backend, host.backends["fomm"], str(trained / "model.safetensors"), host)
    given = read_checkpoint(trained / "model.safetensors").groups
    for group, tensors in given.items():
        own = backend.modules()[group].state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in tensors.items())
    statistics = [name for name in taken.taken if name.endswith("running_var")]
    assert statistics
    assert not torch.equal(given["generator"]["first.norm.running_var"], torch.ones(4))
    # The finished model has no discriminator: it is reported as one, not tensor by tensor.
    assert (
        str(taken)
        == f"{len(taken.taken)} of {len(taken.taken + taken.left)} tensors taken; these start anew: discriminator"
    )


def test_a_model_of_which_no_weight_fits_is_refused(
    training_clips: Path, trained: Path, tmp_path: Path, host: Host
) -> None:
    """Counters and some biases fit any network."""
    given = read_checkpoint(trained / "model.safetensors").groups
    narrow = {g: {n: t if t.dim() < 2 else t[:, :1] for n, t in tensors.items()} for g, tensors in given.items()}
    write_native(tmp_path / "narrow.safetensors", narrow, {"backend": "fomm"})
    for model, kind in (
        (tmp_path / "narrow.safetensors", "no weight of"),
        (tmp_path / "none.safetensors", "no model file"),
    ):
        own = config(training_clips, tmp_path / "runs" / "one", init_from=str(model))
        error = refused(ModelError, own.out, lambda own=own: train(own, host))  # type: ignore[misc]
        assert error.exit_code == 4
        assert kind in error.message


def test_a_checkpoint_of_other_networks_is_refused(
    training_clips: Path, trained: Path, tmp_path: Path, host: Host
) -> None:
    sets = ("model_params.common_params.num_kp=4",)
    own = config(training_clips, tmp_path / "runs" / "one", sets=sets, resume=str(trained))
    error = refused(ModelError, own.out, lambda: train(own, host))
    assert (error.exit_code, "does not fit this preset" in error.message) == (4, True)
    error = refused(InputError, own.out, lambda: train(training_runs.replace(own, resume=str(tmp_path / "no")), host))
    assert "there is no checkpoint" in error.message


def test_plugins_hear_of_the_start_and_of_the_end(
    training_clips: Path, tmp_path: Path, third_party: Callable[..., None]
) -> None:
    third_party(LISTENER, name="train-listener", entry="train-listener")
    own = config(training_clips, tmp_path / "run", sets=MILESTONES, max_steps=1)
    result = train(own, load_host())
    started, finished = sys.modules["train_listener"].heard
    assert started == ("started", "train", {"config": own.to_json(), "first_step": 0})
    assert started[2]["config"]["data"] == str(training_clips)
    assert finished == ("finished", "train", result.to_json())
    assert finished[2]["losses"] == lines(own.out)[0]["losses"]
    assert names(own.out / "checkpoints") == ["best.pt", "step-00000001.pt"]
