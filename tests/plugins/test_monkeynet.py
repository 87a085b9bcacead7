"""Monkey-Net compared with the published vectors; its geometry by hand; its variants, sizes, precisions and files."""

import copy
import math

import pytest
import torch
from monkeynet_models import MODEL, PRESET, arrays, golden_params, narrow_params

from fommctl.api.testing_backend import check_backend
from fommctl.errors import ModelError, UsageError
from fommctl.models.checkpoint import read_checkpoint
from fommctl.models.loading import export_model, load_model
from fommctl.networks.transfer import Motion, relative
from fommctl.presets.preset import load_preset
from fommctl_monkeynet.networks import KeypointEmbedding, at_least, flow_from_maps, heatmaps, motion_from_maps
from fommctl_monkeynet.schema import CommonParams, KeypointEmbeddingParams

CPU = torch.device("cpu")
COMMON = CommonParams(num_kp=1, num_channels=3, kp_variance="matrix")


@pytest.fixture
def spec(host):
    return host.find("backend", "monkeynet")


@pytest.fixture
def model(host):
    return load_model(str(MODEL), host, preset=str(PRESET))


@pytest.fixture(scope="module")
def golden():
    return arrays()


def close(found, expected, tolerance=1e-4):
    torch.testing.assert_close(found.detach().float(), expected, atol=tolerance, rtol=0)


def narrow(spec, params):
    torch.manual_seed(0)
    backend = spec.build(spec.schema().model_validate(params))
    # Weights initialised with zero would hide the layers before them.
    for module in backend.modules().values():
        for weights in module.parameters():
            if not weights.any():
                torch.nn.init.normal_(weights, std=0.05)
    return backend


@pytest.mark.parametrize("fast", [True, False])
def test_published_vectors(model, golden, fast):
    renderer = model.backend.prepare(CPU, "fp32", fast=fast)
    context, motion = renderer.encode_source(golden["source"]), renderer.detect(golden["driving"])
    for found, name in ((context.motion, "source"), (motion, "driving")):
        close(found.keypoints, golden[f"kp_{name}_mean"])
        close(found.covariances, golden[f"kp_{name}_var"])
    close(renderer.render(context, motion), golden["prediction_absolute"])
    moved = relative(motion, motion[:1], context.motion)
    close(renderer.render(context, moved), golden["prediction_relative"])


def test_published_warped_sources_and_judgement(model, golden):
    # From the stored keypoints: rounding a keypoint by 2e-6 shifts positions in this noisy source by up to 2e-4.
    source = Motion(golden["kp_source_mean"], covariances=golden["kp_source_var"])
    driving = Motion(golden["kp_driving_mean"], covariances=golden["kp_driving_var"])
    frames = golden["source"].expand(len(driving), -1, -1, -1)
    generator = model.backend.modules()["generator"]
    with torch.no_grad():
        close(generator(frames, source, driving).deformed, golden["deformed_absolute"])
        moved = relative(driving, driving[:1], source)
        close(generator(frames, source, moved).deformed, golden["deformed_relative"])
        judged = model.backend.modules()["discriminator"].maps(golden["driving"][:1], source, driving[:1])
    close(judged[-1], golden["disc_prediction_map"])


def test_covariances_of_a_heatmap():
    # Half of it at x = -1 and half at x = 1, in the middle row of three: variance 1 along x, none along y.
    logits = torch.full((1, 1, 3, 3), -1e4)
    logits[0, 0, 1, 0] = logits[0, 0, 1, 2] = 0
    motion = motion_from_maps(logits, 0.1, "matrix", None)
    close(motion.keypoints, torch.zeros(1, 1, 2))
    # The floor of 1e-7 at all nine positions adds 6e-7.
    close(motion.covariances, torch.tensor([[[[1 + 6e-7, 0.0], [0.0, 6e-7]]]]), 2e-7)
    single = motion_from_maps(logits, 0.1, "single", None)
    close(single.covariances, 0.5 * torch.eye(2)[None, None], 1e-6)
    assert motion_from_maps(logits, 0.1, 0.01, None).covariances is None


def test_narrow_covariances_are_scaled_up_as_a_whole():
    wide, thin = torch.tensor([[0.04, 0.0], [0.0, 0.01]]), torch.tensor([[0.004, 0.0], [0.0, 0.0005]])
    found = at_least(torch.stack((wide, thin))[None], 0.001)
    close(found[0, 0], wide, 1e-8)
    close(found[0, 1], 2 * thin, 1e-7)
    turn = torch.tensor([[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]])
    close(at_least((turn @ thin @ turn.T)[None, None], 0.001)[0, 0], 2 * turn @ thin @ turn.T, 1e-6)


