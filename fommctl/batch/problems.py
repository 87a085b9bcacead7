"""What is wrong with the jobs of a batch, told all at once before the first one starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fommctl.batch.jobs import Job
from fommctl.errors import FommctlError, UsageError

_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one job cannot be done as it stands."""

    where: str
    """`line 3`."""
    message: str
    hint: str | None = None
    exit_code: int = UsageError.exit_code
    """As of `animate`."""
    job: Job | None = None
    """None where it came to none."""

    @classmethod
    def of(cls, where: str, error: FommctlError, job: Job | None = None) -> Problem:
        """The problem that an error tells of."""
        return cls(where, error.message, error.hint, error.exit_code, job)

    @property
    def place(self) -> tuple[int, int]:
        """Line and number of the job, to sort by; 0 where there is none."""
        return line_of(self.where), 0 if self.job is None else self.job.number


def line_of(where: str) -> int:
    """The number in `line 3`; 0 for other places."""
    match = re.search(r"\d+$", where)
    return int(match[0]) if match else 0


def problems_error(name: str, problems: Sequence[Problem]) -> UsageError:
    """One error for all of them, a line each; name: of the file."""
    hints = list(dict.fromkeys(problem.hint for problem in problems if problem.hint))
    if len(problems) == 1:
        return UsageError(f"{name}, {problems[0].where}: {problems[0].message}", hints[0] if hints else None)
    lines = [f"{problem.where}: {problem.message}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more")
    hint = hints[0] if len(hints) == 1 else "Nothing was started; --keep-going does the other jobs."
    return UsageError("\n  ".join([f"{len(problems)} problems in {name}:", *lines]), hint)
