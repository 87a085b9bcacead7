"""Adding the source's detail back to frames: positions, confidence, and what stays the network's."""

import math

import numpy as np
import pytest
import skimage.data
import torch

from fommctl.animate.paste import Paste, resting
from fommctl.media.boxes import Box
from fommctl.media.resampling import crop, resize
from fommctl.networks.detail import (
    Detail,
    centres,
    confidence_of,
    displacement,
    enlarged,
    enlarged_strips,
    spread,
    steadiness,
)
from fommctl.networks.grids import between_borders, identity_grid

WHOLE = slice(None), slice(None)


def waves(y, x):
    """Return a smooth picture (..., 3), known at every position, in levels; positions are in pixels."""
    planes = [128 + 60 * np.sin(x / 9 + shift) + 50 * np.cos(y / 11 - shift) for shift in (0.0, 1.0, 2.0)]
    return np.stack(planes, -1)


def pixels(height, width):
    return np.meshgrid(np.arange(height, dtype=float), np.arange(width, dtype=float), indexing="ij")


def still(height=16, width=16):
    return centres(height, width, like=torch.zeros(1))


def as_frame(small):
    return torch.from_numpy(small).permute(2, 0, 1).float() / 255


def detail_of(square, small, part=WHOLE, weight=1.0):
    shape = torch.empty(square.shape[:2])[part].shape
    return Detail(torch.from_numpy(square), torch.from_numpy(small), torch.full(shape, weight), part)


def given_back(square, small, frame, flow):
    """Return the whole square with detail, in levels before rounding, (H, W, 3)."""
    levels = torch.cat((frame * 255, frame[:1] * 255)).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    result = enlarged(levels, square.shape[:2]).float() + detail_of(square, small)(frame, flow).strip(slice(None))
    return result[..., :3].numpy()


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


@pytest.mark.parametrize(("height", "width"), [(300, 300), (301, 260), (97, 133)])
@pytest.mark.parametrize("flow", [(64, 64), (16, 16), (48, 32)])
def test_where_nothing_moves_the_source_comes_back_bit_for_bit(astronaut, height, width, flow):
    square = np.ascontiguousarray(astronaut[20 : 20 + height, 100 : 100 + width])
    small = resize(square, (64, 64))
    result = given_back(square, small, as_frame(small), still(*flow))
    assert np.array_equal(result.round(), square)


def test_a_shift_reads_between_pixels_without_any_of_its_own():
    """By 3.4 pixels to the right and 1.3 up; an error of half a pixel would be 3 levels here."""
    square = waves(*pixels(240, 320)).round().astype(np.uint8)
    small = resize(square, (64, 64))
    moved = still(12, 16) + torch.tensor([2 * 3.4 / 320, -2 * 1.3 / 240])
    kept = detail_of(square, small)(as_frame(small), moved).kept(slice(None))[..., :3].numpy().astype(float)
    y, x = pixels(240, 320)
    expected = waves(y - 1.3, x + 3.4)
    inner = (slice(30, -30), slice(30, -30))
    assert np.abs(kept - expected)[inner].max() < 3  # a sixth of a pixel, and rounding
    assert abs((kept - expected)[inner].mean()) < 0.1
    for error in (-0.5, 0.5):
        assert np.abs(kept - waves(y - 1.3, x + 3.4 + error))[inner].mean() > 4 * np.abs(kept - expected)[inner].mean()


@pytest.mark.parametrize("resolution", [8, 16, 64])
def test_a_zoom_about_the_middle_is_the_same_at_every_resolution_of_the_flow(resolution):
    square = waves(*pixels(250, 250)).round().astype(np.uint8)
    small = resize(square, (64, 64))
    kept = detail_of(square, small)(as_frame(small), 0.9 * still(resolution, resolution)).kept(slice(None))
    y, x = pixels(250, 250)
    expected = waves((y - 124.5) * 0.9 + 124.5, (x - 124.5) * 0.9 + 124.5)
    inner = (slice(40, -40), slice(40, -40))
    assert np.abs(kept[..., :3].numpy() - expected)[inner].max() < 3


