"""The schema of presets, section by section, and messages about invalid configurations.

The schema of `model_params`, and of any sections of its own, comes from the backend. Names, meanings and defaults are
those of the published configurations of FOMM (Siarohin et al. 2019), except for fields marked "Ours". Types are strict:
a number in quotes is not accepted as a number, nor a number as a boolean.
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
    """A random flip of a training pair: in time with a probability of 1/2, else horizontally with 1/2."""

    horizontal_flip: bool = False
    """Whether both frames may be mirrored."""
    time_flip: bool = False
    """Whether source and driving frame may be exchanged."""


class JitterParams(Section):
    """Random changes of colour: factors are drawn from [1 - x, 1 + x]; hue is an offset in [-x, x], where 1 is the full
    colour circle."""

    brightness: Weight = 0.0
    contrast: Weight = 0.0
    saturation: Weight = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class CropParams(Section):
    """A random crop."""

    size: Annotated[tuple[Positive, Positive], Strict(False), BeforeValidator(_pair)]
    """(H, W) in pixels; one number means a square."""


class ResizeParams(Section):
    """A random change of size."""

    ratio: Pair = (3 / 4, 4 / 3)
    """Smallest and largest factor."""
    interpolation: Literal["nearest", "bilinear"] = "nearest"


class RotationParams(Section):
    """A random rotation."""

    degrees: Annotated[Pair, BeforeValidator(_symmetric)]
    """Smallest and largest angle; one number x means (-x, x)."""


class FramingChange(Section):
    """Ours: a random scale and shift of both frames of a pair; pixels outside the frame repeat its border."""

    scale: Pair = (1.0, 1.0)
    """Smallest and largest factor, drawn log-uniformly."""
    shift: Weight = 0.0
    """Largest shift in each direction, in sides of the frame."""


class AugmentationParams(Section):
    """Random changes to both frames of a training pair; None leaves a change out."""

    flip_param: FlipParams | None = None
    jitter_param: JitterParams | None = None
    crop_param: CropParams | None = None
    resize_param: ResizeParams | None = None
    rotation_param: RotationParams | None = None
    framing_param: FramingChange | None = None


class StillParams(Section):
    """Ours: training pairs of single pictures, each warped mildly in two ways."""

    fraction: Annotated[float, Field(ge=0, le=1)]
    """Share of the pairs."""
    sigma_affine: Weight = 0.05
    sigma_tps: Weight = 0.002
    points_tps: Annotated[int, Field(ge=2)] = 5


class RigidParams(Section):
    """Ours: training pairs whose driving frame is rotated, scaled and shifted relative to the source."""

    fraction: Annotated[float, Field(ge=0, le=1)]
    """Share of the pairs from clips."""
    degrees: Annotated[Pair, BeforeValidator(_symmetric)] = (-12.0, 12.0)
    """Smallest and largest angle; one number x means (-x, x)."""
    scale: Pair = (0.9, 1.1)
    """Smallest and largest factor."""
    shift: Weight = 0.06
    """Largest shift in each direction, in sides of the frame."""


class ExpressionParams(Section):
    """Ours: training pairs that differ in expression or pose, by landmarks: eyes open and closed, a turned head.

    The landmarks come from the detector of `train_params.guidance`, and are stored in FOMMCTL_HOME once found.
    """

    fraction: Annotated[float, Field(ge=0, le=1)]
    """Share of the pairs from clips."""
    candidates: Annotated[int, Field(ge=2)] = 12
    """Number of random frames of a clip to choose from: the pair is the two that differ most in one of `distances`,
    which is drawn for each pair."""
    distances: Annotated[tuple[Annotated[tuple[Count, Count], Strict(False)], ...], Strict(False), Field(min_length=1)]
    """Pairs of landmarks (indices from 0) whose distance is compared, relative to the spread of all landmarks."""


class DatasetParams(Section):
    """The training data, and the frames that the networks see."""

    root_dir: str | None = None
    frame_shape: Annotated[tuple[Positive, Positive, Positive], Strict(False)] = (256, 256, 3)
    """(H, W, C); older published files call it image_shape."""
    id_sampling: bool = False
    """Whether an identity (the part of a clip's name before #) is drawn first, then one of its clips."""
    pairs_list: str | None = None
    """Path of a CSV file with the source and driving clips to animate; None for random pairs."""
    augmentation_params: AugmentationParams | None = None
    pair_candidates: Annotated[int, Field(ge=2)] = 2
    """Ours: number of random frames of a clip, of which the two most different become the pair; 2 is the published
    random pair."""
    stills: StillParams | None = None
    rigid: RigidParams | None = None
    expressions: ExpressionParams | None = None


class TransformParams(Section):
    """Random thin-plate spline transforms for the equivariance losses (Siarohin et al. 2019, equation 10)."""

    sigma_affine: Weight = 0.05
    sigma_tps: Weight = 0.005
    points_tps: Annotated[int, Field(ge=2)] = 5


LandmarkMeans = Annotated[
    tuple[Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)], ...], Strict(False), Field(min_length=1)
]


