"""The schema of presets, section by section, and what is wrong with a configuration in a user's words.

`model_params` alone, and sections that no other model has, belong to the backend.

Names, meanings and defaults are those of the published configurations of FOMM (Siarohin et al. 2019) unless said
otherwise. Types are strict: text is no number, a number no boolean.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, Field, Strict, ValidationError, create_model

from fommctl.api.schema import (
    Count,
    Opening,
    Pair,
    PairParams,
    Positive,
    SharedParams,
    SubjectWidth,
    TransferRules,
    Weight,
)
from fommctl.api.schema import Params as Section
from fommctl.errors import UsageError
from fommctl.presets.config import Keys, Layer, describe, did_you_mean, dump_yaml, origin

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from fommctl.api.specs import BackendSpec

Model = TypeVar("Model", bound=BaseModel)


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def _symmetric(value: Any) -> Any:
    return (-value, value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class FlipParams(Section):
    """Mirror images and time reversals that a training pair may get."""

    horizontal_flip: bool = False
    time_flip: bool = False


class JitterParams(Section):
    """Half-widths of the random factors around 1; hue is an offset, in turns of the colour circle."""

    brightness: Weight = 0.0
    contrast: Weight = 0.0
    saturation: Weight = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class CropParams(Section):
    """A random part of the frame."""

    size: Annotated[tuple[Positive, Positive], Strict(False), BeforeValidator(_pair)]
    """(H, W) in pixels; one number means a square."""


class ResizeParams(Section):
    """A random change of size."""

    ratio: Pair = (3 / 4, 4 / 3)
    """Smallest and largest factor."""
    interpolation: Literal["nearest", "bilinear"] = "nearest"


class RotationParams(Section):
    """A random rotation, in degrees."""

    degrees: Annotated[Pair, BeforeValidator(_symmetric)]
    """Smallest and largest angle; one number means from its negative to itself."""


class FramingChange(Section):
    """Ours: another framing of both frames of a pair; what lies outside repeats the border."""

    scale: Pair = (1.0, 1.0)
    """Smallest and largest factor; the drawn one is uniform in its logarithm."""
    shift: Weight = 0.0
    """Largest shift either way, in sides of the frame."""


class AugmentationParams(Section):
    """Random changes to both frames of a training pair; a missing one is not done."""

    flip_param: FlipParams | None = None
    jitter_param: JitterParams | None = None
    crop_param: CropParams | None = None
    resize_param: ResizeParams | None = None
    rotation_param: RotationParams | None = None
    framing_param: FramingChange | None = None


class StillParams(Section):
    """Ours: training pairs made of single pictures, by two mild warps of the same one."""

    fraction: Annotated[float, Field(ge=0, le=1)]
    """Share of the pairs."""
    sigma_affine: Weight = 0.05
    sigma_tps: Weight = 0.002
    points_tps: Annotated[int, Field(ge=2)] = 5


class RigidParams(Section):
    """Ours: training pairs whose driving frame is turned, scaled and shifted against the source."""

    fraction: Annotated[float, Field(ge=0, le=1)]
    """Share of the pairs of clips."""
    degrees: Annotated[Pair, BeforeValidator(_symmetric)] = (-12.0, 12.0)
    scale: Pair = (0.9, 1.1)
    shift: Weight = 0.06
    """Largest shift either way, in sides of the frame."""


class ExpressionParams(Section):
    """Ours: training pairs chosen for what landmarks do: eyes open and closed, a head turned and not.

    The landmarks are those of the detector of `train_params.guidance`. They are found once for each frame and kept in
    FOMMCTL_HOME.
    """

    fraction: Annotated[float, Field(ge=0, le=1)]
    """Share of the pairs of clips."""
    candidates: Annotated[int, Field(ge=2)] = 12
    """Random frames of a clip; the pair is the two of them that differ most in one of `distances`, drawn anew for each
    pair."""
    distances: Annotated[tuple[Annotated[tuple[Count, Count], Strict(False)], ...], Strict(False), Field(min_length=1)]
    """Pairs of landmarks whose distance counts, relative to the spread of all of them."""


class DatasetParams(Section):
    """The training data, and the frames that the networks see."""

    root_dir: str | None = None
    frame_shape: Annotated[tuple[Positive, Positive, Positive], Strict(False)] = (256, 256, 3)
    """(H, W, C); older published files call it image_shape."""
    id_sampling: bool = False
    """Draw an identity (the part of a clip's name before #) first, then one of its clips."""
    pairs_list: str | None = None
    """CSV of source and driving clips to animate; None for random pairs."""
    augmentation_params: AugmentationParams | None = None
    pair_candidates: Annotated[int, Field(ge=2)] = 2
    """Ours: a pair is the two most different of so many random frames of a clip; 2 is the published random pair."""
    stills: StillParams | None = None
    rigid: RigidParams | None = None
    expressions: ExpressionParams | None = None


class TransformParams(Section):
    """The random transform of the equivariance losses (Siarohin et al. 2019, equation 10)."""

    sigma_affine: Weight = 0.05
    sigma_tps: Weight = 0.005
    points_tps: Annotated[int, Field(ge=2)] = 5


LandmarkMeans = Annotated[
    tuple[Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)], ...], Strict(False), Field(min_length=1)
]


