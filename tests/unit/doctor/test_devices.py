"""What is said of devices: from facts as they come from machines that are not at hand, and from this one's CPU."""

import math
from pathlib import Path

import pytest

from fommctl.stages.doctor import devices
from fommctl.stages.doctor.looking import devices as looking
from fommctl.stages.doctor.probe import Seen

CPU = {
    "name": "cpu",
    "auto": "fp32",
    "auto_narrow": "fp32",
    "auto_training": "fp32",
    "instructions": "none",
    "decision": "/home/cache/precision-0123.json",
    "speedup": {"bf16": 0.4},
}
TORCH = {
    "version": "2.7.1+cu126",
    "cuda": "12.6",
    "hip": None,
    "threads": 8,
    "instructions": "AVX2",
    "onednn": True,
}
CPU_TORCH = {**TORCH, "version": "2.7.1+cpu", "cuda": None}
DRIVER = {"version": "550.54.15", "cuda": "12.4", "error": "", "gpus": "1"}
CARD = {
    "name": "cuda:0",
    "model": "NVIDIA H100",
    "error": "",
    "capability": "9.0",
    "architectures": ["sm_80", "sm_90"],
    "free": 78 * 2**30,
    "total": 80 * 2**30,
    "auto": "bf16",
    "speedup": {"bf16": 4.5, "fp16": 4.4},
}


def check(*, torch=TORCH, driver=None, cuda=None, mps=None, troubles=None):
    facts = {
        "devices.torch": torch,
        "devices.driver": driver,
        "devices.cpu": CPU,
        "devices.cuda": cuda or {"why": "", "devices": []},
        "devices.mps": mps,
    }
    troubles = troubles or {}
    seen = Seen({key: value for key, value in facts.items() if key not in troubles}, troubles)
    return {finding.name: finding for finding in devices.check_devices(seen)}


def test_a_gpu_that_works():
    found = check(driver=DRIVER, cuda={"why": "", "devices": [CARD]})
    assert found["cuda:0"].level == "ok"
    assert found["cuda:0"].value == (
        "NVIDIA H100, compute 9.0, 78 GB of 80 GB free; --precision auto is bf16; bf16 is 4.5 times as fast as fp32, "
        "fp16 is 4.4 times as fast as fp32"
    )
    assert found["torch"].value == "2.7.1+cu126, CUDA 12.6, 8 threads, AVX2"
    assert found["NVIDIA driver"].value == "550.54.15, knows CUDA up to 12.4"


@pytest.mark.parametrize(
    ("known", "advice"),
    [
        ("12.4", "torch==2.7.1 --index-url https://download.pytorch.org/whl/cu126' (built for CUDA 12)."),
        ("13.1", "torch==2.7.1 --index-url https://download.pytorch.org/whl/cu130' (built for CUDA 13)."),
        ("11.6", "torch==2.7.1 --index-url https://download.pytorch.org/whl/cu118' (built for CUDA 11)."),
        ("10.2", "Update the NVIDIA driver to 525 or newer"),
    ],
)
def test_a_torch_without_cuda_beside_a_driver(known, advice):
    found = check(torch=CPU_TORCH, driver={**DRIVER, "cuda": known})["cuda"]
    assert (found.level, found.stops) == ("problem", False)
    assert advice in found.advice


@pytest.mark.parametrize(
    ("cpu", "value"),
    [
        ({}, "--precision auto is fp32 (no bf16 instructions; kept in /home/cache/precision-0123.json)"),
        (
            {"auto": "bf16", "instructions": "vectors", "decision": None},
            "--precision auto is bf16, fp32 for models of few channels, fp32 in training (AVX-512 bf16, no AMX tiles)",
        ),
        (
            {"auto": "bf16", "auto_narrow": "bf16", "auto_training": "bf16", "instructions": "tiles", "decision": None},
            "--precision auto is bf16 (AMX tiles)",
        ),
    ],
)
def test_the_cpu_says_what_auto_is_and_why(cpu, value):
    seen = Seen({"devices.torch": TORCH, "devices.cpu": {**CPU, **cpu}}, {})
    found = {finding.name: finding for finding in devices.check_devices(seen)}
    assert found["cpu"].value == f"{value}; bf16 is 0.4 times as fast as fp32"


def test_neither_driver_nor_gpu_is_no_problem():
    assert "cuda" not in check(torch=CPU_TORCH)
    assert check(torch=TORCH)["cuda"].level == "ok"
    assert "cuda" not in check(torch=CPU_TORCH, driver={**DRIVER, "gpus": "0"})


