"""Small versions of what fuzzing has found: regressions/TARGET/CASE, a file or folder, and cases that are created
here."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzzing import layouts
from fuzzing.campaign import Campaign, Content

FOLDER = Path(__file__).parent / "regressions"
KEPT = sorted(path for target in FOLDER.iterdir() for path in target.iterdir())
DEEP = b"[" * 100_000


def _entry(**changes: object) -> bytes:
    entry = {"file": "train/a#b.mp4", "dataset": "faces", "identity": "a", "name": "b", "split": "train", "frames": 6,
             "rate": "25/1", "source": None, "start": None, "end": None, "box": None, "bytes": 5, "sha256": "0",
             "source_bytes": None, "state": "0", "keypoints": None}  # fmt: skip
    return json.dumps({**entry, **changes}).encode() + b"\n"


MADE: dict[tuple[str, str], Content] = {
    ("jobs", "brackets-csv"): {"jobs.csv": b"source,driving\n" + b"[" * 100_000 + b",b.mp4\n"},
    ("jobs", "infinite-status"): {
        "jobs.csv": b"source,driving\na.png,b.mp4\n",
        "status.jsonl": b'{"output": "x.mp4", "state": "done", "key": "k", "attempt": Infinity}\n',
    },
    ("jobs", "halves-json"): {"jobs.json": b'{"jobs": [{"source": "a\\ud800.png", "driving": "b.mp4"}]}'},
    ("manifests", "rows-crop"): {".crop.jsonl": b'{"key": "a", "name": "a", "rows": [[]], "source": "a", "stamp": [], '
                                 b'"options": "0"}\n'},
    ("manifests", "infinite-crop"): {".crop.jsonl": b'{"key": "a", "name": "a", "rows": [{"output": -Infinity}], '
                                     b'"source": "a", "stamp": [], "options": "0"}\n'},
    ("manifests", "deep-crop"): {".crop.jsonl": DEEP},
    ("manifests", "deep-journal"): {".preprocess.jsonl": DEEP},
    ("manifests", "deep-training"): {"manifest.jsonl": DEEP, "train/a.png": b"", "test/b.png": b""},
    ("manifests", "deep-metrics"): {"metrics.jsonl": DEEP + b"\n"},
    ("manifests", "deep-origin"): {"origin.json": DEEP},
    ("manifests", "digits-training"): {"manifest.jsonl": b'{"file": "a.png", "frames": "' + b"9" * 5_000 + b'"}',
                                       "a.png": b"x"},
    ("manifests", "long-preprocess"): {"manifest.jsonl": _entry(file=f"train/{'x' * 300}.mp4")},
    ("manifests", "halves-preprocess"): {"manifest.jsonl": _entry(file="train/\ud800.mp4")},
    ("manifests", "tokens-keypoints"): {"a.keypoints.npy": b"\x93NUMPY\x01\0\x10\0{'descr': '<f8\0(["},
    ("manifests", "types-stored"): {"stored.npz": layouts.store_bytes('{"format": 1, "key": "k", "frames": null, '
                                    '"rate": "x", "warnings": 5, "saved": [], "metrics": {}}')},
}  # fmt: skip
"""Cases by target and name; the name of a manifest ends in its kind."""


@pytest.fixture(scope="module")
def campaigns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Campaign]]:
    """Start a process for each target."""
    opened: dict[str, Campaign] = {}
    for target in {path.parent.name for path in KEPT} | {target for target, _ in MADE}:
        opened[target] = Campaign(target, tmp_path_factory.mktemp(target), 1000).__enter__()
    yield opened
    for campaign in opened.values():
        campaign.__exit__(None, None, None)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_read_or_refused(campaigns: dict[str, Campaign], path: Path) -> None:
    campaign = campaigns[path.parent.name]
    assert campaign.run(path.name, path.read_bytes()) in ("result", "refused"), campaign.last


@pytest.mark.parametrize(("target", "name"), MADE)
def test_what_was_found_once_and_is_made_here_is_read_or_refused(
    campaigns: dict[str, Campaign], target: str, name: str
) -> None:
    campaign = campaigns[target]
    assert campaign.run(name, MADE[target, name]) in ("result", "refused"), campaign.last
