"""LPIPS and FID with untrained weights in the published layout, from torch.hub's cache or a real server."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import perception
import pytest
import skimage.data
import torch
from file_server import FileServer, serving
from scored import noisy, portrait, score
from torchmetrics.functional.image import lpips as published_lpips

from fommctl.api import MetricSpec, MissingError, ModelError
from fommctl.api.metrics import ClipScores
from fommctl.api.testing import check_metric
from fommctl.host import load_host
from fommctl_metrics.frechet import FrechetDistance, InceptionFeatures, combined
from fommctl_metrics.lpips import PerceptualDistance, alexnet_features, lpips


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return torch.hub's folder of downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch/hub/checkpoints"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.delenv("FOMMCTL_OFFLINE")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as state:
        yield state


def test_lpips_is_that_of_torchmetrics(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = perception.saved(perception.alexnet(), cache)
    features = alexnet_features()
    features.load_state_dict({name[9:]: each for name, each in perception.alexnet().items() if "features" in name})
    monkeypatch.setattr(published_lpips, "_get_tv_model_features", lambda net, pretrained: features)
    truth = portrait(3, 70)
    prediction = noisy(truth, 30)
    tensors = [torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 for frames in (prediction, truth)]
    expected = published_lpips.learned_perceptual_image_patch_similarity(*tensors, reduction="none", normalize=True)
    scores = score(lpips(f"https://example.org/{path.name}"), prediction, truth, cuts=[2])
    assert scores.frames == pytest.approx(expected.numpy(), rel=1e-4)
    assert scores.value > 0.01


def test_lpips_of_odd_clips(cache: Path) -> None:
    path = perception.saved(perception.alexnet(), cache)
    metric = lpips(f"https://example.org/{path.name}")
    check_metric(spec(lambda: metric))
    truth = portrait(2, 64)
    assert score(metric, truth, truth).value == 0
    assert score(metric, truth[:, :31, :31], truth[:, :31, :31]).value == 0
    assert score(metric, truth[:, :30], truth[:, :30]).scored == 0


def test_inception_is_that_of_torch_fidelity() -> None:
    """The expected values are those of torch-fidelity 0.4.0 with the same weights, every 256th of 2048."""
    expected = [
        [0.0, 0.51170069, 0.0, 0.32952702, 0.62255204, 0.00111554, 0.00777976, 0.07528365],
        [0.0, 0.5612064, 0.0, 0.33953285, 0.62688446, 0.00134694, 0.00866742, 0.09448564],
    ]
    picture = skimage.data.astronaut()
    frames = np.stack([picture[:299, :299], picture[100:399, 50:349]]).transpose(0, 3, 1, 2)
    network = InceptionFeatures(perception.inception())
    features = network(torch.from_numpy(frames.copy()))
    assert (network.num_features, features.shape) == (2048, (2, 2048))
    assert features[:, ::256].numpy() == pytest.approx(np.array(expected), rel=1e-3, abs=1e-5)


def test_fid_by_hand() -> None:
    # Means 1 and 4, variances 2 and 8: (1 - 4)^2 + 2 + 8 - 2 sqrt(2 * 8) = 11, over the frames of both clips.
    assert combined([of([0, 2], [2, 6])]) == pytest.approx(11)
    assert combined([of([0], [6]), of([2], [2])]) == pytest.approx(11)
    assert combined([of([0, 2], [0, 2])]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("clips", [[], [([], [])], [([1], [2])]])
def test_fid_of_fewer_than_two_frames_is_none(clips: list[tuple[list[float], list[float]]]) -> None:
    assert combined([of(*clip) for clip in clips]) is None


def test_fid_of_frames(cache: Path) -> None:
    path = perception.saved(perception.inception(narrow=16), cache)
    metric = FrechetDistance(f"https://example.org/{path.name}")
    truth = portrait(3, 64)
    scores = score(metric, noisy(truth, 60), truth, cuts=[1])
    assert (scores.value, scores.scored, scores.total) == (None, 3, 3)
    assert scores.state["true"].shape == scores.state["predicted"].shape == (3, 128)
    same = combined([score(metric, truth, truth)])
    assert same == pytest.approx(0, abs=1e-5)
    assert combined([scores]) > 100 * same


def test_weights_are_fetched_once(server: FileServer, cache: Path, tmp_path: Path) -> None:
    path = perception.saved(perception.alexnet(), tmp_path)
    server.content = path.read_bytes()
    for _ in range(2):
        lpips(f"{server.address}/{path.name}")
    assert len(server.requests) == 1
    assert [each.name for each in cache.iterdir()] == [path.name]


def test_absent_weights_say_where_they_belong(cache: Path) -> None:
    for name in ("lpips", "fid"):
        with pytest.raises(
            MissingError, match="is not on this machine, and FOMMCTL_OFFLINE forbids downloads"
        ) as caught:
            load_host().metrics[name].build()
        assert f"put it at {cache}" in (caught.value.hint or "")


def test_weights_that_do_not_come_or_are_others(server: FileServer, cache: Path) -> None:
    server.status = 404
    with pytest.raises(MissingError, match="HTTP 404"):
        FrechetDistance(f"{server.address}/net-01234567.pth")
    server.status, server.failures, server.content = 200, 0, b"something else"
    with pytest.raises(MissingError, match="is damaged or a different file: its SHA-256 does not start with 01234567"):
        FrechetDistance(f"{server.address}/net-01234567.pth")
    assert list(cache.iterdir()) == []


def test_damaged_weights_are_not_used(cache: Path) -> None:
    path = perception.saved({"features.0.weight": torch.zeros(1)}, cache)
    with pytest.raises(ModelError, match="the weights of AlexNet are not the expected ones"):
        lpips(f"https://example.org/{path.name}")
    with pytest.raises(ModelError, match="are not those of Inception"):
        FrechetDistance(f"https://example.org/{path.name}")
    path.write_bytes(b"torn")
    with pytest.raises(ModelError, match="is damaged or a different file") as caught:
        lpips(f"https://example.org/{path.name}")
    assert f"Delete {path}" in (caught.value.hint or "")


def test_perceptual_distance_by_hand() -> None:
    """Layers with only biases ignore the frames; then the first layer gets one feature that reads red."""
    widths = (64, 192, 384, 256, 256)
    alexnet = {name: torch.zeros_like(tensor) for name, tensor in perception.alexnet().items()}
    for number, width in zip((0, 3, 6, 8, 10), widths, strict=True):
        alexnet[f"features.{number}.bias"] = torch.ones(width)
    heads = {f"lin{number}.model.1.weight": torch.ones(1, width, 1, 1) for number, width in enumerate(widths)}
    frames = [torch.full((1, 3, 64, 64), level) for level in (0.75, 1.0)]
    assert PerceptualDistance(alexnet, heads)(*frames).tolist() == [0.0]
    alexnet["features.0.weight"][0, 0, 5, 5] = 1
    alexnet["features.0.bias"] = (torch.arange(64) == 1).float()
    # The first layer gives (red, 1), normalised to length 1; its squared difference is the same everywhere.
    red = [(2 * level - 1 + 0.030) / 0.458 for level in (0.75, 1.0)]
    one, other = (np.array([value, 1]) / np.hypot(value, 1) for value in red)
    expected = ((one - other) ** 2).sum()
    assert PerceptualDistance(alexnet, heads)(*frames).item() == pytest.approx(expected, rel=1e-4)


def of(predicted: list[float], true: list[float]) -> ClipScores:
    """Return the state of a clip with one feature per frame."""
    state = {"predicted": predicted, "true": true}
    arrays = {name: np.array(values, np.float32).reshape(-1, 1) for name, values in state.items()}
    return ClipScores(np.empty(0), None, len(true), len(true), arrays)


def spec(build: object) -> MetricSpec:
    return MetricSpec(name="m", summary="s", unit="u", lower_is_better=True, build=build)  # type: ignore[arg-type]
