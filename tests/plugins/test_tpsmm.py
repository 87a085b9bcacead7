"""TPSMM compared with the published vectors, with weights rebuilt from seeds; its geometry, files, sizes and
precisions."""

import pytest
import torch
from tpsmm_models import TINY, arrays, published_groups, published_params

from fommctl.animate.transfer import rule_of
from fommctl.api import ModelError
from fommctl.api.blocks import Motion, movement_scale, relative
from fommctl.models.loading import load_model
from fommctl.presets.preset import load_preset
from fommctl_tpsmm.motion import grouped, kept_softmax, warps_between
from fommctl_tpsmm.splines import RandomWarp, Splines

CPU = torch.device("cpu")
NOBODY = {"fomm": 0, "monkeynet": 0, "tpsmm": 0, "x2face": 0, "liveportrait": 0}
NAMES = ("tps-tiny", "tps-onemask")


@pytest.fixture
def spec(host):
    return host.find("backend", "tpsmm")


def build(spec, params=TINY):
    torch.manual_seed(0)
    return spec.build(spec.schema().model_validate(params))


@pytest.fixture(scope="module", params=NAMES)
def published(request, tmp_path_factory):
    """Return the path of a file in the published layout, and its vectors."""
    groups = published_groups(request.param)
    path = tmp_path_factory.mktemp("tpsmm") / "vox.pth.tar"
    optimiser = {"state": {}, "param_groups": [{"lr": 2e-4, "params": [0]}]}
    torch.save({**groups, "optimizer": optimiser, "optimizer_bg_predictor": optimiser, "epoch": 99}, path)
    return path, arrays(request.param), request.param


@pytest.fixture
def model(published, host):
    """Load the file without its configuration: the architecture is inferred from the tensors."""
    return load_model(str(published[0]), host)


def close(found, expected, tolerance=1e-4):
    torch.testing.assert_close(found.detach().to(expected), expected, atol=tolerance, rtol=0)


def close_picture(found, expected):
    """Assert differences of at most 1e-4 except for single pixels at the border of the warped picture, where the stored
    frames themselves are up to 1.5e-4 from those in double precision."""
    difference = (found - expected).abs()
    assert difference.max() <= 3e-4
    assert difference.mean() <= 1e-5
    assert (difference > 1e-4).float().mean() <= 1e-3


def test_the_architecture_is_read_off_the_tensors(published, model):
    wanted = published_params(published[2])["model_params"]
    assert model.preset.backend == "tpsmm"
    assert model.preset.model_params.model_dump() == wanted
    assert set(model.groups) == set(model.backend.modules())


def test_published_keypoints_and_background(published, model):
    golden, backend = published[1], model.backend
    source, driving = backend.keypoint_detector(golden["source"]), backend.keypoint_detector(golden["driving"])
    close(source.keypoints, golden["kp_source"], 1e-5)
    close(driving.keypoints, golden["kp_driving"], 1e-5)
    moved = relative(driving, driving[:1], source, movement_scale(source, driving[:1]))
    close(moved.keypoints, golden["kp_relative"], 1e-5)
    close(backend.avd(source, driving).keypoints, golden["kp_avd"], 1e-5)
    if backend.background is not None:
        sources = golden["source"].expand(3, -1, -1, -1)
        close(backend.background(sources, golden["driving"]), golden["bg_param"], 1e-5)


