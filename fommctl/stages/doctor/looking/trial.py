"""The main job itself, small: a picture animated with a clip of three frames by the built-in model."""

from __future__ import annotations

import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

_FRAMES = 3
_RENDERED = 16
"""Frames by which the speed is told."""


def look(what: str) -> dict[str, Any]:
    """what: `animate`. Returns how long the model took to load, how many frames a second it renders, and
    which detector looks for its subject."""
    import numpy as np

    from fommctl.animate import animator
    from fommctl.detection.framing import choose_detector

    start = time.perf_counter()
    loaded = animator.load()
    ready = time.perf_counter() - start
    width, height = loaded.frame_size()
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)
    with tempfile.TemporaryDirectory(prefix="fommctl-doctor-") as folder:
        clip = Path(folder) / "clip.mkv"
        _write(clip, picture)
        # The first frame of a video may be the source, too.
        result = loaded.animate(clip, clip, Path(folder) / "out.mp4", crop="none")
    if result.frames != _FRAMES:
        raise RuntimeError(f"{result.frames} of {_FRAMES} frames were rendered")
    framing = loaded.model.preset.framing
    spec, detector = choose_detector(loaded.host, framing.subject) if framing else (None, None)
    if detector is not None:
        detector.detect([picture])
    start = time.perf_counter()
    rendered = sum(1 for _ in loaded.frames(picture, [picture] * _RENDERED))
    speed = rendered / (time.perf_counter() - start)
    return {
        "model": loaded.model.name,
        "device": str(loaded.device),
        "precision": loaded.precision,
        "detector": spec.name if spec else None,
        "loading_s": round(ready, 2),
        "frames_per_second": round(speed, 1),
    }


def _write(clip: Path, picture: Any) -> None:
    from fommctl.media.writer import Writer

    height, width = picture.shape[:2]
    with Writer(clip, width=width, height=height, rate=Fraction(25)) as writer:
        for number in range(_FRAMES):
            writer.write(picture, Fraction(number, 25), Fraction(1, 25))
