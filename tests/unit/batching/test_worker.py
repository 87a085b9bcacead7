"""A worker keeps its models and the sources that it has encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from batches import TINY, write_shots

from fommctl.stages import animator
from fommctl.stages.batching.jobs import Job, ModelChoice
from fommctl.stages.batching.worker import Done, Failed, prepare
from fommctl.stages.engine import Engine
from fommctl.stages.options import AnimateConfig

TINY_CHOICE = ModelChoice(model=str(TINY[1]), preset=str(TINY[3]), precision="fp32")


def tell(done: int, total: int | None) -> None:
    pass


def test_a_model_is_loaded_and_a_source_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shots(tmp_path)
    loads: list[object] = []
    engines: list[Engine] = []
    load = animator.load

    def counted(*arguments: object, **options: object) -> Engine:
        loads.append((arguments, options["device"]))
        engines.append(load(*arguments, **options))  # type: ignore[arg-type]
        return engines[-1]

    monkeypatch.setattr(animator, "load", counted)
    work = prepare("cpu")
    for number, (source, driving) in enumerate([("a", "d1"), ("a", "d2"), ("b", "d1"), ("a", "d3")]):
        config = AnimateConfig(
            source=tmp_path / f"{source}.png", driving=tmp_path / f"{driving}.mp4", output=tmp_path / f"{number}.mkv",
            crop="none",
        )  # fmt: skip
        outcome = work(Job(number=number, where=f"line {number}", config=config, choice=TINY_CHOICE), tell)
        assert isinstance(outcome, Done)
        assert outcome.stamp is not None
        assert outcome.stamp.size == (tmp_path / f"{number}.mkv").stat().st_size
    assert loads == [((TINY_CHOICE.model,), "cpu")]
    context = engines[0].encoded([np.zeros((64, 64, 3), np.uint8)])
    assert engines[0].encoded([np.zeros((64, 64, 3), np.uint8)]) is context


def test_no_error_leaves_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = AnimateConfig(source=tmp_path / "a.png", driving=tmp_path / "d.mp4", output=tmp_path / "o.mkv")
    job = Job(number=1, where="line 1", config=config, choice=TINY_CHOICE)
    work = prepare("cpu")
    outcome = work(job, tell)
    assert isinstance(outcome, Failed)
    assert (outcome.exit_code, outcome.fatal) == (3, False)
    assert outcome.message.endswith("d.mp4 does not exist")
    for error, code, fatal in ((OSError(28, "No space left on device"), 3, True), (ZeroDivisionError("x"), 1, False)):

        def fail(*arguments: object, error: Exception = error, **options: object) -> None:
            raise error

        monkeypatch.setattr(animator, "load", fail)
        outcome = prepare("cpu")(job, tell)
        assert isinstance(outcome, Failed)
        assert (outcome.exit_code, outcome.fatal) == (code, fatal)