@pytest.mark.parametrize("prefix", ["frame2", "frame2_bg"])
def test_published_motion_and_frame(published, model, prefix):
    golden, backend = published[1], model.backend
    if f"{prefix}_prediction" not in golden:
        pytest.skip("these networks have no background")
    # In double precision; in single precision, processors that sum in another order differ by up to 3e-4.
    golden = {name: array.double() for name, array in golden.items()}
    for module in backend.modules().values():
        module.double()
    source, driving = Motion(golden["kp_source"]), Motion(golden["kp_driving"][2:])
    background = golden["bg_param"][2:] if prefix == "frame2_bg" else None
    with torch.no_grad():
        motion = backend.dense_motion(golden["source"], source, driving, background)
        painted = backend.inpainting(golden["source"], motion)
    close(motion.warps[:, :, ::2, ::2], golden[f"{prefix}_transformations"])
    close(motion.contributions, golden[f"{prefix}_contribution_maps"])
    close(motion.deformation, golden[f"{prefix}_deformation"])
    for level, occlusion in enumerate(motion.occlusions):
        close(occlusion, golden[f"{prefix}_occlusion_{level}"])
    close_picture(painted.deformed, golden[f"{prefix}_deformed"])
    close_picture(painted.prediction, golden[f"{prefix}_prediction"])
    if prefix == "frame2":
        splines = Splines.between(grouped(driving.keypoints), grouped(source.keypoints))
        close(splines.affine, golden["frame2_tps_theta"])
        close(splines.weights, golden["frame2_tps_control_params"])
        close(motion.deformed, golden["frame2_deformed_source"])


@pytest.mark.parametrize("fast", [True, False])
def test_published_frames(published, model, fast):
    golden = published[1]
    renderer = model.backend.prepare(CPU, "fp32", fast=fast)
    context, motion = renderer.encode_source(golden["source"]), renderer.detect(golden["driving"])
    close_picture(renderer.render(context, motion), golden["prediction_standard"])
    close_picture(renderer.render(context, Motion(golden["kp_relative"])), golden["prediction_relative"])
    moved = renderer.transfer(motion, motion[:1], context.motion, mode="avd", options=None)
    close(renderer.render(context, moved), golden["prediction_avd"], 3e-3)


@pytest.mark.parametrize("fast", [True, False])
def test_published_reconstruction(published, model, fast):
    golden = published[1]
    renderer = model.backend.prepare(CPU, "fp32", fast=fast)
    context = renderer.encode_source(golden["source"])
    found = renderer.reconstruct(context, renderer.detect(golden["driving"]), golden["driving"])
    # Without a network for the background, it does not move.
    close_picture(found, golden.get("prediction_reconstruction", golden["prediction_standard"]))


def test_avd_needs_its_network(spec, host):
    untrained = build(spec).prepare(CPU, "fp32")
    assert untrained.own_modes == ()
    with pytest.raises(ModelError, match="no network for --motion avd"):
        rule_of(untrained, "avd")
    assert rule_of(untrained, "relative") is None


def test_published_random_warp_and_dropout(published, model):
    golden = published[1]
    warp = RandomWarp(golden["random_theta"], golden["random_control_params"])
    close(warp.frames(golden["driving"]), golden["random_transformed_frames"], 1e-5)
    close(warp.points(golden["random_transformed_kp"]), golden["random_warped_kp"], 1e-5)
    kept = golden["dropout_uniform"] < 1 - golden["dropout_probability"]
    kept[:, 0] = True
    close(kept_softmax(golden["dropout_logits"], kept), golden["dropout_softmax"], 1e-6)


def test_splines_take_their_points_along():
    points = torch.tensor([[-0.6, -0.5], [0.5, -0.6], [0.1, 0.1], [-0.5, 0.6], [0.7, 0.5]])[None, None]
    for shift in (0.0, 0.25):
        moved = Splines.between(points, points + shift).warp(points[0, 0])
        # The ridge on the diagonal of the equations keeps splines a little short of their targets.
        assert (moved - points - shift).abs().max() < 0.01


def test_a_background_is_an_affine_map_of_the_frame():
    points = Motion(torch.zeros(1, 5, 2))
    background = torch.tensor([[[1.0, 0, 0.5], [0, 2, 0], [0, 0, 1]]])
    warps = warps_between(points, points, 3, 3, background)
    assert warps[0, 0, 0, 0].tolist() == [-0.5, -2]
    assert warps[0, 0, 2, 2].tolist() == [1.5, 2]


