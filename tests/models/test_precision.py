"""`--precision auto`: one decision per machine, stored, and the same in all processes."""

import json

import pytest
import torch
from torch import nn

from fommctl.errors import UsageError
from fommctl.models import precision
from fommctl.models.precision import choose_precision, choose_training_precision, decision, widest
from fommctl.networks.inference.devices import cpu_precisions

CPU = torch.device("cpu")
NARROW, WIDE = ({"generator": nn.Conv2d(channels, channels, 3)} for channels in (64, 128))


@pytest.fixture(autouse=True)
def forget():
    """Forget the decision, so that each test is like a new process."""
    precision._decision.cache_clear()


def pretend(monkeypatch, instructions):
    precision._decision.cache_clear()
    monkeypatch.setattr(precision, "bf16_instructions", lambda: instructions)


@pytest.mark.parametrize(
    ("instructions", "found"),
    [
        ("tiles", ["bf16", "bf16", "bf16"]),
        ("vectors", ["bf16", "fp32", "fp32"]),
        ("none", ["fp32", "fp32", "fp32"]),
    ],
)
def test_auto_by_instructions_and_model(monkeypatch, instructions, found):
    pretend(monkeypatch, instructions)
    chosen = [choose_precision("auto", CPU, modules) for modules in (WIDE, NARROW)]
    assert [*chosen, choose_training_precision("auto", CPU)] == found


@pytest.mark.parametrize("instructions", ["tiles", "none"])
def test_a_precision_that_is_named_is_taken_and_decides_nothing(isolated, monkeypatch, caplog, instructions):
    monkeypatch.setattr(precision, "bf16_instructions", lambda: instructions)
    assert choose_precision("bf16", CPU, NARROW) == "bf16"
    caplog.clear()
    assert choose_training_precision("bf16", CPU) == "bf16"
    slow = "--precision bf16: this processor has no instructions for it; fp32 is many times as fast"
    assert caplog.messages == ([slow] if instructions == "none" else [])
    with pytest.raises(UsageError, match="fp16"):
        choose_precision("fp16", CPU, WIDE)
    assert not (isolated / "cache").exists()


def test_the_widest_convolution_of_what_renders():
    modules = {
        "generator": nn.Sequential(nn.Conv2d(3, 512, 7), nn.Conv2d(512, 96, 1), nn.Linear(900, 900)),
        "discriminator": nn.Conv2d(512, 512, 3),
    }
    assert widest(modules) == 96
    assert widest({}) == 0


def test_the_decision_is_kept_and_followed(monkeypatch, isolated):
    pretend(monkeypatch, "vectors")
    first = decision()
    assert first.kept
    assert first.path.parent == isolated / "cache"
    held = json.loads(first.path.read_text())
    assert held["precisions"] == {"wide": "bf16", "narrow": "fp32", "training": "fp32"}
    assert held["instructions"] == "vectors"
    first.path.write_text(json.dumps({**held, "precisions": {**held["precisions"], "wide": "fp32"}}))
    precision._decision.cache_clear()
    assert choose_precision("auto", CPU, WIDE) == "fp32"


def test_another_torch_or_cpu_decides_anew(monkeypatch):
    pretend(monkeypatch, "vectors")
    first = decision()
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    second = decision()
    monkeypatch.setattr(precision, "processor", lambda: ("Another CPU", frozenset()))
    assert len({first.path, second.path, decision().path}) == 3


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[1]",
        b"\xff\xfe",
        b'{"precisions": {"wide": "bf16"}}',
        b'{"precisions": {"wide": 1, "narrow": [], "training": "fp32"}}',
    ],
)
def test_a_damaged_file_is_written_again(monkeypatch, damage):
    pretend(monkeypatch, "vectors")
    path = decision().path
    whole = path.read_bytes()
    path.write_bytes(damage)
    pretend(monkeypatch, "vectors")
    assert decision().precisions == cpu_precisions("vectors")
    assert path.read_bytes() == whole


def test_a_value_that_is_no_precision_is_not_followed(monkeypatch):
    pretend(monkeypatch, "vectors")
    path = decision().path
    path.write_text(path.read_text().replace('"bf16"', '"fp16"'))
    pretend(monkeypatch, "vectors")
    assert choose_precision("auto", CPU, WIDE) == "bf16"


def test_a_home_that_cannot_be_made_changes_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FOMMCTL_HOME", str(tmp_path / "file" / "home"))
    pretend(monkeypatch, "vectors")
    assert choose_precision("auto", CPU, WIDE) == "bf16"
    assert not decision().kept
