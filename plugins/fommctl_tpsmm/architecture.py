"""Infers `model_params` from the tensors of a published checkpoint, so that it loads without its configuration."""

from __future__ import annotations

from typing import Any

from fommctl.api import Architecture, Groups
from fommctl.api.architecture import Shapes, agreed, below, maximum, shapes_of, sizes, unet, widths

_HEAD = "fg_encoder.fc."
_NUMBERS = 10
"""Number of coordinates of one spline's keypoints."""


def read_architecture(groups: Groups) -> Architecture | None:
    """Infer TPSMM's `model_params` from tensors {group: {name: tensor}}; None for another kind of model.

    Raises UsageError if the tensors contradict each other.
    """
    detector, motion, inpainting, avd = (
        shapes_of(groups, group)
        for group in ("kp_detector", "dense_motion_network", "inpainting_network", "avd_network")
    )
    needed = (
        (detector, _HEAD + "weight", 2),
        (detector, "fg_encoder.layer4.1.conv2.weight", 4),
        (motion, "maps.weight", 4),
        (motion, "occlusion.0.weight", 4),
        (inpainting, "resblock.0.conv1.weight", 4),
        (inpainting, "final.weight", 4),
    )
    if not all(len(shapes.get(name, ())) == axes for shapes, name, axes in needed):
        return None
    notes: list[str] = []
    common = _common(detector, motion, inpainting)
    scale = _scale(motion, notes)
    features = [size - (common["num_tps"] + 1) * common["num_channels"] - 5 * common["num_tps"] - 1
                for size in sizes(motion, "maps.weight", axis=1)]  # fmt: skip
    levels = widths(inpainting, r"down_blocks\.(\d+)\.conv\.weight")
    expansion = agreed(
        "the width of the inpainting network",
        sizes(inpainting, "first.conv.weight", "first.conv.bias", "first.norm.weight")
        + sizes(inpainting, "final.weight", axis=1),
    )
    params: dict[str, Any] = {
        "common_params": {**common, "bg": "bg_predictor" in groups, "multi_mask": "occlusion.1.weight" in motion},
        "generator_params": {
            "block_expansion": expansion,
            "max_features": maximum(expansion, levels, "inpainting network", notes),
            "num_down_blocks": max(levels, default=-1) + 1,
        },
        "dense_motion_params": {
            **unet(below(motion, "hourglass."), "motion network", notes, expansions=features),
            "scale_factor": scale,
        },
    }
    if avd:
        params["avd_network_params"] = {
            name: agreed(f"the size of {name}", sizes(avd, f"{encoder}.9.weight", f"{encoder}.9.bias"))
            for name, encoder in (("id_bottle_size", "id_encoder"), ("pose_bottle_size", "pose_encoder"))
        }
    side = round(64 / scale)
    notes.append(f"frames of {side}x{side} pixels assumed, at which the motion network sees 64x64")
    return Architecture(model_params=params, frame_shape=(side, side, common["num_channels"]), notes=tuple(notes))


def _common(detector: Shapes, motion: Shapes, inpainting: Shapes) -> dict[str, Any]:
    splines = [size // _NUMBERS for size in sizes(detector, _HEAD + "weight", _HEAD + "bias")]
    return {
        "num_tps": agreed(
            "the number of splines", splines + [size - 1 for size in sizes(motion, "maps.weight", "maps.bias")]
        ),
        "num_channels": agreed(
            "the number of colour channels",
            sizes(inpainting, "final.weight", "final.bias")
            + sizes(inpainting, "first.conv.weight", axis=1)
            + sizes(detector, "fg_encoder.conv1.weight", axis=1),
        ),
    }


def _scale(motion: Shapes, notes: list[str]) -> float:
    """Infer the scale 1/n from the number of finer occlusion maps, each of which doubles the resolution up to the
    frame's, or from the width of the anti-alias filter, 2 round(4 sigma) + 1 with sigma = (n - 1) / 2."""
    finer = len(widths(motion, r"up\.(\d+)\.conv\.weight"))
    if "occlusion.1.weight" in motion:
        notes.append(f"motion network: scale 1/{1 << finer}, inferred from its finer occlusion maps")
        return 1 / (1 << finer)
    width = motion["down.weight"][-1] if motion.get("down.weight") else 1
    step = (width - 1) // 4 + 1
    notes.append(f"motion network: scale 1/{step}, inferred from its anti-alias filter, {width} pixels wide")
    return 1 / step
