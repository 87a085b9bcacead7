"""Training pairs and their batches: how they are drawn, that this is deterministic, and how workers end."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_factory import write_frames
from PIL import Image

from fommctl.datasets.clips import Clip, find_clips
from fommctl.errors import InputError, UsageError
from fommctl.media import random_access
from fommctl.presets.sections import DatasetParams
from fommctl.train.pairs import (
    KeptLandmarks,
    Pixels,
    TrainingPairs,
    batches,
    most_different,
    spare_memory,
    steps_per_epoch,
    worker_crashes_as_errors,
)

SIDE, FRAMES = 16, 6
IDENTITIES = ("ann", "ann", "bob", "cid", "dee")


def frame(clip: int, index: int) -> np.ndarray:
    """Return a frame whose red encodes the clip and whose green encodes the frame."""
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[..., 0], picture[..., 1] = 20 * clip + 10, 20 * index + 10
    picture[: SIDE // 2, : SIDE // 2, 2] = 200
    return picture


def told(picture: torch.Tensor) -> tuple[int, int]:
    """Return clip and frame encoded in the middle of a (3, H, W) picture."""
    red, green = (picture[:2, SIDE // 2, SIDE // 2] * 255).round().int().tolist()
    return (red - 10) // 20, (green - 10) // 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five training clips of four identities, two stills next to them, one test clip."""
    for number, identity in enumerate(IDENTITIES):
        write_frames(tmp_path / "train" / f"{identity}#{number}", [frame(number, index) for index in range(FRAMES)])
    write_frames(tmp_path / "test" / "eve#0", [frame(0, index) for index in range(FRAMES)])
    for number in (8, 9):
        Image.fromarray(frame(number, 0)).save(tmp_path / "train" / f"portrait{number}.png")
    return tmp_path


def clips(folder: Path, *, stills: bool = False) -> list[Clip]:
    return [clip for clip in find_clips(folder, "train") if stills or not clip.still]


def make(folder: Path, *, stills: bool = False, repeats: int = 1, seed: int = 0, **params: Any) -> TrainingPairs:
    parsed = DatasetParams.model_validate({"frame_shape": [SIDE, SIDE, 3], **params})
    return TrainingPairs(clips(folder, stills=stills), parsed, repeats=repeats, seed=seed)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one
    )


def test_a_pair_is_two_frames_of_one_clip_in_the_order_of_time(folder: Path) -> None:
    pairs = make(folder)
    seen = set()
    for draw in range(400):
        item = pairs[draw]
        (clip, first), (other, second) = told(item["source"]), told(item["driving"])
        assert clip == other
        assert first <= second
        assert item["draw"] == draw
        seen.add((first, second))
    # As published, with replacement: a frame may be paired with itself.
    assert seen == {(first, second) for second in range(FRAMES) for first in range(second + 1)}


def test_pixels_are_those_of_the_clip(folder: Path) -> None:
    item = make(folder)[0]
    for name in ("source", "driving"):
        assert item[name].dtype == torch.float32
        expected = torch.from_numpy(frame(*told(item[name]))).permute(2, 0, 1).float() / 255
        assert torch.equal(item[name], expected)


