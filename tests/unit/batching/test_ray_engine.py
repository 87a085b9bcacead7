"""Who does what when on Ray, and what is said where there is none. The workers are real; that they are processes on a
cluster is tested in e2e/test_batch_ray.py."""

from __future__ import annotations

import platform
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from batches import GOLDEN, hidden, write_shots

from fommctl.animate.config import AnimateConfig
from fommctl.batch import ray_engine
from fommctl.batch.divided import Begin, Join, Render
from fommctl.batch.jobs import Job, ModelChoice
from fommctl.batch.ray_engine import _Run
from fommctl.batch.ray_worker import RayWorker, Task
from fommctl.batch.run import BatchConfig
from fommctl.batch.worker import Done, Failed
from fommctl.errors import UsageError
from fommctl.workers import Died, TimedOut, Wait

pytestmark = pytest.mark.usefixtures("one_thread")
CHOICE = ModelChoice(
    model=str(GOLDEN / "vox-tiny.pth.tar"), preset=str(GOLDEN / "vox-tiny.model_params.yaml"), device="cpu",
    precision="fp32",
)  # fmt: skip
FRAMES = 24


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    return write_shots(tmp_path_factory.mktemp("shots"), frames=FRAMES)


@pytest.fixture(scope="module")
def worker():
    return RayWorker("cpu", 1)


def job_of(folder: Path, output: Path, number: int = 1, **options: Any) -> Job:
    config = AnimateConfig(
        source=folder / "a.png", driving=folder / f"d{number}.mp4", output=output, **{"crop": "none", **options}
    )
    return Job(number=number, where=f"line {number}", config=config, choice=CHOICE)


class Crew:
    """Does what a crew of so many workers does, one task after the other, in this process."""

    def __init__(self, worker: RayWorker, size: int, instead: Callable[[Task], Any] = lambda task: None) -> None:
        """instead(task): in the place of its result, unless None."""
        self.worker, self.size, self.instead = worker, size, instead
        self.given: list[list[str]] = []
        """Kinds of the tasks that were at work at once."""
        self.done: list[Task] = []
        self._at_work: deque[Task] = deque()
        self.interrupted: list[Task] = []

    @property
    def idle(self) -> int:
        return self.size - len(self._at_work)

    def give(self, task: Task) -> None:
        self._at_work.append(task)
        assert len(self._at_work) <= self.size

    def heard(self, seconds: float, tell: Callable[..., None]) -> list[tuple[Task, Any]]:
        self.given.append([type(task.step).__name__ if task.step else "whole" for task in self._at_work])
        if not self._at_work:
            time.sleep(min(seconds, 0.01))
            return []
        task = self._at_work.popleft()
        self.done.append(task)
        if task in self.interrupted:
            return [(task, Failed(message="stopped", hint=None, exit_code=130))]
        tell(task, 1, FRAMES)
        result = self.instead(task)
        return [(task, self.worker.do(task) if result is None else result)]

    def interrupt(self, tasks: Iterable[Task]) -> None:
        self.interrupted += tasks

    def drop(self, tasks: Iterable[Task]) -> None:
        self._at_work = deque(task for task in self._at_work if task not in list(tasks))

    def close(self) -> None:
        self._at_work.clear()


def outcomes(jobs: Iterable[Job | Wait], crew: Crew, split: int | None = 1, timeout: float | None = None) -> dict:
    run = _Run(iter(jobs), crew, split, crew.size, timeout, lambda job, done, total: None)  # type: ignore[arg-type]
    return {job.number: result for job, result in run.outcomes()}


