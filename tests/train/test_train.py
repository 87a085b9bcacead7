"""Training runs: their files, how they end, and that resumed runs equal uninterrupted ones."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs
from PIL import Image
from small_disk import files_up_to
from training_runs import (
    COSINE,
    MILESTONES,
    SIDE,
    STEPS,
    assert_same_checkpoint,
    assert_same_model,
    config,
    lines,
    names,
    train,
)

from fommctl.errors import InputError, InterruptedRunError, ModelError, OutputError, UsageError
from fommctl.host import Host, load_host
from fommctl.models.checkpoint import read_checkpoint
from fommctl.models.loading import load_model
from fommctl.train.logs import LABEL_HEIGHT
from fommctl.train.run import run
from fommctl.train.run_folder import lock_run, step_checkpoint

RECIPES = {"cosine": COSINE, "milestones": MILESTONES}
pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(BaseException):
    """Ends a run like a kill: nothing more is written to files."""


def killed_after(last: int) -> Callable[[int], None]:
    def act(step: int) -> None:
        if step == last:
            raise Killed

    return act


@pytest.fixture(scope="module")
def whole(training_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Uninterrupted runs by configuration; that of `cosine` has pictures."""
    root = tmp_path_factory.mktemp("whole")
    for name, sets in RECIPES.items():
        train(config(training_clips, root / name, sets=sets, pictures_every=2 if name == "cosine" else 0), load_host())
    return {name: root / name for name in RECIPES}


def assert_as_uninterrupted(out: Path, whole: Path) -> None:
    assert lines(out) == lines(whole)
    assert_same_checkpoint(step_checkpoint(out, STEPS), step_checkpoint(whole, STEPS))
    assert_same_model(out / "model.safetensors", whole / "model.safetensors")
    assert not list(out.rglob("*.tmp"))


def test_what_a_run_leaves(whole: dict[str, Path]) -> None:
    out = whole["cosine"]
    visible = [name for name in names(out) if not name.startswith(".")]
    assert visible == ["checkpoints", "metrics.jsonl", "model.safetensors", "pictures", "preset.yaml", "tensorboard"]
    last = ["step-00000003.pt", "step-00000004.pt", "step-00000006.pt"]
    assert names(out / "checkpoints") == ["best.pt", "epoch-0001.pt", "epoch-0002.pt", *last]
    assert names(out / "pictures") == ["00000001.png", "00000002.png", "00000004.png", "00000006.png"]
    with Image.open(out / "pictures" / "00000006.png") as picture:
        # Source, driving, warped, mask, occlusion, prediction, difference; one row per pair of the batch.
        assert picture.size == (7 * SIDE, LABEL_HEIGHT + 2 * SIDE)
        assert np.asarray(picture).std() > 10
    assert [path.stat().st_size > 1000 for path in (out / "tensorboard").iterdir()] == [True]


def test_the_lines_of_the_log(whole: dict[str, Path]) -> None:
    found = lines(whole["cosine"])
    assert [(line["step"], line["epoch"]) for line in found] == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)]
    losses = {"gen_gan", "feature_matching", "equivariance_value", "equivariance_jacobian", "disc_gan"}
    assert all(set(line["losses"]) == losses for line in found)
    # A warm-up of two steps, then half a cosine over all six.
    factors = [0.5 * 1, 0.9330127, 0.75, 0.5, 0.25, 0.0669873]
    assert [line["learning_rate"] for line in found] == pytest.approx([2e-4 * factor for factor in factors])
    assert [line["step"] + 1 for line in found if "validation_l1" in line] == [2, 3, 4, 6]
    rates = [line["learning_rate"] for line in lines(whole["milestones"])]
    assert rates == pytest.approx([2e-4] * 3 + [2e-5] * 3)
    raw = json.loads((whole["cosine"] / "metrics.jsonl").read_text().splitlines()[0])
    assert raw["samples_per_s"] > 0
    assert 0 < raw["waiting"] < 1


def test_the_best_checkpoint_is_that_of_the_lowest_validation_error(whole: dict[str, Path]) -> None:
    for out in whole.values():
        scores = {line["step"] + 1: line["validation_l1"] for line in lines(out) if "validation_l1" in line}
        best = torch.load(out / "checkpoints" / "best.pt", weights_only=True)["fommctl"]
        assert (best["step"], best["best"]) == min(scores.items(), key=lambda item: item[1])
        last = torch.load(step_checkpoint(out, STEPS), weights_only=True)["fommctl"]
        assert (last["best"], last["validation"]) == (min(scores.values()), scores[STEPS])


