"""The losses of the training procedure, computed by hand."""

import math

import pytest
import torch
from torch import Tensor

from fommctl.networks.losses import (
    ImagePyramid,
    discriminator_loss,
    feature_matching_loss,
    focus_loss,
    generator_adversarial_loss,
    guidance_loss,
    likeness_loss,
    perceptual_loss,
    pixel_loss,
    revealed_loss,
    span_loss,
)
from fommctl.networks.perceptual import PerceptualNetwork


def flat(value: float, side: int = 2) -> Tensor:
    return torch.full((2, 3, side, side), float(value))


class Doubled(PerceptualNetwork):
    """Replaces the network by two layers: the picture, and twice the picture in half precision, as under autocast."""

    def __init__(self) -> None:
        super().__init__((0, 0, 0), (1, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [1 * x, (2 * x).bfloat16()]


def test_the_pixel_loss_is_a_sum_over_scales_of_means() -> None:
    prediction, truth = {1: flat(0.5), 0.5: flat(0.25)}, {1: flat(0.75), 0.5: flat(0.75)}
    assert pixel_loss(prediction, truth).item() == 0.25 + 0.5
    assert pixel_loss({1: flat(0.5)}, truth).item() == 0.25


def test_the_perceptual_loss_weights_layers_and_sums_over_scales() -> None:
    prediction = {1: flat(0.5).requires_grad_(), 0.5: flat(0.25)}
    truth = {1: flat(0.75).requires_grad_(), 0.5: flat(0.75), 0.25: flat(9)}
    loss = perceptual_loss(Doubled(), (10, 1), prediction, truth)
    assert loss.item() == 10 * 0.25 + 0.5 + 10 * 0.5 + 1
    assert loss.dtype == torch.float32
    assert perceptual_loss(Doubled(), (0, 3), prediction, truth).item() == 3 * (0.5 + 1)
    assert perceptual_loss(Doubled(), (2, 0, 0), prediction, truth).item() == 2 * (0.25 + 0.5)
    with pytest.raises(ValueError, match="zip"):
        perceptual_loss(Doubled(), (0, 0, 1), prediction, truth)
    loss.backward()
    assert truth[1].grad is None
    # Of 24 elements each: -(10 + 2) / 24.
    assert prediction[1].grad is not None
    assert prediction[1].grad.flatten().tolist() == pytest.approx([-0.5] * 24, rel=1e-3)  # 1 / 24 in bf16


def test_adversarial_losses_are_least_squares() -> None:
    real = {1: ([], torch.tensor([[1.0, 0.5]])), 0.5: ([], torch.tensor([[0.0]], dtype=torch.bfloat16))}
    made = {1: ([], torch.tensor([[0.5, 0.0]])), 0.5: ([], torch.tensor([[2.0]], dtype=torch.bfloat16))}
    # Scale 1: (0.25 + 1) / 2; scale 0.5: 1.
    assert generator_adversarial_loss(made).item() == 0.625 + 1
    # Scale 1: ((0 + 0.25) + (0.25 + 0)) / 2; scale 0.5: 1 + 4.
    assert discriminator_loss(real, made).item() == 0.25 + 5


def test_feature_matching_weights_blocks_and_sums_over_scales() -> None:
    real = {1: ([flat(0.5), flat(1)], flat(0)), 0.5: ([flat(0), flat(0)], flat(0))}
    made = {1: ([flat(0.25), flat(3)], flat(0)), 0.5: ([flat(1), flat(0.5)], flat(0))}
    assert feature_matching_loss(real, made, (10, 1)).item() == 10 * 0.25 + 2 + 10 * 1 + 0.5
    assert feature_matching_loss(real, made, (10, 0)).item() == 10 * 0.25 + 10
    with pytest.raises(ValueError, match="longer"):
        feature_matching_loss(real, made, (10,))


def test_guidance_draws_keypoints_to_means_of_landmarks() -> None:
    keypoints = torch.tensor([[[0.0, 0.0], [0.5, 0.5], [0.9, 0.9]]], requires_grad=True)
    landmarks = torch.tensor([[[0.1, 0.3], [0.3, 0.5], [0.5, -0.5], [9.0, 9.0]]])
    # First: to (0.2, 0.4); second: to (0.5, -0.5); the third is free.
    loss = guidance_loss(keypoints, landmarks, ((0, 1), (2,)))
    assert loss.item() == pytest.approx((0.2 + 0.4 + 0 + 1) / 4)
    loss.backward()
    assert keypoints.grad is not None
    assert keypoints.grad[0].tolist() == [[-0.25, -0.25], [0, 0.25], [0, 0]]


def test_landmarks_that_were_not_found_cost_nothing_and_give_no_gradient() -> None:
    keypoints = torch.zeros(2, 1, 2, requires_grad=True)
    landmarks = torch.tensor([[[float("nan")] * 2] * 2, [[1.0, 1.0], [0.0, 0.0]]])
    loss = guidance_loss(keypoints, landmarks, ((0, 1),))
    assert loss.item() == 0.25
    loss.backward()
    assert keypoints.grad is not None
    assert keypoints.grad.flatten().tolist() == [0, 0, -0.25, -0.25]


def test_spans_see_how_far_keypoints_are_apart_not_where_they_are() -> None:
    keypoints = torch.tensor([[[0.0, 0.0], [0.5, 0.5], [0.9, 0.9]]] * 2, requires_grad=True)
    landmarks = torch.tensor([[[0.1, 0.3], [0.3, 0.5], [0.5, 0.5]], [[float("nan")] * 2, [0.0, 0.0], [0.0, 0.0]]])
    # Targets (0.2, 0.4) and (0.5, 0.5): from the second to the first (-0.3, -0.1), of the keypoints (-0.5, -0.5).
    loss = span_loss(keypoints, landmarks, ((0, 1), (2,)), ((0, 1),))
    assert loss.item() == pytest.approx((0.2 + 0.4) / 4)
    loss.backward()
    assert keypoints.grad is not None
    assert keypoints.grad[0].tolist() == [[-0.25, -0.25], [0.25, 0.25], [0, 0]]
    assert not keypoints.grad[1].any()
    assert span_loss(keypoints + 3, landmarks, ((0, 1), (2,)), ((0, 1),)).item() == pytest.approx(0.15)


def test_likeness_compares_keypoints_and_spans_of_a_prediction_with_the_truth() -> None:
    found = torch.tensor([[[0.0, 0.0], [0.5, 0.5]]], requires_grad=True)
    wanted = torch.tensor([[[0.1, 0.0], [0.2, 0.5]]], requires_grad=True)
    assert likeness_loss(found, wanted, ()).item() == pytest.approx(0.4 / 4)
    loss = likeness_loss(found, wanted, ((0, 1),))
    assert loss.item() == pytest.approx(0.4 / 4 + 0.4 / 2)
    loss.backward()
    assert wanted.grad is None
    assert found.grad is not None
    assert found.grad[0].tolist() == [[-0.75, 0], [0.75, 0]]


def test_focus_counts_differences_where_landmarks_are() -> None:
    landmarks = torch.tensor([[[0.0, -1.0], [0.0, 1.0], [1.0, 1.0]], [[float("nan")] * 2] * 3])
    prediction, truth = flat(0.5, 3), flat(0.75, 3)
    # The Gaussians of (0, 0) and (1, 1) are 1 at two of nine places of the first frame, and nothing elsewhere.
    loss = focus_loss(prediction.requires_grad_(), truth, landmarks, ((0, 1), (2,)))
    assert loss.item() == pytest.approx(0.25 * 2 / 18)
    loss.backward()
    assert prediction.grad is not None
    assert (prediction.grad.abs() > 1e-6).nonzero()[:, [0, 2, 3]].unique(dim=0).tolist() == [[0, 1, 1], [0, 2, 2]]


def test_focus_is_as_narrow_as_asked() -> None:
    landmarks, prediction, truth = torch.zeros(2, 1, 2), flat(0.5, 3), flat(0.75, 3)
    # The middle's neighbours are at distance 1, the corners at the square root of 2.
    weights = 1 + 4 * math.exp(-1 / 0.5) + 4 * math.exp(-2 / 0.5)
    loss = focus_loss(prediction, truth, landmarks, ((0,),), deviation=0.5)
    assert loss.item() == pytest.approx(0.25 * weights / 9)


def test_what_no_warp_shows_counts_more() -> None:
    prediction, truth, warped = flat(0.5), flat(0.75), flat(0.75)
    warped[0, 0, 0, 0] -= 0.75
    prediction.requires_grad_()
    warped.requires_grad_()
    loss = revealed_loss(prediction, truth, warped)
    # One of eight positions has a weight; the mean is over three channels.
    assert loss.item() == pytest.approx(0.25 * 0.25 / 8)
    loss.backward()
    assert warped.grad is None
    assert prediction.grad is not None
    assert prediction.grad.nonzero()[:, [0, 2, 3]].unique(dim=0).tolist() == [[0, 0, 0]]


def test_the_pyramid_smooths_before_it_reduces() -> None:
    pyramid = ImagePyramid((1, 0.5, 0.25), 3)
    picture = torch.zeros(1, 3, 16, 16)
    picture[..., ::2] = 1
    levels = pyramid(picture)
    assert {scale: tuple(level.shape) for scale, level in levels.items()} == {
        1: (1, 3, 16, 16),
        0.5: (1, 3, 8, 8),
        0.25: (1, 3, 4, 4),
    }
    assert torch.equal(levels[1], picture)
    # Every second column alone would be all ones. The Gaussian has a deviation of (1 / scale - 1) / 2: at half the
    # size,
    # its taps are exp(-8), exp(-2), 1, exp(-2), exp(-8) over their sum, and ones meet the first, third and fifth.
    assert levels[0.5][..., 3:5, 3:5].flatten().tolist() == pytest.approx([0.787098] * 12)
    assert levels[0.25][..., 1:3, 1:3].flatten().tolist() == pytest.approx([0.5] * 12, abs=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert pyramid(picture)[0.5].dtype == torch.float32
