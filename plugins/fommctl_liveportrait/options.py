"""Options of this family, given as `-O name=value`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fommctl.api.schema import Options

REGIONS = ("all", "exp", "pose", "lips", "eyes")
Opening = Annotated[float, Field(ge=0, le=2)]


def read_regions(text: str) -> dict[str, float]:
    """Return the gain of each region in `pose:0.5,lips`. Raises ValueError for what is no such text."""
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
    """Options of LivePortrait."""

    region: Annotated[str, AfterValidator(_checked)] = "all"
    """Parts that move, with gains: all, exp (expression), pose, lips, eyes; pose:0.5,lips:1."""
    multiplier: Annotated[float, Field(ge=0, le=3)] = 1.0
    """Factor of all motion."""
    stitching: bool = True
    """Keep the shoulders where the source has them."""
    friendly: Literal["expression", "pose"] = "expression"
    """The fit of relative motion: expression fits it to the size of the source's face, pose leaves it."""
    scale: Literal["driving", "frozen"] = "driving"
    """The scale of relative motion: frozen leaves the face as large as it is; --smooth steadies the driving scale."""
    neutral: bool = False
    """Count expressions from a face at rest, not from the reference frame: for one driving picture."""
    retarget_eyes: bool = False
    """Open and close the eyes as far as the driving eyes, beside the driving motion."""
    retarget_lips: bool = False
    """Open and close the lips as far as the driving lips, beside the driving motion."""
    eyes_open: Opening | None = None
    """Opening of the eyes (height over width, 0.4 is usual), whatever the driving eyes do."""
    lips_open: Opening | None = None
    """The same of the lips."""
    close_lips: bool = False
    """Close the source's lips before it moves."""

    @property
    def landmarks(self) -> bool:
        """See `Options`: they tell how far eyes and lips are open."""
        wanted = self.eyes_open, self.lips_open
        return self.retarget_eyes or self.retarget_lips or self.close_lips or any(each is not None for each in wanted)

    @cached_property
    def regions(self) -> Mapping[str, float]:
        """Gains by region."""
        return read_regions(self.region)
