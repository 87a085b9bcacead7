"""CSV tables for people: what a spreadsheet would run as a formula is written as text."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import TextIO

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters by which spreadsheets recognise formulas, or which they skip before them."""


def write_csv(file: TextIO, rows: Iterable[Sequence[str | int | float | None]]) -> None:
    """Write rows as CSV. Text that begins like a formula gets an apostrophe in front; numbers stay as they are."""
    csv.writer(file).writerows([_as_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def _as_text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
