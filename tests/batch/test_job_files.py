"""Reading job files, and errors for files that are not job files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fommctl.batch.job_files import JobRow, read_job_file
from fommctl.errors import FommctlError, InputError, UsageError


def read(folder: Path, name: str, content: str | bytes):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_job_file(path)


def message(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        read(folder, name, content)
    assert caught.value.hint
    return caught.value.message


CSV = '# jobs of the night\r\nsource,driving , output\r\n\r\na.png,d.mp4,"x, y.mov"\r\n  # not this one\r\nb.png,,\r\n'


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
def test_csv_of_spreadsheets(tmp_path: Path, mark: bytes) -> None:
    file = read(tmp_path, "jobs.csv", mark + CSV.encode())
    assert file.entries == [
        JobRow("line 4", {"source": "a.png", "driving": "d.mp4", "output": "x, y.mov"}),
        JobRow("line 6", {"source": "b.png"}),
    ]
    assert file.problems == file.fatal == []
    semicolons = CSV.replace("x, y.mov", "x; y.mov").replace("driving , output", "driving ; output")
    semicolons = semicolons.replace("source,", "source;").replace("a.png,d.mp4,", "a.png;d.mp4;").replace(",,", ";;")
    assert read(tmp_path, "jobs.csv", mark + semicolons.encode()).entries[0].fields["output"] == "x; y.mov"


@pytest.mark.parametrize(
    "content",
    [
        "source\tdriving\r\nä.png\td.mp4\r\n".encode(),
        "source|driving\r\nä.png|d.mp4\r\n".encode(),
        "sep=;\r\n\r\nsource;driving;;\r\n\u00a0ä.png ;d.mp4;;\r\n;;;\r\n".encode(),
        "\ufeffsource,driving\rä.png,d.mp4\r".encode(),
    ],
    ids=["tabs", "bars", "sep", "old Macintosh"],
)
def test_what_else_spreadsheets_write(tmp_path: Path, content: bytes) -> None:
    (entry,) = read(tmp_path, "jobs.csv", content).entries
    assert entry.fields == {"source": "ä.png", "driving": "d.mp4"}


def test_a_value_over_several_lines_and_cells_too_many(tmp_path: Path) -> None:
    file = read(tmp_path, "jobs.csv", 'source,driving\n"a\n# b.png",d\nx,y,z\nc,d,,\n')
    assert file.entries == [
        JobRow("line 2", {"source": "a\n# b.png", "driving": "d"}),
        JobRow("line 5", {"source": "c", "driving": "d"}),
    ]
    assert [(each.where, each.message) for each in file.problems] == [("line 4", "3 cells, the table has 2 columns")]


def test_json_lines(tmp_path: Path) -> None:
    lines = '\ufeff{"source": "a.png", "size": 256}\n\n# later\n[1]\n{"source": 1, "source": 2}\n{"x": NaN}\n{"x"\n'
    file = read(tmp_path, "jobs.jsonl", lines)
    assert file.entries == [JobRow("line 1", {"source": "a.png", "size": 256})]
    assert [each.where for each in file.problems] == ["line 4", "line 5", "line 6", "line 7"]
    assert [each.message.removeprefix("not valid JSON: ") for each in file.problems] == [
        'expected an object such as {"source": ...}, found a list',
        "the field 'source' is given twice",
        "NaN is not a value",
        "expecting ':' delimiter",
    ]
    assert read(tmp_path, "deep.jsonl", "[" * 100_000).problems[0].message == "nested too deeply"


def test_yaml(tmp_path: Path) -> None:
    file = read(
        tmp_path, "jobs.yaml", "# night\n- source: a.png\n  smooth: yes\n- {driving: d.mp4, start: 1:02.5}\n- x\n"
    )
    assert file.entries == [
        JobRow("line 2", {"source": "a.png", "smooth": True}),
        JobRow("line 4", {"driving": "d.mp4", "start": 62.5}),
    ]
    assert [(each.where, each.message) for each in file.problems] == [
        ("line 5", "expected fields such as 'source: ...', found the text 'x'")
    ]
    file = read(tmp_path, "jobs.yml", "default: 1\ndefaults: {crop: none}\njobs:\n  - source: a.png\n")
    assert (file.defaults, file.entries) == ({"crop": "none"}, [JobRow("line 4", {"source": "a.png"})])
    assert [(each.where, each.message) for each in file.fatal] == [
        ("line 1", "unknown key 'default' (did you mean 'defaults'?)")
    ]
    file = read(tmp_path, "jobs.json", '{"jobs": [\n{"source": "a.png"}]}')
    assert file.entries == [JobRow("line 2", {"source": "a.png"})]


def test_hostile_yaml(tmp_path: Path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghi")
    )
    assert "more than 50,000 values" in message(tmp_path, "jobs.yaml", bomb)
    run = "- !!python/object/apply:os.system [touch gone]\n"
    assert "line 1" in message(tmp_path, "jobs.yaml", run).replace(":1:", ": line 1:")
    assert "not allowed" in message(tmp_path, "jobs.yaml", run)
    assert not (tmp_path / "gone").exists()
    assert "larger than 1,000,000 bytes" in message(tmp_path, "jobs.yaml", "#" * 1_000_001)
    assert "larger than 16,000,000 bytes" in message(tmp_path, "jobs.csv", b"#" * 16_000_001)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("jobs.txt", "x", "does not have the extension of a job file"),
        ("jobs.csv", "", "contains no jobs"),
        ("jobs.csv", "source,driving\n", "contains no jobs"),
        ("jobs.yaml", "jobs:\n", "contains no jobs"),
        ("jobs.csv", "a,a\n1,2\n", "line 1: column names must be unique and not empty"),
        ("jobs.csv", 'a,b\n"1,2\n', "line 2: not valid CSV: unexpected end of data"),
        ("jobs.csv", b"a,b\n\xff,2\n", "line 2: not UTF-8 text"),
        ("jobs.csv", "a,b\n1,2\n".encode("utf-16"), "not UTF-8 text"),
        ("jobs.tsv", "x", "does not have the extension of a job file"),
        ("jobs.csv", "a,b\n1,2\n".encode("utf-16-le"), "contains zero bytes"),
        ("jobs.xlsx", b"PK", "does not have the extension of a job file"),
        ("jobs.csv", b"a,b\n\0,2\n", "contains zero bytes"),
    ],
)
def test_files_that_are_no_jobs(tmp_path: Path, name: str, content: str | bytes, told: str) -> None:
    assert told in message(tmp_path, name, content)


def test_jobs_from_stdin_are_refused() -> None:
    with pytest.raises(UsageError, match="jobs cannot be read from stdin"):
        read_job_file(Path("-"))


def test_what_is_not_there(tmp_path: Path) -> None:
    for name, told in (("none.csv", "does not exist"), ("folder.csv", "is no file")):
        (tmp_path / "folder.csv").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=told):
            read_job_file(tmp_path / name)


@given(content=st.binary(max_size=200), ending=st.sampled_from(["csv", "jsonl", "yaml"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str) -> None:
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / f"jobs.{ending}"
    path.write_bytes(content)
    try:
        file = read_job_file(path)
    except FommctlError:
        return
    assert all(isinstance(entry.fields, dict) for entry in file.entries)
