"""FOMM's training phases: their losses, and configurations that cannot be trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fommctl.api.training import ThinPlateTransform, TrainingBatch, TrainingPhase
from fommctl.errors import UsageError
from fommctl.host import Host
from fommctl.presets.preset import load_preset
from fommctl_fomm.training import phases

SIDE = 32
FEW = ("model_params.kp_detector_params.block_expansion=4", "model_params.generator_params.block_expansion=4")
OURS = ("pixel", "warped", "revealed", "guidance", "spans", "likeness", "focus")
WEIGHTS = "train_params.loss_weights."
NONE = tuple(f"{WEIGHTS}{name}=0" for name in ("generator_gan", "equivariance_value", "equivariance_jacobian"))
GUIDANCE = "train_params.guidance={detector: any, points: [[0], [1, 2]], spans: [[0, 1]]}"


def prepared(host: Host, *sets: str) -> list[TrainingPhase]:
    preset = load_preset("smoke", host, sets=(*FEW, *sets))
    backend: Any = host.find("backend", "fomm").build(preset.model_params)
    return list(backend.training(preset.section("train_params"), None))


def batch(marks: bool = False) -> TrainingBatch:
    generator = torch.Generator().manual_seed(0)
    source, driving = torch.rand(2, 2, 3, SIDE, SIDE, generator=generator)
    transform = ThinPlateTransform.random(2, sigma_affine=0.05, sigma_tps=0.005, points_tps=5, generator=generator)
    landmarks = torch.rand(2, 2, 3, 2, generator=generator) if marks else (None, None)
    return TrainingBatch(source, driving, transform, *landmarks)


def losses(phase: TrainingPhase, marks: bool = False) -> dict[str, float]:
    torch.manual_seed(0)
    return {name: loss.item() for name, loss in phase.module(batch(marks), None).losses.items()}


def test_a_weight_of_0_leaves_its_loss_out(host: Host) -> None:
    weights = "train_params.loss_weights."
    (first,) = prepared(host, f"{weights}generator_gan=0", f"{weights}equivariance_jacobian=0")
    assert set(losses(first)) == {"equivariance_value"}
    first, second = prepared(host, f"{weights}feature_matching=[0, 0, 0]", f"{weights}equivariance_value=0")
    assert set(losses(first)) == {"gen_gan", "equivariance_jacobian"}
    assert set(second.optimisers) == {"optimizer_discriminator"}
    assert set(first.optimisers) == {"optimizer_generator", "optimizer_kp_detector"}


def test_our_own_losses(host: Host) -> None:
    sets = (*NONE, GUIDANCE, *(f"{WEIGHTS}{name}=1" for name in OURS))
    torch.manual_seed(1)
    (first,) = prepared(host, *sets)
    torch.manual_seed(1)
    (doubled,) = prepared(host, *(each.removesuffix("1") + "2" if each.endswith("=1") else each for each in sets))
    once = losses(first, marks=True)
    assert set(once) == set(OURS)
    assert losses(doubled, marks=True) == pytest.approx({name: 2 * loss for name, loss in once.items()})


def test_the_likeness_of_keypoints_teaches_the_generator_alone(host: Host) -> None:
    (phase,) = prepared(host, *NONE, f"{WEIGHTS}likeness=1")
    detector = phase.module.keypoint_detector
    before = {name: values.clone() for name, values in detector.named_buffers()}
    torch.manual_seed(0)
    result = phase.module(batch(), None)
    after = {name: values.clone() for name, values in detector.named_buffers()}
    torch.manual_seed(0)
    (plain,) = prepared(host, *NONE, f"{WEIGHTS}pixel=1")
    plain.module.load_state_dict(phase.module.state_dict())
    for name, values in before.items():
        plain.module.keypoint_detector.get_buffer(name).copy_(values)
    plain.module(batch(), None)
    # Statistics are those of source and driving frames, without the prediction.
    assert all(torch.equal(values, plain.module.keypoint_detector.get_buffer(name)) for name, values in after.items())
    result.losses["likeness"].backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in detector.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in phase.module.generator.parameters())


def test_the_focus_may_have_points_and_a_width_of_its_own(host: Host) -> None:
    torch.manual_seed(1)
    (wide,) = prepared(host, *NONE, GUIDANCE, f"{WEIGHTS}focus=1")
    torch.manual_seed(1)
    (narrow,) = prepared(host, *NONE, GUIDANCE, f"{WEIGHTS}focus=1", "train_params.guidance.focus_deviation=0.01")
    torch.manual_seed(1)
    (fewer,) = prepared(host, *NONE, GUIDANCE, f"{WEIGHTS}focus=1", "train_params.guidance.focus_points=[[0]]")
    found = [losses(each, marks=True)["focus"] for each in (wide, narrow, fewer)]
    assert 0 < found[1] < found[0]
    assert 0 < found[2] < found[0]


def test_each_optimiser_has_its_own_rate_and_the_published_betas(host: Host) -> None:
    found = prepared(host, "train_params.lr_generator=1e-3", "train_params.lr_kp_detector=1e-4")
    optimisers = {name: each for phase in found for name, each in phase.optimisers.items()}
    rates = {name: each.param_groups[0]["lr"] for name, each in optimisers.items()}
    assert rates == {"optimizer_generator": 1e-3, "optimizer_kp_detector": 1e-4, "optimizer_discriminator": 2e-4}
    assert {each.param_groups[0]["betas"] for each in optimisers.values()} == {(0.5, 0.999)}


def test_the_generator_learns_in_its_own_phase_only(host: Host) -> None:
    first, second = prepared(host)
    result = first.module(batch(), None)
    loss = second.module(batch(), result.generated).losses["disc_gan"]
    loss.backward()
    assert all(parameter.grad is None for parameter in first.module.parameters())
    assert all(parameter.grad is not None for parameter in second.module.parameters())
    # The phase registers only what it trains (and frozen networks), so that gradients can be exchanged.
    trained = {id(p) for optimiser in first.optimisers.values() for g in optimiser.param_groups for p in g["params"]}
    assert {id(parameter) for parameter in first.module.parameters() if parameter.requires_grad} == trained


def test_a_discriminator_is_needed_for_an_adversarial_loss(host: Host) -> None:
    preset = load_preset("smoke", host)
    backend: Any = host.find("backend", "fomm").build(preset.model_params)
    with pytest.raises(UsageError, match="the adversarial loss needs a discriminator") as caught:
        phases(backend.keypoint_detector, backend.generator, None, preset.section("train_params"), None)
    assert "loss_weights.generator_gan=0" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ["train_params.scales=[0.5]"],
            "the discriminator uses the scale 1, which is not in train_params.scales",
        ),
        (["train_params.loss_weights.feature_matching=[10, 10]"], "feature_matching has 2 weights for 3 blocks"),
        (["train_params.perceptual_scales=[1, 0.25]"], "perceptual_scales has 0.25, which is not in scales"),
        (["train_params.loss_weights.focus=1"], "guidance, spans and focus need train_params.guidance"),
        (["train_params.loss_weights.guidance=1"], "guidance, spans and focus need train_params.guidance"),
        (
            ["train_params.guidance={detector: any, points: [[0], [1]]}", "train_params.loss_weights.spans=1"],
            "the loss spans needs train_params.guidance.spans",
        ),
        (
            [
                "train_params.guidance={detector: any, points: [[0], [1]], spans: [[0, 2]]}",
                "train_params.loss_weights.spans=1",
            ],
            "guidance.spans contains point 2, but there are only 2",
        ),
        (
            ["train_params.guidance={detector: any, points: [[0], [1], [2], [3], [4], [5]]}"],
            "6 points cannot guide 5 keypoints",
        ),
    ],
)
def test_configurations_that_cannot_be_trained_are_reported_before_the_start(
    sets: list[str], message: str, host: Host
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        prepared(host, *sets)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize(
    ("held", "kept"),
    [("lr_kp_detector=0", "keypoint_detector."), ("hold_dense_motion=true", "generator.dense_motion_network.")],
)
def test_a_held_network_keeps_its_weights_and_statistics(host: Host, held: str, kept: str) -> None:
    (phase,) = prepared(host, *NONE, f"{WEIGHTS}pixel=1", f"train_params.{held}")
    phase.module.train()
    before = {name: values.clone() for name, values in phase.module.state_dict().items()}
    phase.module(batch(), None).losses["pixel"].backward()
    for optimiser in phase.optimisers.values():
        optimiser.step()
    after = phase.module.state_dict()
    networks = ("keypoint_detector.", "generator.dense_motion_network.", "generator.bottleneck.")
    changed = {name for name in after if not after[name].equal(before[name])}
    assert {each for each in networks if any(name.startswith(each) for name in changed)} == {*networks} - {kept}
