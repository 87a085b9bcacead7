"""Protocols of the objects that specs build, with their inputs and results.

Frames inside a model are (B, 3, H, W) float32 RGB in [0, 1] on the renderer's device; pictures outside
it are (H, W, 3) uint8 RGB arrays. Coordinates inside a model are in [-1, 1], x before y, corner pixels at -1 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from fommctl.media.boxes import Box

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from fommctl.networks.motion import MotionParts


Split = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRecord:
    """One clip of a raw data set."""

    name: str
    """Unique among the clips of its identity; becomes the part after `IDENTITY#` in the training layout."""
    identity: str
    """The person or thing in the clip; all clips of an identity are in the same split."""
    split: Split | None = None
    path: Path | None = None
    """The raw file or folder of frames; None if `frames` makes the clip."""
    frames: Callable[[], Iterator[NDArray[np.uint8]]] | None = None
    """Function that makes (H, W, 3) uint8 frames on the fly (synthetic data, pictures inside other files). It is
    pickled for worker processes: a method, a module's function or a functools.partial of these, not a lambda."""
    rate: Fraction | float | None = None
    """Frames per second of a folder of frames or of `frames`, 25 if the data set does not specify it; videos
    have their own."""
    start: float | None = None
    """Seconds since the first frame of the file."""
    end: float | None = None
    """Seconds, exclusive."""
    box: Box | None = None
    """Box of the subject in pixels; None for the whole frame."""
    box_frame: tuple[int, int] | None = None
    """(width, height) of the frames in which `box` was measured, if the file's frames may have another
    size: the box is then scaled to them."""
    keypoints: Callable[[], NDArray[np.float64]] | None = None
    """Function that makes the true keypoints (T, K, 2) in [-1, 1] of the raw picture, x before y, corner pixels at -1
    and 1, NaN for hidden ones; for metrics. T is the number of frames of the file or of `frames`, before `start` and
    `end` cut it. Not a lambda, for the same reason as `frames`."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One subject in one picture."""

    box: Box
    """The box as dlib's HOG detector would measure it: for a face, eyebrows to chin and ear to ear, roughly square."""
    score: float
    """Confidence, higher is surer; comparable within one detector only."""
    landmarks: NDArray[np.float32] | None = None
    """(N, 2), x before y, pixels; NaN for hidden points."""


class SourceContext(Protocol):
    """What a renderer computes from the source alone, once per clip."""

    @property
    def motion(self) -> Any:
        """Motion of the source, one frame, of the type that `Renderer.detect` returns."""
        ...


class Renderer(Protocol):
    """A model that is ready to animate on one device, in one precision, without gradients."""

    device: torch.device

    def detect(self, frames: Tensor) -> Any:
        """Return the motion of frames (B, 3, H, W) in [0, 1], in the type that `BackendSpec.motion` names; by default
        `fommctl.api.blocks.Motion`, keypoints with Jacobians."""
        ...

    def encode_source(self, frame: Tensor) -> SourceContext:
        """Compute everything that all frames of a clip share.

        frame: (1, 3, H, W) in [0, 1].  With `BackendSpec.source_views` above 1 also (S, 3, H, W): S pictures of the
        same source, the main one first.
        """
        ...

    def render(self, context: SourceContext, motion: Any) -> Tensor:
        """Return frames (B, 3, H', W') in [0, 1] of the source in `motion`, which was transferred to it beforehand.
        H' and W' may be larger than the size of the frames that the model gets."""
        ...


@runtime_checkable
class FlowRenderer(Renderer, Protocol):
    """A renderer that also returns its flow, so that fommctl can add the detail of a source of higher resolution."""

    def render_with_flow(self, context: SourceContext, motion: Any) -> tuple[Tensor, Tensor | None]:
        """Return the frames of `render` and the flow of the same pass.

        The flow is (B, h, w, 2) float32 of any resolution: for each pixel of the result, the position in the source
        that it comes from, x before y. None if this model has no flow. Unlike all other coordinates of this package,
        -1 and 1 are the picture's borders, not the centres of its corner pixels, so that a flow does not depend on the
        resolution: a pixel i of n that does not move comes from (2 i + 1) / n - 1.
        """
        ...


@runtime_checkable
class TransferRenderer(Renderer, Protocol):
    """A renderer with its own rules to transfer motion.

    An attribute `own_modes`, a tuple of modes, restricts the rules to these. `relative` and `absolute` then fall back
    on FOMM's rules; any other mode that is not listed is refused, for a model without the network that it needs.
    """

    def transfer(self, driving: Any, reference: Any, source: Any, *, mode: str, options: Any) -> MotionParts:
        """Return the source's motion for B driving frames, ready for `render`.

        driving: B frames.  reference: the driving frame, one per shot, that corresponds to the source's pose.
        source: motion of the source, one frame; B frames if the source is a video.  mode: one of
        `BackendSpec.motions`.  options: an instance of `BackendSpec.options`, or None for the defaults.
        Each frame of the result must depend on these arguments only, not on earlier calls or its place in the batch.
        """
        ...


