"""Bench: the fast paths against the plain fp32 loop, in turns in one process, on random weights."""

from __future__ import annotations

import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fommctl.animate import run as animate
from fommctl.animate.animator import Animator
from fommctl.animate.config import AnimateConfig
from fommctl.animate.detecting import usual_batch_size
from fommctl.api.protocols import Backend, Renderer
from fommctl.bench.config import FRAMES, BenchConfig
from fommctl.host import Host, load_host
from fommctl.media.reader import Frame
from fommctl.media.resampling import Pixels, resize
from fommctl.media.writer import Writer
from fommctl.models.loading import LoadedModel, build_backend
from fommctl.models.precision import choose_precision
from fommctl.networks.grids import HostPixels
from fommctl.networks.inference.devices import resolve_device, resolve_precision
from fommctl.presets.config import check_seed
from fommctl.presets.preset import load_preset
from fommctl.presets.sections import Preset

Report = Callable[[int, int | None], None]
"""report(frames done, frames in all)."""
PLAIN = "plain"
_PATHS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16"), "mps": ("fp32",)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PathResult:
    """One way to run the model."""

    frames_per_second: float
    ratio: float
    """Ratio to the plain loop in the same run."""
    error_max: float
    """Largest error of the frames in [0, 1], against the plain loop."""
    error_mean: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EndToEnd:
    """`animate` from file to file."""

    frames_per_second: float
    of_model_rate: float
    """Rate over that of the model alone in the same run; the driving video has the model's size."""
    of_model_rate_720p: float
    """The same rate with a driving video of 1280x720."""


