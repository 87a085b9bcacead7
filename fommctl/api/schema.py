"""Types for the schemas of preset sections; importing this module imports pydantic.

The types are strict: a number in quotes is not accepted as a number, nor a number as a boolean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    Strict,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Weights = Annotated[tuple[Weight, ...], Strict(False)]
Pair = Annotated[tuple[float, float], Strict(False)]
Expansion = Annotated[int, Field(ge=1, le=4096)]
"""Channels before the first downsampling; each downsampling by 2 doubles them."""
Maximum = Annotated[int, Field(ge=1, le=16384)]
"""Maximum number of channels in a block."""
Blocks = Annotated[int, Field(ge=1, le=12)]


SubjectWidth = Annotated[float, Field(gt=0, le=2)]
"""Width of the subject's box, for faces as dlib's HOG detector measures it, divided by the side of the square."""


def _scale(value: Any) -> float:
    # The scale 1 stays an integer: published discriminators are named after the number as written in the file.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PydanticCustomError("float_type", "Input should be a valid number")
    if not 0 < value <= 1:
        raise PydanticCustomError("scale", "Input should be more than 0 and at most 1")
    return value


Scale = Annotated[float, PlainValidator(_scale)]
"""Scale of one level of an image pyramid, relative to the frame, in (0, 1]."""
Scales = Annotated[tuple[Scale, ...], Strict(False), Field(min_length=1)]


def _whole_step(value: float) -> float:
    step = 1 / value
    if abs(step - round(step)) > 0.01:
        raise PydanticCustomError("scale_factor", "Input should be 1, 0.5, 0.25 or another 1/n")
    return value


ScaleFactor = Annotated[float, Field(ge=1 / 64, le=1), AfterValidator(_whole_step)]
"""Side of a network's input divided by the side of the frame: 1/n for a whole n."""


class Params(BaseModel):
    """Base of all preset sections: strict types, immutable, unknown keys refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Options(BaseModel):
    """Base of a backend's options, which users set with `-O NAME=VALUE`.

    Every field needs a default and a docstring, the latter for --help. Values are parsed from text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @property
    def landmarks(self) -> bool:
        """Whether these options need landmarks in every frame; they are passed to `MotionParts.with_landmarks`."""
        return False


class Edits(Options):
    """Base of a backend's edits for `fommctl edit`: numeric fields as in `Options`, whose defaults change nothing."""

    @classmethod
    def motion(cls, rows: Sequence[Self]) -> Mapping[str, NDArray[np.float32]]:
        """Return a driving motion for relative transfer as arrays (T, ...) by part name, one frame per row.

        rows: T edits; the first is neutral and serves as the reference.
        """
        raise NotImplementedError


class SharedParams(Params):
    """Base of sections that backends share, where a backend may not use every field."""

    unused: ClassVar[tuple[str, ...]] = ()
    """Fields that this backend does not use: they need defaults, are hidden, and are refused if they differ."""

    @model_validator(mode="after")
    def _nothing_unused(self) -> Self:
        for name in self.unused:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise PydanticCustomError("unused", "Input should not set {name}: nothing here uses it", {"name": name})
        return self

    @model_serializer(mode="wrap")
    def _what_is_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name not in self.unused}


class Opening(Params):
    """A mouth or an eye, described by the keypoints around it."""

    keypoints: Annotated[tuple[Count, ...], Strict(False), Field(min_length=2)]
    """Indices of keypoints: one that stays (upper lip, lower eyelid), one that moves to and from it (lower lip, upper
    eyelid), and any others that move along with the second (chin)."""
    opens: Weight = 1.0
    """Factor of the opening, relative to the driving video's; above 1 for a model that shows less than its keypoints
    move."""
    widest: Annotated[float, Field(gt=0)] | None = None
    """Sum of the distances of the first two keypoints in source and result, in keypoint coordinates, at which `opens`
    has fallen to 1. Small openings of closed lips become visible; wide ones, and lips that the source shows open, are
    not exaggerated. None: `opens` counts at all distances."""
    closes: Weight = 1.0
    """Factor of the closing, relative to the driving video's."""
    rest: Annotated[tuple[Weight, Weight], Strict(False)] | None = None
    """Distances between the first two keypoints, in keypoint coordinates, at rest (closed lips) and widest open.

    If the driving reference is open wider than the source and wider than at rest, changes count from the source's
    opening or from rest, whichever is wider, instead of from the reference's; a reference open wider than the second
    value counts as that wide. None: changes always count from the reference."""


@dataclass(frozen=True, slots=True)
class TransferRules:
    """Rules for the transfer of driving motion to the source; those for parts that a motion lacks have no effect."""

    relative: bool = True
    """Whether the driving motion since the first frame is applied to the source; False: the driving motion as it is."""
    relative_jacobian: bool = True
    """Whether relative motion includes the Jacobians."""
    adapt_scale: bool = False
    """Whether relative motion is scaled by the ratio of the subjects' sizes."""
    adapt_covariances: bool = False
    """Whether covariances of heatmaps are changed relative to the first frame, too."""
    inside: bool = False
    """Whether keypoints are clamped to the frame."""
    openings: tuple[Opening, ...] = ()
    """Mouth and eyes, for models whose keypoints show how far they are open."""


class AnimateDefaults(Params):
    """Defaults of `animate` for one model (not in published files); None means the general default."""

    best_frame: Annotated[str, Field(pattern=r"^(first|auto|[0-9]+)$")] | None = None
    """`first`, `auto` or the number of a driving frame."""
    smooth: bool | None = None
    """Whether jittering keypoints are smoothed."""
    motion: str | None = None
    """Name of the motion mode."""
    adapt_scale: bool | None = None
    """Whether relative motion is scaled by the ratio of the subjects' sizes."""
    size: Positive | None = None
    """Side of the model's frames in pixels."""
    source_width: SubjectWidth | None = None
    """Width of the subject in the source's square; None for the trained framing."""
    driving_width: SubjectWidth | None = None
    """Width of the subject in the driving squares; None for the trained framing."""
    head_motion: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the head's movement that remains in the result where the square follows the head."""
    expression: Annotated[float, Field(ge=0, le=5)] | None = None
    """Factor by which mouth and eyelids open and close, relative to the driving video."""


class PairParams(Params):
    """Base of the section that says how pairs of clips are animated: `animate_params`, or a backend's own."""

    num_pairs: Positive = 50
    format: str = ".mp4"
    defaults: AnimateDefaults | None = None

    @property
    def rules(self) -> TransferRules:
        """Rules by which motion is transferred; subclasses override this."""
        return TransferRules()
