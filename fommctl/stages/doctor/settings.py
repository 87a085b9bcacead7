"""Environment variables that change what fommctl does. Values that may be secret are never shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from fommctl.machine import usable_cores
from fommctl.presets.config import nearest
from fommctl.stages.doctor.findings import Finding

AREA = "environment"
PREFIX = "FOMMCTL_"
EFFECTS = {
    "FOMMCTL_HOME": "where models and caches lie",
    "FOMMCTL_OFFLINE": "forbids downloads, unless it is 0, false, no or off",
    "FOMMCTL_PLUGINS": "the plugins to load, no others",
    "OMP_NUM_THREADS": "threads of torch on the CPU",
    "MKL_NUM_THREADS": "threads of torch's matrix library",
    "GOMP_SPINCOUNT": "how long idle threads spin; fommctl sets 2000",
    "KMP_AFFINITY": "binds threads of torch to cores",
    "CUDA_VISIBLE_DEVICES": "the GPUs that are seen",
    "PYTORCH_CUDA_ALLOC_CONF": "how torch takes the memory of a GPU",
    "PYTORCH_ENABLE_MPS_FALLBACK": "computes on the CPU what mps cannot",
    "TORCH_HOME": "where torch hub keeps weights",
    "XDG_CACHE_HOME": "where caches lie",
    "XDG_DATA_HOME": "where models lie without FOMMCTL_HOME",
    "TMPDIR": "where temporary files lie",
    "HF_ENDPOINT": "another server than huggingface.co",
    "HF_HOME": "where Hugging Face's library keeps its files",
    "HF_HUB_OFFLINE": "of Hugging Face's library; fommctl heeds FOMMCTL_OFFLINE",
    "PYTHONPATH": "searched before installed packages: what lies there hides them",
    "PYTHONHOME": "another Python library than the interpreter's own",
    "LD_PRELOAD": "libraries that are loaded before all others",
    "LD_LIBRARY_PATH": "searched before the libraries inside wheels",
    "SSL_CERT_FILE": "certificates that downloads trust",
    "RANK": "says that this is one of several processes of training",
    "WORLD_SIZE": "how many processes train",
    "NO_COLOR": "no colours",
}
"""What each does, where it is set."""
OURS = ("GOMP_SPINCOUNT", "2000")
"""What fommctl sets itself; see `cli.main`."""
SECRET = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")
"""Shown as set, never with their value."""
_LONGEST = 120


def check_settings(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Those that are set, with their effect; a note where a value makes no sense or slows fommctl down."""
    named = False
    for name in sorted(environment):
        if name in SECRET:
            named = True
            yield Finding(area=AREA, name=name, value="set (not shown)")
        elif name in EFFECTS and (name, environment[name]) != OURS:
            named = True
            yield _known(name, environment[name])
        elif name.startswith(PREFIX) and name not in EFFECTS:
            named = True
            own = [known.removeprefix(PREFIX) for known in EFFECTS if known.startswith(PREFIX)]
            near = nearest(name.removeprefix(PREFIX), own)
            advice = f"Is {PREFIX}{near} meant?" if near else "Unset it."
            yield Finding(area=AREA, name=name, value="means nothing to fommctl", level="note", advice=advice)
    if not named:
        yield Finding(area=AREA, name="variables", value="none that fommctl heeds is set")


def _known(name: str, value: str) -> Finding:
    shown = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
    text = f"{shown!r}: {EFFECTS[name]}" if not shown or shown.strip() != shown else f"{shown}: {EFFECTS[name]}"
    advice = _ADVICE[name](value) if name in _ADVICE else None
    return Finding(area=AREA, name=name, value=text, level="note" if advice else "ok", advice=advice)


def _threads(value: str) -> str | None:
    first = value.split(",")[0].strip()
    if not first.isdecimal() or int(first) == 0:
        return "It is no number of threads, and is ignored: set it to that of the cores, or unset it."
    if int(first) > usable_cores():
        return f"More threads than the {usable_cores()} cores wait for each other: lower it, or unset it."
    if int(first) < usable_cores():
        return f"{usable_cores()} cores may be used: raise it, or unset it, unless several jobs share them."
    return None


def _devices(value: str) -> str | None:
    hidden = value.strip() in ("", "-1", "NoDevFiles")
    return "It hides all GPUs; unset it to use them." if hidden else None


def _rank(value: str) -> str | None:
    return "Outside of torchrun and srun unset it: 'fommctl train' would wait for other processes."


def _path(value: str) -> str | None:
    return "Where a package is found in the wrong place, unset it."


_ADVICE: Mapping[str, Callable[[str], str | None]] = {
    "OMP_NUM_THREADS": _threads,
    "MKL_NUM_THREADS": _threads,
    "CUDA_VISIBLE_DEVICES": _devices,
    "RANK": _rank,
    "PYTHONPATH": _path,
    "LD_PRELOAD": lambda value: "Where a library crashes at import, unset it.",
}
