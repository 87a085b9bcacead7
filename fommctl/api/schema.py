"""Types for the schemas of preset sections; importing this module imports pydantic.

Types are strict: text is no number, a number no boolean.
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
"""Channels before the first halving of the resolution; each halving doubles them."""
Maximum = Annotated[int, Field(ge=1, le=16384)]
"""Most channels of a block."""
Blocks = Annotated[int, Field(ge=1, le=12)]


SubjectWidth = Annotated[float, Field(gt=0, le=2)]
"""Width of a subject's box, as dlib's HOG detector measures a face, over the side of a square."""


def _scale(value: Any) -> float:
    # A whole scale stays an integer: the published names of discriminators are made of the number as written.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PydanticCustomError("float_type", "Input should be a valid number")
    if not 0 < value <= 1:
        raise PydanticCustomError("scale", "Input should be more than 0 and at most 1")
    return value


Scale = Annotated[float, PlainValidator(_scale)]
"""A scale of a pyramid, relative to the frame."""
Scales = Annotated[tuple[Scale, ...], Strict(False), Field(min_length=1)]


def _whole_step(value: float) -> float:
    step = 1 / value
    if abs(step - round(step)) > 0.01:
        raise PydanticCustomError("scale_factor", "Input should be 1, 0.5, 0.25 or another 1/n")
    return value


ScaleFactor = Annotated[float, Field(ge=1 / 64, le=1), AfterValidator(_whole_step)]
"""Side of what a network sees over the side of the frame."""


class Params(BaseModel):
    """Strict, immutable, unknown keys refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Options(BaseModel):
    """Settings of a backend for users, with `-O NAME=VALUE`: every field has a default and, below it, a docstring for
    --help; values come as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @property
    def landmarks(self) -> bool:
        """Whether the landmarks of every frame are needed, which `MotionParts.with_landmarks` gets then."""
        return False


class Edits(Options):
    """Changes that `fommctl edit` makes to a source: fields as of `Options`, numbers that change nothing by default."""

    @classmethod
    def motion(cls, rows: Sequence[Self]) -> Mapping[str, NDArray[np.float32]]:
        """Return the parts of a driving motion, by name and frames first, one frame a row: what relative motion takes
        from the first, which changes nothing."""
        raise NotImplementedError


class SharedParams(Params):
    """A section that backends derive theirs from, with fields that not each of them has a use for."""

    unused: ClassVar[tuple[str, ...]] = ()
    """Fields without a use, which all have defaults: they are hidden, and refused where they are changed."""

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
    """Something that opens and closes, such as a mouth or an eye, by the keypoints around it."""

    keypoints: Annotated[tuple[Count, ...], Strict(False), Field(min_length=2)]
    """The first stays (upper lip, lower eyelid), the second moves to or from it (lower lip, upper eyelid), the others
    go along (chin)."""
    opens: Weight = 1.0
    """How many times as far as the driving ones the keypoints part: more than 1 where a model shows less than they
    say."""
    closes: Weight = 1.0
    """How many times as far as the driving ones they close."""
    rest: Annotated[tuple[Weight, Weight], Strict(False)] | None = None
    """Distances of the keypoints, in their coordinates, at rest (closed lips) and furthest open. Where the driving
    reference is further open than the source and than at rest, the source opens as far as the driving video is open,
    not as much further as it has opened since; a reference open beyond the furthest counts as that far open. None: the
    change always counts from the reference."""


@dataclass(frozen=True, slots=True)
class TransferRules:
    """How driving motion becomes that of the source; what a model's motion has not is left alone."""

    relative: bool = True
    """The source moves as the driving frame has since the first one; False: it takes the driving motion itself."""
    relative_jacobian: bool = True
    """Whether relative motion includes the Jacobians."""
    adapt_scale: bool = False
    """Whether relative motion is scaled by the ratio of the subjects' sizes."""
    adapt_covariances: bool = False
    """Shapes of heatmaps change as the driving ones have since the first frame."""
    inside: bool = False
    """Keypoints are kept inside the frame."""
    openings: tuple[Opening, ...] = ()
    """Mouth and eyes, where keypoints tell how far they are open."""


class AnimateDefaults(Params):
    """Ours: what `animate` does where its options leave it open; a key that is not there is the general default."""

    best_frame: Annotated[str, Field(pattern=r"^(first|auto|[0-9]+)$")] | None = None
    """`first`, `auto` or the number of a driving frame."""
    smooth: bool | None = None
    """Steady jittering keypoints."""
    motion: str | None = None
    adapt_scale: bool | None = None
    """Scale relative motion by the ratio of the subjects' sizes."""
    size: Positive | None = None
    """Side of the model's frames in pixels."""
    source_width: SubjectWidth | None = None
    driving_width: SubjectWidth | None = None
    """Width of the subject's box over the side of the square that is cut out, where it is not the trained framing."""
    head_motion: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the head's travel that a square which follows the head leaves to the result."""
    expression: Annotated[float, Field(ge=0, le=5)] | None = None
    """How far mouth and eyelids open and close, over what the driving video shows."""


class PairParams(Params):
    """How pairs of clips are animated. `animate_params` derives from this, and so does what a backend has instead."""

    num_pairs: Positive = 50
    format: str = ".mp4"
    defaults: AnimateDefaults | None = None

    @property
    def rules(self) -> TransferRules:
        """Rules by which motion is transferred."""
        return TransferRules()