def test_the_finished_model_is_the_average_and_says_how_it_was_made(whole: dict[str, Path], host: Host) -> None:
    out = whole["cosine"]
    checkpoint = torch.load(step_checkpoint(out, STEPS), weights_only=True)
    model = read_checkpoint(out / "model.safetensors")
    assert set(model.groups) == {"generator", "kp_detector"}
    weight = model.groups["generator"]["final.weight"]
    assert torch.equal(weight, checkpoint["average"]["generator"]["final.weight"])
    assert not torch.equal(weight, checkpoint["generator"]["final.weight"])
    training = json.loads(model.metadata["training"])
    assert (training["steps"], training["epoch"], training["pairs"], training["seed"]) == (6, 2, 12, 0)
    assert training["validation_l1"] == lines(out)[-1]["validation_l1"]
    # A run's checkpoint is a model too, with the architecture and weights of the finished one.
    assert model.metadata["preset"] == (out / "preset.yaml").read_text()
    loaded = load_model(str(step_checkpoint(out, STEPS)), host)
    assert loaded.preset.text() == model.metadata["preset"]
    assert torch.equal(loaded.backend.modules()["generator"].state_dict()["final.weight"], weight)


@pytest.mark.parametrize(("recipe", "last", "workers"), [("cosine", 1, 0), ("cosine", 4, 2), ("milestones", 5, 0)])
def test_a_killed_run_continues_as_if_nothing_had_happened(
    recipe: str, last: int, workers: int, training_clips: Path, whole: dict[str, Path], tmp_path: Path, host: Host
) -> None:
    own = config(training_clips, tmp_path / "run", sets=RECIPES[recipe], workers=workers, resume="auto")
    with pytest.raises(Killed):
        train(own, host, killed_after(last))
    # As left by a kill in the middle of a line.
    with (own.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "losses": {"gen')
    result = train(own, host)
    assert (result.steps, result.epoch, result.losses) == (STEPS, 1, lines(own.out)[-1]["losses"])
    assert_as_uninterrupted(own.out, whole[recipe])


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    training_clips: Path, whole: dict[str, Path], tmp_path: Path, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    own = config(training_clips, tmp_path / "run", resume="auto")
    with pytest.raises(Killed):
        train(own, host, killed_after(5))
    newest = step_checkpoint(own.out, 4)
    newest.write_bytes(newest.read_bytes()[:-1000])
    train(own, host)
    assert "step-00000004.pt is damaged: going back" in caplog.text
    assert_as_uninterrupted(own.out, whole["cosine"])


def test_a_finished_run_has_nothing_to_do_and_stays_as_it_is(
    training_clips: Path, whole: dict[str, Path], tmp_path: Path, host: Host
) -> None:
    own = config(training_clips, tmp_path / "run", resume="auto")
    train(own, host)
    stamp = step_checkpoint(own.out, STEPS).stat().st_mtime_ns
    result = train(own, host)
    assert (result.steps, result.losses, result.validation) == (STEPS, {}, lines(own.out)[-1]["validation_l1"])
    assert step_checkpoint(own.out, STEPS).stat().st_mtime_ns == stamp
    assert_as_uninterrupted(own.out, whole["cosine"])


def test_a_longer_run_continues_from_another_ones_checkpoint(training_clips: Path, tmp_path: Path, host: Host) -> None:
    first = config(training_clips, tmp_path / "first", sets=MILESTONES, max_steps=4, seed=3)
    assert train(first, host).model == first.out / "model.safetensors"
    second = config(training_clips, tmp_path / "second", sets=MILESTONES, resume=str(first.out))
    train(second, host)
    third = config(training_clips, tmp_path / "third", sets=MILESTONES, seed=3)
    train(third, host)
    # With the seed of the checkpoint.
    assert lines(second.out) == lines(third.out)[4:]
    assert_same_model(second.out / "model.safetensors", third.out / "model.safetensors")
    again = config(training_clips, first.out, sets=MILESTONES, resume=str(step_checkpoint(first.out, 2)))
    train(again, host)
    assert lines(first.out) == lines(third.out)
    assert "step-00000004.pt.abandoned" in names(first.out / "checkpoints")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_ends(number: signal.Signals, training_clips: Path, tmp_path: Path, host: Host) -> None:
    own = config(training_clips, tmp_path / "run", max_steps=2)
    before = signal.getsignal(number)
    with pytest.raises(
        InterruptedRunError, match=r"stopped after 1 of 2 steps; .*step-00000001\.pt is written"
    ) as caught:
        train(own, host, lambda step: signal.raise_signal(number))
    assert caught.value.exit_code == 130
    assert signal.getsignal(number) is before
    assert names(own.out / "checkpoints") == ["step-00000001.pt"]
    assert not (own.out / "model.safetensors").exists()


def test_a_second_signal_interrupts_at_once(
    training_clips: Path, whole: dict[str, Path], tmp_path: Path, host: Host
) -> None:
    own = config(training_clips, tmp_path / "run", resume="auto")

    def act(step: int) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGTERM)
            # The same signal immediately after is an echo (a cluster signals all processes, and so does their
            # launcher).
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(own, host, act)
    assert names(own.out / "checkpoints")[-2:] == ["step-00000002.pt", "step-00000003.pt"]
    train(own, host)
    assert_as_uninterrupted(own.out, whole["cosine"])


def test_a_signal_that_the_caller_ignores_stays_ignored(training_clips: Path, tmp_path: Path, host: Host) -> None:
    """As with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        own = config(training_clips, tmp_path / "run", max_steps=2)
        assert train(own, host, lambda step: signal.raise_signal(signal.SIGHUP)).steps == 2
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("there", [False, True])
def test_what_ends_before_the_first_step_leaves_nothing(
    there: bool, training_clips: Path, tmp_path: Path, host: Host
) -> None:
    own = config(training_clips, tmp_path / "runs" / "one")
    if there:
        own.out.mkdir(parents=True)

    def asked(total: int, first: int):
        signal.raise_signal(signal.SIGTERM)
        return training_runs.after_steps(lambda step: None)(total, first)

    with pytest.raises(InterruptedRunError, match="before the first step"):
        run(own, host, observe=asked)

    def interrupted(total: int, first: int):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(own, host, observe=interrupted)
    assert [path.name for path in tmp_path.rglob("*")] == (["runs", "one"] if there else [])


def test_a_folder_that_is_not_empty_is_refused_and_kept(training_clips: Path, tmp_path: Path, host: Host) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(config(training_clips, tmp_path), host)
    with lock_run(tmp_path / "run"), pytest.raises(UsageError, match="another training"):
        train(config(training_clips, tmp_path / "run", resume="auto"), host)
    assert names(tmp_path) == ["notes.txt"]


def test_a_full_disk_leaves_the_last_good_checkpoint(
    training_clips: Path, whole: dict[str, Path], tmp_path: Path, host: Host
) -> None:
    own = config(training_clips, tmp_path / "run", resume="auto")
    with ExitStack() as disk, pytest.raises(OutputError, match="the disk is full") as caught:
        train(own, host, lambda step: disk.enter_context(files_up_to(50_000)) if step == 3 else None)
    assert caught.value.exit_code == 3
    assert "--resume auto" in str(caught.value.hint)
    assert names(own.out / "checkpoints")[-2:] == ["step-00000002.pt", "step-00000003.pt"]
    assert not list(own.out.rglob("*.tmp"))
    train(own, host)
    assert_as_uninterrupted(own.out, whole["cosine"])


def test_a_score_that_is_no_number_is_never_the_best(
    training_clips: Path, tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([float("nan"), 0.5, float("nan"), 0.4, *[0.9] * STEPS])
    monkeypatch.setattr("fommctl.train.loop.reconstruction_error", lambda *_: next(scores))
    own = config(training_clips, tmp_path / "run", sets=("train_params.checkpoint_every_steps=1",))
    train(own, host)
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)["fommctl"]
    assert (best["step"], best["best"]) == (4, 0.4)


def test_a_worker_that_the_system_ends_is_no_bug(training_clips: Path, tmp_path: Path, host: Host) -> None:
    def act(step: int) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(InputError, match="the system killed"):
        train(
            config(training_clips, tmp_path / "run", sets=(*COSINE, "train_params.num_repeats=20"), workers=1),
            host,
            act,
        )


def test_a_damaged_resume_file_is_reported(
    training_clips: Path, tmp_path: Path, host: Host, whole: dict[str, Path]
) -> None:
    content = torch.load(step_checkpoint(whole["cosine"], 3), weights_only=True)
    content["fommctl"] |= {"seed": -1}
    torch.save(content, tmp_path / "damaged.pt")
    with pytest.raises(ModelError, match="does not record the progress of its run"):
        train(config(training_clips, tmp_path / "run", resume=str(tmp_path / "damaged.pt")), host)
    content["fommctl"] = {"step": 3, "best": float("nan"), "validation": None, "seed": 0}
    content["optimizer_generator"] = {"state": [], "param_groups": "x"}
    torch.save(content, tmp_path / "damaged.pt")
    with pytest.raises(ModelError, match="does not fit this preset"):
        train(config(training_clips, tmp_path / "run", resume=str(tmp_path / "damaged.pt")), host)


def test_losses_that_are_no_numbers_end_the_run(training_clips: Path, tmp_path: Path, host: Host) -> None:
    own = config(
        training_clips,
        tmp_path / "run",
        sets=("train_params.checkpoint_every_steps=1", "train_params.lr_generator=1e30"),
    )
    with pytest.raises(ModelError, match=r"is not finite at step \d; training stopped") as caught:
        train(own, host)
    assert caught.value.exit_code == 4
    assert "max_grad_norm" in str(caught.value.hint)
    newest = names(own.out / "checkpoints")[-1]
    assert str(own.out / "checkpoints" / newest) in str(caught.value.hint)
    # Reading reports a weight that is not a number.
    assert read_checkpoint(own.out / "checkpoints" / newest).groups
    assert all(np.isfinite(list(line["losses"].values())).all() for line in lines(own.out))


def test_weights_that_are_no_numbers_are_not_saved(
    training_clips: Path, tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = torch.optim.Adam.step

    def broken(self: torch.optim.Adam, *arguments: object) -> object:
        result = step(self, *arguments)
        self.param_groups[0]["params"][0].data.fill_(float("nan"))
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", broken)
    with pytest.raises(ModelError, match="weights of generator are not finite after step 1"):
        train(config(training_clips, tmp_path / "run", max_steps=1), host)


def test_the_end_comes_by_steps_or_by_time(training_clips: Path, tmp_path: Path, host: Host) -> None:
    own = config(training_clips, tmp_path / "run", max_time=1e-6, resume="auto")
    result = train(own, host)
    assert (result.steps, result.model, result.checkpoint) == (1, None, step_checkpoint(own.out, 1))
    result = train(config(training_clips, own.out, max_steps=2, resume="auto"), host)
    assert (result.steps, result.model) == (2, own.out / "model.safetensors")


def test_a_seed_decides_everything(training_clips: Path, whole: dict[str, Path], tmp_path: Path, host: Host) -> None:
    for seed in (0, 1):
        train(config(training_clips, tmp_path / str(seed), seed=seed, max_steps=2, sets=MILESTONES), host)
    assert lines(tmp_path / "0") == lines(whole["milestones"])[:2]
    first, other = (lines(tmp_path / seed)[0]["losses"] for seed in "01")
    assert all(first[name] != other[name] for name in first)


def test_gradients_are_clipped_and_their_norms_reported(training_clips: Path, tmp_path: Path, host: Host) -> None:
    """The first step's norms are those before clipping; after it, the weights differ."""
    for name, sets in (("free", ()), ("clipped", ("train_params.max_grad_norm=1e-9",))):
        train(config(training_clips, tmp_path / name, sets=sets, max_steps=2), host)
    free, clipped = lines(tmp_path / "free"), lines(tmp_path / "clipped")
    norms = {f"norm_optimizer_{name}" for name in ("generator", "kp_detector", "discriminator")}
    assert norms <= set(free[0])
    # All is as before, except the discriminator, which sees a prediction made before its step.
    assert clipped[0] == free[0]
    # Gradients this small vanish next to Adam's epsilon.
    assert clipped[1]["losses"] != free[1]["losses"]


def test_so_many_checkpoints_are_kept(training_clips: Path, tmp_path: Path, host: Host) -> None:
    sets = ("train_params.checkpoint_every_steps=1", "train_params.checkpoint_freq=100")
    train(config(training_clips, tmp_path / "run", sets=sets, keep=2), host)
    assert names(tmp_path / "run" / "checkpoints") == ["best.pt", "step-00000005.pt", "step-00000006.pt"]


def test_bf16_trains_in_the_neighbourhood_of_fp32(
    training_clips: Path, whole: dict[str, Path], tmp_path: Path, host: Host
) -> None:
    train(config(training_clips, tmp_path / "run", sets=MILESTONES, precision="bf16", max_steps=2), host)
    for found, wanted in zip(lines(tmp_path / "run"), lines(whole["milestones"]), strict=False):
        assert found["losses"] == pytest.approx(wanted["losses"], rel=0.2, abs=0.05)
        assert found["losses"] != wanted["losses"]
