"""Metrics of keypoints and identity: AKD, MKR, AED and keypoint jitter, in published and strict variants, how mouths
and eyelids follow the driving video, and how sharp the subject is.

The published scripts are those of https://github.com/AliaksandrSiarohin/pose-evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

from fommctl.api import MetricSpec, hookimpl

OTHER_DETECTOR = "published figures: 256-pixel frames, keypoints by FAN (faces) or a COCO pose network (bodies)"
OTHER_EMBEDDER = "published figures: OpenFace (faces) or a re-identification network (bodies), of another scale"


@hookimpl
def fommctl_metrics() -> Iterator[MetricSpec]:
    yield from _keypoint_distances()
    yield from _missing_keypoints()
    yield from _identity_distances()
    yield from _jitters_and_sharpness()
    yield from _openings()


def _keypoint_distances() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="akd.paper",
        summary="Average keypoint distance, published: mean of |dx| and |dy| of keypoints found in both, frames "
        f"without left out; {OTHER_DETECTOR}",
        unit="px",
        lower_is_better=True,
        build="fommctl_keypoints.distance:PaperDistance",
        uses=("keypoints",),
    )
    yield MetricSpec(
        name="akd.strict",
        summary="Average keypoint distance: Euclidean; a keypoint that the prediction lacks costs the frame's diagonal",
        unit="px",
        lower_is_better=True,
        build="fommctl_keypoints.distance:StrictDistance",
        uses=("keypoints",),
    )


def _missing_keypoints() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="mkr.paper",
        summary="Missing keypoint rate, published: mean over frames of the part of the true keypoints that is not "
        f"found; {OTHER_DETECTOR}",
        unit="",
        lower_is_better=True,
        build="fommctl_keypoints.missing:PaperMissing",
        needs="driving",
        uses=("keypoints",),
    )
    yield MetricSpec(
        name="mkr.strict",
        summary="Missing keypoint rate: keypoints not found over all keypoints of the truth, each counting alike",
        unit="",
        lower_is_better=True,
        build="fommctl_keypoints.missing:StrictMissing",
        needs="driving",
        uses=("keypoints",),
        combine="fommctl_keypoints.missing:pooled",
    )


def _identity_distances() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="aed.paper",
        summary="Average embedding distance, published: sum of squared differences, frames without an embedding left "
        f"out; {OTHER_EMBEDDER}",
        unit="",
        lower_is_better=True,
        build="fommctl_keypoints.identity:PaperIdentity",
        needs="identity",
        uses=("embeddings",),
    )
    yield MetricSpec(
        name="aed.strict",
        summary="Average embedding distance: Euclidean; a subject that the prediction lacks costs twice the length of "
        "the true embedding",
        unit="",
        lower_is_better=True,
        build="fommctl_keypoints.identity:StrictIdentity",
        needs="identity",
        uses=("embeddings",),
    )
    yield MetricSpec(
        name="aed.plain",
        summary="Average embedding distance: Euclidean, frames without an embedding left out; mkr counts lost faces",
        unit="",
        lower_is_better=True,
        build="fommctl_keypoints.identity:PlainIdentity",
        needs="identity",
        uses=("embeddings",),
    )
    yield MetricSpec(
        name="aed.p95",
        summary="Embedding distance that 95 % of the frames of aed.plain stay under",
        unit="",
        lower_is_better=True,
        build="fommctl_keypoints.identity:FarIdentity",
        needs="identity",
        uses=("embeddings",),
        combine="fommctl_keypoints.identity:together",
    )


def _jitters_and_sharpness() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="keypoint-jitter",
        summary="Mean length of the second difference in time of the keypoints' error: what shakes more, or less, than "
        "the truth",
        unit="px/frame²",
        lower_is_better=True,
        build="fommctl_keypoints.jitter:JitterAgainstTruth",
        uses=("keypoints",),
    )
    yield MetricSpec(
        name="keypoint-jitter.plain",
        summary="Mean length of the second difference in time of the keypoints: to hold models against each other on "
        "the same clips; a still has none",
        unit="px/frame²",
        lower_is_better=True,
        build="fommctl_keypoints.jitter:PlainJitter",
        needs="nothing",
        uses=("keypoints",),
    )
    yield MetricSpec(
        name="keypoint-jitter.relative",
        summary="Mean length of the second difference in time of the keypoints over that of the driving video's, each "
        "over the size of its subject: 1 shakes as much, motion included",
        unit="times",
        lower_is_better=True,
        build="fommctl_keypoints.jitter:RelativeJitter",
        needs="driving",
        uses=("keypoints",),
        weighting="clips",
    )
    yield MetricSpec(
        name="sharpness",
        summary="Variance of the Laplacian in the box of the keypoints, over that of the truth, or of the source "
        "picture where there is no truth; twice as much counts as half",
        unit="of 1",
        lower_is_better=False,
        build="fommctl_keypoints.sharpness:Sharpness",
        needs="identity",
        uses=("keypoints",),
        weighting="clips",
    )


def _openings() -> Iterator[MetricSpec]:
    still = "clips in which the driving one keeps still are left out; 68 or 478 landmarks"
    for name, what, feature in (("mouth", "mouth's", "MOUTH"), ("eyelids", "eyelids'", "EYELIDS")):
        yield MetricSpec(
            name=f"{name}.correlation",
            summary=f"Correlation of the {what} opening with the driving video's, over the frames of a clip; {still}",
            unit="",
            lower_is_better=False,
            build=partial(_opening, "OpeningCorrelation", feature),
            needs="driving",
            uses=("keypoints",),
            weighting="clips",
        )
        yield MetricSpec(
            name=f"{name}.gain",
            summary=f"Slope of the {what} opening over the driving video's: 1 opens as far, 0 not at all; {still}",
            unit="times",
            lower_is_better=False,
            build=partial(_opening, "OpeningGain", feature),
            needs="driving",
            uses=("keypoints",),
            weighting="clips",
        )


def _opening(name: str, feature: str) -> Any:
    opening = import_module("fommctl_keypoints.opening")
    return getattr(opening, name)(getattr(opening, feature))
