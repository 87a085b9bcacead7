"""Monkey-Net's training step: its losses, their gradients, and the published schedule."""

from pathlib import Path

import pytest
import torch
from monkeynet_models import narrow_params

from fommctl.api.testing import pictures
from fommctl.api.testing_backend import check_training
from fommctl.api.training import TrainingBatch
from fommctl.errors import UsageError
from fommctl.networks.grids import to_tensor
from fommctl.networks.losses import ThinPlateTransform
from fommctl.presets.preset import load_preset
from fommctl_monkeynet.schema import TrainParams

BASE = {"num_epochs": 1, "batch_size": 2, "loss_weights": {"reconstruction": [10, 10, 1]}}


@pytest.fixture
def spec(host):
    return host.find("backend", "monkeynet")


def params(**changes):
    weights = {**BASE["loss_weights"], **changes.pop("loss_weights", {})}
    return TrainParams.model_validate({**BASE, "loss_weights": weights, **changes})


def batch():
    random = torch.Generator().manual_seed(1)
    source, driving = (torch.rand(2, 3, 32, 32, generator=random) for _ in range(2))
    transform = ThinPlateTransform.random(2, sigma_affine=0.05, sigma_tps=0.005, points_tps=5, generator=random)
    return TrainingBatch(source, driving, transform)


def built(spec, own, **model_changes):
    torch.manual_seed(0)
    backend = spec.build(spec.schema().model_validate({**narrow_params(), **model_changes}))
    return backend, backend.training(own, None)


@pytest.mark.parametrize("detach", [True, False])
def test_the_contract(spec, detach):
    own = params(detach_kp_discriminator=detach, loss_weights={"reconstruction_deformed": 10}).model_dump()
    check_training(spec, narrow_params(), own, (32, 32, 3))


