"""Transfer of driving motion to a source: regions of the face, stitching, and retargeting of eyes and lips.

This follows the published loop, except that retargeting of eyes and lips is added to the driving motion, which the
published code discards in that case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from fommctl_liveportrait.motion import FaceMotion, part_of, turned_towards
from fommctl_liveportrait.options import FaceOptions
from fommctl_liveportrait.retargeting import Corrector, stitched

LIPS, EYES = (6, 12, 14, 17, 19, 20), (11, 13, 15, 16, 18)
"""Indices of the keypoints of lips and eyes."""
WHOLE = (1, 2, 6, *range(11, 21))
"""Keypoints whose absolute expression is transferred in all coordinates."""
SINGLE = ((3, 1), (4, 1), (5, 2), (8, 2), (9, 1), (9, 2))
"""(keypoint, coordinate) pairs that are transferred of the other keypoints."""
CLOSED_LIPS = 0.03
"""Least opening of a source's lips that `close_lips` closes, height over width."""
# The published mean expression of a face with closed lips, the neutral expression for a single driving picture.
NEUTRAL = torch.tensor([
    -9.4524e-05, 2.4222e-04, -4.00974e-05,
    2.08596e-04, 4.68054e-04, 1.27464e-05,
    -1.24602e-04, 3.24972e-04, 4.425e-06,
    1.19652e-04, -4.56624e-04, 5.40852e-05,
    -2.65254e-04, -7.4598e-05, -1.5528e-05,
    -3.34884e-05, -1.83036e-04, -3.49404e-06,
    -4.75428e-07, -4.52466e-07, 1.59498e-06,
    -5.41296e-04, 2.6328e-03, 7.2486e-06,
    -1.1694e-05, 5.00502e-06, 9.9888e-06,
    8.0286e-07, 5.19132e-06, -4.09344e-04,
    1.66878e-04, -1.9815e-05, -8.8548e-05,
    -1.51536e-05, 8.2506e-05, 5.94012e-06,
    -2.61054e-07, 2.7591e-06, 2.21028e-06,
    -6.6282e-05, -6.8286e-05, -3.45318e-06,
    -8.3262e-04, -1.79592e-03, -2.59176e-06,
    6.9714e-06, 3.65514e-05, -1.8978e-06,
    -4.80876e-06, 7.1148e-06, -1.03236e-05,
    -6.3684e-04, -1.1661e-03, 5.62314e-05,
    2.8329e-04, -1.45656e-05, 1.09746e-05,
    -4.16022e-06, -1.50906e-02, -2.5494e-03,
    2.22474e-04, 5.62788e-03, 2.72646e-03,
]).view(1, 21, 3)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Correctors:
    """The networks of a model that correct keypoints; None for those that it does not have."""

    stitching: Corrector | None = None
    eyes: Corrector | None = None
    lips: Corrector | None = None


@dataclass(frozen=True, slots=True)
class Gains:
    """The share of the driving motion that is transferred, by parameter."""

    pose: float
    scale: float
    expression: Tensor
    """(K, 1): gain of each keypoint's expression."""


def gains_of(regions: Mapping[str, float], points: int, like: Tensor) -> Gains:
    """Return the gains given by regions (see `FaceOptions.region`); lips and eyes take precedence over exp and all.

    points: number of keypoints.  like: a tensor with the type and device of the result.
    """
    everything = regions.get("all", 0.0)
    expression = like.new_full((points, 1), regions.get("exp", everything))
    for name, numbers in (("lips", LIPS), ("eyes", EYES)):
        if name in regions:
            expression[list(numbers)] = regions[name]
    return Gains(regions.get("pose", everything), everything, expression)


def transfer(
    driving: FaceMotion,
    reference: FaceMotion,
    source: FaceMotion,
    correctors: Correctors,
    *,
    mode: str,
    options: FaceOptions,
    clip: bool = False,
) -> FaceMotion:
    """Transfer the motion of B driving frames to a source (see `fommctl.api.TransferRenderer`).

    source: one frame, or with `clip` B frames of a video.  mode: `relative`, `absolute`, or `animal`, the published
    loop for animals.
    """
    still = source.keypoints()
    if mode == "animal":
        points = _following(driving, reference, source, still)
    elif mode == "absolute":
        points = _absolute(driving, source, options)
    elif clip:
        points = _relative_of_clip(driving, reference, source, options)
    else:
        points = _relative(driving, reference, source, options)
        if options.friendly == "expression" and not options.neutral:
            first = _relative(reference, reference, source, options)
            points = (points - first) * size_ratio(still, first) + still
    points = points + _retargeted(driving, source, still, correctors, options)
    if options.stitching and correctors.stitching is not None:
        points = stitched(correctors.stitching, still, points)
    lips = correctors.lips
    if options.close_lips and lips is not None and source.openings is not None:
        opening = source.openings[:, 2:]
        closed = lips(still, opening, torch.zeros_like(opening)).view_as(still)
        points = points + torch.where(opening[..., None] >= CLOSED_LIPS, closed, 0)
    return replace(driving, placed=still + (points - still) * options.multiplier)


class FaceTransfer:
    """Base of both renderers: the transfer (see `fommctl.api.TransferRenderer`)."""

    _correctors: Correctors

    @torch.inference_mode()
    def transfer(
        self, driving: FaceMotion, reference: FaceMotion, source: FaceMotion, *, mode: str, options: FaceOptions | None
    ) -> FaceMotion:
        """See `fommctl.api.TransferRenderer`."""
        return transfer(driving, reference, source, self._correctors, mode=mode, options=options or FaceOptions())

    @torch.inference_mode()
    def transfer_clip(
        self, driving: FaceMotion, reference: FaceMotion, source: FaceMotion, *, mode: str, options: FaceOptions | None
    ) -> FaceMotion:
        """See `fommctl.api.ClipTransferRenderer`."""
        options = options or FaceOptions()
        return transfer(driving, reference, source, self._correctors, mode=mode, options=options, clip=True)


