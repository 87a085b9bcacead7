"""The devices: which there are, which precision is fast on each, and why one is not used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fommctl.machine import processor, usable_cores
from fommctl.stages.doctor.findings import Finding
from fommctl.stages.doctor.machine import in_bytes
from fommctl.stages.doctor.probe import Seen

AREA = "devices"
ITEMS = ("devices.driver", "devices.torch", "devices.cpu", "devices.cuda", "devices.mps")
WHEELS = ((13, "cu130", "13.0"), (12, "cu126", "12.6"), (11, "cu118", "11.8"))
"""By the major version of CUDA that a driver knows: the wheels of torch for it, and the CUDA that they were built with.
A driver runs what was built for any minor version of its major one."""
LITTLE_MEMORY = 2 * 2**30
"""Free bytes of a GPU; vox-256 in batches of 8 takes about 1.5 GB."""


def summary(seen: Seen) -> list[dict[str, Any]]:
    """The devices for the report's `devices`; `speedup`: times as fast as fp32, measured to be told."""
    found: list[dict[str, Any]] = []
    if seen.facts.get("devices.cpu"):
        model, _ = processor()
        found.append({"kind": "cpu", "model": model, "cores": usable_cores(), **seen.facts["devices.cpu"]})
    found += [{"kind": "cuda", **each} for each in (seen.facts.get("devices.cuda") or {}).get("devices", ())]
    found += [{"kind": "mps", **seen.facts["devices.mps"]}] if seen.facts.get("devices.mps") else []
    return found


def check_devices(seen: Seen) -> Iterator[Finding]:
    """seen: what was found for ITEMS."""
    torch = seen.facts.get("devices.torch")
    if torch is None:
        why = seen.troubles.get("devices.torch", "not looked at")
        advice = "Without torch nothing can be computed: see what is said of it under packages."
        yield Finding(area=AREA, name="torch", value=why, level="problem", advice=advice, stops=True)
        return
    yield _torch(torch)
    yield _cpu(seen)
    yield from _cuda(seen, torch)
    yield from _mps(seen)


def _torch(torch: Mapping[str, Any]) -> Finding:
    gpu = f"CUDA {torch['cuda']}" if torch["cuda"] else f"ROCm {torch['hip']}" if torch["hip"] else "CPU only"
    value = f"{torch['version']}, {gpu}, {torch['threads']} threads, {torch['instructions']}"
    if not torch["onednn"]:
        advice = "Install a wheel of torch from PyPI: without oneDNN convolutions on the CPU are several times slower."
        return Finding(area=AREA, name="torch", value=f"{value}, no oneDNN", level="note", advice=advice)
    return Finding(area=AREA, name="torch", value=value)


def _cpu(seen: Seen) -> Finding:
    found = seen.facts.get("devices.cpu")
    if found is None:
        why = f"does not compute: {seen.troubles.get('devices.cpu')}"
        advice = "Run 'pip install --force-reinstall torch'."
        return Finding(area=AREA, name="cpu", value=why, level="problem", advice=advice, stops=True)
    return Finding(area=AREA, name="cpu", value=f"{_decision(found)}; {_speeds(found)}")


def _decision(found: Mapping[str, Any]) -> str:
    """What `--precision auto` is on the CPU, why, and where that is kept."""
    has = {"tiles": "AMX tiles", "vectors": "AVX-512 bf16, no AMX tiles", "none": "no bf16 instructions"}
    auto = f"--precision auto is {found['auto']}"
    if found["auto_narrow"] != found["auto"]:
        auto = f"{auto}, {found['auto_narrow']} for models of few channels"
    if found["auto_training"] != found["auto"]:
        auto = f"{auto}, {found['auto_training']} in training"
    kept = f"; kept in {found['decision']}" if found["decision"] else ""
    return f"{auto} ({has[found['instructions']]}{kept})"


def _auto(device: Mapping[str, Any]) -> str:
    return f"--precision auto is {device['auto']}; {_speeds(device)}"


def _speeds(found: Mapping[str, Any]) -> str:
    faster = ", ".join(f"{name} is {factor:.1f} times as fast as fp32" for name, factor in found["speedup"].items())
    return faster


def _cuda(seen: Seen, torch: Mapping[str, Any]) -> Iterator[Finding]:
    driver = seen.facts.get("devices.driver")
    if "devices.driver" in seen.troubles:
        value = f"cannot be asked: {seen.troubles['devices.driver']}"
        advice = "Try 'nvidia-smi'; where it hangs or fails, restart the machine or install the driver again."
        yield Finding(area=AREA, name="NVIDIA driver", value=value, level="note", advice=advice)
    elif driver is not None:
        yield _driver(driver)
    if "devices.cuda" in seen.troubles:
        value = f"cannot be used: {seen.troubles['devices.cuda']}"
        advice = "Give --device cpu, or set CUDA_VISIBLE_DEVICES= to nothing, until 'nvidia-smi' is well."
        yield Finding(area=AREA, name="cuda", value=value, level="problem", advice=advice, stops=True)
        return
    found = seen.facts.get("devices.cuda") or {}
    for device in found.get("devices", ()):
        yield from _cuda_device(device)
    if not found.get("devices"):
        yield from _no_cuda(driver, torch, found.get("why", ""))