def test_a_driver_that_is_too_old_for_torch():
    torch = {**TORCH, "version": "2.10.0+cu130", "cuda": "13.0"}
    cuda = {"why": "the NVIDIA driver is too old (found version 12040)", "devices": []}
    found = check(torch=torch, driver=DRIVER, cuda=cuda)["cuda"]
    assert "the NVIDIA driver is too old" in found.value
    assert found.advice.startswith("torch was built for CUDA 13.0: update the driver, or: Run 'pip install")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("AcceleratorError: CUDA error: no kernel image is available", "This torch holds sm_80, sm_90: install one"),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB", "Another process holds its memory"),
        ("RuntimeError: CUDA error: unspecified launch failure", "Give --device cpu until cuda:0 works"),
    ],
)
def test_a_gpu_that_fails_at_first_use(error, advice):
    found = check(driver=DRIVER, cuda={"why": "", "devices": [{**CARD, "error": error}]})["cuda:0"]
    assert (found.level, found.stops) == ("problem", True)
    assert found.advice.startswith(advice)
    second = check(driver=DRIVER, cuda={"why": "", "devices": [CARD, {**CARD, "name": "cuda:1", "error": error}]})
    assert (second["cuda:1"].level, second["cuda:1"].stops) == ("problem", False)


def test_little_free_memory_is_noted():
    found = check(driver=DRIVER, cuda={"why": "", "devices": [{**CARD, "free": 2**30}]})["cuda:0"]
    assert found.level == "note"
    assert "nvidia-smi" in found.advice


def test_a_driver_that_ends_the_process():
    found = check(troubles={"devices.cuda": "ended the process with SIGSEGV"})["cuda"]
    assert (found.stops, found.value) == (True, "cannot be used: ended the process with SIGSEGV")
    assert found.advice.startswith("Give --device cpu")


def test_without_torch_nothing_else_is_said():
    found = check(troubles={"devices.torch": "ImportError: libtorch.so"})
    assert list(found) == ["torch"]
    assert found["torch"].stops


def test_mps():
    mps = {"name": "mps", "error": "", "total": 16 * 2**30, "auto": "fp32", "speedup": {"bf16": 0.9, "fp16": 1.2}}
    assert check(torch=CPU_TORCH, mps=mps)["mps"].value.startswith("16 GB; --precision auto is fp32")
    assert check(torch=CPU_TORCH, mps={**mps, "error": "RuntimeError: x"})["mps"].level == "problem"


def test_the_cpu_of_this_machine():
    found = looking.look("cpu")
    assert found["auto"] in ("fp32", "bf16")
    assert math.isfinite(found["speedup"]["bf16"])
    assert found["auto"] == ("fp32" if found["instructions"] == "none" else "bf16")
    assert Path(found["decision"]).is_file()
    assert looking.look("torch")["threads"] >= 1


def test_measuring_tells_times_and_checks_the_sums(monkeypatch):
    import torch

    # fp16 is slow on a CPU.
    measure = looking._convolution
    monkeypatch.setattr(looking, "_convolution", lambda *where, pictures=1, side=4: measure(*where[:3], pictures, side))
    monkeypatch.setattr(looking, "_ROUNDS", 1)
    found = looking._measured(torch.device("cpu"), lambda: None)
    assert set(found["speedup"]) == {"bf16", "fp16"}
    assert all(factor > 0 for factor in found["speedup"].values())


@pytest.mark.parametrize(
    ("script", "gpus", "error"),
    [
        ("echo 'GPU 0: NVIDIA H100 (UUID: GPU-1234)'; echo 'GPU 1: NVIDIA H100 (UUID: GPU-5678)'", "2", ""),
        ("echo 'No devices were found'", "0", ""),
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "0", "Failed to initialize"),
        ("exit 9", "0", "exit code 9"),
    ],
)
def test_the_driver_is_asked(script, gpus, error, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = looking.look("driver")
    assert (found["gpus"], found["error"][:20]) == (gpus, error)
    assert "GPU-1234" not in str(found)
    said = check(torch=CPU_TORCH, driver=found)
    assert (said["NVIDIA driver"].level == "note") == bool(error)
    assert ("cuda" in said) == (gpus == "2")


def test_the_summary():
    seen = Seen({"devices.cpu": CPU, "devices.cuda": {"why": "", "devices": [CARD]}, "devices.mps": None})
    cpu, card = devices.summary(seen)
    assert (cpu["kind"], cpu["name"], cpu["auto"]) == ("cpu", "cpu", "fp32")
    assert card == {"kind": "cuda", **CARD}
