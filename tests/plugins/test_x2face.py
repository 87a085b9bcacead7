"""X2Face compared with the published vectors; its file layout, several views, other sizes and precisions, and
training."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import x2face_models
from x2face_models import NARROW, SIDE

from fommctl.animate.transfer import Moment, MotionTransfer
from fommctl.api.testing_backend import check_backend, check_training
from fommctl.errors import ModelError, UsageError
from fommctl.models.checkpoint import read_checkpoint
from fommctl.models.loading import load_model
from fommctl.networks.transfer import Motion
from fommctl.presets.preset import load_preset
from fommctl_x2face.networks import embedded_face, warped

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "x2face"
TRAINING = {"num_epochs": 1, "batch_size": 2}


@pytest.fixture
def spec(host):
    return host.find("backend", "x2face")


def golden_weights():
    """Return the published tensors, rebuilt from their names: each has its own seed (golden/README.md)."""
    listed = json.loads((GOLDEN / "x2face.keys.json").read_text(encoding="utf-8"))
    tensors = {}
    for name, shape in listed["keys"]:
        seed = hashlib.sha256(f"{listed['salt']}{name}".encode()).digest()[:4]
        random = np.random.default_rng(int.from_bytes(seed, "little"))
        if name.endswith("running_var"):
            values = random.uniform(0.5, 1.5, shape)
        elif len(shape) == 4:
            values = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        elif not name.endswith("num_batches_tracked"):
            values = random.normal(0, 0.1, shape)
        else:
            continue
        tensors[name] = torch.from_numpy(values.astype(np.float32))
    return tensors


@pytest.mark.slow
@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no shared/golden/x2face beside the repository")
def test_published_vectors(host, spec):
    groups = spec.from_published({"state_dict": golden_weights()})
    architecture = spec.read_architecture(groups)
    assert architecture.frame_shape == (256, 256, 3)
    preset = load_preset("x2face-vox", host)
    assert spec.schema().model_validate(dict(architecture.model_params)) == preset.model_params
    backend = spec.build(preset.model_params)
    for name, network in backend.modules().items():
        found = network.load_state_dict(groups[name], strict=False)
        assert not found.unexpected_keys
        assert all(missing.endswith("num_batches_tracked") for missing in found.missing_keys)
    vectors = {name: torch.from_numpy(values) for name, values in np.load(GOLDEN / "x2face.npz").items()}
    source, driving = vectors["source"].float() / 255, vectors["driving"].float() / 255
    renderer = backend.prepare(CPU, "fp32")
    motion = renderer.detect(driving)
    with torch.inference_mode():
        flow = backend.driving.offsets(motion.codes[:, :, None, None])
    one, two = renderer.encode_source(source[:1]), renderer.encode_source(source)
    for found, name, tolerance in (
        (motion.codes[:, :, None, None], "bottleneck", 1e-4),
        (flow, "driving_flow", 5e-4),
        (one.face, "embedded_one_source", 5e-4),
        (renderer.render(one, motion), "prediction_one_source", 1e-4),
        (renderer.render(two, motion), "prediction_two_sources", 1e-4),
    ):
        torch.testing.assert_close(found, vectors[name].float(), atol=tolerance, rtol=0, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("downs", [2, 5, 6])
def test_contract(spec, downs):
    """With fewer levels than halvings of the frame, a code has several positions."""
    params = {name: {**each, "num_downs": downs} for name, each in NARROW.items()}
    check_backend(spec, params, (SIDE, SIDE, 3))


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_training_contract(spec, optimiser):
    check_training(spec, NARROW, {**TRAINING, "optimiser": optimiser}, (SIDE, SIDE, 3))


def test_published_names_there_and_back(host, spec):
    backend = x2face_models.build(host)
    ours = {name: network.state_dict() for name, network in backend.modules().items()}
    published = spec.to_published(ours)
    assert list(published) == ["state_dict"]
    assert "pix2pixUnwrapped.netG.model.submodule.submodule.down.1.weight" in published["state_dict"]
    assert "pix2pixSampler.netG.model.submodule.up.3.running_mean" in published["state_dict"]
    again = spec.from_published(published)
    assert {name: list(tensors) for name, tensors in again.items()} == {name: list(t) for name, t in ours.items()}
    assert spec.from_published(ours) is ours


def test_foreign_checkpoints_are_left_alone(spec):
    foreign = {"state_dict": {"encoder.weight": torch.zeros(1)}, "generator": {"first.conv.weight": torch.zeros(1)}}
    assert spec.from_published(foreign) is foreign
    assert spec.read_architecture(foreign) is None
    mixed = {"state_dict": {"pix2pixSampler.netG.a": torch.zeros(1), "posefrombottle.weight": torch.zeros(1)}}
    assert {name: list(tensors) for name, tensors in spec.from_published(mixed).items()} == {
        "driving": ["a"],
        "state_dict": ["posefrombottle.weight"],
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_published_file_needs_no_preset(host, tmp_path, zipped):
    backend = x2face_models.build(host)
    path = x2face_models.write_published(backend, host, tmp_path / "x2face_model.pth", zipped=zipped)
    loaded = load_model(str(path), host)
    assert loaded.preset.backend == "x2face"
    assert loaded.preset.frame_shape == (SIDE, SIDE, 3)
    assert loaded.preset.model_params.model_dump() == NARROW
    assert any("64x64" in note for note in loaded.notes)
    for name, network in loaded.backend.modules().items():
        wanted = backend.modules()[name].state_dict()
        assert all(wanted[key].equal(tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_tensors_that_nothing_wraps_load_too(host, tmp_path, prefix):
    backend = x2face_models.build(host)
    tensors = x2face_models.published(backend, host)["state_dict"]
    torch.save({prefix + name: tensor for name, tensor in tensors.items()}, tmp_path / "bare.pth")
    loaded = load_model(str(tmp_path / "bare.pth"), host)
    wanted = backend.driving.state_dict()
    assert all(wanted[name].equal(tensor) for name, tensor in loaded.backend.driving.state_dict().items())


def test_a_file_with_one_network_is_refused(host, tmp_path):
    content = x2face_models.published(x2face_models.build(host), host)
    content["state_dict"] = {name: each for name, each in content["state_dict"].items() if "Sampler" in name}
    torch.save(content, tmp_path / "half.pth")
    assert list(read_checkpoint(tmp_path / "half.pth").groups) == ["state_dict"]
    with pytest.raises(ModelError, match=r"half\.pth"):
        load_model(str(tmp_path / "half.pth"), host)


def pictures(count, side=SIDE, seed=0):
    points = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(points, (side, side), mode="bicubic").clamp(0, 1)


def test_a_flow_of_a_pixel_shifts_the_picture_by_one():
    frames = pictures(2)
    flow = torch.zeros(2, 2, SIDE, SIDE)
    flow[:, 0] = 2 / (SIDE - 1)
    found = warped(frames, flow)
    torch.testing.assert_close(found[..., :-1], frames[..., 1:], atol=1e-5, rtol=0)
    assert found[..., -1].max() < 1e-4


def still(network):
    """Set the last convolution of a network to zero: no flow, no confidence."""
    torch.nn.init.zeros_(network.model.up[-1].weight)


def test_views_without_confidence_are_averaged(host):
    backend = x2face_models.build(host)
    still(backend.embedding)
    views = pictures(3)
    with torch.inference_mode():
        face = embedded_face(backend.embedding, views, (SIDE, SIDE))
    torch.testing.assert_close(face, views.mean(0, keepdim=True), atol=1e-5, rtol=0)


def test_a_confident_view_counts_for_more(host):
    """Without motion, the mean of a black and a white view is the share of the white one's weight."""
    backend = x2face_models.build(host)
    with torch.no_grad():
        backend.embedding.model.up[-1].weight *= torch.tensor([0.0, 0.0, 20.0])[:, None, None, None]
    views = torch.cat((torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, 3, SIDE, SIDE)))
    with torch.inference_mode():
        confidence = backend.embedding.model(views)[:, 2]
        face = embedded_face(backend.embedding, views, (SIDE, SIDE))
    weights = confidence.exp() + 0.1
    share = weights[1] / weights.sum(0)
    assert share.std() > 0.05
    torch.testing.assert_close(face[0], share.expand(3, -1, -1), atol=1e-4, rtol=0)


