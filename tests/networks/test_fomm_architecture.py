"""FOMM's `model_params` inferred from tensors: published layouts, random ones, and broken ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fommctl.api import Architecture, UsageError
from fommctl.host import Host, load_host
from fommctl.presets.preset import load_preset

SPEC = load_host().backends["fomm"]
GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"


def tensors_of(model_params: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Return tensors without storage, in the groups of a checkpoint."""
    with torch.device("meta"):
        backend = SPEC.build(model_params)
    return {group: dict(module.state_dict()) for group, module in backend.modules().items()}


def shapes_of(groups: dict[str, dict[str, torch.Tensor]]) -> dict[str, tuple[int, ...]]:
    return {f"{group}/{name}": tuple(each.shape) for group, named in groups.items() for name, each in named.items()}


def read(groups: dict[str, dict[str, torch.Tensor]]) -> Architecture:
    architecture = SPEC.read_architecture(groups)
    assert architecture is not None
    return architecture


@pytest.mark.parametrize("name", ["vox", "vox-adv", "taichi", "taichi-adv", "fashion", "mgif", "nemo", "bair"])
def test_published_networks_are_read_as_their_presets(name: str, host: Host) -> None:
    preset = load_preset(name, host)
    expected = preset.model_params.model_dump()
    architecture = read(tensors_of(preset.model_params))
    expected["generator_params"]["max_features"] = 256  # 512 is never reached, so no tensor shows it
    assert SPEC.schema().model_validate(architecture.model_params).model_dump() == expected
    assert architecture.frame_shape == preset.frame_shape
    assert "generator: max_features at least 256, taken as 256" in architecture.notes
    assert "keypoint detector: scale 0.25, inferred from its anti-alias filter, 13 pixels wide" in architecture.notes


@pytest.mark.parametrize("name", ["vox-tiny", "vox-adv-tiny", "mgif-tiny"])
def test_golden_checkpoints_are_read_as_their_configuration(name: str, host: Host) -> None:
    checkpoint = torch.load(GOLDEN / f"{name}.pth.tar", weights_only=True, map_location="cpu")
    groups = {group: checkpoint[group] for group in ("generator", "kp_detector", "discriminator")}
    expected = load_preset(str(GOLDEN / f"{name}.model_params.yaml"), host).model_params
    assert SPEC.schema().model_validate(read(groups).model_params) == expected


scale_factors = st.sampled_from([1.0, 0.5, 1 / 3, 0.25, 0.125])
widths = {"block_expansion": st.integers(1, 40), "max_features": st.integers(1, 200), "num_blocks": st.integers(1, 5)}
configurations = st.fixed_dictionaries(
    {
        "common_params": st.fixed_dictionaries(
            {"num_kp": st.integers(1, 12), "num_channels": st.sampled_from([1, 3]), "estimate_jacobian": st.booleans()}
        ),
        "kp_detector_params": st.fixed_dictionaries(
            {**widths, "temperature": st.just(0.1), "scale_factor": scale_factors, "single_jacobian_map": st.booleans()}
        ),
        "generator_params": st.fixed_dictionaries(
            {
                "block_expansion": st.integers(1, 40),
                "max_features": st.integers(40, 200),
                "num_down_blocks": st.integers(0, 3),
                "num_bottleneck_blocks": st.integers(0, 3),
                "estimate_occlusion_map": st.booleans(),
                "blend_source": st.booleans(),
                "embed_keypoints": st.sampled_from([True, None]),
                "dense_motion_params": st.fixed_dictionaries({**widths, "scale_factor": scale_factors}),
            }
        ),
        "discriminator_params": st.none()
        | st.fixed_dictionaries(
            {
                **widths,
                "scales": st.lists(st.sampled_from([1, 1.0, 0.5, 0.25]), min_size=1, max_size=3, unique_by=str),
                "sn": st.booleans(),
                "use_kp": st.booleans(),
            }
        ),
    }
)


@settings(max_examples=40, deadline=None)
@given(configurations)
def test_the_inferred_architecture_builds_the_very_same_tensors(configuration: dict[str, Any]) -> None:
    groups = tensors_of(SPEC.schema().model_validate(configuration))
    assert shapes_of(tensors_of(SPEC.schema().model_validate(read(groups).model_params))) == shapes_of(groups)


def test_the_filter_gives_the_scale_and_the_scale_gives_the_frame_size(host: Host) -> None:
    for scale, width, side in ((0.5, 5, 128), (0.25, 13, 256), (0.125, 29, 512)):
        sets = [
            f"model_params.kp_detector_params.scale_factor={scale}",
            f"model_params.generator_params.dense_motion_params.scale_factor={scale}",
        ]
        groups = tensors_of(load_preset("smoke", host, sets=sets).model_params)
        assert groups["kp_detector"]["down.weight"].shape[-1] == width
        architecture = read(groups)
        assert architecture.model_params["kp_detector_params"]["scale_factor"] == scale
        assert architecture.frame_shape == (side, side, 3)
        assert any(f"frames of {side}x{side} pixels assumed" in note for note in architecture.notes)


def test_a_checkpoint_without_discriminator_is_read_without_one(host: Host) -> None:
    groups = tensors_of(load_preset("smoke", host).model_params)
    del groups["discriminator"]
    assert "discriminator_params" not in read(groups).model_params


def test_one_damaged_tensor_does_not_change_the_reading(host: Host) -> None:
    groups = tensors_of(load_preset("smoke", host).model_params)
    whole = read(groups).model_params
    for group, name in (
        ("kp_detector", "kp.bias"),
        ("kp_detector", "predictor.encoder.down_blocks.1.conv.weight"),
        ("generator", "first.conv.bias"),
        ("generator", "dense_motion_network.hourglass.decoder.up_blocks.2.conv.weight"),
    ):
        for damaged in (None, torch.empty(7, 7, 7, 7, device="meta")):
            changed = {key: dict(named) for key, named in groups.items()}
            del changed[group][name]
            if damaged is not None:
                changed[group][name] = damaged
            assert read(changed).model_params == whole, name


def test_tensors_of_other_models_are_not_read() -> None:
    some = torch.empty(3, 3, 1, 3, 3, device="meta")
    assert SPEC.read_architecture({}) is None
    assert (
        SPEC.read_architecture({"generator": {"first.conv.weight": some}, "kp_detector": {"kp.weight": some}}) is None
    )


def test_contradictions_ask_for_a_preset(host: Host) -> None:
    groups = tensors_of(load_preset("smoke", host).model_params)
    del groups["kp_detector"]["kp.bias"], groups["generator"]["dense_motion_network.mask.bias"]
    groups["kp_detector"]["kp.weight"] = torch.empty(9, 11, 7, 7, device="meta")
    with pytest.raises(UsageError, match="do not agree on the number of keypoints: 9 or 5") as caught:
        read(groups)
    assert "--preset" in str(caught.value.hint)


def test_a_filter_of_no_scale_asks_for_a_preset(host: Host) -> None:
    groups = tensors_of(load_preset("smoke", host).model_params)
    groups["kp_detector"]["down.weight"] = torch.empty(3, 1, 11, 11, device="meta")
    with pytest.raises(UsageError, match="11 pixels wide, which no scale 1/n gives") as caught:
        read(groups)
    assert "--preset" in str(caught.value.hint)
