"""Presets and model files that describe terabytes, unpack to gigabytes or never end give one message, in little
memory."""

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import hostile
import pytest
import torch
from fuzzing.campaign import Campaign

from fommctl.models.loading import MOST_VALUES
from fommctl.presets.preset import presets_root

MEMORY, SECONDS = 700, 60
"""Memory limit; torch alone takes 200 MiB."""
SMOKE = (presets_root() / "smoke.yaml").read_text()


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Campaign]]:
    """Start a process for presets and one for checkpoints."""
    found = {}
    for target in ("presets", "checkpoints"):
        campaign = Campaign(target, tmp_path_factory.mktemp(target), MEMORY, SECONDS)
        found[target] = campaign.__enter__()
    yield found
    for campaign in found.values():
        campaign.__exit__(None, None, None)


def _wide() -> str:
    return SMOKE.replace("block_expansion: 8", "block_expansion: 4096").replace(
        "max_features: 32", "max_features: 16384"
    )


ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
PRESETS = {
    "aliases.yaml": (ALIASES, "more than 50,000 values"),
    "inside.yaml": ("a: &a [*a]\n", "nested too deeply"),
    "values.yaml": ("a: [" + "1," * 200_000 + "1]", "more than 50,000 values"),
    "deep.yaml": ("a: " + "[" * 100_000, "nested too deeply"),
    "sixties.yaml": ("a: 1" + ":59" * 300_000, "cannot be read as int"),
    "large.yaml": ("a: " + "x" * 2_000_000, "larger than 1,000,000 bytes"),
    "tags.yaml": ("a: !!python/object/apply:os.system ['touch pwned']\n", "is not allowed"),
    "wide.yaml": (_wide(), f"more than {MOST_VALUES:,} values"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_without_end_are_refused(fed: dict[str, Campaign], name: str) -> None:
    text, said = PRESETS[name]
    assert fed["presets"].run(name, text.encode()) == "refused", fed["presets"].last
    assert said in fed["presets"].last


def native(metadata: dict[str, str]) -> bytes:
    """Write a safetensors file of one value, with this metadata."""
    header = json.dumps(
        {"__metadata__": metadata, "generator/a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    )
    return struct.pack("<Q", len(header)) + header.encode() + bytes(4)


def expanded() -> bytes:
    """Write a checkpoint in which a tensor of one value is expanded to 10^12."""
    target = io.BytesIO()
    torch.save({"generator": {"a": torch.ones(1).expand(10**6, 10**6)}}, target)
    return target.getvalue()


CHECKPOINTS = {
    "zip.pth.tar": (lambda: hostile.zip_bomb(4, 2**26), "unpacks to far more"),
    "expanded.pth.tar": (expanded, "more than the file holds"),
    "header.safetensors": (lambda: struct.pack("<Q", 2**24 - 1) + b"{" + b"[" * (2**24 - 2), "is damaged"),
    "deep.safetensors": (lambda: struct.pack("<Q", 200_006) + b'{"a":' + b"[" * 200_001, "is damaged"),
    "pickle.pth.tar": (lambda: b"\x80\x02" + b"(" * 500_000, "damaged"),
    "bytes.pth.tar": (lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x", "damaged"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_that_unpack_to_gigabytes_are_refused(fed: dict[str, Campaign], name: str) -> None:
    make, said = CHECKPOINTS[name]
    assert fed["checkpoints"].run(name, make()) == "refused", fed["checkpoints"].last
    assert said in fed["checkpoints"].last


def test_a_model_whose_own_preset_describes_terabytes_is_refused(tmp_path: Path, run_process) -> None:
    (tmp_path / "model.safetensors").write_bytes(native({"preset": _wide(), "backend": "fomm"}))
    done = run_process("models", "import", tmp_path / "model.safetensors", "--json")
    error = done.json()["error"]
    assert error["exit_code"] in (2, 4)
    assert f"more than {MOST_VALUES:,} values" in error["message"]
    assert "Traceback" not in done.stderr
