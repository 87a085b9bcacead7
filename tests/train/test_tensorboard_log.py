"""TensorBoard: the values that its own reader finds in the files."""

import io
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_disk import files_up_to
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fommctl.errors import OutputError
from fommctl.train.logs import TensorBoardLog


def read(run: Path) -> EventAccumulator:
    """Return the values of a run as TensorBoard reads them."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(run).Scalars(name)]


def test_curves_and_pictures(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    with TensorBoardLog(tmp_path, from_step=0) as board:
        board.scalars(0, {"perceptual": 81.5, "generator_gan": 0.25}, samples_per_s=12.0)
        board.scalars(1, {"perceptual": 80.5, "generator_gan": math.nan}, samples_per_s=13.0, waiting=0.125)
        board.picture(1, "training", pixels)
    assert sorted(read(tmp_path).Tags()["scalars"]) == [
        "losses/generator_gan",
        "losses/perceptual",
        "training/samples_per_s",
        "training/waiting",
    ]
    assert curve(tmp_path, "losses/perceptual") == [(0, 81.5), (1, 80.5)]
    assert curve(tmp_path, "training/waiting") == [(1, 0.125)]
    assert math.isnan(curve(tmp_path, "losses/generator_gan")[1][1])
    (picture,) = read(tmp_path).Images("pictures/training")
    assert picture.step == 1
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture.encoded_image_string))), pixels)


def write(run: Path, steps: int) -> None:
    with TensorBoardLog(run, from_step=0) as board:
        for step in range(steps):
            board.scalars(step, {"perceptual": 1.0})


@pytest.mark.parametrize(("from_step", "left"), [(3, [0, 1, 2]), (0, [])])
def test_a_resumed_run_replaces_what_came_after_its_step(tmp_path: Path, from_step: int, left: list[int]) -> None:
    killed = TensorBoardLog(tmp_path, from_step=0)
    for step in range(6):
        killed.scalars(step, {"perceptual": float(step)})
    (file,) = (tmp_path / "tensorboard").iterdir()
    with file.open("ab") as torn:
        torn.write(b"half an event")
    with TensorBoardLog(tmp_path, from_step=from_step) as resumed:
        resumed.scalars(from_step, {"perceptual": 100.0})
    assert curve(tmp_path, "losses/perceptual") == [*((step, float(step)) for step in left), (from_step, 100.0)]


def test_without_the_package_it_says_once_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "tensorboard")
    with TensorBoardLog(tmp_path, from_step=0) as board:
        board.scalars(0, {"perceptual": 1.0})
        board.picture(0, "training", np.zeros((4, 4, 3), np.uint8))
    (record,) = caplog.records
    assert "pip install 'fommctl[train]'" in record.message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").touch()
    with pytest.raises(OutputError, match="cannot write"):
        TensorBoardLog(tmp_path, from_step=0)


def test_a_full_disk_is_one_error_and_leaves_curves_that_can_be_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with files_up_to(2000), pytest.raises(OutputError, match="the disk is full"):
        write(tmp_path, 100)
    assert capfd.readouterr().err == ""
    seen = curve(tmp_path, "losses/perceptual")
    assert seen == [(step, 1.0) for step in range(len(seen))]
    assert len(seen) > 10
