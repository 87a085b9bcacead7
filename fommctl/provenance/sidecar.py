"""The sidecar file of a result: its format, and a safe reader."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fommctl import __version__
from fommctl.errors import UsageError
from fommctl.files import LONGEST_NAME
from fommctl.host import Host
from fommctl.machine import processor
from fommctl.media import codecs
from fommctl.media.files import check_file
from fommctl.media.marking import printable

DISTRIBUTIONS = ("dlib-bin", "face-alignment", "mediapipe")
"""Libraries of detectors, which are optional."""


def environment(host: Host, device: torch.device) -> dict[str, Any]:
    """Describe this machine and its software as JSON values, without host name and paths."""
    versions = {"fommctl": __version__, "python": platform.python_version(), "torch": torch.__version__}
    versions |= {"numpy": np.__version__, **codecs.versions()}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "plugins": {plugin.distribution: plugin.version for plugin in host.plugins},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor()[0],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the differences between two environments, such as `torch 2.6.0, then 2.5.1`; values may have any type."""
    before, after = _flat(then), _flat(now)
    return [
        f"{name} {after.get(name, 'absent')}, then {str(before.get(name, 'absent'))[:80]}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"plugin {key}" if name == "plugins" else str(key): each for key, each in value.items()}
        elif value is not None:
            flat[name] = value
    return flat


VERSION = 1
"""Version of the format, raised when older code could misread a new file."""
LARGEST = 8 * 2**20
"""Most bytes of a sidecar; real ones have some ten thousand."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Threads = Annotated[int, Field(ge=1, le=1024)]
_HINT = "Use the .json file that 'fommctl animate --sidecar' wrote."


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class File(_Part):
    """A file, or a pattern or folder of frames."""

    path: str
    """Path as it was given to the command."""
    relative: str | None
    """Path relative to the sidecar's folder; None if there is none (another drive)."""
    sha256: Sha256
    """Hash by `fommctl.provenance.hashing.media_hash`."""


class Inputs(_Part):
    """The inputs of an animation."""

    source: File
    driving: File
    views: tuple[File, ...] = Field(default=(), strict=False)


class Model(_Part):
    """The model that rendered the result."""

    name: str
    file: File | None
    """File of the weights; None if they are not from a file."""
    preset: str
    """Resolved configuration as YAML."""


class Settings(_Part):
    """Settings besides the options that affect the bits of the result."""

    device: str
    precision: str
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    torch_threads: Threads
    encoder_threads: Threads


class Result(_Part):
    """The result as it was written."""

    path: str
    relative: str | None
    sha256: Sha256
    unsigned_sha256: Sha256 | None = None
    """Hash of a signed result before it was signed, as no two signatures are equal."""


class Sidecar(_Part):
    """A record of everything that is needed to render a result again, bit for bit."""

    format: Literal["fommctl sidecar"]
    version: int
    tool: dict[str, str]
    synthetic: bool
    inputs: Inputs
    model: Model
    options: dict[str, str | int | float | bool | list[str] | None]
    """All options of `AnimateConfig` except paths, with defaults resolved."""
    settings: Settings
    environment: dict[str, Any]
    output: Result

    @property
    def pixels_sha256(self) -> str:
        """Hash of the result without a signature."""
        return self.output.unsigned_sha256 or self.output.sha256


def sidecar_of(output: Path) -> Path:
    """Return the path of a result's sidecar: `shot.mov.json`, `frames/%05d.png.json`."""
    return output.with_name(f"{output.name}.json")


def check_sidecar(output: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Raise UsageError if a result's sidecar would replace an input, or without `overwrite` any file, or has too long a
    name."""
    path = sidecar_of(output)
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise UsageError(f"the name of the sidecar is too long: {path.name[:40]}...", "Give a shorter one with -o.")
    if path.is_dir() or any(os.path.realpath(path) == os.path.realpath(file) for file in inputs):
        raise UsageError(f"the sidecar would replace {path}", "Choose another name with -o.")
    if path.exists() and not overwrite:
        raise UsageError(f"the sidecar already exists: {path}", "Use --overwrite, or another name with -o.")


def read(path: Path) -> Sidecar:
    """Read and validate a sidecar. Raises InputError if it does not exist, UsageError if it is not a valid sidecar."""
    check_file(path)
    if path.stat().st_size > LARGEST:
        raise UsageError(f"{path} is too large for a sidecar", _HINT)
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a JSON file", _HINT) from error
    if not isinstance(data, dict) or data.get("format") != "fommctl sidecar":
        raise UsageError(f"{path} is not a fommctl sidecar", _HINT)
    if data.get("version") != VERSION:
        raise UsageError(
            f"{path} has version {printable(str(data.get('version')), 20)}, but this fommctl reads version {VERSION}",
            "Use the fommctl that wrote it.",
        )
    try:
        return Sidecar.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = printable(".".join(map(str, first["loc"])), 100)
        raise UsageError(f"{path} is damaged at {where}: {first['msg'].lower()}", _HINT) from error
