"""Infers `model_params` from the tensors of published files."""

from __future__ import annotations

import re
from typing import Any

from fommctl.api import Architecture, Groups
from fommctl.api.architecture import Shapes, agreed, shapes_of, sizes, widths
from fommctl_liveportrait.published import CORRECTORS, NETWORKS


def read_architecture(groups: Groups) -> Architecture | None:
    """Infer LivePortrait's `model_params` from tensors {group: {name: tensor}}; None for another kind of model.

    Spectral norm must be folded into the weights (see `from_published`).
    Raises UsageError if the tensors contradict each other.
    """
    appearance, motion, warping, generator = (shapes_of(groups, network) for network in NETWORKS)
    needed = (
        (appearance, "second.weight", 4),
        (appearance, "resblocks_3d.3dr0.conv1.weight", 5),
        (motion, "detector.fc_kp.weight", 2),
        (warping, "dense_motion_network.mask.weight", 5),
        (generator, "G_middle_0.norm_0.mlp_gamma.weight", 4),
    )
    if not all(len(shapes.get(name, ())) == axes for shapes, name, axes in needed):
        return None
    channels = appearance["resblocks_3d.3dr0.conv1.weight"][0]
    depth = appearance["second.weight"][0] // channels
    points = agreed("the number of keypoints", [size // 3 for size in sizes(
        motion, "detector.fc_kp.weight", "detector.fc_exp.weight", "detector.fc_kp.bias")])  # fmt: skip
    expansion, levels, most = _pyramid(appearance)
    labels = generator["fc.weight"][1]
    params: dict[str, Any] = {
        "appearance_feature_extractor_params": {
            "image_channel": appearance["first.conv.weight"][1],
            "block_expansion": expansion,
            "num_down_blocks": levels,
            "max_features": most,
            "reshape_channel": channels,
            "reshape_depth": depth,
            "num_resblocks": _count(appearance, r"resblocks_3d\.3dr(\d+)\.conv1\.weight"),
        },
        "motion_extractor_params": {
            "num_kp": points,
            "depths": [_count(motion, rf"detector\.stages\.{level}\.(\d+)\.dwconv\.weight") for level in range(4)],
            "widths": [motion[f"detector.stages.{level}.0.dwconv.weight"][0] for level in range(4)],
        },
        "warping_module_params": {
            "num_kp": points,
            **_end(warping["third.conv.weight"][0], levels),
            "num_down_blocks": levels,
            "reshape_channel": warping["dense_motion_network.compress.weight"][1],
            "dense_motion_params": {
                **_hourglass(warping),
                "reshape_depth": depth,
                "compress": warping["dense_motion_network.compress.weight"][0],
            },
        },
        "spade_generator_params": {
            "upscale": round((generator["conv_img.0.weight"][0] / 3) ** 0.5),
            "block_expansion": generator["conv_img.0.weight"][1],
            "max_features": labels if labels < generator["conv_img.0.weight"][1] << levels else 2 * labels,
            "num_down_blocks": levels,
            "hidden": generator["G_middle_0.norm_0.mlp_gamma.weight"][1],
        },
        "stitching_retargeting_module_params": {
            name: found
            for name, group in zip(("stitching", "lip", "eye"), CORRECTORS, strict=True)
            if (found := _layers(shapes_of(groups, group)))
        },
    }
    return Architecture(
        model_params=params,
        frame_shape=(256, 256, 3),
        notes=("inputs of 256x256 pixels assumed, for results of 512x512",),
    )


def _count(shapes: Shapes, pattern: str) -> int:
    return max(widths(shapes, pattern), default=-1) + 1


def _pyramid(shapes: Shapes) -> tuple[int, int, int]:
    """Return the appearance network's block_expansion, num_down_blocks and max_features."""
    expansion = shapes["first.conv.weight"][0]
    found = widths(shapes, r"down_blocks\.(\d+)\.conv\.weight")
    levels = max(found, default=-1) + 1
    reached = [width for level, width in found.items() if width < expansion << (level + 1)]
    return expansion, levels, min(reached, default=max(shapes["second.weight"][0], expansion << levels))


def _end(outputs: int, levels: int) -> dict[str, int]:
    """Return the parameters that give this number of channels after doubling it at each level."""
    return {"block_expansion": max(1, outputs >> levels), "max_features": outputs * 2}


def _hourglass(shapes: Shapes) -> dict[str, int]:
    prefix = r"dense_motion_network\.hourglass\."
    down = widths(shapes, prefix + r"encoder\.down_blocks\.(\d+)\.conv\.weight")
    up = widths(shapes, prefix + r"decoder\.up_blocks\.(\d+)\.conv\.weight")
    return {"block_expansion": up[max(up)], "max_features": max(down.values()), "num_blocks": len(down)}


def _layers(shapes: Shapes) -> dict[str, Any] | None:
    """Return the layer sizes of a correction network; None if the model does not have it."""
    weights = sorted(
        (int(match[1]), shape) for name, shape in shapes.items() if (match := re.fullmatch(r"mlp\.(\d+)\.weight", name))
    )
    if not weights:
        return None
    return {
        "input_size": weights[0][1][1],
        "hidden_sizes": [shape[0] for _, shape in weights[:-1]],
        "output_size": weights[-1][1][0],
    }
