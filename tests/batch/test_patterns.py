"""Patterns of sources and driving videos, and names of outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fommctl.batch.jobs import expand, fill, path_fields
from fommctl.errors import FommctlError, InputError, UsageError


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    for name in ("take10.mp4", "take2.mp4", ".hidden.mp4", "a[1].png", "a1.png", "day2/x.mp4", "day10/x.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.mp4", ["take2.mp4", "take10.mp4"]),
        ("take?.mp4", ["take2.mp4"]),
        ("a[1].png", ["a[1].png"]),  # a file with exactly this name
        ("a[12].png", ["a1.png"]),
        ("**/x.mp4", ["day2/x.mp4", "day10/x.mp4"]),
        ("day*/%05d.png", ["day2/%05d.png", "day10/%05d.png"]),
        ("none.mp4", ["none.mp4"]),  # its existence is checked later
        ("day2/../take2.mp4", ["take2.mp4"]),
    ],
)
def test_patterns_in_the_order_in_which_people_count(shots: Path, pattern: str, names: list[str]) -> None:
    assert expand(pattern, shots) == [shots / name for name in names]
    assert expand(str(shots / pattern), Path("/")) == [shots / name for name in names]


def test_a_pattern_that_fits_nothing(shots: Path) -> None:
    with pytest.raises(InputError, match=r"no file matches the pattern 'x\*\.mp4'"):
        expand("x*.mp4", shots)
    # The folder's own name is not a pattern.
    odd = shots / "[b]*"
    odd.mkdir()
    (odd / "y.mp4").write_text("")
    assert expand("*.mp4", odd) == [odd / "y.mp4"]


def test_fields_of_paths() -> None:
    assert path_fields("source", Path("/a/b/c.tar.gz")) == {
        "source.stem": "c.tar", "source.name": "c.tar.gz", "source.suffix": ".gz", "source.parent": "/a/b",
        "source.folder": "b",
    }  # fmt: skip
    assert path_fields("driving", Path("/a/b/%05d.png"))["driving.stem"] == "b"


FIELDS: dict[str, str | int] = {"number": 7, "source.stem": "anna", "source.parent": "/s", "model": "../vox", "x": ".."}


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{source.stem}_{number:03}.mov", "anna_007.mov"),
        ("{number}/{{x}}%05d.png", "7/{x}%05d.png"),
        ("{source.parent}/{model}.mov", "/s/.._vox.mov"),
        ("{ number :d}{x}", "7_"),
        ("plain.mov", "plain.mov"),
    ],
)
def test_names(template: str, name: str) -> None:
    assert fill(template, FIELDS) == name


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{source.steam}.mov", "unknown field 'source.steam' (did you mean 'source.stem'?)"),
        ("{source.stem.__class__}", "unknown field 'source.stem.__class__'"),
        ("{number!r}", "'number' cannot be formatted like this"),
        ("{number:999999999}", "'number' cannot be formatted like this"),
        ("{source.stem:>99}", "'source.stem' cannot be formatted like this"),
        ("{number:{x}}", "'number' cannot be formatted like this"),
        ("{", "single '{' encountered"),
        ("{}", "unknown field ''"),
        ("{0}", "unknown field '0'"),
    ],
)
def test_names_that_cannot_be(template: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        fill(template, FIELDS)
    assert told in caught.value.message
    assert caught.value.hint


@given(st.text(max_size=30), st.text(max_size=10))
def test_a_value_leads_to_no_other_folder(template: str, value: str) -> None:
    try:
        name = fill("{v}", {"v": value})
        assert "/" not in name
        assert name not in (".", "..")
        fill(template, {"v": value, "number": 1})
    except FommctlError:
        pass
