"""Coverage-guided fuzzing of parsers in pure Python, by hand: `make fuzz`, or PARSER and any option of libFuzzer:

    python tests/fuzz/coverage_guided.py presets -max_total_time=300

Needs the package atheris (CPython 3.11 to 3.13 on Linux). What it finds stands in the file crash-*, in this folder's
`regressions` it stays found.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fommctl", "fommctl_robots", "yaml"]):
    from fommctl.api.readers import read_table
    from fommctl.batch.job_files import read_job_file
    from fommctl.errors import FommctlError
    from fommctl.models.files import read_header
    from fommctl.presets.config import parse_yaml
    from fommctl_robots.tfrecord import byte_features, read_record, record_starts

Parse = Callable[[Path, bytes], object]


def _records(path: Path, data: bytes) -> object:
    with contextlib.suppress(ValueError):
        byte_features(data)
    return [read_record(path, start) for start in record_starts(path)]


PARSERS: dict[str, tuple[str, Parse]] = {
    "presets": ("a.yaml", lambda path, data: parse_yaml(data, "a.yaml")),
    "tables": ("a.csv", lambda path, data: list(read_table(path, ("file", "identity")))),
    "records": ("a.tfrecords", _records),
    "headers": ("a.safetensors", lambda path, data: read_header(path)),
    "job tables": ("jobs.csv", lambda path, data: read_job_file(path)),
    "job lines": ("jobs.jsonl", lambda path, data: read_job_file(path)),
}
"""Name of the file and what reads it; a ValueError of `byte_features` is what its callers expect."""


def main() -> None:
    """Fuzz the parser that the first argument names."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in PARSERS:
        sys.exit(f"name one of the parsers: {', '.join(PARSERS)}")
    file, parse = PARSERS[name]
    path = Path(tempfile.mkdtemp(prefix="fommctl-fuzz-", dir=_memory())) / file

    def one(data: bytes) -> None:
        path.write_bytes(data)
        try:
            parse(path, data)
        except FommctlError as error:
            if not error.message.strip():
                raise AssertionError("a refusal without a message") from error

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


def _memory() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


if __name__ == "__main__":
    main()
