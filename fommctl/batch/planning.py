"""Which jobs have to run, and why."""

from __future__ import annotations

from dataclasses import dataclass

from fommctl.batch.jobs import Job
from fommctl.batch.keys import Key
from fommctl.batch.stamps import Stamp, stamp_of
from fommctl.batch.status import Record
from fommctl.errors import UsageError
from fommctl.provenance.sidecar import sidecar_of


@dataclass(frozen=True, slots=True)
class Planned:
    """A job that can run."""

    job: Job
    key: Key
    reason: str | None
    """Why it has to; None: what an earlier batch made is still good."""
    record: Record | None = None
    """What the status file said of it then."""


def plan_job(job: Job, key: Key, record: Record | None) -> Planned:
    """What to do about a job of which the status file has this to say. Raises UsageError where it would replace what
    no batch has made."""
    reason = reason_to_run(job, key, record)
    if reason is not None and not may_replace(job, record) and stamp_of(job.output) is not None:
        raise UsageError(
            f"the output exists already, and no batch has made it: {job.output}",
            "Use --overwrite, or another output.",
        )
    return Planned(job, key, reason, record)


def reason_to_run(job: Job, key: Key, record: Record | None) -> str | None:
    """`new`, `missing`, `missing: sidecar`, `changed: ...`, `failed: ...` or `interrupted`; None where there is nothing
    to be done."""
    if record is None:
        return "new"
    if record.state == "failed":
        return f"failed: {(record.error or {}).get('message', 'for no known reason')}"
    if record.state != "done":
        return "interrupted"
    stamp = stamp_of(job.output)
    if stamp is None:
        return "missing"
    if record.key != key.value:
        changed = [name for name, part in key.parts.items() if record.parts.get(name) != part]
        return f"changed: {', '.join(changed)}" if changed else "changed"
    if job.config.sidecar and not sidecar_of(job.output).is_file():
        return "missing: sidecar"
    return None if record.stamp in (None, stamp) else "changed: output"


def may_replace(job: Job, record: Record | None) -> bool:
    """Whether what is at the output is ours, or may be replaced all the same.

    Where the last word is `started`, the batch was killed between the output and the word of it. Where it is `failed`,
    somebody may have made the output by other means since.
    """
    if job.config.overwrite or record is None:
        return job.config.overwrite
    stamp: Stamp | None = stamp_of(job.output)
    return record.state != "failed" or stamp is None or stamp == record.stamp