def test_gradients_are_finite_for_round_and_sharp_heatmaps():
    for logits in (torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8).index_fill(3, torch.tensor([2]), 80.0)):
        logits.requires_grad_()
        motion = motion_from_maps(logits, 0.1, "matrix", 0.001)
        heatmaps(motion, 8, 8, None).sum().backward()
        assert logits.grad.isfinite().all()


def test_heatmaps_follow_their_covariances():
    matrix = torch.tensor([[0.5, 0.2], [0.2, 0.3]])
    motion = Motion(torch.tensor([[[0.0, 1.0]]]), covariances=matrix[None, None])
    found = heatmaps(motion, 3, 3, None)
    for row, column in ((0, 0), (1, 2), (2, 1)):
        offset = torch.tensor([column - 1.0, row - 2.0])
        assert found[0, 0, row, column].item() == pytest.approx(
            math.exp(-0.5 * offset @ torch.linalg.inv(matrix) @ offset), abs=1e-6
        )
    constant = heatmaps(Motion(motion.keypoints), 3, 3, 0.5)
    assert constant[0, 0, 1, 0].item() == pytest.approx(math.exp(-0.5 * 2 / 0.5))


def test_an_embedding_shows_heatmap_way_and_shifted_source_part_by_part():
    params = KeypointEmbeddingParams(
        use_difference=True, use_deformed_source_image=True, heatmap_type="difference", norm_const=10
    )
    embedding = KeypointEmbedding(params, COMMON, background=True)
    assert embedding.channels == 12
    frame = torch.rand(1, 3, 5, 5)
    still = 0.1 * torch.eye(2)[None, None]
    source = Motion(torch.tensor([[[0.5, 0.0]]]), covariances=still)
    driving = Motion(torch.tensor([[[0.0, 0.0]], [[0.5, 0.0]]]), covariances=still.expand(2, -1, -1, -1))
    shown = embedding(embedding.of_source(frame, source), driving).view(2, 2, 6, 5, 5)
    background, part = shown[:, 0], shown[:, 1]
    assert not background[:, :3].any()
    close(background[:, 3:], frame.expand(2, -1, -1, -1), 1e-6)
    assert part[0, 0, 2, 2].item() == pytest.approx((1 - math.exp(-0.5 * 0.25 / 0.1)) / 10)
    assert part[0, 1].unique().tolist() == [0.5]
    assert not part[0, 2].any()
    # Half a unit is one of the five columns: each position now has the value to its right.
    close(part[0, 3:, :, :4], frame[0, :, :, 1:], 1e-6)
    assert not part[1, :3].any()


def test_heatmaps_divided_by_their_sum_sum_to_one_wherever_the_keypoint_is():
    embedding = KeypointEmbedding(KeypointEmbeddingParams(norm_const="sum"), COMMON, background=False)
    motion = Motion(torch.tensor([[[0.9, -1.0]], [[50.0, 0.0]]]), covariances=0.1 * torch.eye(2).expand(2, 1, 2, 2))
    shown = embedding(embedding.of_source(torch.rand(1, 3, 8, 8), motion), motion)
    assert shown[0].sum().item() == pytest.approx(1)
    assert not shown[1].any()


def test_the_flow_weighs_the_ways_and_adds_the_correction():
    maps = torch.zeros(1, 4, 2, 2)
    maps[0, 1] = math.log(3)
    maps[0, 2] = 0.25
    source, driving = Motion(torch.tensor([[[0.5, -0.25]]])), Motion(torch.zeros(1, 1, 2))
    flow, mask = flow_from_maps(maps, source, driving, mask=True, correction=True)
    close(mask[0, :, 0, 0], torch.tensor([0.25, 0.75]), 1e-6)
    close(flow[0, 0, 0], torch.tensor([-1 + 0.75 * 0.5 + 0.25, -1 - 0.75 * 0.25]), 1e-6)
    flow, mask = flow_from_maps(maps[:, 2:], source, driving, mask=False, correction=True)
    close(flow[0, 1, 1], torch.tensor([1.25, 1.0]), 1e-6)
    assert mask is None


