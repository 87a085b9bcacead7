"""Squares by landmarks: the published arithmetic, and the search of clips."""

import math
from pathlib import Path

import numpy as np
import pytest
from liveportrait_models import GOLDEN

from fommctl.api.protocols import Detection
from fommctl.detection.framing import ideal
from fommctl.detection.landmarks import FACE, LandmarkDetector, bounds, square_around
from fommctl.media.boxes import Box, TurnedSquare
from fommctl.presets.sections import SquareParams


def face(angle=0.0, center=(100.0, 80.0)):
    """Return 68 landmarks with the eyes 40 apart and the mouth 40 below them, rotated clockwise by an angle."""
    points = np.zeros((68, 2), np.float32)
    for corners, place in zip(FACE[68], ((-20, -20), (20, -20), (0, 20)), strict=True):
        points[list(corners)] = place
    points[0] = (-40, 0)
    points[1] = (40, 0)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return (points @ np.array([[cosine, sine], [-sine, cosine]]) + center).astype(np.float32)


@pytest.mark.parametrize("name", ["a106", "b203", "c203", "d68"])
def test_published_squares(name):
    if not GOLDEN.is_dir():
        pytest.skip("the published vectors are not there")
    golden = np.load(GOLDEN / "liveportrait" / "crop.npz")
    landmarks = golden[f"{name}/landmarks"]
    found = square_around(SquareParams(factor=2.3, offset=-0.125, turned=True), landmarks)
    assert found.center == pytest.approx(golden[f"{name}/rect_center"].tolist(), abs=2e-3)
    assert found.side == pytest.approx(golden[f"{name}/rect_size"][0], abs=2e-3)
    assert found.angle == pytest.approx(math.degrees(golden[f"{name}/rect_angle"]), abs=1e-3)
    upright = square_around(SquareParams(factor=2.2, offset=-0.1), landmarks)
    assert upright.center == pytest.approx(golden[f"{name}/driving_center"].tolist(), abs=2e-3)
    assert upright.side == pytest.approx(golden[f"{name}/driving_size"][0], abs=2e-3)


def test_a_recorded_square():
    with np.load(Path(__file__).parents[1] / "golden" / "liveportrait" / "transfer.npz") as golden:
        found = square_around(SquareParams(factor=2.3, offset=-0.125, turned=True), golden["landmarks_68"])
        assert found.center == pytest.approx(golden["d68/rect_center"].tolist(), abs=2e-3)
        assert found.side == pytest.approx(golden["d68/rect_size"][0], abs=2e-3)
        assert found.angle == pytest.approx(math.degrees(golden["d68/rect_angle"]), abs=1e-3)


def test_the_square_turns_with_the_face():
    square = SquareParams(factor=2.0, offset=0.25, turned=True)
    assert square_around(square, face()) == TurnedSquare((100.0, 120.0), 160.0, 0.0)
    found = square_around(square, face(90))
    assert found.center == pytest.approx((60.0, 80.0), abs=1e-3)
    assert (found.side, found.angle) == pytest.approx((160.0, 90.0), abs=1e-3)
    assert square_around(SquareParams(factor=2.0, offset=0.25), face(30)).angle == 0
    assert square_around(square, np.full((68, 2), np.nan, np.float32)) is None
    assert square_around(square, np.zeros((5, 2), np.float32)) is None
    assert bounds(TurnedSquare((10.0, 10.0), 10.0, 45.0)) == Box(2, 2, 18, 18)


def test_boxes_of_a_search_are_those_of_the_squares():
    class Finds:
        def detect(self, frames):
            return [[Detection(Box(0, 0, 1, 1), 1.0, face()), Detection(Box(0, 0, 1, 1), 0.5)]]

    seen, plain = LandmarkDetector(Finds(), SquareParams(factor=2.0, offset=0.25), 0.4, "face").detect([None])[0]
    square = ideal(seen.box, 0.4, "face")
    assert (*square.center, square.width) == pytest.approx((100.0, 120.0, 160.0))
    assert plain.box == Box(0, 0, 1, 1)
