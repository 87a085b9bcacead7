"""LivePortrait's options, given as `-O name=value`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fommctl.api.schema import Options

REGIONS = ("all", "exp", "pose", "lips", "eyes")
Opening = Annotated[float, Field(ge=0, le=2)]


def read_regions(text: str) -> dict[str, float]:
    """Parse regions and gains such as `pose:0.5,lips`; the default gain is 1. Raises ValueError for anything else."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, gain = part.strip().partition(":")
        if name not in REGIONS:
            raise ValueError(f"'{name}' is not a region; use {', '.join(REGIONS)}")
        found[name] = float(gain) if gain else 1.0
        if not 0 <= found[name] <= 3:
            raise ValueError(f"the gain of {name} is not between 0 and 3")
    return found


def _checked(text: str) -> str:
    read_regions(text)
    return text


class FaceOptions(Options):
    """LivePortrait's options."""

    region: Annotated[str, AfterValidator(_checked)] = "all"
    """Parts that move, with optional gains, such as pose:0.5,lips: all, exp (expression), pose, lips, eyes."""
    multiplier: Annotated[float, Field(ge=0, le=3)] = 1.0
    """Factor of all motion."""
    stitching: bool = True
    """Keep the shoulders in place."""
    friendly: Literal["expression", "pose"] = "expression"
    """Fit of relative motion: expression scales it to the size of the source's face, pose does not."""
    scale: Literal["driving", "frozen"] = "driving"
    """Scale of relative motion: frozen keeps the size of the face; --smooth steadies the driving scale."""
    neutral: bool = False
    """Measure expressions from a face at rest instead of the reference frame; for a single driving picture."""
    retarget_eyes: bool = False
    """Open and close the eyes as far as the driving eyes, in addition to the driving motion."""
    retarget_lips: bool = False
    """Open and close the lips as far as the driving lips, in addition to the driving motion."""
    eyes_open: Opening | None = None
    """Fixed opening of the eyes, height over width; 0.4 is usual."""
    lips_open: Opening | None = None
    """Fixed opening of the lips, height over width."""
    close_lips: bool = False
    """Close the source's lips before applying the motion."""

    @property
    def landmarks(self) -> bool:
        """See `Options`; landmarks determine how far eyes and lips are open."""
        wanted = self.eyes_open, self.lips_open
        return self.retarget_eyes or self.retarget_lips or self.close_lips or any(each is not None for each in wanted)

    @cached_property
    def regions(self) -> Mapping[str, float]:
        """The gains given by `region`, by name."""
        return read_regions(self.region)
