"""What plugins hand to the host: frozen descriptions, cheap to make, whose `build` does the heavy import, most simply
by the name of what it imports, `module:Name`; the hooks that return them, and what is wrong with one."""

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
    """The object that `module:Name` names, imported at the first call."""

    path: str
    called: bool
    """Whether the thing itself is called, or returned."""

    def __call__(self, *arguments: Any) -> Any:
        module, _, name = self.path.partition(":")
        thing = getattr(import_module(module), name)
        return thing(*arguments) if self.called else thing


class Named(Generic[T]):
    """A field of a spec that takes a callable, or `module:Name`, which is imported when the field is called.

    called: False where the field imports and returns something: then `module:Name` is the thing itself.
    """

    def __init__(self, *default: T, called: bool = True) -> None:
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
    """The architecture that a backend reads off the tensors of a checkpoint."""

    model_params: Mapping[str, Any]
    """Model parameters in the published schema, as a preset would state them."""
    frame_shape: tuple[int, int, int] | None
    """(H, W, C) if the tensors tell; None where the published value is assumed."""
    notes: tuple[str, ...] = ()
    """Short phrases about what was read and what was assumed, shown to the user."""


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """A family of models (FOMM, Monkey-Net, ...)."""

    name: str
    summary: str
    schema: Named[Callable[[], type[BaseModel]]] = Named(called=False)
    """Imports and returns the pydantic model of this backend's `model_params`."""
    recognises: Named[Callable[[Mapping[str, Any]], float]] = Named()
    """The certainty that a `model_params` mapping (unvalidated, from YAML) belongs to this backend, from 0 (not at all)
    to 1 (it has what only this family has); the surest backend gets it."""
    build: Named[Callable[[BaseModel], Backend]] = Named()
    """Networks with fresh weights from validated `model_params`, on the CPU, in eval mode."""
    read_architecture: Named[Callable[[Groups], Architecture | None]] = Named(lambda groups: None)
    """Architecture from the tensors of a checkpoint (after `from_published`); None if they are not of this backend.
    Raises UsageError where the reading is ambiguous."""
    sections: Named[Callable[[], Mapping[str, type[BaseModel]]]] = Named(dict, called=False)
    """Imports and returns schemas of preset sections beside `model_params`: of those that differ from the shared ones
    (`train_params`, derived from `fommctl.api.training.BaseTrainParams`) and of the backend's own."""
    from_published: Named[Callable[[Groups], Groups]] = Named(lambda groups: groups)
    """A published checkpoint's tensors under the names and in the shapes of `modules()`; others as they are. It is
    given every checkpoint whose family is not known, and its own `read_architecture` alone sees the result."""
    to_published: Named[Callable[[Groups], Groups]] = Named(lambda groups: groups)
    """The other way round, for `fommctl models export`."""
    published_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Groups of each file where published weights are several, by its name without ending, `/` in it. A file of
    one group holds its tensors alone. `fommctl models export` writes a folder with them."""
    motions: tuple[str, ...] = ("relative", "absolute")
    """Ways to transfer driving motion to a source; the first is the default."""
    motion: Named[Callable[[], type[MotionParts]]] = Named(
        Reference("fommctl.networks.motion:Motion", called=False), called=False
    )
    """Imports and returns the kind of motion that its renderers detect, where it is not that of FOMM."""
    edits: Named[Callable[[], type[Edits] | None]] = Named(lambda: None, called=False)
    """Imports and returns what `fommctl edit` can change, a class derived from `fommctl.api.schema.Edits`."""
    read_motion: Named[Callable[[Path], tuple[float, Mapping[str, NDArray[np.float32]]] | None]] = Named(
        lambda path: None
    )
    """Frames a second and the parts of the motion, by name and frames first, of a driving file in the family's own
    format; None for any other file. Raises InputError for a damaged one."""
    mask: Named[Callable[[int], NDArray[np.float32]] | None] = Named(None)
    """mask(side): how much of a square that lies turned in its picture is shown where it is pasted back, (side, side)
    in [0, 1]; None is a soft edge."""
    options: Named[Callable[[], type[BaseModel] | None]] = Named(lambda: None, called=False)
    """Imports and returns a class derived from `fommctl.api.schema.Options`: what a user may set with `-O NAME=VALUE`,
    beside what all models have. `TransferRenderer.transfer` gets it."""
    source_views: int = 1
    """Most pictures of a source that `encode_source` makes use of."""


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set adapter."""

    name: str
    summary: str
    licence: str
    """A note for people, not a promise: who owns the data and where it is to be had."""
    build: Named[Callable[[], DatasetAdapter]] = Named()


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """Finds subjects in pictures, for crop, best frame and metrics."""

    name: str
    summary: str
    subject: str
    """The kind of subject that it finds (`face`, `body`, ...): a preset names its subject in `framing.subject`."""
    build: Named[Callable[[], Detector]] = Named()
    """Raises MissingError when a package or weights are absent."""
    ready: Named[Callable[[], str | None]] = Named(lambda: None)
    """A short reason why `build` would not work at once and offline, or None; must not import anything heavy."""
    priority: int = 0
    """Among ready detectors of one subject the highest is taken by default."""
    landmarks: int = 0
    """Number of landmarks a detection carries; 0 for none."""
    metric_priority: int = 0
    """Among ready detectors of one subject that find landmarks the highest is taken for metrics of keypoints; one below
    0 only when it is asked for by name."""
    packages: tuple[str, ...] = ()
    """Distributions by whose versions it may find otherwise; what `evaluate` keeps of its results is theirs."""