def test_large_and_small_source_are_read_at_one_place():
    """The reduced source along a flow equals the full one along it, reduced."""
    y, x = pixels(256, 256)
    square = waves(y / 4, x / 4).round().astype(np.uint8)
    small = resize(square, (64, 64))
    detail = detail_of(square, small)
    flow = still() + torch.tensor([0.11, -0.07])
    large = detail(as_frame(small), flow).kept(slice(None))[..., :3].numpy()
    compared = detail.kept_small(displacement(flow)).permute(1, 2, 0).numpy() * 255
    inner = (slice(5, -5), slice(5, -5))
    assert np.abs(resize(large, (32, 32)).astype(float) - compared)[inner].mean() < 1.5


def test_the_wanted_part_is_that_part_of_the_whole(astronaut):
    square = np.ascontiguousarray(astronaut[:200, :180])
    small = resize(square, (64, 64))
    flow, frame = still() * 0.95 + 0.02, as_frame(small).roll(1, 2)
    part = slice(13, 150), slice(40, 180)
    whole = detail_of(square, small)(frame, flow).strip(slice(None))
    some = detail_of(square, small, part, 0.5)(frame, flow)
    assert torch.allclose(some.strip(slice(None)), whole[part] * 0.5, atol=1e-3)
    assert torch.equal(some.strip(slice(20, 31)), some.strip(slice(None))[20:31])


def test_what_the_network_painted_stays_its_own(astronaut):
    square = np.ascontiguousarray(astronaut[:256, :256])
    small = resize(square, (64, 64))
    frame = as_frame(small)
    frame[:, 20:40, 20:40] = torch.tensor([1.0, 0, 1])[:, None, None]
    added = detail_of(square, small)(frame, still()).strip(slice(None))[..., :3]
    assert added[96:144, 96:144].abs().max() < 0.5
    assert added[:40].abs().mean() > 2


def test_light_of_the_frame_and_detail_of_the_source(astronaut):
    """A frame that is brighter by 5 levels everywhere gives a source that is too."""
    square = (np.ascontiguousarray(astronaut[:256, :256]) // 2 + 60).astype(np.uint8)
    small = resize(square, (64, 64))
    result = given_back(square, small, as_frame(small) + 5 / 255, still())
    assert np.abs((result - square).mean((0, 1)) - 5).max() < 0.1
    assert (result - square).std() < 0.5 * (
        enlarged(torch.from_numpy(small), (256, 256)).numpy() - square.astype(float)
    ).std()


def test_confidence_by_hand():
    apart = torch.zeros(3, 1, 3)
    apart[:, 0, 1] = torch.tensor([0.06, -0.06, 0.06])
    apart[:, 0, 2] = torch.tensor([0.36, 0.0, 0.0])
    assert confidence_of(apart)[0].tolist() == pytest.approx([1, math.exp(-1), math.exp(-4)])


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (1, 1, 1),
        (0.8, 1.2, 1),
        (1.9, 1, 1),
        (0.45, 1, 0.5),
        (1, 0.2, 0),
        (2.5, 1, 0.5),
        (1, 4, 0),
        (-1, 1, 0),
        (-1, -1, 1),
    ],
)
def test_steadiness_by_hand(x, y, expected):
    """Rotating by 180 degrees preserves shapes; mirroring, stretching and crowding do not."""
    flow = still(20, 30) * torch.tensor([x, y], dtype=torch.float32)
    shift = (flow - still(20, 30)).permute(2, 0, 1)
    assert steadiness(shift)[10, 15] == pytest.approx(expected, abs=1e-4)


def test_a_flow_is_enlarged_smoothly_and_sums_to_one():
    matrix = spread(256, 64, torch.device("cpu"))
    assert torch.allclose(matrix.sum(1), torch.ones(256), atol=1e-6)
    line = matrix @ (torch.arange(64) * 4 + 1.5)
    assert torch.allclose(line[8:-8], torch.arange(8.0, 248), atol=1e-3)


def test_points_outside_are_brought_to_the_border():
    flow = torch.tensor([[[-3.0, 0.5], [1.5, -1.2]]])
    assert torch.allclose(displacement(flow).permute(1, 2, 0) + still(1, 2), torch.tensor([[[-1.0, 0.5], [1, -1]]]))


def test_the_identity_of_a_network_is_still_between_borders():
    grid = identity_grid(5, 8, like=torch.zeros(1))
    assert torch.allclose(between_borders(grid[None], (5, 8), align_corners=True)[0], still(5, 8), atol=1e-6)
    assert between_borders(grid[None], (5, 8), align_corners=False)[0] is not still
    assert torch.equal(between_borders(grid[None], (5, 8), align_corners=False)[0], grid)


