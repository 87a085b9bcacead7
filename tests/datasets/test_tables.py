"""CSV tables: text that a spreadsheet would run as a formula is kept as text, numbers stay numbers."""

import csv
import io

import pytest

from fommctl.files import write_csv


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", '=HYPERLINK("x")'])
def test_formulas_become_text(text):
    table = io.StringIO(newline="")
    write_csv(table, [["clip", "value"], [text, -1.5], ["a=b", None]])
    table.seek(0)
    assert list(csv.reader(table)) == [["clip", "value"], [f"'{text}", "-1.5"], ["a=b", ""]]
