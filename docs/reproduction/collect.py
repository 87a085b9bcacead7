"""Makes the page of this folder from what `fommctl reproduce -o OUT` wrote.

    python docs/reproduction/collect.py OUT

README.md is the tables of OUT with reading.md, which is written by hand, before them; report.html is the page of the
first seed, where it is small enough to be kept; results.json is kept as it is. Paths of the machine are taken out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fommctl.stages.reproduction import markdown

HERE = Path(__file__).parent
NAME = "reproduction"
"""Stands for OUT in the commands that are printed."""
LARGEST_PAGE = 4 * 1024**2


def without_paths(text: str, out: Path) -> str:
    """OUT by its neutral name, wherever it lay."""
    for path in sorted({str(out), str(out.resolve())}, key=len, reverse=True):
        text = text.replace(path, NAME)
    return text


def main(out: Path) -> None:
    """Write the three files."""
    results = without_paths((out / "results.json").read_text(encoding="utf-8"), out)
    found = json.loads(results)
    page = next(iter(sorted(out.glob("evaluation/*/report.html"))))
    kept = page.stat().st_size <= LARGEST_PAGE
    link = (
        f"The page of one seed, with the best and worst clips as videos: [report.html](report.html) "
        f"(`{page.relative_to(out)}`); all numbers: [results.json](results.json)."
        if kept
        else f"All numbers: [results.json](results.json). The pages with the videos ({page.stat().st_size >> 20} MB "
        f"each) are made by the command: `{NAME}/evaluation/seed-N/report.html`."
    )
    tables = markdown.markdown(found)
    title, rest = tables.split("\n\n", 1)
    reading = (HERE / "reading.md").read_text(encoding="utf-8").strip()
    (HERE / "README.md").write_text(f"{title}\n\n{reading}\n\n{link}\n\n## How it was made\n\n{rest}", encoding="utf-8")
    (HERE / "results.json").write_text(results, encoding="utf-8")
    if kept:
        text = without_paths(page.read_text(encoding="utf-8"), out)
        (HERE / "report.html").write_text(text, encoding="utf-8")
    else:
        (HERE / "report.html").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