def test_losses_are_the_published_ones(spec):
    """The expected values are recomputed from the discriminator's maps, in training mode as in the step."""
    own, pairs = (
        params(loss_weights={"reconstruction_deformed": 5, "generator_gan": 2, "discriminator_gan": 3}),
        batch(),
    )
    backend, phases = built(spec, own)
    for phase in phases:
        phase.module.train()
    result = phases[0].module(pairs, None)
    judged = phases[1].module(pairs, result.generated)
    painted, source, driving = result.generated
    discriminator = backend.modules()["discriminator"]
    found, wanted = (discriminator.maps(frames, source, driving) for frames in (painted, pairs.driving))
    # A frame, two blocks, and the prediction map.
    assert [tuple(each.shape) for each in found] == [(2, 3, 32, 32), (2, 8, 14, 14), (2, 8, 5, 5), (2, 1, 5, 5)]
    expected = {
        "reconstruction": 10 * (found[0] - wanted[0]).abs().mean(),
        "reconstruction_1": 10 * (found[1] - wanted[1]).abs().mean(),
        "reconstruction_2": 1 * (found[2] - wanted[2]).abs().mean(),
        "gen_gan": 2 * ((1 - found[3]) ** 2).mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(result.losses[name], value, atol=1e-5, rtol=1e-5)
    deformed = (result.view.deformed - pairs.driving).abs().mean()
    torch.testing.assert_close(result.losses["reconstruction_deformed"].detach(), 5 * deformed)
    assert set(result.losses) == {*expected, "reconstruction_deformed"}
    expected_judgement = 3 * ((1 - wanted[3]) ** 2 + found[3] ** 2).mean()
    torch.testing.assert_close(judged.losses["disc_gan"], expected_judgement)


def gradient_of_keypoints(spec, own, losses):
    backend, phases = built(spec, own)
    result = phases[0].module.train()(batch(), None)
    sum(result.losses[name] for name in losses).backward()
    return sum(
        weights.grad.abs().sum().item()
        for weights in backend.modules()["kp_detector"].parameters()
        if weights.grad is not None
    )


def test_keypoints_learn_from_the_losses_that_the_preset_lets_them(spec):
    painted = ["reconstruction"]
    assert gradient_of_keypoints(spec, params(), painted) > 0
    assert gradient_of_keypoints(spec, params(detach_kp_generator=True), painted) == 0
    # The discriminator receives the keypoints, so its loss trains them in any case.
    assert gradient_of_keypoints(spec, params(detach_kp_generator=True), ["gen_gan"]) > 0
    kept = params(detach_kp_discriminator=False)
    assert gradient_of_keypoints(spec, kept, ["disc_gan_keypoints"]) > 0


def test_the_discriminators_own_phase_leaves_the_others_alone(spec):
    backend, phases = built(spec, params())
    result = phases[0].module.train()(batch(), None)
    phases[1].module.train()(batch(), result.generated).losses["disc_gan"].backward()
    networks = backend.modules()
    assert all(weights.grad is not None for weights in networks["discriminator"].parameters())
    assert all(weights.grad is None for name in ("generator", "kp_detector") for weights in networks[name].parameters())


def test_optimisers_are_the_published_ones(spec):
    _, phases = built(spec, params(lr_generator=1e-3, lr_kp_detector=5e-4))
    optimisers = {name: each for phase in phases for name, each in phase.optimisers.items()}
    assert {name: each.param_groups[0]["lr"] for name, each in optimisers.items()} == {
        "optimizer_generator": 1e-3,
        "optimizer_kp_detector": 5e-4,
        "optimizer_discriminator": 2e-4,
    }
    for each in optimisers.values():
        assert isinstance(each, torch.optim.Adam)
        assert each.param_groups[0]["betas"] == (0.5, 0.999)


def test_the_loss_falls(spec):
    _, phases = built(spec, params(lr=4e-3))
    frames = to_tensor(pictures(4, 32, 32), torch.device("cpu"))
    pairs, course = TrainingBatch(frames[:2], frames[2:], batch().transform), []
    for _ in range(25):
        generated = None
        for phase in phases:
            result = phase.module.train()(pairs, generated)
            generated = result.generated
            for optimiser in phase.optimisers.values():
                optimiser.zero_grad()
            sum(result.losses.values()).backward()
            for optimiser in phase.optimisers.values():
                optimiser.step()
            if phase.name == "generator":
                course.append(float(result.losses["reconstruction"].detach()))
    assert sum(course[-5:]) < 0.85 * sum(course[:5])


def test_without_a_discriminator_the_frame_alone_is_compared(spec):
    own = params(loss_weights={"reconstruction": [10], "generator_gan": 0})
    _, phases = built(spec, own, discriminator_params=None)
    assert [phase.name for phase in phases] == ["generator"]
    assert set(phases[0].module.train()(batch(), None).losses) == {"reconstruction"}


@pytest.mark.parametrize(
    ("changes", "model_changes", "message"),
    [
        ({}, {"discriminator_params": None}, "these losses need a discriminator"),
        ({"loss_weights": {"reconstruction": [10, 10]}}, {}, "has 2 weights for the frame and 2 blocks"),
        ({"loss_weights": {"reconstruction": [0, 0, 0], "generator_gan": 0}}, {}, "have weight 0"),
    ],
)
def test_configurations_that_cannot_be_trained_are_reported(spec, changes, model_changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        built(spec, params(**changes), **model_changes)
    assert caught.value.hint


# The layout of the published files, with capitals, quotes and older names.
AS_PUBLISHED = Path(__file__).parents[1] / "golden" / "presets" / "monkeynet-taichi.yaml"


def test_a_published_file_loads_unchanged_by_path(host):
    published, shipped = load_preset(str(AS_PUBLISHED), host), load_preset("monkeynet-taichi", host)
    assert published.backend == "monkeynet"
    assert published.frame_shape == (64, 64, 3)
    assert published.model_params == shipped.model_params
    header = {"name", "summary", "backend", "dataset", "framing"}
    sections = published.model_dump(exclude=header)
    assert sections.pop("prediction_params")["num_frames"] == 32
    assert {**sections, "prediction_params": None} == shipped.model_dump(exclude=header)
    faster = load_preset(str(AS_PUBLISHED), host, sets=["train_params.lr=1e-3"]).section("train_params")
    assert (faster.lr_generator, faster.lr_discriminator, faster.lr_kp_detector) == (1e-3, 1e-3, 1e-3)


def test_published_schedules(host):
    shipped = {
        name: load_preset(f"monkeynet-{name}", host) for name in ("vox", "taichi", "mgif", "nemo", "bair", "shapes")
    }
    schedules = {
        name: (preset.frame_shape[0], training.num_epochs, training.epoch_milestones, training.batch_size)
        for name, preset in shipped.items()
        for training in [preset.section("train_params")]
    }
    assert schedules == {
        "vox": (256, 20, (), 20),
        "taichi": (64, 750, (500,), 32),
        "mgif": (128, 750, (500,), 64),
        "nemo": (64, 750, (500,), 32),
        "bair": (64, 15, (10,), 32),
        "shapes": (64, 8, (4,), 16),
    }
    for preset in shipped.values():
        training = preset.section("train_params")
        assert training.loss_weights.reconstruction == (10, 10, 10, 10, 1)
        assert {training.lr_generator, training.lr_discriminator, training.lr_kp_detector} == {2e-4}
        assert training.detach_kp_discriminator
        assert training.features is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train_params.lr_generator=fast", "should be a number, not the text 'fast'"),
        ("train_params.lr=1e-3", "'train_params' should have either lr or lr_generator, lr_discriminator"),
        ("train_params.log_params.cpk_freq=5", "log_params"),
        ("train_params.loss_weights.reconstruction=10", "loss_weights.reconstruction"),
        ("train_params.loss_weights.generator_gun=1", r"did you mean 'generator_gan'\?"),
        ("train_params.perceptual_network=vgg19", "unknown key 'train_params.perceptual_network'"),
        ("train_params.transform_params.points_tps=7", "'train_params' should not set transform_params"),
    ],
)
def test_what_is_wrong_with_the_training_is_reported(setting, message, host):
    with pytest.raises(UsageError, match=message):
        load_preset("monkeynet-shapes", host, sets=[setting])
