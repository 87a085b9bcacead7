"""Augmentations compared with values by hand, colorsys, PIL and scikit-image, on which the published code is based."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from skimage.transform import rotate

from fommctl.networks.losses import ThinPlateTransform
from fommctl.presets.sections import AugmentationParams, RigidParams, StillParams
from fommctl.train.augmentation import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    augment,
    moved,
    rigid,
    warped,
)

RANDOM = np.random.default_rng


def picture(seed: int = 0, height: int = 16, width: int = 20) -> np.ndarray:
    return RANDOM(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int = 64, width: int = 64) -> torch.Tensor:
    """Return (1, 3, H, W): ramps and a soft spot, which resampling hardly changes."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    spot = np.exp(-((x - 0.6) ** 2 + (y - 0.4) ** 2) / 0.02)
    return torch.from_numpy(np.stack((x, y, spot))[None].astype(np.float32))


def batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def levels(frames: torch.Tensor) -> np.ndarray:
    """Return the only frame as (H, W, 3) in [0, 255]."""
    return (frames[0].permute(1, 2, 0) * 255).numpy()


def run(seed: int = 0, count: int = 2, **params: Any) -> list[np.ndarray]:
    frames = [picture(number) for number in range(count)]
    return augment(frames, AugmentationParams.model_validate(params), RANDOM(seed))


def test_without_parameters_frames_are_only_scaled() -> None:
    first, second = augment([picture(0), picture(1)], None, RANDOM(0))
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, picture(0).astype(np.float32) / 255)
    np.testing.assert_array_equal(second, picture(1).astype(np.float32) / 255)


def test_flips_change_both_frames_alike_and_never_both_ways() -> None:
    frames = [picture(0).astype(np.float32) / 255, picture(1).astype(np.float32) / 255]
    outcomes = {
        "as they are": frames,
        "back in time": frames[::-1],
        "mirrored": [frame[:, ::-1] for frame in frames],
    }
    counts = dict.fromkeys(outcomes, 0)
    for seed in range(200):
        result = run(seed, flip_param={"horizontal_flip": True, "time_flip": True})
        name = next(name for name, expected in outcomes.items() if np.array_equal(result, expected))
        counts[name] += 1
    # As published, half of the pairs are reversed in time, and half of the others are mirrored.
    assert 80 <= counts["back in time"] <= 120
    assert 30 <= counts["mirrored"] <= 70


@pytest.mark.parametrize("name", ["horizontal_flip", "time_flip"])
def test_a_flip_that_is_off_never_happens(name: str) -> None:
    frames = [picture(0).astype(np.float32) / 255, picture(1).astype(np.float32) / 255]
    wanted = {"horizontal_flip": frames[::-1], "time_flip": [frame[:, ::-1] for frame in frames]}[name]
    assert not any(np.array_equal(run(seed, flip_param={name: True}), wanted) for seed in range(40))


@pytest.mark.parametrize("factor", [0.6, 0.9, 1.0, 1.3])
@pytest.mark.parametrize(
    ("change", "reference"),
    [
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
        (adjust_saturation, ImageEnhance.Color),
    ],
)
def test_colours_are_adjusted_as_pil_does(
    change: Callable[[torch.Tensor, float], torch.Tensor], reference: Any, factor: float
) -> None:
    expected = np.array(reference(Image.fromarray(picture())).enhance(factor), np.float32)
    # PIL rounds grey to whole levels and clips the result to them.
    np.testing.assert_allclose(levels(change(batch(picture()), factor)), expected, atol=1.6)


@given(st.floats(-0.5, 0.5), st.tuples(*[st.integers(0, 255)] * 3))
def test_hue_is_turned_as_colorsys_has_it(turn: float, colour: tuple[int, int, int]) -> None:
    hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in colour))
    expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    turned = adjust_hue(torch.tensor(colour).view(1, 3, 1, 1) / 255, turn)
    np.testing.assert_allclose(turned.flatten().numpy(), expected, atol=1e-5)


def test_red_turns_to_green_to_blue() -> None:
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    assert adjust_hue(red, 1 / 3).flatten().tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    assert adjust_hue(red, -1 / 3).flatten().tolist() == pytest.approx([0, 0, 1], abs=1e-6)


def test_jitter_is_one_draw_for_both_frames() -> None:
    params = AugmentationParams.model_validate(
        {"jitter_param": dict.fromkeys(["brightness", "saturation", "hue"], 0.3)}
    )
    first, second = augment([picture(), picture()], params, RANDOM(3))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - picture() / 255).mean() > 0.02


