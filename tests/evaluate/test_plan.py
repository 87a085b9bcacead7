"""The plan of an evaluation: names, pairs, matching and the choice of metrics."""

from pathlib import Path

import pytest
from evaluation_data import write_clips
from hypothesis import given
from hypothesis import strategies as st
from media_factory import moving_square, write_frames
from PIL import Image

from fommctl.datasets.clips import Clip
from fommctl.errors import UsageError
from fommctl.evaluate.config import EvaluateConfig
from fommctl.evaluate.plan import (
    _matched,
    _names,
    distinct,
    draw_pairs,
    finished_results,
    folders,
    reconstructions,
    results_in,
)
from fommctl.evaluate.scoring import choose_metrics


def clip(identity: str, number: int, frames: int = 9) -> Clip:
    name = f"{identity}#{number}.mp4"
    return Clip(Path(name), name, identity, frames)


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=8), st.integers(1, 9), st.integers(0, 99))
def test_pairs_cross_identities_where_there_are_some(identities, count, seed):
    clips = [clip(identity, number) for number, identity in enumerate(identities)]
    pairs = draw_pairs(clips, count, seed)
    assert pairs == draw_pairs(clips, count, seed)
    assert len(set(pairs)) == len(pairs) <= count
    assert all(source is not driving for source, driving in pairs)
    if len(set(identities)) > 1:
        assert all(source.identity != driving.identity for source, driving in pairs)


def test_stills_are_animated_and_drive_nothing():
    pairs = draw_pairs([clip("a", 0, frames=1), clip("b", 0)], 9, 0)
    assert [(source.identity, driving.identity) for source, driving in pairs] == [("a", "b")]


@given(st.lists(st.text("ab/.#", min_size=1, max_size=6).filter(lambda text: Path(text).name), max_size=6, unique=True))
def test_names_of_results_are_unique(names):
    assert len(set(_names(names))) == len(names)


def test_long_names_fit_a_file_system():
    (name,) = _names([f"{'é' * 300}.mp4"])
    assert len(name.encode()) < 250
    assert _names(["a/b.mp4", "a/b.gif", "c.mp4"]) == ["a/b.mp4", "a/b.gif", "c"]


def test_models_are_told_apart_by_their_folders():
    assert distinct(["/runs/one/model.safetensors", "/runs/two/model.pth.tar"]) == ("one/model", "two/model")
    assert distinct(["faces-mini", "/x/vox-cpk.pth.tar"]) == ("faces-mini", "vox-cpk")
    assert distinct(["/a/model.safetensors", "/a/model.pth.tar"]) == ("model.safetensors", "model.pth.tar")
    with pytest.raises(UsageError, match=r"'/a/model\.safetensors' is given twice"):
        distinct(["/a/model.safetensors", "/b/c.pth", "/a/model.safetensors"])


def test_no_two_models_share_a_folder():
    assert folders(["a/b", "a_b", "A_B", "a_b-2", "..", "c"]) == ("a_b", "a_b-2", "A_B-3", "a_b-2-2", "_", "c")


def test_names_that_share_their_first_part_are_matched_by_what_they_continue():
    def matched(*sides):
        return [{name: path.name for name, path in side.items()} for side in _matched(sides)]

    def side(*names):
        return {name: Path(f"/{name}") for name in names}

    truths = side("a.1", "a.2", "b")
    same = {"a.1": "a.1", "a.2": "a.2", "b": "b"}
    assert matched(truths, side("a.1.rec", "a.2.rec", "b.rec")) == [
        same,
        {"a.1": "a.1.rec", "a.2": "a.2.rec", "b": "b.rec"},
    ]
    # Two that continue one name belong to no clip, and nothing is ever compared with the other clip of a first part.
    assert matched(truths, side("a.1.x", "a.1.y"), side("b")) == [
        same,
        {"a.1.x": "a.1.x", "a.1.y": "a.1.y"},
        {"b": "b"},
    ]
    assert matched(truths, side("a.1"), side("a.2")) == [same, {"a.1": "a.1"}, {"a.2": "a.2"}]
    assert matched(side("a.mp4", "b"), side("a.rec")) == [{"a": "a.mp4", "b": "b"}, {"a": "a.rec"}]


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG"])
def test_a_folder_of_frames_is_one_clip_and_one_of_strips_is_several(tmp_path, ending):
    frames = [moving_square(index, 16, 16) for index in range(3)]
    assert results_in(write_frames(tmp_path / "frames", frames, f"%d.{ending}")) == {"frames": tmp_path / "frames"}
    (tmp_path / "strips").mkdir()
    for name in ("1", "2"):
        Image.new("RGB", (48, 16)).save(tmp_path / f"strips/{name}.{ending}")
    assert list(results_in(tmp_path / "strips")) == ["1", "2"]


def test_names_count_up_to_their_first_dot_unless_clips_would_become_one(tmp_path):
    def plan(predictions, truths):
        for folder, names in (("pred", predictions), ("truth", truths)):
            for name in names:
                write_frames(tmp_path / folder / name, [moving_square(0, 16, 16)])
        config = EvaluateConfig(
            output=tmp_path / "out", predictions=(tmp_path / "pred",), truth=tmp_path / "truth", metrics=("psnr",)
        )
        return {task.name: task.predictions[0].name for task in finished_results(config).tasks}

    assert plan(["a.made.mp4", "b"], ["a.mp4", "b.gif"]) == {"a": "a.made.mp4", "b": "b"}
    # Now there are also clips named a.x and a.y.
    assert plan(["a.x.mp4", "a.y.mp4"], ["a.x", "a.y"]) == {
        "a": "a.made.mp4",
        "a.x": "a.x.mp4",
        "a.y": "a.y.mp4",
        "b": "b",
    }


@pytest.mark.parametrize(("split", "count"), [("auto", 3), ("test", 3), ("train", 1), ("all", 4)])
def test_splits(tmp_path, split, count):
    config = EvaluateConfig(output=tmp_path / "out", data=write_clips(tmp_path / "data"), split=split)
    assert len(reconstructions(config, 9).tasks) == count
    assert len(reconstructions(config, 2).tasks) == min(2, count)


def test_families_of_metrics(host, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def names(*wanted, mode="reconstruction"):
        return [spec.name for spec in choose_metrics(wanted, host, mode)]

    assert names("akd") == ["akd.paper", "akd.strict"]
    assert names("psnr", "l1") == ["psnr", "l1.paper", "l1.strict", "l1.relative"]
    every = names()
    assert every[0] == "l1.paper"
    # Those that need a detector come last; those that need a download are left out.
    assert every.index("akd.paper") > every.index("ssim")
    assert not {"lpips", "fid"} & set(every)
    assert set(names(mode="animation")) >= {"aed.paper", "keypoint-jitter.plain", "mouth.gain", "eyelids.correlation"}
    assert names("eyelids", mode="animation") == ["eyelids.correlation", "eyelids.gain"]
    assert "l1.paper" not in names(mode="animation")
