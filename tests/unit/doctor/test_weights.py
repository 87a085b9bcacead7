"""Weights that are whole, cut short, changed, absent; real files."""

import base64
import hashlib
import shutil

import pytest
import torch
import weights_plugin
from safetensors.torch import save_file

from fommctl.models.registry import BUILT_IN
from fommctl.stages.doctor import weights
from fommctl.stages.doctor.looking import weights as looking
from fommctl.stages.doctor.probe import Seen


def built_in(path):
    found = looking.built_in(path)
    (finding, *_) = weights.check_weights(Seen({"weights.built-in": found}))
    return finding


def test_the_built_in_model_is_whole():
    finding = built_in(BUILT_IN.path)
    digest = hashlib.sha256(BUILT_IN.path.read_bytes()).hexdigest()
    assert finding.level == "ok"
    assert finding.value.endswith(f"SHA-256 {digest[:16]}...")
    assert weights.versions(Seen({"weights.built-in": looking.look("built-in")})) == {"built-in model": digest}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (lambda whole: whole[:-1], "its header states"),
        (lambda whole: whole[:1000], "claims a header of"),
        (lambda whole: b"", "is empty"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (lambda whole: whole[:20] + b"\xff" * 40 + whole[60:], "header"),
    ],
    ids=["cut at the end", "cut in the header", "empty", "pointer", "header overwritten"],
)
def test_a_damaged_built_in_model(content, fault, tmp_path):
    path = tmp_path / "faces-mini.safetensors"
    path.write_bytes(content(BUILT_IN.path.read_bytes()))
    finding = built_in(path)
    assert (finding.level, finding.stops) == ("problem", True)
    assert fault in finding.value
    assert str(path) in finding.value
    assert "pip install --force-reinstall --no-deps fommctl" in finding.advice


def test_an_absent_built_in_model(tmp_path):
    assert built_in(tmp_path / "gone").value == f"{tmp_path / 'gone'}: is not there"


def test_a_changed_byte_is_told_by_what_the_installer_noted(tmp_path, monkeypatch):
    info = tmp_path / "fommctl-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fommctl\nVersion: 9\n")
    digest = hashlib.sha256(BUILT_IN.path.read_bytes()).digest()
    noted = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    (info / "RECORD").write_text(f"fommctl/models/builtin/faces-mini.safetensors,sha256={noted},4578918\n")
    monkeypatch.syspath_prepend(tmp_path)
    copy = tmp_path / "faces-mini.safetensors"
    shutil.copy(BUILT_IN.path, copy)
    assert built_in(copy).level == "ok"
    with copy.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    finding = built_in(copy)
    assert finding.stops
    assert finding.value.endswith(f"is not the installed {digest.hex()}")


def test_a_process_that_ended_at_the_built_in_model():
    (finding, *_) = weights.check_weights(Seen({}, {"weights.built-in": "ended the process with SIGBUS"}))
    assert (finding.value, finding.stops) == ("cannot be looked at: ended the process with SIGBUS", True)


@pytest.fixture
def registered(tmp_path, monkeypatch, isolated):
    """registered({name: content or None}, sha256={name: digest}) -> the findings by name."""

    def look(contents, imported=None, **digests):
        specs = [
            weights_plugin.spec(name, f"https://example.org/{name}.pth.tar", sha256=digests.get(name))
            for name in contents
        ]
        monkeypatch.syspath_prepend(weights_plugin.write_distribution(tmp_path / "dist", ", ".join(specs)))
        folder = isolated / "models"
        folder.mkdir()
        for name, content in contents.items():
            if content is not None:
                (folder / f"{name}.pth.tar").write_bytes(content)
        if imported is not None:
            save_file({"x": torch.zeros(1000)}, folder / "mine.safetensors")
            whole = (folder / "mine.safetensors").read_bytes()
            (folder / "mine.safetensors").write_bytes(whole[:imported])
        looking._loaded.cache_clear()
        seen = Seen({"weights.built-in": looking.look("built-in"), "weights.registered": looking.look("registered")})
        looking._loaded.cache_clear()
        return {finding.name: finding for finding in weights.check_weights(seen)}

    return look


def test_pulled_models(registered):
    zipped = b"PK\x03\x04" + b"weights" * 100
    right, wrong = hashlib.sha256(zipped).hexdigest(), "0" * 64
    found = registered(
        {"right": zipped, "wrong": zipped, "page": b"<!doctype html>", "absent": None, "unknown": zipped},
        right=right,
        wrong=wrong,
    )
    assert (found["right"].level, found["right"].value.endswith("right.pth.tar, SHA-256 right")) == ("ok", True)
    assert found["wrong"].level == "problem"
    assert found["wrong"].value == "has another SHA-256 than it should"
    assert found["wrong"].advice.endswith("and run 'fommctl models pull wrong'.")
    assert found["page"].value.endswith("is a web page, not a model")
    assert found["unknown"].level == "ok"
    assert "absent" in found["not pulled"].value.split(", ")
    assert found["not pulled"].advice == "Run 'fommctl models pull NAME' for those that you need."
    assert not any(finding.stops for finding in found.values())


def test_an_imported_model_that_was_cut_short(registered):
    found = registered({}, imported=100)
    assert found["mine"].level == "problem"
    assert "has 100 bytes, its header states 4,0" in found["mine"].value


@pytest.mark.parametrize(("content", "level"), [(None, "note"), (b"not VGG", "problem")])
def test_the_perceptual_network(content, level, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    if content is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    found = looking.look("perceptual")
    assert found["path"] == str(path)
    finding = weights._perceptual(Seen({weights.PERCEPTUAL: found}))
    assert finding.level == level
    assert str(path) in finding.advice


def test_offline_is_told(monkeypatch):
    assert weights._network().value == "downloads are forbidden by FOMMCTL_OFFLINE"
    monkeypatch.delenv("FOMMCTL_OFFLINE")
    assert weights._network().value == "downloads are allowed"
