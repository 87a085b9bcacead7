"""Reading and writing checkpoints: both formats of torch, and the native one."""

import json
from pathlib import Path

import pytest
import torch
from checkpoints import BOTH, TINY, published, save

from fommctl.errors import OutputError
from fommctl.models.checkpoint import halved, read_checkpoint, write_native
from fommctl.models.files import count_values


@BOTH
def test_a_published_checkpoint_gives_its_groups_without_optimisers(zipped: bool, tmp_path: Path) -> None:
    content = published()
    checkpoint = read_checkpoint(save(content, tmp_path / "a.pth.tar", zipped))
    assert list(checkpoint.groups) == ["generator", "kp_detector", "discriminator"]
    for group, tensors in checkpoint.groups.items():
        assert list(tensors) == list(content[group])
        assert all(torch.equal(tensor, content[group][name].to(tensor.dtype)) for name, tensor in tensors.items())
    assert json.loads(checkpoint.metadata["training"]) == {"epoch": 3}


def test_the_prefix_of_data_parallel_is_taken_off(tmp_path: Path) -> None:
    content = {
        "generator": {f"module.{name}": torch.ones(2) for name in "ab"},
        "kp_detector": {"module.x": torch.ones(1)},
    }
    groups = read_checkpoint(save(content, tmp_path / "a.pth.tar")).groups
    assert {group: list(tensors) for group, tensors in groups.items()} == {
        "generator": ["a", "b"],
        "kp_detector": ["x"],
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_come_in_single_precision_and_counters_stay_whole(dtype: torch.dtype, tmp_path: Path) -> None:
    content = {"generator": {"weight": torch.tensor([0.5, -2], dtype=dtype), "num_batches_tracked": torch.tensor(7)}}
    tensors = read_checkpoint(save(content, tmp_path / "a.pth.tar")).groups["generator"]
    assert tensors["weight"].dtype == torch.float32
    assert tensors["weight"].tolist() == [0.5, -2]
    assert tensors["num_batches_tracked"].dtype == torch.int64


def test_a_native_file_gives_back_tensors_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    groups = read_checkpoint(TINY).groups
    write_native(path, groups, {"backend": "fomm", "preset": "a: 1\n"})
    back = read_checkpoint(path)
    assert back.metadata == {"backend": "fomm", "preset": "a: 1\n", "format": "fommctl", "format_version": "1"}
    assert {group: set(tensors) for group, tensors in back.groups.items()} == {g: set(t) for g, t in groups.items()}
    assert all(torch.equal(back.groups[g][n], tensor) for g, tensors in groups.items() for n, tensor in tensors.items())
    assert count_values(path) == sum(tensor.numel() for tensors in groups.values() for tensor in tensors.values())
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_half_precision_is_for_weights_that_it_can_hold() -> None:
    tensors = {
        "weight": torch.full((2, 2), 0.1),
        "large": torch.full((2, 2), 1e5),
        "bias": torch.full((2,), 0.1),
        "num_batches_tracked": torch.tensor(3),
    }
    stored = {name: tensor.dtype for name, tensor in halved({"generator": tensors})["generator"].items()}
    assert stored == {
        "weight": torch.float16,
        "large": torch.float32,
        "bias": torch.float32,
        "num_batches_tracked": torch.int64,
    }


def test_a_native_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder" / "a.safetensors").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot write"):
        write_native(tmp_path / "folder" / "a.safetensors", {"generator": {"a": torch.ones(1)}}, {})
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.safetensors"]
