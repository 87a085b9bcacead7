"""Model files that are broken, wrong or malicious are rejected with the reason, and nothing in them runs."""

import contextlib
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import BOTH, TINY, Evil, published, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fommctl.errors import ModelError
from fommctl.models.checkpoint import read_checkpoint, write_native
from fommctl.models.files import read_metadata, sniff


@BOTH
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, r"(posix|nt)\.system"), (eval, "eval"), (open, r"\w*\.?open"), (os.putenv, r"\w+\.putenv")],
)
def test_a_pickle_that_wants_to_run_code_is_refused_and_nothing_runs(
    function: Any, name: str, zipped: bool, tmp_path: Path
) -> None:
    trace = tmp_path / "ran"
    arguments = {
        os.system: (f"echo > {trace}",),
        eval: (f"open({str(trace)!r}, 'w')",),
        open: (str(trace), "w"),
        os.putenv: ("A", "B"),
    }[function]
    path = save({**published(), "extra": Evil(function, *arguments)}, tmp_path / "evil.pth.tar", zipped)
    with pytest.raises(ModelError, match=f"is refused: it tries to call {name}, but a model needs no code") as error:
        read_checkpoint(path)
    assert error.value.exit_code == 4
    assert not trace.exists()


def torch_zip(pickled: bytes, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    return path


def legacy(pickled: bytes, path: Path) -> Path:
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})) + pickled)
    return path


NESTED = b"\x80\x02})" + b"q\x00h\x00\x86" * 100 + b"K\x01s."
"""{((t, t), (t, t)): 1}, a hundred levels deep: hashing takes 2**100 steps."""
GREEDY = b"\x80\x02c__builtin__\nbytearray\nJ\x00\x00\x00\x7f\x85R."
STORAGE = b"\x80\x02ctorch.storage\nUntypedStorage\nJ\x00\x00\x00\x7f\x85R."
OBJECT = b"\x80\x02ctorch.storage\nUntypedStorage\nJ\x00\x00\x00\x7f\x85\x81."
CLAIM = (
    b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ\x00\x00\x00\x7fNtQ."
)


@pytest.mark.parametrize("write", [torch_zip, legacy])
@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (NESTED, "a tuple of more parts than a model"),
        (GREEDY, "tries to call bytearray"),
        (STORAGE, "tries to call torch.storage.UntypedStorage"),
        (OBJECT, "tries to call torch.storage.UntypedStorage"),
        (CLAIM, "claims more numbers than the file holds"),
        (b"\x80\x02R.", "its pickle cannot be read"),
        (b"\x80\x02h\x07.", "its pickle cannot be read"),
    ],
    ids=["nested", "bytearray", "storage", "object", "claim", "stack", "memo"],
)
def test_what_takes_memory_or_time_without_a_limit_is_refused(
    pickled: bytes, message: str, write: Any, tmp_path: Path
) -> None:
    path = write(pickled, tmp_path / "small.pth.tar")
    assert path.stat().st_size < 1000
    with pytest.raises(ModelError, match=message):
        read_checkpoint(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pth.tar")
    with pytest.raises(ModelError, match="is a pipe or a device, not a model file"):
        read_checkpoint(tmp_path / "model.pth.tar")


def test_objects_of_other_classes_are_refused_by_name(tmp_path: Path) -> None:
    path = save({**published(), "network": torch.nn.Linear(2, 2)}, tmp_path / "a.pth.tar")
    with pytest.raises(ModelError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, I am text", "is not a model: neither a torch checkpoint nor safetensors"),
        (b"<!DOCTYPE html><html>Quota exceeded</html>", "is a web page, not a model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"\x1f\x8b\x08\x00", "is a gzip archive"),
        (bytes(257) + b"ustar\x0000", "is a tar archive"),
        (b"PK\x03\x04 and then nothing", "is truncated or damaged"),
        (b"\x80", "is truncated or damaged"),
        (b"\x80\x02garbage", "is (truncated or damaged|not a torch checkpoint)"),
        (struct.pack("<Q", 10**9) + b"{}", "claims a header of 1,000,000,000 bytes"),
        (struct.pack("<Q", 2) + b"{]", "the header of .* is damaged"),
        (struct.pack("<Q", 19) + b'{"a":{"shape":"x"}}', "the header of .* is damaged"),
        (struct.pack("<Q", 20) + b'{"a":{"shape":[-1]}}', "the header of .* is damaged"),
        (struct.pack("<Q", 8) + b'{"a":{}}', "the header of .* is damaged"),
        (struct.pack("<Q", 2) + b"{}", "contains no tensors"),
    ],
)
def test_files_that_are_no_checkpoint_say_what_they_are(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth.tar"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_checkpoint(path)


def test_missing_files_and_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model file"):
        read_checkpoint(tmp_path / "none.pth.tar")
    with pytest.raises(ModelError, match="is a folder without a file of weights"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "native"])
@pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_truncated_files_are_named_so(kind: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    if kind == "native":
        write_native(path, read_checkpoint(TINY).groups, {})
    else:
        save(published(), path, kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ModelError, match="truncated or damaged"):
        read_checkpoint(path)


def test_a_changed_byte_in_the_middle_is_found_by_the_checksum(tmp_path: Path) -> None:
    content = bytearray(TINY.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "a.pth.tar"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"is damaged: the checksum of .* does not match"):
        read_checkpoint(path)


def test_archives_that_are_no_checkpoint_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vox-cpk.pth.tar", b"x")
    with pytest.raises(ModelError, match="is a zip archive, not a torch checkpoint"):
        read_checkpoint(path)
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"program/{name}", b"x")
    with pytest.raises(ModelError, match="is a TorchScript program"):
        read_checkpoint(tmp_path / "program.pt")


def test_a_compressed_checkpoint_is_read_and_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    packed, bomb = tmp_path / "packed.pth.tar", tmp_path / "bomb.pth.tar"
    with zipfile.ZipFile(TINY) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as smaller:
        for name in archive.namelist():
            smaller.writestr(name, archive.read(name))
    assert torch.equal(
        read_checkpoint(packed).groups["generator"]["final.weight"], published()["generator"]["final.weight"]
    )
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"x")
        archive.writestr("archive/data/0", bytes(64 * 2**20))
    with pytest.raises(ModelError, match="unpacks to far more than its size"):
        read_checkpoint(bomb)


