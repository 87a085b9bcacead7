"""The rewritten operations of the inference engine compared with the originals."""

import pytest
import torch
import torch.nn.functional as F

from fommctl.errors import UsageError
from fommctl.networks.inference import convolutions
from fommctl.networks.inference.convolutions import (
    Numerics,
    PackedConvolution,
    PlainConvolution,
    WinogradConvolution,
    affine_of,
    blank_outside,
    folded,
    interleave_into,
    joined,
    packing_works,
    phases_kernel,
    pixels_from_phases,
    transforms,
    upsampling_kernel,
)
from fommctl.networks.inference.motion import SeparableDownsample, downsample_at, neighbours, weighted_rows
from fommctl.networks.layers import AntiAliasDownsample

CPU = Numerics(torch.device("cpu"), torch.float32)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def picture(*shape):
    return torch.randn(shape).to(memory_format=torch.channels_last)


def test_batch_norm_folds_into_the_convolution():
    conv, norm = torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.BatchNorm2d(5).eval()
    for values, low in ((norm.running_mean, -1), (norm.running_var, 0.1), (norm.weight, -1), (norm.bias, -1)):
        values.uniform_(low, 2)
    x = torch.randn(2, 3, 8, 8)
    weight, bias = folded(conv, norm)
    close(F.conv2d(x, weight, bias, padding=1), norm(conv(x)))
    scale, shift = affine_of(norm)
    features = torch.randn(2, 5, 4, 4)
    close(features * scale[:, None, None] + shift[:, None, None], norm(features))


def test_heads_join_into_one_convolution():
    heads = torch.nn.Conv2d(4, 2, 7), torch.nn.Conv2d(4, 3, 7)
    x = torch.randn(1, 4, 9, 9)
    close(F.conv2d(x, *joined(heads[0], None, heads[1])), torch.cat([head(x) for head in heads], 1))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_with_and_without_packed_weights(monkeypatch, packed, dtype):
    packed = packed and packing_works(dtype)
    monkeypatch.setattr(convolutions, "packing_works", lambda dtype: packed)
    numerics = Numerics(torch.device("cpu"), dtype)
    weight, bias = torch.randn(32, 16, 3, 3) / 12, torch.randn(32)
    conv, again = (
        numerics.convolution(weight, bias, padding=1, relu=True),
        numerics.convolution(weight, bias, padding=1),
    )
    assert isinstance(conv, PackedConvolution if packed else PlainConvolution)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    # The second size is not the one that the weights were packed for.
    for size in ((2, 16, 8, 8), (3, 16, 12, 10)):
        x = picture(*size).to(dtype)
        expected = F.conv2d(x.float(), weight, bias, padding=1)
        close(conv(x).float(), expected.relu(), tolerance)
        total = picture(*expected.shape).to(dtype)
        close(
            again.add_to(total.clone(memory_format=torch.preserve_format), x).float(),
            total.float() + expected,
            tolerance,
        )


def test_packing_counts_as_absent_where_the_operators_are(monkeypatch):
    packing_works.cache_clear()
    monkeypatch.setattr(PackedConvolution, "_pack", lambda self, x: torch.ops.mkldnn.no_such_operator)
    assert not packing_works(torch.float32)
    packing_works.cache_clear()


def test_upsampling_and_convolution_at_the_small_resolution():
    weight, x = torch.randn(6, 5, 3, 3), picture(2, 5, 4, 7)
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    phases = F.conv2d(x, upsampling_kernel(weight), padding=1)
    out = torch.full((2, 8, 8, 14), 9.0).to(memory_format=torch.channels_last)
    interleave_into(out[:, :6], phases)
    close(out[:, :6], expected)
    assert (out[:, 6:] == 9).all()


def test_the_final_convolution_on_phases():
    up, final, x = torch.randn(6, 5, 3, 3), torch.randn(3, 6, 7, 7) / 10, picture(2, 5, 8, 4)
    pixels = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), up, torch.ones(6), padding=1)
    expected = F.conv2d(pixels, final, padding=3)
    phases = blank_outside(F.conv2d(x, upsampling_kernel(up), torch.ones(24), padding=1))
    close(pixels_from_phases(F.conv2d(phases, phases_kernel(final), padding=1)).permute(0, 3, 1, 2), expected, 1e-4)


