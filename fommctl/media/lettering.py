"""A line of text as a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fommctl.media.resampling import Pixels

_SMALLEST = 7


def label(text: str, width: int, height: int) -> Pixels:
    """`text` in white on black, in the middle of (height, width, 3) uint8.

    Where it is too wide the letters get smaller, down to what can just be read; what is still too much is cut.
    """
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    size = max(_SMALLEST, round(height * 0.7))
    font = ImageFont.load_default(size)
    while size > _SMALLEST and draw.textlength(text, font) > width - 2:
        size -= 1
        font = ImageFont.load_default(size)
    left = max(1.0, (width - draw.textlength(text, font)) / 2)
    draw.text((left, height / 2), text, font=font, fill="white", anchor="lm")
    return np.asarray(picture).copy()
