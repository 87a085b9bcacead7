"""A network for pictures out of a file: spandrel recognises its architecture by its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fommctl.api import InputError, MissingError, ModelError

FACE_SIDE = 512
"""Pixels of the squares that restorers of faces (GFPGAN, RestoreFormer) were trained on."""


class Restorer:
    """A square filter (see `fommctl.api.SquareFilter`).

    Only architectures of spandrel itself are taken, all under permissive licences; those of spandrel_extra_arches are
    not. A file of weights has a licence of its own.
    """

    def __init__(self, path: Path) -> None:
        """Raises MissingError without spandrel, InputError without the file, ModelError for what it cannot use."""
        spandrel = _spandrel()
        if not path.is_file():
            raise InputError(
                f"--restore: there is no file {path}",
                "Name a file of weights (.pth, .safetensors), or one in FOMMCTL_HOME/restorers without its ending.",
            )
        try:
            found = spandrel.ModelLoader(device="cpu").load_from_file(str(path))
        except Exception as error:
            raise ModelError(
                f"--restore: {path.name} cannot be used: {str(error)[:200] or type(error).__name__}",
                "It must have an architecture that spandrel supports.",
            ) from error
        if not isinstance(found, spandrel.ImageModelDescriptor) or (found.input_channels, found.output_channels) != (
            3,
            3,
        ):
            raise ModelError(f"--restore: {path.name} is not a network from colour pictures to colour pictures", "")
        self._network: Any = found.eval()
        self._for_faces = found.purpose == "FaceSR"

    @torch.inference_mode()
    def __call__(self, squares: Tensor) -> Tensor:
        """See `fommctl.api.SquareFilter`."""
        if self._for_faces:
            squares = F.interpolate(squares, (FACE_SIDE, FACE_SIDE), mode="bicubic", antialias=True).clamp_(0, 1)
        restored: Tensor = self._network.to(squares.device)(squares)
        return restored.float().clamp(0, 1)


def _spandrel() -> Any:
    """Return the package. Raises MissingError where it is not there, or does not load."""
    try:
        import spandrel
    except ImportError as error:
        raise MissingError(
            f"--restore needs a package that is not installed: {error.name or 'spandrel'}",
            "Run: pip install 'fommctl[restore]'",
        ) from error
    except Exception as error:
        # torchvision, which spandrel asks for, raises this where it was built for another torch.
        raise MissingError(
            f"--restore: spandrel does not load: {str(error)[:200]}",
            f"Install the torchvision that was built for torch {torch.__version__}.",
        ) from error
    return spandrel
