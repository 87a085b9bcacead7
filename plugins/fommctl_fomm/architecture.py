"""Reads `model_params` off the tensors of a published checkpoint, so that its configuration need not be at hand.

What several tensors tell is taken from most of them: one damaged tensor then does not hide behind a wrong reading, and
loading names it. What no tensor tells takes the published value and is noted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fommctl.api import Architecture, UsageError

if TYPE_CHECKING:
    from torch import Tensor

HINT = "Name the configuration with --preset NAME or --preset FILE.yaml."
Shapes = Mapping[str, tuple[int, ...]]


def read_architecture(groups: Mapping[str, Mapping[str, Tensor]]) -> Architecture | None:
    """`model_params` of FOMM from the tensors {group: {name: tensor}}; None if they are of another kind of model.

    Raises UsageError where the tensors contradict each other, or where a Gaussian filter fits no scale 1/n.
    """
    detector, generator, discriminator = (
        {name: tuple(tensor.shape) for name, tensor in groups.get(group, {}).items()}
        for group in ("kp_detector", "generator", "discriminator")
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
    """Side of the frames at which the published scale holds: the inner networks see 64 pixels.

    256 for all published weights (scale 1/4); 256 too where the two networks differ in scale.
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
    num_kp = _agreed(
        "the number of keypoints",
        _sizes(detector, "kp.weight", "kp.bias")
        + [
            size - 1 for size in _sizes(generator, "dense_motion_network.mask.weight", "dense_motion_network.mask.bias")
        ],
    )
    num_channels = _agreed(
        "the number of colour channels",
        _sizes(generator, "final.weight", "final.bias")
        + _sizes(generator, "first.conv.weight", axis=1)
        + _sizes(detector, "predictor.encoder.down_blocks.0.conv.weight", axis=1),
    )
    return {
        "num_kp": num_kp,
        "num_channels": num_channels,
        "estimate_jacobian": "jacobian.weight" in detector,
        "align_corners": True,
    }


