"""Specs that plugins offer to the host, the hooks that return them, and a check of their fields.

Specs are frozen and cheap to make. Heavy imports happen in fields such as `build`, which may be given as the name of
the callable, `module:Name`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import pluggy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel
    from torch import Tensor

    from fommctl.api.metrics import ClipScores, Metric
    from fommctl.api.protocols import Backend, DatasetAdapter, Detector, Embedder, FrameFilter, SquareFilter
    from fommctl.api.schema import Edits
    from fommctl.networks.motion import MotionParts


T = TypeVar("T")
REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Reference:
    """A callable that imports the object named `module:Name` when it is called."""

    path: str
    called: bool
    """Whether a call is passed on to the object; False: a call returns the object."""

    def __call__(self, *arguments: Any) -> Any:
        module, _, name = self.path.partition(":")
        target = getattr(import_module(module), name)
        return target(*arguments) if self.called else target


class Named(Generic[T]):
    """A spec field that accepts a callable, or its name `module:Name`, which is imported when the field is called."""

    def __init__(self, *default: T, called: bool = True) -> None:
        """called: False for fields that return a class or the like; `module:Name` then names what they return."""
        self._default, self._called = default, called

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> T:
        if instance is not None:
            found: T = instance.__dict__[self._name]
            return found
        if self._default:
            return self._default[0]
        raise AttributeError(self._name)

    def __set__(self, instance: object, value: T | str) -> None:
        is_reference = isinstance(value, str) and REFERENCE.fullmatch(value)
        instance.__dict__[self._name] = Reference(str(value), self._called) if is_reference else value


Groups = Mapping[str, Mapping[str, "Tensor"]]
"""Tensors of a checkpoint: {group: {name: tensor}}."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """An architecture derived from the tensors of a checkpoint."""

    model_params: Mapping[str, Any]
    """Model parameters in the published schema, as in a preset."""
    frame_shape: tuple[int, int, int] | None
    """(H, W, C); None if the tensors do not determine it, so that the published shape is assumed."""
    notes: tuple[str, ...] = ()
    """Short phrases for the user about assumptions that were made."""


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """A family of models (FOMM, Monkey-Net, ...)."""

    name: str
    summary: str
    schema: Named[Callable[[], type[BaseModel]]] = Named(called=False)
    """Imports and returns the pydantic model of this backend's `model_params`."""
    recognises: Named[Callable[[Mapping[str, Any]], float]] = Named()
    """Returns the certainty, 0 to 1, that an unvalidated `model_params` mapping belongs to this backend: 0 for not at
    all, 1 if it has keys that only this family has. The backend with the highest certainty is used."""
    build: Named[Callable[[BaseModel], Backend]] = Named()
    """Builds the networks for validated `model_params` with fresh weights, on the CPU, in eval mode."""
    read_architecture: Named[Callable[[Groups], Architecture | None]] = Named(lambda groups: None)
    """Derives the architecture from the tensors of a checkpoint, after `from_published`; None if they are not from
    this family. Raises UsageError if the tensors are ambiguous."""
    sections: Named[Callable[[], Mapping[str, type[BaseModel]]]] = Named(dict, called=False)
    """Imports and returns the schemas of further preset sections: those of this backend only, and those that replace
    shared ones, such as a `train_params` derived from `fommctl.api.training.BaseTrainParams`."""
    from_published: Named[Callable[[Groups], Groups]] = Named(lambda groups: groups)
    """Converts a published checkpoint's tensors to the names and shapes of `modules()`, and returns tensors of any
    other layout unchanged. It is called for every checkpoint of unknown family, and only this backend's
    `read_architecture` gets the result."""
    to_published: Named[Callable[[Groups], Groups]] = Named(lambda groups: groups)
    """Converts tensors back to the published names and shapes, for `fommctl models export`."""
    published_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Names of groups by file, for families whose weights are published as several files; the file's path has `/` and
    no suffix. A file with one group holds its tensors directly. `fommctl models export` writes a folder of these."""
    motions: tuple[str, ...] = ("relative", "absolute")
    """Motion modes, the default first."""
    motion: Named[Callable[[], type[MotionParts]]] = Named(
        Reference("fommctl.networks.motion:Motion", called=False), called=False
    )
    """Imports and returns the class of motion that the renderers detect; by default FOMM's."""
    edits: Named[Callable[[], type[Edits] | None]] = Named(lambda: None, called=False)
    """Imports and returns the class of edits for `fommctl edit`, derived from `fommctl.api.schema.Edits`; None if the
    family cannot edit."""
    read_motion: Named[Callable[[Path], tuple[float, Mapping[str, NDArray[np.float32]]] | None]] = Named(
        lambda path: None
    )
    """Reads a driving file in the family's own format: frames per second, and arrays (T, ...) by the name of the
    motion's part; None for any other file. Raises InputError if the file is damaged."""
    mask: Named[Callable[[int], NDArray[np.float32]] | None] = Named(None)
    """Returns the opacity (side, side) in [0, 1] of a rotated square when it is pasted back; None for the usual soft
    edge."""
    options: Named[Callable[[], type[BaseModel] | None]] = Named(lambda: None, called=False)
    """Imports and returns the class of the family's own options (`-O NAME=VALUE`), derived from
    `fommctl.api.schema.Options`; None if it has none."""
    source_views: int = 1
    """Largest number of pictures of one source that `encode_source` accepts."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """An adapter for the raw layout of a data set."""

    name: str
    summary: str
    licence: str
    """Free text for the user: who owns the data and where to get it."""
    build: Named[Callable[[], DatasetAdapter]] = Named()


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """A detector of subjects, for crop, best frame and metrics."""

    name: str
    summary: str
    subject: str
    """Kind of subject (`face`, `body`, ...), which presets name in `framing.subject`."""
    build: Named[Callable[[], Detector]] = Named()
    """Builds the detector. Raises MissingError if a package or weights are missing."""
    ready: Named[Callable[[], str | None]] = Named(lambda: None)
    """Returns a short reason why `build` would not work immediately and offline, or None. Must not import anything
    heavy."""
    priority: int = 0
    """Rank; by default the ready detector of the subject with the highest rank is used."""
    landmarks: int = 0
    """Number of landmarks per detection; 0 for none."""
    metric_priority: int = 0
    """Rank for keypoint metrics, which use the ready detector with landmarks of the highest rank; below 0: only if it
    is named."""
    packages: tuple[str, ...] = ()
    """Names of distributions whose versions affect the results; results that `evaluate` caches are dropped when one
    changes."""


@dataclass(frozen=True, kw_only=True)
class EmbedderSpec:
    """An embedder of subjects, for identity metrics."""

    name: str
    summary: str
    subject: str
    """Kind of subject (`face`, `body`, ...)."""
    dimension: int
    """Length of an embedding."""
    build: Named[Callable[[], Embedder]] = Named()
    """Builds the embedder. Raises MissingError if a package or weights are missing."""
    ready: Named[Callable[[], str | None]] = Named(lambda: None)
    """Returns a short reason why `build` would not work immediately and offline, or None, as for detectors."""
    priority: int = 0
    """Rank among the embedders of a subject, as for detectors."""
    packages: tuple[str, ...] = ()
    """Names of distributions whose versions affect the results, as for detectors."""


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A metric of predicted frames, for `evaluate`."""

    name: str
    """Name with the variant, such as `l1.paper`."""
    summary: str
    unit: str
    lower_is_better: bool
    build: Named[Callable[[], Metric]] = Named()
    """Builds the metric. Raises MissingError if a package or weights are missing."""
    needs: Literal["truth", "identity", "driving", "nothing"] = "truth"
    """Frames that the prediction is compared with: `truth`, the true frames; `identity`, frames of the same subject
    (the source picture if there is no truth); `driving`, frames with the same motion (the driving frames if there is no
    truth); or `nothing`."""
    uses: tuple[str, ...] = ()
    """Sources that the metric needs in its `MetricClip`: `keypoints`, `embeddings` or both."""
    weighting: Literal["frames", "clips"] = "frames"
    """Weight of a clip in the mean over clips: its number of scored frames, or 1."""
    combine: Named[Callable[[Sequence[ClipScores]], float | None] | None] = Named(None)
    """Returns the score over several clips, for a metric for which that is not the weighted mean."""
    ready: Named[Callable[[], str | None]] = Named(lambda: None)
    """Returns a short reason why `build` would not work immediately and offline, or None. A metric that is not ready is
    used only if it is named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PresetSpec:
    """A named configuration, in a complete YAML file in the published schema."""

    name: str
    summary: str
    path: Path
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFile:
    """One of several files that make up a model."""

    name: str
    """Path in the model's folder, with `/`; without `urls` also the path in `ModelSpec.repository`."""
    urls: tuple[str, ...] = ()
    """Addresses to try in order, as in `ModelSpec`."""
    licence: str = ""
    """Licence of this file; empty for the model's."""
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    """Bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """Weights of a model: shipped with a plugin (`path`) or downloaded (`urls`, or several `files`)."""

    name: str
    summary: str
    preset: str
    licence: str
    path: Path | None = None
    urls: tuple[str, ...] = ()
    """Addresses to try in order. For files on Hugging Face: `hf://OWNER/NAME/FILE`, `hf://OWNER/NAME@REVISION/FILE` or
    `hf://spaces/OWNER/NAME/FILE`."""
    files: tuple[ModelFile, ...] = ()
    """Files of a model that is published as a folder."""
    repository: str = ""
    """Location of the `files` that have no addresses: `hf://OWNER/NAME@REVISION`, or the address of a folder."""
    sha256: str | None = None
    """SHA-256 as published; None: that of the first download is recorded, and later downloads must match it."""
    md5: str | None = None
    size: int | None = None
    """Bytes."""
    default: bool = False
    """Whether this model is used if none is named; at most one per installation."""


@dataclass(frozen=True, kw_only=True)
class CommandSpec:
    """An extra subcommand."""

    name: str
    summary: str
    build: Named[Callable[[], Any]] = Named()
    """Returns the typer.Typer with the command or its subcommands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageEvent:
    """The start or end of a command's work, as listeners and filters receive it."""

    stage: str
    details: Mapping[str, Any]
    """JSON values: inputs and options at the start, results at the end."""


