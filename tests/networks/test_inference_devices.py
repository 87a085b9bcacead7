"""Devices and precisions by name."""

import pytest
import torch

from fommctl.errors import MissingError, UsageError
from fommctl.networks.inference.convolutions import bf16_instructions
from fommctl.networks.inference.devices import (
    cpu_precisions,
    resolve_device,
    resolve_precision,
    resolve_training_precision,
)

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


@pytest.mark.parametrize(
    ("instructions", "wide", "narrow", "training"),
    [("tiles", "bf16", "bf16", "bf16"), ("vectors", "bf16", "fp32", "fp32"), ("none", "fp32", "fp32", "fp32")],
)
def test_what_auto_is_on_a_cpu(instructions, wide, narrow, training):
    precisions = cpu_precisions(instructions)
    assert (precisions.wide, precisions.narrow, precisions.training) == (wide, narrow, training)
    assert [precisions.for_channels(channels) for channels in (95, 96)] == [narrow, wide]


@pytest.mark.parametrize(
    ("limit", "tile_flag", "granted", "vector_flag", "expected"),
    [
        ("", True, True, True, "tiles"),
        ("", True, False, True, "vectors"),
        ("", False, False, True, "vectors"),
        ("", False, False, False, "none"),
        ("AVX512_CORE_BF16", True, True, True, "vectors"),
        ("avx10_1_512_amx", True, True, True, "tiles"),
        ("AVX512_CORE", True, True, True, "none"),
        ("AVX2", True, True, True, "none"),
    ],
)
def test_bf16_instructions(monkeypatch, limit, tile_flag, granted, vector_flag, expected):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tile_flag)
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: granted)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: vector_flag)
    assert bf16_instructions.__wrapped__() == expected


def test_a_build_without_onednn_has_no_bf16_instructions(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert bf16_instructions.__wrapped__() == "none"


def test_auto_is_what_was_decided_for_the_cpu():
    assert [resolve_precision("auto", CPU, on_cpu=name) for name in ("bf16", "fp32")] == ["bf16", "fp32"]
    assert resolve_precision("auto", torch.device("mps"), on_cpu="bf16") == "fp32"
    assert [resolve_training_precision("auto", CPU, on_cpu=name) for name in ("bf16", "fp32")] == ["bf16", "fp32"]
    assert resolve_training_precision("auto", torch.device("mps"), on_cpu="bf16") == "fp32"


def test_precisions_by_name():
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert resolve_precision("fp16", torch.device("cuda", 0)) == "fp16"
    with pytest.raises(UsageError, match="unknown precision 'int8'"):
        resolve_precision("int8", CPU)
    with pytest.raises(UsageError, match="fp16"):
        resolve_precision("fp16", CPU)
