"""Infers `model_params` from the tensors of a published checkpoint, so that it loads without its configuration.

Parameters that no tensor determines get the published value, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fommctl.api import Architecture, Groups, UsageError
from fommctl.api.architecture import (
    HINT,
    Shapes,
    agreed,
    below,
    maximum,
    most_common,
    shapes_of,
    sizes,
    unet,
    widths,
)


def read_architecture(groups: Groups) -> Architecture | None:
    """Infer FOMM's `model_params` from tensors {group: {name: tensor}}; None for another kind of model.

    Raises UsageError if the tensors contradict each other, or if an anti-alias filter does not match any scale 1/n.
    """
    detector, generator, discriminator = (
        shapes_of(groups, group) for group in ("kp_detector", "generator", "discriminator")
    )
    if not _is_fomm(detector, generator):
        return None
    notes: list[str] = []
    common = _common(detector, generator)
    params = {
        "common_params": common,
        "kp_detector_params": _keypoint_detector(detector, common, notes),
        "generator_params": _generator(generator, common, notes),
    }
    if discriminator:
        params["discriminator_params"] = _discriminator(discriminator, common, notes)
    side = _frame_side(params)
    notes.append("assumed as published: temperature 0.1, keypoint padding 0, align_corners true")
    notes.append(f"frames of {side}x{side} pixels assumed, at which the networks see 64x64 as in the published models")
    return Architecture(model_params=params, frame_shape=(side, side, common["num_channels"]), notes=tuple(notes))


def _frame_side(params: Mapping[str, Any]) -> int:
    """Return the side of frames, in pixels, that the inner networks see at 64 pixels, as published.

    It is 256 for all published weights (scale 1/4), and if the two networks differ in scale.
    """
    scale: float = params["kp_detector_params"]["scale_factor"]
    same = scale == params["generator_params"]["dense_motion_params"]["scale_factor"]
    return round(64 / scale) if same else 256


def _is_fomm(detector: Shapes, generator: Shapes) -> bool:
    needed = (
        (detector, "kp.weight"),
        (generator, "first.conv.weight"),
        (generator, "final.weight"),
        (generator, "dense_motion_network.mask.weight"),
    )
    return all(len(shapes.get(name, ())) == 4 for shapes, name in needed)


def _common(detector: Shapes, generator: Shapes) -> dict[str, Any]:
    num_kp = agreed(
        "the number of keypoints",
        sizes(detector, "kp.weight", "kp.bias")
        + [size - 1 for size in sizes(generator, "dense_motion_network.mask.weight", "dense_motion_network.mask.bias")],
    )
    num_channels = agreed(
        "the number of colour channels",
        sizes(generator, "final.weight", "final.bias")
        + sizes(generator, "first.conv.weight", axis=1)
        + sizes(detector, "predictor.encoder.down_blocks.0.conv.weight", axis=1),
    )
    return {
        "num_kp": num_kp,
        "num_channels": num_channels,
        "estimate_jacobian": "jacobian.weight" in detector,
        "align_corners": True,
    }


def _keypoint_detector(detector: Shapes, common: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    features = sizes(detector, "kp.weight", "jacobian.weight", axis=1)
    maps = sizes(detector, "jacobian.weight", "jacobian.bias")
    return {
        "temperature": 0.1,
        **unet(
            below(detector, "predictor."),
            "keypoint detector",
            notes,
            expansions=[size - common["num_channels"] for size in features],
        ),
        "scale_factor": _scale(detector, "down.weight", "keypoint detector", notes),
        "single_jacobian_map": common["num_kp"] > 1 and bool(maps) and most_common(maps) == 4,
        "pad": 0,
    }


def _generator(generator: Shapes, common: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    motion = below(generator, "dense_motion_network.")
    inputs = (common["num_kp"] + 1) * (common["num_channels"] + 1)
    features = [size - inputs for size in sizes(motion, "mask.weight", "occlusion.weight", axis=1)]
    expansion = agreed(
        "the width of the generator",
        sizes(generator, "first.conv.weight", "first.conv.bias", "first.norm.weight")
        + sizes(generator, "final.weight", axis=1),
    )
    levels = widths(generator, r"down_blocks\.(\d+)\.conv\.weight")
    residual = [int(match[1]) for name in generator if (match := re.match(r"bottleneck\.r(\d+)\.", name))]
    return {
        "block_expansion": expansion,
        "max_features": maximum(expansion, levels, "generator", notes),
        "num_down_blocks": max(levels, default=-1) + 1,
        "num_bottleneck_blocks": max(residual, default=-1) + 1,
        "estimate_occlusion_map": "occlusion.weight" in motion,
        "blend_source": "blend.weight" in generator,
        "embed_keypoints": "embedding.weight" in generator or None,
        "dense_motion_params": {
            **unet(below(motion, "hourglass."), "motion network", notes, expansions=features),
            "scale_factor": _scale(motion, "down.weight", "motion network", notes),
        },
    }


def _discriminator(shapes: Shapes, common: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    keys = list(dict.fromkeys(match[1] for name in shapes if (match := re.match(r"discs\.([^.]+)\.", name))))
    if not keys:
        raise UsageError("the discriminator of the checkpoint contains no tensors 'discs.*'", HINT)
    prefix = re.escape(f"discs.{keys[0]}.")
    pattern = prefix + r"down_blocks\.(\d+)\.conv\.weight(?:_orig)?"
    levels = widths(shapes, pattern)
    first = pattern.replace(r"(\d+)", "0")
    inputs = [shape[1] for name, shape in shapes.items() if len(shape) > 1 and re.fullmatch(first, name)]
    if not levels or not inputs:
        raise UsageError("the first blocks of the discriminator are missing in the checkpoint", HINT)
    # No tensor has the width before the first block, which doubles it, up to the maximum.
    expansion = -(-levels.get(0, levels[min(levels)]) // 2)
    return {
        "scales": [_written_scale(key) for key in keys],
        "block_expansion": expansion,
        "max_features": maximum(expansion, levels, "discriminator", notes),
        "num_blocks": max(levels) + 1,
        "sn": any(name.endswith(".weight_orig") for name in shapes),
        "use_kp": inputs[0] == common["num_channels"] + common["num_kp"],
    }


def _written_scale(key: str) -> float:
    """Parse the scale in a discriminator's name: `1`, or `0-5` for 0.5, since module names cannot contain a dot."""
    try:
        return float(key.replace("-", ".")) if "-" in key else int(key)
    except ValueError:
        raise UsageError(f"the name of the discriminator 'discs.{key}' is not a scale", HINT) from None


def _scale(shapes: Shapes, name: str, network: str, notes: list[str]) -> float:
    """Infer the scale 1/n from the width of the anti-alias filter, 2 round(4 sigma) + 1 with sigma = (n - 1) / 2."""
    if name not in shapes:
        notes.append(f"{network}: no anti-alias filter, so its input has the full size")
        return 1.0
    width = shapes[name][-1] if shapes[name] else 0
    steps, rest = divmod(width - 1, 4)
    if rest or steps < 1:
        raise UsageError(
            f"the anti-alias filter of the {network} is {width} pixels wide, which no scale 1/n gives", HINT
        )
    scale = 1 / (steps + 1)
    notes.append(f"{network}: scale {scale:g}, inferred from its anti-alias filter, {width} pixels wide")
    return scale
