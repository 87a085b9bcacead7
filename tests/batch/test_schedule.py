"""Which jobs run, why, in which order, and what happens to those that fail."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fommctl.animate.config import AnimateConfig, ModelChoice
from fommctl.batch.jobs import Job
from fommctl.batch.keys import Hashes, Key, key_of
from fommctl.batch.run import by_model
from fommctl.batch.schedule import Ended, Planned, Schedule, may_replace, plan_job
from fommctl.batch.status import OutputLocks, Status, output_fingerprint
from fommctl.batch.worker import Rendered
from fommctl.errors import OutputError, UsageError
from fommctl.media.marking import Mark
from fommctl.media.writer import Writer
from fommctl.workers import Backoff, Done, Failed, TimedOut, WorkerCrashed

PLAIN = ModelChoice()
KEY = Key("k", {"source": "s", "driving": "d"})


class Silent:
    """An observer that does nothing."""

    def started(self, job: Job, attempt: int) -> None:
        pass

    def progress(self, job: Job, done: int, total: int | None) -> None:
        pass

    def failed_once(self, job: Job, message: str) -> None:
        pass

    def ended(self, ended: Ended) -> None:
        pass


def job_of(folder: Path, number: int = 1, choice: ModelChoice = PLAIN, **options) -> Job:
    config = AnimateConfig(
        source=folder / "a.png", driving=folder / "d.mp4", output=folder / f"{number}.mkv", **options
    )
    return Job(number=number, where=f"line {number}", config=config, choice=choice)


def status_of(folder: Path) -> Status:
    status = Status(folder / "status.jsonl")
    status.refresh()
    return status


def schedule_of(folder: Path, count: int, *, retry: int = 0, fail_fast: bool = False) -> Schedule:
    planned = [Planned(job_of(folder, number), KEY, "new") for number in range(1, count + 1)]
    return Schedule(planned, status_of(folder), OutputLocks(folder / "locks"), retry, fail_fast, Silent())


def done(folder: Path, number: int, text: str = "result") -> Done[Rendered]:
    output = folder / f"{number}.mkv"
    output.write_text(text)
    return Done(Rendered(result={"frames": 2}, fingerprint=output_fingerprint(output)), 1.0)


FAILURE = Failed(message="it broke", hint="Mend it.", exit_code=3)


def test_a_job_is_planned_by_what_is_known_of_its_output(tmp_path: Path) -> None:
    job, status = job_of(tmp_path), status_of(tmp_path)
    assert plan_job(job, KEY, None).reason == "new"
    job.output.write_text("of somebody")
    with pytest.raises(UsageError, match="already exists, and no batch has made it"):
        plan_job(job, KEY, None)
    assert plan_job(job_of(tmp_path, overwrite=True), KEY, None).reason == "new"

    def planned(state, key="k", **more):
        status.add(job.output, state, key=key, parts=KEY.parts, attempt=1, **more)
        status.refresh()
        return plan_job(job, KEY, status.of(job.output)).reason

    found = output_fingerprint(job.output)
    assert found is not None
    own = {"size": found.size, "mtime_ns": found.mtime_ns}
    assert planned("done", **own) is None
    assert planned("done", key="other", **own) == "changed"
    assert (
        plan_job(job, Key("x", {"source": "s", "driving": "new"}), status.of(job.output)).reason == "changed: driving"
    )
    assert planned("failed", error={"message": "no"}) == "failed: no"  # the output is as left by a batch
    job.output.unlink()
    assert planned("done", **own) == "missing"
    assert may_replace(job, status.of(job.output))


@pytest.mark.parametrize("state", ["started", "interrupted", "failed", "done"])
def test_an_edited_result_is_kept(tmp_path: Path, state: str) -> None:
    """Whatever its last record is, only --overwrite replaces it."""
    job, status = job_of(tmp_path), status_of(tmp_path)
    more = {"size": 3, "mtime_ns": 4} if state == "done" else {}
    status.add(job.output, "done", key="k", parts=KEY.parts, attempt=1, size=3, mtime_ns=4)
    status.add(job.output, state, key="k", parts=KEY.parts, attempt=1, **more)  # type: ignore[arg-type]
    status.refresh()
    job.output.write_text("edited by hand")
    other = Key("x", {"source": "other", "driving": "d"})
    with pytest.raises(UsageError, match="was changed after a batch made it"):
        plan_job(job, other, status.of(job.output))
    assert plan_job(job_of(tmp_path, overwrite=True), other, status.of(job.output)).reason is not None
    if state == "done":
        assert plan_job(job, KEY, status.of(job.output)).reason is None
        assert plan_job(job_of(tmp_path, overwrite=True), KEY, status.of(job.output)).reason == "changed: output"


def test_a_result_whose_record_was_lost_to_a_kill_is_ours(tmp_path: Path) -> None:
    job, status = job_of(tmp_path), status_of(tmp_path)
    status.add(job.output, "started", key="k", parts=KEY.parts, attempt=1)
    status.refresh()
    mark = {"comment": Mark("1.0", "model", "preset").comment}
    with Writer(job.output, width=16, height=16, rate=Fraction(25), metadata=mark) as writer:
        writer.write(np.zeros((16, 16, 3), np.uint8), Fraction(0), Fraction(1, 25))
    assert plan_job(job, KEY, status.of(job.output)).reason == "interrupted"
    job.output.write_text("of somebody")
    with pytest.raises(UsageError, match="no batch has made it"):
        plan_job(job, KEY, status.of(job.output))


def test_a_sidecar_is_a_part_of_the_result(tmp_path: Path) -> None:
    job, status = job_of(tmp_path, sidecar=True), status_of(tmp_path)
    job.output.write_text("rendered")
    status.add(job.output, "done", key="k", parts=KEY.parts, attempt=1)
    status.refresh()
    assert plan_job(job, KEY, status.of(job.output)).reason == "missing: sidecar"
    (tmp_path / "1.mkv.json").write_text("{}")
    assert plan_job(job, KEY, status.of(job.output)).reason is None


def test_content_and_options_make_the_key(tmp_path: Path) -> None:
    for name in ("a.png", "d.mp4", "a.pem", "b.pem", "same.pem"):
        (tmp_path / name).write_text(name.replace("same", "a"))
    plain = key_of(job_of(tmp_path), {"sha256": "m"}, Hashes())
    assert key_of(job_of(tmp_path, 2, overwrite=True), {"sha256": "m"}, Hashes()) == plain
    gpus = [job_of(tmp_path, choice=ModelChoice(device=f"cuda:{n}")) for n in (0, 1)]
    assert len({key_of(job, {}, Hashes()).value for job in gpus}) == 1
    signed = [
        key_of(job_of(tmp_path, sign=tmp_path / name, sign_key=tmp_path / f"{name}.key"), {"sha256": "m"}, Hashes())
        for name in ("a.pem", "same.pem", "b.pem")
    ]
    assert signed[0] == signed[1]
    assert len({key.value for key in (plain, *signed)}) == 3
    others = [
        key_of(job_of(tmp_path, smooth=True), {"sha256": "m"}, Hashes()),
        key_of(job_of(tmp_path), {"sha256": "n"}, Hashes()),
        key_of(job_of(tmp_path, choice=ModelChoice(seed=1)), {"sha256": "m"}, Hashes()),
    ]
    (tmp_path / "d.mp4").write_text("another take")
    others.append(key_of(job_of(tmp_path), {"sha256": "m"}, Hashes()))
    changed = [{name for name in plain.parts if plain.parts[name] != key.parts[name]} for key in others]
    assert changed == [{"options"}, {"model"}, {"options"}, {"driving"}]
    assert len({key.value for key in (plain, *others)}) == 5


def test_jobs_of_one_model_are_kept_together(tmp_path: Path) -> None:
    models = [ModelChoice(model=name) for name in "abab"]
    planned = [Planned(job_of(tmp_path, number, choice), KEY, "new") for number, choice in enumerate(models)]
    assert [each.job.number for each in by_model(planned)] == [0, 2, 1, 3]


def test_jobs_that_fail_are_tried_again_after_a_pause(tmp_path: Path) -> None:
    schedule = schedule_of(tmp_path, 2, retry=1)
    first, second = next(schedule), next(schedule)
    assert isinstance(first, Job)
    assert isinstance(second, Job)
    assert isinstance(next(schedule), Backoff)  # one that is running may be added again
    before = time.monotonic()
    schedule.finish(first, FAILURE)
    pause = next(schedule)
    assert isinstance(pause, Backoff)
    assert 0 < pause.seconds <= 1
    schedule.finish(second, done(tmp_path, 2))
    while isinstance(again := next(schedule), Backoff):
        time.sleep(again.seconds)
    assert time.monotonic() - before >= 0.99
    assert (again.number, again.choice) == (first.number, first.choice)
    schedule.finish(again, TimedOut(message="it took longer than 5 s"))
    assert list(schedule) == []
    assert [(each.job.number, each.state, each.attempts) for each in schedule.ended] == [
        (2, "done", 1),
        (1, "failed", 2),
    ]
    assert schedule.ended[1].error == {"message": "it took longer than 5 s", "hint": None, "exit_code": 3}
    assert OutputLocks(tmp_path / "locks").take(schedule.status.identity(first.output))


def test_a_worker_that_died_is_forgiven_once(tmp_path: Path) -> None:
    schedule = schedule_of(tmp_path, 1)
    for _ in range(2):
        job = next(schedule)
        assert isinstance(job, Job)
        schedule.finish(job, WorkerCrashed(message="its process was killed by SIGKILL"))
    assert list(schedule) == []
    assert [(each.state, each.attempts) for each in schedule.ended] == [("failed", 2)]


def test_the_first_failure_is_the_last(tmp_path: Path) -> None:
    schedule = schedule_of(tmp_path, 3, fail_fast=True)
    first, second = next(schedule), next(schedule)
    assert isinstance(first, Job)
    assert isinstance(second, Job)
    schedule.finish(first, FAILURE)
    assert list(schedule) == []
    schedule.finish(second, done(tmp_path, 2))  # running jobs are completed
    assert [each.state for each in schedule.ended] == ["failed", "done"]
    assert [each.job.number for each in schedule.not_started] == [3]


def test_a_full_disk_is_the_end(tmp_path: Path) -> None:
    schedule = schedule_of(tmp_path, 2)
    job, other = next(schedule), next(schedule)
    assert isinstance(job, Job)
    with pytest.raises(OutputError, match="the disk is full"):
        schedule.finish(job, Failed(message="the disk is full: 1.mkv", hint=None, exit_code=3, disk_full=True))
    schedule.abandon()
    status = status_of(tmp_path)
    assert isinstance(other, Job)
    assert [(record := status.of(each.output)) and record.state for each in (job, other)] == ["failed", "interrupted"]


def test_what_another_batch_did_while_this_one_looked_at_its_files(tmp_path: Path) -> None:
    """Minutes may pass between the plan and the first job, if large files have to be hashed."""
    before = status_of(tmp_path)
    job = job_of(tmp_path)
    before.add(job.output, "failed", key="k", parts=KEY.parts, attempt=1, error={"message": "no"})
    before.refresh()
    planned = [plan_job(each, KEY, before.of(each.output)) for each in (job, job_of(tmp_path, 2), job_of(tmp_path, 3))]
    assert [each.reason for each in planned] == ["failed: no", "new", "new"]
    other, ours = (
        Schedule(each, status_of(tmp_path), OutputLocks(tmp_path / "locks"), 0, False, Silent())
        for each in (planned[:2], planned)
    )
    for number in (1, 2):
        given = next(other)
        assert isinstance(given, Job)
        other.finish(given, done(tmp_path, number) if number == 2 else FAILURE)
    third = next(ours)
    assert isinstance(third, Job)
    assert third.number == 3
    assert [(each.job.number, each.state, each.attempts) for each in ours.ended] == [(1, "failed", 0), (2, "kept", 0)]


def test_what_another_batch_does_meanwhile_is_not_done_again(tmp_path: Path) -> None:
    ours, theirs = schedule_of(tmp_path, 3), schedule_of(tmp_path, 3)
    one, two = next(ours), next(theirs)
    assert isinstance(one, Job)
    assert isinstance(two, Job)
    assert (one.number, two.number) == (1, 2)  # each job is locked
    theirs.finish(two, done(tmp_path, 2))
    three = next(theirs)
    assert isinstance(three, Job)
    assert three.number == 3
    pause = next(ours)
    assert isinstance(pause, Backoff)
    assert pause.seconds <= 0.5  # another process runs the third
    theirs.finish(three, FAILURE)
    ours.finish(one, done(tmp_path, 1))
    assert list(ours) == []
    assert list(theirs) == []
    states = {each.job.number: (each.state, each.attempts) for each in ours.ended}
    assert states == {1: ("done", 1), 2: ("kept", 0), 3: ("failed", 0)}
    assert {each.job.number: each.state for each in theirs.ended} == {1: "kept", 2: "done", 3: "failed"}


def test_a_result_of_inputs_that_changed_meanwhile_is_rendered_again(tmp_path: Path, caplog) -> None:
    for name in ("a.png", "d.mp4"):
        (tmp_path / name).write_text("take 1")
    job, status = job_of(tmp_path), status_of(tmp_path)
    key = key_of(job, {}, Hashes())
    for text, reason in (("take 1", None), ("take 2", "changed: ")):
        (tmp_path / "d.mp4").write_text(text) if reason else None
        planned = [Planned(job, key, "new", status.of(job.output))]
        schedule = Schedule(planned, status, OutputLocks(tmp_path / "locks"), 0, False, Silent())
        given = next(schedule)
        assert isinstance(given, Job)
        schedule.finish(given, done(tmp_path, 1))
        status.refresh()
        found = plan_job(job, key, status.of(job.output)).reason
        assert found is None if reason is None else str(found).startswith(reason)
    assert caplog.messages == [f"an input of {job.output} changed in the meantime; the next batch renders it again"]