MeasureEndToEnd = Callable[[Preset, Backend, Host, torch.device, str], EndToEnd]
"""measure(preset, backend with its weights, host, device, precision)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchResult:
    """Result of `fommctl bench`."""

    preset: str
    device: str
    batch_size: int
    threads: int
    auto_precision: str
    """Precision that `--precision auto` stands for on this device."""
    paths: Mapping[str, PathResult]
    """`plain` and the precisions."""
    shares: Mapping[str, float]
    """Each network's share of the time of the plain loop, in [0, 1]."""
    end_to_end: EndToEnd | None
    peak_memory_mb: float | None
    """Peak of a process that renders by the path of `auto_precision` and does nothing else; None where unknown."""

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json. Keys may be added, but never renamed or removed."""
        return {
            "preset": self.preset,
            "device": self.device,
            "batch_size": self.batch_size,
            "threads": self.threads,
            "auto_precision": self.auto_precision,
            "paths": {name: _numbers(path) for name, path in self.paths.items()},
            "shares": {name: float(f"{share:.3g}") for name, share in self.shares.items()},
            "end_to_end": None if self.end_to_end is None else _numbers(self.end_to_end),
            "peak_memory_mb": None if self.peak_memory_mb is None else round(self.peak_memory_mb, 1),
        }


def run(
    config: BenchConfig,
    host: Host | None = None,
    *,
    end_to_end: MeasureEndToEnd | None = None,
    report: Report | None = None,
) -> BenchResult:
    """Measure. Raises UsageError or MissingError for a preset, device or precision that is not to be had."""
    check_seed(config.seed)
    device = resolve_device(config.device)
    resolve_precision(config.precision, device)
    host = load_host() if host is None else host
    preset = load_preset(config.preset, host, sets=config.sets)
    batch_size = config.batch_size or usual_batch_size(device)
    modules = _fresh_backend(preset, host, config.seed).modules()
    chosen = choose_precision(config.precision, device, modules)
    # In a process of its own and before this one is large: what counts is the path alone.
    memory = _peak_memory_alone(config, device, chosen, batch_size)
    backend = random_backend(preset, host, config.seed)
    precisions = _PATHS[device.type] if config.precision == "auto" else (chosen,)
    plain = backend.prepare(device, "fp32", fast=False)
    paths = {PLAIN: _Path(plain, 1)}
    paths |= {name: _Path(backend.prepare(device, name), batch_size) for name in precisions}
    _measure(paths, preset.frame_shape, config, batch_size, report)
    return BenchResult(
        preset=preset.name,
        device=str(device),
        batch_size=batch_size,
        threads=torch.get_num_threads(),
        auto_precision=choose_precision("auto", device, modules),
        paths={name: path.result(paths[PLAIN]) for name, path in paths.items()},
        shares=_shares(paths[PLAIN], backend),
        end_to_end=None if end_to_end is None else end_to_end(preset, backend, host, device, chosen),
        peak_memory_mb=memory,
    )


def random_backend(preset: Preset, host: Host, seed: int) -> Backend:
    """Return networks with seeded random weights, and the BatchNorm statistics that smooth random pictures give under
    them."""
    backend = _fresh_backend(preset, host, seed)
    plain = backend.prepare(torch.device("cpu"), "fp32", fast=False)
    frames = smooth_pictures(2, preset.frame_shape, seed)
    with _calibrating(backend):
        plain.detect(frames)
    context, motion = plain.encode_source(frames[:1]), plain.detect(frames)
    with _calibrating(backend):
        plain.render(context, motion)
    return backend


def smooth_pictures(count: int, frame_shape: tuple[int, int, int], seed: int) -> Tensor:
    """Return clouds of random colours (count, C, H, W) in [0, 1] for frames of (H, W, C)."""
    height, width, channels = frame_shape
    points = torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(points, (height, width), mode="bicubic").clamp(0, 1)


def _fresh_backend(preset: Preset, host: Host, seed: int) -> Backend:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backend(host.find("backend", preset.backend), preset.model_params)


@contextmanager
def _calibrating(backend: Backend) -> Iterator[None]:
    """Let every BatchNorm that runs in the block take over the statistics of its batch."""
    modules = [module for network in backend.modules().values() for module in network.modules()]
    norms = [module for module in modules if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum


class _Path:
    """One way to run the model: its frames and the time that they took in each round."""

    def __init__(self, renderer: Renderer, batch_size: int) -> None:
        self._renderer = renderer
        self._batch_size = batch_size
        self._seconds: list[float] = []
        self._frames = torch.empty(0)

    def start(self, source: Tensor, driving: Tensor) -> None:
        """Encode the source and render once: what is prepared at the first call is no part of the rate."""
        device = self._renderer.device
        self._context = self._renderer.encode_source(source.to(device))
        self._driving = driving.to(device)
        self._frames = self._render().cpu()

    def take_time(self) -> None:
        """Run one round."""
        began = time.perf_counter()
        self._render()
        self._seconds.append((time.perf_counter() - began) / len(self._driving))

    def result(self, plain: _Path) -> PathResult:
        """Return medians over the rounds."""
        seconds, reference = statistics.median(self._seconds), statistics.median(plain._seconds)
        error = (self._frames - plain._frames).abs()
        return PathResult(
            frames_per_second=1 / seconds,
            ratio=reference / seconds,
            error_max=error.max().item(),
            error_mean=error.mean().item(),
        )

    def _render(self) -> Tensor:
        renderer = self._renderer
        rendered = [
            renderer.render(self._context, renderer.detect(batch))
            for batch in torch.split(self._driving, self._batch_size)
        ]
        if renderer.device.type == "cuda":
            torch.cuda.synchronize(renderer.device)
        return torch.cat(rendered)


def _shares(path: _Path, backend: Backend) -> dict[str, float]:
    """Measure each network's share of the time of a frame."""
    seconds: dict[str, float] = {}
    hooks = []

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    for name, network in backend.modules().items():

        def begin(module: nn.Module, inputs: Any, name: str = name) -> None:
            seconds[name] = seconds.get(name, 0.0) - now()

        def end(module: nn.Module, inputs: Any, outputs: Any, name: str = name) -> None:
            seconds[name] += now()

        hooks += [network.register_forward_pre_hook(begin), network.register_forward_hook(end)]
    began = now()
    path.take_time()
    whole = now() - began
    for hook in hooks:
        hook.remove()
    return {name: spent / whole for name, spent in seconds.items()}


def _measure(
    paths: Mapping[str, _Path],
    frame_shape: tuple[int, int, int],
    config: BenchConfig,
    batch: int,
    report: Report | None,
) -> None:
    """Run rounds of one batch a path, in turns, so that whatever else the machine does affects all paths alike."""
    pictures = smooth_pictures(batch + 1, frame_shape, config.seed + 1)
    for path in paths.values():
        path.start(pictures[:1], pictures[1:])
    rounds = max(3, math.ceil((config.frames or FRAMES) / batch))
    for index in range(rounds):
        for path in paths.values():
            path.take_time()
        if report:
            report((index + 1) * batch, rounds * batch)


