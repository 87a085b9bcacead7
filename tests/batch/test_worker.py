"""A worker keeps its models and encoded sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batches import TINY, write_shots
from shots import face_clip, portrait

from fommctl.animate import animator
from fommctl.animate.config import AnimateConfig, ModelChoice
from fommctl.animate.engine import Engine
from fommctl.batch.jobs import Job
from fommctl.batch.worker import Rendered, make_worker
from fommctl.detection import detectors as searches
from fommctl.detection.framing import ClipCrop
from fommctl.media.reader import Clip

TINY_CHOICE = ModelChoice(model=str(TINY[1]), preset=str(TINY[3]), precision="fp32")


def report(done: int, total: int | None) -> None:
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
    work = make_worker("cpu")
    for number, (source, driving) in enumerate([("a", "d1"), ("a", "d2"), ("b", "d1"), ("a", "d3")]):
        config = AnimateConfig(
            source=tmp_path / f"{source}.png", driving=tmp_path / f"{driving}.mp4", output=tmp_path / f"{number}.mkv",
            crop="none",
        )  # fmt: skip
        outcome = work(Job(number=number, where=f"line {number}", config=config, choice=TINY_CHOICE), report)
        assert isinstance(outcome, Rendered)
        assert outcome.fingerprint is not None
        assert outcome.fingerprint.size == (tmp_path / f"{number}.mkv").stat().st_size
    assert loads == [((TINY_CHOICE.model,), "cpu")]
    context = engines[0].encoded([np.zeros((64, 64, 3), np.uint8)])
    assert engines[0].encoded([np.zeros((64, 64, 3), np.uint8)]) is context


def test_a_driving_video_is_searched_once_and_the_frames_are_those_of_one_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    portrait(tmp_path / "a.png")
    portrait(tmp_path / "b.png", 200)
    clip = face_clip(tmp_path / "d.mp4", count=4)
    searched: list[Path] = []
    search = searches.crops_in_clip

    def counted(clip: Clip, *arguments: Any, **options: Any) -> tuple[ClipCrop, ...]:
        searched.append(clip.path)
        return search(clip, *arguments, **options)

    monkeypatch.setattr(searches, "crops_in_clip", counted)
    work = make_worker("cpu")

    def render(source: str, output: str, render_with: Callable[..., object]) -> bytes:
        config = AnimateConfig(source=tmp_path / source, driving=clip, output=tmp_path / output)
        job = Job(number=1, where="line 1", config=config, choice=ModelChoice(precision="fp32"))
        assert isinstance(render_with(job, report), Rendered)
        return (tmp_path / output).read_bytes()

    together = [render("a.png", "1.mkv", work), render("b.png", "2.mkv", work)]
    assert searched == [clip]
    assert together == [render("a.png", "3.mkv", make_worker("cpu")), render("b.png", "4.mkv", make_worker("cpu"))]
    assert len(searched) == 3
    face_clip(clip, count=3)
    render("a.png", "5.mkv", work)
    assert len(searched) == 4  # another clip with the same name
