"""The presets of FOMM's ablation (Siarohin et al. 2019, table 1) differ from the full model by what their names say."""

from typing import Any

import pytest
import torch
import yaml
from configurations import configuration

from fommctl.host import Host
from fommctl.presets.preset import find_preset, load_preset

FULL = {"taichi-256": "taichi", "small-fomm": "small-fomm"}
"""The full models, and the prefixes of their ablations' names."""
ONE_SCALE = {"train_params.scales": (1,)}
NO_OCCLUSION_MAP = {"model_params.generator_params.estimate_occlusion_map": False}
NO_JACOBIANS = {
    "model_params.common_params.estimate_jacobian": False,
    "train_params.loss_weights.equivariance_jacobian": 0,
    "animate_params.normalization_params.use_relative_jacobian": False,
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "baseline": {**ONE_SCALE, **NO_OCCLUSION_MAP, **NO_JACOBIANS},
    "pyramid": {**NO_OCCLUSION_MAP, **NO_JACOBIANS},
    "occlusion": NO_JACOBIANS,
    "jacobian": {"train_params.loss_weights.equivariance_jacobian": 0},
}
EACH = [(full, f"{prefix}-{what}") for full, prefix in FULL.items() for what in ABLATIONS]


@pytest.mark.parametrize(("full", "name"), EACH)
def test_an_ablation_is_the_full_model_without_what_it_leaves_out(full: str, name: str, host: Host) -> None:
    whole, own = (configuration(load_preset(each, host)) for each in (full, name))
    assert own.keys() == whole.keys()
    assert {key: value for key, value in own.items() if value != whole[key]} == ABLATIONS[name.rpartition("-")[2]]


@pytest.mark.parametrize(("full", "name"), EACH)
def test_an_ablation_is_complete(full: str, name: str, host: Host) -> None:
    data = yaml.safe_load(find_preset(name, host).path.read_text())
    assert "extends" not in data
    assert data.keys() == yaml.safe_load(find_preset(full, host).path.read_text()).keys()


@pytest.mark.parametrize(("full", "name"), EACH)
def test_what_is_left_out_is_not_in_the_networks(full: str, name: str, host: Host) -> None:
    preset = load_preset(name, host)
    with torch.device("meta"):
        tensors = host.backends["fomm"].build(preset.model_params).modules()
    detector, generator = (set(tensors[group].state_dict()) for group in ("kp_detector", "generator"))
    what = name.rpartition("-")[2]
    assert ("jacobian.weight" in detector) is (what == "jacobian")
    assert ("dense_motion_network.occlusion.weight" in generator) is (what in ("occlusion", "jacobian"))