def _peak_memory_alone(config: BenchConfig, device: torch.device, precision: str, batch: int) -> float | None:
    """Return the megabytes that a process of its own needs at most for model and rendering, by one path."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_render_and_weigh, config, str(device), precision, batch).result()


def _render_and_weigh(config: BenchConfig, device_name: str, precision: str, batch: int) -> float | None:
    host, device = load_host(), torch.device(device_name)
    preset = load_preset(config.preset, host, sets=config.sets)
    backend = _fresh_backend(preset, host, config.seed)
    path = _Path(backend.prepare(device, precision), batch)
    pictures = smooth_pictures(batch + 1, preset.frame_shape, config.seed)
    path.start(pictures[:1], pictures[1:])
    path.take_time()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return _largest_memory()


def _largest_memory() -> float | None:
    """Return the megabytes that this process held at most; None where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    # What getrusage tells on Linux counts what the process was before it became this program: its parent's size.
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _numbers(values: Any) -> dict[str, float]:
    """Return the fields of a dataclass of numbers, to six significant digits."""
    return {name: float(f"{value:.6g}") for name, value in asdict(values).items()}


RATE = Fraction(25)
SECONDS = 5.0
"""A clip is made long enough for the model to be busy with it for about this long."""
FEWEST, MOST = 16, 600
HD = 1280, 720
ROUNDS = 3
SLOW = 1.0
"""Frames a second below which one round of a few frames tells all: files cost next to nothing beside such a model."""


def measure(preset: Preset, backend: Backend, host: Host, device: torch.device, precision: str) -> EndToEnd:
    """Return rounds of the model alone, `animate` with a clip of the model's size, and `animate` with 720p, in turns.

    backend: with its weights.  Framing is given, so that no detection is in it; the result is an .mp4 file.
    """
    model = LoadedModel("bench", backend, preset, {}, ())
    engine = Animator(model, host, device=str(device), precision=precision)
    width, height = engine.frame_size()
    pictures = [frame.pixels for frame in _moving(width, height, 8)]
    slow = _alone(engine, pictures[:1]) < SLOW
    count, rounds = FEWEST // 4, 1
    if not slow:
        count, rounds = min(MOST, max(FEWEST, round(SECONDS * _alone(engine, pictures)))), ROUNDS
    rates: dict[str, list[float]] = {"alone": [], "native": [], "hd": []}
    with tempfile.TemporaryDirectory(prefix="fommctl-bench-") as folder:
        native, wide = Path(folder) / "native.mp4", Path(folder) / "wide.mp4"
        _write(native, (width, height), (width, height), count)
        _write(wide, HD, (width, height), count)
        for _ in range(rounds):
            rates["alone"].append(_alone(engine, (pictures * count)[:count]))
            rates["native"].append(_animated(engine, native, native, "none"))
            rates["hd"].append(_animated(engine, native, wide, f"{(HD[0] - HD[1]) // 2},0,{HD[1]}"))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return EndToEnd(
        frames_per_second=medians["native"],
        of_model_rate=medians["native"] / medians["alone"],
        of_model_rate_720p=medians["hd"] / medians["alone"],
    )


def _moving(width: int, height: int, count: int) -> list[Frame]:
    """Return frames of a cloud of colours that drifts."""
    cloud = HostPixels(smooth_pictures(1, (height, width, 3), 0)).array()[0]
    return [Frame(np.roll(cloud, 2 * index, axis=1), index, index / RATE, 1 / RATE) for index in range(count)]


def _alone(engine: Animator, pictures: Sequence[Pixels]) -> float:
    """Return frames a second of the model's loop, pictures to pictures, without files."""
    began = time.perf_counter()
    count = sum(1 for _ in engine.frames(pictures[0], pictures, adapt_scale=True, smooth=False))
    return count / (time.perf_counter() - began)


def _animated(engine: Animator, source: Path, driving: Path, driving_crop: str) -> float:
    config = AnimateConfig(
        source=source,
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
