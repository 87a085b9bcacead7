"""The fast renderer compared with the published vectors and the plain networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from fommctl.errors import UsageError
from fommctl.networks.inference import convolutions, networks
from fommctl.networks.inference.engine import FastRenderer
from fommctl.networks.transfer import Motion, movement_scale, relative
from fommctl_fomm.backend import FommBackend
from fommctl_fomm.schema import FommParams

GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"
CPU = torch.device("cpu")


def build(**changes):
    """Return a small backend with random weights and BatchNorm statistics.  changes: `section__key=value` of
    model_params."""
    params = {
        "common_params": {"num_kp": 4, "num_channels": 3, "estimate_jacobian": True},
        "kp_detector_params": {
            "temperature": 0.1, "block_expansion": 8, "max_features": 32, "scale_factor": 0.5, "num_blocks": 2,
        },
        "generator_params": {
            "block_expansion": 8, "max_features": 32, "num_down_blocks": 2, "num_bottleneck_blocks": 2,
            "estimate_occlusion_map": True,
            "dense_motion_params": {"block_expansion": 8, "max_features": 32, "num_blocks": 2, "scale_factor": 0.5},
        },
    }  # fmt: skip
    for path, value in changes.items():
        *sections, key = path.split("__")
        place = params
        for section in sections:
            place = place[section]
        place[key] = value
    torch.manual_seed(0)
    backend = FommBackend(FommParams.model_validate(params))
    calibrate(backend)
    return backend


@torch.no_grad()
def calibrate(backend):
    """Set BatchNorm statistics that keep every layer's values around 1, and BatchNorm weights of both signs."""
    detector, generator = backend.keypoint_detector, backend.generator
    for module in (*detector.modules(), *generator.modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.uniform_(-1.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)
    frames = smooth(3, generator.final.out_channels)
    motion = detector.train()(frames)
    generator.train()(frames, motion[:1], moved(motion[:1]))
    backend.keypoint_detector.eval()
    backend.generator.eval()


def smooth(count, channels=3, height=64, width=64):
    """Return clouds of colour: on noise, rounding of keypoints would matter as much as the renderer's own."""
    points = torch.rand(count, channels, 6, 6, generator=torch.Generator().manual_seed(2))
    return F.interpolate(points, (height, width), mode="bicubic").clamp(0, 1)


def moved(motion):
    """Return motions of three frames close to that of the source."""
    random = torch.Generator().manual_seed(1)
    keypoints = motion.keypoints + 0.2 * torch.randn(3, *motion.keypoints.shape[1:], generator=random)
    if motion.jacobians is None:
        return Motion(keypoints)
    return Motion(keypoints, torch.eye(2) + 0.1 * torch.randn(3, *motion.jacobians.shape[1:], generator=random))


def assert_fast_equals_plain(backend, height=64, width=64, *, channels=3, scale=1.0, tolerance=1e-4):
    frames = smooth(2, channels, height, width)
    plain = backend.prepare(CPU, "fp32", fast=False, scale=scale)
    fast = backend.prepare(CPU, "fp32", scale=scale)
    contexts = plain.encode_source(frames[:1]), fast.encode_source(frames[:1])
    for expected, actual in ((plain.detect(frames), fast.detect(frames)), (contexts[0].motion, contexts[1].motion)):
        torch.testing.assert_close(actual.keypoints, expected.keypoints, atol=tolerance, rtol=0)
        if expected.jacobians is None:
            assert actual.jacobians is None
        else:
            torch.testing.assert_close(actual.jacobians, expected.jacobians, atol=tolerance, rtol=0)
    motion = moved(contexts[0].motion)
    expected = plain.render(contexts[0], motion)
    assert expected.shape == (3, channels, height, width)
    assert expected.std() > 0.02
    torch.testing.assert_close(fast.render(contexts[1], motion), expected, atol=tolerance, rtol=0)
    return expected


@pytest.fixture(params=["vox-tiny", "vox-tiny-ac0", "vox-adv-tiny", "mgif-tiny"])
def golden(request):
    params = yaml.safe_load((GOLDEN / f"{request.param}.model_params.yaml").read_text())["model_params"]
    backend = FommBackend(FommParams.model_validate(params))
    weights = torch.load(GOLDEN / f"{request.param}.pth.tar", weights_only=True)
    for name, module in backend.modules().items():
        module.load_state_dict(weights[name])
    arrays = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / f"{request.param}.npz").items()}
    return backend, arrays


@pytest.mark.parametrize("path", ["packed", "not packed", "plain"])
def test_published_vectors(golden, path, monkeypatch):
    if path == "not packed":
        monkeypatch.setattr(convolutions, "packing_works", lambda dtype: False)
    backend, arrays = golden
    renderer = backend.prepare(CPU, "fp32", fast=path != "plain")
    assert isinstance(renderer, FastRenderer) == (path != "plain")
    context = renderer.encode_source(arrays["source"].float() / 255)
    driving = renderer.detect(arrays["driving"].float() / 255)
    pairs = [(driving.keypoints, "kp_driving_value"), (driving.jacobians, "kp_driving_jacobian")]
    pairs.append((renderer.render(context, driving), "prediction_absolute"))
    for name, scale in (("relative", 1.0), ("relative_adapt", movement_scale(context.motion, driving[:1]))):
        motion = relative(driving, driving[:1], context.motion, scale)
        pairs.append((renderer.render(context, motion), f"prediction_{name}"))
    for actual, name in pairs:
        torch.testing.assert_close(actual, arrays[name], atol=1e-4, rtol=0)