@BOTH
def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(zipped: bool, tmp_path: Path) -> None:
    path = save({"generator": {"a": torch.zeros(1).expand(10**6, 10**6)}}, tmp_path / "a.pth.tar", zipped)
    with pytest.raises(ModelError, match=r"generator/a claims \(1000000, 1000000\), more than the file holds"):
        read_checkpoint(path)


def test_many_names_for_one_large_tensor_are_refused(tmp_path: Path) -> None:
    shared = torch.zeros(2**20)
    path = save({"generator": {str(n): shared for n in range(100)}}, tmp_path / "a.pth.tar")
    with pytest.raises(ModelError, match="more than the file holds"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "generator/b is a str, not a tensor"),
        (3, "generator/b is a int, not a tensor"),
        ([1.0], "generator/b is a list, not a tensor"),
        ({"c": 1}, "generator/b is a dict, not a tensor"),
        (torch.tensor([0, float("nan")]), "generator/b contains NaN or infinity"),
        (torch.tensor([0, float("-inf")], dtype=torch.half), "generator/b contains NaN or infinity"),
        (torch.zeros(3, 3).to_sparse(), "generator/b is not a plain tensor of numbers"),
        (torch.zeros(2, dtype=torch.cfloat), "generator/b is not a plain tensor of numbers"),
        (torch.zeros(2, device="meta"), "generator/b is not a plain tensor of numbers"),
    ],
)
def test_what_cannot_be_a_weight_is_named(value: object, message: str, tmp_path: Path) -> None:
    path = save({"generator": {"a": torch.ones(2), "b": value}}, tmp_path / "a.pth.tar")
    with pytest.raises(ModelError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not groups of tensors"),
        (torch.ones(2), "holds a Tensor, not groups of tensors"),
        ({}, "it contains no tensors"),
        ({"epoch": 3, "optimizer": {"state": {0: torch.ones(1)}, "param_groups": []}}, "it contains no tensors"),
        ({"first.conv.weight": torch.ones(2), "epoch": 3}, "it contains 1 tensors without a group"),
    ],
)
def test_checkpoints_without_groups_say_what_they_hold(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        read_checkpoint(save(content, tmp_path / "a.pth.tar"))


def test_safetensors_of_others_and_of_later_versions_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ModelError, match="tensor 'weight' names no group"):
        read_checkpoint(tmp_path / "foreign.safetensors")
    later = {"format": "fommctl", "format_version": "2"}
    save_file({"generator/weight": torch.ones(2)}, tmp_path / "later.safetensors", later)
    with pytest.raises(ModelError, match="has format version 2, this fommctl reads 1"):
        read_checkpoint(tmp_path / "later.safetensors")


def test_a_native_file_with_offsets_beyond_its_end_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"generator/a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ModelError, match="truncated or damaged"):
        read_checkpoint(path)


def test_the_kind_of_a_file_is_recognised_by_its_first_bytes(tmp_path: Path) -> None:
    assert sniff(save({}, tmp_path / "zip")) == "torch zip"
    assert sniff(save({}, tmp_path / "legacy", zipped=False)) == "torch pickle"
    write_native(tmp_path / "native", {"g": {"a": torch.ones(1)}}, {"licence": "MIT"})
    assert sniff(tmp_path / "native") == "safetensors"
    assert read_metadata(tmp_path / "native")["licence"] == "MIT"
    with pytest.raises(ModelError, match="is not a safetensors file"):
        read_metadata(tmp_path / "zip")


def small(kind: str) -> bytes:
    buffer = io.BytesIO()
    torch.save({"generator": {"a": torch.ones(4, 3)}, "epoch": 1}, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["zip", "legacy"]),
    place=st.floats(0, 1, exclude_max=True),
    replacement=st.binary(min_size=1, max_size=8),
)
def test_whatever_bytes_are_changed_only_model_errors_come_out(
    kind: str, place: float, replacement: bytes, tmp_path: Path
) -> None:
    content = bytearray(small(kind))
    start = int(place * len(content))
    content[start : start + len(replacement)] = replacement
    path = tmp_path / "a.pth.tar"
    path.write_bytes(content)
    groups = {}
    with contextlib.suppress(ModelError):
        groups = read_checkpoint(path).groups
    assert all(isinstance(tensor, torch.Tensor) for tensors in groups.values() for tensor in tensors.values())


def test_the_pickle_module_itself_is_never_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("unsafe unpickling")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    for zipped in (True, False):
        assert read_checkpoint(save({"generator": {"a": torch.ones(1)}}, tmp_path / "a.pth.tar", zipped)).groups
