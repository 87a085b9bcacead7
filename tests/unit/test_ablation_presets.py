"""The presets of the ablation of FOMM (Siarohin et al. 2019, table 1) differ from the full model by what they name."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
import yaml

from fommctl.host import Host
from fommctl.presets import find_preset, load_preset

ONE_SCALE = {"train_params.scales": (1,)}
NO_OCCLUSION_MAP = {"model_params.generator_params.estimate_occlusion_map": False}
NO_JACOBIANS = {
    "model_params.common_params.estimate_jacobian": False,
    "train_params.loss_weights.equivariance_jacobian": 0,
    "animate_params.normalization_params.use_relative_jacobian": False,
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "taichi-baseline": {**ONE_SCALE, **NO_OCCLUSION_MAP, **NO_JACOBIANS},
    "taichi-pyramid": {**NO_OCCLUSION_MAP, **NO_JACOBIANS},
    "taichi-occlusion": NO_JACOBIANS,
    "taichi-jacobian": {"train_params.loss_weights.equivariance_jacobian": 0},
}


def leaves(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def configuration(name: str, host: Host) -> dict[str, Any]:
    """What a preset holds, by dotted key."""
    preset = load_preset(name, host)
    sections = {"model_params": preset.model_params, **preset.sections}
    return dict(leaves({key: section.model_dump() for key, section in sections.items()}))


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_the_full_model_without_what_it_leaves_out(name: str, host: Host) -> None:
    full, own = configuration("taichi-256", host), configuration(name, host)
    assert own.keys() == full.keys()
    assert {key: value for key, value in own.items() if value != full[key]} == ABLATIONS[name]


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_complete(name: str, host: Host) -> None:
    data = yaml.safe_load(find_preset(name, host).path.read_text())
    assert "extends" not in data
    assert data.keys() == yaml.safe_load(find_preset("taichi-256", host).path.read_text()).keys()


@pytest.mark.parametrize("name", ABLATIONS)
def test_what_is_left_out_is_not_in_the_networks(name: str, host: Host) -> None:
    preset = load_preset(name, host)
    with torch.device("meta"):
        tensors = host.backends["fomm"].build(preset.model_params).modules()
    detector, generator = (set(tensors[group].state_dict()) for group in ("kp_detector", "generator"))
    has_jacobians, has_occlusion_map = name == "taichi-jacobian", name in ("taichi-occlusion", "taichi-jacobian")
    assert ("jacobian.weight" in detector) is has_jacobians
    assert ("dense_motion_network.occlusion.weight" in generator) is has_occlusion_map