def test_winograd_in_one_dimension_is_exact():
    values, kernel, results = transforms()
    signal, taps = torch.randn(6).double(), torch.randn(3).double()
    expected = torch.stack([signal[i : i + 3] @ taps for i in range(4)])
    close(results @ ((values @ signal) * (kernel @ taps)), expected, 1e-12)


@pytest.mark.parametrize("size", [(2, 24, 16, 8), (1, 24, 5, 11)])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_winograd_convolution(monkeypatch, size, relu, dtype):
    numerics, weight, bias = Numerics(torch.device("cpu"), dtype), torch.randn(32, 24, 3, 3) / 15, torch.randn(32)
    monkeypatch.setattr(Numerics, "_winograd_pays", lambda self, channels: True)
    conv, x = numerics.wide_convolution(weight, bias, relu=relu), picture(*size).to(dtype)
    assert isinstance(conv, WinogradConvolution)
    expected = F.conv2d(x.float(), weight, bias, padding=1)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    result = conv(x)
    assert result.dtype == dtype
    close(result.float(), expected.relu() if relu else expected, tolerance)
    if not relu:
        total = picture(*expected.shape).to(dtype)
        added = conv.add_to(total.clone(memory_format=torch.preserve_format), x)
        close(added.float(), total.float() + expected, tolerance)


@pytest.mark.parametrize(
    ("dtype", "channels", "instructions", "pays"),
    [
        (torch.float32, 256, "tiles", True),
        (torch.float32, 64, "vectors", False),
        (torch.bfloat16, 256, "vectors", True),
        (torch.bfloat16, 256, "tiles", False),
        (torch.bfloat16, 96, "vectors", False),
    ],
)
def test_winograd_is_for_cpus_without_matrix_tiles(monkeypatch, dtype, channels, instructions, pays):
    monkeypatch.setattr(convolutions, "bf16_instructions", lambda: instructions)
    monkeypatch.setattr(convolutions, "packing_works", lambda dtype: True)
    conv = Numerics(torch.device("cpu"), dtype).wide_convolution(
        torch.zeros(channels, channels, 3, 3), torch.zeros(channels)
    )
    assert isinstance(conv, WinogradConvolution) == pays


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("gather", ["embedding_bag", "indexing"])
def test_warping_rows_is_grid_sample(monkeypatch, align_corners, gather):
    features, grid = torch.randn(1, 5, 6, 9), torch.rand(3, 4, 7, 2) * 3 - 1.5
    gain = torch.rand(3, 1, 4, 7)
    expected = F.grid_sample(features.expand(3, -1, -1, -1), grid, align_corners=align_corners) * gain
    table = features[0].flatten(1).t().contiguous()
    indices, weights = neighbours(grid, 6, 9, align_corners=align_corners, gain=gain)
    rows = weighted_rows(table, indices, weights)
    if gather == "indexing":
        rows = (table[indices.long()] * weights[..., None]).sum(1)
    close(rows.view(3, 4, 7, 5).permute(0, 3, 1, 2), expected)


def test_points_at_infinity_read_nothing():
    grid = torch.tensor([float("nan"), float("inf"), float("-inf"), 1e30]).view(1, 1, 4, 1).expand(-1, -1, -1, 2)
    indices, weights = neighbours(grid, 6, 9, align_corners=True)
    assert (weights == 0).all()
    assert ((indices >= 0) & (indices < 54)).all()


@pytest.mark.parametrize("scale", [1 / 2, 1 / 4])
def test_antialiased_downsampling_as_matrices(scale):
    down, frames = AntiAliasDownsample(3, scale), torch.rand(2, 3, 32, 24)
    close(SeparableDownsample(down, torch.device("cpu"))(frames), down(frames), 1e-6)


def test_downsampling_for_larger_frames():
    down = AntiAliasDownsample(3, 0.25)
    assert downsample_at(down, 3, 1.0) is down
    assert downsample_at(down, 3, 0.5).step == 8
    assert downsample_at(down, 3, 2.0).step == 2
    assert downsample_at(down, 3, 4.0) is None
    assert downsample_at(None, 3, 1 / 3).step == 3
    with pytest.raises(UsageError, match="native size"):
        downsample_at(down, 3, 0.7)