def test_sizes_of_the_published_networks(host, spec):
    preset = load_preset("tpsmm-vox", host)
    modules = spec.build(preset.model_params).modules()
    assert {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()} == {
        "kp_detector": 11_227_812,
        "bg_predictor": 11_188_998,
        "dense_motion_network": 37_941_397,
        "inpainting_network": 24_737_283,
        "avd_network": 2_583_652,
    }
    assert {name: len(module.state_dict()) for name, module in modules.items()} == {
        "kp_detector": 122,
        "bg_predictor": 122,
        "dense_motion_network": 59,
        "inpainting_network": 78,
        "avd_network": 69,
    }


@pytest.mark.parametrize("name", ["vox", "taichi", "ted", "mgif"])
def test_one_family_claims_each_configuration(host, spec, name):
    preset = load_preset(f"tpsmm-{name}", host)
    params = preset.model_params.model_dump()
    assert {each.name: each.recognises(params) for each in host.backends.values()} == {**NOBODY, "tpsmm": 1}
    fomm = load_preset({"ted": "taichi"}.get(name, name), host).model_params.model_dump()
    assert {each.name: each.recognises(fomm) for each in host.backends.values()} == {**NOBODY, "fomm": 1}
    # FOMM's keys with sections of another family: FOMM is not sure that the file is its own.
    assert 0 < host.backends["fomm"].recognises({**fomm, "dense_motion_params": {}}) < 0.5


def test_one_family_claims_each_file(host, spec):
    groups = {name: module.state_dict() for name, module in build(spec).modules().items()}
    assert [each.name for each in host.backends.values() if each.read_architecture(groups)] == ["tpsmm"]
    fomm = host.find("backend", "fomm")
    theirs = fomm.build(load_preset("smoke", host).model_params).modules()
    groups = {name: module.state_dict() for name, module in theirs.items()}
    assert [each.name for each in host.backends.values() if each.read_architecture(groups)] == ["fomm"]


def test_a_file_without_the_optional_networks_loads(host, spec, tmp_path):
    backend = build(spec)
    optional = ("bg_predictor", "avd_network")
    groups = {name: module.state_dict() for name, module in backend.modules().items() if name not in optional}
    torch.save(groups, tmp_path / "short.pth.tar")
    model = load_model(str(tmp_path / "short.pth.tar"), host)
    assert set(model.backend.modules()) == set(model.backend.needed_groups()) == set(groups)
    assert model.preset.model_params.avd_network_params is None


def test_what_a_model_needs_follows_from_it_and_from_its_file(host, spec, published, tmp_path):
    assert "avd_network" not in build(spec).needed_groups()
    model = load_model(str(published[0]), host)
    assert set(model.backend.needed_groups()) == set(model.backend.modules())
    content = torch.load(published[0], weights_only=True)
    if content.pop("bg_predictor", None) is None:
        return
    torch.save(content, tmp_path / "short.pth.tar")
    preset = tmp_path / "preset.yaml"
    preset.write_text(model.preset.text())
    with pytest.raises(ModelError, match="lacks the networks bg_predictor of a tpsmm model"):
        load_model(str(tmp_path / "short.pth.tar"), host, preset=str(preset))


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("multi_mask", [True, False])
def test_the_fast_path_is_the_plain_one(spec, scale, multi_mask):
    backend = build(spec, {**TINY, "common_params": {**TINY["common_params"], "multi_mask": multi_mask}})
    side = round(64 / scale)
    frames = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    frames = torch.nn.functional.interpolate(frames, (side, side), mode="bicubic").clamp(0, 1)
    plain, fast = (backend.prepare(CPU, "fp32", fast=each, scale=scale) for each in (False, True))
    motion = plain.detect(frames)
    close(fast.detect(frames).keypoints, motion.keypoints, 1e-5)
    wanted, flow = plain.render_with_flow(plain.encode_source(frames[:1]), motion)
    found, same_flow = fast.render_with_flow(fast.encode_source(frames[:1]), motion)
    assert flow.shape == (3, side, side, 2)
    close(found, wanted, 5e-4)
    close(same_flow, flow, 1e-4)
    rough = backend.prepare(CPU, "bf16", scale=scale)
    assert (rough.render(rough.encode_source(frames[:1]), motion) - wanted).square().mean() < 1e-3
