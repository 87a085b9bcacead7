"""A loaded model, ready to animate: what `fommctl.load` returns."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fommctl.config import did_you_mean
from fommctl.core.pixels import to_tensor
from fommctl.errors import UsageError
from fommctl.host import load_host
from fommctl.media.images import read_picture, resize
from fommctl.media.reader import Frame
from fommctl.models.loading import load_model
from fommctl.stages import animate
from fommctl.stages.choreography import Choreography
from fommctl.stages.engine import Engine
from fommctl.stages.options import AnimateConfig, MotionMode, option_names
from fommctl.stages.rendering import Rendering, batches
from fommctl.stages.shot import on_black
from fommctl.stages.timing import Cue

Pixels = NDArray[np.uint8]


class Animator(Engine):
    """One model, ready for any number of jobs."""

    def animate(
        self,
        source: str | Path,
        driving: str | Path,
        output: str | Path | None = None,
        *,
        report: animate.Progress | None = None,
        **options: Any,
    ) -> animate.AnimateResult:
        """Animate files, with the options of the command (`motion="absolute"`, `crop="none"`, ...)."""
        for name in options:
            if name not in option_names():
                raise UsageError(f"animate has no option '{name}'{did_you_mean(name, option_names())}")
        if "best_frame" in options:
            options["best_frame"] = str(options["best_frame"])
        for name in ("fps", "start", "end"):
            if options.get(name) is not None:
                options[name] = Fraction(options[name]).limit_denominator(1_000_000)
        path = None if output is None else Path(output)
        config = AnimateConfig(source=Path(source), driving=Path(driving), output=path, **options)
        return animate.run(config, self, report)

    def frames(
        self,
        source: str | Path | Pixels,
        driving: Iterable[Pixels],
        *,
        motion: MotionMode = "relative",
        adapt_scale: bool = True,
        smooth: bool = False,
        size: int | None = None,
        batch_size: int | None = None,
        fps: float = 25.0,
    ) -> Iterator[Pixels]:
        """Rendered frames (H, W, 3) uint8, one at a time, for prepared driving frames (H, W, 3) uint8.

        Pictures of another size than the model's are resized; nothing is cropped. The first driving frame is the
        reference of relative motion. fps: of the driving frames, for `smooth` only. Memory does not grow with the
        number of frames: they are taken from `driving` a batch at a time.
        """
        renderer, shape = self.renderer(size), self.frame_size(size)
        pixels = source if isinstance(source, np.ndarray) else on_black(read_picture(Path(source)))
        context = renderer.encode_source(to_tensor([resize(pixels, shape)], renderer.device))
        period = 1 / Fraction(fps).limit_denominator(100_000)
        cues = (
            Cue(Frame(resize(picture, shape), index, index * period, period), ())
            for index, picture in enumerate(driving)
        )
        first = next(cues, None)
        if first is None:
            return
        reference = renderer.detect(to_tensor([first.frame.pixels], renderer.device))
        choreography = Choreography(context.motion, reference, mode=motion, adapt_scale=adapt_scale, smooth=smooth)
        rendering = Rendering(renderer, context, choreography, lambda cue: True, batch_size)
        for batch in batches(itertools.chain((first,), cues), rendering.batch_size):
            for rendered in rendering(batch):
                yield from rendered.pixels.array()


def load(
    model: str | Path | None = None,
    *,
    preset: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    sets: Sequence[str] = (),
) -> Animator:
    """A model ready to animate.

    model: a registry name, a path, or None for the built-in one (or for the registered weights of `preset`).
    device: auto, cpu, cuda, cuda:N or mps.  precision: auto, fp32, bf16 or fp16.  sets: `a.b=c` over the preset.
    Raises UsageError, ModelError or MissingError.
    """
    torch.manual_seed(seed)
    host = load_host()
    loaded = load_model(None if model is None else str(model), host, preset=preset, sets=sets)
    return Animator(loaded, host, device=device, precision=precision)
