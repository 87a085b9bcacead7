"""LivePortrait compared with the published vectors, with weights rebuilt from seeds; its geometry and files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from liveportrait_models import STITCHING, arrays, published_file

from fommctl.detection.landmarks import square_around
from fommctl.presets.preset import load_preset
from fommctl.presets.sections import SquareParams
from fommctl_liveportrait.backend import LivePortraitBackend
from fommctl_liveportrait.layers import gather_volume, identity_volume, sample_volume
from fommctl_liveportrait.mask import mask
from fommctl_liveportrait.motion import (
    FaceMotion,
    FaceSmoother,
    face_motion,
    openings,
    part_of,
    rotation_matrices,
    turned_towards,
)
from fommctl_liveportrait.motion_extractor import degrees
from fommctl_liveportrait.options import FaceOptions
from fommctl_liveportrait.published import from_published, to_published
from fommctl_liveportrait.retargeting import stitched
from fommctl_liveportrait.schema import LivePortraitParams
from fommctl_liveportrait.transfer import NEUTRAL, Correctors, size_ratio, transfer
from fommctl_liveportrait.warping import heatmaps

CPU = torch.device("cpu")
SMALL_FILES = ("retarget_shoulder", "retarget_mouth", "retarget_eye")


@pytest.fixture(scope="module")
def backend():
    return LivePortraitBackend(LivePortraitParams())


@pytest.fixture(scope="module")
def vectors():
    return arrays("modules")


def filled(backend, name):
    """Return a published file's network with its weights."""
    groups = from_published({"state_dict": published_file(name)}) if ":" not in name else None
    network = name.rpartition(":")[2]
    tensors = published_file(name) if groups is None else groups[name]
    module = backend.modules()[network]
    module.load_state_dict(tensors)
    return module


@pytest.fixture(scope="module")
def correctors(backend):
    for group in SMALL_FILES:
        filled(backend, f"{STITCHING}:{group}")
    return backend.correctors(CPU)


@pytest.fixture(scope="module")
def extractor(backend):
    return filled(backend, "motion_extractor")


def close(found, expected, tolerance=1e-4, mean=1e-5):
    torch.testing.assert_close(found.detach().float(), expected.float(), atol=tolerance, rtol=0)
    assert (found.detach() - expected).abs().mean() <= mean


@torch.no_grad()
def test_published_appearance(backend, vectors):
    volume = filled(backend, "appearance_feature_extractor")(vectors["source_256"])
    close(volume[0, :, ::5, ::8, ::8], vectors["F_slice"])
    close(volume[0].mean((2, 3)), vectors["F_mean"])


@torch.no_grad()
def test_published_motion(extractor, vectors):
    heads = extractor(torch.cat((vectors["source_256"], vectors["driving_256"])))
    for name, found in heads.items():
        close(found, vectors[f"M_{name}"])
    motion = face_motion(heads)
    close(motion.rotation, vectors["R"])
    close(motion.keypoints(), vectors["x_transformed"])


def test_published_angles(vectors):
    pitch, yaw, roll = (vectors["angles_example"] * (math.pi / 180)).unbind(1)
    if not torch.allclose(rotation_matrices(pitch, yaw, roll), vectors["R_example"], atol=1e-5):
        pitch, yaw, roll = vectors["angles_example"][:, :3].unbind(1)
    close(rotation_matrices(pitch, yaw, roll), vectors["R_example"])
    close(degrees(vectors["logits_example"]), vectors["degrees_example"], 1e-4, 1e-4)


@torch.no_grad()
def test_published_correctors(correctors, vectors):
    source, driving = vectors["x_transformed"][:1], vectors["x_transformed"][1:]
    close(correctors.stitching(source, driving), vectors["stitch_delta"])
    close(stitched(correctors.stitching, source, driving), vectors["stitched"])
    eyes = correctors.eyes(source, vectors["eye_ratio"])
    close(eyes.view(-1, 21, 3), vectors["eye_delta"])
    close(correctors.lips(source, vectors["lip_ratio"]).view(-1, 21, 3), vectors["lip_delta"])


