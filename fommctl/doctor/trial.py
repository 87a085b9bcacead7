"""Check of the main job: three frames animated by the built-in model, from file to file."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from fommctl.doctor.report import Row

SLOW = 5.0
"""Frames per second of the built-in model below which something is wrong; two cores of a laptop make about 40."""
_FRAMES, _TIMED = 3, 16


def check(name: str) -> Iterator[Row]:
    """Animate and measure the speed: runs in the child."""
    import numpy as np

    from fommctl.animate.animator import load
    from fommctl.detection.detectors import choose_detector
    from fommctl.media.writer import Writer

    start = time.perf_counter()
    animator = load()
    loading = time.perf_counter() - start
    width, height = animator.frame_size()
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)
    with tempfile.TemporaryDirectory(prefix="fommctl-doctor-") as folder:
        clip = Path(folder) / "clip.mkv"
        with Writer(clip, width=width, height=height, rate=Fraction(25)) as writer:
            for number in range(_FRAMES):
                writer.write(picture, Fraction(number, 25), Fraction(1, 25))
        result = animator.animate(clip, clip, Path(folder) / "out.mp4", crop="none")
    if result.frames != _FRAMES:
        raise RuntimeError(f"{result.frames} of {_FRAMES} frames were rendered")
    value = f"loaded in {loading:.2g} s"
    if framing := animator.model.preset.framing:
        spec, detector = choose_detector(animator.host, framing.subject)
        detector.detect([picture])
        value += f"; {spec.name} finds subjects"
    start = time.perf_counter()
    speed = sum(1 for _ in animator.frames(picture, [picture] * _TIMED)) / (time.perf_counter() - start)
    where = f"{animator.model.name} on {animator.device} in {animator.precision}"
    value = f"{where}: about {speed:.1f} frames/s, {value}"
    advice = (
        "Another process may keep the processor busy; 'fommctl bench' measures at length." if speed < SLOW else None
    )
    yield Row(area="trial", name=name, value=value, level="note" if advice else "ok", advice=advice)
