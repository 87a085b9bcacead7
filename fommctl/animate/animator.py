"""A loaded model, ready to animate: what `fommctl.load` returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fommctl.animate import run as animate
from fommctl.animate.config import AnimateConfig, MotionMode
from fommctl.animate.detecting import MotionDetector, with_landmarks
from fommctl.animate.engine import Engine, check_views, choose_motion
from fommctl.animate.inputs import on_black
from fommctl.animate.motion import DrivingFrame
from fommctl.animate.plan import openings_of, resolve
from fommctl.animate.recording import AnimateResult
from fommctl.animate.rendering import SquareRenderer
from fommctl.animate.transfer import Moment, MotionTransfer, rule_of
from fommctl.errors import InputError
from fommctl.host import load_host
from fommctl.media.boxes import Box
from fommctl.media.images import read_picture
from fommctl.media.resampling import Pixels, resize
from fommctl.models.loading import load_model
from fommctl.networks.grids import to_tensor
from fommctl.networks.motion import MotionParts
from fommctl.options import with_options
from fommctl.presets.config import check_seed
from fommctl.threads import batches
from fommctl.workers import Progress

PICTURE = "Give an array (height, width, 3) of uint8, red first; files are animated by animate()."


class Animator(Engine):
    """One model, ready for any number of jobs."""

    @with_options(AnimateConfig)
    def animate(
        self,
        source: str | Path,
        driving: str | Path,
        output: str | Path | None = None,
        *,
        report: Progress | None = None,
        **options: Any,
    ) -> AnimateResult:
        """Animate files, with the command's options as keywords (`motion="absolute"`, `crop="none"`, ...)."""
        config = AnimateConfig(source=Path(source), driving=Path(driving), output=output, **options)  # type: ignore[arg-type]  # read by AnimateConfig
        return animate.run(config, self, report)

    def frames(
        self,
        source: str | Path | Pixels,
        driving: Iterable[Pixels],
        *,
        views: Sequence[str | Path | Pixels] = (),
        motion: MotionMode | None = None,
        adapt_scale: bool | None = None,
        smooth: bool | None = None,
        size: int | None = None,
        batch_size: int | None = None,
        fps: float = 25.0,
        options: Mapping[str, Any] | Sequence[str] = (),
    ) -> Iterator[Pixels]:
        """Yield rendered frames (H, W, 3) uint8, one at a time, for prepared driving frames (H, W, 3) uint8.

        Pictures are resized to the model's size; where the aspect ratio differs, only the middle is used. The first
        driving frame is the reference of relative motion. Memory does not grow with the number of frames: they are
        taken from `driving` a batch at a time.

        views: more pictures of the source's subject, for models that use them.  motion, adapt_scale, smooth, size: None
        takes the value of the model's preset, as in `animate`.  fps: frame rate of the driving frames, used by `smooth`
        only.  options: options of the model's family.

        Raises UsageError for a motion or an option that the model does not have and for too many views, and InputError
        for anything but (H, W, 3) uint8 arrays.
        """
        asked = AnimateConfig(
            source=Path(),
            driving=Path(),
            motion=motion,
            adapt_scale=adapt_scale,
            smooth=smooth,
            size=size,
            options=options,  # type: ignore[arg-type]  # read by AnimateConfig
        )
        config = resolve(asked, self.model.preset, self.family)
        size, mode = config.size, choose_motion(self.family, config.motion)
        check_views(self.family, len(views))
        chosen = self.options(config.options)
        renderer, shape = self.renderer(size, chosen), self.frame_size(size)
        pictures = [_middle(_source(each), shape) for each in (source, *views)]
        context = renderer.encode_source(to_tensor(pictures, renderer.device))
        landmarks = self.landmarks(chosen)
        detector = MotionDetector(renderer, batch_size, landmarks)
        squares = SquareRenderer(renderer, context, batch_size)
        references: dict[int, MotionParts] = {}
        moves = MotionTransfer(
            with_landmarks(context.motion, landmarks, pictures[:1]),
            references,
            mode=mode,
            adapt_scale=bool(config.adapt_scale),
            smooth=bool(config.smooth),
            rule=rule_of(renderer, mode, chosen),
            openings=openings_of(self.model.preset, config),
            expression=1.0 if config.expression is None else config.expression,
        )
        period = 1 / Fraction(fps).limit_denominator(100_000)
        frames = (
            DrivingFrame(index + 1, index * period, period, True, _middle(_picture(picture, "driving frame"), shape))
            for index, picture in enumerate(driving)
        )
        for batch in batches(frames, detector.usual):
            detected = list(detector(batch))
            found = MotionParts.cat([frame.motion for frame in detected if frame.motion is not None])
            references.setdefault(0, found[:1])
            for _, pixels, _, _ in squares(moves(found, [Moment(float(frame.time)) for frame in detected])):
                yield from pixels.array()


def _middle(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Crop a picture centrally to the aspect ratio of `size` (width, height) and resize it to that size."""
    height, width = pixels.shape[:2]
    scale = min(width / size[0], height / size[1])
    left, top = (width - size[0] * scale) / 2, (height - size[1] * scale) / 2
    return resize(pixels, size, Box(left, top, width - left, height - top))


def _source(picture: str | Path | Pixels) -> Pixels:
    return on_black(read_picture(Path(picture))) if isinstance(picture, str | Path) else _picture(picture, "source")


def _picture(pixels: Any, what: str) -> Pixels:
    """Return the pixels if they are (H, W, 3) uint8; anything else, such as floats in [0, 1], raises InputError."""
    if not isinstance(pixels, np.ndarray):
        raise InputError(f"a {what} is not an array but {type(pixels).__name__}", PICTURE)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size or pixels.dtype != np.uint8:
        raise InputError(f"a {what} has the shape {pixels.shape} and the type {pixels.dtype}", PICTURE)
    return pixels


def load(
    model: str | Path | None = None,
    *,
    preset: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    sets: Sequence[str] = (),
) -> Animator:
    """Load a model, ready to animate.

    model: a registry name, a path, or None for the built-in one (or for the registered weights of `preset`).
    device: auto, cpu, cuda, cuda:N or mps.  precision: auto, fp32, bf16 or fp16.  sets: overrides of preset values, as
    `a.b=c`.
    Raises UsageError, ModelError or MissingError.
    """
    check_seed(seed)
    torch.manual_seed(seed)
    host = load_host()
    loaded = load_model(None if model is None else str(model), host, preset=preset, sets=sets)
    return Animator(loaded, host, device=device, precision=precision, seed=seed)
