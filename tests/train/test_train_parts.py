"""The parts of a training run: schedule, average, state, landmarks, stopping, a single step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fommctl.api.protocols import Detection
from fommctl.api.specs import DetectorSpec
from fommctl.api.training import PhaseResult, ThinPlateTransform, TrainingBatch, TrainingPhase, TrainingView
from fommctl.errors import ModelError
from fommctl.train import state as training_state
from fommctl.train.loop import stoppable
from fommctl.train.pairs import Landmarks
from fommctl.train.step import Schedule, TrainingStep, WeightAverage
from fommctl_fomm.sections import TrainParams


def params(**changes: object) -> TrainParams:
    return TrainParams.model_validate({"num_epochs": 10, "batch_size": 2, **changes})


def test_rates_fall_by_ten_at_each_milestone() -> None:
    schedule = Schedule(params(epoch_milestones=[6, 3]), steps_per_epoch=4)
    assert schedule.total == 40
    assert [schedule.epoch(step) for step in (0, 3, 4, 39)] == [0, 0, 1, 9]
    assert [schedule.rate(step) for step in (0, 11, 12, 23, 24, 39)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_rates_rise_over_the_warm_up_and_fall_along_half_a_cosine() -> None:
    schedule = Schedule(params(schedule="cosine", warmup_steps=4), steps_per_epoch=4, max_steps=8)
    assert schedule.total == 8
    # cos(pi step / 8): 1, 0.9238795, 0.7071068, 0.3826834, 0, ...
    wanted = [0.25 * 1, 0.5 * 0.9619398, 0.75 * 0.8535534, 0.6913417, 0.5, 0.3086583, 0.1464466, 0.0380602]
    assert [schedule.rate(step) for step in range(8)] == pytest.approx(wanted, abs=1e-6)
    assert Schedule(params(warmup_steps=2), 4).rate(0) == 0.5


@pytest.mark.parametrize(
    ("changes", "steps_per_epoch", "saved"),
    [
        ({}, 3, [3, 6, 9, 12]),
        ({"checkpoint_every_steps": 5}, 3, [5, 10, 12]),
        ({"checkpoint_every_steps": 5, "checkpoint_freq": 2}, 3, [5, 6, 10, 12]),
    ],
)
def test_checkpoints_are_due(changes: Mapping[str, object], steps_per_epoch: int, saved: list[int]) -> None:
    schedule = Schedule(params(**changes), steps_per_epoch, max_steps=12)
    assert [done for done in range(1, 13) if schedule.saves_after(done)] == saved


def test_long_epochs_are_saved_every_thousand_steps_and_where_one_is_kept_for_good() -> None:
    schedule = Schedule(params(checkpoint_freq=2), 1500)
    assert [done for done in range(1, 4001) if schedule.saves_after(done)] == [1000, 2000, 3000, 4000]
    assert [done for done in range(1, 10001) if schedule.keeps_after(done)] == [3000, 6000, 9000]
    odd = Schedule(params(checkpoint_freq=1), 1501)
    assert [done for done in range(1, 4000) if odd.saves_after(done)] == [1000, 1501, 2000, 3000, 3002]


def network(weight: float) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(layers[0].weight, weight)
    return layers


def test_the_average_follows_weights_and_statistics_and_copies_counters() -> None:
    live = network(1.0)
    average = WeightAverage({"net": live}, decay=0.5)
    weights = []
    for step, weight in enumerate((2.0, 3.0, 5.0)):
        nn.init.constant_(live[0].weight, weight)
        live[1].running_mean.fill_(weight)
        live[1].num_batches_tracked.fill_(step + 1)
        average.update(step)
        weights.append(average.modules["net"][0].weight.item())
    # Decays 1/10, 2/11, 3/12: (0.1 + 1.8), (2/11 1.9 + 9/11 3), (1/4 and 3/4).
    assert weights == pytest.approx([1.9, 2.8, 0.25 * 2.8 + 0.75 * 5])
    # From 0: 0.9 2, (2/11 1.8 + 9/11 3), (1/4 and 3/4).
    assert average.modules["net"][1].running_mean.item() == pytest.approx(0.25 * (3.6 + 27) / 11 + 0.75 * 5)
    assert average.modules["net"][1].num_batches_tracked.item() == 3
    average.update(1000)
    assert average.modules["net"][0].weight.item() == pytest.approx(0.5 * 4.45 + 0.5 * 5)
    assert not average.modules["net"][0].weight.requires_grad


def test_inside_applied_the_networks_hold_the_average_and_get_their_own_weights_back() -> None:
    live = network(1.0)
    average = WeightAverage({"net": live}, decay=0.5)
    nn.init.constant_(live[0].weight, 7.0)
    with average.applied():
        assert live[0].weight.item() == 1
    assert live[0].weight.item() == 7
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert live[0].weight.item() == 7
    other = WeightAverage({"net": network(3.0)}, decay=0.5)
    other.load_state_dict(average.state_dict())
    assert other.modules["net"][0].weight.item() == 1


class Toy:
    """y = weight x, trained by plain gradient descent in two phases, the second of which receives the first one's
    result."""

    def __init__(self) -> None:
        self.first, self.second = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        for layer in (self.first, self.second):
            nn.init.constant_(layer.weight, 2.0)

    def needed_groups(self) -> list[str]:
        return list(self.modules())

    def modules(self) -> Mapping[str, nn.Module]:
        return {"first": self.first, "second": self.second}

    def training(self, params: TrainParams, perceptual: object) -> list[TrainingPhase]:
        toy = self

        class First(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = toy.first

            def forward(self, batch: TrainingBatch, generated: object) -> PhaseResult:
                assert generated is None
                painted = self.layer(batch.source.flatten()[:1])
                # Leaves a gradient in the other network, which is not part of this phase.
                losses = {"a": (3 * painted).sum() + 0 * toy.second.weight.sum(), "b": painted.sum() / 2}
                return PhaseResult(losses, painted.detach(), TrainingView(batch.source, batch.driving, batch.driving))

        class Second(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = toy.second

            def forward(self, batch: TrainingBatch, generated: torch.Tensor) -> PhaseResult:
                return PhaseResult({"c": self.layer(generated).sum()})

        return [
            TrainingPhase("first", First(), {"one": torch.optim.SGD(self.first.parameters(), lr=0.1)}),
            TrainingPhase("second", Second(), {"two": torch.optim.SGD(self.second.parameters(), lr=1.0)}),
        ]


def batch() -> TrainingBatch:
    ones = torch.ones(1, 3, 2, 2)
    return TrainingBatch(ones, ones, ThinPlateTransform.random(1, sigma_affine=0, sigma_tps=None, points_tps=None))


def step(toy: Toy, **changes: object) -> TrainingStep:
    return TrainingStep(toy, params(**changes), torch.device("cpu"), "fp32")  # type: ignore[arg-type]


def test_phases_follow_one_another_each_with_its_own_gradients() -> None:
    toy = Toy()
    trained = step(toy)
    result = trained(batch())
    assert result.losses == {"a": 6, "b": 1, "c": 4}
    assert result.gradient_norms == {"one": 3.5, "two": 2}
    assert result.view is not None
    assert (toy.first.weight.item(), toy.second.weight.item()) == pytest.approx((2 - 0.35, 2 - 2))


def test_gradients_are_scaled_down_to_the_limit() -> None:
    toy = Toy()
    result = step(toy, max_grad_norm=0.5)(batch())
    assert result.gradient_norms == {"one": 3.5, "two": 2}
    assert (toy.first.weight.item(), toy.second.weight.item()) == pytest.approx((2 - 0.05, 2 - 0.5), abs=1e-5)


def test_rates_are_shares_of_those_of_the_preset() -> None:
    trained = step(Toy())
    assert trained.rate == 0.1
    for factor in (0.5, 0.1):
        trained.set_rate(factor)
        rates = [group["lr"] for optimiser in trained.optimisers.values() for group in optimiser.param_groups]
        assert rates == pytest.approx([0.1 * factor, factor])
        assert trained.rate == pytest.approx(0.1 * factor)


def test_the_losses_of_all_processes_are_averaged() -> None:
    toy = Toy()
    one = TrainingStep(toy, params(), torch.device("cpu"), "fp32", mean=lambda values: values + 1)  # type: ignore[arg-type]
    assert one(batch()).losses == {"a": 7, "b": 2, "c": 5}


def saved(tmp_path: Path, average: WeightAverage | None = None, **changes: object) -> Path:
    toy = Toy()
    progress = training_state.Progress(7, best=0.1, validation=0.2, seed=3)
    entries = training_state.content(toy, step(toy), average, progress, 2, "a: 1")  # type: ignore[arg-type]
    path = tmp_path / "step.pt"
    torch.save({**entries, **changes}, path)
    return path


def test_state_comes_back(tmp_path: Path) -> None:
    source = Toy()
    path = saved(tmp_path, WeightAverage(source.modules(), 0.9))
    entries = training_state.read(path)
    assert entries["epoch"] == 2
    assert training_state.progress(entries) == training_state.Progress(7, 0.1, 0.2, 3)
    toy = Toy()
    nn.init.constant_(toy.first.weight, 9.0)
    average = WeightAverage(toy.modules(), 0.9)
    drawn = torch.rand(1)
    torch.set_rng_state(entries["random_state"])
    wanted = torch.rand(1)
    training_state.restore(entries, path, toy, step(toy), average)  # type: ignore[arg-type]
    assert torch.equal(torch.rand(1), wanted)
    assert not torch.equal(drawn, wanted)
    assert toy.first.weight.item() == average.modules["first"].weight.item() == 2


def test_a_run_that_kept_no_average_starts_one_from_its_weights(tmp_path: Path) -> None:
    path = saved(tmp_path)
    toy = Toy()
    average = WeightAverage({"first": nn.Linear(1, 1, bias=False)}, 0.9)
    training_state.restore(training_state.read(path), path, toy, step(toy), average)  # type: ignore[arg-type]
    assert average.modules["first"].weight.item() == 2


PROGRESS = {"step": 1, "best": None, "validation": None, "seed": 0}
WRONG: tuple[dict[str, object], ...] = (
    {"step": "many"},
    {"step": float("inf")},
    {"step": None},
    {"seed": -1},
    {"best": "x"},
)


@pytest.mark.parametrize("progress", [None, {"step": 1}, *({**PROGRESS, **wrong} for wrong in WRONG)], ids=str)
def test_a_checkpoint_that_does_not_say_where_it_was(progress: Mapping[str, object] | None, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not record the progress of its run"):
        training_state.read(saved(tmp_path, fommctl=progress))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": {"weight": torch.zeros(2, 2)}}, "does not fit this preset: Error.* in loading state_dict"),
        ({"two": {"state": {}, "param_groups": []}}, "does not fit this preset: loaded state dict"),
        ({"random_state": torch.zeros(3, dtype=torch.uint8)}, "does not fit this preset: "),
    ],
)
def test_a_checkpoint_that_does_not_fit(changes: Mapping[str, object], message: str, tmp_path: Path) -> None:
    path = saved(tmp_path, **changes)
    entries = training_state.read(path)
    toy = Toy()
    with pytest.raises(ModelError, match=message) as caught:
        training_state.restore(entries, path, toy, step(toy), None)  # type: ignore[arg-type]
    assert "options that the run was started with" in str(caught.value.hint)


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "step.pt"
    for content in (b"", b"PK\x03\x04 and more", b"\x80\x02."):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="damaged or not a checkpoint"):
            training_state.read(path)
    torch.save({"generator": {}}, path)
    with pytest.raises(ModelError, match="not a checkpoint of a fommctl run") as caught:
        training_state.read(path)
    assert "--init-from" in str(caught.value.hint)


def test_in_another_thread_signals_stay_as_they_are() -> None:
    found: list[object] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with stoppable(60) as stop:
            found.extend((signal.getsignal(signal.SIGTERM) is before, stop.due))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True, False]


def test_landmarks_are_those_of_the_surest_subject() -> None:
    built = []

    class Detector:
        def __init__(self) -> None:
            built.append(self)

        def detect(self, frames: list[np.ndarray]) -> list[list[Detection]]:
            marks = [np.full((2, 2), frame.mean(), np.float32) for frame in frames]
            box = (0.0, 0.0, 1.0, 1.0)
            sure = [[Detection(box, 0.9, mark), Detection(box, 0.2, mark + 50)] for mark in marks]
            return [found if frame.any() else [] for found, frame in zip(sure, frames, strict=True)]

    find = Landmarks(DetectorSpec(name="two", summary="", subject="face", build=Detector, landmarks=2))
    assert built == []
    first, none = find([np.full((4, 4, 3), 9, np.uint8), np.zeros((4, 4, 3), np.uint8)])
    assert first is not None
    assert (first.tolist(), none) == ([[9, 9], [9, 9]], None)
    find([])
    assert len(built) == 1
