"""From a name, a path or a preset to networks with weights, and errors if they do not fit."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fommctl.errors import MissingError, ModelError, UsageError
from fommctl.host import Host, load_host
from fommctl.models import registry
from fommctl.models.checkpoint import read_checkpoint, write_native
from fommctl.models.loading import import_model, load_model
from fommctl.presets.preset import load_preset

GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"
TINY = GOLDEN / "vox-tiny.pth.tar"
TINY_PRESET = str(GOLDEN / "vox-tiny.model_params.yaml")


def published() -> dict[str, Any]:
    content: dict[str, Any] = torch.load(TINY, weights_only=True)
    return content


def assert_holds(network: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    own = network.state_dict()
    assert all(torch.equal(own[name].double(), tensor.double()) for name, tensor in tensors.items())


def test_without_a_name_the_built_in_model_is_loaded(host: Host) -> None:
    model = load_model(None, host)
    assert (model.name, model.preset.name, model.preset.backend) == ("faces-mini", "faces-mini", "fomm")
    assert model.preset.frame_shape == (256, 256, 3)
    assert model.preset.framing == load_preset("faces-mini", host).framing
    assert model.groups == ("generator", "kp_detector")
    assert model.notes == ()
    assert not any(network.training for network in model.backend.modules().values())
    assert all(
        tensor.dtype != torch.half for n in model.backend.modules().values() for tensor in n.state_dict().values()
    )


def test_the_preset_stored_in_the_built_in_model_is_the_shipped_one(host: Host) -> None:
    stored, shipped = load_model(None, host).preset, load_preset("faces-mini", host)
    assert stored.model_params == shipped.model_params
    assert stored.frame_shape == shipped.frame_shape


def test_the_built_in_model_is_loaded_by_its_name_and_by_its_preset(host: Host) -> None:
    for model in (load_model("faces-mini", host), load_model(None, host, preset="faces-mini")):
        assert (model.name, model.preset.name) == ("faces-mini", "faces-mini")


def test_a_published_file_fits_its_published_configuration(host: Host) -> None:
    model = load_model(str(TINY), host, preset=TINY_PRESET)
    assert model.name == "vox-tiny"
    assert model.preset.frame_shape == (64, 64, 3)
    for group in ("generator", "kp_detector", "discriminator"):
        assert_holds(model.backend.modules()[group], published()[group])


def test_without_a_preset_the_architecture_is_read_off_the_tensors_and_announced(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fommctl"):
        model = load_model(str(TINY), host)
    given = load_preset(TINY_PRESET, host)
    assert model.preset.model_params == given.model_params
    assert model.preset.framing is None
    assert any("scale 0.25" in note for note in model.notes)
    assert [record.message for record in caplog.records] == [
        "vox-tiny: no preset given, so its architecture was inferred from its tensors: " + "; ".join(model.notes)
    ]
    assert_holds(model.backend.modules()["generator"], published()["generator"])


def test_overrides_reach_the_networks(host: Host) -> None:
    changes = ["model_params.kp_detector_params.temperature=0.2"]
    for kwargs in ({"preset": TINY_PRESET}, {}):
        params: Any = load_model(str(TINY), host, sets=changes, **kwargs).preset.model_params
        assert params.kp_detector_params.temperature == 0.2
    stored: Any = load_model(None, host, sets=changes).preset.model_params
    assert stored.kp_detector_params.temperature == 0.2


@pytest.mark.parametrize("preset", [TINY_PRESET, None], ids=["preset", "inferred"])
def test_counters_filters_and_the_discriminator_may_be_absent(preset: str | None, host: Host, tmp_path: Path) -> None:
    content = published()
    for group in ("generator", "kp_detector"):
        content[group] = {
            name: tensor
            for name, tensor in content[group].items()
            if not name.endswith("num_batches_tracked") and (preset is None or not name.endswith("down.weight"))
        }
    del content["discriminator"], content["optimizer_generator"]
    path = tmp_path / "small.pth.tar"
    torch.save(content, path)
    model = load_model(str(path), host, preset=preset)
    assert model.groups == ("generator", "kp_detector")
    assert_holds(model.backend.modules()["generator"], content["generator"])


def test_tensors_that_do_not_fit_are_listed_by_name_and_shape(host: Host, tmp_path: Path) -> None:
    content = published()
    del content["kp_detector"]["kp.bias"]
    content["generator"]["surprise"] = torch.ones(2, 3)
    content["generator"]["final.bias"] = torch.ones(4)
    path = tmp_path / "odd.pth.tar"
    torch.save(content, path)
    with pytest.raises(ModelError) as error:
        load_model(str(path), host, preset=TINY_PRESET)
    lines = error.value.message.splitlines()
    assert lines[0].startswith(f"{path} does not fit the preset vox-tiny")
    assert lines[1:] == [
        "  1 missing: kp_detector/kp.bias (5,)",
        "  1 unexpected: generator/surprise (2, 3)",
        "  1 wrongly shaped: generator/final.bias (4,) instead of (3,)",
    ]
    assert error.value.exit_code == 4


def test_another_architecture_is_refused_with_the_first_names_and_all_counts(host: Host) -> None:
    with pytest.raises(ModelError) as error:
        load_model(str(TINY), host, preset="faces-mini")
    missing, wrong = error.value.message.splitlines()[1:]
    # One more level in two hourglasses (4 blocks of 6 tensors), two more residual blocks (of 12), one more head and an
    # embedding (2 each).
    assert missing.startswith("  52 missing: generator/dense_motion_network.hourglass.")
    assert missing.count("generator/") == 8
    assert missing.endswith(", ...")
    assert " wrongly shaped: " in wrong
    assert error.value.hint is not None
    assert "--preset" in error.value.hint


def test_a_file_without_a_network_is_refused(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "half.pth.tar"
    torch.save({"generator": published()["generator"]}, path)
    with pytest.raises(ModelError, match="lacks the networks kp_detector of a fomm model; it holds generator"):
        load_model(str(path), host, preset=TINY_PRESET)


def test_a_model_of_no_known_kind_is_refused(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "other.pth.tar"
    torch.save({"inpainting_network": {"a": torch.ones(2)}, "bg_predictor": {"b": torch.ones(2)}}, path)
    with pytest.raises(
        ModelError, match="is not a known kind of model; its groups are inpainting_network, bg_predictor"
    ):
        load_model(str(path), host)


def test_tensors_that_contradict_each_other_are_a_usage_error(host: Host, tmp_path: Path) -> None:
    content = published()
    content["kp_detector"]["down.weight"] = torch.ones(3, 1, 4, 4)
    path = tmp_path / "odd.pth.tar"
    torch.save(content, path)
    with pytest.raises(UsageError, match="no scale"):
        load_model(str(path), host)


def test_unknown_names_get_the_nearest_one(host: Host) -> None:
    with pytest.raises(UsageError, match="unknown model 'vox-advv'") as error:
        load_model("vox-advv", host)
    assert error.value.hint is not None
    assert error.value.hint.startswith("Did you mean 'vox-adv'?")


def test_a_path_is_recognised_by_its_separator_its_suffix_or_its_existence(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("none.pth.tar", "./vox", "folder/vox"):
        with pytest.raises(ModelError, match="there is no model file"):
            load_model(name, host)
    (tmp_path / "plain").write_bytes(TINY.read_bytes())
    assert load_model("plain", host).name == "plain"
    (tmp_path / "vox").write_bytes(TINY.read_bytes())
    with pytest.raises(MissingError, match="the weights of vox are not on this machine"):
        load_model("vox", host)
    assert load_model("./vox", host).name == "vox"


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"model": "taichi"}, "taichi"),
        ({"model": None, "preset": "vox"}, "vox"),
        ({"model": None, "preset": "vox-adv"}, "vox-adv"),
        ({"model": None, "preset": "mgif-256"}, "mgif"),
    ],
)
def test_weights_that_are_not_here_come_with_the_command_to_pull_them(
    kwargs: dict[str, Any], name: str, host: Host
) -> None:
    with pytest.raises(MissingError, match=f"the weights of {name} are not on this machine") as error:
        load_model(host=host, **kwargs)
    assert error.value.hint == f"Run 'fommctl models pull {name}'."
    assert error.value.exit_code == 5


def test_a_preset_alone_takes_whichever_of_its_weights_are_here(host: Host) -> None:
    import_model(TINY, host, name="vox-adv-small", preset=TINY_PRESET)
    with pytest.raises(ModelError, match=r"does not fit the preset vox-adv-256"):
        load_model(None, host, preset="vox-adv")


def test_a_preset_without_weights_asks_for_a_model(host: Host) -> None:
    with pytest.raises(UsageError, match="no weights are registered for the preset smoke"):
        load_model(None, host, preset="smoke")


def test_a_native_file_brings_its_own_preset_and_a_given_one_wins(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    preset = load_preset(TINY_PRESET, host, sets=["model_params.kp_detector_params.temperature=0.3"])
    write_native(path, read_checkpoint(TINY).groups, {"backend": "fomm", "preset": preset.text()})
    model = load_model(str(path), host)
    assert model.preset.model_params == preset.model_params
    assert model.preset.frame_shape == (64, 64, 3)
    given: Any = load_model(str(path), host, preset=TINY_PRESET).preset.model_params
    assert given.kp_detector_params.temperature == 0.1


@pytest.mark.parametrize(
    "text", ["a: [", "model_params: {}", "!!python/object/apply:os.system ['true']", "backend: none"]
)
def test_a_stored_preset_that_cannot_be_used_is_a_model_error(text: str, host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_native(path, read_checkpoint(TINY).groups, {"preset": text})
    with pytest.raises(ModelError, match=r"the preset stored in .* cannot be used"):
        load_model(str(path), host)


def test_an_imported_model_renders_the_same_frames(host: Host) -> None:
    import_model(TINY, host, name="mine", preset=TINY_PRESET)
    assert registry.find("mine", host).status == "available"
    original, imported = (load_model(name, host, preset=TINY_PRESET).backend for name in (str(TINY), "mine"))
    frame = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    motions = [backend.modules()["kp_detector"](frame).keypoints for backend in (original, imported)]
    assert torch.equal(*motions)


ROGUE = """
    from fommctl.api import BackendSpec, hookimpl


    def fails(*given):
        for each in given:
            each.clear()
        raise RuntimeError("no idea")


    @hookimpl
    def fommctl_backends():
        fields = {{"schema": fails, "recognises": lambda params: 0.5, "build": fails, "{function}": fails}}
        yield BackendSpec(name="a-rogue", summary="s", **fields)
"""


@pytest.mark.parametrize("function", ["from_published", "read_architecture", "recognises"])
def test_a_plugin_that_fails_does_not_keep_others_from_a_model(
    third_party: Callable[..., None], caplog: pytest.LogCaptureFixture, function: str
) -> None:
    """The plugin also empties its argument, which must not affect the others."""
    third_party(ROGUE.format(function=function))
    host = load_host()
    model = load_model(str(TINY), host, preset=TINY_PRESET if function == "recognises" else None)
    assert (model.preset.backend, len(model.groups)) == ("fomm", 3)
    problem = f"{function} of the backend 'a-rogue' failed: RuntimeError: no idea"
    assert [each.problem for each in host.plugins if each.name == "good"] == [problem]
    assert caplog.text.count(f"plugin 'good' (good_plugin) of good-plugin: {problem}") == 1


def test_the_surest_backend_gets_a_configuration(third_party: Callable[..., None]) -> None:
    third_party(ROGUE.format(function="schema"))
    assert load_model(str(TINY), load_host(), preset=TINY_PRESET).preset.backend == "fomm"
