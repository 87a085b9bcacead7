"""Infers `model_params` from the tensors of a checkpoint, so that it loads without its configuration.

Parameters that no tensor determines get the published value, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from fommctl.api import Architecture, Groups, UsageError
from fommctl.api.architecture import HINT, Shapes, agreed, below, maximum, shapes_of, sizes, unet, widths

if TYPE_CHECKING:
    from torch import Tensor

    from fommctl.api import Groups

NETWORKS = ("generator", "kp_detector", "discriminator")
_MARK = "appearance_encoder."
"""Prefix of tensor names that only Monkey-Net's generator has."""


def from_published(groups: Groups) -> Groups:
    """Convert the published kernels (O, I, 1, k, k) to (O, I, k, k); tensors of other models are unchanged."""
    return _changed(groups, lambda tensor: tensor[:, :, 0] if tensor.ndim == 5 and tensor.shape[2] == 1 else tensor)


def to_published(groups: Groups) -> Groups:
    """Convert kernels (O, I, k, k) to the published (O, I, 1, k, k); tensors of other models are unchanged."""
    return _changed(groups, lambda tensor: tensor[:, :, None] if tensor.ndim == 4 else tensor)


def _changed(groups: Groups, change: Callable[[Tensor], Tensor]) -> Groups:
    if not any(name.startswith(_MARK) for name in groups.get("generator", {})):
        return groups
    return {
        group: {name: change(tensor) for name, tensor in tensors.items()} if group in NETWORKS else tensors
        for group, tensors in groups.items()
    }


SHOWN = ("use_heatmap", "use_difference", "use_deformed_source_image")
FIRST = "appearance_encoder.down_blocks.0.conv.weight"
LAST = "refinement_module.conv-last.weight"
POINTS = "predictor.decoder.conv.weight"


def read_architecture(groups: Groups) -> Architecture | None:
    """Infer Monkey-Net's `model_params` from tensors {group: {name: tensor}}; None for another kind of model.

    Raises UsageError if the tensors contradict each other, or fit several configurations.
    """
    detector, generator, discriminator = (
        shapes_of(groups, group) for group in ("kp_detector", "generator", "discriminator")
    )
    needed = ((detector, POINTS), (generator, FIRST), (generator, LAST))
    if not all(len(shapes.get(name, ())) == 4 for shapes, name in needed):
        return None
    notes: list[str] = []
    common = _common(detector, generator)
    # The published models have another block for each doubling of the frame's side; their inner networks see 64 pixels.
    blocks = max(widths(generator, r"appearance_encoder\.down_blocks\.(\d+)\.conv\.weight")) + 1
    side = max(64, 2 << blocks)
    params = {
        "common_params": common,
        "kp_detector_params": {
            "temperature": 0.1,
            **unet(below(detector, "predictor."), "keypoint detector", notes),
            "scale_factor": 64 / side,
            "clip_variance": 0.001,
        },
        "generator_params": _generator(generator, common, side, notes),
    }
    if discriminator:
        params["discriminator_params"] = _discriminator(discriminator, common, notes)
    notes.append(
        "assumed as published: temperature 0.1, kp_variance matrix, clip_variance 0.001, norm_const 100, "
        f"interpolation {params['generator_params']['interpolation_mode']}, align_corners true"
    )
    notes.append(f"frames of {side}x{side} pixels assumed, at which the networks see 64x64 as in the published models")
    return Architecture(model_params=params, frame_shape=(side, side, common["num_channels"]), notes=tuple(notes))


def _common(detector: Shapes, generator: Shapes) -> dict[str, Any]:
    num_channels = agreed(
        "the number of colour channels",
        sizes(generator, LAST, "refinement_module.conv-last.bias")
        + sizes(generator, FIRST, axis=1)
        + sizes(detector, "predictor.encoder.down_blocks.0.conv.weight", axis=1),
    )
    num_kp = agreed("the number of keypoints", sizes(detector, POINTS, "predictor.decoder.conv.bias"))
    return {"num_kp": num_kp, "num_channels": num_channels, "kp_variance": "matrix", "align_corners": True}


