"""What can compute here, what `--precision auto` is, and how fast bf16 is, which is measured to be told only."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fommctl.stages.doctor.child import describe

_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_ROUNDS = 5
"""How often the convolution is measured."""


def look(what: str) -> Any:
    """what: `driver`, `torch`, `cpu`, `cuda` or `mps`."""
    found: dict[str, Callable[[], Any]] = {"driver": driver, "torch": build, "cpu": cpu, "cuda": cuda, "mps": mps}
    return found[what]()


def driver() -> dict[str, str] | None:
    """The NVIDIA driver's version and the CUDA that it knows, as far as they can be told; None without a driver."""
    try:
        module = re.search(r"Kernel Module\D*([\d.]+)", _KERNEL_MODULE.read_text(encoding="ascii", errors="replace"))
    except OSError:
        module = None
    cuda_version = _driver_cuda()
    tool = shutil.which("nvidia-smi")
    if module is None and cuda_version is None and tool is None:
        return None
    found = {"version": module[1] if module else "", "cuda": cuda_version or "", "error": ""}
    if tool is not None:
        done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=False)
        # Its lines carry serial numbers; only how many there are is of use.
        found["gpus"] = str(sum(line.startswith("GPU ") for line in done.stdout.splitlines()))
        said = (done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        found["error"] = "" if done.returncode == 0 else said[-1][:200]
    return found


def _driver_cuda() -> str | None:
    """The newest CUDA that the driver's library knows, such as 12.4."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        number = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def build() -> dict[str, Any]:
    """Which torch it is."""
    import torch

    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    }


def cpu() -> dict[str, Any]:
    """The CPU as torch uses it."""
    import torch

    from fommctl.models.precision import decision

    device, decided = torch.device("cpu"), decision()
    seconds = {kind: _convolution(device, kind, lambda: None, 1, 32) for kind in (torch.float32, torch.bfloat16)}
    return {
        "name": "cpu",
        "auto": decided.precisions.wide,
        "auto_narrow": decided.precisions.narrow,
        "auto_training": decided.precisions.training,
        "instructions": decided.instructions,
        "decision": str(decided.path) if decided.kept else None,
        "speedup": {"bf16": round(seconds[torch.float32] / seconds[torch.bfloat16], 2)},
    }


def cuda() -> dict[str, Any]:
    """Every CUDA device, and why there is none."""
    import warnings

    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    why = ""
    if not available and torch.version.cuda is not None:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except Exception as error:
            why = describe(error)
    why = "; ".join([*(str(each.message).splitlines()[0][:200] for each in caught), why]).strip("; ")
    count = torch.cuda.device_count() if available else 0
    return {"why": why, "devices": [_cuda_device(number) for number in range(count)]}


def _cuda_device(number: int) -> dict[str, Any]:
    import torch

    device = torch.device("cuda", number)
    found: dict[str, Any] = {"name": f"cuda:{number}", "error": ""}
    try:
        facts = torch.cuda.get_device_properties(device)
        found |= {"model": facts.name, "total": facts.total_memory, "capability": f"{facts.major}.{facts.minor}"}
        found["architectures"] = torch.cuda.get_arch_list()
        free, total = torch.cuda.mem_get_info(device)
        found |= {"free": free, "total": total}
        found |= _measured(device, lambda: torch.cuda.synchronize(device))
    except Exception as error:
        found["error"] = describe(error)
    return found


def mps() -> dict[str, Any] | None:
    """Apple's GPU; None where there is none."""
    import torch

    if not torch.backends.mps.is_available():
        return None
    found: dict[str, Any] = {"name": "mps", "error": "", "total": torch.mps.recommended_max_memory()}
    try:
        found |= _measured(torch.device("mps"), torch.mps.synchronize)
    except Exception as error:
        found["error"] = describe(error)
    return found


def _measured(device: Any, wait: Callable[[], None]) -> dict[str, Any]:
    """What `auto` chooses there, and how many times faster than fp32 the other precisions convolve."""
    import torch

    from fommctl.networks.inference.devices import resolve_precision

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    shortest = {name: _convolution(device, kind, wait, 8, 64) for name, kind in kinds.items()}
    speedup = {name: round(shortest["fp32"] / shortest[name], 2) for name in ("bf16", "fp16")}
    return {"auto": resolve_precision("auto", device), "speedup": speedup}


def _convolution(device: Any, kind: Any, wait: Callable[[], None], pictures: int, side: int) -> float:
    """Seconds of a 3x3 convolution of 256 channels on so many square pictures, the shortest of several."""
    import torch
    import torch.nn.functional as F

    x = torch.ones(pictures, 256, side, side, dtype=kind, device=device).to(memory_format=torch.channels_last)
    weight = torch.ones(256, 256, 3, 3, dtype=kind, device=device).to(memory_format=torch.channels_last)
    shortest = float("inf")
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            wait()
            start = time.perf_counter()
            result = F.conv2d(x, weight, padding=1)
            wait()
            shortest = min(shortest, time.perf_counter() - start)
    # Inside the picture each sum is 9 * 256 ones, which all three precisions hold exactly.
    if float(result[0, 0, 1, 1]) != 9 * 256:
        raise RuntimeError(f"a convolution of ones in {kind} gives {float(result[0, 0, 1, 1]):g} for {9 * 256}")
    return shortest