PROJECT = "fommctl"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """All hook specifications; examples of each are in plugins/README.md."""

    @hookspec
    def fommctl_backends(self) -> Iterable[BackendSpec]:
        """Return model families."""
        return ()

    @hookspec
    def fommctl_datasets(self) -> Iterable[DatasetSpec]:
        """Return data set adapters."""
        return ()

    @hookspec
    def fommctl_detectors(self) -> Iterable[DetectorSpec]:
        """Return subject detectors."""
        return ()

    @hookspec
    def fommctl_embedders(self) -> Iterable[EmbedderSpec]:
        """Return embeddings of subjects."""
        return ()

    @hookspec
    def fommctl_metrics(self) -> Iterable[MetricSpec]:
        """Return scores for `evaluate`."""
        return ()

    @hookspec
    def fommctl_presets(self) -> Iterable[PresetSpec]:
        """Return named configurations."""
        return ()

    @hookspec
    def fommctl_models(self) -> Iterable[ModelSpec]:
        """Return weights, shipped or downloadable."""
        return ()

    @hookspec
    def fommctl_commands(self) -> Iterable[CommandSpec]:
        """Return extra subcommands."""
        return ()

    @hookspec
    def fommctl_stage_started(self, event: StageEvent) -> None:
        """React to the start of a stage."""

    @hookspec
    def fommctl_stage_finished(self, event: StageEvent) -> None:
        """React to the success of a stage; `event.details` holds its result."""

    @hookspec
    def fommctl_square(self, event: StageEvent) -> SquareFilter | None:
        """Return a filter for the animated squares of this run, before they are pasted back, or None. Filters run in
        the order of plugin registration."""

    @hookspec
    def fommctl_frame(self, event: StageEvent) -> FrameFilter | None:
        """Return a filter for the finished frames of this run, or None. Filters run in the order of plugin
        registration."""