def test_brightness_factors_fill_their_range() -> None:
    grey = [np.full((2, 2, 3), 100, np.uint8)]
    params = AugmentationParams.model_validate({"jitter_param": {"brightness": 0.2}})
    factors = [augment(grey, params, RANDOM(seed))[0][0, 0, 0] * 255 / 100 for seed in range(200)]
    assert 0.8 <= min(factors) < 0.81
    assert 1.19 < max(factors) <= 1.2


def test_jitter_comes_in_any_order() -> None:
    """The two orders differ where one of them clips what is too bright or too dark."""
    pixels = batch(picture())
    params = AugmentationParams.model_validate({"jitter_param": {"brightness": 0.5, "contrast": 0.5}})
    orders = set()
    for seed in range(20):
        result = augment([picture()], params, RANDOM(seed))[0]
        again = RANDOM(seed)
        brightness, contrast = again.uniform(0.5, 1.5), again.uniform(0.5, 1.5)
        dark_first = adjust_contrast(adjust_brightness(pixels, brightness), contrast)
        dark_last = adjust_brightness(adjust_contrast(pixels, contrast), brightness)
        matches = [np.allclose(levels(frames) / 255, result, atol=1e-6) for frames in (dark_first, dark_last)]
        orders.add(tuple(matches))
    assert {(True, False), (False, True)} <= orders <= {(True, False), (False, True), (True, True)}


def test_a_crop_is_a_window_of_the_frame_at_one_place_in_both() -> None:
    frames = np.stack([picture(0), picture(1)]).astype(np.float32) / 255
    places = set()
    for seed in range(60):
        result = np.stack(run(seed, crop_param={"size": [15, 17]}))
        assert result.shape == (2, 15, 17, 3)
        fits = [
            (top, left)
            for top in range(2)
            for left in range(4)
            if np.array_equal(result, frames[:, top : top + 15, left : left + 17])
        ]
        places.update(fits)
        assert len(fits) == 1
    assert len(places) == 8


def test_a_frame_that_is_too_small_for_the_crop_is_padded_by_its_border() -> None:
    result = run(crop_param={"size": [19, 20]})[0]
    expected = np.pad(picture().astype(np.float32) / 255, ((1, 2), (0, 0), (0, 0)), mode="edge")
    np.testing.assert_array_equal(result, expected)


def test_nearest_resizing_repeats_pixels() -> None:
    result = run(resize_param={"ratio": [2.0, 2.0], "interpolation": "nearest"})[0]
    np.testing.assert_array_equal(result, (picture().astype(np.float32) / 255).repeat(2, 0).repeat(2, 1))


def test_bilinear_resizing_keeps_a_ramp() -> None:
    ramp = np.broadcast_to((np.arange(40, dtype=np.uint8) * 6)[None, :, None], (30, 40, 3)).copy()
    params = AugmentationParams.model_validate({"resize_param": {"ratio": [0.5, 0.5], "interpolation": "bilinear"}})
    result = augment([ramp], params, RANDOM(0))[0]
    assert result.shape == (15, 20, 3)
    # Pixel k of the half covers pixels 2 k and 2 k + 1.
    np.testing.assert_allclose(result[7, 2:-2, 0] * 255, 6 * (2 * np.arange(2, 18) + 0.5), atol=0.01)


def test_resized_frames_have_sizes_of_the_whole_range() -> None:
    heights = [run(seed, resize_param={"ratio": [0.5, 1.5]})[0].shape[0] for seed in range(60)]
    assert (min(heights), max(heights)) == (8, 23)


@pytest.mark.parametrize("shape", [(48, 48), (40, 64)])
def test_rotation_is_that_of_scikit_image(shape: tuple[int, int]) -> None:
    frame = (levels(smooth(*shape))).round().astype(np.uint8)
    params = AugmentationParams.model_validate({"rotation_param": {"degrees": [17, 17]}})
    result = augment([frame], params, RANDOM(0))[0]
    expected = rotate(frame / 255, 17)
    # Where the border falls between pixels, the two fade to black differently.
    inner = rotate(np.pad(np.ones((shape[0] - 6, shape[1] - 6)), 3), 17) == 1
    np.testing.assert_allclose(result[inner], expected[inner], atol=1e-4)
    assert result[0, 0].tolist() == [0, 0, 0]


