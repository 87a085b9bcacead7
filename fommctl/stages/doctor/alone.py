"""The report without the libraries of the command line, for where these are what is broken."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Sequence

from fommctl.stages.doctor.examination import LIMIT, DoctorConfig, run
from fommctl.stages.doctor.report import lines


def examine(arguments: Sequence[str]) -> int:
    """`fommctl doctor ARGUMENTS`, of which --json and --timeout count; returns the exit code."""
    examination = run(DoctorConfig(limit=_limit(arguments)))
    if "--json" in arguments:
        text = json.dumps(examination.to_json(), allow_nan=False)
    else:
        width = shutil.get_terminal_size().columns
        text = "\n".join(line.text for line in lines(examination, width))
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)
    return examination.exit_code


def _limit(arguments: Sequence[str]) -> float:
    after = dict(itertools.pairwise(arguments))
    try:
        return max(1.0, float(after.get("--timeout", LIMIT)))
    except ValueError:
        return LIMIT
