"""The folder of a run: the meaning of --out and --resume, what is kept, and that files appear in it complete."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import environment
from small_disk import files_up_to

from fommctl.errors import InputError, ModelError, OutputError, UsageError
from fommctl.files import temporary_path
from fommctl.train.run_folder import (
    best_checkpoint,
    checkpoints_folder,
    epoch_checkpoint,
    is_whole,
    keep_last,
    lock_run,
    mark,
    open_run,
    set_newer_aside,
    step_checkpoint,
    step_checkpoints,
    write_atomically,
)


def save(path: Path, size: int = 8) -> Path:
    write_atomically(path, lambda temporary: torch.save({"weight": torch.arange(size)}, temporary))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with three checkpoints of steps, the best one and one of an epoch."""
    folder = tmp_path / "run"
    for step in (500, 1000, 1500):
        save(step_checkpoint(folder, step))
    save(best_checkpoint(folder))
    save(epoch_checkpoint(folder, 50))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(path: Path) -> None:
    """Flip one bit of the weights, like a failing disk."""
    data = bytearray(path.read_bytes())
    place = data.index(torch.arange(8).numpy().tobytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_the_published_layout(run: Path) -> None:
    assert names(run) == ["checkpoints"]
    assert names(checkpoints_folder(run)) == [
        "best.pt",
        "epoch-0050.pt",
        "step-00000500.pt",
        "step-00001000.pt",
        "step-00001500.pt",
    ]


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_new_run_starts_anew(tmp_path: Path, resume: str | None) -> None:
    assert open_run(tmp_path / "missing", resume) is None
    (tmp_path / "empty").mkdir()
    assert open_run(tmp_path / "empty", resume) is None


def test_a_folder_that_is_not_empty_is_refused_without_resume(run: Path) -> None:
    with pytest.raises(UsageError, match="not empty") as caught:
        open_run(run, None)
    assert caught.value.exit_code == 2
    assert "--resume auto" in str(caught.value.hint)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    for resume in (None, "auto"):
        with pytest.raises(UsageError, match="not a folder"):
            open_run(tmp_path / "run", resume)
    with pytest.raises(UsageError, match="not a folder"), lock_run(tmp_path / "run"):
        pass


def test_auto_takes_the_newest_by_number(run: Path) -> None:
    assert open_run(run, "auto") == step_checkpoint(run, 1500)
    os.utime(step_checkpoint(run, 1500), (0, 0))
    save(step_checkpoint(run, 123456789))
    assert open_run(run, "auto") == step_checkpoint(run, 123456789)


def test_auto_starts_anew_where_a_run_was_killed_before_its_first_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    assert open_run(tmp_path, "auto") is None
    assert "no checkpoint yet" in caplog.text


def test_auto_refuses_a_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(UsageError, match="contains no checkpoint"):
        open_run(tmp_path, "auto")


@pytest.mark.parametrize("how", ["moved", "unmounted", "emptied"])
def test_auto_refuses_a_run_whose_checkpoints_are_not_there(run: Path, how: str, tmp_path: Path) -> None:
    mark(run, step_checkpoint(run, 1500))
    folder = checkpoints_folder(run)
    if how == "emptied":
        for path in folder.iterdir():
            path.unlink()
    else:
        folder.rename(tmp_path / "elsewhere")
    if how == "unmounted":
        folder.symlink_to(tmp_path / "missing")
    with pytest.raises(InputError, match=r"are missing \(step-00001500\.pt was the newest\)"):
        open_run(run, "auto")


def test_a_pipe_is_no_checkpoint(run: Path) -> None:
    os.mkfifo(step_checkpoint(run, 2000))
    assert open_run(run, "auto") == step_checkpoint(run, 1500)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage(step_checkpoint(run, 1500))
    with step_checkpoint(run, 1000).open("r+b") as file:
        file.truncate(200)
    assert open_run(run, "auto") == step_checkpoint(run, 500)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "step-00001500.pt is damaged" in caplog.text


def test_all_damaged_is_reported_and_not_started_over(run: Path) -> None:
    with pytest.raises(ModelError, match="every checkpoint"):
        open_run(run, "auto", readable=lambda path: False)


def test_what_can_be_read_is_the_callers_to_say(run: Path) -> None:
    assert open_run(run, "auto", readable=lambda path: path.name < "step-00001") == step_checkpoint(run, 500)


def test_resume_names_a_checkpoint_a_run_or_a_folder_of_checkpoints(run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert open_run(new, str(step_checkpoint(run, 500))) == step_checkpoint(run, 500)
    assert open_run(new, str(run)) == step_checkpoint(run, 1500)
    assert open_run(new, str(checkpoints_folder(run))) == step_checkpoint(run, 1500)
    assert open_run(run, str(best_checkpoint(run))) == best_checkpoint(run)


def test_resume_refuses_to_mix_two_runs(run: Path, tmp_path: Path) -> None:
    other = save(step_checkpoint(tmp_path / "other", 10))
    with pytest.raises(UsageError, match="not from that run"):
        open_run(run, str(other))


def test_resume_from_nothing_or_from_a_damaged_file(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        open_run(run, str(tmp_path / "missing.pt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no checkpoint in"):
        open_run(run, str(tmp_path / "empty"))
    damage(step_checkpoint(run, 500))
    with pytest.raises(ModelError, match="damaged"):
        open_run(run, str(step_checkpoint(run, 500)))


def test_going_on_from_an_earlier_step_sets_the_later_ones_aside(run: Path) -> None:
    set_newer_aside(run, 700)
    assert step_checkpoints(checkpoints_folder(run)) == [step_checkpoint(run, 500)]
    assert "step-00001500.pt.abandoned" in names(checkpoints_folder(run))
    set_newer_aside(run, 500)
    assert open_run(run, "auto") == step_checkpoint(run, 500)


def test_the_last_few_the_best_and_those_of_epochs_are_kept(run: Path) -> None:
    folder = checkpoints_folder(run)
    keep_last(folder, 2)
    assert names(folder) == ["best.pt", "epoch-0050.pt", "step-00001000.pt", "step-00001500.pt"]
    keep_last(folder, 0)
    assert names(folder) == ["best.pt", "epoch-0050.pt", "step-00001500.pt"]
    keep_last(folder / "missing", 1)


def test_whole_is_whole(run: Path) -> None:
    path = step_checkpoint(run, 500)
    assert is_whole(path)
    damage(path)
    assert not is_whole(path)
    path.write_bytes(b"")
    assert not is_whole(path)
    assert not is_whole(path.with_name("missing.pt"))


def test_two_trainings_do_not_write_one_run(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    with lock_run(run):
        assert open_run(run, None) is None, "the lock itself is nothing that a run would mix with"
        with pytest.raises(UsageError, match="another training"), lock_run(run):
            pass
        (run / "metrics.jsonl").touch()
    assert names(run) == ["metrics.jsonl"]
    with lock_run(run):
        pass


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError), lock_run(tmp_path / "run"):
        raise InputError("no clips")
    assert names(tmp_path) == []


HOLDER = """
import os, sys, time
from pathlib import Path
from fommctl.train.run_folder import lock_run
with lock_run(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print("locked", flush=True)
    time.sleep(60)
"""


def test_the_lock_dies_with_its_process_though_a_worker_lives_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            with pytest.raises(UsageError, match="another training"), lock_run(tmp_path):
                pass
            process.kill()
            process.wait()
            with lock_run(tmp_path):
                pass
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_what_a_killed_run_left_unfinished_is_removed_and_nothing_else(run: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    targets = [step_checkpoint(run, 2000), run / "pictures" / "00001000.png", run / "model.safetensors"]
    (run / "pictures").mkdir()
    for target in targets:
        temporary = temporary_path(target)
        temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-")).touch()
    (checkpoints_folder(run) / ".notes.4711.tmp").touch()
    with lock_run(run):
        pass
    assert names(run / "pictures") == []
    assert names(run) == ["checkpoints", "pictures"]
    assert [name for name in names(checkpoints_folder(run)) if name.startswith(".")] == [".notes.4711.tmp"]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    def fail(temporary: Path) -> None:
        raise RuntimeError("the sizes of the tensors differ")

    with pytest.raises(RuntimeError, match="the sizes"):
        write_atomically(tmp_path / "best.pt", fail)


@pytest.mark.parametrize("opened", [False, True], ids=["path", "file"])
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, opened: bool) -> None:
    path = save(tmp_path / "step-00000001.pt")
    before = path.read_bytes()

    def write(temporary: Path) -> None:
        if opened:
            with temporary.open("wb") as file:
                torch.save({"weight": torch.zeros(100_000)}, file)
        else:
            torch.save({"weight": torch.zeros(100_000)}, temporary)

    with files_up_to(20_000), pytest.raises(OutputError, match=r"full: .*step-00000001\.pt") as caught:
        write_atomically(path, write)
    assert caught.value.exit_code == 3
    assert "last good checkpoint stays" in str(caught.value.hint)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["step-00000001.pt"]


def test_a_disk_that_is_full_at_the_very_end_of_a_checkpoint(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")  # the message of torch's archive writer

    with pytest.raises(OutputError, match="the disk is full"):
        write_atomically(tmp_path / "step-00000001.pt", write)


def test_a_full_disk_at_the_end_of_plain_bytes(tmp_path: Path) -> None:
    with files_up_to(20_000), pytest.raises(OutputError, match="the disk is full"):
        write_atomically(tmp_path / "picture.png", lambda temporary: temporary.write_bytes(bytes(30_000)))
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        save(tmp_path / "file" / "step-00000001.pt")
    with pytest.raises(OutputError, match="cannot write"), lock_run(tmp_path / "file" / "run"):
        pass


def test_a_run_that_is_moved_meanwhile_is_not_made_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with lock_run(run):
        mark(run)
        run.rename(tmp_path / "moved")
        with pytest.raises(OutputError, match=f"the output folder was moved or removed in the meantime: {run}"):
            write_atomically(step_checkpoint(run, 1), lambda path: path.write_bytes(b"x"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved"]
