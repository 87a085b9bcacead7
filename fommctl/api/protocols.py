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
    """Everything that depends on the source picture alone, computed once per clip."""

    @property
    def motion(self) -> Any:
        """The motion of the source, one frame: of the kind that `Renderer.detect` returns."""
        ...


class Renderer(Protocol):
    """A model ready to animate on one device in one precision. Nothing here needs gradients."""

    device: torch.device

    def detect(self, frames: Tensor) -> Any:
        """Return the motion of frames (B, 3, H, W) in [0, 1], a `fommctl.api.blocks.MotionParts`: keypoints and
        Jacobians (`Motion`), or the kind that `BackendSpec.motion` names."""
        ...

    def encode_source(self, frame: Tensor) -> SourceContext:
        """Compute what is the same for every rendered frame.

        frame: (1, 3, H, W) in [0, 1]; (S, 3, H, W), the first the chief one, where `BackendSpec.source_views` allows
        for S pictures of the source.
        """
        ...

    def render(self, context: SourceContext, motion: Any) -> Tensor:
        """Return frames (B, 3, H', W') in [0, 1] of the source under `motion` (already transferred to the source); they
        may be larger than those that the model is given."""
        ...


@runtime_checkable
class FlowRenderer(Renderer, Protocol):
    """A renderer whose frames can be given the detail of a source of any resolution, as it knows what moved where."""

    def render_with_flow(self, context: SourceContext, motion: Any) -> tuple[Tensor, Tensor | None]:
        """Return the frames of `render` and, from the same pass, the flow (B, h, w, 2) float32 at any resolution: where
        in the source each place comes from, x before y. None where this model has none.

        Unlike elsewhere -1 and 1 are the borders of the picture, not the centres of its corner pixels: so a flow means
        the same at every resolution. What stands still comes from (2 i + 1) / n - 1 for place i of n.
        """
        ...


@runtime_checkable
class TransferRenderer(Renderer, Protocol):
    """A renderer whose family has rules of its own for the motion that a source gets.

    With an attribute `own_modes`, a tuple, only for these modes: `relative` and `absolute` are otherwise those of
    keypoints, and another mode that is not in it is refused (a model without the network that the mode needs).
    """

    def transfer(self, driving: Any, reference: Any, source: Any, *, mode: str, options: Any) -> MotionParts:
        """Return the motion for `render`: B driving frames brought to the source.

        reference: the driving frame that stands for the source's pose, one a shot; source: its motion; both one frame,
        but of a video as source one for each driving frame.
        What a frame becomes depends on nothing but these.  mode: one of `BackendSpec.motions`.  options: of the
        backend, None for the defaults.
        """
        ...


@runtime_checkable
class ClipTransferRenderer(TransferRenderer, Protocol):
    """A renderer whose family moves the frames of a video otherwise than a still; without, `transfer` gets these
    motions, too."""

    def transfer_clip(self, driving: Any, reference: Any, source: Any, *, mode: str, options: Any) -> MotionParts:
        """Return the motion as `transfer` does.  source: B frames, that of the same time for each driving frame."""
        ...


@dataclass(frozen=True, slots=True)
class DrivingMoment:
    """What is known of a driving frame beside its pixels."""

    number: int
    """Number, from 1; of a pattern of pictures, that in the picture's name."""
    time: Fraction
    """Seconds since the first frame that is used."""
    present: bool
    """Whether it shows the subject, where that was looked for."""


@runtime_checkable
class DrivingRenderer(Renderer, Protocol):
    """A renderer that detects driving frames otherwise than pictures of a source, by when they are shown."""

    def detect_driving(self, frames: Tensor, moments: Sequence[DrivingMoment]) -> Any:
        """Return the motion of driving frames (B, 3, H, W), one moment each; as `detect`. Frames come in order, but not
        all of them where a part of a video is rendered. Landmarks come after it, by `MotionParts.with_landmarks`."""
        ...


@runtime_checkable
class OptionsRenderer(Renderer, Protocol):
    """A renderer that detects, encodes or renders otherwise by the options of its family."""

    def with_options(self, options: Any) -> Renderer:
        """Return this renderer under options of `BackendSpec.options`; it may share networks with this one."""
        ...


@runtime_checkable
class ReconstructionRenderer(Renderer, Protocol):
    """A renderer that looks at the driving frames, too, where these are what it is to make again: for `evaluate`."""

    def reconstruct(self, context: SourceContext, motion: Any, driving: Tensor) -> Tensor:
        """Return frames as `render` makes them.  motion: that of the driving frames (B, 3, H, W), as detected."""
        ...


class Backend(Protocol):
    """One model of a family: its networks, and how to run them."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Return the networks by the group names of the published checkpoint."""
        ...

    def needed_groups(self) -> Sequence[str]:
        """Return the groups of `modules()` that make up the model: a checkpoint without one of them is refused, and
        what is trained keeps these. The others (a discriminator) serve training alone, and a checkpoint may lack
        them."""
        ...

    def prepare(self, device: torch.device, precision: str, *, fast: bool = True, scale: float = 1.0) -> Renderer:
        """Return a renderer with these weights.

        precision: `fp32`, `bf16` or `fp16`.  fast: False runs the plain networks with nothing cached or fused
        (fp32; the reference that `bench` measures against).  scale: side of the native frame over the side of the
        frames to come; the keypoint and motion networks then see their input at the size that they were trained at.
        """
        ...


class DatasetAdapter(Protocol):
    """Knows the raw layout of one data set."""

    def clips(self, root: Path) -> Iterator[ClipRecord]:
        """Yield the clips under `root`, in a fixed order. Raises InputError where the layout is not that of this data
        set."""
        ...


class Detector(Protocol):
    """Finds subjects."""

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Return subjects in each (H, W, 3) picture, the surest first; an empty list where there is none."""
        ...


class Embedder(Protocol):
    """Tells subjects apart."""

    def embed(self, frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32] | None]:
        """Return a vector (D,) of the chief subject of each (H, W, 3) picture; None where there is none."""
        ...


class SquareFilter(Protocol):
    """Changes animated squares before they are pasted back: a restorer or an upscaler."""

    def __call__(self, squares: Tensor) -> Tensor:
        """Return the squares, changed.

        squares: (B, 3, H, W) float32 in [0, 1] on the renderer's device, at the source's resolution where they have its
        detail, else at the model's. The result is alike, of any size; it is resized to its place in the source, or,
        where nothing is pasted back, to the size that the squares had. Called in the order of the frames.
        """
        ...


class FrameFilter(Protocol):
    """Changes finished frames before they are written.

    One with an attribute `floats = True` gets float32 in place of uint8: sRGB in [0, 1], or where the source has more
    than 8 bits the numbers of its colour space, scene-linear ones perhaps, which pass 1. Of such a frame, others get
    what a display shows of it in 8 bits, and change only the pixels that they change there.
    """

    def __call__(self, frame: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Return the frame, changed.

        frame: (H, W, 3) or (H, W, 4); the result has the same shape. Called in the order of the frames.
        """
        ...
