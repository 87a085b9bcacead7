"""Conversion from and to the layout of published checkpoints, and inference of `model_params` from their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fommctl.api import Architecture, Groups, UsageError

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES = {"embedding": "pix2pixUnwrapped.netG.", "driving": "pix2pixSampler.netG."}
"""Prefixes of each group's tensor names in the single group of a published checkpoint."""
PUBLISHED_GROUP = "state_dict"
_FIRST = "model.down.0.weight"
_INNER = re.compile(r"model\.((?:submodule\.)+)down\.1\.weight")


def from_published(groups: Groups) -> Groups:
    """Convert {`state_dict`: both networks} to {`embedding`: ..., `driving`: ...}; other groups are unchanged.

    Tensors of `state_dict` that belong to neither network stay there.
    """
    published = groups.get(PUBLISHED_GROUP, {})
    found: dict[str, dict[str, Tensor]] = {name: {} for name in PREFIXES}
    rest: dict[str, Tensor] = {}
    for name, tensor in published.items():
        group = next((group for group, prefix in PREFIXES.items() if name.startswith(prefix)), None)
        if group is None:
            rest[name] = tensor
        else:
            found[group][name.removeprefix(PREFIXES[group])] = tensor
    if not any(found.values()):
        return groups
    others = {name: tensors for name, tensors in groups.items() if name != PUBLISHED_GROUP}
    ours = {name: tensors for name, tensors in found.items() if tensors}
    return {**others, **ours, **({PUBLISHED_GROUP: rest} if rest else {})}


def to_published(groups: Groups) -> Groups:
    """Convert {`embedding`: ..., `driving`: ...} to {`state_dict`: both networks}; other groups are unchanged."""
    tensors = {PREFIXES[group] + name: tensor for group in PREFIXES for name, tensor in groups.get(group, {}).items()}
    others = {name: tensors for name, tensors in groups.items() if name not in PREFIXES}
    return {**others, PUBLISHED_GROUP: tensors} if tensors else groups


def read_architecture(groups: Groups) -> Architecture | None:
    """Infer X2Face's `model_params` from tensors {group: {name: tensor}}; None for another kind of model.

    Raises UsageError if a network has fewer than two levels.
    """
    firsts = [groups.get(group, {}).get(_FIRST) for group in PREFIXES]
    if any(first is None or first.dim() != 4 for first in firsts):
        return None
    params = {f"{group}_params": _hourglass(groups[group]) for group in PREFIXES}
    side = 1 << max(each["num_downs"] for each in params.values())
    notes = (
        "; ".join(
            f"{group} network: {each['num_downs']} levels from {each['ngf']} to {each['inner_channels']} channels"
            for group, each in ((group, params[f"{group}_params"]) for group in PREFIXES)
        ),
        f"frames of {side}x{side} pixels assumed, which the innermost level reduces to 1x1 as in the published model",
    )
    return Architecture(model_params=params, frame_shape=(side, side, 3), notes=notes)


def _hourglass(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    depths = {match[1].count("."): name for name in tensors if (match := _INNER.fullmatch(name))}
    if not depths:
        raise UsageError(
            "the architecture cannot be inferred: the checkpoint has no tensors 'model.submodule.down.*'",
            "Give the configuration with --preset NAME or --preset FILE.yaml.",
        )
    deepest = max(depths)
    return {
        "ngf": tensors[_FIRST].shape[0],
        "num_downs": deepest + 1,
        "inner_channels": tensors[depths[deepest]].shape[0],
    }
