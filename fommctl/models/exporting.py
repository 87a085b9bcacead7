"""Writing a model as a published checkpoint, for the programs that read those."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fommctl.errors import UsageError
from fommctl.files import atomic_write
from fommctl.media.output_paths import check_target
from fommctl.models.loading import load_model, locate

if TYPE_CHECKING:
    from fommctl.api.specs import BackendSpec
    from fommctl.host import Host


@dataclass(frozen=True)
class Exported:
    """A checkpoint that was written."""

    path: Path
    model: str
    """Name of the model that it was made of."""
    groups: tuple[str, ...]
    """Networks that it holds."""
    epoch: int
    """Epochs that the model was trained for; 0 where its file does not say."""


def export_model(
    model: str,
    target: Path,
    host: Host,
    *,
    preset: str | None = None,
    sets: Sequence[str] = (),
    overwrite: bool = False,
) -> Exported:
    """Write {"generator": {name: tensor}, "kp_detector": ..., "discriminator": ... where the model has one, "epoch"}.

    model: as in `load_model`: also a checkpoint of a run, whose averaged weights count where it keeps them.  Tensors
    are float32 (counters stay integers) under the names of the published implementation, and the file is one that
    `torch.load(weights_only=True)` reads.

    Raises UsageError where `target` exists (without `overwrite`), is the model itself or a .safetensors, OutputError
    where it cannot be written, otherwise as `load_model` does.
    """
    if target.suffix == ".safetensors":
        raise UsageError(
            f"{target} has the ending of another kind of file", "A published checkpoint is a torch file: NAME.pth.tar."
        )
    source = locate(model, host)
    check_target(target, overwrite, [source])
    loaded = load_model(model, host, preset=preset, sets=sets)
    networks = loaded.backend.modules()
    epoch = _epoch(loaded.metadata.get("training"))
    spec: BackendSpec = host.find("backend", loaded.preset.backend)
    groups = spec.to_published({group: networks[group].state_dict() for group in loaded.groups})
    content: dict[str, object] = {group: _plain(tensors) for group, tensors in groups.items()}
    # Through memory: of a full disk torch.save tells no more than a position in the file.
    buffer = io.BytesIO()
    torch.save({**content, "epoch": epoch}, buffer)
    with atomic_write(target) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return Exported(target, loaded.name, loaded.groups, epoch)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each with memory of its own: torch.save would write all of what a view looks into."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _epoch(training: str | None) -> int:
    """training: the JSON of a model's metadata, which anybody may have written."""
    try:
        epoch = json.loads(training or "{}")["epoch"]
    except (ValueError, KeyError, TypeError):
        return 0
    return epoch if isinstance(epoch, int) else 0