@pytest.mark.parametrize("box", [Box(139, 25, 439, 325), Box(-40, -20, 260, 280), Box(300, 300, 600, 600)])
def test_pasted_back_with_its_detail_the_source_is_the_picture_itself(astronaut, box):
    square = crop(astronaut, box)
    small = resize(square, (64, 64))
    paste = Paste(astronaut, box)
    detail = Detail(torch.from_numpy(square), torch.from_numpy(small), torch.from_numpy(paste.mask), paste.part)
    assert np.array_equal(paste(small, detail(as_frame(small), still())), astronaut)
    assert not np.array_equal(paste(small), astronaut)


def test_alpha_of_the_background_stays_with_detail(astronaut):
    picture = np.dstack((astronaut, np.arange(512 * 512).reshape(512, 512).astype(np.uint8)))
    box = Box(139, 25, 439, 325)
    square = crop(astronaut, box)
    small = resize(square, (64, 64))
    paste = Paste(picture, box)
    detail = Detail(torch.from_numpy(square), torch.from_numpy(small), torch.from_numpy(paste.mask), paste.part)
    result = paste(small, detail(as_frame(small), still()))
    assert np.array_equal(result, picture)


def test_what_lies_at_the_edge_of_the_picture_stays_there_and_nothing_from_beyond_is_shown(astronaut):
    """The square is wider than the picture, and all of it moves down and to the right by a twelfth."""
    picture = np.ascontiguousarray(astronaut[0:200, 100:260])
    box = Box(-20, -10, 200, 210)
    square = crop(picture, box, mirrored=True)
    small = resize(square, (64, 64))
    moved = np.roll(small, (5, 5), (0, 1))
    motion = resting(box, 160, 200)
    plain = Paste(picture, box)
    pinned = Paste(picture, box, motion=motion)
    edges = torch.from_numpy(pinned.motion), torch.from_numpy(pinned.own)
    arguments = (torch.from_numpy(square), torch.from_numpy(small), torch.from_numpy(pinned.mask), pinned.part)
    flow = still(64, 64) - 2 * 5 / 64
    result = pinned(moved, Detail(*arguments, edges)(as_frame(moved), flow))
    for mine, its in ((result[0], picture[0]), (result[-1], picture[-1]), (result[:, 0], picture[:, 0])):
        assert np.abs(mine.astype(int) - its).max() <= 1
    without = plain(moved, Detail(*arguments)(as_frame(moved), flow))
    assert np.abs(without[0].astype(int) - picture[0]).mean() > 10
    # Nothing differs in the middle.
    middle = np.s_[80:120, 60:100]
    assert np.abs(result[middle].astype(int) - without[middle]).max() <= 1
    # The square itself, as filters of plugins receive it, is the same within the picture.
    whole = Paste(square, Box(0, 0, 220, 220), motion=motion)
    own = torch.from_numpy(whole.motion), torch.from_numpy(whole.own)
    everything = torch.ones(220, 220), (slice(None), slice(None))
    apart = Detail(*arguments[:2], *everything, own)(as_frame(moved), flow)
    alone = (whole.floats(moved, apart)[0].permute(1, 2, 0) * 255).numpy()[10:210, 20:180]
    assert np.abs(alone - result).max() <= 1.5


def test_the_way_to_rest_by_hand():
    motion = resting(Box(-10, 50, 90, 150), 200, 120)
    assert motion.shape == (100, 100)
    assert motion[30, :11].tolist() == [0.0] * 11  # beyond the left edge, and on it
    assert motion[30, 10 + 9] == pytest.approx(0.5)  # half of 0.18 sides from it
    assert motion[0, 60] == motion[30, 99] == 1.0  # edges inside the picture
    assert motion[69, 60] == 0.0  # the bottom row of the picture
    assert motion[60, 60] == pytest.approx(0.5)


@pytest.mark.parametrize("size", [(200, 90), (64, 64), (40, 130)])
def test_strips_are_rows_of_the_whole(size):
    maps = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))
    part = slice(3, size[0] - 2), slice(5, 35)
    whole = enlarged(maps.permute(1, 2, 0).contiguous(), size)[part]
    strip = enlarged_strips(maps, size, part)
    found = torch.cat([strip(slice(start, start + 7)) for start in range(0, len(whole), 7)])
    assert found.shape == whole.shape
    assert (found - whole).abs().max() < 1e-5
