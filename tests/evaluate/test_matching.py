"""True points are located in predicted frames to fractions of a pixel, and only if they are there."""

from dataclasses import replace

import numpy as np
import pytest

from fommctl.evaluate.matching import find_again
from fommctl_synthetic.casts import CASTS
from fommctl_synthetic.dataset import Synthetic
from fommctl_synthetic.layers import Waves

pytestmark = pytest.mark.usefixtures("one_thread")
MIDDLE = np.array([[[20.3, 30.8], [31.5, 31.5], [40.0, 25.0]]])


def waves(width: int, height: int, shift: tuple[float, float] = (0, 0), seed: int = 1) -> np.ndarray:
    """Return a texture (1, H, W, 3) that is known between pixels too, shifted to the right and down."""
    texture = Waves.drawn(np.random.default_rng(seed), 12.0, 0.12)
    grid = np.stack(np.meshgrid(np.arange(width) - shift[0], np.arange(height) - shift[1]), -1) / (width / 2)
    return np.round(texture.at(grid) * 255).astype(np.uint8)[None]


def clip(name: str, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return every third frame of a synthetic clip, with its visible keypoints in pixels."""
    scene = Synthetic(size=size, kinds=tuple(CASTS)).scenes[name][1]
    frames = np.stack([frame for index, frame in enumerate(scene.frames()) if index % 3 == 0])
    return frames, (scene.visible_keypoints()[::3] + 1) / 2 * (size - 1)


def present(points: np.ndarray) -> np.ndarray:
    return np.isfinite(points).all(-1)


@pytest.mark.parametrize("name", ["shapes00-take0", "figure01-take0", "arm02-take1"])
def test_the_truth_is_found_in_itself(name: str) -> None:
    frames, points = clip(name)
    found, known = find_again(frames, frames, points)
    np.testing.assert_array_equal(present(known), present(points))
    np.testing.assert_allclose(found, points, atol=0.01)


def test_the_truth_is_found_in_itself_in_large_frames() -> None:
    frames, points = clip("figure01-take0", 256)
    found, _ = find_again(frames[:2], frames[:2], points[:2])
    np.testing.assert_allclose(found, points[:2], atol=0.01)


@pytest.mark.parametrize("shift", [(3, -2), (0.5, 0.5), (-0.3, 0.7), (-9.25, 4.6)])
def test_a_shift_is_measured(shift: tuple[float, float]) -> None:
    found, known = find_again(waves(64, 64, shift), waves(64, 64), MIDDLE)
    np.testing.assert_array_equal(known, MIDDLE)
    np.testing.assert_allclose(found, MIDDLE + shift, atol=0.1)


@pytest.mark.parametrize(("width", "height"), [(256, 256), (200, 120), (97, 97), (48, 80)])
def test_a_shift_is_measured_at_every_size(width: int, height: int) -> None:
    points = MIDDLE * (width / 64, height / 64)
    shift = 0.06 * width + 0.4, -0.05 * width - 0.3
    found, _ = find_again(waves(width, height, shift), waves(width, height), points)
    np.testing.assert_allclose(found, points + shift, atol=0.1)


def test_a_shifted_clip() -> None:
    frames, points = clip("shapes03-take1")
    moved = np.roll(frames, (-3, 5), (1, 2))
    found, known = find_again(moved, frames, points)
    # Away from the border, where the rolled picture continues with its other side.
    inner = present(known) & (np.abs(points - 31.5) < 20).all(-1)
    assert inner.sum() > 20
    np.testing.assert_allclose(found[inner], points[inner] + (5, -3), atol=0.1)


def test_brightness_contrast_and_blur_do_not_matter_much() -> None:
    frames, points = clip("arm02-take1")
    dull = np.round(frames * 0.5 + 60).astype(np.uint8)
    found, known = find_again(dull, frames, points)
    np.testing.assert_array_equal(present(found), present(known))
    np.testing.assert_allclose(found[present(found)], points[present(found)], atol=0.1)
    padded = np.pad(frames.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    blurred = sum(padded[:, y : y + 64, x : x + 64] for y in range(3) for x in range(3)) / 9
    found, known = find_again(np.round(blurred).astype(np.uint8), frames, points)
    # The other half: keypoints are still found in pictures as blurred as predictions.
    assert present(found).sum() > 0.95 * present(known).sum()
    assert np.nanmedian(np.abs(found - points)) < 0.1


@pytest.mark.parametrize("level", [0, 77, 255])
def test_nothing_is_found_in_a_flat_prediction(level: int) -> None:
    frames, points = clip("shapes00-take0")
    found, known = find_again(np.full_like(frames, level), frames, points)
    assert np.isnan(found).all()
    np.testing.assert_array_equal(known, points)


@pytest.mark.parametrize("kind", CASTS)
def test_the_wrong_picture_is_hardly_ever_taken_for_the_right_one(kind: str) -> None:
    """The least correlation was chosen with half of this data: among other identities, hardly anything matches so
    well."""
    frames, points = clip(f"{kind}00-take0")
    other, _ = clip(f"{kind}03-take1")
    found, known = find_again(other, frames, points)
    assert present(found).sum() <= 0.1 * present(known).sum()


def test_points_without_texture_are_absent_on_both_sides() -> None:
    flat = np.full((1, 64, 64, 3), 128, np.uint8)
    edge = flat.copy()
    edge[:, :, 32:] = 200
    corner = edge.copy()
    corner[:, 32:] = 128
    for picture in (flat, edge):  # along an edge a point could be anywhere
        found, known = find_again(picture, picture, np.array([[[32.0, 32.0]]]))
        assert np.isnan(found).all()
        assert np.isnan(known).all()
    found, known = find_again(corner, corner, np.array([[[32.0, 32.0], [8.0, 50.0]]]))
    np.testing.assert_allclose(found[0, 0], (32, 32), atol=1e-3)
    assert np.isnan(known[0, 1]).all()


def test_hidden_and_outer_points_are_absent_on_both_sides() -> None:
    points = np.array([[[np.nan, np.nan], [31.5, 31.5], [-3.0, 20.0], [20.0, 63.5]]])
    found, known = find_again(waves(64, 64), waves(64, 64), points)
    assert present(found).tolist() == present(known).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("kind", CASTS)
def test_a_subject_that_is_gone_is_absent(kind: str) -> None:
    """Only the background, without the layers of the points."""
    scene = Synthetic(kinds=(kind,)).scenes[f"{kind}02-take0"][1]
    empty = np.stack([next(replace(scene, layers=()).frames())] * 8)
    frames, points = clip(f"{kind}02-take0")
    found, known = find_again(empty, frames, points)
    assert present(known).sum() > 20
    assert present(found).sum() <= 0.02 * present(known).sum()


def test_a_place_at_the_rim_of_the_search_is_no_place() -> None:
    """The true position is out of reach: 14 pixels away with a search range of 13, on a slope without any other
    match."""
    rows, columns = np.mgrid[:64, :64]
    blob = np.exp(-((columns - 24) ** 2 + (rows - 32) ** 2) / 200)
    truth = np.round(255 * blob)[None, :, :, None].repeat(3, -1).astype(np.uint8)
    moved = np.roll(truth, 14, 2)
    found, known = find_again(moved, truth, np.array([[[24.0, 32.0]]]))
    assert present(known).all()
    assert np.isnan(found).all()
    found, _ = find_again(np.roll(truth, 11, 2), truth, np.array([[[24.0, 32.0]]]))
    np.testing.assert_allclose(found, [[[35.0, 32.0]]], atol=0.1)


def test_no_points_and_no_frames() -> None:
    frames = waves(64, 64)
    for points in (np.zeros((1, 0, 2)), np.zeros((0, 3, 2))):
        found, known = find_again(frames[: len(points)], frames[: len(points)], points)
        assert found.shape == known.shape == points.shape
