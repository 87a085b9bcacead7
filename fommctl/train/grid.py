"""What a model sees and does during training, as one picture: a row a pair, a column a step of the way."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fommctl.api.training import TrainingView
from fommctl.media.drawing import Colour, draw_keypoints, label
from fommctl.presets.sections import VisualizerParams
from fommctl.train.run_folder import picture_path, write_atomically

Pixels = NDArray[np.uint8]

LABEL_HEIGHT = 20
GAIN = 4
"""The difference is shown so many times as bright as it is."""
_FAR_OFF = 4
_WHITE = (255.0, 255.0, 255.0)
# matplotlib's gist_rainbow: where along it the colour is which.
_RAINBOW = (
    (0.000, (1.00, 0.00, 0.16)),
    (0.030, (1.00, 0.00, 0.00)),
    (0.215, (1.00, 1.00, 0.00)),
    (0.400, (0.00, 1.00, 0.00)),
    (0.586, (0.00, 1.00, 1.00)),
    (0.770, (0.00, 0.00, 1.00)),
    (0.954, (1.00, 0.00, 1.00)),
    (1.000, (1.00, 0.00, 0.75)),
)


def training_grid(pairs: TrainingView, params: VisualizerParams | None = None, *, rows: int = 4) -> Pixels:
    """The first `rows` pairs below a line of labels: (LABEL_HEIGHT + rows H, columns W, 3) uint8.

    Columns: source and driving frame with their keypoints, the warped source, the masks (the background's grey, each
    other in the colour of its keypoint), the occlusion map, the prediction, `GAIN` times its difference from the
    driving frame, and `extra`; those that the model does not have are left out.
    params: radius and colours of the keypoints, and whether each picture has a white border.
    """
    params = params or VisualizerParams()
    shown = min(rows, len(pairs.source))
    columns = list(_columns(pairs, params, shown))
    header = np.concatenate([label(name, cells.shape[2], LABEL_HEIGHT) for name, cells in columns], axis=1)
    body = np.concatenate([_bordered(cells) if params.draw_border else cells for _, cells in columns], axis=2)
    return np.concatenate([header, *body])


def save_training_grid(run: Path, step: int, grid: Pixels) -> Path:
    """Write the grid (H, W, 3) of a step as RUN/pictures/00001000.png; returns the path. Raises OutputError."""
    from fommctl.media.images_out import encode_png

    path = picture_path(run, step)
    write_atomically(path, lambda temporary: temporary.write_bytes(encode_png(grid, "rgb24")))
    return path


def rainbow(count: int) -> list[Colour]:
    """The published colours of `count` keypoints: RGB, 0 to 255, at equal steps along matplotlib's gist_rainbow."""
    places, shades = zip(*_RAINBOW, strict=True)
    channels = np.array(shades).T * 255
    points = np.arange(count) / max(1, count)
    red, green, blue = (np.interp(points, places, channel).tolist() for channel in channels)
    return list(zip(red, green, blue, strict=True))


def _columns(pairs: TrainingView, params: VisualizerParams, shown: int) -> Iterator[tuple[str, Pixels]]:
    """Label and cells (shown, H, W, 3) of each column."""
    size = (pairs.source.shape[2], pairs.source.shape[3])

    def cells(tensor: Tensor) -> Pixels:
        return _cells(tensor[:shown], size)

    yield "source", _with_keypoints(cells(pairs.source), pairs.source_keypoints, params)
    yield "driving", _with_keypoints(cells(pairs.driving), pairs.driving_keypoints, params)
    if pairs.deformed is not None:
        yield "warped source", cells(pairs.deformed)
    if pairs.mask is not None:
        yield "masks", _tiles(pairs.mask[:shown], size)
    if pairs.occlusion is not None:
        yield "occlusion", cells(pairs.occlusion)
    yield "prediction", cells(pairs.prediction)
    difference = (pairs.prediction[:shown].float() - pairs.driving[:shown].float()).abs()
    yield f"difference x{GAIN}", cells(difference * GAIN)
    for name, tensor in pairs.extra.items():
        yield name, cells(tensor)


def _cells(tensor: Tensor, size: tuple[int, int]) -> Pixels:
    """(B, C, h, w) in [0, 1] as pictures (B, *size, 3) in colour, in grey or of tiles."""
    if tensor.shape[1] in (1, 3):
        return _pixels(tensor.expand(-1, 3, -1, -1), size)
    return _tiles(tensor, size)


def _tiles(tensor: Tensor, size: tuple[int, int]) -> Pixels:
    """A small picture for each channel of (B, C, h, w), the first in grey, row by row in (B, *size, 3)."""
    channels = tensor.shape[1]
    across = ceil(sqrt(channels))
    height, width = size[0] // across, size[1] // across
    cells = np.zeros((len(tensor), *size, 3), np.uint8)
    for number, shade in enumerate([_WHITE, *rainbow(channels - 1)]):
        top, left = number // across * height, number % across * width
        paint = torch.tensor(shade, device=tensor.device)[:, None, None] / 255
        tile = tensor[:, number : number + 1].float() * paint
        cells[:, top : top + height, left : left + width] = _pixels(tile, (height, width))
    return cells


def _pixels(tensor: Tensor, size: tuple[int, int]) -> Pixels:
    """(B, 3, h, w) in [0, 1] as (B, *size, 3) uint8; what is no number is black."""
    floats = tensor.detach().float()
    if tuple(floats.shape[2:]) != size:
        floats = functional.interpolate(floats, size, mode="bilinear", antialias=True)
    levels = (floats.nan_to_num(0, 1, 0).clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())


def _with_keypoints(cells: Pixels, keypoints: Tensor | None, params: VisualizerParams) -> Pixels:
    if keypoints is None:
        return cells
    places = keypoints.detach()[: len(cells)].float().cpu().numpy()
    shades = rainbow(places.shape[1])
    # A model that diverges has keypoints that are no numbers or far off: they are not drawn.
    known = [(np.abs(points) < _FAR_OFF).all(1) for points in places]
    drawn = [
        draw_keypoints(
            cell, points[here], radius=params.kp_size, colours=[shades[number] for number in np.flatnonzero(here)]
        )
        for cell, points, here in zip(cells, places, known, strict=True)
    ]
    return np.stack(drawn)


def _bordered(cells: Pixels) -> Pixels:
    framed = cells.copy()
    framed[:, [0, -1]] = 255
    framed[:, :, [0, -1]] = 255
    return framed