def test_larger_frames_have_the_same_motion(host):
    """Corner pixels coincide, and the flow of a code does not depend on the size of the frames."""
    backend = x2face_models.build(host)
    still(backend.embedding)
    ramp = torch.linspace(0.2, 0.8, 3 * SIDE).expand(1, 3, 3 * SIDE, -1)
    native, large = backend.prepare(CPU, "fp32"), backend.prepare(CPU, "fp32", scale=1 / 3)
    motion = native.detect(pictures(2))
    small = torch.nn.functional.interpolate(ramp, (SIDE, SIDE), mode="bilinear", align_corners=True)
    found = large.render(large.encode_source(ramp), motion)
    wanted = native.render(native.encode_source(small), motion)
    assert found.shape == (2, 3, 3 * SIDE, 3 * SIDE)
    inside = slice(SIDE // 4, -SIDE // 4)
    resized = torch.nn.functional.interpolate(wanted, found.shape[2:], mode="bilinear", align_corners=True)
    difference = (found - resized).abs()[..., 3 * SIDE // 4 : -3 * SIDE // 4, 3 * SIDE // 4 : -3 * SIDE // 4]
    assert wanted[..., inside, inside].std() > 0.05
    assert difference.mean() < 2e-3


def test_frames_that_cannot_be_halved(host):
    renderer = x2face_models.build(host).prepare(CPU, "fp32")
    with pytest.raises(UsageError, match="48x64"):
        renderer.detect(torch.rand(1, 3, 64, 48))


def test_half_precision_stays_within_40_db(host):
    backend = x2face_models.build(host)
    frames = pictures(4)
    rendered = []
    for precision in ("fp32", "bf16"):
        renderer = backend.prepare(CPU, precision)
        motion = renderer.detect(frames)
        assert motion.codes.dtype == torch.float32
        rendered.append(renderer.render(renderer.encode_source(frames[:1]), motion))
    assert rendered[1].dtype == torch.float32
    error = (rendered[0] - rendered[1]).square().mean()
    assert -10 * torch.log10(error) >= 40


def test_codes_are_held_and_smoothed():
    codes = torch.tensor([[1.0], [9.0], [2.0]])
    motion = Motion(torch.zeros(3, 0, 2), codes=codes)
    first = motion[:1]
    held = MotionTransfer(first, [first], mode="absolute", adapt_scale=True, smooth=False)
    assert held(motion, [Moment(0.0), Moment(0.1, False), Moment(0.2)]).codes.flatten().tolist() == [1, 1, 2]
    smooth = MotionTransfer(first, [first], mode="absolute", adapt_scale=True, smooth=True)
    found = smooth(motion, [Moment(0.0), Moment(0.04), Moment(0.08)])
    assert found.keypoints.shape == (3, 0, 2)
    assert 1 < found.codes[1] < 9


def test_the_published_pair_of_losses_is_photometric(spec):
    """Networks without motion predict the source: the loss is the difference between the two frames."""
    from fommctl.api.training import TrainingBatch

    backend = spec.build(spec.schema().model_validate(NARROW))
    for network in backend.modules().values():
        still(network)
    (phase,) = backend.training(spec.sections()["train_params"](**TRAINING), None)
    batch = TrainingBatch(pictures(2), pictures(2, seed=1), None)
    result = phase.module.train()(batch)
    wanted = (batch.source - batch.driving).abs().mean()
    torch.testing.assert_close(result.losses["photometric"].detach(), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(result.view.prediction, batch.source, atol=1e-5, rtol=0)
    (optimiser,) = phase.optimisers.values()
    assert isinstance(optimiser, torch.optim.SGD)
    assert [(group["lr"], group["momentum"]) for group in optimiser.param_groups] == [(1e-3, 0.9)]


@pytest.mark.parametrize("changed", ["lr_discriminator=1e-3", "lr_kp_detector=0.0", "transform_params.points_tps=7"])
def test_settings_without_an_effect_are_refused(host, changed):
    """Settings of networks and losses that X2Face does not have; older files that state their defaults still load."""
    name = changed.partition("=")[0].partition(".")[0]
    with pytest.raises(UsageError, match=f"'train_params' should not set {name}"):
        load_preset("x2face-vox", host, sets=[f"train_params.{changed}"])
    assert name not in load_preset("x2face-vox", host).text()
    older = load_preset("x2face-vox", host, sets=["train_params.lr_discriminator=2e-4"])
    assert older == load_preset("x2face-vox", host)


def test_training_begins_close_to_the_source(spec):
    """The flows of untrained networks move pictures by less than half a pixel."""
    torch.manual_seed(0)
    backend = spec.build(spec.schema().model_validate(NARROW))
    with torch.no_grad():
        flows = backend.embedding.train()(pictures(4))[0], backend.driving.train()(pictures(4))
    for flow in flows:
        assert 0 < flow.abs().max() * (SIDE - 1) / 2 < 3
        assert flow.abs().mean() * (SIDE - 1) / 2 < 0.5


def test_the_flow_leads_through_the_embedded_face_back_to_the_picture():
    """Two shifts, 0.2 in the face and 0.1 in the picture, between corner pixels, make 0.3 less a border."""
    from fommctl_x2face.networks import through

    flow, unwarping = torch.zeros(2, 2, 10, 20), torch.zeros(1, 2, 10, 20)
    flow[1, 0] = 0.2
    unwarping[:, 0], unwarping[:, 1] = 0.1, -0.3
    found = through(flow, unwarping)
    assert found.shape == (2, 10, 20, 2)
    middle = found[:, 5, 10]
    x, y = 2 * 10 / 19 - 1, 2 * 5 / 9 - 1
    expected = [[(x + 0.1) * 19 / 20, (y - 0.3) * 9 / 10], [(x + 0.3) * 19 / 20, (y - 0.3) * 9 / 10]]
    assert torch.allclose(middle, torch.tensor(expected), atol=1e-5)
