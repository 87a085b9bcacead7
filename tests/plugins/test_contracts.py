"""The contract suites, for everything that is registered by any plugin."""

import pytest
import skimage.data

from fommctl.api import testing
from fommctl.api.specs import SPEC_TYPES
from fommctl.host import Host, load_host
from fommctl.plugin_checks import SUITES, check
from fommctl.presets.preset import preset_names


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in SUITES for name in load_host().names(kind)])
def test_contract(kind: str, name: str, host: Host) -> None:
    result = check(kind, name, host)
    assert result.problem is None


@pytest.mark.parametrize("name", [name for name, spec in load_host().detectors.items() if spec.subject == "face"])
def test_a_face_is_found(name: str, host: Host) -> None:
    testing.check_detector(host.find("detector", name), [skimage.data.astronaut()[:300, 80:380]])


@pytest.mark.parametrize("name", [name for name, spec in load_host().embedders.items() if spec.subject == "face"])
def test_a_face_is_told_apart(name: str, host: Host) -> None:
    testing.check_embedder(host.find("embedder", name), [skimage.data.astronaut()[:300, 80:380]])


def test_models_have_a_file_or_an_address_and_a_preset(host: Host) -> None:
    assert set(SPEC_TYPES) - set(SUITES) == {"model"}
    for model in host.models.values():
        assert (model.path is not None) != bool(model.urls or model.files)
        assert model.path is None or model.path.is_file()
        assert model.preset in preset_names(host)
