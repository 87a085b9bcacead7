"""Messages of failed contract checks say what came instead."""

import numpy as np
import pytest

from fommctl.api.testing import BrokenPromiseError, require


@pytest.mark.parametrize(
    ("got", "shown"),
    [
        ((), None),
        ((3,), "3"),
        (("none of them",), "none of them"),
        ((["a"], "D is 3"), "['a'], D is 3"),
        ((np.zeros((2, 3), np.float32),), "float32 (2, 3)"),
        (("x" * 300,), f"{'x' * 200}..."),
    ],
)
def test_what_was_got(got: tuple[object, ...], shown: str | None) -> None:
    require(True, "kept", *got)
    with pytest.raises(BrokenPromiseError) as caught:
        require([], "there are clips", *got)
    assert (caught.value.promise, caught.value.got) == ("there are clips", shown)
    assert str(caught.value) == ("there are clips" if shown is None else f"there are clips (got {shown})")