class GuidanceParams(Section):
    """Ours: landmarks that keypoints are drawn to in training. For runs too short for keypoints to find the moving
    parts by themselves; a trained model needs no landmarks."""

    detector: Annotated[str, Field(min_length=1)]
    """Name of a plugin's detector; it has to find landmarks."""
    points: LandmarkMeans
    """Landmarks whose mean each of the first keypoints is drawn to."""
    spans: Annotated[tuple[Annotated[tuple[Count, Count], Strict(False)], ...], Strict(False)] | None = None
    """Pairs of `points`, by their places in that list from 0, whose distance and direction the keypoints are to keep:
    lips, eyelids."""
    focus_points: LandmarkMeans | None = None
    """Landmarks, or means of some, around which the focus loss looks; None for `points`."""
    focus_deviation: Annotated[float, Field(gt=0)] = 0.1
    """Standard deviation of the Gaussians of the focus loss, where a frame is two wide."""


class BaseTrainParams(SharedParams):
    """Training parameters that every backend has; a backend's own `train_params` add their losses."""

    num_epochs: Positive
    num_repeats: Positive = 1
    """Passes over the data set in one epoch."""
    epoch_milestones: Annotated[tuple[Count, ...], Strict(False)] = ()
    """Epochs at which the learning rates drop by ten."""
    lr_generator: Weight = 2e-4
    lr_discriminator: Weight = 2e-4
    lr_kp_detector: Weight = 2e-4
    batch_size: Positive
    checkpoint_freq: Positive = 50
    """Epochs between checkpoints that are kept."""
    transform_params: TransformParams = TransformParams()
    schedule: Literal["milestones", "cosine"] = "milestones"
    """Ours: how the learning rates fall: by ten at each of `epoch_milestones`, or along half a cosine to zero at the
    end of the last epoch (of `--max-steps` where that is given)."""
    warmup_steps: Count = 0
    """Ours: steps over which the learning rates rise from zero."""
    checkpoint_every_steps: Positive | None = None
    """Ours: steps between checkpoints to resume from."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Ours: gradients are scaled down to this norm; None leaves them as they are."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Ours: decay of the moving average of the weights a step; None keeps no average."""

    @property
    def features(self) -> str | None:
        """The perceptual network that the losses need; None for none."""
        return None

    @property
    def landmarks(self) -> GuidanceParams | None:
        """The landmarks that the losses need; None for none."""
        return None


class ReconstructionParams(Section):
    """How test clips are reconstructed."""

    num_videos: Positive = 1000
    format: str = ".mp4"


class NormalizationParams(Section):
    """How driving motion is transferred to the source."""

    adapt_movement_scale: bool = False
    use_relative_movement: bool = True
    use_relative_jacobian: bool = True


class AnimateParams(PairParams):
    """How pairs of clips are animated."""

    normalization_params: NormalizationParams = NormalizationParams()
    openings: Annotated[tuple[Opening, ...], Strict(False)] | None = None
    """Ours: what `--expression` reaches."""

    @property
    def rules(self) -> TransferRules:
        params = self.normalization_params
        return TransferRules(
            openings=self.openings or (),
            relative=params.use_relative_movement,
            relative_jacobian=params.use_relative_jacobian,
            adapt_scale=params.adapt_movement_scale,
        )


class VisualizerParams(Section):
    """How keypoints are drawn."""

    kp_size: Positive = 5
    """Radius of a drawn keypoint, in pixels."""
    draw_border: bool = False
    colormap: str = "gist_rainbow"
    """The published one; others are read and drawn with its colours."""


class SquareParams(Section):
    """A square around the landmarks of a face."""

    factor: Annotated[float, Field(gt=0, le=10)]
    """Side over the larger extent of the landmarks, along the face."""
    offset: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """The distance of its centre below that of the landmarks, in sides; negative is above."""
    turned: bool = False
    """Whether it is turned as the face is, in a source only; else it is upright and as large."""


class Framing(Section):
    """How subjects stand in a model's frames; models that take whole frames have none."""

    subject: Annotated[str, Field(min_length=1)]
    """Kind of subject that a detector has to find: `face`."""
    width: SubjectWidth
    source: SquareParams | None = None
    """The square of a source by its landmarks; None, and where there are none: by its box."""
    driving: SquareParams | None = None
    """Square of a driving video."""