@pytest.mark.slow
@torch.no_grad()
def test_published_warping_and_picture(backend, vectors):
    volume = filled(backend, "appearance_feature_extractor")(vectors["source_256"])
    network = filled(backend, "warping_module")
    source, driving = vectors["W_kp_source"], vectors["W_kp_driving"]
    dense = network.dense_motion_network
    close(dense.compressed(volume)[0, :, ::5, ::8, ::8], vectors["W_compressed_slice"])
    grid = identity_volume(volume, *volume.shape[2:])
    difference = heatmaps(driving, grid) - heatmaps(source, grid)
    close(difference[0, :, ::5, ::8, ::8], vectors["W_heatmap_slice"][1:])
    warped = network(volume, source, driving)
    close(warped.deformation[0, ::5, ::8, ::8], vectors["W_deformation_slice"])
    close(warped.occlusion, vectors["W_occlusion_map"])
    close(warped.features[0, ::8, ::4, ::4], vectors["W_out_slice"])
    picture = filled(backend, "spade_generator")(warped.features)
    assert picture.shape == (1, 3, 512, 512)
    close(picture[0, :, ::4, ::4], vectors["G_out_slice"])


@pytest.fixture(scope="module")
def faces(extractor):
    """Source and driving faces of the recorded pipeline."""
    golden = arrays("pipeline")
    with torch.no_grad():
        source = face_motion(extractor(golden["source_crop_256"]))
    template = [golden[f"template/{name}"] for name in ("R", "exp", "scale", "t", "kp")]
    openings = torch.cat((golden["template/c_eyes"], golden["template/c_lip"]), 1)
    return golden, source, FaceMotion(*template, openings=openings)


VARIANTS = {
    "default": ("relative", {}),
    "nostitch": ("relative", {"stitching": False}),
    "posefriendly": ("relative", {"friendly": "pose"}),
    "posefriendly_nostitch": ("relative", {"friendly": "pose", "stitching": False}),
    "absolute": ("absolute", {}),
    "absolute_nostitch": ("absolute", {"stitching": False}),
    "multiplier15": ("relative", {"multiplier": 1.5}),
    "region_exp": ("relative", {"region": "exp"}),
    "region_pose": ("relative", {"region": "pose"}),
    "region_lip": ("relative", {"region": "lips"}),
    "region_eyes": ("relative", {"region": "eyes"}),
    "absolute_region_exp": ("absolute", {"region": "exp"}),
    "absolute_region_lip": ("absolute", {"region": "lips"}),
    "retarget_absolute": ("absolute", {"retarget_eyes": True, "retarget_lips": True}),
    "normalizelip": ("relative", {"close_lips": True}),
    "animal": ("animal", {}),
    "animal_nostitch": ("animal", {"stitching": False, "multiplier": 1.75}),
}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_published_transfer(faces, correctors, name):
    golden, source, driving = faces
    mode, options = VARIANTS[name]
    if f"{name}/eye_ratio" in golden:
        own = golden[f"{name}/eye_ratio"][:1, :2], golden[f"{name}/lip_ratio"][:1, :1]
        source = FaceMotion(*source.parts()[:5], openings=torch.cat(own, 1))
    elif f"{name}/lip_ratio" in golden:
        own = torch.zeros(1, 2), golden[f"{name}/lip_ratio"][:, :1]
        source = FaceMotion(*source.parts()[:5], openings=torch.cat(own, 1))
    close(source.keypoints().expand(3, -1, -1), golden[f"{name}/x_s"])
    moved = transfer(driving, driving[:1], source, correctors, mode=mode, options=FaceOptions(**options))
    close(moved.keypoints(), golden[f"{name}/x_d_new"])


def steadied(rows):
    """Apply the published filter of source videos, Kalman's forwards and backwards, to values (B, ...)."""
    rows = rows.double()
    mean, variance = rows[0], torch.tensor(1e-5, dtype=torch.float64)
    means, variances, ahead = [], [], []
    for number, row in enumerate(rows):
        expected = variance if number == 0 else variance + 1e-5
        gain = expected / (expected + 3e-7)
        mean, variance = mean + gain * (row - mean), (1 - gain) * expected
        means, variances, ahead = [*means, mean], [*variances, variance], [*ahead, expected]
    found = [means[-1]]
    for number in range(len(rows) - 2, -1, -1):
        found.insert(0, means[number] + variances[number] / ahead[number + 1] * (found[0] - means[number]))
    return torch.stack(found).float()