def _relative(driving: FaceMotion, reference: FaceMotion, source: FaceMotion, options: FaceOptions) -> Tensor:
    """Move the source as the driving face has moved since the reference: keypoints (B, K, 3)."""
    gains = gains_of(options.regions, source.expression.shape[1], source.expression)
    turn = part_of(driving.rotation @ reference.rotation.mT, gains.pose) if gains.pose else None
    rotation = source.rotation if turn is None else turn @ source.rotation
    expression = source.expression + gains.expression * (driving.expression - _rest(reference, options))
    scale = source.scale
    if options.scale == "driving":
        scale = scale * (driving.scale / reference.scale) ** gains.scale
    translation = source.translation + gains.pose * (driving.translation - reference.translation)
    return _placed(source.canonical, rotation, expression, scale, translation)


def _relative_of_clip(driving: FaceMotion, reference: FaceMotion, source: FaceMotion, options: FaceOptions) -> Tensor:
    """Rotate each frame of a source video and change its expression as the driving face has since the reference, with
    the video's own position and scale: keypoints (B, K, 3)."""
    gains = gains_of(options.regions, source.expression.shape[1], source.expression)
    rotation = source.rotation
    if gains.pose:
        rotation = part_of(driving.rotation @ reference.rotation.mT, gains.pose) @ rotation
    change = gains.expression * _taken(source) * (driving.expression - _rest(reference, options))
    return _placed(source.canonical, rotation, source.expression + change, source.scale, source.translation)


def _rest(reference: FaceMotion, options: FaceOptions) -> Tensor:
    """Return the expression of the driving face that is taken as neutral."""
    if not options.neutral:
        return reference.expression
    rest = NEUTRAL.to(reference.expression)
    return torch.zeros_like(rest) if set(options.regions) == {"eyes"} else rest


def _taken(source: FaceMotion) -> Tensor:
    """Return which coordinates of an expression do not describe the shape of the face: (K, 3), 1 or 0."""
    taken = torch.zeros_like(source.expression[0])
    taken[list(WHOLE)] = 1
    for point, coordinate in SINGLE:
        taken[point, coordinate] = 1
    return taken


def _absolute(driving: FaceMotion, source: FaceMotion, options: FaceOptions) -> Tensor:
    """Give the source the driving pose and expression, except the part of the expression that describes the shape of
    the face: keypoints (B, K, 3)."""
    regions = options.regions
    gains = gains_of(regions, source.expression.shape[1], source.expression)
    expression = torch.lerp(source.expression, driving.expression, gains.expression * _taken(source))
    rotation = turned_towards(source.rotation, driving.rotation, gains.pose) if gains.pose else source.rotation
    translation = torch.lerp(source.translation, driving.translation, gains.pose)
    return _placed(source.canonical, rotation, expression, source.scale, translation)


def _following(driving: FaceMotion, reference: FaceMotion, source: FaceMotion, still: Tensor) -> Tensor:
    """Move the source by the difference between the poses of driving face and reference, scaled to the source's size:
    keypoints (B, K, 3)."""

    def posed(motion: FaceMotion) -> Tensor:
        return _placed(source.canonical, motion.rotation, motion.expression, source.scale, motion.translation)

    first = posed(reference)
    return still + (posed(driving) - first) * size_ratio(still, first)


def _placed(canonical: Tensor, rotation: Tensor, expression: Tensor, scale: Tensor, translation: Tensor) -> Tensor:
    return scale[:, None] * (canonical @ rotation + expression) + F.pad(translation[:, None, :2], (0, 1))


def _retargeted(
    driving: FaceMotion, source: FaceMotion, still: Tensor, correctors: Correctors, options: FaceOptions
) -> Tensor:
    """Return the offsets (B, K, 3) that open or close eyes and lips like the driving face's, or to fixed openings."""
    change = torch.zeros_like(still)
    own, theirs = source.openings, driving.openings
    if own is None:
        return change
    eyes = lips = None
    if options.eyes_open is not None:
        eyes = own.new_full((1, 1), options.eyes_open)
    elif options.retarget_eyes and theirs is not None:
        eyes = theirs[:, :1]
    if options.lips_open is not None:
        lips = own.new_full((1, 1), options.lips_open)
    elif options.retarget_lips and theirs is not None:
        lips = theirs[:, 2:]
    for corrector, start, wanted in ((correctors.eyes, own[:, :2], eyes), (correctors.lips, own[:, 2:], lips)):
        if corrector is not None and wanted is not None and bool((start >= 0).all()):
            moved = corrector(still, start, wanted).view(-1, *still.shape[1:])
            change = change + torch.where(wanted[..., None] >= 0, moved, 0)
    return change


def size_ratio(one: Tensor, other: Tensor) -> float:
    """Return the square root of the ratio of the volumes of two convex hulls of keypoints (1, K, 3); 1 if either is
    flat."""
    volumes = [_volume(points) for points in (one, other)]
    return float(np.sqrt(volumes[0]) / np.sqrt(volumes[1])) if min(volumes) > 0 else 1.0


def _volume(points: Tensor) -> float:
    try:
        return float(ConvexHull(points[0].detach().double().cpu().numpy()).volume)
    except QhullError:
        return 0.0
