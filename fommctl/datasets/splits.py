"""The identities that are kept for testing where a data set does not say: one rule for preprocessing and training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from hashlib import sha256

from fommctl.errors import UsageError


def split_of(identities: Iterable[str], test_fraction: float, seed: int) -> set[str]:
    """Choose the identities of the test split: the first ceil(test_fraction * n) by the SHA-256 of `seed:identity`.

    The rule depends on the names alone, not on their order or on the number of clips, so that it gives the same split
    wherever it is asked. Of two identities or more, one at least is for testing and one for training; a single one is
    for training; a fraction of 0 tests none. Raises UsageError for a fraction outside [0, 1).
    """
    if not 0 <= test_fraction < 1:
        raise UsageError(f"the test fraction is {test_fraction:g}", "Give a number from 0 to less than 1, such as 0.1.")
    names = sorted(set(identities), key=lambda name: sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest())
    # 0.1 * 30 is a little more than 3 in binary.
    wanted = math.ceil(round(test_fraction * len(names), 9))
    return set(names[: min(wanted, max(0, len(names) - 1))])