def cut_out(picture, square):
    """Cut out a rotated square like the published code: 512 pixels, bilinear, pixel centres at integers."""
    angle, step = math.radians(square.angle), square.side / 512
    down, right = torch.meshgrid((torch.arange(512) - 256) * step, (torch.arange(512) - 256) * step, indexing="ij")
    x = math.cos(angle) * right - math.sin(angle) * down + square.center[0]
    y = math.sin(angle) * right + math.cos(angle) * down + square.center[1]
    height, width = picture.shape[2:]
    grid = torch.stack((2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1), -1)[None]
    large = F.grid_sample(picture, grid, align_corners=True).mul(255).round()
    return F.avg_pool2d(large, 2).round() / 255


@torch.no_grad()
def test_published_transfer_to_a_video(faces, extractor):
    """The published crop is not recorded: ours is equal except for single levels, which affects the keypoints."""
    golden, _, driving = faces
    square = square_around(
        SquareParams(factor=2.3, offset=-0.125, turned=True), golden["sourcevideo/landmarks_203"][0].numpy()
    )
    source = face_motion(extractor(cut_out(golden["original"], square)))
    # All frames of that video have the same square.
    sources = FaceMotion.cat([source] * 3)
    close(sources.keypoints(), golden["sourcevideo/x_s"], 2e-3, 1e-3)
    moved = transfer(
        driving, driving[:1], sources, Correctors(), mode="relative", options=FaceOptions(stitching=False), clip=True
    )
    expected = golden["sourcevideo/before_stitching"]
    assert (expected - golden["sourcevideo/x_s"]).abs().max() > 0.4
    close(steadied(moved.keypoints()), expected, 2e-3, 1e-3)


@torch.no_grad()
def test_retargeting_comes_beside_the_driving_motion(faces, correctors):
    golden, source, driving = faces
    own = torch.cat((golden["retarget/eye_ratio"][:1, :2], golden["retarget/lip_ratio"][:1, :1]), 1)
    source = FaceMotion(*source.parts()[:5], openings=own)
    plain, eyes, lips = (
        transfer(driving, driving[:1], source, correctors, mode="relative", options=options).keypoints()
        for options in (
            FaceOptions(stitching=False),
            FaceOptions(stitching=False, retarget_eyes=True),
            FaceOptions(stitching=False, retarget_lips=True),
        )
    )
    close(eyes - plain, golden["retarget/eye_delta"])
    close(lips - plain, golden["retarget/lip_delta"])


def test_published_size_ratio_and_neutral_face():
    golden = arrays("pipeline")
    close(NEUTRAL, golden["lip_array"].float(), 1e-8)
    source = golden["multiplier_example_source"]
    found = [size_ratio(source, other[None]) for other in golden["multiplier_example_driving"]]
    assert found == pytest.approx(golden["multiplier_example"].tolist(), rel=1e-5)


def test_a_region_moves_by_its_gain(host):
    small = load_preset("small-liveportrait", host).model_params
    torch.manual_seed(0)
    random = [FaceMotion(rotation_matrices(*torch.randn(3, 1) * 0.2), torch.randn(1, 21, 3) * 0.1, torch.ones(1, 1),
                         torch.randn(1, 3) * 0.1, torch.randn(1, 21, 3)) for _ in range(3)]  # fmt: skip
    source, reference, driving = random

    def moved(region):
        options = FaceOptions(region=region, stitching=False, friendly="pose")
        nobody = LivePortraitBackend(small).correctors(CPU)
        found = transfer(driving, reference, source, nobody, mode="relative", options=options)
        return found.keypoints() - source.keypoints()

    torch.testing.assert_close(moved("lips:0.5"), 0.5 * moved("lips"))
    torch.testing.assert_close(moved("lips,eyes:2"), moved("lips") + 2 * moved("eyes"))
    assert not moved("pose:0").any()
    with pytest.raises(ValueError, match="'nose' is not a region; use all, exp, pose, lips, eyes"):
        FaceOptions(region="nose")


def test_rotations_turn_between_each_other():
    zero, angle = torch.zeros(1), torch.full((1,), 0.8)
    still, turned = rotation_matrices(zero, zero, zero), rotation_matrices(zero, angle, zero)
    torch.testing.assert_close(turned_towards(still, turned, 0.25), rotation_matrices(zero, angle / 4, zero))
    torch.testing.assert_close(part_of(turned, 2), rotation_matrices(zero, 2 * angle, zero))
    assert torch.equal(turned_towards(still, turned, 1), turned)
    assert torch.isfinite(part_of(still, 0.5)).all()