SPEC_TYPES: Mapping[str, type] = {
    "backend": BackendSpec,
    "dataset": DatasetSpec,
    "detector": DetectorSpec,
    "embedder": EmbedderSpec,
    "metric": MetricSpec,
    "preset": PresetSpec,
    "model": ModelSpec,
    "command": CommandSpec,
}
"""Types of specs by kind; the hook for a kind is `fommctl_<kind>s`."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_PLAIN: Mapping[str, type] = {"str": str, "int": int, "bool": bool, "Path": Path}


def spec_fault(kind: str, spec: object) -> str | None:
    """Return what is wrong with this spec as a short phrase that names it; None if it is valid."""
    expected = SPEC_TYPES[kind]
    if not isinstance(spec, expected):
        return f"{type_name(spec)} is not a {expected.__name__}"
    name = getattr(spec, "name", None)
    for word in (name, *getattr(spec, "aliases", ())):
        if not isinstance(word, str) or not NAME.fullmatch(word):
            return f"the {kind} name {word!r} may only have lower-case letters, digits, '.', '_' and '-'"
    for declared in fields(expected):
        expectation = _violated(str(declared.type), getattr(spec, declared.name))
        if expectation:
            return f"{declared.name} of the {kind} {name!r} is not {expectation}"
    return None


def _violated(annotation: str, value: Any) -> str | None:
    """Return what a field with this annotation should be if `value` is something else; None if it is valid."""
    if value is None and annotation.endswith("| None"):
        return None
    if annotation.startswith("Named"):
        fits = callable(value) or (value is None and annotation.endswith("| None]"))
        return None if fits else "callable, or 'module:Name' of a callable"
    if annotation == "tuple[ModelFile, ...]":
        inside = isinstance(value, tuple) and all(
            isinstance(each, ModelFile) and _is_inside(each.name) for each in value
        )
        return None if inside else "a tuple of ModelFile with names inside the model's folder"
    if annotation == "tuple[str, ...]":
        fits = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        return None if fits else "a tuple of strings"
    plain = _PLAIN.get(annotation)
    return f"a {plain.__name__}" if plain and not isinstance(value, plain) else None


def _is_inside(name: str) -> bool:
    return bool(name) and not {"", ".", ".."} & set(name.split("/")) and not set("\\:") & set(name)


def type_name(value: object) -> str:
    """Return the name of a value's type for a message; for a class, `the class NAME`."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
