"""The contract suites find the violations that they are meant to find."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fommctl.api import Box, ClipRecord, DatasetSpec, Detection, DetectorSpec, EmbedderSpec, InputError, testing
from fommctl.api.testing_backend import check_backend
from fommctl.host import Host
from fommctl.presets.preset import load_preset

Pixels = NDArray[np.uint8]


def dataset(*clips: ClipRecord) -> DatasetSpec:
    return DatasetSpec(
        name="d", summary="s", licence="l", build=lambda: SimpleNamespace(clips=lambda root: iter(clips))
    )


def clip(name: str = "c", identity: str = "i", **more: Any) -> ClipRecord:
    return ClipRecord(
        name=name, identity=identity, **{"frames": lambda: iter([np.zeros((4, 4, 3), np.uint8)] * 2), **more}
    )


def changing() -> Iterator[Pixels]:
    yield from np.random.default_rng().integers(0, 256, (2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("spec", "promise"),
    [
        (dataset(), "there are clips"),
        (dataset(clip(), clip()), "names are unique"),
        (dataset(clip(name="a/b")), "can be part of a file name"),
        (dataset(clip(split="dev")), "is in train, test or neither"),
        (dataset(clip("a", split="train"), clip("b", split="test")), "no identity is in both splits"),
        (dataset(clip(frames=None)), "an empty folder has no clips"),
        (dataset(clip(path=Path(__file__))), "either a path or frames"),
        (dataset(clip(start=2.0, end=1.0)), "starts before it ends"),
        (dataset(clip(start=float("nan"))), "starts before it ends"),
        (dataset(clip(rate=0)), "the frame rate of c is above zero"),
        (dataset(clip(box=Box(4, 0, 4, 9))), "the box of c has an area"),
        (dataset(clip(box=Box(0, 0, float("inf"), 9))), "the box of c has an area"),
        (dataset(clip(frames=lambda: iter([np.zeros((4, 4, 3), np.uint8)]))), "at least two frames"),
        (dataset(clip(frames=lambda: iter([np.zeros((4, 4), np.uint8)] * 2))), r"are \(H, W, 3\)"),
        (dataset(clip(frames=lambda: iter([np.zeros((4, 4, 3))] * 2))), "are uint8 of one size"),
        (dataset(clip(frames=changing)), "is the same in every call"),
        (replace(dataset(clip()), licence=""), "the spec names a licence"),
        (replace(dataset(clip()), name="D D"), "the dataset name 'D D'"),
    ],
)
def test_datasets(spec: DatasetSpec, promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        testing.check_dataset(spec)


def test_a_dataset_on_disk(tmp_path: Path) -> None:
    class Folder:
        def clips(self, root: Path) -> Iterator[ClipRecord]:
            if not (files := sorted(root.glob("*.mp4"))):
                raise InputError("no clips")
            yield from (ClipRecord(name=file.stem, identity=file.stem, path=file) for file in files)

    (tmp_path / "a.mp4").touch()
    spec = DatasetSpec(name="d", summary="s", licence="l", build=Folder)
    testing.check_dataset(spec, tmp_path)
    with pytest.raises(InputError):
        testing.check_dataset(spec)
    (tmp_path / "b").mkdir()
    stray = ClipRecord(name="a", identity="a", path=tmp_path / "a.mp4")
    strays = SimpleNamespace(clips=lambda root: iter([stray] if root == tmp_path / "b" else []))
    with pytest.raises(AssertionError, match="the file of a is in the raw folder"):
        testing.check_dataset(replace(spec, build=lambda: strays), tmp_path / "b")
    gone = ClipRecord(name="a", identity="a", path=tmp_path / "b/gone.mp4")
    listed = SimpleNamespace(clips=lambda root: iter([gone] if root == tmp_path / "b" else []))
    with pytest.raises(AssertionError, match="the file of a clip exists"):
        testing.check_dataset(replace(spec, build=lambda: listed), tmp_path / "b")


@pytest.mark.parametrize(
    ("points", "promise"),
    [
        (np.zeros((2, 3, 2)), None),
        (np.full((2, 3, 2), np.nan), None),
        (np.zeros((2, 0, 2)), None),
        (np.zeros((2, 2)), "numbers"),
        (np.zeros((2, 3, 2), int), "numbers"),
        (np.zeros((3, 3, 2)), "for every frame"),
        (np.full((2, 3, 2), 1.1), r"in \[-1, 1\]"),
        (np.array([[[np.nan, 0.0]]] * 2), "in both coordinates or none"),
    ],
)
def test_true_keypoints_of_a_dataset(points: np.ndarray, promise: str | None) -> None:
    clip = ClipRecord(name="a", identity="a", frames=lambda: iter(testing.pictures(2, 8, 8)), keypoints=lambda: points)
    adapter = SimpleNamespace(clips=lambda root: iter([clip]))
    spec = DatasetSpec(name="d", summary="s", licence="l", build=lambda: adapter)
    if promise is None:
        testing.check_dataset(spec)
        return
    with pytest.raises(AssertionError, match=promise):
        testing.check_dataset(spec)


def detector(find: Any, **more: Any) -> DetectorSpec:
    def detect(frames: Sequence[Pixels]) -> list[list[Detection]]:
        return [find(frame) if frame.std() > 10 else [] for frame in frames]

    return DetectorSpec(name="d", summary="s", subject="thing", build=lambda: SimpleNamespace(detect=detect), **more)


def found(*scores: float, box: Box | None = None, landmarks: Any = None) -> Any:
    return lambda frame: [Detection(box or Box(0, 0, 2, 2), score, landmarks) for score in scores]


@pytest.mark.parametrize(
    ("spec", "promise"),
    [
        (detector(found(1, 2)), "the highest score comes first"),
        (detector(found(float("nan"))), "scores are finite"),
        (detector(found(1, box=Box(2, 0, 1, 5))), "boxes have an area"),
        (detector(found(1), landmarks=5), r"5 landmarks \(N, 2\)"),
        (detector(found(1, landmarks=np.zeros((5, 2), np.float32))), r"0 landmarks"),
        (detector(found()), "the subject in each picture is found"),
        (detector(lambda frame: frame.fill(0) or found(1)(frame)), "the pictures are not changed"),
        (detector(found(1), ready=lambda: ""), "None or a reason"),
    ],
)
def test_detectors(spec: DetectorSpec, promise: str) -> None:
    testing.check_detector(detector(found(2, 1)), testing.pictures(1, 32, 32))
    with pytest.raises(AssertionError, match=promise):
        testing.check_detector(spec, testing.pictures(1, 32, 32))


def test_a_detector_that_is_not_ready_is_not_built() -> None:
    spec = DetectorSpec(name="d", summary="s", subject="face", build=lambda: 1 / 0, ready=lambda: "no weights")
    testing.check_detector(spec)


def embedder(describe: Any, **more: Any) -> EmbedderSpec:
    def embed(frames: Sequence[Pixels]) -> list[NDArray[np.float32] | None]:
        return [describe(frame, index) if frame.std() > 10 else None for index, frame in enumerate(frames)]

    more = {"dimension": 3, "build": lambda: SimpleNamespace(embed=embed), **more}
    return EmbedderSpec(name="e", summary="s", subject="thing", **more)


@pytest.mark.parametrize(
    ("spec", "promise"),
    [
        (embedder(lambda frame, index: None), "the subject in each picture is found"),
        (embedder(lambda frame, index: frame.mean((0, 1))), r"embeddings are \(D,\) float32 and finite"),
        (embedder(lambda frame, index: np.full(3, np.nan, np.float32)), "finite"),
        (embedder(lambda frame, index: np.zeros(3, np.float32), dimension=4), r"\(D,\)"),
        (embedder(lambda frame, index: np.full(3, index, np.float32)), "results do not depend on other pictures"),
        (
            embedder(lambda frame, index: frame.fill(0) or np.zeros(3, np.float32)),
            "do not depend on other|are not changed",
        ),
        (embedder(None, build=lambda: SimpleNamespace(embed=lambda frames: [None])), "for no pictures is empty"),
        (embedder(None, ready=lambda: ""), "None or a reason"),
    ],
)
def test_embedders(spec: EmbedderSpec, promise: str) -> None:
    frames = testing.pictures(2, 32, 32)
    testing.check_embedder(embedder(lambda frame, index: frame.mean((0, 1)).astype(np.float32)), frames)
    with pytest.raises(AssertionError, match=promise):
        testing.check_embedder(spec, frames)


def test_an_embedder_that_is_not_ready_is_not_built() -> None:
    testing.check_embedder(embedder(None, build=lambda: 1 / 0, ready=lambda: "no weights"))


class Spoilt:
    """A renderer with one method replaced."""

    def __init__(self, renderer: Any, **methods: Any) -> None:
        self.renderer, self.methods = renderer, methods

    def __getattr__(self, name: str) -> Any:
        original = getattr(self.renderer, name)
        return (lambda *args: self.methods[name](original, *args)) if name in self.methods else original


@pytest.mark.parametrize(
    ("methods", "promise"),
    [
        ({"render": lambda render, context, motion: render(context, motion) - 1}, r"frames are in \[0, 1\]"),
        ({"render": lambda render, context, motion: render(context, motion)[:, :, 1:]}, r"render\(\) returns"),
        (
            {"render": lambda render, context, motion: render(context, motion) / len(motion)},
            "frames of a batch independently",
        ),
        (
            {"detect": lambda detect, frames: detect(frames.flip(0))},
            "of a batch independently|the motion of its source",
        ),
    ],
)
def test_backends(host: Host, methods: dict[str, Any], promise: str) -> None:
    params = load_preset("smoke", host).model_params.model_dump(exclude_unset=True)
    spec = host.find("backend", "fomm")

    def build(validated: Any) -> Any:
        backend = spec.build(validated)
        prepare = backend.prepare
        backend.prepare = lambda *args, **options: Spoilt(prepare(*args, **options), **methods)
        return backend

    with pytest.raises(AssertionError, match=promise):
        check_backend(replace(spec, build=build), params)
