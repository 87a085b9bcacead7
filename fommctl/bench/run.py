"""Measures the fast paths against the plain fp32 loop, in turns in one process, with random weights."""

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
"""report(frames done, total frames)."""
PLAIN = "plain"
_PATHS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16"), "mps": ("fp32",)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PathResult:
    """Speed and errors of one way to run the model."""

    frames_per_second: float
    ratio: float
    """Speed relative to the plain loop in the same run."""
    error_max: float
    """Largest absolute difference from the plain loop's frames, in [0, 1]."""
    error_mean: float
    """Mean absolute difference from the plain loop's frames, in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndToEnd:
    """Speed of `animate` from file to file."""

    frames_per_second: float
    """Rate with a driving video of the model's size."""
    of_model_rate: float
    """Rate with a driving video of the model's size, relative to that of the model alone in the same run."""
    of_model_rate_720p: float
    """Rate with a driving video of 1280x720, relative to that of the model alone."""


MeasureEndToEnd = Callable[[Preset, Backend, Host, torch.device, str], EndToEnd]
"""measure(preset, backend with its weights, host, device, precision)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchResult:
    """The result of `fommctl bench`."""

    preset: str
    device: str
    batch_size: int
    threads: int
    auto_precision: str
    """Precision that `--precision auto` chooses on this device."""
    paths: Mapping[str, PathResult]
    """Results by path: `plain`, and the precisions."""
    shares: Mapping[str, float]
    """Share of each network in the time of the plain loop, in [0, 1]."""
    end_to_end: EndToEnd | None
    """Speed of `animate`; None if it was not measured."""
    peak_memory_mb: float | None
    """Peak memory in MiB of a process that only renders, in the chosen precision; None if unknown."""

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
    """Measure the paths of a preset's model with random weights.

    end_to_end: measures `animate`, such as `measure`; None to leave it out.  Raises UsageError or MissingError for a
    preset, device or precision that is not available.
    """
    check_seed(config.seed)
    device = resolve_device(config.device)
    resolve_precision(config.precision, device)
    host = load_host() if host is None else host
    preset = load_preset(config.preset, host, sets=config.sets)
    batch_size = config.batch_size or usual_batch_size(device)
    modules = _fresh_backend(preset, host, config.seed).modules()
    chosen = choose_precision(config.precision, device, modules)
    # Measured in a new process, so that only this path counts, and first, while this process is small.
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
    """Return a backend with seeded random weights, whose BatchNorm statistics are from smooth random pictures."""
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
    """Return smooth random pictures (count, C, H, W) in [0, 1].  frame_shape: (H, W, C)."""
    height, width, channels = frame_shape
    points = torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(points, (height, width), mode="bicubic").clamp(0, 1)


def _fresh_backend(preset: Preset, host: Host, seed: int) -> Backend:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backend(host.find("backend", preset.backend), preset.model_params)


@contextmanager
def _calibrating(backend: Backend) -> Iterator[None]:
    """Set the statistics of every BatchNorm that runs in the block to those of its batch."""
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
    """One way to run the model, with its frames and the times of its rounds."""

    def __init__(self, renderer: Renderer, batch_size: int) -> None:
        self._renderer = renderer
        self._batch_size = batch_size
        self._seconds: list[float] = []
        self._frames = torch.empty(0)

    def start(self, source: Tensor, driving: Tensor) -> None:
        """Encode the source and render once, so that preparations on the first call do not count.

        source: (1, 3, H, W), driving: (B, 3, H, W), both in [0, 1].
        """
        device = self._renderer.device
        self._context = self._renderer.encode_source(source.to(device))
        self._driving = driving.to(device)
        self._frames = self._render().cpu()

    def take_time(self) -> None:
        """Run one round and record its time per frame."""
        began = time.perf_counter()
        self._render()
        self._seconds.append((time.perf_counter() - began) / len(self._driving))

    def result(self, plain: _Path) -> PathResult:
        """Return speed (medians over the rounds) and errors relative to the plain path."""
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
    """Return each network's share of the time of one round."""
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
    """Run rounds of one batch per path, in turns, so that other load on the machine affects all paths alike."""
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
    """Return the peak memory in MiB of a new process that loads the model and renders in one precision."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_of_rendering, config, str(device), precision, batch).result()


def _peak_of_rendering(config: BenchConfig, device_name: str, precision: str, batch: int) -> float | None:
    host, device = load_host(), torch.device(device_name)
    preset = load_preset(config.preset, host, sets=config.sets)
    backend = _fresh_backend(preset, host, config.seed)
    path = _Path(backend.prepare(device, precision), batch)
    pictures = smooth_pictures(batch + 1, preset.frame_shape, config.seed)
    path.start(pictures[:1], pictures[1:])
    path.take_time()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return _peak_memory()


def _peak_memory() -> float | None:
    """Return the peak memory of this process in MiB; None if the system does not report it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    # On Linux, getrusage includes the size of the parent process from before exec.
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
    """Return the fields of a dataclass of numbers, rounded to six significant digits."""
    return {name: float(f"{value:.6g}") for name, value in asdict(values).items()}


RATE = Fraction(25)
SECONDS = 5.0
"""Rendering time for which the length of the clip is chosen."""
FEWEST, MOST = 16, 600
"""Range of the clip's length in frames."""
HD = 1280, 720
ROUNDS = 3
SLOW = 1.0
"""Frames per second below which one round of a few frames is enough, as reading and writing files hardly matters."""


def measure(preset: Preset, backend: Backend, host: Host, device: torch.device, precision: str) -> EndToEnd:
    """Measure the model alone, `animate` with a clip of the model's size, and `animate` with a 720p clip, in turns.

    `animate` writes an .mp4 file and detects no faces.  backend: with its weights.
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
    """Return frames of a smooth picture that moves sideways."""
    picture = HostPixels(smooth_pictures(1, (height, width, 3), 0)).array()[0]
    return [Frame(np.roll(picture, 2 * index, axis=1), index, index / RATE, 1 / RATE) for index in range(count)]


def _alone(engine: Animator, pictures: Sequence[Pixels]) -> float:
    """Return the frames per second of the model from pictures to pictures, without files."""
    began = time.perf_counter()
    count = sum(1 for _ in engine.frames(pictures[0], pictures, adapt_scale=True, smooth=False))
    return count / (time.perf_counter() - began)


def _animated(engine: Animator, source: Path, driving: Path, driving_crop: str) -> float:
    """Return the frames per second of `animate`."""
    config = AnimateConfig(
        source=source,
        driving=driving,
        output=driving.with_name("result.mp4"),
        crop="none",
        driving_crop=driving_crop,
        overwrite=True,
    )
    return animate.run(config, engine).end_to_end_rate


def _write(path: Path, size: tuple[int, int], drawn: tuple[int, int], count: int) -> None:
    """Write a clip of `count` frames of this (width, height), which are drawn in another size."""
    frames: list[NDArray[np.uint8]] = [resize(frame.pixels, size) for frame in _moving(*drawn, 32)]
    with Writer(path, width=size[0], height=size[1], rate=RATE) as writer:
        for index in range(count):
            writer.write(frames[index % len(frames)], index / RATE, 1 / RATE)
