"""Lays out the page's plots as shapes, in the units of their SVG drawings, which page/plots.html draws.

No plotting library is used, so that the page's style sheet colours the plots (dark mode, print), text remains text,
each point has the name of its clip, and a page with a hundred plots stays small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DIGITS = 4
"""Significant digits of a mean; its interval and differences have the same number of decimal places."""
_MOST_PLACES = 6


def places_for(value: float | None) -> int:
    """Return the number of decimal places that shows four significant digits of `value`, at most six."""
    if not value:
        return _DIGITS - 1
    return min(_MOST_PLACES, max(0, _DIGITS - 1 - math.floor(math.log10(abs(value)))))


def printed(value: float | None, places: int | None = None, *, signed: bool = False) -> str:
    """Format a value with this number of decimal places (None: see `places_for`) and a minus sign; None as a dash."""
    if value is None:
        return "–"
    rounded = f"{value:{'+' if signed else ''},.{places_for(value) if places is None else places}f}"
    return rounded.replace("-", "−")


WIDTH = 280
"""Width of every plot; a unit is about one CSS pixel."""
ROW_HEIGHT = 44
MOST_DOTS = 200
"""Most clips drawn as dots in a row; of more clips, evenly spaced ones are drawn."""
MOST_POINTS = 240
"""Most points of a curve; of more frames, means over groups of consecutive frames are drawn."""
_SIDE, _AXIS = 8, 20
_LEFT = 44
_TOP, _BOTTOM = 8, 132
"""Upper and lower end of the vertical axis of curves."""
_ALIKE = 1e-12
"""Relative difference below which values are equal except for rounding."""
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One clip."""

    x: float
    y: float
    name: str
    shown: bool
    """Whether the page has the clip's video."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model in a distribution: a box plot, with clips as dots."""

    model: int
    label_y: float
    y: float
    box: tuple[float, float, float, float, float]
    """x of lower whisker, first quartile, median, third quartile and upper whisker (Tukey's: the outermost clips within
    1.5 times the box's width)."""
    dots: tuple[Dot, ...]
    description: str


