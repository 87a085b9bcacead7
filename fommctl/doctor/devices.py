"""Checks of the devices: which there are, how fast each precision is on them, and why one is not used."""

from __future__ import annotations

import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from fommctl import machine
from fommctl.doctor.report import Level, Row, describe, in_bytes

if TYPE_CHECKING:
    import torch

DEVICES = ("torch", "cuda", "mps")
LITTLE_MEMORY = 2 * 2**30
"""Bytes free on a GPU; vox-256 in batches of 8 takes about 1.5 GB."""


def check_device(name: str) -> Iterator[Row]:
    """Check torch and the CPU, the CUDA devices, or mps: runs in the child."""
    if name == "torch":
        yield from _torch()
        return
    try:
        import torch  # noqa: F401
    except Exception:
        return  # a row of its own already
    yield from _cuda() if name == "cuda" else _mps()


def _torch() -> Iterator[Row]:
    import torch

    from fommctl.models.precision import decision

    gpu = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    gpu = f"ROCm {torch.version.hip}" if torch.version.hip else gpu
    instructions = torch.backends.cpu.get_cpu_capability()
    value = f"{torch.__version__}, {gpu}, {torch.get_num_threads()} threads, {instructions}"
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        yield _row("torch", value)
    else:
        advice = "Install a wheel of torch from PyPI: convolutions on the CPU are several times slower without oneDNN."
        yield _row("torch", f"{value}, no oneDNN", "note", advice)

    device, decided = torch.device("cpu"), decision()
    wide, narrow, training = decided.precisions.wide, decided.precisions.narrow, decided.precisions.training
    fp32, bf16 = (_convolution(device, kind, lambda: None, 1, 32) for kind in (torch.float32, torch.bfloat16))
    facts = {
        "kind": "cpu",
        "model": machine.processor()[0],
        "cores": machine.usable_cores(),
        "name": "cpu",
        "auto": wide,
        "auto_narrow": narrow,
        "auto_training": training,
        "instructions": decided.instructions,
        "decision": str(decided.path) if decided.kept else None,
        "speedup": {"bf16": round(fp32 / bf16, 2)},
    }
    auto = f"--precision auto is {wide}"
    auto += f", {narrow} for models of few channels" if narrow != wide else ""
    auto += f", {training} in training" if training != wide else ""
    has = {"tiles": "AMX tiles", "vectors": "AVX-512 bf16, no AMX tiles"}.get(decided.instructions)
    kept = f"; kept in {decided.path}" if decided.kept else ""
    value = f"{auto} ({has or 'no bf16 instructions'}{kept}); {_speeds(facts)}"
    yield _row("cpu", value, facts=facts)


def _cuda() -> Iterator[Row]:
    import torch

    gpus, driver = find_driver()
    yield from [driver] if driver else []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for number in range(count):
        yield _cuda_device(number)
    if count or not gpus:
        return
    if torch.version.cuda is None:
        value = f"torch {torch.__version__} is built for the CPU only, yet there is an NVIDIA driver"
        advice = "Install a torch whose CUDA version is at most that of the driver, shown by 'nvidia-smi': "
        yield _row("cuda", value, "problem", f"{advice}https://pytorch.org/get-started/locally")
        return
    reasons = [str(each.message).splitlines()[0][:200] for each in caught]
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:
        reasons.append(describe(error))
    value = f"there is a driver, but no device: {'; '.join(reasons) or 'torch gives no reason'}"
    advice = f"torch was built for CUDA {torch.version.cuda}, 'nvidia-smi' shows what the driver supports; "
    yield _row("cuda", value, "problem", f"{advice}see CUDA_VISIBLE_DEVICES, and --gpus of containers.")