class Preset(Section):
    """A validated configuration: what a preset file holds, under its overrides."""

    name: str
    summary: str | None = None
    backend: str
    dataset: str | None = None
    """Name of the adapter for the training data; it need not be installed."""
    framing: Framing | None = None
    """Framing of subjects; None for models that take whole frames."""
    dataset_params: DatasetParams = DatasetParams()
    model_params: Any
    """Parameters of the networks, in the backend's schema."""
    train_params: BaseTrainParams | None = None
    reconstruction_params: ReconstructionParams | None = None
    animate_params: AnimateParams | None = None
    visualizer_params: VisualizerParams | None = None

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of a model's native frames."""
        return self.dataset_params.frame_shape

    def section(self, name: str) -> Any:
        """Return a section. Raises UsageError where the configuration has none of this name."""
        found = getattr(self, name, None)
        if found is None:
            raise UsageError(
                f"the preset '{self.name}' has no section '{name}'",
                "Add it to the configuration, or start from a complete preset with 'extends: vox-256'.",
            )
        return found

    def pairs(self) -> PairParams:
        """Return how pairs of clips are animated: the backend's own section or `animate_params`, else its defaults."""
        given = [value for _, value in self if isinstance(value, PairParams)]
        return given[-1] if given else AnimateParams()

    def text(self) -> str:
        """Return the whole configuration as YAML text, which reads back as an equal preset."""
        return dump_yaml(self.model_dump(exclude_none=True))


@functools.cache
def preset_schema(spec: BackendSpec | None) -> type[Preset]:
    """Return the class of presets for a backend, with its schema of `model_params` and the sections of its own."""
    if spec is None:
        return Preset
    own: dict[str, Any] = {name: (schema | None, None) for name, schema in spec.sections().items()}
    return create_model("Preset", __base__=Preset, model_params=(spec.schema(), ...), **own)


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
}


def check(schema: type[Model], layers: Sequence[Layer], data: Mapping[str, Any]) -> tuple[Model | None, list[str]]:
    """Return the merged `data` as a `schema`, or None and every problem, each with where in `layers` it was written."""
    try:
        return schema.model_validate(data), []
    except ValidationError as error:
        return None, [_problem(schema, details, layers) for details in error.errors(include_url=False)]


def _dotted_keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every key that a schema has, as `--set` writes it: `kp_detector_params.num_blocks`."""
    for name, info in schema.model_fields.items():
        yield prefix + name
        inner = _model_in(info.annotation)
        if inner is not None:
            yield from _dotted_keys(inner, f"{prefix}{name}.")


def _suggestion(schema: type[BaseModel], key: Keys) -> str:
    """Suggest a sibling of an unknown key with a similar name, else a key of the same name elsewhere."""
    name, parent = str(key[-1]), _model_at(schema, key[:-1])
    siblings = [*parent.model_fields, *(["extends"] if len(key) == 1 else [])]
    elsewhere = [known for known in _dotted_keys(schema) if known.rpartition(".")[2] == name]
    return did_you_mean(name, siblings) or (f" (did you mean '{elsewhere[0]}'?)" if elsewhere else "")


def _problem(schema: type[BaseModel], details: ErrorDetails, layers: Sequence[Layer]) -> str:
    key = details["loc"]
    dotted = ".".join(map(str, key))
    kind = details["type"]
    if kind == "extra_forbidden":
        return f"{_where(layers, key)}unknown key '{dotted}'{_suggestion(schema, key)}"
    if kind == "missing":
        if len(key) == 1:
            return f"{_where(layers, ())}the section '{dotted}' is missing"
        missing = "a value" if isinstance(key[-1], int) else f"the key '{key[-1]}'"
        return f"{_where(layers, key[:-1])}{missing} is missing in '{'.'.join(map(str, key[:-1]))}'"
    expected = _EXPECTED.get(kind)
    if expected is None:
        # pydantic says "Tuple should have at most 3 items after validation": the key is named before it here.
        reason = re.sub(r"^(Value error, )?(Input|Tuple|List|String) ", "", details["msg"])
        reason = reason.replace(" after validation", "")
    else:
        reason = f"should be {expected}"
    collection = isinstance(details["input"], (dict, list))
    found = "" if collection and expected is None else f", not {describe(details['input'])}"
    return f"{_where(layers, key)}'{dotted}' {reason}{found}"


def _where(layers: Sequence[Layer], key: Keys) -> str:
    written = origin(layers, key)
    return f"{written}: " if written else ""


def _model_at(schema: type[BaseModel], location: Keys) -> type[BaseModel]:
    for part in location:
        field = schema.model_fields.get(str(part))
        inner = _model_in(field.annotation) if field else None
        schema = inner or schema
    return schema


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
