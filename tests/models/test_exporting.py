"""Exported models are published checkpoints: their layout, and that they are the same model."""

from pathlib import Path

import pytest
import torch
from checkpoints import TINY, published, save
from small_disk import files_up_to

from fommctl.errors import ModelError, OutputError, UsageError
from fommctl.host import Host
from fommctl.models.checkpoint import halved, read_checkpoint, write_native
from fommctl.models.loading import export_model, import_model, load_model

TINY_PRESET = str(TINY.with_name("vox-tiny.model_params.yaml"))


def frames(model: str | Path, host: Host) -> torch.Tensor:
    """Return a model's results for two random pictures."""
    renderer = load_model(str(model), host).backend.prepare(torch.device("cpu"), "fp32", fast=False)
    source, driving = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return renderer.render(renderer.encode_source(source), renderer.detect(driving))


def test_a_published_checkpoint_comes_out_as_it_went_in(tmp_path: Path, host: Host) -> None:
    target = tmp_path / "again.pth.tar"
    exported = export_model(str(TINY), target, host, preset=TINY_PRESET)
    assert (exported.path, exported.groups, exported.epoch) == (
        target,
        ("generator", "kp_detector", "discriminator"),
        3,
    )
    before, after = published(), torch.load(target, weights_only=True)
    assert list(after) == ["generator", "kp_detector", "discriminator", "epoch"]
    assert after["epoch"] == before["epoch"]
    for group in exported.groups:
        assert type(after[group]) is dict
        assert set(after[group]) == set(before[group])
        assert all(torch.equal(tensor, before[group][name]) for name, tensor in after[group].items())
        assert {tensor.dtype for tensor in after[group].values()} <= {torch.float32, torch.int64}
    assert [file.name for file in tmp_path.iterdir()] == ["again.pth.tar"]


def test_a_native_file_in_half_precision_comes_out_in_single_precision_with_the_same_frames(
    tmp_path: Path, host: Host
) -> None:
    import_model(TINY, host, name="mine", preset=TINY_PRESET, half=True)
    target = tmp_path / "mine.pth.tar"
    assert export_model("mine", target, host).model == "mine"
    tensors = read_checkpoint(target).groups["generator"]
    assert tensors["final.weight"].dtype == torch.float32
    assert torch.load(target, weights_only=True)["generator"]["final.weight"].dtype == torch.float32
    import_model(target, host, name="back", preset=TINY_PRESET)
    assert torch.equal(frames("mine", host), frames("back", host))


def test_a_model_without_a_discriminator_has_none_and_no_epoch_is_0(tmp_path: Path, host: Host) -> None:
    groups = read_checkpoint(TINY).groups
    del groups["discriminator"]
    native = tmp_path / "model.safetensors"
    write_native(native, halved(groups), {"training": '{"epoch": "many"}'})
    target = tmp_path / "model.pth.tar"
    exported = export_model(str(native), target, host, preset=TINY_PRESET)
    assert (exported.groups, exported.epoch) == (("generator", "kp_detector"), 0)
    assert list(torch.load(target, weights_only=True)) == ["generator", "kp_detector", "epoch"]


def test_a_model_never_replaces_itself(tmp_path: Path, host: Host) -> None:
    path = save(published(), tmp_path / "model.pth.tar")
    with pytest.raises(UsageError, match="would replace an input"):
        export_model(str(path), path, host, preset=TINY_PRESET, overwrite=True)


def test_the_ending_of_another_kind_of_file_is_refused(tmp_path: Path, host: Host) -> None:
    with pytest.raises(UsageError, match="extension of another kind"):
        export_model(str(TINY), tmp_path / "out.safetensors", host, preset=TINY_PRESET)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path, host: Host) -> None:
    target = tmp_path / "model.pth.tar"
    with pytest.raises(ModelError, match="no model file"):
        export_model("nowhere.pth.tar", target, host)
    with pytest.raises(ModelError, match="does not fit the preset"):
        export_model(str(TINY), target, host, preset="smoke")
    with pytest.raises(UsageError, match="unknown model 'voks'"):
        export_model("voks", target, host)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, host: Host) -> None:
    target = tmp_path / "model.pth.tar"
    target.write_text("old")
    with files_up_to(20_000), pytest.raises(OutputError, match="the disk is full"):
        export_model(str(TINY), target, host, preset=TINY_PRESET, overwrite=True)
    assert target.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth.tar"]
