"""Transferring driving motion to a source: parts of the face, stitching, eyes and lips.

The published loop takes all of these; but where it drops the driving motion for eyes and lips that are retargeted,
here they are added to it.
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
"""Numbers of the keypoints."""
WHOLE = (1, 2, 6, *range(11, 21))
"""Keypoints whose expression is taken over where it is absolute; of others, single coordinates."""
SINGLE = ((3, 1), (4, 1), (5, 2), (8, 2), (9, 1), (9, 2))
"""(keypoint, coordinate)."""
CLOSED_LIPS = 0.03
"""Opening of a source's lips from which on they are first closed, with the option for it."""
# The mean expression of a face with lips at rest, as published: what counts as no expression of one driving picture.
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
    """The small networks of a model, as far as it has them."""

    stitching: Corrector | None = None
    eyes: Corrector | None = None
    lips: Corrector | None = None


@dataclass(frozen=True, slots=True)
class Gains:
    """How much of the driving motion each part of the face takes over."""

    pose: float
    scale: float
    expression: Tensor
    """(K, 1)"""


def gains_of(regions: Mapping[str, float], points: int, like: Tensor) -> Gains:
    """Return the gains of named regions; lips and eyes take precedence over the whole expression."""
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
    """See `fommctl.api.TransferRenderer`. mode: `relative`, `absolute`, or `animal`, the published loop for animals.

    clip: `source` holds the frames of a video, one for each driving frame.
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
    """What all renderers do with the small networks: see `fommctl.api.TransferRenderer`."""

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
    """Return the source moves as the driving face has since the reference."""
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
    """Return each face of a video turned and changed as the driving face has since the reference, where the video has
    it and as large as it is there."""
    gains = gains_of(options.regions, source.expression.shape[1], source.expression)
    rotation = source.rotation
    if gains.pose:
        rotation = part_of(driving.rotation @ reference.rotation.mT, gains.pose) @ rotation
    change = gains.expression * _taken(source) * (driving.expression - _rest(reference, options))
    return _placed(source.canonical, rotation, source.expression + change, source.scale, source.translation)


def _rest(reference: FaceMotion, options: FaceOptions) -> Tensor:
    """Return the expression that counts as none of the driving face."""
    if not options.neutral:
        return reference.expression
    rest = NEUTRAL.to(reference.expression)
    return torch.zeros_like(rest) if set(options.regions) == {"eyes"} else rest


def _taken(source: FaceMotion) -> Tensor:
    """Return what of an expression does not belong to the shape of the face: (K, 3), 1 or 0."""
    taken = torch.zeros_like(source.expression[0])
    taken[list(WHOLE)] = 1
    for point, coordinate in SINGLE:
        taken[point, coordinate] = 1
    return taken


def _absolute(driving: FaceMotion, source: FaceMotion, options: FaceOptions) -> Tensor:
    """Return the source takes the driving pose, and of its expression what does not belong to the shape of the face."""
    regions = options.regions
    gains = gains_of(regions, source.expression.shape[1], source.expression)
    expression = torch.lerp(source.expression, driving.expression, gains.expression * _taken(source))
    rotation = turned_towards(source.rotation, driving.rotation, gains.pose) if gains.pose else source.rotation
    translation = torch.lerp(source.translation, driving.translation, gains.pose)
    return _placed(source.canonical, rotation, expression, source.scale, translation)


def _following(driving: FaceMotion, reference: FaceMotion, source: FaceMotion, still: Tensor) -> Tensor:
    """Return the source moved by the difference between the poses of driving face and reference, in its own size."""

    def posed(motion: FaceMotion) -> Tensor:
        return _placed(source.canonical, motion.rotation, motion.expression, source.scale, motion.translation)

    first = posed(reference)
    return still + (posed(driving) - first) * size_ratio(still, first)


def _placed(canonical: Tensor, rotation: Tensor, expression: Tensor, scale: Tensor, translation: Tensor) -> Tensor:
    return scale[:, None] * (canonical @ rotation + expression) + F.pad(translation[:, None, :2], (0, 1))


def _retargeted(
    driving: FaceMotion, source: FaceMotion, still: Tensor, correctors: Correctors, options: FaceOptions
) -> Tensor:
    """Return the offset that opens or closes eyes and lips like the driving face's, or by the given amounts."""
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
    """Return the square root of the ratio of the volumes of two hulls of keypoints (1, K, 3); 1 where either is
    flat."""
    volumes = [_volume(points) for points in (one, other)]
    return float(np.sqrt(volumes[0]) / np.sqrt(volumes[1])) if min(volumes) > 0 else 1.0


def _volume(points: Tensor) -> float:
    try:
        return float(ConvexHull(points[0].detach().double().cpu().numpy()).volume)
    except QhullError:
        return 0.0
