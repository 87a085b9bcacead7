"""The public surface for plugins.

Import from here and from the modules of this package only, such as `fommctl.api.blocks` (building blocks of networks;
imports torch), `fommctl.api.metrics`, `fommctl.api.schema` and `fommctl.api.folders` (data sets): what else fommctl
contains may change at any release. Importing this package is cheap: neither torch nor PyAV is loaded.
"""

from fommctl.api.protocols import (
    Backend,
    ClipRecord,
    ClipTransferRenderer,
    DatasetAdapter,
    Detection,
    Detector,
    DrivingMoment,
    DrivingRenderer,
    Embedder,
    FlowRenderer,
    FrameFilter,
    OptionsRenderer,
    ReconstructionRenderer,
    Renderer,
    SourceContext,
    SquareFilter,
    TransferRenderer,
)
from fommctl.api.specs import (
    PROJECT,
    Architecture,
    BackendSpec,
    CommandSpec,
    DatasetSpec,
    DetectorSpec,
    EmbedderSpec,
    Groups,
    MetricSpec,
    ModelFile,
    ModelSpec,
    PresetSpec,
    StageEvent,
    hookimpl,
)
from fommctl.errors import FommctlError, InputError, MissingError, ModelError, OutputError, UsageError
from fommctl.machine import offline
from fommctl.media.boxes import Box

__all__ = [
    "PROJECT",
    "Architecture",
    "Backend",
    "BackendSpec",
    "Box",
    "ClipRecord",
    "ClipTransferRenderer",
    "CommandSpec",
    "DatasetAdapter",
    "DatasetSpec",
    "Detection",
    "Detector",
    "DetectorSpec",
    "DrivingMoment",
    "DrivingRenderer",
    "Embedder",
    "EmbedderSpec",
    "FlowRenderer",
    "FommctlError",
    "FrameFilter",
    "Groups",
    "InputError",
    "MetricSpec",
    "MissingError",
    "ModelError",
    "ModelFile",
    "ModelSpec",
    "OptionsRenderer",
    "OutputError",
    "PresetSpec",
    "ReconstructionRenderer",
    "Renderer",
    "SourceContext",
    "SquareFilter",
    "StageEvent",
    "TransferRenderer",
    "UsageError",
    "hookimpl",
    "offline",
]
