"""The scripts of docs/model: the table of two models, and the moments in the contact sheets."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from media_factory import write_frames

import fommctl
from fommctl.host import load_host
from fommctl.models.loading import load_model
from fommctl.presets.preset import load_preset

DOCS = Path(__file__).parents[2] / "docs/model"
BUILTIN = Path(fommctl.__file__).parent / "models/builtin/faces-mini.safetensors"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_model_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look up their own module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def summary(mean: float | None, interval: list[float] | None = None) -> dict[str, object]:
    return {"mean": mean, "ci95": interval, "frames": 48, "coverage": 1.0, "clips": 2}


def test_both_models_with_their_difference_and_the_aims_that_are_reached(tmp_path: Path) -> None:
    measure = script("measure")
    metrics = ("aed.plain", "mouth.gain", "mkr.strict", "eyelids.gain")
    old = (summary(0.31, [0.2, 0.4]), summary(0.3, [0.1, 0.4]), summary(0.0, [0.0, 0.0]), summary(None))
    new = (summary(0.29, [0.2, 0.35]), summary(0.71, [0.6, 0.8]), summary(0.0, [0.0, 0.0]), summary(0.4))
    less = (summary(0.02, [-0.01, 0.05]), summary(-0.41, [-0.5, -0.3]), summary(0.0, [0.0, 0.0]), summary(None))
    found = {
        "clips": 2,
        "frames": 48,
        "models": {
            "old": {"metrics": dict(zip(metrics, old, strict=True))},
            "new": {"metrics": dict(zip(metrics, new, strict=True))},
        },
        "differences": [
            {"metric": name, "model": "old", "minus": "new", **each} for name, each in zip(metrics, less, strict=True)
        ],
    }
    (tmp_path / "summary.json").write_text(json.dumps(found))
    assert list(measure._table("Across", tmp_path, measure.ACROSS)) == [
        "**Across**: 2 clips, 48 frames",
        "",
        "| | aim | old | new | new minus old | clips |",
        "|---|---|---|---|---|---|",
        "| mouth, gain | ≥ 0.7 | 0.30 [0.10, 0.40] | **0.71** [0.60, 0.80] | +0.41 [+0.30, +0.50] | 2 |",
        "| eyelids, gain | ≥ 0.6 | – | 0.40 | – | 2 |",
        "| dlib distance from the source, mean | ≤ 0.3 | 0.31 [0.20, 0.40] | **0.29** [0.20, 0.35] "
        "| -0.02 [-0.05, +0.01] | 2 |",
        "| faces lost |  | 0.000 [0.000, 0.000] | 0.000 [0.000, 0.000] | +0.000 [+0.000, +0.000] | 2 |",
    ]


def test_all_that_is_measured_is_offered() -> None:
    measure = script("measure")
    offered = load_host().metrics
    assert {row.metric for row in (*measure.RECONSTRUCTION, *measure.ACROSS)} <= set(offered)
    for row in (*measure.RECONSTRUCTION, *measure.ACROSS):
        assert row.aim is None or row.least != offered[row.metric].lower_is_better


@pytest.mark.filterwarnings("error")
def test_moments_are_the_frames_at_which_most_can_go_wrong() -> None:
    moments = script("pictures").moments
    points = np.random.default_rng(0).uniform(0, 100, (1, 68, 2)).repeat(9, 0)
    points[:, [36, 45]] = (10, 50), (90, 50)
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        points[:, lower] = points[:, upper] + (0, 8)
    points[:, 66] = points[:, 62]
    points[3, 66, 1] += 20
    points[6, [41, 40, 47, 46], 1] -= 8
    points[7] += 30
    points[8] = np.nan
    assert moments(points) == [(3, "mouth open"), (6, "eyes closed"), (7, "head away")]
    # Without a difference, in the order of the frames.
    assert moments(np.full((4, 68, 2), np.nan)) == [(0, "mouth open"), (1, "eyes closed"), (2, "head away")]


def test_new_keypoints_begin_around_the_face() -> None:
    marks = np.zeros((2, 478, 2), np.float32)
    marks[0, 234], marks[0, 454] = (-0.3, 0.1), (0.1, 0.1)  # its middle at (-0.1, 0.1), half a face 0.2 wide
    marks[1] = np.nan
    places = script("parts").begin_at(marks)
    assert places.shape == (2, 10, 2)
    assert places[0, [0, 5, 7]] == pytest.approx(np.array([(-0.1, -0.26), (-0.1, 0.52), (0.3, 0.54)]), abs=1e-6)
    assert places[0, 8:] == pytest.approx(np.array([(-0.8, -0.75), (0.8, -0.75)]))
    assert np.isnan(places[1]).all()


def test_a_part_without_weight_is_woken(tmp_path: Path) -> None:
    write_frames(tmp_path / "train/one", np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8))
    backend = load_model("faces-mini", load_host()).backend
    mask = backend.generator.dense_motion_network.mask
    with torch.no_grad():
        mask.bias[3] = -1000.0
    weights = {"generator": {name: values.clone() for name, values in backend.generator.state_dict().items()}}
    parts = script("parts")
    parts.wake(backend, [weights], tmp_path, 256, 1e-9)
    weight, bias = (weights["generator"][f"dense_motion_network.mask.{name}"] for name in ("weight", "bias"))
    changed = (weight != mask.weight).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [3]
    like = next(part for part in range(len(bias)) if bias[3] == bias[part] - 1)
    woken = weight[3] - weight[like]
    features = mask.in_channels - 4 * mask.out_channels
    assert woken[features + 12, 3, 3] == pytest.approx(6, abs=1e-5)
    assert (woken.abs() > 1e-5).sum() == 1


def test_embedded_keypoints_change_no_picture_before_they_are_trained() -> None:
    # From a model without an embedding to one with it.
    params = load_preset("faces-mini", host := load_host()).model_params
    without = params.model_copy(
        update={"generator_params": params.generator_params.model_copy(update={"embed_keypoints": None})}
    )
    torch.manual_seed(0)
    before, after = (host.find("backend", "fomm").build(each) for each in (without, params))
    weights = {name: dict(module.state_dict()) for name, module in before.modules().items()}
    script("parts").embed([weights])
    for name, module in after.modules().items():
        module.load_state_dict(weights[name])
    source, driving = torch.rand(2, 1, 3, 256, 256)
    with torch.inference_mode():
        frames = [
            each.generator(source, each.keypoint_detector(source), each.keypoint_detector(driving)).prediction
            for each in (before, after)
        ]
    assert torch.equal(*frames)


def test_the_dense_motion_of_another_model_takes_the_place() -> None:
    backend = load_model("faces-mini", load_host()).backend
    weights = {"generator": {name: values + 1 for name, values in backend.generator.state_dict().items()}}
    script("parts").take_motion(backend, [weights])
    same = {name for name, values in backend.generator.state_dict().items() if values.equal(weights["generator"][name])}
    assert same == {name for name in weights["generator"] if name.startswith("dense_motion_network.")}


def test_regions_of_a_frame_share_no_pixel() -> None:
    face = np.zeros((256, 256), np.uint8)
    face[100:150, 110:150] = 1
    inside, around, below, beside = script("regions").regions(face)
    assert (inside.sum(), around.sum()) == (50 * 40, 110 * 100 - 50 * 40)
    assert (inside.astype(int) + around + below + beside == 1).all()
    assert np.nonzero(below.any(1))[0].min() == 149  # from the chin downwards
    assert not below[149:180, 80:180].any()


def test_a_warp_along_the_flow_finds_a_picture_that_was_shifted() -> None:
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8), (0, 0), 4)
    shifted = np.roll(picture, (2, 3), (0, 1))
    found = script("regions").along_flow(picture, shifted)
    before, after = (np.abs(each.astype(int) - shifted)[16:-16, 16:-16].mean() for each in (picture, found))
    assert after < 0.2 * before


def test_windows_lie_around_mouths_and_eyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    closeups = script("closeups")
    points = torch.zeros(200, 15, 2)
    points[:, :4, 1] = 0.4  # the mouth
    points[:, 5:7, 0], points[:, 7:9, 0] = -0.3, 0.3  # the eyes
    points[199] = torch.nan
    found = closeups.centres(points, np.random.default_rng(0))
    mouths, others = found.split(200)
    assert (mouths[:199] - torch.tensor([0, 0.4])).abs().max() < 0.15
    near = [(others - torch.tensor([x, 0])).abs().amax(1) < 0.12 for x in (-0.3, 0.3)]
    assert all(30 < count.sum() < 80 for count in near)
    assert found.isfinite().all()
    maps = torch.arange(2.0 * 64 * 64).view(2, 1, 64, 64)
    squares = closeups.cut(maps, torch.tensor([[0, 8], [10, 2]]), 16, 2)
    assert squares.shape == (2, 1, 32, 32)
    assert torch.equal(squares[0], maps[0, :, 16:48, 0:32])


def test_windows_at_the_border_are_compared_up_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    closeups = script("closeups")
    steps = torch.linspace(-1, 1, 65)
    windows, middles = closeups.corners(torch.stack((steps, -steps), 1), 64)
    assert windows.min() == 0
    assert windows.max() == 32
    assert torch.equal(windows[:, 0], windows[:, 1].flip(0))
    # What is compared lies about the centre, in the frame, and never near a border of the window that is none of it.
    assert (windows + middles)[:, 0].tolist() == [min(max(cell - 8, 0), 48) for cell in range(65)]
    for window, middle in zip(windows[:, 0].tolist(), middles[:, 0].tolist(), strict=True):
        assert middle >= 8 or window == 0
        assert middle <= 8 or window == 32


@torch.inference_mode()
def test_the_middle_of_a_window_is_decoded_as_in_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for its outermost cells, which the window's border reaches a little."""
    monkeypatch.syspath_prepend(str(DOCS))
    closeups = script("closeups")
    model = load_model("faces-mini", load_host()).backend
    generator, corner = model.generator, torch.tensor([[10, 20]])
    torch.manual_seed(0)
    source, driving = torch.nn.functional.interpolate(torch.rand(2, 3, 16, 16), (256, 256)).split(1)
    moved, wanted = model.keypoint_detector(source), model.keypoint_detector(driving)
    motion = generator.dense_motion_network(source, moved, wanted)
    kept = generator.warp(source, closeups.inside(motion.deformation))
    frame = generator.decode(generator.encode(source), motion, wanted, kept)
    features = generator.warp(generator.encode(source), motion.deformation) * motion.occlusion
    heatmaps = closeups.gaussians(wanted.keypoints, 64, 64, closeups.EMBEDDED_VARIANCE)
    windows = [closeups.cut(each, corner, 32, scale) for each, scale in ((features, 1), (heatmaps, 1), (kept, 4))]
    made = closeups.cut(closeups.decoded(generator, *windows), torch.tensor([[8, 8]]), 16, 4)
    assert made.shape == (1, 3, 64, 64)
    top, left = (20 + 8) * 4, (10 + 8) * 4
    difference = (made - frame[:, :, top : top + 64, left : left + 64]).abs()
    assert difference[:, :, 8:-8, 8:-8].max() < 0.01


def test_a_model_is_loaded_for_close_ups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    closeups, backend = script("closeups"), load_model("faces-mini", load_host()).backend
    weights = {name: module.state_dict() for name, module in backend.modules().items()}
    torch.save({"average": weights}, tmp_path / "model.pt")
    fresh = load_host().find("backend", "fomm").build(load_preset("faces-mini", load_host()).model_params)
    for path in (tmp_path / "model.pt", BUILTIN):
        for values in fresh.generator.parameters():
            values.data.zero_()
        closeups.load(fresh, path)
        for name, values in fresh.generator.state_dict().items():
            assert torch.allclose(values.float(), weights["generator"][name].float()), name
