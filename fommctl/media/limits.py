"""What is refused before it takes memory, disk or hours: the one place for these numbers."""

from __future__ import annotations

from fractions import Fraction

MAX_SIDE = 16384
"""Pixels of a side of a picture."""
MAX_PIXELS = 200_000_000
"""Of a picture: 16384 x 12207. The largest sensors have 150 megapixels, 8K video has 33. Reading a picture of this size
takes about 2 GB for some seconds."""
LONGEST_PAUSE = Fraction(3600)
"""Seconds for which one frame, or a gap in the sound, may be filled with repetitions or silence: longer ones are
timestamps that are wrong, and filling them would write without end."""

SMALLER = f"Scale it down first; at most {MAX_SIDE} pixels a side and {MAX_PIXELS // 1_000_000} megapixels are read."
"""The hint where a picture is too large."""