def test_jobs_wait_until_a_worker_is_free(shots, tmp_path, worker):
    taken = []

    def jobs():
        for number in (1, 2, 3):
            taken.append(number)
            yield job_of(shots, tmp_path / f"{number}.mkv", number)

    crew = Crew(worker, 2, lambda task: assert_at_most(taken, len(crew.done) + 1))
    found = outcomes(jobs(), crew)
    assert [type(result) for result in found.values()] == [Done] * 3
    assert crew.given == [["whole", "whole"], ["whole", "whole"], ["whole"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.mkv", "2.mkv", "3.mkv"]


def assert_at_most(taken: list[int], number: int) -> None:
    assert len(taken) <= number


def test_a_pause_is_kept_and_ends_with_a_job(shots, tmp_path, worker):
    found = outcomes(
        [job_of(shots, tmp_path / "1.mkv"), Wait(100), job_of(shots, tmp_path / "2.mkv", 2), Wait(0.05)],
        Crew(worker, 2),
    )
    assert sorted(found) == [1, 2]


def test_segments_are_rendered_at_once_and_joined(shots, tmp_path, worker):
    crew = Crew(worker, 2)
    found = outcomes([job_of(shots, tmp_path / "1.mkv")], crew, split=3)
    assert found[1].result["frames"] == FRAMES
    assert crew.given == [["Begin"], ["Render", "Render"], ["Render", "Render"], ["Render"], ["Join"]]
    outcomes([job_of(shots, tmp_path / "whole.mkv")], Crew(worker, 1))
    assert (tmp_path / "1.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert hidden(tmp_path) == []


def test_all_segments_are_rendered_in_the_precision_of_the_first_worker(shots, tmp_path, worker):
    job = job_of(shots, tmp_path / "1.mkv")
    choice = ModelChoice(model=CHOICE.model, preset=CHOICE.preset)
    crew = Crew(worker, 2)
    found = outcomes([Job(number=1, where="line 1", config=job.config, choice=choice)], crew, split=2)
    precisions = [task.job.choice.precision for task in crew.done]
    assert precisions == ["auto"] + [found[1].result["precision"]] * 3


@pytest.mark.parametrize(("shortest", "expected"), [(8, "Begin"), (13, "whole")])
def test_auto_divides_a_long_video_where_no_other_job_waits(shots, tmp_path, worker, monkeypatch, shortest, expected):
    monkeypatch.setattr(ray_engine, "SHORTEST_SEGMENT", shortest)
    crew = Crew(worker, 2)
    jobs = [job_of(shots, tmp_path / f"{number}.mkv", number) for number in (1, 2, 3)]
    found = outcomes(jobs, crew, split=None)
    assert len(found) == 3
    kinds = [type(task.step).__name__ if task.step else "whole" for task in crew.done]
    assert kinds[:2] == ["whole", "whole"]
    assert kinds[2:] == (["Begin", "Render", "Render", "Join"] if expected == "Begin" else ["whole"])


def test_a_lost_job_is_told_and_a_lost_segment_is_rendered_again(shots, tmp_path, worker):
    lost = []

    def lose(task):
        if isinstance(task.step, Render) and task.step.frames.first > 1 and len(lost) < 2:
            lost.append(task)
            return Died("its worker died")
        return Died("its worker died") if task.step is None else None

    found = outcomes([job_of(shots, tmp_path / "1.mkv")], Crew(worker, 2, lose), split=3)
    assert isinstance(found[1], Done)
    assert len(lost) == 2
    found = outcomes([job_of(shots, tmp_path / "2.mkv", 2)], Crew(worker, 2, lose))
    assert found[2] == Died("its worker died")


@pytest.mark.parametrize("kind", [Begin, Render, Join])
def test_what_is_lost_three_times_is_given_up(shots, tmp_path, worker, kind):
    crew = Crew(worker, 2, lambda task: Died("its worker died") if isinstance(task.step, kind) else None)
    found = outcomes([job_of(shots, tmp_path / "1.mkv")], crew, split=3)
    assert found[1] == Died("its worker died")
    assert hidden(tmp_path) == []


def test_a_segment_that_fails_ends_the_job(shots, tmp_path, worker):
    failure = Failed(message="the disk is full", hint=None, exit_code=3, fatal=True)
    crew = Crew(
        worker, 3, lambda task: failure if isinstance(task.step, Render) and task.step.frames.first == 1 else None
    )
    found = outcomes([job_of(shots, tmp_path / "1.mkv")], crew, split=3)
    assert found[1] == failure
    assert len(crew.interrupted) >= 2
    assert list(tmp_path.iterdir()) == []


def test_animations_are_divided_too(shots, tmp_path, worker):
    crew = Crew(worker, 3)
    assert isinstance(outcomes([job_of(shots, tmp_path / "1.gif")], crew, split=3)[1], Done)
    assert type(crew.done[-1].step) is Join
    outcomes([job_of(shots, tmp_path / "whole.gif")], Crew(worker, 1))
    assert (tmp_path / "1.gif").read_bytes() == (tmp_path / "whole.gif").read_bytes()
    assert hidden(tmp_path) == []


def test_jobs_that_take_too_long(shots, tmp_path, worker):
    crew = Crew(worker, 3, lambda task: time.sleep(0.3) if isinstance(task.step, Render) else None)
    found = outcomes([job_of(shots, tmp_path / "1.mkv")], crew, split=3, timeout=0.2)
    assert found[1] == TimedOut("it took longer than 0.2 s")
    assert list(tmp_path.iterdir()) == []


def test_closing_it_leaves_nothing(shots, tmp_path, worker):
    crew = Crew(worker, 2)
    jobs = iter([job_of(shots, tmp_path / "1.mkv"), job_of(shots, tmp_path / "2.mkv", 2)])
    run = _Run(jobs, crew, 2, 2, None, lambda job, done, total: None)  # type: ignore[arg-type]
    found = run.outcomes()
    next(found)
    found.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.mkv"]


def test_what_a_worker_cannot_see_is_named_with_its_machine(shots, tmp_path, worker):
    cases = {
        shots / "gone.png": {"source": shots / "gone.png"},
        shots / "gone.mp4": {"driving": shots / "gone.mp4"},
        shots / "gone/%03d.png": {"driving": shots / "gone/%03d.png"},
        tmp_path / "gone": {"output": tmp_path / "gone/a.mkv"},
        tmp_path / "far": {"output": tmp_path / "far/gone/%03d.png"},
    }
    for path, changes in cases.items():
        options = {"source": shots / "a.png", "driving": shots / "d1.mp4", "output": tmp_path / "a.mkv", **changes}
        job = Job(number=1, where="line 1", config=AnimateConfig(**options), choice=CHOICE)
        result = worker.do(Task(job))
        assert isinstance(result, Failed)
        assert result.message == f"{path} is not to be seen on {platform.node()}"
        assert "storage" in (result.hint or "")
        assert worker.do(Task(job, Begin(job.config, 2, 1, tmp_path / "parts"))) == result
    lost = ModelChoice(model=str(tmp_path / "model.pth.tar"))
    job = Job(number=1, where="line 1", config=job_of(shots, tmp_path / "a.mkv").config, choice=lost)
    assert worker.do(Task(job)).message == f"{tmp_path / 'model.pth.tar'} is not to be seen on {platform.node()}"


def test_a_worker_stops_at_the_next_frames(shots, tmp_path):
    worker = RayWorker("cpu", 1)
    tell = worker._tell

    def stopped(done, total):
        worker.stop()
        tell(done, total)

    worker._tell = stopped  # type: ignore[method-assign]
    result = worker.do(Task(job_of(shots, tmp_path / "1.mkv")))
    assert isinstance(result, Failed)
    assert result.exit_code == 130
    assert worker.progress()[0] > 0
    assert list(tmp_path.iterdir()) == []
    worker._tell = tell  # type: ignore[method-assign]
    assert isinstance(worker.do(Task(job_of(shots, tmp_path / "1.mkv"))), Done)


def test_options_that_do_not_go_together(tmp_path):
    for options in ({"address": "auto"}, {"split": 2}, {"split": None}):
        with pytest.raises(UsageError, match="belong to Ray"):
            BatchConfig(jobs=tmp_path / "jobs.csv", **options)
    with pytest.raises(UsageError, match="needs workers"):
        BatchConfig(jobs=tmp_path / "jobs.csv", engine="ray", workers=0)
    with pytest.raises(UsageError, match="--split is 0"):
        BatchConfig(jobs=tmp_path / "jobs.csv", engine="ray", split=0)
