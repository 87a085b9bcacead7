"""Keys of jobs: hashes of inputs, model and options. Jobs with equal keys have equal results."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fommctl.animate.config import AnimateConfig
from fommctl.batch.jobs import Job
from fommctl.errors import InterruptedRunError, OutputError
from fommctl.files import FileFingerprint, open_regular, read_regular, text_sha256, write_text
from fommctl.provenance.hashing import InputFile, media_hash

HASHES = "hashes.json"
THREADS = 4
"""Files that are read in parallel: enough for a network, not too many for a hard disk."""
SETTLED_NS = 2_000_000_000
"""Age in nanoseconds below which a file may be written to again without a change of its times."""
_BLOCK = 1 << 20
_LENGTH = 32
_ELSEWHERE = ("source", "driving", "views", "output", "motion_out", "overwrite", "sign", "sign_key")
"""Options that are covered by hashes of contents, or that do not change the result."""


@dataclass(frozen=True, slots=True)
class Key:
    """The key of a job: two jobs with equal keys have equal results."""

    value: str
    parts: Mapping[str, str]
    """Hashes of source, driving, views, model and options."""
    inputs: tuple[InputFile, ...] = field(default=(), compare=False)
    """Inputs as they were when they were hashed."""

    def after_the_job(self) -> Key:
        """Return this key; if the inputs have changed since they were hashed, a key that no job has."""
        return self if all(each.unchanged for each in self.inputs) else Key("", {})


def inputs_of(job: Job) -> tuple[Path, ...]:
    """Return the files that are hashed for the key of a job."""
    config = job.config
    return (*config.inputs, *([] if config.sign is None else [config.sign]))


def key_of(job: Job, model: Mapping[str, Any], hashes: Hashes) -> Key:
    """Return the key of a job.  model: its identity, see `hashing.model_identity`. Raises InputError.

    Only the kind of the device matters, so that a job on another GPU of the machine is the same job.
    """
    config, choice = job.config, job.choice
    # Without options at their defaults, so that options of later versions change no key.
    plain = AnimateConfig(source=config.source, driving=config.driving).to_json()
    options = {
        name: value for name, value in config.to_json().items() if name not in _ELSEWHERE and value != plain[name]
    }
    options |= {"device": choice.device.partition(":")[0], "precision": choice.precision, "seed": choice.seed}
    if config.sign is not None:
        options["sign"] = hashes(config.sign)
    content = {
        "source": hashes(config.source),
        "driving": hashes(config.driving),
        "views": [hashes(path) for path in config.views],
        "model": dict(model),
        "options": options,
    }
    parts = {name: _digest(value) for name, value in content.items()}
    return Key(_digest(parts), parts, tuple(hashes.states[path] for path in inputs_of(job)))


def _digest(value: Any) -> str:
    return text_sha256(json.dumps(value, sort_keys=True))[:_LENGTH]


class Hashes:
    """SHA-256 of inputs, by path."""

    def __init__(self, memory: Path | None = None) -> None:
        """Load the hashes that `remember` wrote to the file `memory`; anything else in it is ignored."""
        self._memory = memory
        self._before = {} if memory is None else _recalled(memory)
        self._files: dict[str, tuple[FileFingerprint, str]] = {}
        self._known: dict[Path, str] = {}
        self.states: dict[Path, InputFile] = {}
        """Inputs as they were before they were hashed."""
        self._ahead: dict[Path, Future[str]] = {}
        self._stopped = threading.Event()

    def __call__(self, path: Path) -> str:
        """Return the SHA-256 of a file, a folder or a pattern of frames. Raises InputError."""
        if path not in self._known:
            waiting = self._ahead.get(path)
            self._known[path] = self._hash(path) if waiting is None else waiting.result()
        return self._known[path]

    @contextlib.contextmanager
    def ahead(self, paths: Iterable[Path]) -> Iterator[None]:
        """Hash these files in several threads during the block, in order."""
        with ThreadPoolExecutor(THREADS, "hashes") as pool:
            distinct = [path for path in dict.fromkeys(paths) if path not in self._known]
            self._ahead = {path: pool.submit(self._hash, path) for path in distinct}
            try:
                yield
            finally:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                self._ahead = {}
                self._stopped.clear()

    def remember(self) -> None:
        """Save the hashes for the next run; if that fails, the next run reads all files again."""
        # Hashes of other jobs in this folder are kept as long as their files exist.
        others = {path: entry for path, entry in self._before.items() if path in self._files or os.path.exists(path)}
        kept = {**others, **self._files}
        if self._memory is None or kept == self._before:
            return
        found = {path: [*state.to_json(), value] for path, (state, value) in kept.items()}
        with contextlib.suppress(OutputError):
            write_text(self._memory, json.dumps(found))

    def _hash(self, path: Path) -> str:
        self.states[path] = InputFile.of(path)
        return media_hash(path, self._of_file)

    def _of_file(self, path: Path) -> str:
        name, state = str(path), FileFingerprint.of(path)
        before = self._before.get(name)
        if before is not None and before[0] == state:
            self._files[name] = before
            return before[1]
        began, digest = time.time_ns(), hashlib.sha256()
        with open_regular(path) as file:
            while block := file.read(_BLOCK):
                if self._stopped.is_set():
                    raise InterruptedRunError("interrupted", None)
                digest.update(block)
        last = max(state.mtime_ns, state.ctime_ns or 0)
        if FileFingerprint.of(path) == state and began - last > SETTLED_NS:
            self._files[name] = state, digest.hexdigest()
        return digest.hexdigest()


def _recalled(memory: Path) -> dict[str, tuple[FileFingerprint, str]]:
    try:
        found = json.loads(read_regular(memory))
        return {path: (FileFingerprint(*map(int, state)), str(value)) for path, (*state, value) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