VARIANTS = {
    "plain": {},
    "zeroth order": {"common_params__estimate_jacobian": False},
    "no occlusion": {"generator_params__estimate_occlusion_map": False},
    "align_corners false": {"common_params__align_corners": False},
    "one Jacobian map": {"kp_detector_params__single_jacobian_map": True},
    "padded heads": {"kp_detector_params__pad": 3},
    "one channel": {"common_params__num_channels": 1},
    "one keypoint": {"common_params__num_kp": 1},
    "full resolution": {
        "kp_detector_params__scale_factor": 1.0,
        "generator_params__dense_motion_params__scale_factor": 1.0,
    },
    "no up blocks": {"generator_params__num_down_blocks": 0},
    "one up block": {"generator_params__num_down_blocks": 1},
    "three up blocks": {"generator_params__num_down_blocks": 3},
    "no bottleneck": {"generator_params__num_bottleneck_blocks": 0},
    "source blended in": {"generator_params__blend_source": True},
    "keypoints embedded": {"generator_params__embed_keypoints": True},
    "source blended in, no up blocks": {
        "generator_params__blend_source": True,
        "generator_params__num_down_blocks": 0,
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_the_networks(variant):
    backend = build(**VARIANTS[variant])
    assert_fast_equals_plain(backend, channels=backend.generator.final.out_channels)


@pytest.mark.parametrize("size", [(64, 192), (128, 64)])
def test_frames_that_are_not_square(size):
    assert_fast_equals_plain(build(), *size)


def test_a_wide_bottleneck_takes_winograd():
    wide = {"generator_params__block_expansion": 48, "generator_params__max_features": 96}
    assert_fast_equals_plain(build(**wide), 64, 96)


def test_frames_of_another_size_show_the_networks_their_native_one():
    backend = build()
    large = assert_fast_equals_plain(backend, 128, 128, scale=0.5)
    assert not torch.equal(large, assert_fast_equals_plain(backend, 128, 128, scale=1.0))
    assert_fast_equals_plain(backend, 32, 32, scale=2.0)
    for fast in (True, False):
        with pytest.raises(UsageError, match="native size"):
            backend.prepare(CPU, "fp32", fast=fast, scale=0.7)


def test_painting_a_few_frames_at_once_changes_nothing(monkeypatch):
    backend = build()
    fast = backend.prepare(CPU, "fp32")
    context = fast.encode_source(smooth(1))
    motion = moved(context.motion)
    whole = fast.render(context, motion)
    monkeypatch.setattr(networks, "LARGEST_TENSOR", 1)
    torch.testing.assert_close(fast.render(context, motion), whole, atol=1e-6, rtol=0)


def test_bf16_keeps_motion_exact_and_frames_close():
    backend = build()
    exact, rough = backend.prepare(CPU, "fp32"), backend.prepare(CPU, "bf16")
    frames = smooth(2)
    contexts = exact.encode_source(frames[:1]), rough.encode_source(frames[:1])
    torch.testing.assert_close(rough.detect(frames).keypoints, exact.detect(frames).keypoints, atol=1e-6, rtol=0)
    motion = moved(contexts[0].motion)
    expected, actual = exact.render(contexts[0], motion), rough.render(contexts[1], motion)
    assert actual.dtype == torch.float32
    error = (actual - expected).pow(2).mean().sqrt()
    assert 0 < error < 0.01


def test_the_renderer_does_not_hold_the_networks():
    backend = build()
    before = backend.prepare(CPU, "fp32")
    context = before.encode_source(torch.zeros(1, 3, 64, 64))
    frame = before.render(context, context.motion)
    for module in backend.modules().values():
        for parameter in module.parameters():
            parameter.data.zero_()
    assert torch.equal(before.render(context, context.motion), frame)


def test_a_singular_jacobian_gives_a_frame_without_a_crash():
    fast = build().prepare(CPU, "fp32")
    context = fast.encode_source(smooth(1))
    motion = Motion(context.motion.keypoints, torch.zeros_like(context.motion.jacobians))
    assert fast.render(context, motion).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("align_corners", [True, False])
def test_a_frame_that_is_all_source_is_the_source_along_its_flow(fast, align_corners):
    """With the head that blends the source wide open, frame and flow must agree to the pixel."""
    backend = build(generator_params__blend_source=True, common_params__align_corners=align_corners)
    torch.nn.init.zeros_(backend.generator.blend.weight)
    torch.nn.init.constant_(backend.generator.blend.bias, 40)
    renderer = backend.prepare(CPU, "fp32", fast=fast)
    source = F.interpolate(smooth(1)[..., :8, :8], (64, 64), mode="bicubic").clamp(0, 1)
    context = renderer.encode_source(source)
    motion = Motion(context.motion.keypoints + 0.2, context.motion.jacobians)
    frames, flow = renderer.render_with_flow(context, motion)
    grid = F.interpolate(flow.permute(0, 3, 1, 2), (64, 64), mode="bilinear").permute(0, 2, 3, 1)
    expected = F.grid_sample(source, grid, padding_mode="border", align_corners=False)
    assert (frames - source).abs().mean() > 0.003
    inner = (..., slice(12, -12), slice(12, -12))
    assert torch.allclose(frames[inner], expected[inner], atol=1e-4)
    assert torch.equal(frames, renderer.render(context, motion))