@runtime_checkable
class ClipTransferRenderer(TransferRenderer, Protocol):
    """A renderer with different rules for a source that is a video; without them, `transfer` is called for videos."""

    def transfer_clip(self, driving: Any, reference: Any, source: Any, *, mode: str, options: Any) -> MotionParts:
        """Return the source's motion for B driving frames, as `transfer` does.  source: B frames, the source frame
        shown at the time of each driving frame."""
        ...


@dataclass(frozen=True, slots=True)
class DrivingMoment:
    """Properties of a driving frame besides its pixels."""

    number: int
    """Frame number, from 1; for a numbered sequence of pictures, the number in the file name."""
    time: Fraction
    """Seconds since the first frame used."""
    present: bool
    """Whether the frame shows the subject; True if the subject was not searched for."""


@runtime_checkable
class DrivingRenderer(Renderer, Protocol):
    """A renderer that detects motion in driving frames differently from source pictures, for example by their times."""

    def detect_driving(self, frames: Tensor, moments: Sequence[DrivingMoment]) -> Any:
        """Return the motion of driving frames (B, 3, H, W) in [0, 1], as `detect` does.

        moments: B, one per frame. Frames come in order; some are missing if only part of a video is rendered.
        Landmarks are added later, with `MotionParts.with_landmarks`.
        """
        ...


@runtime_checkable
class OptionsRenderer(Renderer, Protocol):
    """A renderer whose detection, encoding or rendering depends on the options of its family."""

    def with_options(self, options: Any) -> Renderer:
        """Return a renderer with these options, which may share networks with this one.

        options: an instance of `BackendSpec.options`.
        """
        ...


@runtime_checkable
class ReconstructionRenderer(Renderer, Protocol):
    """A renderer that also uses the driving frames' pixels when it reconstructs a video, as `evaluate` asks it to."""

    def reconstruct(self, context: SourceContext, motion: Any, driving: Tensor) -> Tensor:
        """Return frames (B, 3, H', W') in [0, 1], as `render` does.

        driving: (B, 3, H, W) in [0, 1], the frames to reconstruct.  motion: their motion, as detected.
        """
        ...


class Backend(Protocol):
    """The networks of one model, and how to run them."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Return the networks by their group names in published checkpoints."""
        ...

    def needed_groups(self) -> Sequence[str]:
        """Return the groups of `modules()` that animation needs.

        A checkpoint that lacks one of them is refused; a trained model keeps only these. All other groups, such as a
        discriminator, are for training and may be missing.
        """
        ...

    def prepare(self, device: torch.device, precision: str, *, fast: bool = True, scale: float = 1.0) -> Renderer:
        """Return a renderer with these weights.

        precision: `fp32`, `bf16` or `fp16`.  fast: False runs the plain networks in fp32, with nothing cached or fused,
        as the reference for `bench`.  scale: side of the model's native frame divided by the side of the frames to be
        rendered; it keeps the input of the keypoint and motion networks at the size that they were trained with.
        Raises UsageError for a scale that the model does not support.
        """
        ...


class DatasetAdapter(Protocol):
    """Reads the raw layout of one data set."""

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the clips below `root` in a fixed order. Raises InputError if `root` has another layout."""
        ...


class Detector(Protocol):
    """Finds subjects in pictures."""

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Return the subjects in each (H, W, 3) picture, highest score first; an empty list if there are none."""
        ...


class Embedder(Protocol):
    """Computes vectors that are close for pictures of the same subject."""

    def embed(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32] | None]:
        """Return a vector (D,) for the main subject of each (H, W, 3) picture; None if there is no subject."""
        ...


class SquareFilter(Protocol):
    """Changes animated squares before they are pasted back, for example a face restorer or an upscaler."""

    def __call__(self, squares: Tensor) -> Tensor:
        """Return the filtered squares (B, 3, H', W') float32 in [0, 1], of any size.

        squares: (B, 3, H, W) float32 in [0, 1] on the renderer's device, at the source's resolution if its detail was
        added, else at the model's. The result is resized to the square's place in the source; if nothing is pasted
        back, to (H, W). Called in the order of the frames.
        """
        ...


class FrameFilter(Protocol):
    """Changes finished frames before they are written.

    A filter with an attribute `floats = True` gets float32 frames: sRGB in [0, 1], or for sources of more than 8 bits
    values in the source's colour space, which exceed 1 if it is scene-linear. Other filters get an 8-bit display
    version of such frames, and only the pixels that they change are changed in the result.
    """

    def __call__(self, frame: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Return the filtered frame, in the shape and type of `frame`.

        frame: (H, W, 3) or (H, W, 4).  index: its number in the output, from 0. Called in the order of the frames.
        """
        ...
