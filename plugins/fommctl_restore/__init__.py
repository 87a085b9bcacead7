"""Restoration and upscaling of animated squares with spandrel: `fommctl animate --restore FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fommctl.api import StageEvent, hookimpl

if TYPE_CHECKING:
    from fommctl.api import SquareFilter


@hookimpl
def fommctl_square(event: StageEvent) -> SquareFilter | None:
    """Return the network given by --restore, if any."""
    weights = event.details.get("config", {}).get("restore") if event.stage == "animate" else None
    if weights is None:
        return None
    from fommctl_restore.network import Restorer

    return Restorer(Path(weights))