def test_an_epoch_goes_through_every_clip_in_an_order_of_its_own(folder: Path) -> None:
    pairs = make(folder, repeats=3)
    assert pairs.pairs_per_epoch == 15
    epochs = [[told(pairs[draw]["source"])[0] for draw in range(15 * epoch, 15 * epoch + 15)] for epoch in range(3)]
    assert all(sorted(epoch) == sorted(3 * list(range(5))) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_sampling_by_identity_goes_through_identities(folder: Path) -> None:
    pairs = make(folder, id_sampling=True)
    assert pairs.pairs_per_epoch == 4
    drawn = [told(pairs[draw]["source"])[0] for draw in range(80)]
    for epoch in range(20):
        assert sorted({0: "a", 1: "a"}.get(clip, str(clip)) for clip in drawn[4 * epoch : 4 * epoch + 4]) == [
            *"234",
            "a",
        ]
    assert {0, 1} <= set(drawn)


def test_another_seed_gives_other_pairs(folder: Path) -> None:
    one, other = make(folder, seed=1), make(folder, seed=2)
    assert same(make(folder, seed=1)[7], one[7])
    assert any(not torch.equal(one[draw]["source"], other[draw]["source"]) for draw in range(5))


def test_the_most_different_of_several_frames_make_the_pair() -> None:
    def grey(level: int) -> Pixels:
        return np.full((64, 64, 3), level, np.uint8)

    def levels(*values: int) -> list[int]:
        return [int(chosen[0, 0, 0]) for chosen in most_different([grey(value) for value in values])]

    assert levels(50, 20, 60, 30) == [20, 60]
    assert levels(90, 20, 60, 30) == [90, 20]
    assert levels(7, 5) == [7, 5]
    assert levels(5, 5, 5) == [5, 5]


def test_more_candidates_give_pairs_farther_apart(folder: Path) -> None:
    def gap(candidates: int) -> float:
        pairs = make(folder, pair_candidates=candidates)
        items = [pairs[draw] for draw in range(200)]
        return float(np.mean([told(item["driving"])[1] - told(item["source"])[1] for item in items]))

    # The range of two uniform numbers of six is 35/18 on average; of four, sum over k of 1 - (k/6)^4 - (1 - k/6)^4.
    expected = sum(1 - (k / 6) ** 4 - (1 - k / 6) ** 4 for k in range(1, 6))
    assert gap(2) == pytest.approx(35 / 18, abs=0.25)
    assert gap(4) == pytest.approx(expected, abs=0.25)


def test_a_fraction_of_the_pairs_is_made_of_stills(folder: Path) -> None:
    parsed = DatasetParams.model_validate({"frame_shape": [SIDE, SIDE, 3], "stills": {"fraction": 0.25}})
    pairs = TrainingPairs(clips(folder, stills=True), parsed)
    assert pairs.pairs_per_epoch == 5
    items = [pairs[draw] for draw in range(400)]
    of_stills = [item for item in items if float(item["source"][0].max()) > 150 / 255]
    assert 70 <= len(of_stills) <= 130
    assert {round(float(item["source"][0].median()) * 255) for item in of_stills} == {170, 190}
    assert all(not torch.equal(item["source"], item["driving"]) for item in of_stills)


def test_stills_alone_make_all_pairs(folder: Path) -> None:
    parsed = DatasetParams.model_validate({"frame_shape": [SIDE, SIDE, 3], "stills": {"fraction": 0.1}})
    pairs = TrainingPairs([clip for clip in clips(folder, stills=True) if clip.still], parsed, repeats=4)
    assert pairs.pairs_per_epoch == 8
    assert all(not torch.equal(pairs[draw]["source"], pairs[draw]["driving"]) for draw in range(8))


def test_stills_are_left_out_where_the_preset_has_none(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        pairs = make(folder, stills=True)
    assert caplog.messages == ["2 still pictures are not used: the preset has no dataset_params.stills"]
    assert same(pairs[3], make(folder)[3])
    with pytest.raises(InputError, match="no clip of more than one frame"):
        TrainingPairs([clip for clip in clips(folder, stills=True) if clip.still], DatasetParams())


def test_rigid_pairs_move_the_driving_frame_alone(folder: Path) -> None:
    plain = make(folder)
    params = {"fraction": 1.0, "degrees": 0.0, "scale": [1.0, 1.0], "shift": 0.25}
    for draw, item in enumerate(make(folder, rigid=params)[draw] for draw in range(5)):
        assert torch.equal(item["source"], plain[draw]["source"])
        assert not torch.equal(item["driving"], plain[draw]["driving"])
        assert told(item["driving"]) == told(plain[draw]["driving"])


def test_rigid_pairs_are_a_fraction_of_those_of_clips(folder: Path) -> None:
    plain, some = make(folder), make(folder, rigid={"fraction": 0.3})
    changed = sum(not torch.equal(plain[draw]["driving"], some[draw]["driving"]) for draw in range(300))
    assert 65 <= changed <= 115


@pytest.mark.parametrize("augmentation", [None, {"resize_param": {}}, {"crop_param": {"size": [9, 11]}}])
def test_frames_always_have_the_size_of_the_preset(augmentation: dict[str, Any] | None, folder: Path) -> None:
    pairs = make(folder, frame_shape=[24, 32, 3], augmentation_params=augmentation)
    for draw in range(4):
        assert pairs[draw]["source"].shape == pairs[draw]["driving"].shape == (3, 24, 32)


def test_landmarks_are_found_in_the_final_frames(folder: Path) -> None:
    seen: list[list[Pixels]] = []

    def landmarks(pictures: list[Pixels]) -> list[Any]:
        seen.append(pictures)
        return [np.array([[0, 0], [SIDE - 1, SIDE - 1], [SIDE - 1, 0], [7.5, 7.5]], np.float32), None]

    parsed = DatasetParams.model_validate(
        {"frame_shape": [SIDE, SIDE, 3], "augmentation_params": {"flip_param": {"horizontal_flip": True}}}
    )
    pairs = TrainingPairs(clips(folder), parsed, landmarks=landmarks, landmark_count=4)
    item = pairs[1]
    assert item["source_landmarks"].tolist() == [[-1, -1], [1, 1], [1, -1], [0, 0]]
    assert item["driving_landmarks"].shape == (4, 2)
    assert bool(item["driving_landmarks"].isnan().all())
    for picture, name in zip(seen[0], ("source", "driving"), strict=True):
        np.testing.assert_array_equal(picture, (item[name] * 255).round().byte().permute(1, 2, 0).numpy())
    batch = next(batches(pairs, batch_size=2, first_step=0, workers=1))
    assert batch["source_landmarks"].shape == (2, 4, 2)


class Opening:
    """A detector: two landmarks whose distance encodes the frame, and a third; none in the first two frames."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, pictures: list[Pixels]) -> list[Any]:
        numbers = [told(torch.from_numpy(picture).permute(2, 0, 1) / 255)[1] for picture in pictures]
        self.asked += numbers
        return [
            None if number < 2 else np.array([[0, 0], [0, (number - 4) ** 2 + 1], [15, 0]], np.float32)
            for number in numbers
        ]


def expressive(folder: Path, find: Opening, kept: Path, **params: Any) -> TrainingPairs:
    parsed = DatasetParams.model_validate(
        {
            "frame_shape": [SIDE, SIDE, 3],
            "expressions": {"fraction": 1, "candidates": FRAMES, "distances": [[0, 1]], **params},
        }
    )
    return TrainingPairs(clips(folder), parsed, kept=KeptLandmarks(find, 3, "opening", kept))


def test_pairs_are_the_two_frames_whose_landmarks_differ_most(folder: Path, tmp_path: Path) -> None:
    """Distances from the third frame on: 5, 2, 1, 2."""
    pairs = expressive(folder, Opening(), tmp_path / "kept")
    for draw in range(6):
        item = pairs[draw]
        assert [told(item[name])[1] for name in ("source", "driving")] == [2, 4]
    few = expressive(folder, Opening(), tmp_path / "few", candidates=2)
    assert len({told(few[draw]["source"])[1] for draw in range(20)}) > 2
    rare = expressive(folder, Opening(), tmp_path / "rare", fraction=0.2)
    found = [tuple(told(rare[draw][name])[1] for name in ("source", "driving")) == (2, 4) for draw in range(60)]
    assert 6 <= sum(found) <= 30


def test_landmarks_of_a_frame_are_found_once_by_all_runs(folder: Path, tmp_path: Path) -> None:
    first, second = Opening(), Opening()
    pairs = expressive(folder, first, tmp_path / "kept")
    before = [pairs[draw] for draw in range(12)]
    assert sorted(first.asked) == sorted(list(range(FRAMES)) * len(clips(folder)))
    again = expressive(folder, second, tmp_path / "kept")
    assert all(same(one, again[draw]) for draw, one in enumerate(before))
    assert second.asked == []


def test_kept_landmarks_are_shares_of_the_frame_and_belong_to_the_file(folder: Path, tmp_path: Path) -> None:
    find = Opening()
    clip = clips(folder)[0]
    kept = KeptLandmarks(find, 3, "opening", tmp_path / "kept")
    marks = kept.read(clip, [3, 0, 3])
    assert np.isnan(marks[1]).all()
    np.testing.assert_array_equal(marks[0], marks[2])
    np.testing.assert_allclose(marks[0] * SIDE - 0.5, [[0, 0], [0, 2], [15, 0]], atol=0.02)
    assert sorted(find.asked) == [0, 3]
    KeptLandmarks(find, 3, "another", tmp_path / "kept").read(clip, [0])
    os.utime(clip.path, ns=(1, 1))
    kept.read(clip, [0])
    assert sorted(find.asked) == [0, 0, 0, 3]


EVERYTHING: dict[str, Any] = {
    "pair_candidates": 3,
    "stills": {"fraction": 0.3},
    "rigid": {"fraction": 0.3},
    "augmentation_params": {
        "flip_param": {"horizontal_flip": True, "time_flip": True},
        "jitter_param": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1},
    },
}


def everything(folder: Path, **options: Any) -> TrainingPairs:
    parsed = DatasetParams.model_validate({"frame_shape": [SIDE, SIDE, 3], **EVERYTHING})
    return TrainingPairs(clips(folder, stills=True), parsed, repeats=2, **options)


@pytest.fixture
def reference(folder: Path) -> list[dict[str, torch.Tensor]]:
    """Seven steps of four pairs, from two and a half epochs: ten pairs make two steps."""
    return list(batches(everything(folder, cache_bytes=0), batch_size=4, first_step=0, steps=7))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int, folder: Path, reference: list[dict[str, torch.Tensor]]) -> None:
    found = list(batches(everything(folder), batch_size=4, first_step=0, steps=7, workers=workers))
    assert len(found) == 7
    assert all(same(one, other) for one, other in zip(found, reference, strict=True))


def test_processes_share_the_batch(folder: Path, reference: list[dict[str, torch.Tensor]]) -> None:
    parts = [
        list(batches(everything(folder), batch_size=4, first_step=0, steps=7, rank=rank, world=2)) for rank in (0, 1)
    ]
    for first, second, whole in zip(*parts, reference, strict=True):
        assert same({key: torch.cat((first[key], second[key])) for key in first}, whole)


def test_a_run_continues_where_it_stopped(folder: Path, reference: list[dict[str, torch.Tensor]]) -> None:
    found = list(batches(everything(folder), batch_size=4, first_step=3, steps=4))
    assert all(same(one, other) for one, other in zip(found, reference[3:], strict=True))


def test_the_rest_of_an_epoch_that_fills_no_batch_is_left_out(reference: list[dict[str, torch.Tensor]]) -> None:
    drawn = [batch["draw"].tolist() for batch in reference]
    assert drawn[:4] == [[0, 1, 2, 3], [4, 5, 6, 7], [10, 11, 12, 13], [14, 15, 16, 17]]


def test_steps_of_an_epoch(folder: Path) -> None:
    assert [steps_per_epoch(make(folder, repeats=3), size) for size in (1, 4, 15)] == [15, 3, 1]
    with pytest.raises(UsageError, match="a batch of 16 is larger than an epoch of 15 pairs"):
        steps_per_epoch(make(folder, repeats=3), 16)
    with pytest.raises(UsageError, match="a batch of 4 cannot be divided among 3 processes"):
        batches(make(folder), batch_size=4, first_step=0, world=3)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_random_state_of_the_run_is_left_alone(workers: int, folder: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[union-attr,index]
    list(batches(everything(folder), batch_size=4, first_step=0, steps=2, workers=workers))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[union-attr,index]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_lost_clip_is_reported_once_and_replaced(
    workers: int, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, broken = make(folder, repeats=4), make(folder, repeats=4)
    shutil.rmtree(folder / "train" / "cid#3")
    with caplog.at_level(logging.WARNING):
        found = list(batches(broken, batch_size=4, first_step=0, steps=10, workers=workers))
    drawn = [told(picture)[0] for batch in found for picture in batch["source"]]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("cid#3 cannot be read any more; others are used instead: ")
    expected = [whole._unit(draw)[0].name for draw in range(40)]
    assert expected.count("cid#3") == 8
    for clip, name in zip(drawn, expected, strict=True):
        assert clip == int(name[-1]) or (name == "cid#3" and clip != 3)


def test_a_replacement_is_the_same_wherever_it_is_drawn(folder: Path) -> None:
    pairs = [make(folder, repeats=4) for _ in range(2)]
    shutil.rmtree(folder / "train" / "cid#3")
    in_order = [pairs[0][draw] for draw in range(20)]
    backwards = [pairs[1][draw] for draw in reversed(range(20))][::-1]
    assert all(same(one, other) for one, other in zip(in_order, backwards, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_when_nothing_can_be_read_the_run_ends(workers: int, folder: Path) -> None:
    pairs = everything(folder)
    shutil.rmtree(folder / "train")
    with pytest.raises(InputError, match="none of the 7 clips can be read any longer") as caught:
        list(batches(pairs, batch_size=4, first_step=0, steps=3, workers=workers))
    assert "Check that the data is still there" in (caught.value.hint or "")
    assert not multiprocessing.active_children()


def test_frames_in_memory_are_those_of_the_file_and_are_read_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = everything(folder, cache_bytes=0)
    cached = everything(folder)
    expected = [plain[draw] for draw in range(30)]
    read: list[Path] = []
    original = random_access.read_frames

    def spy(path: Path, *arguments: Any, **options: Any) -> Any:
        read.append(path)
        return original(path, *arguments, **options)

    monkeypatch.setattr(random_access, "read_frames", spy)
    assert all(same(cached[draw], item) for draw, item in enumerate(expected))
    # Once for the first pair that needs some of the frames, once for the second, which keeps them all.
    assert len(set(read)) == 7
    assert max(read.count(path) for path in read) == 2
    batch = next(batches(cached, batch_size=4, first_step=0, workers=1))
    assert torch.equal(batch["source"], torch.stack([item["source"] for item in expected[:4]]))


@pytest.mark.parametrize(("limit", "kept"), [(0, 0), (1000, 0), (3000 * FRAMES * 8, 5)])
def test_memory_for_frames_is_bounded(limit: int, kept: int, folder: Path) -> None:
    assert make(folder)._frames._memory.nbytes == 5 * (1 + FRAMES * SIDE * SIDE * 3)
    pairs = TrainingPairs(clips(folder), make(folder).params, cache_bytes=limit)
    assert pairs._frames._memory.nbytes <= limit
    assert len(pairs._frames._places) == kept
    assert same(pairs[2], make(folder)[2])


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = spare_memory()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert 0 < spare_memory() == alone // 4 <= 512 * 1024**2


def test_a_damaged_clip_is_used_as_far_as_it_goes(folder: Path) -> None:
    whole = make(folder)
    (folder / "train" / "bob#2" / "00006.png").write_bytes(b"broken")
    pairs = make(folder)
    usable = [
        draw
        for draw in range(60)
        if whole._unit(draw)[0].name == "bob#2" and told(whole[draw]["driving"])[1] < FRAMES - 1
    ]
    assert len(usable) > 3
    assert all(same(pairs[draw], whole[draw]) for draw in usable)


@pytest.mark.parametrize("ending", ["close", "exception", "end"])
def test_no_worker_outlives_the_iteration(ending: str, folder: Path) -> None:
    iterator = batches(make(folder), batch_size=4, first_step=0, steps=2 if ending == "end" else None, workers=2)
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    if ending == "close":
        iterator.close()
    elif ending == "end":
        assert len(list(iterator)) == 1
    else:
        with pytest.raises(KeyboardInterrupt):
            iterator.throw(KeyboardInterrupt())
    assert not multiprocessing.active_children()


RUN = """
import os, signal, sys, time
import multiprocessing
from fommctl.presets.sections import DatasetParams
from fommctl.train.pairs import spare_memory
from fommctl.datasets.clips import find_clips
from fommctl.train.pairs import TrainingPairs, batches

pairs = TrainingPairs(find_clips(sys.argv[1], "train"), DatasetParams(frame_shape=(16, 16, 3)))
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
print("ready", flush=True)
try:
    for step, batch in enumerate(batches(pairs, batch_size=4, first_step=0, workers=2)):
        if step == 1:  # each of the two workers has made a batch: both are set up
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        if stop:
            stop.append(True)
        if len(stop) == 9:
            print("eight steps more", flush=True)
            break
        time.sleep(0.02)
except KeyboardInterrupt:
    print("interrupted", len(multiprocessing.active_children()), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of process groups are POSIX")
@pytest.mark.parametrize(("sent", "answer"), [(signal.SIGINT, "interrupted 0"), (signal.SIGTERM, "eight steps more")])
def test_a_signal_to_the_whole_group_is_the_runs_to_answer(sent: signal.Signals, answer: str, folder: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    workers = [int(number) for number in run.stdout.readline().split()]
    assert len(workers) == 2
    os.killpg(run.pid, sent)
    output, errors = run.communicate(timeout=60)
    assert output == answer + "\n"
    assert run.returncode == 0
    assert "Traceback" not in errors
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.parametrize(("signalled", "expected"), [(False, InputError), (True, KeyboardInterrupt)])
def test_a_worker_that_ends_with_the_run_is_no_crash(signalled, expected):
    with pytest.raises(expected), worker_crashes_as_errors(lambda: signalled):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Alarm clock.")
