"""An image-to-image network from a file, whose architecture spandrel infers from the tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fommctl.api import InputError, MissingError, ModelError

FACE_SIDE = 512
"""Side of the squares that face restorers (GFPGAN, RestoreFormer) were trained on, pixels."""


class Restorer:
    """Applies a network to squares; a `fommctl.api.SquareFilter`.

    Only the architectures of spandrel itself are supported, all under permissive licences, not those of
    spandrel_extra_arches. Weights have licences of their own.
    """

    def __init__(self, path: Path) -> None:
        """path: weights (.pth, .safetensors, ...).

        Raises MissingError if spandrel cannot be loaded, InputError if the file is missing, ModelError if it cannot be
        used.
        """
        spandrel = _spandrel()
        if not path.is_file():
            raise InputError(
                f"--restore: {path} does not exist",
                "Give a file of weights (.pth, .safetensors), or the name of one in FOMMCTL_HOME/restorers without its "
                "suffix.",
            )
        try:
            found = spandrel.ModelLoader(device="cpu").load_from_file(str(path))
        except Exception as error:
            raise ModelError(
                f"--restore: {path.name} cannot be used: {str(error)[:200] or type(error).__name__}",
                "Its architecture must be one that spandrel supports.",
            ) from error
        if not isinstance(found, spandrel.ImageModelDescriptor) or (found.input_channels, found.output_channels) != (
            3,
            3,
        ):
            raise ModelError(f"--restore: {path.name} does not map RGB pictures to RGB pictures", "")
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
    """Import spandrel. Raises MissingError if it cannot be loaded."""
    try:
        import spandrel
    except ImportError as error:
        raise MissingError(
            f"--restore needs the package {error.name or 'spandrel'}, which is not installed",
            "Run pip install 'fommctl[restore]'.",
        ) from error
    except Exception as error:
        # torchvision, which spandrel imports, raises RuntimeError if it was built for another torch.
        raise MissingError(
            f"--restore: spandrel cannot be loaded: {str(error)[:200]}",
            f"Install the torchvision that was built for torch {torch.__version__}.",
        ) from error
    return spandrel
