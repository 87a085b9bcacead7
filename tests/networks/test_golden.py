"""The core compared with vectors of the published implementation (tests/golden), in fp32 on the CPU."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from fommctl.networks.fomm import DenseMotionNetwork, Generator, KeypointDetector, MultiScaleDiscriminator
from fommctl.networks.losses import ThinPlateTransform, equivariance_losses
from fommctl.networks.transfer import Motion, movement_scale, relative

GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"
NAMES = ["vox-tiny", "vox-tiny-ac0", "vox-adv-tiny", "mgif-tiny"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    params = yaml.safe_load((GOLDEN / f"{request.param}.model_params.yaml").read_text())["model_params"]
    common = params["common_params"]
    align = common.pop("align_corners")
    detector = KeypointDetector(**common, **params["kp_detector_params"])
    channels, count = common["num_channels"], common["num_kp"]
    painter = params["generator_params"]
    dense = DenseMotionNetwork(
        num_kp=count,
        num_channels=channels,
        align_corners=align,
        estimate_occlusion_map=painter.pop("estimate_occlusion_map"),
        **painter.pop("dense_motion_params"),
    )
    generator = Generator(dense, num_channels=channels, align_corners=align, **painter)
    discriminator = MultiScaleDiscriminator(num_channels=channels, num_kp=count, **params["discriminator_params"])
    weights = torch.load(GOLDEN / f"{request.param}.pth.tar", weights_only=True)
    for module, group in ((detector, "kp_detector"), (generator, "generator"), (discriminator, "discriminator")):
        module.load_state_dict(weights[group])
        module.eval()
    arrays = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / f"{request.param}.npz").items()}
    source, driving = arrays["source"].float() / 255, arrays["driving"].float() / 255
    with torch.no_grad():
        motions = detector(source), detector(driving)
    return SimpleNamespace(
        detector=detector,
        generator=generator,
        discriminator=discriminator,
        arrays=arrays,
        source=source,
        driving=driving,
        source_motion=motions[0],
        driving_motion=motions[1],
        align=align,
    )


def assert_close(actual, expected):
    torch.testing.assert_close(actual.detach().float(), expected, atol=TOLERANCE, rtol=0)


def test_keypoints_and_jacobians(golden):
    for motion, name in ((golden.source_motion, "source"), (golden.driving_motion, "driving")):
        assert_close(motion.keypoints, golden.arrays[f"kp_{name}_value"])
        assert_close(motion.jacobians, golden.arrays[f"kp_{name}_jacobian"])


def test_dense_motion(golden):
    with torch.no_grad():
        motion = golden.generator.dense_motion_network(golden.source, golden.source_motion, golden.driving_motion[1:2])
    assert_close(motion.sparse_deformed, golden.arrays["dense_sparse_deformed_frame1"])
    assert_close(motion.mask, golden.arrays["dense_mask_frame1"])
    assert_close(motion.deformation, golden.arrays["dense_deformation_frame1"])
    assert_close(motion.occlusion, golden.arrays["dense_occlusion_map_frame1"])


@pytest.mark.parametrize("mode", ["absolute", "relative", "relative_adapt"])
def test_predictions(golden, mode):
    reference, source = golden.driving_motion[:1], golden.source_motion
    scale = movement_scale(source, reference) if mode == "relative_adapt" else 1.0
    motion = golden.driving_motion
    if mode != "absolute":
        motion = relative(motion, reference, source, scale)
    with torch.no_grad():
        frames = golden.source.expand(len(motion), -1, -1, -1)
        prediction = golden.generator(frames, source, motion).prediction
    assert_close(prediction, golden.arrays[f"prediction_{mode}"])


def test_discriminator(golden):
    with torch.no_grad():
        results = golden.discriminator({1: golden.driving[:1]}, golden.driving_motion.keypoints[:1])
    # With random spectral-norm vectors, maps reach 513 and cancel out: the stored vector itself is 4e-4 from
    # the value in double precision. The tolerance covers only rounding relative to the largest value, 3e-6 of it.
    expected = golden.arrays["disc_prediction_map_1"]
    tolerance = max(TOLERANCE, 3e-6 * expected.abs().max().item())
    torch.testing.assert_close(results[1][1], expected, atol=tolerance, rtol=0)


def test_equivariance(golden):
    transform = ThinPlateTransform(golden.arrays["tps_theta"], golden.arrays["tps_control_params"])
    frames = transform.warp_frames(golden.driving, align_corners=golden.align)
    assert_close(frames, golden.arrays["tps_transformed_frames"])
    losses = equivariance_losses(golden.driving_motion, golden.detector(frames), transform)
    assert_close(losses[0], golden.arrays["loss_equivariance_value_unweighted"])
    assert_close(losses[1], golden.arrays["loss_equivariance_jacobian_unweighted"])


def test_a_zeroth_order_model_moves_by_keypoints_alone():
    detector = KeypointDetector(
        num_kp=3, num_channels=3, block_expansion=4, max_features=8, num_blocks=1, temperature=0.1,
        estimate_jacobian=False, pad=3,
    )  # fmt: skip
    motion = detector(torch.rand(2, 3, 16, 16))
    assert motion.jacobians is None
    moved = relative(motion[1:], motion[:1], Motion(torch.zeros(1, 3, 2)), 2.0)
    torch.testing.assert_close(moved.keypoints, (motion.keypoints[1:] - motion.keypoints[:1]) * 2)
