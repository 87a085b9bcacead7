"""The core's geometry and blocks on cases computed by hand, and properties that hold for any input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fommctl.networks.fomm import (
    DenseMotionNetwork,
    Generator,
    MultiScaleDiscriminator,
    keypoint_heatmaps,
    soft_argmax,
    sparse_motions,
)
from fommctl.networks.grids import gaussians, identity_grid, resize_grid, sample
from fommctl.networks.layers import AntiAliasDownsample, Hourglass
from fommctl.networks.losses import ThinPlateTransform, equivariance_losses
from fommctl.networks.transfer import Motion

sizes = st.integers(2, 9)


@given(sizes, sizes)
@settings(max_examples=30, deadline=None)
def test_the_identity_grid_returns_the_picture(height, width):
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height * 10 + width))
    grid = identity_grid(height, width, like=picture).expand(2, -1, -1, -1)
    torch.testing.assert_close(sample(picture, grid, align_corners=True), picture, atol=1e-5, rtol=0)


def test_grid_coordinates_by_hand():
    grid = identity_grid(2, 3, like=torch.zeros(1))
    assert grid.tolist() == [[[-1, -1], [0, -1], [1, -1]], [[-1, 1], [0, 1], [1, 1]]]


def test_without_aligned_corners_the_identity_grid_dims_the_corners():
    # As in the published code with a current torch: a corner pixel keeps a quarter of its value.
    ones = torch.ones(1, 1, 8, 8)
    moved = sample(ones, identity_grid(8, 8, like=ones)[None], align_corners=False)
    assert moved[0, 0, 0, 0].item() == pytest.approx(0.25)
    assert moved[0, 0, 0, 4].item() == pytest.approx(0.5)


def test_a_shift_by_one_pixel():
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    grid = identity_grid(4, 4, like=picture)[None] + torch.tensor([2 / 3, 0.0])
    moved = sample(picture, grid, align_corners=True)
    assert moved[0, 0, 1].tolist() == pytest.approx([5, 6, 7, 0], abs=1e-5)


def test_gaussians_by_the_formula():
    keypoints = torch.tensor([[[0.0, 0.0], [0.5, -1.0]]])
    maps = gaussians(keypoints, 5, 5)
    assert maps[0, 0, 2, 2].item() == pytest.approx(1)
    assert maps[0, 0, 2, 3].item() == pytest.approx(math.exp(-(0.5**2) / 0.02), rel=1e-4)
    assert maps[0, 1, 0, 3].item() == pytest.approx(1)
    assert maps[0, 1, 1, 2].item() == pytest.approx(math.exp(-(0.5**2 + 0.5**2) / 0.02), rel=1e-4)


def test_resizing_a_grid_keeps_a_constant_flow():
    flow = torch.full((1, 4, 4, 2), 0.3)
    torch.testing.assert_close(resize_grid(flow, 9, 7), torch.full((1, 9, 7, 2), 0.3))


def test_soft_argmax_of_a_peak_and_of_nothing():
    logits = torch.zeros(1, 2, 5, 5)
    logits[0, 0, 1, 4] = 10
    keypoints, heatmaps = soft_argmax(logits, temperature=0.1)
    assert keypoints[0, 0].tolist() == pytest.approx([1.0, -0.5], abs=1e-6)
    assert keypoints[0, 1].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    torch.testing.assert_close(heatmaps.sum((2, 3)), torch.ones(1, 2))


@pytest.mark.parametrize(("scale", "kernel"), [(0.25, 13), (0.5, 5), (0.125, 29), (1.0, 1)])
def test_antialiased_downsampling(scale, kernel):
    down = AntiAliasDownsample(3, scale)
    assert down.weight.shape == (3, 1, kernel, kernel)
    torch.testing.assert_close(down.weight.sum((1, 2, 3)), torch.ones(3))
    constant = down(torch.full((1, 3, 64, 64), 0.7))
    assert constant.shape[-1] == 64 * scale
    middle = constant[..., constant.shape[-1] // 2, constant.shape[-1] // 2]
    torch.testing.assert_close(middle, torch.full((1, 3), 0.7))


def test_a_half_scale_kernel_by_hand():
    # sigma = (2 - 1) / 2: weights exp(-d^2 / 0.5) at distances 0, 1, 2.
    line = torch.exp(-torch.tensor([4.0, 1.0, 0.0, 1.0, 4.0]) / 0.5)
    line = line / line.sum()
    torch.testing.assert_close(AntiAliasDownsample(1, 0.5).weight[0, 0], torch.outer(line, line))


def test_sparse_motions_by_hand():
    driving = Motion(torch.tensor([[[0.5, 0.0]]]), torch.tensor([[[[2.0, 0.0], [0.0, 2.0]]]]))
    source = Motion(torch.tensor([[[-0.5, 1.0]]]), torch.tensor([[[[0.0, -1.0], [1.0, 0.0]]]]))
    motions = sparse_motions(source, driving, 3, 3)
    assert torch.equal(motions[0, 0], identity_grid(3, 3, like=motions))
    # At z = (1, 1): J_s J_d^-1 (0.5, 1) + p_s = (-0.5, 0.25) + (-0.5, 1).
    assert motions[0, 1, 2, 2].tolist() == pytest.approx([-1.0, 1.25])


def test_where_nothing_moves_every_part_stands_still_and_no_heatmap_differs():
    motion = Motion(torch.rand(2, 4, 2) - 0.5, torch.eye(2).expand(2, 4, 2, 2) * 1.3)
    motions = sparse_motions(motion, motion, 6, 5)
    torch.testing.assert_close(motions, identity_grid(6, 5, like=motions).expand_as(motions), atol=1e-6, rtol=0)
    assert keypoint_heatmaps(motion, motion, 6, 5).abs().max() == 0


def test_masks_sum_to_one_and_the_flow_of_no_motion_is_the_identity():
    network = DenseMotionNetwork(
        num_kp=3, num_channels=3, block_expansion=4, max_features=8, num_blocks=2, scale_factor=0.5,
        estimate_occlusion_map=True,
    ).eval()  # fmt: skip
    motion = Motion(torch.rand(1, 3, 2) - 0.5, torch.eye(2).expand(1, 3, 2, 2))
    with torch.no_grad():
        dense = network(torch.rand(1, 3, 16, 16), motion, motion)
    torch.testing.assert_close(dense.mask.sum(1), torch.ones(1, 8, 8))
    torch.testing.assert_close(dense.deformation[0], identity_grid(8, 8, like=dense.deformation), atol=1e-6, rtol=0)
    assert dense.occlusion.shape == (1, 1, 8, 8)
    assert 0 <= dense.occlusion.min() <= dense.occlusion.max() <= 1


def test_an_hourglass_keeps_size_and_hands_its_input_through_last():
    hourglass = Hourglass(4, 5, 3, 16).eval()
    x = torch.rand(1, 5, 16, 24)
    out = hourglass(x)
    assert out.shape == (1, hourglass.out_filters, 16, 24) == (1, 9, 16, 24)
    assert torch.equal(out[:, 4:], x)


def test_a_discriminator_a_scale():
    params = {"num_channels": 3, "block_expansion": 4, "max_features": 8, "num_blocks": 2}
    network = MultiScaleDiscriminator([1, 0.5], **params)
    assert {name.split(".")[1] for name in network.state_dict()} == {"1", "0-5"}
    results = network({1: torch.rand(2, 3, 32, 32), 0.5: torch.rand(2, 3, 16, 16)})
    # 32 -4x4-> 29 -pool-> 14 -4x4-> 11, no pooling after the last block.
    assert results[1][1].shape == (2, 1, 11, 11)
    assert [features.shape[1] for features in results[1][0]] == [8, 8]
    with pytest.raises(ValueError, match="needs keypoints"):
        MultiScaleDiscriminator([1], **params, use_kp=True, num_kp=2)({1: torch.rand(1, 3, 32, 32)})


def test_equivariant_keypoints_have_no_loss():
    generator = torch.Generator().manual_seed(3)
    transform = ThinPlateTransform.random(2, sigma_affine=0.05, sigma_tps=0.005, points_tps=5, generator=generator)
    points = (torch.rand(2, 4, 2, generator=generator) - 0.5).requires_grad_()
    jacobians = torch.eye(2).expand(2, 4, 2, 2)
    exact = Motion(transform.warp_points(points).detach(), (transform.jacobian(points) @ jacobians).detach())
    value, jacobian = equivariance_losses(exact, Motion(points, jacobians), transform)
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert jacobian.item() == pytest.approx(0, abs=1e-5)


def test_the_jacobian_of_a_transform_is_its_slope():
    transform = ThinPlateTransform.random(
        1, sigma_affine=0.1, sigma_tps=0.05, points_tps=4, generator=torch.Generator().manual_seed(1)
    )
    double = ThinPlateTransform(transform.theta.double(), transform.control_params.double())
    point = torch.tensor([[[0.21, -0.37]]], dtype=torch.float64, requires_grad=True)
    exact, step = double.jacobian(point)[0, 0], 1e-6
    for axis in (0, 1):
        offset = torch.zeros(1, 1, 2, dtype=torch.float64)
        offset[..., axis] = step
        slope = (double.warp_points(point + offset) - double.warp_points(point - offset))[0, 0] / (2 * step)
        torch.testing.assert_close(exact[:, axis], slope, atol=1e-7, rtol=0)


@pytest.mark.parametrize(("share", "expected"), [(40.0, "source"), (-40.0, "painted")])
def test_the_blend_selects_the_warped_source_or_the_decoded_frame(share: float, expected: str) -> None:
    torch.manual_seed(0)
    motion_network = DenseMotionNetwork(
        num_kp=2, num_channels=3, block_expansion=4, max_features=8, num_blocks=1, scale_factor=1.0,
        estimate_occlusion_map=True,
    )  # fmt: skip
    generator = Generator(
        motion_network, num_channels=3, block_expansion=4, max_features=8, num_down_blocks=1, num_bottleneck_blocks=1,
        blend_source=True,
    ).eval()  # fmt: skip
    torch.nn.init.zeros_(generator.blend.weight)
    torch.nn.init.constant_(generator.blend.bias, share)
    source = torch.rand(1, 3, 16, 16)
    still = Motion(torch.tensor([[[-0.5, 0.0], [0.5, 0.0]]]), torch.eye(2).expand(1, 2, 2, 2))
    with torch.no_grad():
        generated = generator(source, still, still)
        generator.blend = None
        painted = generator(source, still, still).prediction
    torch.testing.assert_close(generated.prediction, source if expected == "source" else painted, atol=1e-5, rtol=0)
