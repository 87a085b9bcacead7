"""`--restore`: a network by spandrel on the animated square. Tests that need the package are skipped without it."""

import builtins
import importlib
from pathlib import Path

import pytest
import torch

from fommctl.api import InputError, MissingError, ModelError, StageEvent
from fommctl.home import restorer_file
from fommctl.host import load_host


def asked(path):
    return StageEvent(stage="animate", details={"config": {"restore": None if path is None else str(path)}})


@pytest.fixture
def spandrel():
    """The package, if it is installed with a compatible torchvision."""
    try:
        return importlib.import_module("spandrel")
    except Exception as error:
        pytest.skip(f"spandrel does not load: {error}")


@pytest.fixture
def tiny(spandrel, tmp_path):
    """Write a compact network with random weights that doubles the size of pictures."""
    architecture = importlib.import_module("spandrel.architectures.Compact.__arch.SRVGG")
    torch.manual_seed(0)
    network = architecture.SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2)
    torch.save(network.state_dict(), tmp_path / "tiny.pth")
    return tmp_path / "tiny.pth", network.eval()


def test_runs_that_do_not_ask_for_it_are_left_alone():
    assert load_host().square_filters(asked(None)) == []
    assert load_host().square_filters(StageEvent(stage="train", details={})) == []


@pytest.mark.parametrize("error", [ImportError("no", name="spandrel"), RuntimeError("operator torchvision::nms")])
def test_without_the_package_it_says_what_to_install(monkeypatch, tmp_path, error):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "spandrel":
            raise error
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingError) as caught:
        load_host().square_filters(asked(tmp_path / "a.pth"))
    wanted = "pip install 'fommctl[restore]'" if isinstance(error, ImportError) else "torchvision"
    assert wanted in caught.value.hint
    assert caught.value.exit_code == 5


def test_a_network_with_random_weights_doubles_a_square(tiny):
    path, network = tiny
    (restore,) = load_host().square_filters(asked(path))
    squares = torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        expected = network(squares).clamp(0, 1)
    found = restore(squares)
    assert found.shape == (1, 3, 48, 48)
    assert torch.allclose(found, expected, atol=1e-5)


def test_files_that_are_none(spandrel, tmp_path):
    with pytest.raises(InputError, match="no file"):
        load_host().square_filters(asked(tmp_path / "none.pth"))
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be used"):
        load_host().square_filters(asked(tmp_path / "bad.pth"))


def test_restorers_are_known_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("FOMMCTL_HOME", str(tmp_path))
    (tmp_path / "restorers").mkdir()
    weights = tmp_path / "restorers" / "gentle.safetensors"
    weights.write_bytes(b"")
    assert restorer_file(Path("gentle")) == weights
    for other in ("gentle.pth", "else", "folder/gentle"):
        assert restorer_file(Path(other)) == Path(other)
