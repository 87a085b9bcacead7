"""The process in which the doctor looks at what can crash or hang; see `probe` for the other side.

What it finds goes out at once, one JSON object a line, so that all but the item that ended the process is known.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO


def main(package: str, items: Sequence[str]) -> NoReturn:
    """Look at items "MODULE.WHAT", by calling `look(WHAT)` of that module of the package, and end the process.

    What a library prints goes to stderr, also past sys.stdout.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    for item in items:
        _say(answers, {"doing": item})
        try:
            module, _, what = item.partition(".")
            answer = {"item": item, "fact": importlib.import_module(f"{package}.{module}").look(what)}
            _say(answers, answer)
        except BaseException as error:  # SystemExit, too: a broken package may end the process
            _say(answers, {"item": item, "error": describe(error)})
    # What libraries registered for the end of the process may hang, and is of no use here.
    os._exit(0)


def describe(error: BaseException) -> str:
    """`ValueError: what it says`, the first line, at most about 200 characters."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:200]}".rstrip(": ")


def _say(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what, allow_nan=False) + "\n")
    answers.flush()
