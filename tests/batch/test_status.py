"""The status file and the locks, used by several processes at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fommctl.batch.status import OutputLocks, Status
from fommctl.errors import OutputError
from fommctl.files import FileFingerprint

WRITER = """
import sys
from pathlib import Path
from fommctl.batch.status import Status
folder = Path(sys.argv[1])
status = Status(folder / "status.jsonl")
for number in range(50):
    output, error = folder / f"{sys.argv[2]}-{number}.mkv", {"message": "x" * 5000}
    status.add(output, "started", key="k", parts={}, attempt=1, error=error)
"""


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    found = [json.loads(line) for line in (tmp_path / "status.jsonl").read_text().splitlines()]
    assert sorted(line["output"] for line in found) == sorted(f"{name}-{n}.mkv" for name in "ab" for n in range(50))
    assert {line["pid"] for line in found} == {writer.pid for writer in writers}


def test_the_last_word_counts_and_what_is_no_record_is_left_out(tmp_path: Path) -> None:
    status = Status(tmp_path / "status.jsonl")
    status.refresh()
    out = tmp_path / "a.mkv"
    assert status.of(out) is None
    common = {"key": "k", "parts": {"source": "s"}}
    status.add(out, "started", attempt=1, **common)
    status.add(out, "done", attempt=1, size=3, mtime_ns=4, result={"frames": 5}, **common)
    strange = [
        b"\xff",
        b"[" * 9999,
        b"[]",
        b'{"output": 3, "state": "done"}',
        b'{"output": "a.mkv", "state": "lost", "key": 1}',
    ]
    with status.path.open("ab") as file:
        file.write(b"\n".join(strange) + b'\n{"output": "a.mkv", "sta')
    status.refresh()
    record = status.of(out)
    assert record is not None
    assert (record.state, record.fingerprint, record.result, record.parts) == (
        "done",
        FileFingerprint(3, 4),
        {"frames": 5},
        {"source": "s"},
    )
    # A torn line does not swallow another one.
    status.add(out, "failed", attempt=2, error={"message": "no", "hint": None, "exit_code": 3}, **common)
    status.refresh()
    record = status.of(out)
    assert record is not None
    assert (record.state, record.attempt, record.error and record.error["message"]) == ("failed", 2, "no")
    assert record.fingerprint == FileFingerprint(3, 4)  # of what is still there


def test_outputs_below_the_folder_go_by_their_relative_names(tmp_path: Path) -> None:
    """The folder may therefore be moved, or mounted elsewhere on another machine."""
    (tmp_path / "night").mkdir()
    (tmp_path / "link").symlink_to("night")
    status = Status(tmp_path / "link" / "status.jsonl")
    assert status.identity(tmp_path / "night" / "out" / "a.mkv") == "out/a.mkv"
    assert status.identity(tmp_path / "link" / "out" / "a.mkv") == "out/a.mkv"
    assert status.identity(tmp_path / "other" / "a.mkv") == str(Path(os.path.realpath(tmp_path)) / "other" / "a.mkv")


def test_a_status_file_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status = Status(tmp_path / "file" / "status.jsonl")
    with pytest.raises(OutputError, match="cannot use"):
        status.add(tmp_path / "a.mkv", "started", key="k", parts={}, attempt=1)
    with pytest.raises(OutputError, match="cannot use"):
        OutputLocks(tmp_path / "file" / "locks")


HOLDER = """
import sys, time
from pathlib import Path
from fommctl.batch.status import OutputLocks
locks = OutputLocks(Path(sys.argv[1]))
print(locks.take("a"), flush=True)
sys.stdin.read()
"""


def test_a_lock_is_one_process_s_and_ends_with_it(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    locks = OutputLocks(tmp_path)
    assert not locks.take("a")
    assert locks.take("b")
    other.kill()
    other.communicate()
    assert locks.take("a")
    locks.release("a")
    locks.release_all()
    assert OutputLocks(tmp_path).take("b")


def test_a_status_file_that_is_removed_while_it_is_read(tmp_path: Path) -> None:
    ours, theirs = (Status(tmp_path / "status.jsonl") for _ in range(2))
    for name in ("1.mkv", "2.mkv"):
        ours.add(tmp_path / name, "done", key="k", parts={}, attempt=1)
    ours.refresh()
    ours.path.unlink()
    ours.refresh()
    theirs.add(tmp_path / "3.mkv", "done", key="k", parts={}, attempt=1)
    ours.refresh()
    assert [ours.of(tmp_path / f"{n}.mkv") is not None for n in (1, 2, 3)] == [False, False, True]
