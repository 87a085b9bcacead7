"""BatchNorm over two processes is equal to torch's with their batches combined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from process_groups import run_together
from torch import Tensor, nn

from fommctl.networks.layers import SynchronisedBatchNorm, synchronise
from fommctl.train.distributed import join

SHARES = (slice(0, 1), slice(1, 4))
"""Unequal shares of a batch of four."""


def network(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, **options))
    if made[1].affine:
        nn.init.normal_(made[1].weight)
        nn.init.normal_(made[1].bias)
    return made


def pictures(kind: torch.dtype = torch.float64) -> Tensor:
    # Far from zero, where sums of squares would lose the variance.
    return (torch.randn(4, 2, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 30).to(kind)


def passed(made: nn.Sequential, batch: Tensor) -> dict[str, Any]:
    """Return the results of a training step, with the gradients of a loss summed over the batch."""
    batch = batch.requires_grad_()
    made.train()
    made(batch)
    out = made(batch)
    (out.double() ** 3).sum().backward()
    return {
        "out": out.detach().numpy(),
        "of_batch": batch.grad.numpy(),  # type: ignore[union-attr]
        "gradients": [parameter.grad.numpy() for parameter in made.parameters()],  # type: ignore[union-attr]
        "state": {name: value.numpy() for name, value in made.state_dict().items()},
    }


def two_processes(**options: Any) -> list[dict[str, Any]]:
    def work(rank: int) -> dict[str, Any]:
        with join("cpu"):
            made = network(**options).double()
            synchronise(made)
            assert type(made[1]) is SynchronisedBatchNorm
            return passed(made, pictures()[SHARES[rank]])

    return run_together(work)


@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"affine": False, "track_running_stats": False}])
def test_as_one_batch_norm_over_both_batches(options: dict[str, Any]) -> None:
    expected = passed(network(**options).double(), pictures())
    found = two_processes(**options)
    for name in ("out", "of_batch"):
        np.testing.assert_allclose(np.concatenate([each[name] for each in found]), expected[name], atol=1e-9)
    for first, second, whole in zip(found[0]["gradients"], found[1]["gradients"], expected["gradients"], strict=True):
        np.testing.assert_allclose(first + second, whole, atol=1e-7)
    for each in found:
        assert each["state"].keys() == expected["state"].keys()
        for name, value in expected["state"].items():
            np.testing.assert_allclose(each["state"][name], value, rtol=1e-12, err_msg=name)


def test_sums_are_single_precision_under_autocast() -> None:
    def work(rank: int) -> tuple[str, float]:
        with join("cpu"):
            made = nn.BatchNorm2d(2)
            box = nn.Sequential(made)
            synchronise(box)
            x = pictures(torch.bfloat16)[SHARES[rank]]
            with torch.autocast("cpu", torch.bfloat16):
                out = box(x)
            return str(out.dtype), float(made.running_var[0])  # type: ignore[index]

    whole = nn.BatchNorm2d(2)
    whole(pictures(torch.bfloat16).float())
    for kind, variance in run_together(work):
        assert kind == "torch.bfloat16"
        assert variance == pytest.approx(float(whole.running_var[0]), abs=1e-5)  # type: ignore[index]


def test_alone_and_in_evaluation_it_is_torchs() -> None:
    made = network().double().eval()
    expected = made(pictures())
    synchronise(made)
    # There is no process group: evaluation must not need one.
    torch.testing.assert_close(made(pictures()), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm3d])
def test_other_dimensions_are_converted_too(kind: Callable[[int], nn.Module]) -> None:
    box = nn.Sequential(kind(2))
    synchronise(box)
    assert type(box[0]) is SynchronisedBatchNorm
    with pytest.raises(ValueError, match="got 1 dimensions"):
        box[0].train()(torch.ones(2))