def variant(name):
    params = narrow_params()
    generator = params["generator_params"]
    if name == "nothing moves":
        del generator["dense_motion_params"]
    elif name == "keypoints hidden":
        del generator["kp_embedding_params"]
        del params["discriminator_params"]["kp_embedding_params"]
    elif name == "trilinear":
        generator["interpolation_mode"] = "trilinear"
    elif name == "no refinement":
        generator["num_refinement_blocks"] = 0
    elif name == "edges":
        params["common_params"]["align_corners"] = False
    elif name == "one variance":
        params["common_params"]["kp_variance"] = "single"
    elif name == "fixed variance":
        params["common_params"]["kp_variance"] = 0.01
    elif name == "sums":
        generator["kp_embedding_params"] |= {
            "norm_const": "sum",
            "add_bg_feature_map": True,
            "use_deformed_source_image": True,
        }
    elif name == "correction only":
        params = narrow_params(use_mask=False, num_group_blocks=0)
    elif name == "mask only":
        params = narrow_params(use_correction=False, scale_factor=1)
    return params


VARIANTS = (
    "plain", "nothing moves", "keypoints hidden", "trilinear", "no refinement", "edges", "one variance",
    "fixed variance", "sums", "correction only", "mask only",
)  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_keeps_the_contract(spec, name):
    """This includes that the fast renderer is within 1e-3 of the plain one."""
    check_backend(spec, variant(name), (32, 32, 3))


@pytest.mark.parametrize("name", VARIANTS)
def test_fast_is_plain(spec, name):
    backend = narrow(spec, variant(name))
    frames = torch.rand(3, 3, 32, 32)
    results = []
    for fast in (False, True):
        renderer = backend.prepare(CPU, "fp32", fast=fast)
        context = renderer.encode_source(frames[:1])
        results.append(renderer.render(context, renderer.detect(frames)))
    close(results[1], results[0], 1e-5)


@pytest.mark.parametrize("fast", [True, False])
def test_larger_frames_are_seen_at_the_native_size(spec, fast):
    backend = narrow(spec, narrow_params())
    frames = torch.rand(2, 3, 64, 64)
    large, native = (backend.prepare(CPU, "fp32", fast=fast, scale=scale) for scale in (0.5, 1.0))
    found, expected = large.detect(frames), native.detect(frames[:, :, ::2, ::2])
    close(found.keypoints, expected.keypoints, 1e-6)
    assert large.render(large.encode_source(frames[:1]), found).shape == frames.shape
    with pytest.raises(UsageError, match=r"does not support 0\.666667 times its native size"):
        backend.prepare(CPU, "fp32", fast=fast, scale=1.5)


def test_half_precision_keeps_the_geometry(model, golden):
    full, half = (model.backend.prepare(CPU, precision) for precision in ("fp32", "bf16"))
    motion = half.detect(golden["driving"])
    close(motion.keypoints, full.detect(golden["driving"]).keypoints, 1e-6)
    assert motion.covariances.dtype == torch.float32
    # This network's random weights amplify noise; a trained one stays within a level or two.
    rendered = half.render(half.encode_source(golden["source"]), motion)
    assert rendered.dtype == torch.float32
    assert (rendered - golden["prediction_absolute"]).abs().mean() < 0.05


def test_published_kernels_are_those_of_videos(host, spec, tmp_path):
    published = read_checkpoint(MODEL).groups
    ours = spec.from_published(published)
    assert published["generator"]["refinement_module.conv-last.weight"].ndim == 5
    assert ours["generator"]["refinement_module.conv-last.weight"].shape == (3, 16, 1, 1)
    assert spec.from_published(ours) == ours
    back = spec.to_published(ours)
    for group in ("generator", "kp_detector", "discriminator"):
        assert all(back[group][name].equal(tensor) for name, tensor in published[group].items())
    foreign = {"generator": {"first.conv.weight": torch.zeros(2, 3, 1, 7, 7)}}
    assert spec.from_published(foreign) is foreign
    exported = export_model(str(MODEL), tmp_path / "again.pth.tar", host, preset=str(PRESET))
    written = read_checkpoint(exported.path).groups
    assert all(written["generator"][name].equal(tensor) for name, tensor in published["generator"].items())