def _keypoint_detector(detector: Shapes, common: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    features = _sizes(detector, "kp.weight", "jacobian.weight", axis=1)
    maps = _sizes(detector, "jacobian.weight", "jacobian.bias")
    return {
        "temperature": 0.1,
        **_hourglass(detector, "predictor.", [size - common["num_channels"] for size in features], notes),
        "scale_factor": _scale(detector, "down.weight", "keypoint detector", notes),
        "single_jacobian_map": common["num_kp"] > 1 and bool(maps) and _most_common(maps) == 4,
        "pad": 0,
    }


def _generator(generator: Shapes, common: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    motion = {
        name.removeprefix("dense_motion_network."): shape
        for name, shape in generator.items()
        if name.startswith("dense_motion_network.")
    }
    inputs = (common["num_kp"] + 1) * (common["num_channels"] + 1)
    features = [size - inputs for size in _sizes(motion, "mask.weight", "occlusion.weight", axis=1)]
    expansion = _agreed(
        "the width of the generator",
        _sizes(generator, "first.conv.weight", "first.conv.bias", "first.norm.weight")
        + _sizes(generator, "final.weight", axis=1),
    )
    widths = _widths(generator, r"down_blocks\.(\d+)\.conv\.weight")
    residual = [int(match[1]) for name in generator if (match := re.match(r"bottleneck\.r(\d+)\.", name))]
    return {
        "block_expansion": expansion,
        "max_features": _maximum(expansion, widths, "generator", notes),
        "num_down_blocks": max(widths, default=-1) + 1,
        "num_bottleneck_blocks": max(residual, default=-1) + 1,
        "estimate_occlusion_map": "occlusion.weight" in motion,
        "dense_motion_params": {
            **_hourglass(motion, "hourglass.", features, notes),
            "scale_factor": _scale(motion, "down.weight", "motion network", notes),
        },
    }


def _hourglass(shapes: Shapes, prefix: str, expansions: Sequence[int], notes: list[str]) -> dict[str, int]:
    """expansions: what the heads behind the hourglass say of its `block_expansion`."""
    widths = _widths(shapes, re.escape(prefix) + r"encoder\.down_blocks\.(\d+)\.conv\.weight")
    if not widths:
        raise UsageError(
            f"the checkpoint has no tensors '{prefix}encoder.down_blocks.*' to read its architecture from", HINT
        )
    blocks = max(widths) + 1
    last = f"{prefix}decoder.up_blocks.{blocks - 1}."
    told = _sizes(shapes, last + "conv.weight", last + "conv.bias", last + "norm.weight")
    expansion = _agreed(f"the width of '{prefix}*'", [*told, *expansions])
    name = "keypoint detector" if prefix == "predictor." else "motion network"
    return {
        "block_expansion": expansion,
        "max_features": _maximum(expansion, widths, name, notes),
        "num_blocks": blocks,
    }


def _discriminator(shapes: Shapes, common: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    keys = list(dict.fromkeys(match[1] for name in shapes if (match := re.match(r"discs\.([^.]+)\.", name))))
    if not keys:
        raise UsageError("the discriminator of the checkpoint holds no tensors 'discs.*'", HINT)
    prefix = re.escape(f"discs.{keys[0]}.")
    pattern = prefix + r"down_blocks\.(\d+)\.conv\.weight(?:_orig)?"
    widths = _widths(shapes, pattern)
    first = pattern.replace(r"(\d+)", "0")
    inputs = [shape[1] for name, shape in shapes.items() if len(shape) > 1 and re.fullmatch(first, name)]
    if not widths or not inputs:
        raise UsageError("the first blocks of the discriminator are missing in the checkpoint", HINT)
    # The width before the first block shows in no tensor: the first block doubles it, up to the maximum.
    expansion = -(-widths.get(0, widths[min(widths)]) // 2)
    return {
        "scales": [_written_scale(key) for key in keys],
        "block_expansion": expansion,
        "max_features": _maximum(expansion, widths, "discriminator", notes),
        "num_blocks": max(widths) + 1,
        "sn": any(name.endswith(".weight_orig") for name in shapes),
        "use_kp": inputs[0] == common["num_channels"] + common["num_kp"],
    }


def _written_scale(key: str) -> float:
    """The scale in the name of a discriminator: `1`, or `0-5` for 0.5, as a module's name holds no dot."""
    try:
        return float(key.replace("-", ".")) if "-" in key else int(key)
    except ValueError:
        raise UsageError(f"the discriminator 'discs.{key}' names no scale", HINT) from None


def _scale(shapes: Shapes, name: str, network: str, notes: list[str]) -> float:
    """The scale 1/n whose anti-alias filter is stored: 2 round(4 sigma) + 1 wide, sigma = (n - 1) / 2."""
    if name not in shapes:
        notes.append(f"{network}: no anti-alias filter, so it sees frames at full size")
        return 1.0
    width = shapes[name][-1] if shapes[name] else 0
    steps, rest = divmod(width - 1, 4)
    if rest or steps < 1:
        raise UsageError(f"the anti-alias filter of the {network}, {width} pixels wide, fits no scale 1/n", HINT)
    scale = 1 / (steps + 1)
    notes.append(f"{network}: scale {scale:g}, by its anti-alias filter {width} pixels wide")
    return scale


def _maximum(expansion: int, widths: Mapping[int, int], network: str, notes: list[str]) -> int:
    """`max_features` from the widths min(max_features, expansion 2^(level + 1)) of an encoder's blocks.

    The smallest value that most widths agree with; where no block reaches it, it changes no tensor.
    """
    free = {level: expansion << (level + 1) for level in widths}
    highest = max(free.values(), default=expansion)
    candidates = sorted({highest, *(width for level, width in widths.items() if width < free[level])})
    fits = {
        maximum: sum(min(maximum, free[level]) == width for level, width in widths.items()) for maximum in candidates
    }
    best = max(candidates, key=lambda maximum: (fits[maximum], -maximum))
    if best >= highest:
        notes.append(f"{network}: max_features at least {best}, taken as {best}")
    return best


def _widths(shapes: Shapes, pattern: str) -> dict[int, int]:
    """Output channels by level, from the weights whose name matches; the pattern's group is the level."""
    return {
        int(match[1]): shape[0] for name, shape in shapes.items() if shape and (match := re.fullmatch(pattern, name))
    }


def _sizes(shapes: Shapes, *names: str, axis: int = 0) -> list[int]:
    return [shapes[name][axis] for name in names if name in shapes and len(shapes[name]) > axis]


def _agreed(what: str, values: Sequence[int]) -> int:
    """The value that most tensors tell. Raises UsageError where two are told equally often."""
    ranked = Counter(values).most_common(2)
    if not ranked or ranked[0][0] < 1 or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        told = " or ".join(str(value) for value, _ in ranked) or "nothing"
        raise UsageError(f"the tensors of the checkpoint do not agree on {what}: {told}", HINT)
    return ranked[0][0]


def _most_common(values: Sequence[int]) -> int:
    return Counter(values).most_common(1)[0][0]
