"""The systems of the reproduction compete on equal terms: size of the networks, data, batches, schedule."""

import pytest

from fommctl.host import Host
from fommctl.presets.preset import load_preset
from fommctl.presets.sections import Preset

ABLATION = tuple(f"small-fomm-{part}" for part in ("baseline", "pyramid", "occlusion", "jacobian"))
EQUAL = ("small-fomm", "small-monkeynet", "small-x2face", *ABLATION)
SMALL = (*EQUAL, "small-tpsmm")


def parameters(preset: Preset, host: Host) -> int:
    """Return the number of weights in the networks used for animation."""
    spec = host.backends[preset.backend]
    backend = spec.build(preset.model_params)
    modules = backend.modules()
    return sum(weights.numel() for group in backend.needed_groups() for weights in modules[group].parameters())


def test_all_have_about_as_many_parameters(host: Host) -> None:
    counts = {name: parameters(load_preset(name, host), host) for name in EQUAL}
    assert counts["small-fomm"] == 359_787
    assert {name for name, count in counts.items() if abs(count / counts["small-fomm"] - 1) > 0.1} == set()


@pytest.mark.parametrize("name", SMALL)
def test_all_see_the_same_pairs_of_frames_as_often(name: str, host: Host) -> None:
    own, full = load_preset(name, host), load_preset("small-fomm", host)
    data, wanted = (each.section("dataset_params").model_dump() for each in (own, full))
    assert data == wanted
    assert own.frame_shape == (64, 64, 3)
    assert own.dataset == "synthetic-shapes"
    for key in ("batch_size", "num_epochs", "num_repeats", "schedule", "warmup_steps", "ema_decay", "lr_generator"):
        assert getattr(own.section("train_params"), key) == getattr(full.section("train_params"), key)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "small-x2face"])
def test_all_that_have_keypoints_have_six(name: str, host: Host) -> None:
    common = load_preset(name, host).model_params.model_dump()["common_params"]
    # TPSMM's motion is by splines with five keypoints each.
    assert common.get("num_kp", common.get("num_tps")) == 6


def test_tpsmm_is_as_narrow_but_for_its_detector(host: Host) -> None:
    preset = load_preset("small-tpsmm", host)
    modules = host.backends["tpsmm"].build(preset.model_params).modules()
    counts = {name: sum(weights.numel() for weights in module.parameters()) for name, module in modules.items()}
    assert counts["kp_detector"] > 11_000_000
    assert 0.9 < (counts["dense_motion_network"] + counts["inpainting_network"]) / 359_787 < 1.1


@pytest.mark.parametrize("name", SMALL)
def test_none_needs_a_download(name: str, host: Host) -> None:
    assert load_preset(name, host).section("train_params").features in (None, "efficientnet-lite0")
