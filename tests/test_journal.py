"""What was added to a journal stays there, even if a process is killed while writing."""

import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from fommctl.errors import OutputError
from fommctl.journal import Journal


class Note(BaseModel):
    name: str
    count: int = 0
    remark: str | None = None


def test_records_come_back_in_their_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.jsonl", Note)
    assert journal.read() == []
    notes = [Note(name="caf\udce9", count=1), Note(name="b", remark="two\nlines")]
    for note in notes:
        journal.append(note)
    assert journal.read() == notes
    assert journal.path.read_text() == '{"name": "caf\\udce9", "count": 1}\n{"name": "b", "remark": "two\\nlines"}\n'


def test_a_torn_line_costs_that_record_and_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"name": "a"}\n\xff\xfe\n[1]\n' + b"[" * 100_000 + b'\n\n{"name": "torn", "cou')
    journal = Journal(path, Note)
    assert journal.read() == [Note(name="a")]
    assert caplog.messages == [f"{path} is damaged: invalid lines were skipped (3)"]
    caplog.clear()
    journal.append(Note(name="b"))
    assert [note.name for note in journal.read()] == ["a", "b"]
    journal.rewrite([Note(name="c")])
    assert path.read_text() == '{"name": "c"}\n'
    path.write_bytes(b'{"name": "a"}\n{"name": "torn", "cou\n{"name": "b"}\n{"name": "tor')
    caplog.clear()
    assert [note.name for note in journal.read()] == ["a", "b"]
    assert caplog.messages == []
    path.write_bytes(b"\0" * 100)
    assert journal.read() == []
    assert len(caplog.messages) == 1


def test_only_new_records_are_read(tmp_path: Path) -> None:
    mine, theirs = Journal(tmp_path / "a.jsonl", Note), Journal(tmp_path / "a.jsonl", Note)
    assert mine.read_new() == ([], True)
    theirs.append(Note(name="a"))
    assert mine.read_new() == ([Note(name="a")], True)
    theirs.append(Note(name="b"))
    assert mine.read_new() == ([Note(name="b")], False)
    assert mine.read_new() == ([], False)
    theirs.rewrite([Note(name="c")])
    assert mine.read_new() == ([Note(name="c")], True)


def test_what_cannot_be_read_or_written_is_an_output_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path, Note, hint="Choose another file with --status.")
    with pytest.raises(OutputError, match="cannot use"):
        journal.read()
    with pytest.raises(OutputError) as caught:
        journal.append(Note(name="a"))
    assert caught.value.hint == "Choose another file with --status."


@pytest.mark.parametrize(
    ("damage", "kept"),
    [(b"\0" * 3000, True), (b"\xff\xfe\n", True), (b'{"nam\n', True), (b"null\n", True), (b'{"name": "torn', False)],
)
def test_a_damaged_file_is_kept_beside_what_is_cut(
    tmp_path: Path, damage: bytes, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.jsonl"
    whole = b'{"name": "a"}\n' + damage + b'\n{"name": "b"}\n' * kept
    for number in (1, 2):
        path.write_bytes(whole)
        Journal(path, Note).cut(lambda note: True)
        assert path.read_bytes() == b'{"name": "a"}\n'
        aside = tmp_path / f"a.jsonl.damaged-{number}"
        assert aside.exists() == kept
        assert not kept or aside.read_bytes() == whole
    assert caplog.messages == [
        f"{path} is damaged from line 2 on: a copy of it is {path}.damaged-{number}" for number in (1, 2) if kept
    ]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    journal = Journal(tmp_path / "a.jsonl", Note)
    for use in (journal.read, lambda: journal.append(Note(name="x")), lambda: journal.cut(lambda _: True)):
        with pytest.raises(OutputError, match="cannot use"):
            use()
