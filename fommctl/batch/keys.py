"""By what a job is known to be the same as last time: the contents of its inputs, its model, its options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from fommctl.animate.config import AnimateConfig
from fommctl.batch.hashes import Hashes
from fommctl.batch.jobs import Job

_LENGTH = 32
_ELSEWHERE = ("source", "driving", "views", "output", "overwrite", "sign", "sign_key")
"""Options that are told by contents, or that do not change the result."""


@dataclass(frozen=True, slots=True)
class Key:
    """Two jobs of equal keys have equal results."""

    value: str
    parts: Mapping[str, str]
    """Of source, driving, views, model and options."""


def inputs_of(job: Job) -> tuple[Path, ...]:
    """What has to be hashed for the key of a job."""
    config = job.config
    return (config.source, config.driving, *config.views, *([] if config.sign is None else [config.sign]))


def key_of(job: Job, model: Mapping[str, Any], hashes: Hashes) -> Key:
    """The key of a job; model: its identity, see `hashing.model_identity`. Raises InputError.

    Of the device only its kind counts: the same job on another GPU of a machine is the same job.
    """
    config, choice = job.config, job.choice
    # Without those that are as they are by default: options that come with later versions change nothing.
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
    return Key(_digest(parts), parts)


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_LENGTH]
