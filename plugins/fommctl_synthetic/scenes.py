"""Frames, keypoints and dense motion of scenes: layers over a still background."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fommctl_synthetic.layers import Floats, Layer, Waves

BACKGROUND = -1
"""Label of pixels that no layer covers."""


@dataclass(frozen=True)
class Scene:
    """The description of a clip, from which it is rendered."""

    background: Waves
    layers: tuple[Layer, ...]
    """Layers from back to front."""
    size: int
    """Side of a frame in pixels."""
    length: int
    """Number of frames."""

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames (size, size, 3) uint8, one at a time."""
        grid = self._grid()
        background = self.background.at(grid)
        for index in range(self.length):
            canvas = background.copy()
            for layer in self.layers:
                self._paint(canvas, grid, layer, self._time(index))
            yield np.round(canvas * 255).astype(np.uint8)

    def motion(self) -> tuple[Floats, Floats]:
        """Return keypoints (T, K, 2) in [-1, 1] and their Jacobians (T, K, 2, 2), in the order of the layers.

        A keypoint's Jacobian maps its layer's local coordinates to the picture. The Jacobian in one frame times the
        inverse of that in another is the true local affine motion between them.
        """
        poses = [[layer.pose(self._time(index)) for layer in self.layers] for index in range(self.length)]
        keypoints = [
            np.concatenate(
                [centre + layer.keypoints @ matrix.T for layer, (centre, matrix) in zip(self.layers, each, strict=True)]
            )
            for each in poses
        ]
        counts = [len(layer.keypoints) for layer in self.layers]
        jacobians = [np.repeat([matrix for _, matrix in each], counts, 0) for each in poses]
        return np.stack(keypoints), np.stack(jacobians)

    def visible_keypoints(self) -> Floats:
        """Return the keypoints of `motion`, (T, K, 2), NaN for those outside the picture or behind another layer."""
        keypoints = self.motion()[0]
        owners = np.repeat(np.arange(len(self.layers)), [len(layer.keypoints) for layer in self.layers])
        in_front = np.stack([self.labels_at(at, self._time(index)) for index, at in enumerate(keypoints)]) == owners
        return np.where((in_front & (np.abs(keypoints) <= 1).all(-1))[..., None], keypoints, np.nan)

    def flow(self, source_index: int, driving_index: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the position in the source frame of each pixel of the driving frame, and whether it is visible there.

        Positions are a sampling grid (H, W, 2) in [-1, 1], x before y, also for points that are occluded or outside the
        picture. Visibility is (H, W) bool: the point lies inside the picture and behind no layer. A pixel on a soft
        edge belongs to the front layer that covers at least half of it.
        """
        grid = self._grid()
        source_time, driving_time = self._time(source_index), self._time(driving_index)
        labels = self.labels_at(grid, driving_time)
        flow = grid.copy()
        for number, layer in enumerate(self.layers):
            own = _own(grid[labels == number], layer, driving_time)
            centre, matrix = layer.pose(source_time)
            flow[labels == number] = centre + own @ matrix.T
        inside = (np.abs(flow) <= 1).all(-1)
        return flow, inside & (self.labels_at(flow, source_time) == labels)

    def labels_at(self, points: Floats, time: float) -> NDArray[np.int64]:
        """Return the index of the front layer at points (..., 2) of the picture, (...), BACKGROUND without a layer."""
        labels = np.full(points.shape[:-1], BACKGROUND)
        for number, layer in enumerate(self.layers):
            # The tolerance of 1e-12 keeps points on the outline inside, whatever the pose.
            labels[layer.radius(_own(points, layer, time)) <= 1 + 1e-12] = number
        return labels

    def _time(self, index: int) -> float:
        return index / self.length

    def _grid(self) -> Floats:
        """Return the positions of the pixels, (size, size, 2)."""
        axis = np.linspace(-1, 1, self.size)
        return np.stack(np.meshgrid(axis, axis), -1)

    def _paint(self, canvas: Floats, grid: Floats, layer: Layer, time: float) -> None:
        """Blend a layer over the canvas (H, W, 3), in place."""
        rows, columns = self._reach(layer, time)
        own = _own(grid[rows, columns], layer, time)
        cover = np.clip((1 - layer.radius(own)) / layer.edge + 0.5, 0, 1)[..., None]
        canvas[rows, columns] += cover * (layer.texture.at(own) - canvas[rows, columns])

    def _reach(self, layer: Layer, time: float) -> tuple[slice, slice]:
        """Return the rows and columns that the layer may cover."""
        centre, matrix = layer.pose(time)
        left, top, right, bottom = layer.extent
        corners = centre + np.array([(left, top), (right, top), (left, bottom), (right, bottom)]) @ matrix.T
        first, last = ((each + 1) / 2 * (self.size - 1) for each in (corners.min(0), corners.max(0)))
        start = np.clip(np.floor(first), 0, self.size).astype(int)
        stop = np.clip(np.ceil(last) + 1, 0, self.size).astype(int)
        return slice(start[1], stop[1]), slice(start[0], stop[0])


def _own(points: Floats, layer: Layer, time: float) -> Floats:
    """Convert points (..., 2) of the picture to the layer's local coordinates."""
    centre, matrix = layer.pose(time)
    own: Floats = (points - centre) @ np.linalg.inv(matrix).T
    return own
