"""Helpers for a backend's `read_architecture`: widths, depths and channels from the shapes of tensors.

If several tensors determine a value, the majority decides, so that one damaged tensor does not change the architecture
and is reported by name when the weights are loaded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fommctl.errors import UsageError

if TYPE_CHECKING:
    from fommctl.api.specs import Groups

HINT = "Name the configuration with --preset NAME or --preset FILE.yaml."
Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(groups: Groups, group: str) -> Shapes:
    """Return the shapes of a group's tensors by name; empty if there is no such group."""
    return {name: tuple(tensor.shape) for name, tensor in groups.get(group, {}).items()}


def below(shapes: Shapes, prefix: str) -> Shapes:
    """Return the shapes of the tensors whose names begin with `prefix`, by name without the prefix."""
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def unet(
    shapes: Shapes,
    network: str,
    notes: list[str],
    *,
    encoder: str = "encoder.",
    decoder: str = "decoder.",
    expansions: Sequence[int] = (),
) -> dict[str, int]:
    """Return `block_expansion`, `max_features` and `num_blocks` of an `Encoder` with a `Decoder`.

    network: its name in notes and messages.  notes: receives a phrase for each assumption.  encoder, decoder: prefixes
    of tensor names.  expansions: values of `block_expansion` found in other tensors.
    Raises UsageError if the tensors are missing or contradict each other.
    """
    found = widths(shapes, re.escape(encoder) + r"down_blocks\.(\d+)\.conv\.weight")
    if not found:
        raise UsageError(
            f"the checkpoint has no tensors '{encoder}down_blocks.*' to read the architecture of its {network} from",
            HINT,
        )
    blocks = max(found) + 1
    last = f"{decoder}up_blocks.{blocks - 1}."
    sizes_found = sizes(shapes, last + "conv.weight", last + "conv.bias", last + "norm.weight")
    expansion = agreed(f"the width of the {network}", [*sizes_found, *expansions])
    return {
        "block_expansion": expansion,
        "max_features": maximum(expansion, found, network, notes),
        "num_blocks": blocks,
    }


def maximum(expansion: int, found: Mapping[int, int], network: str, notes: list[str]) -> int:
    """Return the smallest `max_features` that most widths of an encoder's blocks agree with.

    expansion: `block_expansion`.  found: widths by level; each should be min(max_features, expansion * 2^(level + 1)).
    notes: receives a phrase if no block reaches the maximum, which then affects no tensor.
    """
    free = {level: expansion << (level + 1) for level in found}
    highest = max(free.values(), default=expansion)
    candidates = sorted({highest, *(width for level, width in found.items() if width < free[level])})
    fits = {most: sum(min(most, free[level]) == width for level, width in found.items()) for most in candidates}
    best = max(candidates, key=lambda most: (fits[most], -most))
    if best >= highest:
        notes.append(f"{network}: max_features at least {best}, taken as {best}")
    return best


def widths(shapes: Shapes, pattern: str) -> dict[int, int]:
    """Return output channels by level, from the weights whose names match; the pattern's first group is the level."""
    return {
        int(match[1]): shape[0] for name, shape in shapes.items() if shape and (match := re.fullmatch(pattern, name))
    }


def sizes(shapes: Shapes, *names: str, axis: int = 0) -> list[int]:
    """Return the lengths along an axis of those named tensors that exist and have it."""
    return [shapes[name][axis] for name in names if name in shapes and len(shapes[name]) > axis]


def agreed(what: str, values: Sequence[int]) -> int:
    """Return the most frequent value.  what: its name in messages.

    Raises UsageError if there are no values, two are equally frequent, or the value is below 1.
    """
    ranked = Counter(values).most_common(2)
    if not ranked or ranked[0][0] < 1 or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        rivals = " or ".join(str(value) for value, _ in ranked) or "nothing"
        raise UsageError(f"the tensors of the checkpoint do not agree on {what}: {rivals}", HINT)
    return ranked[0][0]


def most_common(values: Sequence[int]) -> int:
    """Return the most frequent value, of equally frequent ones the first. Raises IndexError for no values."""
    return Counter(values).most_common(1)[0][0]
