"""A loaded model on a device, and what the jobs that use it share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from fommctl.animate.config import MotionMode
from fommctl.api.protocols import OptionsRenderer, Renderer, SourceContext
from fommctl.api.schema import Options
from fommctl.api.specs import BackendSpec
from fommctl.detection.detectors import DetectorCache, ready_detectors
from fommctl.detection.landmarks import FACE, LandmarkFinder
from fommctl.errors import MissingError, UsageError
from fommctl.host import Host
from fommctl.models.loading import LoadedModel
from fommctl.models.precision import choose_precision
from fommctl.networks.grids import to_tensor
from fommctl.networks.inference.devices import resolve_device
from fommctl.options import backend_options

ENCODED_SOURCES = 4


class Engine:
    """One model on one device in one precision, with its detectors, renderers and encoded sources."""

    def __init__(
        self, model: LoadedModel, host: Host, *, device: str = "auto", precision: str = "auto", seed: int = 0
    ) -> None:
        self.model = model
        self.host = host
        self.seed = seed
        """Seed of torch's random numbers when the model was loaded; recorded in sidecars."""
        self.device = resolve_device(device)
        self.precision = choose_precision(precision, self.device, model.backend.modules())
        self.detectors = DetectorCache(host)
        self._renderers: dict[float, Renderer] = {}
        self._encoded: OrderedDict[tuple[int | None, str], SourceContext] = OrderedDict()

    @cached_property
    def family(self) -> BackendSpec:
        """The spec of the model's backend."""
        spec: BackendSpec = self.host.find("backend", self.model.preset.backend)
        return spec

    def options(self, given: Sequence[str]) -> BaseModel | None:
        """Parse options of the model's family, given as `name=value`; see `backend_options`."""
        return backend_options(self.family.options(), given, self.family.name)

    def landmarks(self, options: BaseModel | None, name: str | None = None) -> LandmarkFinder | None:
        """Return a finder of the landmarks that these options need; None if they need none.

        name: detector to use. Raises MissingError if no detector of landmarks is ready.
        """
        if not isinstance(options, Options) or not options.landmarks:
            return None
        framing = self.model.preset.framing
        subject = "face" if framing is None else framing.subject
        known = [spec for spec in ready_detectors(self.host, subject) if spec.landmarks in FACE]
        if name is None and not known:
            raise MissingError(
                f"no landmark detector for a {subject} is ready", "See 'fommctl plugins list'; leave out -O."
            )
        spec, detector = self.detectors.detector(subject, name or known[0].name)
        return LandmarkFinder(detector, spec.landmarks)

    def frame_size(self, size: int | None = None) -> tuple[int, int]:
        """Return (width, height) of the model's frames for `--size` (their width; None: native)."""
        height, width, _ = self.model.preset.frame_shape
        return (width, height) if size is None else (size, round(size * height / width))

    def renderer(self, size: int | None = None, options: BaseModel | None = None) -> Renderer:
        """Return a renderer for frames of this size, with options of the model's family. Raises UsageError for a size
        that the networks do not support."""
        plain = self._plain_renderer(size)
        return plain.with_options(options) if options is not None and isinstance(plain, OptionsRenderer) else plain

    def _plain_renderer(self, size: int | None) -> Renderer:
        native = self.model.preset.frame_shape[1]
        scale = 1.0 if size is None else native / size
        if scale not in self._renderers:
            try:
                self._renderers[scale] = self.model.backend.prepare(self.device, self.precision, scale=scale)
            except UsageError as error:
                hint = f"The native size is {native}; {2 * native} and other whole multiples work."
                raise UsageError(f"--size {size}: {error.message}", hint) from error
        return self._renderers[scale]

    def encoded(
        self, pictures: Sequence[NDArray[np.uint8]], size: int | None = None, options: BaseModel | None = None
    ) -> SourceContext:
        """Encode a source with `renderer(size, options)`; the last few are cached for jobs that share a source.

        pictures: (N, N, 3) each, as the model sees them: the source, then further views of its subject.
        """
        renderer = self.renderer(size, options)
        told = options if isinstance(self._plain_renderer(size), OptionsRenderer) else None
        digest = sha256(repr(([picture.shape for picture in pictures], told)).encode())
        for picture in pictures:
            digest.update(picture.tobytes())
        key = size, digest.hexdigest()
        if key not in self._encoded:
            self._encoded[key] = renderer.encode_source(to_tensor(list(pictures), renderer.device))
        self._encoded.move_to_end(key)
        while len(self._encoded) > ENCODED_SOURCES:
            self._encoded.popitem(last=False)
        return self._encoded[key]


def choose_motion(family: BackendSpec, asked: str | None) -> MotionMode:
    """Return the motion mode: the one asked for, else the family's first. Raises UsageError for one that the family
    does not support."""
    possible = family.motions
    if asked is not None and asked not in possible:
        raise UsageError(
            f"{family.name} models do not support --motion {asked}",
            f"Leave out --motion, or use {' or '.join(possible)}.",
        )
    return asked or possible[0]


def check_views(family: BackendSpec, more: int) -> None:
    """Raise UsageError unless models of this family use `more` pictures of the source beside the first."""
    most = family.source_views
    if more and most == 1:
        raise UsageError(f"{family.name} models use one picture of the source", "Leave out --view.")
    if more >= most:
        raise UsageError(
            f"{more + 1} pictures of the source, but {family.name} models use at most {most}", "Give fewer --view."
        )
