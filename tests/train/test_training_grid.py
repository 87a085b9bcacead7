"""The picture grid of a training run: positions and colours."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fommctl.api.training import TrainingView
from fommctl.media.drawing import draw_keypoints, label
from fommctl.media.images import read_picture
from fommctl.presets.sections import VisualizerParams
from fommctl.train.logs import LABEL_HEIGHT, rainbow, save_training_grid, training_grid

SIDE = 32


def flat(shade: float, batch: int = 2, channels: int = 3, side: int = SIDE) -> torch.Tensor:
    return torch.full((batch, channels, side, side), shade)


def pairs(**more: torch.Tensor | dict[str, torch.Tensor]) -> TrainingView:
    return TrainingView(source=flat(0.2), driving=flat(0.6), prediction=flat(0.5), **more)  # type: ignore[arg-type]


def cell(grid: np.ndarray, row: int, column: int) -> np.ndarray:
    top = LABEL_HEIGHT + row * SIDE
    return grid[top : top + SIDE, column * SIDE : (column + 1) * SIDE]


def shades(grid: np.ndarray, row: int = 0) -> list[list[int]]:
    """Return the colour in the middle of each cell of a row."""
    return [cell(grid, row, number)[SIDE // 2, SIDE // 2].tolist() for number in range(grid.shape[1] // SIDE)]


def test_source_driving_prediction_and_difference_are_always_there() -> None:
    grid = training_grid(pairs())
    assert (grid.shape, grid.dtype) == ((LABEL_HEIGHT + 2 * SIDE, 4 * SIDE, 3), np.uint8)
    assert shades(grid) == shades(grid, 1) == [[51] * 3, [153] * 3, [128] * 3, [102] * 3]
    assert cell(grid, 0, 0).min() == cell(grid, 0, 0).max() == 51


def test_pixels_stay_as_they_are() -> None:
    levels = torch.arange(SIDE * SIDE * 3).reshape(1, 3, SIDE, SIDE) % 256
    frame = levels / 255
    grid = training_grid(TrainingView(source=frame, driving=frame, prediction=frame))
    assert np.array_equal(cell(grid, 0, 0), levels[0].permute(1, 2, 0).numpy())
    assert cell(grid, 0, 3).max() == 0


def test_what_the_model_computes_on_the_way_has_columns() -> None:
    side = SIDE // 4
    mask = torch.zeros(2, 3, side, side)
    mask[0, 0], mask[0, 1], mask[0, 2] = 1.0, 0.5, 0.25
    mask[1, 2] = 1.0
    grid = training_grid(
        pairs(
            deformed=flat(0.4, side=side),
            mask=mask,
            occlusion=flat(0.8, channels=1, side=side),
            extra={"monkey": flat(1.0, side=SIDE)},
        )
    )
    assert grid.shape[1] == 8 * SIDE
    assert [shade for number, shade in enumerate(shades(grid)) if number != 3] == [
        [51] * 3,
        [153] * 3,
        [102] * 3,
        [204] * 3,
        [128] * 3,
        [102] * 3,
        [255] * 3,
    ]
    half = SIDE // 2
    first, second = cell(grid, 0, 3), cell(grid, 1, 3)
    red, cyan = np.array(rainbow(2))
    assert first[:half, :half].tolist() == np.full((half, half, 3), 255).tolist(), "the background in grey"
    assert np.array_equal(first[half // 2, half + half // 2], np.round(red * 0.5))
    assert np.array_equal(first[half + half // 2, half // 2], np.round(cyan * 0.25))
    assert first[half:, half:].max() == 0, "an empty place of the tiles"
    assert second[:half].max() == 0
    assert np.array_equal(second[half + half // 2, half // 2], np.round(cyan))


def test_the_published_colours() -> None:
    colours = np.round(rainbow(10)).astype(int).tolist()
    assert colours[0] == [255, 0, 41], "matplotlib: gist_rainbow(0)"
    # A fifth is between red at 0.030 and yellow at 0.215: (0.2 - 0.03) / 0.185 of the way.
    assert colours[2] == [255, round(255 * 0.17 / 0.185), 0]
    assert colours[4] == [0, 255, 0]
    assert len({tuple(colour) for colour in colours}) == 10
    assert rainbow(0) == []


def test_keypoints_lie_on_source_and_driving_in_the_presets_size() -> None:
    source, driving = torch.tensor([[[-0.5, 0.5]]]).expand(2, 1, 2), torch.tensor([[[0.5, 0.0]]]).expand(2, 1, 2)
    params = VisualizerParams(kp_size=3)
    grid = training_grid(pairs(source_keypoints=source, driving_keypoints=driving), params)
    for column, shade, points in ((0, 51, source), (1, 153, driving)):
        drawn = cell(grid, 1, column)
        frame = np.full((SIDE, SIDE, 3), shade, np.uint8)
        assert np.array_equal(drawn, draw_keypoints(frame, points[1].numpy(), radius=3, colours=rainbow(1)))
        x, y = np.rint((points[1, 0].numpy() + 1) / 2 * (SIDE - 1)).astype(int)
        assert drawn[y, x].tolist() == [255, 0, 41]
        # Grey and the black outline have no more red than blue.
        covered = (drawn[..., 0].astype(float) - drawn[..., 2]).sum() / (255 - 41)
        assert covered == pytest.approx(np.pi * 3**2, rel=0.05)
    assert np.array_equal(cell(grid, 0, 2), cell(training_grid(pairs()), 0, 2)), "nothing on the prediction"


def test_a_border_around_every_picture() -> None:
    grid = training_grid(pairs(), VisualizerParams(draw_border=True))
    drawn = cell(grid, 1, 2)
    for edge in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert edge.min() == 255
    assert drawn[1:-1, 1:-1].max() == 128


def test_only_so_many_rows() -> None:
    many = TrainingView(source=flat(0.2, 9), driving=flat(0.6, 9), prediction=flat(0.5, 9))
    assert training_grid(many).shape[0] == LABEL_HEIGHT + 4 * SIDE
    assert training_grid(many, rows=2).shape[0] == LABEL_HEIGHT + 2 * SIDE


def test_every_column_has_its_own_label() -> None:
    side = 128
    frame = flat(0.0, 1, 3, side)
    grid = training_grid(TrainingView(source=frame, driving=frame, prediction=frame, extra={"flow": frame}))
    titles = [grid[:LABEL_HEIGHT, left : left + side] for left in range(0, 5 * side, side)]
    expected = ["source", "driving", "prediction", "difference x4", "flow"]
    assert all(
        np.array_equal(title, label(text, side, LABEL_HEIGHT)) for title, text in zip(titles, expected, strict=True)
    )


@settings(deadline=None, max_examples=25)
@given(st.text(st.characters(max_codepoint=0x2FF, exclude_categories=("C",)), max_size=30), st.integers(4, 300))
def test_a_label_of_any_text_fits_its_width(text: str, width: int) -> None:
    picture = label(text, width, LABEL_HEIGHT)
    assert (picture.shape, picture.dtype) == ((LABEL_HEIGHT, width, 3), np.uint8)


def test_letters_are_in_the_middle_and_get_smaller_where_there_is_little_room() -> None:
    def extent(width: int) -> tuple[int, int]:
        columns = np.nonzero(label("difference x4", width, LABEL_HEIGHT).any((0, 2)))[0]
        return int(columns.min()), int(columns.max())

    left, right = extent(256)
    assert abs(left + right - 255) <= 3
    small_left, small_right = extent(64)
    assert small_right - small_left < right - left
    assert small_left >= 0
    assert small_right <= 63


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_with_gradients(dtype: torch.dtype) -> None:
    frame = flat(0.5).to(dtype).requires_grad_()
    one = TrainingView(source=frame, driving=frame, prediction=frame, mask=flat(0.5, channels=2).to(dtype))
    assert shades(training_grid(one))[0] == [128] * 3


def test_a_model_that_diverged_can_still_be_looked_at() -> None:
    points = torch.tensor([[[float("nan"), 0.0], [1e30, 0.0], [0.0, float("-inf")], [0.0, 0.0]]]).expand(2, 4, 2)
    broken = dataclasses.replace(pairs(source_keypoints=points), prediction=flat(float("nan")))
    grid = training_grid(broken, VisualizerParams(kp_size=2))
    assert cell(grid, 0, 2).max() == 0
    assert np.array_equal(
        cell(grid, 0, 0),
        draw_keypoints(np.full((SIDE, SIDE, 3), 51, np.uint8), np.zeros((1, 2)), radius=2, colours=rainbow(4)[3:]),
    )


def test_saved_under_the_step(tmp_path: Path) -> None:
    grid = training_grid(pairs())
    path = save_training_grid(tmp_path / "run", 1000, grid)
    assert path == tmp_path / "run" / "pictures" / "00001000.png"
    assert np.array_equal(read_picture(path).pixels, grid)
    assert [entry.name for entry in path.parent.iterdir()] == ["00001000.png"]
