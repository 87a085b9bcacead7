"""How much of the model's own rate `animate` reaches from file to file, measured in one process."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fommctl.animate import run as animate
from fommctl.animate.animator import Animator
from fommctl.animate.config import AnimateConfig
from fommctl.api.protocols import Backend
from fommctl.bench.run import EndToEnd, smooth_pictures
from fommctl.host import Host
from fommctl.media.images import Pixels, resize
from fommctl.media.reader import Frame
from fommctl.media.writer import Writer
from fommctl.models.loading import LoadedModel
from fommctl.networks.grids import HostPixels
from fommctl.presets.sections import Preset

RATE = Fraction(25)
SECONDS = 5.0
"""A clip is made long enough for the model to be busy with it for about this long."""
FEWEST, MOST = 16, 600
HD = 1280, 720
ROUNDS = 3


def measure(preset: Preset, backend: Backend, host: Host, device: torch.device, precision: str) -> EndToEnd:
    """Rounds of the model alone, `animate` with a clip of the model's size, and `animate` with 720p, in turns.

    backend: with its weights.  Framing is given, so that no detection is in it; the result is an .mp4 file.
    """
    model = LoadedModel("bench", backend, preset, {}, ())
    engine = Animator(model, host, device=str(device), precision=precision)
    width, height = engine.frame_size()
    pictures = [frame.pixels for frame in _moving(width, height, 8)]
    alone = _alone(engine, pictures)
    count = min(MOST, max(FEWEST, round(SECONDS * alone)))
    rates: dict[str, list[float]] = {"alone": [], "native": [], "hd": []}
    with tempfile.TemporaryDirectory(prefix="fommctl-bench-") as folder:
        native, wide = Path(folder) / "native.mp4", Path(folder) / "wide.mp4"
        _write(native, (width, height), (width, height), count)
        _write(wide, HD, (width, height), count)
        for _ in range(ROUNDS):
            rates["alone"].append(_alone(engine, (pictures * count)[:count]))
            rates["native"].append(_animated(engine, native, "none"))
            rates["hd"].append(_animated(engine, wide, f"{(HD[0] - HD[1]) // 2},0,{HD[1]}"))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return EndToEnd(
        frames_per_second=medians["native"],
        of_model_rate=medians["native"] / medians["alone"],
        of_model_rate_720p=medians["hd"] / medians["alone"],
    )


def _moving(width: int, height: int, count: int) -> list[Frame]:
    """Frames of a cloud of colours that drifts."""
    cloud = HostPixels(smooth_pictures(1, (height, width, 3), 0)).array()[0]
    return [Frame(np.roll(cloud, 2 * index, axis=1), index, index / RATE, 1 / RATE) for index in range(count)]


def _alone(engine: Animator, pictures: Sequence[Pixels]) -> float:
    """Frames a second of the model's loop, pictures to pictures, without files."""
    began = time.perf_counter()
    count = sum(1 for _ in engine.frames(pictures[0], pictures, adapt_scale=True, smooth=False))
    return count / (time.perf_counter() - began)


def _animated(engine: Animator, driving: Path, driving_crop: str) -> float:
    config = AnimateConfig(
        source=driving,
        driving=driving,
        output=driving.with_name("result.mp4"),
        crop="none",
        driving_crop=driving_crop,
        overwrite=True,
    )
    return animate.run(config, engine).end_to_end_rate


def _write(path: Path, size: tuple[int, int], cloud: tuple[int, int], count: int) -> None:
    frames: list[NDArray[np.uint8]] = [resize(frame.pixels, size) for frame in _moving(*cloud, 32)]
    with Writer(path, width=size[0], height=size[1], rate=RATE) as writer:
        for index in range(count):
            writer.write(frames[index % len(frames)], index / RATE, 1 / RATE)
