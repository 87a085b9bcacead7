"""The sections of a preset file, typed; `model_params` alone belongs to the backend.

Names, meanings and defaults are those of the published configurations of FOMM (Siarohin et al. 2019) unless said
otherwise. Types are strict: text is no number, a number no boolean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, Strict, create_model

from fommctl.api.schema import Count, Pair, PairParams, Positive, SharedParams, SubjectWidth, TransferRules, Weight
from fommctl.api.schema import Params as Section


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def _symmetric(value: Any) -> Any:
    return (-value, value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class FlipParams(Section):
    """Which mirror images and time reversals a training pair may get."""

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
    """Of the pairs."""
    sigma_affine: Weight = 0.05
    sigma_tps: Weight = 0.002
    points_tps: Annotated[int, Field(ge=2)] = 5


class RigidParams(Section):
    """Ours: training pairs whose driving frame is turned, scaled and shifted against the source."""

    fraction: Annotated[float, Field(ge=0, le=1)]
    """Of the pairs of clips."""
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
    """Of the pairs of clips."""
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
    """Of the plugins; it has to give landmarks."""
    points: LandmarkMeans
    """For each of the first keypoints, the landmarks whose mean it is drawn to."""
    focus_points: LandmarkMeans | None = None
    """Landmarks, or means of some, around which the focus loss looks; None for `points`."""
    focus_deviation: Annotated[float, Field(gt=0)] = 0.1
    """Standard deviation of the Gaussians of the focus loss, where a frame is two wide."""


class BaseTrainParams(SharedParams):
    """What the training of every backend has; a backend's own `train_params` add their losses."""

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

    @property
    def rules(self) -> TransferRules:
        params = self.normalization_params
        return TransferRules(
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


class Framing(Section):
    """How subjects stand in a model's frames; models that take whole frames have none."""

    subject: Annotated[str, Field(min_length=1)]
    """What a detector has to find: `face`."""
    width: SubjectWidth


class PresetFile(Section):
    """A preset file but for its `model_params`."""

    name: str | None = None
    summary: str | None = None
    backend: str | None = None
    dataset: str | None = None
    framing: Framing | None = None
    dataset_params: DatasetParams | None = None
    train_params: BaseTrainParams | None = None
    reconstruction_params: ReconstructionParams | None = None
    animate_params: AnimateParams | None = None
    visualizer_params: VisualizerParams | None = None


HEADER = ("name", "summary", "backend", "dataset", "framing")
"""The keys of a preset file that are no sections."""


def preset_file(own: Mapping[str, type[BaseModel]]) -> type[PresetFile]:
    """The schema of a preset file whose backend has sections of its own, or other schemas for some."""
    if not own:
        return PresetFile
    fields: dict[str, Any] = {name: (schema | None, None) for name, schema in own.items()}
    return create_model("PresetFile", __base__=PresetFile, **fields)
