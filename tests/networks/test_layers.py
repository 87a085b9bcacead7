"""Convolutions as rearranged for training in bf16 on a CPU, compared with the published ones."""

import torch
from torch import Tensor, nn

from fommctl.networks.layers import UpBlock, heads

INPUT = torch.linspace(-1, 1, 2 * 5 * 6 * 7).view(2, 5, 6, 7).sin()


def gradients(network: nn.Module, out: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(out.float().pow(2).sum(), list(network.parameters())))


def close(found: Tensor, wanted: Tensor) -> bool:
    """Assert equality within bf16 rounding."""
    return bool((found.float() - wanted).abs().max() < 0.02 * wanted.abs().max() + 0.02)


def test_an_upsampling_block_under_autocast_is_the_published_one() -> None:
    torch.manual_seed(0)
    block = UpBlock(5, 4)
    wanted = block(INPUT)
    expected = gradients(block, wanted)
    block.norm.reset_running_stats()
    with torch.autocast("cpu", torch.bfloat16):
        found = block(INPUT)
    assert found.shape == (2, 4, 12, 14)
    assert close(found, wanted)
    # A bias before BatchNorm has no gradient except rounding.
    assert all(close(one, other) for one, other in zip(gradients(block, found)[2:], expected[2:], strict=True))
    assert close(gradients(block, block(INPUT))[0], expected[0])
    torch.testing.assert_close(
        block._convolved_small(INPUT), block.conv(INPUT.repeat_interleave(2, 2).repeat_interleave(2, 3))
    )


def test_two_heads_are_one_convolution_under_autocast_and_two_elsewhere() -> None:
    torch.manual_seed(0)
    pair = nn.ModuleList([nn.Conv2d(5, 3, 7, padding=3), nn.Conv2d(5, 1, 7, padding=3)])
    first, second = pair
    wanted = [first(INPUT), second(INPUT)]
    found = heads(INPUT, first, second)  # type: ignore[arg-type]
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        found = heads(INPUT, first, second)  # type: ignore[arg-type]
    assert [each.dtype for each in found] == [torch.bfloat16] * 2
    assert all(close(one, other) for one, other in zip(found, wanted, strict=True))
    whole = gradients(pair, torch.cat(found, 1))
    assert all(close(one, other) for one, other in zip(whole, gradients(pair, torch.cat(wanted, 1)), strict=True))
