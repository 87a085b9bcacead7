"""The report as lines of text: a table by area, then what to do about each problem. Needs no library for terminals."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator
from typing import Literal, NamedTuple

from fommctl.stages.doctor.findings import Examination, Finding

WIDEST = 100
NARROWEST = 60
_NAME = 20
"""Columns of a name; a longer one has a line of its own."""
_MARKS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}

Style = Literal["", "heading", "ok", "note", "problem"]


class Line(NamedTuple):
    """A line, and how it looks; `marked` columns of it where not all."""

    text: str
    style: Style = ""
    marked: int | None = None


def lines(examination: Examination, width: int = 80) -> Iterator[Line]:
    """The report in at most `width` columns, but for words that are longer (paths, commands)."""
    width = max(NARROWEST, min(width, WIDEST))
    for area, findings in itertools.groupby(examination.findings, key=lambda finding: finding.area):
        yield Line(area, "heading")
        for finding in findings:
            yield from _row(finding, width)
    yield Line("")
    verdict, style = _verdict(examination)
    yield from (Line(text, style) for text in _wrapped(verdict, "", "", width))
    for number, finding in enumerate(examination.problems, start=1):
        yield from _problem(number, finding, width)


def _row(finding: Finding, width: int) -> Iterator[Line]:
    mark = f"  {_MARKS[finding.level]:8}"
    begin = f"{mark}{finding.name:{_NAME}} "
    indent = " " * (len(mark) + _NAME + 1)
    value = finding.value or "-"
    if len(finding.name) > _NAME:
        yield Line(begin.rstrip(), finding.level, len(mark))
        yield from (Line(text) for text in _wrapped(value, indent, indent, width))
    else:
        first, *rest = _wrapped(value, begin, indent, width)
        yield Line(first, finding.level, len(mark))
        yield from map(Line, rest)
    if finding.level == "note" and finding.advice:
        yield from (Line(text, "note") for text in _wrapped(finding.advice, f"{indent}-> ", f"{indent}   ", width))


def _verdict(examination: Examination) -> tuple[str, Style]:
    problems = len(examination.problems)
    stopping = sum(finding.stops for finding in examination.problems)
    if not problems:
        return ("No problems: 'fommctl animate' works here.", "ok")
    counted = f"{problems} problem{'s' if problems > 1 else ''}"
    if not stopping:
        return (f"{counted}; 'fommctl animate' works here with the built-in model.", "note")
    which = f", {stopping} of which" if stopping < problems else ""
    keep = "keeps" if stopping == 1 else "keep"
    return (f"{counted}{which} {keep} 'fommctl animate' from working here.", "problem")


def _problem(number: int, finding: Finding, width: int) -> Iterator[Line]:
    head = f"{number}. "
    said = f"{finding.area}, {finding.name}: {finding.value}"
    yield from (Line(text, "problem") for text in _wrapped(said, head, "   ", width))
    if finding.advice:
        yield from map(Line, _wrapped(finding.advice, "   -> ", "      ", width))


def _wrapped(text: str, first: str, rest: str, width: int) -> list[str]:
    """Paths and commands are never broken within a word: they are copied from the terminal."""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    ) or [first.rstrip()]