class GuidanceParams(Section):
    """Ours: landmarks that guide keypoints in training, for runs too short for keypoints to find moving parts alone.

    The trained model does not need landmarks.
    """

    detector: Annotated[str, Field(min_length=1)]
    """Name of a detector with landmarks."""
    points: LandmarkMeans
    """Targets of the first keypoints, one each: indices of the landmarks whose mean is the target."""
    spans: Annotated[tuple[Annotated[tuple[Count, Count], Strict(False)], ...], Strict(False)] | None = None
    """Pairs of indices into `points`, from 0, between which the keypoints should keep distance and direction: lips,
    eyelids."""
    focus_points: LandmarkMeans | None = None
    """Centres of the focus loss, each the mean of some landmarks; None for `points`."""
    focus_deviation: Annotated[float, Field(gt=0)] = 0.1
    """Standard deviation of the Gaussians of the focus loss, in coordinates in which a frame is 2 wide."""


class BaseTrainParams(SharedParams):
    """Training parameters of all backends; a backend's own `train_params` add its losses."""

    num_epochs: Positive
    num_repeats: Positive = 1
    """Number of passes over the data set in one epoch."""
    epoch_milestones: Annotated[tuple[Count, ...], Strict(False)] = ()
    """Epochs at which the learning rates are divided by 10."""
    lr_generator: Weight = 2e-4
    lr_discriminator: Weight = 2e-4
    lr_kp_detector: Weight = 2e-4
    batch_size: Positive
    checkpoint_freq: Positive = 50
    """Epochs between checkpoints that are kept."""
    transform_params: TransformParams = TransformParams()
    schedule: Literal["milestones", "cosine"] = "milestones"
    """Ours: decay of the learning rates. `milestones` divides them by 10 at each of `epoch_milestones`; `cosine` is
    half a cosine, zero at the end of the last epoch, or after `--max-steps` if given."""
    warmup_steps: Count = 0
    """Ours: number of steps over which the learning rates rise linearly from zero."""
    checkpoint_every_steps: Positive | None = None
    """Ours: steps between checkpoints to resume from; None for an epoch, or a default if that is longer."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Ours: largest norm of the gradients, to which larger ones are scaled down; None for no limit."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Ours: decay per step of the moving average of the weights; None for no average."""

    @property
    def features(self) -> str | None:
        """Name of the perceptual network that the losses need; None for none."""
        return None

    @property
    def landmarks(self) -> GuidanceParams | None:
        """Landmarks that the losses need; None for none."""
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
    """Ours: mouth and eyes, which `--expression` opens and closes further."""

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
    """Name of the published colour map; other names are accepted, but drawn in its colours, too."""


class SquareParams(Section):
    """A square that is placed by the landmarks of a face."""

    factor: Annotated[float, Field(gt=0, le=10)]
    """Side of the square divided by the larger extent of the landmarks, measured along the face's axes."""
    offset: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Distance of the square's centre below that of the landmarks, in sides; negative for above."""
    turned: bool = False
    """Whether the square of a source is rotated with the face; False: upright, of the same size."""


