"""metrics.jsonl: the content of a line, and that an interrupted and resumed run writes the same as an uninterrupted
one."""

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_disk import files_up_to

from fommctl.errors import OutputError
from fommctl.train.logs import MetricsLog


def write(run: Path, first: int, end: int, name: str = "perceptual") -> None:
    metrics = MetricsLog(run, from_step=first)
    for step in range(first, end):
        metrics.write(step=step, epoch=step // 4, losses={name: 1 / (step + 1)}, samples_per_s=8.5, waiting=0.25)


def content(run: Path) -> bytes:
    return (run / "metrics.jsonl").read_bytes()


def steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in content(run).splitlines()]


def test_a_line_a_step(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path / "new" / "run", from_step=0)
    metrics.write(
        step=7, epoch=1, losses={"perceptual": 81.25, "generator_gan": 0.5}, samples_per_s=12.0, learning_rate=2e-4
    )
    assert content(tmp_path / "new" / "run") == (
        b'{"step": 7, "epoch": 1, "losses": {"perceptual": 81.25, "generator_gan": 0.5}, '
        b'"samples_per_s": 12.0, "learning_rate": 0.0002}\n'
    ), "in the file before it is closed"


def test_what_json_cannot_say_is_null(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path, from_step=0)
    metrics.write(
        step=0,
        epoch=0,
        losses={"perceptual": math.nan, "feature_matching": np.float32(0.5)},  # type: ignore[dict-item]
        samples_per_s=math.inf,
        waiting=-math.inf,
        note="größer",
    )
    line = json.loads(content(tmp_path), parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert line["losses"] == {"perceptual": None, "feature_matching": 0.5}
    assert (line["samples_per_s"], line["waiting"], line["note"]) == (None, None, "größer")


@pytest.mark.parametrize(
    ("from_step", "left"), [(0, []), (1, [0]), (3, [0, 1, 2]), (6, [0, 1, 2, 3, 4, 5]), (99, [0, 1, 2, 3, 4, 5])]
)
def test_cut_back_to_the_step(tmp_path: Path, from_step: int, left: list[int]) -> None:
    write(tmp_path, 0, 6)
    MetricsLog(tmp_path, from_step=from_step)
    assert steps(tmp_path) == left


def test_a_missing_and_an_empty_file(tmp_path: Path) -> None:
    MetricsLog(tmp_path, from_step=5)
    assert content(tmp_path) == b""
    MetricsLog(tmp_path, from_step=5)
    assert content(tmp_path) == b""


TORN = {
    "torn": b'{"step": 4, "epo',
    "no end": b'{"step": 4}',
    "half a letter": '{"step": 4, "note": "grö'.encode()[:-1],
    "half a letter in a line": '{"step": 4, "note": "grö'.encode()[:-1] + b"\n",
    "blank": b"\n",
    "null": b"null\n",
    "no step": b'{"step": null}\n',
    "true": b'{"step": true}\n',
    "zeros": b"\0" * 3000,
    "zeros in a line": b"\0" * 3000 + b"\n",
    "longer than any line": b"x" * 3_000_000,
}


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("after", [b"", b'{"step": 2}\n'], ids=["", "and a line"])
def test_from_the_first_line_that_cannot_be_read_all_goes(tmp_path: Path, torn: str, after: bytes) -> None:
    write(tmp_path, 0, 4)
    whole = content(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(whole + TORN[torn] + after)
    MetricsLog(tmp_path, from_step=10)
    assert content(tmp_path) == whole


def test_the_same_file_is_cut_for_those_who_read_along(tmp_path: Path) -> None:
    write(tmp_path, 0, 6)
    before = (tmp_path / "metrics.jsonl").stat().st_ino
    write(tmp_path, 3, 5)
    assert (tmp_path / "metrics.jsonl").stat().st_ino == before
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@settings(max_examples=30, deadline=None)
@given(st.data(), st.integers(0, 12), st.text(max_size=3))
def test_killed_at_any_byte_and_resumed_it_is_the_uninterrupted_file(
    data: st.DataObject, count: int, name: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, resumed = Path(folder, "whole"), Path(folder, "resumed")
        write(whole, 0, count, name)
        write(resumed, 0, count, name)
        kept = data.draw(st.integers(0, len(content(whole))), label="bytes that reached the disk")
        with (resumed / "metrics.jsonl").open("r+b") as file:
            file.truncate(kept)
        complete = content(resumed).count(b"\n")
        checkpoint = data.draw(st.integers(0, complete), label="step of the checkpoint")
        write(resumed, checkpoint, count, name)
        assert content(resumed) == content(whole)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    with files_up_to(500), pytest.raises(OutputError, match=r"the disk is full: .*metrics\.jsonl") as caught:
        write(tmp_path, 0, 100)
    assert caught.value.exit_code == 3
    assert steps(tmp_path) == list(range(len(steps(tmp_path))))
    assert len(steps(tmp_path)) >= 3
    write(tmp_path, 3, 5)
    assert steps(tmp_path) == [0, 1, 2, 3, 4]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        MetricsLog(tmp_path / "file", from_step=0)