def test_a_model_without_preset_is_read_off_its_tensors(host, spec, golden):
    ours = spec.from_published(read_checkpoint(MODEL).groups)
    params = spec.schema().model_validate(spec.read_architecture(ours).model_params).model_dump()
    expected = spec.schema().model_validate(golden_params()).model_dump()
    # The tensors do not determine the size of the networks' inputs.
    expected["kp_detector_params"]["scale_factor"] = 1.0
    expected["generator_params"]["dense_motion_params"]["scale_factor"] = 1.0
    expected["generator_params"]["kp_embedding_params"]["scale_factor"] = 1.0
    assert params == expected
    loaded = load_model(str(MODEL), host)
    assert loaded.preset.backend == "monkeynet"
    assert loaded.preset.frame_shape == (64, 64, 3)
    assert any("norm_const 100" in note for note in loaded.notes)


@pytest.mark.parametrize("name", ["vox", "taichi", "nemo", "bair", "mgif", "shapes"])
def test_the_published_presets_are_read_off_their_tensors(name, host, spec):
    preset = load_preset(f"monkeynet-{name}", host)
    with torch.device("meta"):
        backend = spec.build(preset.model_params)
    groups = {group: module.state_dict() for group, module in backend.modules().items()}
    architecture = spec.read_architecture(groups)
    assert architecture.frame_shape == preset.frame_shape
    read = spec.schema().model_validate(architecture.model_params).model_dump()
    wanted = copy.deepcopy(preset.model_params.model_dump())
    for params in (read, wanted):
        # Values that no tensor determines.
        del params["kp_detector_params"]["clip_variance"]
        for holder, key in (
            (params["generator_params"]["dense_motion_params"], "mask_embedding_params"),
            (params["generator_params"], "kp_embedding_params"),
            (params["discriminator_params"], "kp_embedding_params"),
        ):
            del holder[key]["norm_const"]
    assert read == wanted
    if name == "vox":
        counts = [sum(tensor.numel() for tensor in tensors.values()) for tensors in groups.values()]
        assert counts == [80_650_717, 14_138_690, 1_719_489]


def test_tensors_that_contradict_each_other_are_reported(spec):
    groups = {name: dict(module.state_dict()) for name, module in narrow(spec, narrow_params()).modules().items()}
    groups["generator"]["dense_motion_module.hourglass.decoder.conv.weight"] = torch.zeros(7, 20, 3, 3)
    groups["generator"]["dense_motion_module.hourglass.decoder.conv.bias"] = torch.zeros(7)
    with pytest.raises(
        UsageError,
        match="the motion network has 7 channels in the checkpoint, which no configuration has",
    ):
        spec.read_architecture(groups)
    groups["generator"]["refinement_module.conv-last.weight"] = torch.zeros(3, 99, 1, 1)
    with pytest.raises(UsageError, match="do not agree on the width of the refinement"):
        spec.read_architecture(groups)


def test_tensors_that_fit_several_configurations_are_reported(spec):
    params = narrow_params()
    # Four parts of three channels, or three of four.
    params["generator_params"]["kp_embedding_params"] |= {"add_bg_feature_map": True, "use_difference": True}
    groups = {name: dict(module.state_dict()) for name, module in narrow(spec, params).modules().items()}
    with pytest.raises(
        UsageError, match="embedding has 12 channels in the checkpoint, which several configurations have"
    ):
        spec.read_architecture(groups)


def test_a_checkpoint_of_another_configuration_is_refused(host):
    with pytest.raises(ModelError, match="does not fit the preset"):
        load_model(str(MODEL), host, preset="monkeynet-shapes")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("common_params.kp_variance", "matrx", "should be 'matrix', 'single' or a number above 0"),
        ("common_params.kp_variance", -1, "should be 'matrix', 'single' or a number above 0"),
        ("discriminator_params.kp_embedding_params.norm_const", 0, "should be 'sum' or a number above 0"),
        ("discriminator_params.kp_embedding_params.use_heatmap", False, "should use a heatmap"),
        ("generator_params.interpolation_mode", "cubic", "should be 'nearest' or 'trilinear'"),
        ("generator_params.num_refinment_blocks", 1, r"did you mean 'num_refinement_blocks'\?"),
        ("generator_params.dense_motion_params.use_masks", True, r"did you mean 'use_mask'\?"),
    ],
)
def test_what_is_wrong_with_a_preset_is_reported(key, value, message, host):
    with pytest.raises(UsageError, match=message):
        load_preset("monkeynet-shapes", host, options={f"model_params.{key}": value})
