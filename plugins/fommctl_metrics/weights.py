"""Published weights of the metrics' networks, in torch.hub's cache."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from fommctl.api import MissingError, ModelError
from fommctl.api.weights import weights_file
from fommctl_metrics.locations import path_of


def published(url: str) -> Mapping[str, Tensor]:
    """Return the tensors of the file at `url`, by name; the file is downloaded once.

    url: ends in NAME-HASH.pth, where HASH is the beginning of the file's SHA-256.
    Raises MissingError if the file is missing and FOMMCTL_OFFLINE is set or the download fails, ModelError if it is
    damaged or a different file.
    """
    path = path_of(url)
    weights_file(path.name, [url], folder=path.parent, check=_check, instead="leave the metric out")
    hint = f"Delete {path}; it will be downloaded again from {url}."
    try:
        _check(path)
    except ModelError as error:
        raise ModelError(error.message, hint) from error
    try:
        tensors: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ModelError(f"{path} is not a weights file: {error}", hint) from error
    return tensors


def torchmetrics() -> Path:
    """Return the folder of torchmetrics without importing it, which takes seconds. Raises MissingError if it is not
    installed."""
    spec = find_spec("torchmetrics")
    if spec is None or not spec.submodule_search_locations:
        raise MissingError("the package torchmetrics is not installed", "Run pip install 'fommctl[eval]'.")
    return Path(spec.submodule_search_locations[0])


def _check(path: Path) -> None:
    name = path.name.removeprefix(".").removesuffix(".part")
    if not _digest(path).startswith(_expected(Path(name))):
        raise ModelError(
            f"{path} is damaged or a different file: its SHA-256 does not start with {_expected(Path(name))}"
        )


def _expected(path: Path) -> str:
    digits = re.search(r"-([0-9a-f]{8,64})\.", path.name)
    if digits is None:
        raise ValueError(f"{path.name} has no SHA-256")
    return digits[1]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