def find_driver() -> tuple[int, Row | None]:
    """Count the GPUs of nvidia-smi and return its row; no row where nvidia-smi is not installed."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0, None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode:
        reason = lines[-1][:200] if lines else f"exit code {done.returncode}"
        advice = "Restart the machine, or install the driver again."
        return 1, _row("NVIDIA driver", f"nvidia-smi: {reason}", "note", advice)
    versions = [line for line in lines if line[:1].isdigit()]
    return len(versions), _row("NVIDIA driver", f"{versions[0]}, {len(versions)} GPUs" if versions else "no GPU")


def _cuda_device(number: int) -> Row:
    import torch

    device = torch.device("cuda", number)
    name = f"cuda:{number}"
    found: dict[str, Any] = {"kind": "cuda", "name": name, "error": ""}
    try:
        card = torch.cuda.get_device_properties(device)
        found |= {"model": card.name, "total": card.total_memory, "capability": f"{card.major}.{card.minor}"}
        found["architectures"] = torch.cuda.get_arch_list()
        found["free"], found["total"] = torch.cuda.mem_get_info(device)
        found |= _measured(device, lambda: torch.cuda.synchronize(device))
    except Exception as error:
        found["error"] = describe(error)
    return cuda_row(found)


def cuda_row(found: dict[str, Any]) -> Row:
    """Return the row of a CUDA device."""
    name, error = found["name"], found["error"]
    memory = f"{in_bytes(found['free'])} of {in_bytes(found['total'])} free" if "free" in found else ""
    value = ", ".join(filter(None, (found.get("model"), f"compute {found.get('capability')}", memory)))
    if not error:
        busy = "Another process holds its memory (see 'nvidia-smi'); use a small --batch-size."
        advice = busy if found["free"] < LITTLE_MEMORY else None
        value = f"{value}; --precision auto is {found['auto']}; {_speeds(found)}"
        return _row(name, value, "note" if advice else "ok", advice, facts=found)
    if "no kernel image" in error or "not compatible" in error:
        built = ", ".join(found.get("architectures", ())) or "others"
        advice = f"This torch is built for {built}: install one for {found.get('capability')}, or use --device cpu."
    elif "out of memory" in error:
        advice = "Another process holds its memory (see 'nvidia-smi'); use --device cpu until then."
    else:
        advice = f"Use --device cpu until {name} works; try 'nvidia-smi', and restart the machine."
    # `--device auto` takes the first one.
    return _row(name, f"{value}; fails at first use: {error}", "problem", advice, stops=name == "cuda:0", facts=found)


def _mps() -> Iterator[Row]:
    import torch

    if not torch.backends.mps.is_available():
        return
    found: dict[str, Any] = {"kind": "mps", "name": "mps", "error": "", "total": torch.mps.recommended_max_memory()}
    try:
        found |= _measured(torch.device("mps"), torch.mps.synchronize)
    except Exception as error:
        found["error"] = describe(error)
        yield _row("mps", f"fails at first use: {found['error']}", "problem", "Use --device cpu.", facts=found)
        return
    value = f"{in_bytes(found['total'])}; --precision auto is {found['auto']}; {_speeds(found)}"
    yield _row("mps", value, advice="It is used with --device mps only.", facts=found)


def _measured(device: torch.device, wait: Callable[[], None]) -> dict[str, Any]:
    """Return what `auto` is on a device, and the speed of bf16 and fp16 over fp32."""
    import torch

    from fommctl.networks.inference.devices import resolve_precision

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    seconds = {name: _convolution(device, kind, wait, 8, 64) for name, kind in kinds.items()}
    speedup = {name: round(seconds["fp32"] / seconds[name], 2) for name in ("bf16", "fp16")}
    return {"auto": resolve_precision("auto", device), "speedup": speedup}


def _convolution(device: torch.device, kind: torch.dtype, wait: Callable[[], None], count: int, side: int) -> float:
    """Return the seconds of a 3x3 convolution of 256 channels, the shortest of five."""
    import torch
    import torch.nn.functional as F

    x = torch.ones(count, 256, side, side, dtype=kind, device=device).to(memory_format=torch.channels_last)
    weight = torch.ones(256, 256, 3, 3, dtype=kind, device=device).to(memory_format=torch.channels_last)
    shortest = float("inf")
    with torch.inference_mode():
        for _ in range(5):
            wait()
            start = time.perf_counter()
            result = F.conv2d(x, weight, padding=1)
            wait()
            shortest = min(shortest, time.perf_counter() - start)
    # Each inner sum is of 9 * 256 ones, which all three precisions hold exactly.
    if float(result[0, 0, 1, 1]) != 9 * 256:
        raise RuntimeError(f"a convolution of ones in {kind} gives {float(result[0, 0, 1, 1]):g} for {9 * 256}")
    return shortest


def _speeds(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} is {factor:.1f} times as fast as fp32" for name, factor in found["speedup"].items())


def _row(
    name: str,
    value: str,
    level: Level = "ok",
    advice: str | None = None,
    *,
    stops: bool = False,
    facts: dict[str, Any] | None = None,
) -> Row:
    return Row(area="devices", name=name, value=value, level=level, advice=advice, stops=stops, facts=facts or {})
