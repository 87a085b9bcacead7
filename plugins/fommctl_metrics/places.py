"""Addresses and paths of published weights, known without importing torch."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
"""torchvision's ImageNet weights, 244 MB."""
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
"""91 MB; the weights of the published FID, converted from TensorFlow's."""


def path_of(url: str) -> Path:
    """Return the file of this address in the cache of torch.hub."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(os.path.expanduser(home)) / "hub/checkpoints" / Path(urlsplit(url).path).name


def what_is_missing(url: str) -> str | None:
    """Return why a metric with the weights of this address cannot be computed at once; None where it can."""
    if find_spec("torchmetrics") is None:
        return "the package torchmetrics is not installed"
    return None if path_of(url).is_file() else f"the weights {path_of(url).name} have not been fetched"
