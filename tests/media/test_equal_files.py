"""Equal frames give equal files, whatever else is in memory."""

import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fommctl.media.writer import Writer


@pytest.mark.parametrize(
    ("name", "width"),
    [("a.mp4", 96), ("a.mp4", 128), ("a.mp4", 180), ("a.mov", 180), ("a.mkv", 180), ("a.webm", 96), ("a.gif", 96)],
)
def test_equal_frames_give_equal_files(tmp_path: Path, name: str, width: int) -> None:
    """128 is the width at which x264's AVX-512 code does not read beyond its rows."""
    rows, columns = np.mgrid[:64, :width] / width
    waves = [
        np.stack([np.sin(8 * columns + i), np.cos(9 * rows - i), np.sin(20 * rows * columns)], 2) for i in range(16)
    ]
    files = set()
    clutter = random.Random(0)
    for _ in range(6):
        # Different heaps: what is read beyond a buffer would differ too.
        heap = [clutter.randbytes(clutter.randrange(200_000)) for _ in range(30)]
        path = tmp_path / name
        with Writer(path, width=width, height=64, rate=Fraction(25), overwrite=True) as writer:
            for number, wave in enumerate(waves):
                writer.write((127 + 120 * wave).astype(np.uint8), Fraction(number, 25), Fraction(1, 25))
        files.add(path.read_bytes())
        del heap
    assert len(files) == 1
