"""Conversion from and to the published files: one network per file, the small ones in a single file, with spectral norm
as separate tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fommctl.api import Groups

NETWORKS = ("appearance_feature_extractor", "motion_extractor", "warping_module", "spade_generator")
CORRECTORS = ("retarget_shoulder", "retarget_mouth", "retarget_eye")
"""Groups in the file `stitching_retargeting_module`: stitching, lips, eyes."""
# A tensor that only this network has, which identifies files that do not name their network.
_SIGNS = {
    "resblocks_3d.3dr0.conv1.weight": "appearance_feature_extractor",
    "detector.fc_kp.weight": "motion_extractor",
    "dense_motion_network.compress.weight": "warping_module",
    "G_middle_0.norm_0.mlp_gamma.weight": "spade_generator",
}
_FLAT = re.compile(r"(retarget_shoulder|retarget_mouth|retarget_eye)(?:_module)?\.(.+)")
"""Tensor names in files with the small networks but without groups."""


def from_published(groups: Groups) -> Groups:
    """Group the tensors by network, with spectral norm folded in; groups of other models are unchanged."""
    found: dict[str, Mapping[str, Tensor]] = {}
    for group, tensors in groups.items():
        plain = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        named = next((network for sign, network in _SIGNS.items() if sign in plain), None)
        flat = [_FLAT.fullmatch(name) for name in plain]
        if named is not None:
            found[named] = _folded(plain)
        elif plain and all(flat):
            for match, tensor in zip(flat, plain.values(), strict=True):
                assert match is not None
                found[match[1]] = {**found.get(match[1], {}), match[2]: tensor}
        else:
            found[group] = plain if group in CORRECTORS else tensors
    return found


def to_published(groups: Groups) -> Groups:
    """Convert to the published layout, with vectors of spectral norm whose factor is 1."""
    return {
        group: _split(tensors) if group == "spade_generator" else dict(tensors) for group, tensors in groups.items()
    }


def _folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Divide weights W by their spectral norm u . (W v), with the stored u and v, as at inference."""
    found = {}
    for name, tensor in tensors.items():
        if name.endswith((".weight_u", ".weight_v")):
            continue
        stem = name.removesuffix("_orig")
        if stem != name and f"{stem}_u" in tensors and f"{stem}_v" in tensors:
            tensor = tensor / torch.dot(tensors[f"{stem}_u"], tensor.flatten(1) @ tensors[f"{stem}_v"])
        found[stem] = tensor
    return found


def _split(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        if not re.search(r"\.conv_(0|1|s)\.weight$", name):
            found[name] = tensor
            continue
        left, right = _unit_factor(tensor.flatten(1))
        found |= {f"{name}_orig": tensor, f"{name}_u": left, f"{name}_v": right}
    return found


def _unit_factor(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors u and v, each with a single entry, for which u . (matrix v) is exactly 1.

    For an element with a mantissa below 1.5, one of the floats next to its inverse gives exactly 1 as product.
    """
    digits, _ = torch.frexp(matrix)
    place = int(torch.where(digits.abs() < 0.75, matrix.abs(), 0).argmax())
    row, column = divmod(place, matrix.shape[1])
    near = 1 / matrix[row, column]
    around = torch.stack([near, *(torch.nextafter(near, torch.tensor(end)) for end in (-torch.inf, torch.inf))])
    best = around[(around * matrix[row, column] - 1).abs().argmin()]
    left, right = torch.zeros(matrix.shape[0]), torch.zeros(matrix.shape[1])
    left[row], right[column] = 1, best
    return left, right
