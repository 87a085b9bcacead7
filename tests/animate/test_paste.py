import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from fommctl.animate.paste import Paste, TurnedPaste, feather, match
from fommctl.media.boxes import Box, TurnedSquare
from fommctl.media.resampling import crop, resize


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


BOX = Box(139, 25, 317, 203)


def drifted(square: np.ndarray) -> np.ndarray:
    """Return the square as a model may return it: soft, with less contrast, too dark and too blue."""
    soft = resize(resize(square, (square.shape[1] // 4, square.shape[0] // 4)), square.shape[1::-1])
    return (soft * np.array([0.88, 0.9, 0.95]) + np.array([0, 4, 14])).clip(0, 255).astype(np.uint8)


def test_the_true_square_pasted_back_is_the_picture_itself(astronaut):
    square = crop(astronaut, BOX)
    assert np.array_equal(Paste(astronaut, BOX)(square), astronaut)
    assert np.abs(Paste(astronaut, BOX, square, square)(square).astype(int) - astronaut).max() <= 1


def test_nothing_outside_the_square_and_nothing_at_its_edges_changes(astronaut):
    frame = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    result = Paste(astronaut, BOX)(frame)
    inner = Box(BOX.left + 1, BOX.top + 1, BOX.right - 1, BOX.bottom - 1)
    changed = np.argwhere((result != astronaut).any(2))
    assert changed[:, 1].min() >= inner.left
    assert changed[:, 1].max() < inner.right
    assert changed[:, 0].min() >= inner.top
    assert changed[:, 0].max() < inner.bottom


def test_no_box_shows_where_the_model_has_shifted_the_colours(astronaut):
    truth = resize(crop(astronaut, BOX), (128, 128))
    model = drifted(truth)

    def step(result: np.ndarray) -> float:
        """Return the largest difference from the source in a band of five pixels inside the square, the median along
        it: what flat background shows, not the detail of hair that the model has lost."""
        difference = (result.astype(float) - astronaut)[25:203, 139:317].mean(2)
        bands = [difference[5:10], difference[-10:-5], difference[:, 5:10], difference[:, -10:-5]]
        return max(abs(np.median(band)) for band in bands)

    matched, unmatched = Paste(astronaut, BOX, model, crop(astronaut, BOX))(model), Paste(astronaut, BOX)(model)
    assert step(matched) < 0.5
    assert step(unmatched) > 5 * step(matched)
    middle = (slice(70, 160), slice(180, 270))
    assert np.abs(matched[middle].mean((0, 1)) - astronaut[middle].mean((0, 1))).max() < 3
    assert np.abs(unmatched[middle].mean((0, 1)) - astronaut[middle].mean((0, 1))).max() > 5


def test_the_match_undoes_a_change_of_contrast_and_offset(astronaut):
    truth = resize(crop(astronaut, BOX), (128, 128))
    gain, shift = match((truth * 0.9 + 8).astype(np.uint8), truth)
    assert gain == pytest.approx([1 / 0.9] * 3, rel=0.02)
    assert shift.mean((0, 1)) == pytest.approx([-8 / 0.9] * 3, abs=1.5)


def test_a_flat_square_is_matched_by_an_offset_alone():
    gain, shift = match(np.full((64, 64, 3), 100, np.uint8), np.full((90, 90, 3), 130, np.uint8))
    assert gain == pytest.approx([1, 1, 1])
    assert shift == pytest.approx(np.full((90, 90, 3), 30.0), abs=1e-3)


def test_the_correction_is_the_same_for_every_frame(astronaut):
    square = crop(astronaut, BOX)
    paste = Paste(astronaut, BOX, drifted(square), square)
    grey, first = np.full_like(square, 128), paste(np.full_like(square, 128))
    paste(square)
    assert np.array_equal(paste(grey), first)


def test_alpha_is_kept():
    picture = np.random.default_rng(1).integers(0, 256, (60, 80, 4), dtype=np.uint8)
    result = Paste(picture, Box(10, 10, 50, 50), np.full((32, 32, 3), 90, np.uint8), picture[10:50, 10:50, :3])(
        np.full((32, 32, 3), 200, np.uint8)
    )
    assert result.shape == (60, 80, 4)
    assert np.array_equal(result[..., 3], picture[..., 3])
    assert (result[30, 30, :3] != picture[30, 30, :3]).any()


def test_a_square_beyond_the_picture_shows_only_what_lies_inside():
    picture = np.zeros((100, 120, 3), np.uint8)
    frame = np.zeros((60, 60, 3), np.uint8)
    frame[:, 30:] = 255
    result = Paste(picture, Box(-30, 20, 30, 80))(frame)
    assert result[50, 0].tolist() == [255, 255, 255], "no soft edge at the border of the picture"
    assert result[50, 29].tolist() == [0, 0, 0]


def test_the_background_is_not_touched(astronaut):
    before = astronaut.copy()
    Paste(astronaut, BOX)(np.zeros((64, 64, 3), np.uint8))
    assert np.array_equal(astronaut, before)


def test_hair_that_has_moved_leaves_no_copy_near_the_upper_edge():
    """Hair from 0.07 of the side on, gone in the frame; at the bottom, a neck fades out over twice the width."""
    picture = np.full((300, 300, 3), 200, np.uint8)
    picture[50 + 14 :, 100:200] = 40
    result = Paste(picture, Box(50, 50, 250, 250))(np.full((64, 64, 3), 200, np.uint8))
    assert (result[50 + 14 : 220, 100:200] == 200).all()
    assert 100 < result[250 - 14, 150, 0] < 170


corner = st.integers(-80, 200)


@given(corner, corner, st.integers(1, 260))
def test_the_mask_is_soft_at_every_edge_inside_the_picture_and_only_there(x, y, side):
    width, height = 200, 160
    box = Box(x, y, x + side, y + side)
    mask = feather(box, width, height)
    assert mask.shape == (side, side)
    assert mask.min() >= 0
    assert mask.max() <= 1
    edges = {
        "left": (mask[:, 0], x <= 0),
        "right": (mask[:, -1], x + side >= width),
        "top": (mask[0], y <= 0),
        "bottom": (mask[-1], y + side >= height),
    }
    for line, at_border in edges.values():
        if not at_border:
            assert line.max() == 0
    if all(at_border for _, at_border in edges.values()):
        assert mask.min() == 1


def test_a_turned_square_comes_back_turned():
    """A square of one colour in a grey picture: its middle and corners have that colour, and nothing changes
    outside."""
    background = np.full((100, 100, 3), 100, np.uint8)
    square, side = TurnedSquare((50.0, 50.0), 40.0, 45.0), 40
    truth = np.full((side, side, 3), 100, np.uint8)
    paste = TurnedPaste(background, square, truth, truth, lambda side: np.ones((side, side), np.float32))
    assert (paste(truth) == 100).all(), "what stands still is the picture"
    bright = np.full((80, 80, 3), 200, np.uint8)
    bright[:40, :40] = 0  # the upper left quarter, which is at the top
    made = paste(bright)
    assert (made[50, 60] == 200).all()
    assert (made[35, 50] == 0).all()
    assert (made[5:15, 5:15] == 100).all()
    assert (made[35, 35] == 100).all(), "a corner of the upright square is outside"
    assert (made[50, 75] == 200).all(), "a corner of the turned one is inside"
    soft = TurnedPaste(background, square, truth, truth, None)(bright)
    assert (soft[50, 50] == made[50, 50]).all()
    assert 100 <= soft[50, 77, 0] < 130
