"""The public API for plugins.

Plugins may import only from this package and its modules, such as `fommctl.api.blocks` (building blocks of networks;
imports torch), `fommctl.api.metrics`, `fommctl.api.schema` and `fommctl.api.folders` (data sets); everything else may
change in any release. Importing the package itself is cheap: it loads neither torch nor PyAV.
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
