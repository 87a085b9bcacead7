"""Metrics of keypoints and identity: AKD, MKR and AED in published and strict variants, keypoint jitter, how mouth and
eyelids follow the driving video, and the subject's sharpness.

The published variants follow the scripts in https://github.com/AliaksandrSiarohin/pose-evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

from fommctl.api import MetricSpec, hookimpl

OTHER_DETECTOR = "published figures: 256-pixel frames, keypoints by FAN (faces) or a COCO pose network (bodies)"
OTHER_EMBEDDER = "published figures: OpenFace (faces) or a re-identification network (bodies), on another scale"


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
        summary="Average keypoint distance, published: mean of |dx| and |dy| over keypoints found in both; frames with "
        f"none are left out; {OTHER_DETECTOR}",
        unit="px",
        lower_is_better=True,
        build="fommctl_keypoints.distance:PaperDistance",
        uses=("keypoints",),
    )
    yield MetricSpec(
        name="akd.strict",
        summary="Average keypoint distance: Euclidean; a keypoint missing in the prediction costs the frame's diagonal",
        unit="px",
        lower_is_better=True,
        build="fommctl_keypoints.distance:StrictDistance",
        uses=("keypoints",),
    )


def _missing_keypoints() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="mkr.paper",
        summary="Missing keypoint rate, published: share of the true keypoints that are not found, averaged over "
        f"frames; {OTHER_DETECTOR}",
        unit="",
        lower_is_better=True,
        build="fommctl_keypoints.missing:PaperMissing",
        needs="driving",
        uses=("keypoints",),
    )
    yield MetricSpec(
        name="mkr.strict",
        summary="Missing keypoint rate: share of all true keypoints that are not found, each with the same weight",
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
        summary="Average embedding distance, published: sum of squared differences; frames without an embedding are "
        f"left out; {OTHER_EMBEDDER}",
        unit="",
        lower_is_better=True,
        build="fommctl_keypoints.identity:PaperIdentity",
        needs="identity",
        uses=("embeddings",),
    )
    yield MetricSpec(
        name="aed.strict",
        summary="Average embedding distance: Euclidean; a subject missing in the prediction costs twice the length of "
        "the true embedding",
        unit="",
        lower_is_better=True,
        build="fommctl_keypoints.identity:StrictIdentity",
        needs="identity",
        uses=("embeddings",),
    )
    yield MetricSpec(
        name="aed.plain",
        summary="Average embedding distance: Euclidean; frames without an embedding are left out (mkr counts those)",
        unit="",
        lower_is_better=True,
        build="fommctl_keypoints.identity:PlainIdentity",
        needs="identity",
        uses=("embeddings",),
    )
    yield MetricSpec(
        name="aed.p95",
        summary="95th percentile of the embedding distances of aed.plain",
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
        summary="Mean length of the second difference in time of the keypoints' error: shaking that differs from the "
        "truth's",
        unit="px/frame²",
        lower_is_better=True,
        build="fommctl_keypoints.jitter:JitterAgainstTruth",
        uses=("keypoints",),
    )
    yield MetricSpec(
        name="keypoint-jitter.plain",
        summary="Mean length of the second difference in time of the keypoints; compares models on the same clips; 0 "
        "for a still",
        unit="px/frame²",
        lower_is_better=True,
        build="fommctl_keypoints.jitter:PlainJitter",
        needs="nothing",
        uses=("keypoints",),
    )
    yield MetricSpec(
        name="keypoint-jitter.relative",
        summary="keypoint-jitter.plain over that of the driving video, each relative to the size of its subject: 1 "
        "shakes as much, motion included",
        unit="times",
        lower_is_better=True,
        build="fommctl_keypoints.jitter:RelativeJitter",
        needs="driving",
        uses=("keypoints",),
        weighting="clips",
    )
    yield MetricSpec(
        name="sharpness",
        summary="Variance of the Laplacian within the keypoints' box, relative to the truth's or, without a truth, the "
        "source picture's; twice as much counts as half",
        unit="of 1",
        lower_is_better=False,
        build="fommctl_keypoints.sharpness:Sharpness",
        needs="identity",
        uses=("keypoints",),
        weighting="clips",
    )


def _openings() -> Iterator[MetricSpec]:
    still = "clips whose driving video does not move it are left out; 68 or 478 landmarks"
    for name, what, feature in (("mouth", "mouth's", "MOUTH"), ("eyelids", "eyelids'", "EYELIDS")):
        yield MetricSpec(
            name=f"{name}.correlation",
            summary=f"Correlation of the {what} opening with the driving video's over the frames of a clip; {still}",
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
