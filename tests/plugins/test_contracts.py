"""The contract suites over everything that is registered, whoever made it."""

from collections.abc import Callable
from typing import Any

import pytest
import skimage.data

from fommctl.api import BackendSpec, DetectorSpec, testing
from fommctl.api.validation import SPEC_TYPES
from fommctl.host import Host, load_host
from fommctl.presets import load_preset, preset_names


def check_backend(spec: BackendSpec, host: Host) -> None:
    """With the preset of this backend that has the smallest frames."""
    presets = [load_preset(name, host) for name in preset_names(host)]
    preset = min((each for each in presets if each.backend == spec.name), key=lambda each: each.frame_shape)
    testing.check_backend(spec, preset.model_params.model_dump(exclude_unset=True), preset.frame_shape)


def check_detector(spec: DetectorSpec, host: Host) -> None:
    testing.check_detector(spec, [skimage.data.astronaut()[:300, 80:380]] if spec.subject == "face" else [])


SUITES: dict[str, Callable[[Any, Host], None]] = {
    "backend": check_backend,
    "detector": check_detector,
    "dataset": lambda spec, host: testing.check_dataset(spec),
    "metric": lambda spec, host: testing.check_metric(spec),
    "command": lambda spec, host: testing.check_command(spec),
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in SUITES for name in load_host().names(kind)])
def test_contract(kind: str, name: str, host: Host) -> None:
    SUITES[kind](host.find(kind, name), host)


def test_what_has_no_suite_has_a_file_or_an_address(host: Host) -> None:
    assert set(SPEC_TYPES) - set(SUITES) == {"preset", "model"}
    assert all(spec.path.is_file() for spec in host.presets.values())
    for model in host.models.values():
        assert (model.path is not None) != bool(model.urls)
        assert model.path is None or model.path.is_file()
        assert model.preset in preset_names(host)