class Framing(Section):
    """Position and size of subjects in a model's frames."""

    subject: Annotated[str, Field(min_length=1)]
    """Kind of subject, such as `face`, for the choice of a detector."""
    width: SubjectWidth
    source: SquareParams | None = None
    """Square of a source by landmarks; None, or without landmarks: by the subject's box."""
    driving: SquareParams | None = None
    """Square of a driving video by landmarks; None, or without landmarks: by the subject's box."""


class Preset(Section):
    """A validated configuration: the content of a preset file with overrides applied."""

    name: str
    summary: str | None = None
    backend: str
    dataset: str | None = None
    """Name of the data set adapter for the training data; it need not be installed."""
    framing: Framing | None = None
    """Framing of subjects; None for models of whole frames."""
    dataset_params: DatasetParams = DatasetParams()
    model_params: Any
    """Parameters of the networks, in the backend's schema."""
    train_params: BaseTrainParams | None = None
    reconstruction_params: ReconstructionParams | None = None
    animate_params: AnimateParams | None = None
    visualizer_params: VisualizerParams | None = None

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the model's native frames."""
        return self.dataset_params.frame_shape

    def section(self, name: str) -> Any:
        """Return the section of this name. Raises UsageError if it is missing."""
        found = getattr(self, name, None)
        if found is None:
            raise UsageError(
                f"the preset '{self.name}' has no section '{name}'",
                "Add it to the configuration, or start from a complete preset with 'extends: vox-256'.",
            )
        return found

    def pairs(self) -> PairParams:
        """Return the section on the animation of pairs: the backend's own or `animate_params`, else the defaults."""
        given = [value for _, value in self if isinstance(value, PairParams)]
        return given[-1] if given else AnimateParams()

    def text(self) -> str:
        """Return the whole configuration as YAML text, which loads as an equal preset."""
        return dump_yaml(self.model_dump(exclude_none=True))


@functools.cache
def preset_schema(spec: BackendSpec | None) -> type[Preset]:
    """Return the preset class for a backend, with the backend's `model_params` and further sections; for None,
    `Preset`."""
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
    """Validate the merged `data` of `layers`; return the model and no problems, or None and a message for each problem.

    Messages begin with the origin of the value in `layers`.
    """
    try:
        return schema.model_validate(data), []
    except ValidationError as error:
        return None, [_problem(schema, details, layers) for details in error.errors(include_url=False)]


def _dotted_keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield all keys of a schema, dotted as for `--set`: `kp_detector_params.num_blocks`."""
    for name, info in schema.model_fields.items():
        yield prefix + name
        inner = _model_in(info.annotation)
        if inner is not None:
            yield from _dotted_keys(inner, f"{prefix}{name}.")


def _suggestion(schema: type[BaseModel], key: Keys) -> str:
    """Suggest a similar key in the section of an unknown key, else the same key of another section."""
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
        # pydantic's "Tuple should have at most 3 items after validation" becomes "'KEY' should have at most 3 items".
        reason = re.sub(r"^(Value error, )?(Input|Tuple|List|String) ", "", details["msg"])
        reason = reason.replace(" after validation", "")
    else:
        reason = f"should be {expected}"
    collection = isinstance(details["input"], (dict, list))
    found = "" if collection and expected is None else f", not {describe(details['input'])}"
    return f"{_where(layers, key)}'{dotted}' {reason}{found}"


def _where(layers: Sequence[Layer], key: Keys) -> str:
    found = origin(layers, key)
    return f"{found}: " if found else ""


def _model_at(schema: type[BaseModel], location: Keys) -> type[BaseModel]:
    for part in location:
        field = schema.model_fields.get(str(part))
        inner = _model_in(field.annotation) if field else None
        schema = inner or schema
    return schema


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation such as `Model`, `Model | None` or `tuple[Model, ...]`; None without one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