@dataclass(frozen=True, kw_only=True)
class EmbedderSpec:
    """Describes who or what is seen in a picture, for metrics of identity."""

    name: str
    summary: str
    subject: str
    """The kind of subject that it embeds (`face`, `body`, ...)."""
    dimension: int
    """Length of an embedding."""
    build: Named[Callable[[], Embedder]] = Named()
    """Raises MissingError when a package or weights are absent."""
    ready: Named[Callable[[], str | None]] = Named(lambda: None)
    """The reason why it cannot be built, as for a detector."""
    priority: int = 0
    """The rank among embedders, as for a detector."""
    packages: tuple[str, ...] = ()
    """The packages that it needs, as for a detector."""


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A score of predicted frames against true ones."""

    name: str
    """The name with its variant: `l1.paper`."""
    summary: str
    unit: str
    lower_is_better: bool
    build: Named[Callable[[], Metric]] = Named()
    """Raises MissingError when a package or weights are absent."""
    needs: Literal["truth", "identity", "driving", "nothing"] = "truth"
    """The counterpart of the prediction: the true frames; any frames of the same subject (then also the source
    picture, where there is no truth); any frames that move alike (then also the driving ones, where there is no truth);
    or nothing."""
    uses: tuple[str, ...] = ()
    """The sources, `keypoints` or `embeddings`, that the metric asks its clip for."""
    weighting: Literal["frames", "clips"] = "frames"
    """The weight of a clip in the mean over clips: the number of its scored frames, or 1."""
    combine: Named[Callable[[Sequence[ClipScores]], float | None] | None] = Named(None)
    """The score of several clips together, where it is no weighted mean."""
    ready: Named[Callable[[], str | None]] = Named(lambda: None)
    """The reason why it cannot be built, as for a detector; metrics with one are used only when asked for by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PresetSpec:
    """A named configuration: a complete YAML file in the published schema."""

    name: str
    summary: str
    path: Path
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFile:
    """One of several files that make up a model."""

    name: str
    """Path inside the model's folder, with `/`; of the repository too, where there are no `urls`."""
    urls: tuple[str, ...] = ()
    """The addresses of the file, as for a model."""
    licence: str = ""
    """Empty: that of the model."""
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    """Bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """Registered weights: shipped with a plugin (`path`) or downloadable (`urls`, or several `files`)."""

    name: str
    summary: str
    preset: str
    licence: str
    path: Path | None = None
    urls: tuple[str, ...] = ()
    """Tried in order; `hf://OWNER/NAME/FILE`, `hf://OWNER/NAME@REVISION/FILE` and `hf://spaces/OWNER/NAME/FILE` name
    files of a Hugging Face repository."""
    files: tuple[ModelFile, ...] = ()
    """The files of a model that is a folder of several."""
    repository: str = ""
    """The place of `files` without addresses: `hf://OWNER/NAME@REVISION`, or the address of a folder."""
    sha256: str | None = None
    """The SHA-256 that the publisher states; without one the first download records it, later ones must match."""
    md5: str | None = None
    size: int | None = None
    """Bytes."""
    default: bool = False
    """Used where no model is named; one in an installation."""


@dataclass(frozen=True, kw_only=True)
class CommandSpec:
    """An extra subcommand."""

    name: str
    summary: str
    build: Named[Callable[[], Any]] = Named()
    """Returns the typer.Typer that holds the command or its subcommands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageEvent:
    """The event that listeners of stages get."""

    stage: str
    details: Mapping[str, Any]
    """JSON values only: inputs and options when a stage starts, its result when it finished."""


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
        """Take note that a stage begins."""

    @hookspec
    def fommctl_stage_finished(self, event: StageEvent) -> None:
        """Take note that a stage ended well; `event.details` holds its result."""

    @hookspec
    def fommctl_square(self, event: StageEvent) -> SquareFilter | None:
        """Return a filter for the animated squares of this run, before they are pasted back, or None; in the same
        order."""

    @hookspec
    def fommctl_frame(self, event: StageEvent) -> FrameFilter | None:
        """Return a filter for the finished frames of this run, or None; filters run in the order of plugin
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
"""Types of the specs that plugins can offer, by kind; the hook of a kind is `fommctl_<kind>s`."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_PLAIN: Mapping[str, type] = {"str": str, "int": int, "bool": bool, "Path": Path}


def spec_fault(kind: str, spec: object) -> str | None:
    """Return what is wrong with this spec, as one short phrase that names it, or None."""
    expected = SPEC_TYPES[kind]
    if not isinstance(spec, expected):
        return f"{type_name(spec)} is not a {expected.__name__}"
    name = getattr(spec, "name", None)
    for word in (name, *getattr(spec, "aliases", ())):
        if not isinstance(word, str) or not NAME.fullmatch(word):
            return f"the {kind} name {word!r} is not of lower-case letters, digits, '.', '_' and '-'"
    for declared in fields(expected):
        wanted = _wanted(str(declared.type), getattr(spec, declared.name))
        if wanted:
            return f"{declared.name} of the {kind} {name!r} is not {wanted}"
    return None


def _wanted(annotation: str, value: Any) -> str | None:
    """Return what a field of this annotation must be, where `value` is not that; None where it is."""
    if value is None and annotation.endswith("| None"):
        return None
    if annotation.startswith("Named"):
        fits = callable(value) or (value is None and annotation.endswith("| None]"))
        return None if fits else "callable, or 'module:Name' of what is"
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
    """Return the type of a value, or the class itself where the value is one, for a message."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