def test_another_framing_is_one_draw_for_both_frames() -> None:
    frames = [(smooth()[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)] * 2
    scales = []
    small = AugmentationParams.model_validate({"framing_param": {"scale": [0.5, 0.5]}})
    outside, _ = augment(frames, small, RANDOM(0))
    np.testing.assert_allclose(outside[:, 0], outside[:, 15], atol=1e-5)
    assert (np.diff(outside[32, 20:44, 0]) > 0.02).all()
    for seed in range(40):
        params = AugmentationParams.model_validate({"framing_param": {"scale": [0.5, 2.0], "shift": 0.1}})
        first, second = augment(frames, params, RANDOM(seed))
        np.testing.assert_array_equal(first, second)
        scales.append(1 / ((first[32, 36, 0] - first[32, 28, 0]) * 63 / 8))
    assert 0.48 < min(scales) < 0.65
    assert 1.6 < max(scales) < 2.1
    # As often smaller as larger.
    assert 10 < sum(scale < 1 for scale in scales) < 30


def test_a_quarter_turn_goes_against_the_clock() -> None:
    frames = batch(picture(0, 9, 9))
    turned = rigid(frames, angle=np.pi / 2, scale=1.0, shift=(0, 0), padding="reflection")
    torch.testing.assert_close(turned, torch.rot90(frames, 1, (2, 3)), atol=1e-4, rtol=0)


def test_a_shift_is_in_sides_of_the_frame_to_the_right_and_down() -> None:
    frames = batch(picture(0, 10, 20))
    shifted = rigid(frames, angle=0.0, scale=1.0, shift=(0.1, 0.2), padding="zeros")
    torch.testing.assert_close(shifted[:, :, 2:, 2:], frames[:, :, :-2, :-2], atol=1e-4, rtol=0)
    assert float(shifted[:, :, :1].abs().max()) < 1e-4


def test_enlarging_is_about_the_centre() -> None:
    y, x = np.mgrid[-1:1:21j, -1:1:21j].astype(np.float32)  # type: ignore[misc]
    ramp = torch.from_numpy(np.stack((x, y, x + y)))[None]
    larger = rigid(ramp, angle=0.0, scale=2.0, shift=(0, 0), padding="reflection")
    torch.testing.assert_close(larger, ramp / 2, atol=1e-5, rtol=0)


def test_rigid_motion_outside_the_frame_is_its_reflection() -> None:
    frames = batch(picture(0, 11, 11))
    shifted = rigid(frames, angle=0.0, scale=1.0, shift=(3 / 11, 0), padding="reflection")
    torch.testing.assert_close(shifted[..., :3], frames[..., 1:4].flip(3), atol=1e-4, rtol=0)


def test_rigid_motion_stays_in_its_bounds() -> None:
    params = RigidParams(fraction=1, degrees=(-10, 10), scale=(0.9, 1.1), shift=0.05)
    still = RigidParams(fraction=1, degrees=(0, 0), scale=(1.0, 1.0), shift=0)
    frames = smooth()
    torch.testing.assert_close(moved(frames, still, RANDOM(0)), frames, atol=1e-5, rtol=0)
    corners = []
    for seed in range(50):
        x, y = moved(smooth(), params, RANDOM(seed))[0, :2, 32, 32].tolist()
        corners.append((abs(x - 0.508), abs(y - 0.508)))
    # The centre moves by the shift alone, apart from the rotation of half a pixel.
    assert max(max(corner) for corner in corners) < 0.05 / 0.9 + 0.01
    assert max(corner[0] for corner in corners) > 0.035


def test_warped_stills_differ_mildly_and_follow_the_transform() -> None:
    params = StillParams(fraction=1, sigma_affine=0.08, sigma_tps=0.01)
    pair = warped(smooth().expand(2, -1, -1, -1), params, RANDOM(4))
    assert 0.005 < float((pair[0] - pair[1]).abs().mean()) < 0.2
    generator = torch.Generator().manual_seed(int(RANDOM(4).integers(2**63)))
    transform = ThinPlateTransform.random(2, sigma_affine=0.08, sigma_tps=0.01, points_tps=5, generator=generator)
    exact = transform.warp_frames(smooth().expand(2, -1, -1, -1), align_corners=True)
    torch.testing.assert_close(pair, exact, atol=0.015, rtol=0)
    assert float((pair - exact).abs().mean()) < 1e-3


def test_warped_stills_without_noise_stay_as_they_are() -> None:
    frames = batch(picture(0, 32, 32)).expand(2, -1, -1, -1)
    params = StillParams(fraction=1, sigma_affine=0, sigma_tps=0)
    torch.testing.assert_close(warped(frames, params, RANDOM(0)), frames, atol=1e-4, rtol=0)


def test_all_together_follows_from_the_seed() -> None:
    params = {
        "flip_param": {"horizontal_flip": True, "time_flip": True},
        "rotation_param": {"degrees": 10},
        "resize_param": {"ratio": [0.8, 1.2], "interpolation": "bilinear"},
        "crop_param": {"size": 16},
        "jitter_param": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1},
    }
    first, again, other = (np.stack(run(seed, **params)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (2, 16, 16, 3)
    assert 0 <= first.min() <= first.max() <= 1
