"""Metrics of pixel differences, perceptual quality and flicker."""

from __future__ import annotations

from collections.abc import Iterator

from fommctl.api import MetricSpec, hookimpl
from fommctl_metrics.locations import ALEXNET_URL, INCEPTION_URL, missing_requirement


@hookimpl
def fommctl_metrics() -> Iterator[MetricSpec]:
    yield from _pixel_metrics()
    yield from _brightness_metrics()
    yield from _flicker_metrics()
    yield from _perceptual_metrics()


def _pixel_metrics() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="l1.paper",
        summary="Mean absolute difference before rounding to 8 bits, over all frames: FOMM's reconstruction loss",
        unit="of 1",
        lower_is_better=True,
        build="fommctl_metrics.pixels:l1_paper",
    )
    yield MetricSpec(
        name="l1.strict",
        summary="Mean absolute difference of the 8-bit frames, over each clip and then over clips",
        unit="of 1",
        lower_is_better=True,
        build="fommctl_metrics.pixels:l1_strict",
        weighting="clips",
    )
    yield MetricSpec(
        name="l1.relative",
        summary="Mean absolute difference relative to repeating the first true frame: 1 is no better than no motion",
        unit="times",
        lower_is_better=True,
        build="fommctl_metrics.pixels:RelativeL1",
        combine="fommctl_metrics.pixels:relative_l1",
    )
    yield MetricSpec(
        name="psnr",
        summary="Peak signal-to-noise ratio of red, green and blue; 100 for equal frames",
        unit="dB",
        lower_is_better=False,
        build="fommctl_metrics.pixels:psnr",
    )


def _brightness_metrics() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="psnr.luma",
        summary="Peak signal-to-noise ratio of brightness, by scikit-video; 100 for equal frames",
        unit="dB",
        lower_is_better=False,
        build="fommctl_metrics.luma:psnr",
    )
    yield MetricSpec(
        name="ssim",
        summary="Structural similarity of brightness, by scikit-video",
        unit="of 1",
        lower_is_better=False,
        build="fommctl_metrics.luma:ssim",
    )
    yield MetricSpec(
        name="ms-ssim",
        summary="Structural similarity of brightness at five scales, by scikit-video; frames of 176 pixels or more",
        unit="of 1",
        lower_is_better=False,
        build="fommctl_metrics.luma:ms_ssim",
    )
    yield MetricSpec(
        name="strred",
        summary="Entropic differences of brightness within and between frames, by scikit-video; frames of 64 pixels or "
        "more",
        unit="product of entropies",
        lower_is_better=True,
        build="fommctl_metrics.luma:StRred",
        weighting="clips",
    )
    yield MetricSpec(
        name="niqe",
        summary="Distance from the statistics of natural pictures, by scikit-video; needs no truth; frames of 194 "
        "pixels or more",
        unit="distance",
        lower_is_better=True,
        build="fommctl_metrics.luma:niqe",
        needs="nothing",
    )


def _flicker_metrics() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="warp-error",
        summary="Flicker: mean squared difference from the previous frame, warped by the true video's optical flow",
        unit="of 1, squared",
        lower_is_better=True,
        build="fommctl_metrics.warping:WarpError",
    )
    yield MetricSpec(
        name="warp-error.relative",
        summary="Flicker relative to the true video's: 1 is as steady as the truth, less is smoother",
        unit="times the truth's",
        lower_is_better=True,
        build="fommctl_metrics.warping:RelativeWarpError",
        weighting="clips",
    )


def _perceptual_metrics() -> Iterator[MetricSpec]:
    yield MetricSpec(
        name="lpips",
        summary="Learned perceptual distance on AlexNet, version 0.1; needs torchmetrics (extra eval) and a download "
        "of 244 MB",
        unit="distance",
        lower_is_better=True,
        build="fommctl_metrics.lpips:lpips",
        ready=lambda: missing_requirement(ALEXNET_URL),
    )
    yield MetricSpec(
        name="fid",
        summary="Fréchet Inception distance between all predicted and all true frames; biased upwards for few frames; "
        "needs torchmetrics (extra eval) and a download of 91 MB",
        unit="distance",
        lower_is_better=True,
        build="fommctl_metrics.frechet:FrechetDistance",
        ready=lambda: missing_requirement(INCEPTION_URL),
        combine="fommctl_metrics.frechet:combined",
    )