def test_travel_moves_the_keypoints_as_a_picture_is_moved():
    torch.manual_seed(1)
    motion = FaceMotion(rotation_matrices(*torch.randn(3, 2)), torch.randn(2, 21, 3), torch.rand(2, 1) + 0.5,
                        torch.randn(2, 3), torch.randn(2, 21, 3))  # fmt: skip
    angle, shift, scale = torch.tensor([0.3, -0.5]), torch.randn(2, 2), torch.tensor([1.5, 0.5])
    maps = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), -1).view(-1, 2, 2)
    expected = scale[:, None, None] * (motion.points() @ maps.mT) + shift[:, None]
    torch.testing.assert_close(motion.travelled(scale, angle, shift).points(), expected)


def test_steady_faces_shake_less_and_stay_rotations():
    torch.manual_seed(2)
    angles = 0.005 * torch.randn(3, 50)
    expression = 0.002 * torch.randn(50, 21, 3)
    motion = FaceMotion(rotation_matrices(*angles), expression, 1 + 0.005 * torch.randn(50, 1), torch.zeros(50, 3),
                        torch.randn(1, 21, 3).expand(50, -1, -1))  # fmt: skip
    steady = FaceSmoother()(motion, [index / 25 for index in range(50)])
    shake = [(each.keypoints()[1:] - each.keypoints()[:-1]).abs().mean() for each in (motion, steady)]
    assert shake[1] < 0.5 * shake[0]
    identity = torch.eye(3).expand(50, 3, 3)
    torch.testing.assert_close(steady.rotation @ steady.rotation.mT, identity, atol=1e-5, rtol=0)


def test_corners_that_are_gathered_are_what_torch_samples():
    torch.manual_seed(3)
    values, grid = torch.randn(2, 3, 4, 5, 6), torch.rand(2, 3, 4, 5, 3) * 2.6 - 1.3
    torch.testing.assert_close(gather_volume(values, grid), sample_volume(values, grid))


def test_spectral_norm_is_folded_and_written_again():
    torch.manual_seed(4)
    weight, left, right = torch.randn(4, 3, 3, 3), torch.randn(4), torch.randn(27)
    names = {"up_0.conv_0.weight_orig": weight, "up_0.conv_0.weight_u": left, "up_0.conv_0.weight_v": right}
    sign = {"G_middle_0.norm_0.mlp_gamma.weight": torch.zeros(1)}
    published = {f"module.{name}": tensor for name, tensor in (names | sign).items()}
    folded = from_published({"state_dict": published})
    expected = weight / torch.dot(left, weight.flatten(1) @ right)
    torch.testing.assert_close(folded["spade_generator"]["up_0.conv_0.weight"], expected)
    again = from_published(to_published(folded))
    assert torch.equal(again["spade_generator"]["up_0.conv_0.weight"], folded["spade_generator"]["up_0.conv_0.weight"])


def test_published_mask():
    golden = arrays("crop")["mask_template"].float() / 255
    found = torch.from_numpy(mask(512))
    assert (found - golden).abs().max() <= 1 / 255


def test_published_openings():
    golden = arrays("crop")
    for name in ("b203", "c203"):
        found = openings(golden[f"{name}/landmarks"][None])
        close(found[:, :2], golden[f"{name}/eye_ratio"])
        close(found[:, 2:], golden[f"{name}/lip_ratio"])
    assert openings(torch.full((1, 68, 2), torch.nan)).tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize("name", [name for name in VARIANTS if "nostitch" in name or "region" in name])
def test_recorded_transfer(name):
    """The published loop before stitching, with the values recorded next to the tests."""
    with np.load(Path(__file__).parents[1] / "golden" / "liveportrait" / "transfer.npz") as stored:
        golden = {key: torch.from_numpy(each) for key, each in stored.items()}
    source = FaceMotion(*(golden[f"source/{part}"] for part in FaceMotion.names()[:5]))
    driving = FaceMotion(*(golden[f"template/{part}"] for part in ("R", "exp", "scale", "t", "kp")))
    mode, options = VARIANTS[name]
    chosen = FaceOptions(**{**options, "stitching": False})
    moved = transfer(driving, driving[:1], source, Correctors(), mode=mode, options=chosen)
    close(moved.keypoints(), golden[name])
