"""What has been scored, clip by clip, so that a later run goes on where one stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fommctl.api import plain_json
from fommctl.api.metrics import ClipScores
from fommctl.files import atomic_write

FORMAT = 1
_HINT = "Free some space, or write elsewhere with -o."


@dataclass
class Stored:
    """The scores of one model on one clip."""

    key: str
    """Of all that the predictions depend on: contents of the files, model, options."""
    frames: int
    rate: float
    keys: dict[str, str] = field(default_factory=dict)
    """By metric: of what its scores depend on beside."""
    scores: dict[str, ClipScores] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    saved: str = "none"
    """How its predictions were saved."""

    def forget(self, keys: Mapping[str, str]) -> None:
        """Drop the scores of metrics that have another key now."""
        for metric, key in keys.items():
            if self.keys.get(metric) != key:
                self.keys.pop(metric, None)
                self.scores.pop(metric, None)


def key_of(values: Mapping[str, Any]) -> str:
    """A hash of JSON values."""
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def read_stored(path: Path, key: str) -> Stored | None:
    """What is stored there under this key; None where there is nothing, or where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            record = plain_json.parse(str(archive["record"]))
            if record["format"] != FORMAT or record["key"] != key:
                return None
            warnings = tuple(str(warning) for warning in record["warnings"])
            stored = Stored(key, int(record["frames"]), float(record["rate"]), {}, {}, warnings, str(record["saved"]))
            for number, (metric, entry) in enumerate(record["metrics"].items()):
                prefix = f"{number}.state."
                state = {name[len(prefix) :]: archive[name] for name in archive.files if name.startswith(prefix)}
                stored.keys[metric] = entry["key"]
                stored.scores[metric] = ClipScores(
                    archive[f"{number}.frames"], entry["value"], entry["scored"], entry["total"], state
                )
            return stored
    except Exception:  # A damaged archive fails in any way of zipfile, zlib, numpy and json; it is made anew.
        return None


def write_stored(path: Path, stored: Stored) -> None:
    """All or nothing. Raises OutputError."""
    arrays: dict[str, Any] = {}
    metrics = {}
    for number, (metric, scores) in enumerate(stored.scores.items()):
        arrays[f"{number}.frames"] = scores.frames
        arrays.update({f"{number}.state.{name}": array for name, array in scores.state.items()})
        metrics[metric] = {
            "key": stored.keys[metric],
            "value": scores.value,
            "scored": scores.scored,
            "total": scores.total,
        }
    record = {
        "format": FORMAT,
        "key": stored.key,
        "frames": stored.frames,
        "rate": stored.rate,
        "warnings": list(stored.warnings),
        "saved": stored.saved,
        "metrics": metrics,
    }
    arrays["record"] = np.array(json.dumps(record, allow_nan=False))
    with atomic_write(path, hint=_HINT) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
