"""Outputs that are the same file: by links, case, Unicode normal forms and numbers."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from fommctl.animate.config import AnimateConfig, ModelChoice
from fommctl.batch.checks import shared_paths
from fommctl.batch.jobs import Job


def told(folder: Path, *outputs: str, source: str = "a.png") -> list[str]:
    jobs = [
        Job(
            number=number,
            where=f"line {number}",
            config=AnimateConfig(source=folder / source, driving=folder / "d.mp4", output=folder / output),
            choice=ModelChoice(),
        )
        for number, output in enumerate(outputs, start=1)
    ]
    return [f"{each.where}: {each.message.partition(': ')[0]}" for each in shared_paths(jobs)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("real/x.mkv", "link/x.mkv"),
        ("real/x.mkv", "real/X.MKV"),
        (unicodedata.normalize("NFC", "é.mkv"), unicodedata.normalize("NFD", "é.mkv")),
        ("there.mkv", "second-name.mkv"),
        ("f/%05d.png", "f/%d.png"),
    ],
)
def test_two_names_of_one_output(tmp_path: Path, one: str, other: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "there.mkv").write_text("")
    (tmp_path / "second-name.mkv").hardlink_to(tmp_path / "there.mkv")
    assert told(tmp_path, one, other) == ["line 2: the output is also that of line 1"]


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (("f/%d.png", "f/1%d.png"), ["line 2: the frames mix with those of line 1"]),
        (("f/s12%d.png", "f/s1%d.png", "f/t%d.png"), ["line 2: the frames mix with those of line 1"]),
        (("f/1%d.png", "f/2%d.png", "f/12_%d.png", "g/%d.png", "f/%d_.png"), []),
        (("100%%_%d.png", "10%%_%d.png"), []),
    ],
)
def test_numbers_that_run_into_each_other(tmp_path: Path, outputs: tuple[str, ...], expected: list[str]) -> None:
    """`1%d.png` and `%d.png` both write 11.png."""
    assert told(tmp_path, *outputs) == expected
