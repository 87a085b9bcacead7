"""How a coded picture has to be turned for display: the display matrix of the file."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from fommctl.media.boxes import Box
from fommctl.media.files import side_data


@dataclass(frozen=True, slots=True)
class Orientation:
    """Transpose first, then mirror left to right and top to bottom: all eight ways to lay a picture down."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, C) as coded -> as displayed, contiguous."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        if self.mirror_x:
            pixels = pixels[:, ::-1]
        if self.mirror_y:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) as coded -> as displayed, and back."""
        return (size[1], size[0]) if self.transpose else size

    def coded(self, box: Box, displayed: tuple[int, int]) -> Box:
        """Where a box of the displayed picture, of size (width, height), lies in the coded one."""
        width, height = displayed
        left, right = (width - box.right, width - box.left) if self.mirror_x else (box.left, box.right)
        top, bottom = (height - box.bottom, height - box.top) if self.mirror_y else (box.top, box.bottom)
        return Box(top, left, bottom, right) if self.transpose else Box(left, top, right, bottom)


UPRIGHT = Orientation()
_BY_ANGLE = {
    1: Orientation(transpose=True, mirror_y=True),
    2: Orientation(mirror_x=True, mirror_y=True),
    3: Orientation(transpose=True, mirror_x=True),
}
"""By quarter turns against the clock."""


def orientation_of(frame: VideoFrame) -> Orientation:
    """The orientation that a frame's display matrix asks for, to whole quarter turns; upright where there is none."""
    matrix = side_data(frame).get(Type.DISPLAYMATRIX)
    if matrix is None or len(matrix) < 36:
        return _BY_ANGLE.get(round(frame.rotation / 90) % 4, UPRIGHT)
    # x' = a x + c y and y' = b x + d y, y downwards (ffmpeg, display.h).
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
    if abs(a) >= abs(b):
        return Orientation(mirror_x=a < 0, mirror_y=d < 0)
    return Orientation(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