def _driver(driver: Mapping[str, str]) -> Finding:
    knows = f", knows CUDA up to {driver['cuda']}" if driver["cuda"] else ""
    value = f"{driver['version'] or 'of unknown version'}{knows}"
    if driver["error"]:
        advice = "Restart the machine, or install the driver again."
        value = f"{value}; nvidia-smi: {driver['error']}"
        return Finding(area=AREA, name="NVIDIA driver", value=value, level="note", advice=advice)
    return Finding(area=AREA, name="NVIDIA driver", value=value)


def _no_cuda(driver: Mapping[str, str] | None, torch: Mapping[str, Any], why: str) -> Iterator[Finding]:
    """Why there is no CUDA device where there could be one."""
    if driver is None or driver.get("gpus") == "0":
        if torch["cuda"]:
            yield Finding(area=AREA, name="cuda", value="no NVIDIA driver and no GPU: the CPU computes")
    elif torch["cuda"] is None:
        value = f"torch {torch['version']} is built for the CPU only, yet there is an NVIDIA driver"
        yield Finding(area=AREA, name="cuda", value=value, level="problem", advice=_wheel(driver, torch))
    else:
        value = f"there is a driver, but no device: {why or 'torch does not say why'}"
        yield Finding(area=AREA, name="cuda", value=value, level="problem", advice=_unused(driver, torch, why))


def _wheel(driver: Mapping[str, str], torch: Mapping[str, Any]) -> str:
    """Which wheel of torch the driver can run."""
    major = int(driver["cuda"].partition(".")[0] or 0)
    fitting = [wheel for least, wheel, _ in WHEELS if major >= least]
    if not fitting:
        return "Update the NVIDIA driver to 525 or newer, then run 'pip install --force-reinstall torch'."
    version = str(torch["version"]).partition("+")[0]
    return (
        f"Run 'pip install --force-reinstall torch=={version} "
        f"--index-url https://download.pytorch.org/whl/{fitting[0]}' (built for CUDA {fitting[0][2:4]})."
    )


def _unused(driver: Mapping[str, str], torch: Mapping[str, Any], why: str) -> str:
    known, built = (str(text or "0").partition(".")[0] for text in (driver["cuda"], torch["cuda"]))
    if known.isdecimal() and built.isdecimal() and 0 < int(known) < int(built):
        return f"torch was built for CUDA {torch['cuda']}: update the driver, or: {_wheel(driver, torch)}"
    return "Look at CUDA_VISIBLE_DEVICES and 'nvidia-smi'; in a container, start it with --gpus all."


def _cuda_device(device: Mapping[str, Any]) -> Iterator[Finding]:
    name = device["name"]
    memory = f"{in_bytes(device['free'])} of {in_bytes(device['total'])} free" if "free" in device else ""
    value = ", ".join(filter(None, (device.get("model"), f"compute {device.get('capability')}", memory)))
    if device["error"]:
        # `--device auto` takes the first one.
        stops = name == "cuda:0"
        value = f"{value}; fails at first use: {device['error']}"
        yield Finding(area=AREA, name=name, value=value, level="problem", advice=_failing(device), stops=stops)
    elif device["free"] < LITTLE_MEMORY:
        advice = "Another process holds its memory ('nvidia-smi' shows which); else give a small --batch-size."
        yield Finding(area=AREA, name=name, value=f"{value}; {_auto(device)}", level="note", advice=advice)
    else:
        yield Finding(area=AREA, name=name, value=f"{value}; {_auto(device)}")


def _failing(device: Mapping[str, Any]) -> str:
    error, name = device["error"], device["name"]
    if "no kernel image" in error or "not compatible" in error:
        held = ", ".join(device.get("architectures", ())) or "others"
        return f"This torch holds {held}: install one for compute {device.get('capability')}, or give --device cpu."
    if "out of memory" in error:
        return "Another process holds its memory ('nvidia-smi' shows which); until then give --device cpu."
    return f"Give --device cpu until {name} works; try 'nvidia-smi', and restart the machine."


def _mps(seen: Seen) -> Iterator[Finding]:
    if "devices.mps" in seen.troubles:
        value = f"cannot be used: {seen.troubles['devices.mps']}"
        yield Finding(area=AREA, name="mps", value=value, level="problem", advice="Give --device cpu.")
        return
    device = seen.facts.get("devices.mps")
    if device is None:
        return
    if device["error"]:
        value = f"fails at first use: {device['error']}"
        yield Finding(area=AREA, name="mps", value=value, level="problem", advice="Give --device cpu.")
    else:
        value = f"{in_bytes(device['total'])}; {_auto(device)}"
        yield Finding(area=AREA, name="mps", value=value, advice="It is taken with --device mps only.")
