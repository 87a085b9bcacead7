"""Published weights of the networks that metrics look with, in torch.hub's cache."""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from fommctl.api import MissingError, ModelError, offline
from fommctl_metrics.places import path_of

log = logging.getLogger(__name__)


def published(url: str) -> Mapping[str, Tensor]:
    """Tensors of the file at `url`, by name; it is fetched once, unless FOMMCTL_OFFLINE is set.

    url: ends in NAME-HASH.pth, HASH being the first digits of the file's SHA-256. Raises MissingError where the file is
    not there and may or can not be fetched, ModelError where it is damaged or another one.
    """
    path = path_of(url)
    if not path.is_file():
        _fetch(url, path)
    hint = f"Delete {path}; it is fetched again from {url}."
    if _digest(path)[: len(_expected(path))] != _expected(path):
        raise ModelError(f"{path} is damaged or another file: its SHA-256 does not start with {_expected(path)}", hint)
    try:
        tensors: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ModelError(f"{path} is no file of weights: {error}", hint) from error
    return tensors


def torchmetrics() -> Path:
    """The folder of torchmetrics, which takes seconds to import. Raises MissingError where it is not installed."""
    spec = find_spec("torchmetrics")
    if spec is None or not spec.submodule_search_locations:
        raise MissingError("the package torchmetrics is not installed", "Run pip install 'fommctl[eval]'.")
    return Path(spec.submodule_search_locations[0])


def _fetch(url: str, path: Path) -> None:
    hint = f"Fetch {url} by other means and put it at {path}, or leave the metric out."
    if offline():
        raise MissingError(f"the weights {path.name} are absent and FOMMCTL_OFFLINE is set", hint)
    log.info("fetching %s", url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # It writes to a temporary name first.
        torch.hub.download_url_to_file(url, str(path), _expected(path), progress=False)
    except OSError as error:
        raise MissingError(f"the weights {path.name} could not be downloaded: {error}", hint) from error
    except RuntimeError as error:
        raise MissingError(
            f"the weights {path.name} could not be downloaded: what came is another file", hint
        ) from error


def _expected(path: Path) -> str:
    digits = re.search(r"-([0-9a-f]{8,64})\.", path.name)
    if digits is None:
        raise ValueError(f"{path.name} carries no SHA-256")
    return digits[1]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
