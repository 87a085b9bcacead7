"""Drawing for --compare, --keypoints and reports: panels, labels, numbered boxes, keypoints."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fommctl.media.boxes import Box
from fommctl.media.resampling import Pixels, over_black, resize

_SMALLEST = 7
NUMBER = 0.3
"""Height of a number, in sides of its box."""


def label(text: str, width: int, height: int) -> Pixels:
    """Return `text` in white on black, centred in (height, width, 3) uint8.

    Text that is too wide gets smaller down to the smallest readable size, and is then cut off.
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


Floats = NDArray[np.floating]
Colour = tuple[float, float, float]
"""Red, green and blue, 0 to 255."""

# Sizes in sides of the frame.
RADIUS, AXIS, STROKE, OUTLINE = 0.016, 0.075, 0.009, 0.006


def compare(source_square: Pixels, driving_frame: Pixels, result: Pixels) -> Pixels:
    """Return source, driving frame and result side by side, (H, W, 3), all scaled to the result's height.

    Each is (H, W, 3), or (H, W, 4), which is composited over black.
    """
    height = result.shape[0]
    panels = [
        over_black(np.ascontiguousarray(panel[..., :3]), panel[..., 3] if panel.shape[2] == 4 else None)
        for panel in (source_square, driving_frame, result)
    ]
    return np.concatenate(
        [resize(panel, (max(1, round(panel.shape[1] * height / panel.shape[0])), height)) for panel in panels], axis=1
    )


def draw_numbers(picture: Pixels, numbers: Sequence[tuple[int, Box]]) -> Pixels:
    """Return a copy of a picture (H, W, 3 or 4) with these boxes drawn and numbered."""
    image = Image.fromarray(np.ascontiguousarray(picture[..., :3]))
    canvas = ImageDraw.Draw(image)
    for number, box in numbers:
        size = max(10.0, NUMBER * min(box.width, box.height))
        stroke = max(1, round(size / 12))
        canvas.rectangle(box.sides, outline="white", width=stroke)
        canvas.text(
            (box.left + 2 * stroke, box.top + stroke), str(number), fill="white", stroke_fill="black",
            stroke_width=stroke, font=ImageFont.load_default(size),
        )  # fmt: skip
    return np.dstack((np.asarray(image), picture[..., 3:]))


def draw_keypoints(
    frame: Pixels,
    keypoints: Floats,
    jacobians: Floats | None = None,
    *,
    radius: float | None = None,
    colours: Sequence[Colour] | None = None,
) -> Pixels:
    """Return a copy of frame (H, W, 3) with a dot at each keypoint, and with Jacobians the axes of its local frame.

    keypoints: (K, 2) in [-1, 1], x before y, corner pixels at -1 and 1; parts outside the frame are cut off.
    jacobians: (K, 2, 2); their columns are the x axis and the y axis, which is drawn half as wide.
    radius: radius of a dot in pixels; None: relative to the frame's side.  colours: one per keypoint; None: `colour`.
    """
    height, width = frame.shape[:2]
    side = min(height, width)
    half = np.array([width - 1, height - 1]) / 2
    usual, stroke, outline = (max(least, part * side) for least, part in ((2.0, RADIUS), (1.2, STROKE), (0.9, OUTLINE)))
    canvas = frame.astype(np.float32)
    centres = (np.asarray(keypoints, np.float64) + 1) * half
    shades = colours or [colour(number, len(centres)) for number in range(len(centres))]
    if jacobians is not None:
        axes = _short(np.asarray(jacobians, np.float64)) * AXIS * side
        for centre, frame_axes, shade in zip(centres, axes, shades, strict=True):
            for axis, thickness in ((0, stroke), (1, stroke / 2)):
                _stroke(canvas, centre, centre + frame_axes[:, axis], thickness, outline, shade)
    # Dots after all axes, so that each is visible where keypoints are close together.
    for centre, shade in zip(centres, shades, strict=True):
        _stroke(canvas, centre, centre, usual if radius is None else radius, outline, shade)
    return (canvas + 0.5).clip(0, 255).astype(np.uint8)


def colour(number: int, count: int) -> Colour:
    """Return the RGB colour of a keypoint, 0 to 255: hues around the circle, every second one paler, so that twenty
    can be told apart."""
    shades = colorsys.hsv_to_rgb(number / max(1, count), 1.0 if number % 2 == 0 else 0.55, 1.0)
    return shades[0] * 255, shades[1] * 255, shades[2] * 255


def _short(jacobians: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale Jacobians (K, 2, 2) down by a common factor so that the median column is no longer than 1.

    Columns are then limited to a length of 3, so that no axis crosses the whole frame.
    """
    lengths = np.linalg.norm(jacobians, axis=1, keepdims=True)
    typical = max(1.0, float(np.median(lengths)))
    short: NDArray[np.float64] = jacobians / typical / np.maximum(1.0, lengths / typical / 3)
    return short


def _stroke(
    canvas: NDArray[np.float32],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    radius: float,
    outline: float,
    shade: Colour,
) -> None:
    """Blend a line with round ends (a dot where start is end) and a dark outline into canvas (H, W, 3), in place."""
    reach = radius + outline + 1
    left, top = np.floor(np.maximum(np.minimum(start, end) - reach, 0)).astype(int)
    right, bottom = np.ceil(np.minimum(np.maximum(start, end) + reach + 1, canvas.shape[1::-1])).astype(int)
    if right <= left or bottom <= top:
        return
    x, y = np.meshgrid(np.arange(left, right), np.arange(top, bottom))
    along = end - start
    length = float(along @ along)
    part = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / length, 0, 1) if length > 0 else 0.0
    distance = np.hypot(x - start[0] - part * along[0], y - start[1] - part * along[1])
    region = canvas[top:bottom, left:right]
    # Antialiasing: coverage of a pixel from its distance to the edge.
    for edge, paint in ((radius + outline, (0.0, 0.0, 0.0)), (radius, shade)):
        cover = np.clip(edge + 0.5 - distance, 0, 1)[..., None].astype(np.float32)
        region += cover * (np.asarray(paint, np.float32) - region)
