"""URLs and paths of published weights, without importing torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from fommctl.api.weights import hub_folder

ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
"""torchvision's ImageNet weights, 244 MB."""
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
"""Weights of the published FID, converted from TensorFlow, 91 MB."""


def path_of(url: str) -> Path:
    """Return the path in torch.hub's cache of the file at this URL."""
    return hub_folder() / Path(urlsplit(url).path).name


def missing_requirement(url: str) -> str | None:
    """Return a short reason if a metric with the weights at this URL is not ready, else None."""
    if find_spec("torchmetrics") is None:
        return "the package torchmetrics is not installed"
    return None if path_of(url).is_file() else f"the weights {path_of(url).name} have not been downloaded"
