"""Devices and precisions by name."""

import pytest
import torch

from fommctl.core.fast import devices
from fommctl.core.fast.devices import resolve_device, resolve_precision
from fommctl.core.fast.probe import bf16_speedup
from fommctl.errors import MissingError, UsageError

CPU = torch.device("cpu")


def test_devices_by_name():
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", "mps:0", "", "cuda:-1"])
def test_unknown_devices(name):
    with pytest.raises(UsageError, match="unknown device"):
        resolve_device(name)


def test_absent_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(MissingError) as caught:
            resolve_device(name)
        assert "--device cpu" in caught.value.hint


def test_a_gpu_is_taken_and_one_too_many_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(MissingError, match="cuda:2"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(("speedup", "expected"), [(8, "bf16"), (2, "bf16"), (1.1, "fp32"), (0.3, "fp32")])
def test_auto_precision_follows_the_clock(monkeypatch, speedup, expected):
    monkeypatch.setattr(devices, "bf16_speedup", lambda: speedup)
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("auto", torch.device("mps")) == "fp32"


def test_precisions_by_name():
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert resolve_precision("fp16", torch.device("cuda", 0)) == "fp16"
    with pytest.raises(UsageError, match="unknown precision 'int8'"):
        resolve_precision("int8", CPU)
    with pytest.raises(UsageError, match="fp16"):
        resolve_precision("fp16", CPU)


def test_the_speed_of_bf16_is_measured_once():
    assert bf16_speedup() > 0
    assert bf16_speedup() == bf16_speedup()