def _generator(generator: Shapes, common: Mapping[str, Any], side: int, notes: list[str]) -> dict[str, Any]:
    shape = unet(generator, "generator", notes, encoder="appearance_encoder.", decoder="video_decoder.")
    residual = [int(match[1]) for name in generator if (match := re.match(r"refinement_module\.r(\d+)\.", name))]
    features = sizes(generator, LAST, "refinement_module.r0.conv1.weight", "refinement_module.r0.norm1.weight", axis=1)
    first = min(shape["max_features"], shape["block_expansion"])
    shown = agreed("the width of the refinement", features) - first - common["num_channels"]
    params: dict[str, Any] = {
        **shape,
        "num_refinement_blocks": max(residual, default=-1) + 1,
        "interpolation_mode": "trilinear" if side >= 256 else "nearest",
    }
    if shown:
        embedding = _only("the decoder's keypoint embedding", shown, _embeddings(common, (False, True)))
        params["kp_embedding_params"] = {**embedding, "heatmap_type": "difference", "scale_factor": 64 / side}
    motion = below(generator, "dense_motion_module.")
    if motion:
        params["dense_motion_params"] = _dense_motion(motion, common, side, notes)
    return params


def _dense_motion(shapes: Shapes, common: Mapping[str, Any], side: int, notes: list[str]) -> dict[str, Any]:
    first = "hourglass.encoder.down_blocks.0.conv.weight"
    channels = agreed("the input of the motion network", sizes(shapes, first, axis=1))
    embedding = _only("the motion network's keypoint embedding", channels, _embeddings(common, (True,)))
    embedding.pop("add_bg_feature_map")
    outputs = agreed(
        "the output of the motion network",
        sizes(shapes, "hourglass.decoder.conv.weight", "hourglass.decoder.conv.bias"),
    )
    uses = (
        ((common["num_kp"] + 1) * mask + 2 * correction, {"use_mask": mask, "use_correction": correction})
        for mask, correction in product((False, True), repeat=2)
    )
    return {
        **unet(below(shapes, "hourglass."), "motion network", notes),
        **_only("the output of the motion network", outputs, uses),
        "mask_embedding_params": {**embedding, "heatmap_type": "difference"},
        "num_group_blocks": max(widths(shapes, r"group_blocks\.(\d+)\.conv\.weight"), default=-1) + 1,
        "scale_factor": 64 / side,
    }


def _discriminator(shapes: Shapes, common: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    levels = widths(shapes, r"down_blocks\.(\d+)\.conv\.weight")
    inputs = sizes(shapes, "down_blocks.0.conv.weight", axis=1)
    if not levels or not inputs:
        raise UsageError("the first blocks of the discriminator are missing in the checkpoint", HINT)
    # No tensor has the width before the first block, which doubles it, up to the maximum.
    expansion = -(-levels.get(0, levels[min(levels)]) // 2)
    params: dict[str, Any] = {
        "block_expansion": expansion,
        "max_features": maximum(expansion, levels, "discriminator", notes),
        "num_blocks": max(levels) + 1,
    }
    shown = inputs[0] - common["num_channels"]
    if shown:
        params["kp_embedding_params"] = _only(
            "the discriminator's keypoint embedding", shown, _embeddings(common, (False,))
        )
        params["kp_embedding_params"].pop("add_bg_feature_map")
    return params


def _embeddings(common: Mapping[str, Any], backgrounds: tuple[bool, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of channels and the parameters of every possible keypoint embedding."""
    each = (1, 2, common["num_channels"])
    for used in product((False, True), repeat=len(SHOWN)):
        channels = sum(size for size, use in zip(each, used, strict=True) if use)
        for background in backgrounds:
            chosen: dict[str, Any] = {**dict(zip(SHOWN, used, strict=True)), "add_bg_feature_map": background}
            yield channels * (common["num_kp"] + background), {**chosen, "norm_const": 100}


def _only(what: str, channels: int, choices: Iterator[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Return the only choice with this number of channels, preferring those with heatmaps, which all published models
    have.

    Raises UsageError if there is none or more than one.
    """
    fitting = [choice for count, choice in choices if count == channels]
    fitting = [choice for choice in fitting if choice.get("use_heatmap")] or fitting
    if len(fitting) != 1:
        many = "several configurations have" if fitting else "no configuration has"
        raise UsageError(f"{what} has {channels} channels in the checkpoint, which {many}", HINT)
    return fitting[0]