@dataclass(frozen=True, slots=True)
class Distribution:
    """A metric's values over clips, with a row for each model."""

    height: float
    axis_y: float
    ticks: tuple[Tick, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """One model's scores over time, as an SVG path with gaps at frames without a score."""

    model: int
    path: str


@dataclass(frozen=True, slots=True)
class Curves:
    """A metric over the frames of one clip."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]
    stride: int
    """Number of frames per point."""


Scale = Callable[[float], float]
"""scale(value): its position on an axis."""


def distribution(
    values: Sequence[Sequence[float | None]], clips: Sequence[str], shown: Sequence[int]
) -> Distribution | None:
    """Lay out the values of all clips; return None if there are no values.

    values: by model and clip, None for no value.  clips: their names.  shown: indices of clips to emphasise.
    """
    present = [value for row in values for value in row if value is not None]
    if not present:
        return None
    ticks, scale = _axis(min(present), max(present), _SIDE + 4, WIDTH - _SIDE - 4, most=5)
    rows: list[Row] = []
    for model, row in enumerate(values):
        numbered = [(value, clip) for clip, value in enumerate(row) if value is not None]
        if numbered:
            rows.append(_row(model, len(rows), numbered, clips, frozenset(shown), scale))
    axis_y = len(rows) * ROW_HEIGHT + 4
    return Distribution(axis_y + _AXIS, axis_y, ticks, tuple(rows))


def curves(frames: Sequence[Sequence[NDArray[np.float64]]], rates: Sequence[float | None]) -> list[Curves | None]:
    """Lay out a plot for each clip, all with the same vertical axis; a clip without scores gets None.

    frames: scores (N,) by clip and model, NaN for frames without a score; empty for no curve.  rates: frames per second
    of each clip; None: the horizontal axis counts frames.
    """
    finite = [series[np.isfinite(series)] for clip in frames for series in clip]
    if not any(len(series) for series in finite):
        return [None] * len(frames)
    present = np.concatenate(finite)
    y_ticks, y_scale = _axis(float(present.min()), float(present.max()), _BOTTOM, _TOP, most=4)
    return [_curves(clip, rate, y_ticks, y_scale) for clip, rate in zip(frames, rates, strict=True)]


def _row(
    model: int,
    number: int,
    numbered: Sequence[tuple[float, int]],
    clips: Sequence[str],
    shown: frozenset[int],
    scale: Scale,
) -> Row:
    ordered = sorted(numbered)
    values = np.array([value for value, _ in ordered])
    first, median, third = np.percentile(values, (25, 50, 75)).clip(values[0], values[-1]).tolist()
    reach = 1.5 * (third - first)
    # Found separately, as no clip may lie between both ends if clips differ only by rounding.
    lower, upper = values[values >= first - reach][0], values[values <= third + reach][-1]
    box = (float(lower), first, median, third, float(upper))
    top = number * ROW_HEIGHT
    y = top + 30
    evenly = np.linspace(0, len(ordered) - 1, min(len(ordered), MOST_DOTS)).round().astype(int)
    picked = set(evenly.tolist()) | {place for place, (_, clip) in enumerate(ordered) if clip in shown}
    # Heights by the golden ratio separate dots of similar values, and are the same every time.
    dots = tuple(
        Dot(
            _round(scale(value)),
            _round(y + 16 * (place * _GOLDEN % 1 - 0.5)),
            _named(clips[clip], value),
            clip in shown,
        )
        for place, (value, clip) in enumerate(ordered)
        if place in picked
    )
    low, high = printed(float(values[0])), printed(float(values[-1]))
    description = f"{len(values)} clips from {low} to {high}, median {printed(median)}"
    at = [_round(scale(value)) for value in box]
    return Row(model, top + 13, y, (at[0], at[1], at[2], at[3], at[4]), dots, description)


def _named(clip: str, value: float) -> str:
    return f"{clip}: {printed(value)}"


def _curves(
    clip: Sequence[NDArray[np.float64]], rate: float | None, y_ticks: tuple[Tick, ...], y_scale: Scale
) -> Curves | None:
    length = max((len(series) for series in clip), default=0)
    if not any(np.isfinite(series).any() for series in clip):
        return None
    stride = math.ceil(length / MOST_POINTS)
    seconds = 1 / rate if rate else 1.0
    x_ticks, x_scale = _axis(0, max(1, length - 1) * seconds, _LEFT, WIDTH - _SIDE, most=5, fit=False)
    drawn = tuple(
        Curve(model, _path(_thinned(series, stride), stride * seconds, x_scale, y_scale))
        for model, series in enumerate(clip)
        if np.isfinite(series).any()
    )
    return Curves(x_ticks, y_ticks, drawn, stride)


def _thinned(series: NDArray[np.float64], stride: int) -> NDArray[np.float64]:
    """Return means over groups of `stride` frames, without NaN; NaN if a group has no score."""
    padded = np.full(math.ceil(len(series) / stride) * stride, np.nan)
    padded[: len(series)] = series
    blocks = padded.reshape(-1, stride)
    known = np.isfinite(blocks)
    counts = known.sum(axis=1)
    sums = np.where(known, blocks, 0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _path(points: NDArray[np.float64], step: float, x_scale: Scale, y_scale: Scale) -> str:
    """Return an SVG path through the points; a single point between gaps becomes a dot, by round line caps."""
    parts: list[str] = []
    pen_down = False
    for index, value in enumerate(points.tolist()):
        if not math.isfinite(value):
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{_round(x_scale(index * step)):g} {_round(y_scale(value)):g}")
        following = points[index + 1] if index + 1 < len(points) else math.nan
        if not pen_down and not math.isfinite(following):
            parts.append("h0")
        pen_down = True
    return "".join(parts)


def _axis(
    low: float, high: float, start: float, end: float, *, most: int, fit: bool = True
) -> tuple[tuple[Tick, ...], Scale]:
    """Return ticks at round numbers, and the scale that maps values from low to high to positions from start to end.

    most: largest number of intervals between ticks.  fit: leave a margin around the data.
    """
    if high - low <= _ALIKE * max(abs(low), abs(high)):
        room = abs(low) * 0.05 or 0.5
    else:
        room = (high - low) * 0.04 if fit else 0.0
    low, high = low - room, high + room

    def scale(value: float) -> float:
        return start + (value - low) / (high - low) * (end - start)

    step = _round_step((high - low) / most)
    places = max(0, int(_has_half(step)) - math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(Tick(_round(scale(n * step)), printed(n * step, places)) for n in range(first, last + 1)), scale


def _round_step(least: float) -> float:
    """Return the smallest number of 1, 2, 2.5 or 5 times a power of ten that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * (1 - 1e-9))


def _has_half(step: float) -> bool:
    power: float = 10.0 ** math.floor(math.log10(step) + 1e-9)
    return abs(step / power - 2.5) < 1e-6


def _round(value: float) -> float:
    return round(value, 1)
