"""Writing frames as OpenEXR, DPX or TIFF files, with the metadata that post-production needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fommctl.errors import OutputError
from fommctl.media import timecode
from fommctl.media.colourspaces import FILM_LOG, LINEAR, SRGB, Space, import_openimageio, tags_of
from fommctl.media.movie import Frame
from fommctl.media.plates import Attributes, packed_timecode
from fommctl.media.read_options import Compression, ExrType

_TYPES = {"rgb24": "uint8", "rgba": "uint8", "gbrpf32le": "float", "gbrapf32le": "float"}
_BITS = {"gbrp10le": 10, "gbrp12le": 12}


@dataclass(frozen=True, slots=True)
class PlateFormat:
    """How a plate is written."""

    exr_type: ExrType = "half"
    compression: Compression = "zip"
    space: Space = field(default_factory=lambda: Space(LINEAR))
    """Colour space of its numbers."""
    attributes: Attributes = field(default_factory=Attributes)
    """Metadata; the timecode is the first frame's."""
    associated: bool = True
    """Whether the numbers are premultiplied by alpha."""
    window: tuple[int, int] = (0, 0)
    """Column and row of the data window's corner, in the display window."""
    display: tuple[int, int] | None = None
    """(width, height) of the display window; None: the size of the frame."""
    channels: Sequence[str] = ("R", "G", "B")
    """Names of the channels."""


class PlateWriter:
    """Writes frames, numbered from 0, as files of one format."""

    def __init__(self, pix_fmt: str, form: PlateFormat, comment: str | None) -> None:
        """pix_fmt: ffmpeg's name of the pixel format.  comment: description to write into the files."""
        self._oiio = import_openimageio("a file of OpenEXR, DPX or TIFF")
        self._pix_fmt = pix_fmt
        self._form = form
        self._comment = comment

    def __call__(self, target: Path, frame: Frame, number: int) -> None:
        """Write one frame (H, W, C). Raises OutputError."""
        if frame.dtype == np.uint8:
            frame = frame / np.float32(255)
        spec = self._spec(target.suffix.lower(), frame, number)
        output = self._oiio.ImageOutput.create(str(target))
        try:
            done = output.open(str(target), spec) and output.write_image(np.ascontiguousarray(frame, np.float32))
            # Closing writes the rest: this is the last place where a full disk is reported.
            if not (output.close() and done):
                raise self._failed(target, output)
        finally:
            output.close()
        if target.suffix.lower() == ".dpx":
            _write_name(target)

    def _failed(self, target: Path, output: Any) -> OutputError:
        reason = str(output.geterror()).strip().splitlines()
        return OutputError(
            f"cannot write {target.name}: {reason[0] if reason else 'the write failed'}",
            "Check the folder and the space on the disk.",
        )

    def _spec(self, suffix: str, frame: Frame, number: int) -> Any:
        oiio, form = self._oiio, self._form
        height, width, count = frame.shape
        kind = form.exr_type if suffix == ".exr" else _TYPES.get(self._pix_fmt, "uint16")
        spec = oiio.ImageSpec(width, height, count, kind)
        # Formats other than OpenEXR identify channels by their number.
        spec.channelnames = tuple(form.channels) if suffix == ".exr" else (("Y", "A") if count < 3 else "RGBA")[:count]
        if "A" in spec.channelnames:
            spec.alpha_channel = spec.channelnames.index("A")
        spec.x, spec.y = form.window
        spec.full_x = spec.full_y = 0
        spec.full_width, spec.full_height = form.display or (width, height)
        attributes = form.attributes
        spec.attribute("PixelAspectRatio", attributes.aspect)
        spec.attribute("Software", "fommctl")
        # Otherwise the current time would be written, and equal runs would not give equal files.
        spec.attribute("DateTime", "")
        if self._comment:
            spec.attribute("DocumentName" if suffix == ".dpx" else "ImageDescription", self._comment)
        code = self._timecode(number)
        if code is not None:
            spec.attribute("smpte:TimeCode", oiio.TypeDesc("timecode"), (packed_timecode(code), 0))
        if suffix == ".exr":
            self._describe_exr(spec)
        elif suffix == ".dpx":
            self._describe_dpx(spec)
        else:
            spec.attribute("compression", "zip")
            if not form.associated:
                spec.attribute("oiio:UnassociatedAlpha", 1)
        return spec

    def _describe_exr(self, spec: Any) -> None:
        oiio, form = self._oiio, self._form
        spec.attribute("compression", form.compression)
        attributes = form.attributes
        if attributes.rate is not None:
            numbers = attributes.rate.numerator, attributes.rate.denominator
            spec.attribute("FramesPerSecond", oiio.TypeDesc("rational"), numbers)
        if attributes.chromaticities is not None:
            spec.attribute("chromaticities", oiio.TypeDesc("float[8]"), attributes.chromaticities)
        if attributes.reel is not None:
            spec.attribute("reelName", attributes.reel)
        if form.space.config is not None or form.space == Space(SRGB) or tags_of(form.space) is not None:
            spec.attribute("oiio:ColorSpace", form.space.name)

    def _describe_dpx(self, spec: Any) -> None:
        form = self._form
        spec.attribute("oiio:BitsPerSample", _BITS.get(self._pix_fmt, 16))
        spec.attribute("dpx:Transfer", "Logarithmic" if form.space == Space(FILM_LOG) else "ITU-R 709-4")
        if form.attributes.rate is not None:
            spec.attribute("dpx:FrameRate", float(form.attributes.rate))
        if form.attributes.reel is not None:
            spec.attribute("dpx:InputDevice", form.attributes.reel[:31])

    def _timecode(self, number: int) -> str | None:
        attributes = self._form.attributes
        if attributes.timecode is None:
            return None
        return timecode.shifted(attributes.timecode, number, attributes.rate or Fraction(24))


def _write_name(path: Path) -> None:
    """Write a file's name into its DPX header (SMPTE 268M, fields 4 and 5), replacing the path and the time of
    writing."""
    with path.open("r+b") as file:
        file.seek(36)
        file.write(path.name.encode()[:99].ljust(124, b"\0"))
