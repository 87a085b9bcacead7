"""Warping error: flicker, measured as change from frame to frame beyond the true motion.

Lai et al. 2018 ("Learning Blind Video Temporal Consistency"), section 4.2: frame t - 1 is warped by the optical flow of
the true video and compared with frame t where nothing is occluded,

    E(t) = 1 / sum(M) * sum over pixels of M * (V_t - warp(V_(t-1)))^2,   M = 1 where not occluded,

with values in [0, 1] and the square averaged over red, green and blue, as in the authors' evaluate_WarpError.py. The
authors use FlowNet 2; here the flow is OpenCV's dense inverse search (Kroeger et al. 2016), which needs no weights.
Values of different implementations are not comparable.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fommctl.api import MissingError
from fommctl.api.metrics import ClipScorer, ClipScores, FrameChunk, MetricClip, mean_of_frames
from fommctl_metrics.pixels import Pixels, truth_of

SMALLEST = 16
"""Smallest side of a frame, pixels; below it, the flow has no patches to match."""

Flow = NDArray[np.float32]
"""(H, W, 2) pixels, x before y: where each pixel comes from."""


class WarpError:
    """Mean of E(t) over the frames of a clip, except the first, which has no predecessor."""

    def __init__(self) -> None:
        _opencv()

    def clip(self, clip: MetricClip) -> ClipScorer:
        return _WarpErrorOfClip()


class RelativeWarpError(WarpError):
    """Sum of E(t) relative to that of the true video, which is above zero because flow and sampling are inexact: 1 is
    as steady as the truth, less is smoother. A clip whose true video does not change at all is not scored."""

    def clip(self, clip: MetricClip) -> ClipScorer:
        return _RelativeWarpErrorOfClip()


class _WarpErrorOfClip:
    def __init__(self) -> None:
        self._last: tuple[Pixels, Pixels] | None = None
        self._flow = _TrueFlow()
        self._errors: list[tuple[float, float]] = []
        """Errors of prediction and truth in each frame."""

    def add(self, chunk: FrameChunk) -> None:
        for frames in zip(chunk.prediction, truth_of(chunk), strict=True):
            self._errors.append(self._compare(*self._last, *frames) if self._last else (np.nan, np.nan))
            # Copies: the frames of a chunk need not outlive it.
            self._last = frames[0].copy(), frames[1].copy()

    def _compare(self, old: Pixels, old_truth: Pixels, new: Pixels, new_truth: Pixels) -> tuple[float, float]:
        if min(new.shape[:2]) < SMALLEST:
            return np.nan, np.nan
        flow, visible = self._flow(old_truth, new_truth)
        if not visible.any():
            return np.nan, np.nan
        return _error(old, new, flow, visible), _error(old_truth, new_truth, flow, visible)

    def finish(self) -> ClipScores:
        return mean_of_frames(self._table()[:, 0])

    def _table(self) -> NDArray[np.float64]:
        """Return the errors of prediction and truth, (N, 2), NaN for frames without any."""
        return np.array(self._errors, np.float64).reshape(-1, 2)


class _RelativeWarpErrorOfClip(_WarpErrorOfClip):
    def finish(self) -> ClipScores:
        table = self._table()
        known = table[np.isfinite(table).all(1)]
        predicted, true = known.sum(0)
        if not true:
            return ClipScores(np.empty(0), None, 0, len(table))
        return ClipScores(np.empty(0), float(predicted / true), len(known), len(table))


class _TrueFlow:
    """Estimates optical flow and visibility between true frames; reuses its buffers, so each clip needs its own."""

    def __init__(self) -> None:
        self._cv2: Any = _opencv()
        self._search = self._cv2.DISOpticalFlow_create(self._cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, old: Pixels, new: Pixels) -> tuple[Flow, NDArray[np.bool_]]:
        """Return the flow from the new frame to the old one, and which pixels (H, W) are visible in the old one."""
        greys = [self._cv2.cvtColor(np.ascontiguousarray(frame), self._cv2.COLOR_RGB2GRAY) for frame in (old, new)]
        backward = self._search.calc(greys[1], greys[0], None)
        forward = self._search.calc(greys[0], greys[1], None)
        return backward, visible(backward, warped(forward, backward))


def visible(backward: Flow, forward: Flow) -> NDArray[np.bool_]:
    """Return which pixels (H, W) of the new frame are visible in the old one: those that do not come from beyond the
    frame, and whose flow is consistent, |b + f|^2 <= 0.01 (|b|^2 + |f|^2) + 0.5 (Sundaram et al. 2010).

    backward: flow from the new frame to the old one.  forward: the old frame's flow, sampled where `backward` points.
    """
    away = ((backward + forward) ** 2).sum(-1)
    length = (backward**2).sum(-1) + (forward**2).sum(-1)
    height, width = backward.shape[:2]
    x, y = np.arange(width) + backward[..., 0], np.arange(height)[:, None] + backward[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return np.asarray((away <= 0.01 * length + 0.5) & inside)


def warped(values: NDArray[Any], flow: Flow) -> NDArray[np.float32]:
    """Sample values (H, W, C) where `flow` points, bilinearly; positions beyond the frame take its nearest pixel."""
    height, width = flow.shape[:2]
    cv2: Any = _opencv()
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    moved: NDArray[np.float32] = cv2.remap(
        values.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return moved


def _error(old: Pixels, new: Pixels, flow: Flow, seen: NDArray[np.bool_]) -> float:
    difference = (new - warped(old, flow))[seen] / 255
    return float((difference**2).mean(dtype=np.float64))


def _opencv() -> ModuleType:
    """Import OpenCV, which comes with face-alignment. Raises MissingError if it cannot be loaded."""
    try:
        import cv2
    except ImportError as error:
        raise MissingError(
            f"OpenCV cannot be loaded: {error}",
            "Install it with 'pip install opencv-python'; if libGL is missing, install the system package libgl1, or "
            "'pip install opencv-python-headless' in place of opencv-python.",
        ) from error
    module: ModuleType = cv2
    return module
