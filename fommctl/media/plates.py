"""Pictures of more than 8 bits, with the file's own numbers and its metadata.

OpenEXR, DPX and TIFF go through OpenImageIO (extra `vfx`), PNG and the frames of videos through FFmpeg.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fommctl.errors import InputError, MissingError, UsageError
from fommctl.media.colour import ColourTags
from fommctl.media.colourspaces import (
    FILM_LOG,
    LINEAR,
    SRGB,
    DisplayTransform,
    Floats,
    Space,
    choose_display_transform,
    find_space,
    import_openimageio,
    linear_space,
    space_of,
    stated_space,
)
from fommctl.media.limits import check_size
from fommctl.media.read_options import PLAIN, OnNan, ReadOptions
from fommctl.presets.config import nearest

Depth = Literal["half", "float", "double", "uint8", "uint10", "uint12", "uint16", "uint32"]
FLOATING = frozenset({"half", "float", "double"})
_EXR = b"\x76\x2f\x31\x01"
_DPX = (b"SDPX", b"XPDS")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_STRIP = 1 << 26
"""Bytes of a picture that are converted at a time."""
CONVERT = "Convert it to a flat OpenEXR, TIFF or PNG file first."


class NotFiniteError(InputError):
    """A picture contains NaN or infinity, with `--nan fail`."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """Metadata of files of post-production."""

    timecode: str | None = None
    """HH:MM:SS:FF, or HH:MM:SS;FF for drop-frame."""
    rate: Fraction | None = None
    """Frames per second."""
    aspect: float = 1.0
    """Width over height of a pixel."""
    chromaticities: tuple[float, ...] | None = None
    reel: str | None = None


@dataclass(frozen=True, slots=True)
class Plate:
    """A picture with its file's own numbers, cropped to its display window."""

    values: Floats
    """(H, W, 3)."""
    alpha: Floats | None
    """(H, W)."""
    associated: bool
    """Whether the values are premultiplied by alpha."""
    depth: Depth
    display: DisplayTransform
    format: str = ""
    """openexr, dpx or tiff; empty for others."""
    attributes: Attributes = field(default_factory=Attributes)
    overscan: tuple[Floats, int, int] | None = None
    """The whole data window if it reaches beyond the display window, (h, w, 3 or 4), and the column and row of its
    corner in the display window."""
    replaced: int = 0
    """Number of pixels that contained NaN or infinity, and were made black."""

    @property
    def stacked(self) -> Floats:
        """Values with alpha, if there is any: (H, W, 3 or 4)."""
        return self.values if self.alpha is None else np.dstack((self.values, self.alpha))

    def bytes(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Return what a model sees: (H, W, 3), and straight alpha (H, W); None if the values are premultiplied."""
        alpha = None if self.alpha is None or self.associated else to_bytes(self.alpha)
        seen = np.empty(self.values.shape, np.uint8)
        height = max(1, _STRIP // self.values[0].nbytes)
        for start in range(0, len(seen), height):
            rows = slice(start, start + height)
            seen[rows] = to_bytes(self.display.shown(self.values[rows]))
        return seen, alpha

    def framed(self, frame: Floats) -> Floats:
        """Extend a finished frame (H, W, C) by the overscan to the window that is written."""
        if self.overscan is None:
            return frame
        around, left, top = self.overscan
        height, width = frame.shape[:2]
        right, bottom = max(width, left + around.shape[1]), max(height, top + around.shape[0])
        x, y = min(0, left), min(0, top)
        whole = np.zeros((bottom - y, right - x, frame.shape[2]), np.float32)
        channels = min(frame.shape[2], around.shape[2])
        whole[top - y : top - y + around.shape[0], left - x : left - x + around.shape[1], :channels] = around[
            ..., :channels
        ]
        whole[-y : height - y, -x : width - x] = frame
        return whole

    @property
    def window(self) -> tuple[int, int]:
        """Column and row, in the display window, of the corner of the window that `framed` returns."""
        return (0, 0) if self.overscan is None else (min(0, self.overscan[1]), min(0, self.overscan[2]))


def to_bytes(signal: Floats) -> NDArray[np.uint8]:
    """Convert a signal in [0, 1] to 8 bits, clipping values outside."""
    pixels: NDArray[np.uint8] = np.clip(np.rint(signal * np.float32(255)), 0, 255).astype(np.uint8)
    return pixels


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file that OpenImageIO reads."""

    format: str
    """openexr, dpx or tiff."""
    width: int
    """Width of the display window."""
    height: int
    depth: Depth
    has_alpha: bool
    attributes: Attributes
    comment: str | None
    """The description or document name in the file."""


def needs_openimageio(path: Path) -> bool:
    """Return whether a file is OpenEXR or DPX, by its content."""
    with path.open("rb") as file:
        return file.read(4) in (_EXR, *_DPX)


def is_deep(path: Path) -> bool:
    """Return whether a PNG or TIFF has more than 8 bits; False for TIFF without OpenImageIO, and for other formats."""
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return start[24:25] == b"\x10"
    if start[:4] not in _TIFF:
        return False
    try:
        with _opened(path) as image:
            return _depth(image.spec()) != "uint8"
    except (InputError, MissingError):
        return False


def is_deep_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF of more than 8 bits that OpenImageIO reads."""
    with path.open("rb") as file:
        return file.read(4) in _TIFF and is_deep(path)


def read_header(path: Path) -> Header:
    """Read the header of an OpenEXR, DPX or TIFF file. Raises InputError and MissingError."""
    with _opened(path) as image:
        spec = image.spec()
        width, height = spec.full_width or spec.width, spec.full_height or spec.height
        check_size(path.name, max(width, spec.width), max(height, spec.height))
        comment = spec.getattribute("ImageDescription") or spec.getattribute("DocumentName")
        said = None if comment is None else str(comment)
        return Header(image.format_name(), width, height, _depth(spec), _has_alpha(spec), _attributes(spec), said)


def _has_alpha(spec: Any) -> bool:
    """Return whether a layer has colours and alpha; an `A` alone is a matte."""
    names = set(spec.channelnames)
    return any(names & {f"{name[:-1]}R", f"{name[:-1]}Y"} for name in names if name.rpartition(".")[2] == "A")


def read_plate(path: Path, options: ReadOptions = PLAIN) -> Plate:
    """Read an OpenEXR, DPX or TIFF file.

    Raises InputError, NotFiniteError for NaN and infinity with `nan="fail"`, UsageError for a layer or a space that
    does not exist, and MissingError without OpenImageIO.
    """
    with _opened(path) as image:
        part, first, count, grey = _channels(image, path.name, options.layer)
        image.seek_subimage(part, 0)
        spec = image.spec()
        if spec.deep:
            raise InputError(f"{path.name} contains deep samples, which do not form a single picture", CONVERT)
        width, height = spec.full_width or spec.width, spec.full_height or spec.height
        check_size(path.name, max(width, spec.width), max(height, spec.height))
        read = image.read_image(part, 0, first, first + count, "float")
        if read is None:
            raise _damaged(path, image.geterror())
        pixels = np.asarray(read, np.float32).reshape(spec.height, spec.width, count)
        depth, attributes, format_name = _depth(spec), _attributes(spec), image.format_name()
        straight = format_name != "openexr" and bool(spec.get_int_attribute("oiio:UnassociatedAlpha", 0))
        corner = spec.x - spec.full_x, spec.y - spec.full_y
        display = _display_transform(spec, format_name, depth, path.name, options)
    pixels, replaced = _finite(pixels, path.name, options.nan)
    if grey:
        pixels = np.concatenate((np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1:]), axis=2)
    overscan = None
    if corner != (0, 0) or pixels.shape[:2] != (height, width):
        left, top = corner
        inside = left <= 0 and top <= 0 and left + pixels.shape[1] >= width and top + pixels.shape[0] >= height
        beyond = left < 0 or top < 0 or left + pixels.shape[1] > width or top + pixels.shape[0] > height
        overscan = (pixels, left, top) if beyond else None
        pixels = (
            pixels[-top : height - top, -left : width - left] if inside else _padded(pixels, left, top, width, height)
        )
    alpha = np.ascontiguousarray(pixels[..., 3]) if pixels.shape[2] > 3 else None
    values = np.ascontiguousarray(pixels[..., :3])
    return Plate(values, alpha, not straight, depth, display, format_name, attributes, overscan, replaced)


def _padded(pixels: Floats, left: int, top: int, width: int, height: int) -> Floats:
    """Return the display window of a picture whose data window does not fill it; the rest is black."""
    whole = np.zeros((height, width, pixels.shape[2]), np.float32)
    x, y = max(0, left), max(0, top)
    right, bottom = min(width, left + pixels.shape[1]), min(height, top + pixels.shape[0])
    if right > x and bottom > y:
        whole[y:bottom, x:right] = pixels[y - top : bottom - top, x - left : right - left]
    return whole


def _finite(pixels: Floats, name: str, on_nan: OnNan) -> tuple[Floats, int]:
    wrong = ~np.isfinite(pixels).all(axis=2)
    count = int(wrong.sum())
    if count and on_nan == "fail":
        raise NotFiniteError(f"{name} contains NaN or infinity in {count} pixels", "--nan black makes them black.")
    if count:
        pixels[wrong] = 0
    return pixels, count


def _display_transform(spec: Any, format_name: str, depth: Depth, name: str, options: ReadOptions) -> DisplayTransform:
    floating = depth in FLOATING
    if options.space is not None:
        space = find_space(options.space, options.config, options.flag)
    else:
        space = _stated(spec, format_name, name, options)
    return choose_display_transform(space, floating=floating, view=options.view, config=options.config)


def _stated(spec: Any, format_name: str, name: str, options: ReadOptions) -> Space:
    """Return the space that the header states, else the format's usual one."""
    if format_name == "dpx":
        transfer = str(spec.get_string_attribute("dpx:Transfer"))
        return Space(FILM_LOG if transfer in ("Logarithmic", "Printing density", "KodakLog") else SRGB)
    stated = str(spec.get_string_attribute("oiio:ColorSpace"))
    if format_name == "openexr":
        primaries = spec.getattribute("chromaticities")
        if not stated and primaries is not None:
            try:
                return linear_space(primaries)
            except (ValueError, np.linalg.LinAlgError, ZeroDivisionError):
                return Space(LINEAR)
        if stated in ("", LINEAR, "lin_srgb", "lin_rec709", "scene_linear"):
            return Space(LINEAR)
        space = stated_space(stated, options.config)
        if space is None:
            raise InputError(
                f"{name} says that its colour space is '{stated}', which the OCIO configuration does not have",
                f"Name one that it has with {options.flag}, or another configuration with --ocio.",
            )
        return space
    return Space(LINEAR if _depth(spec) in FLOATING else SRGB)


def _depth(spec: Any) -> Depth:
    kind = str(spec.format)
    if kind in ("half", "float"):
        return "half" if kind == "half" else "float"
    if kind == "double":
        return "double"
    if kind in ("uint", "uint32", "int", "int32"):
        return "uint32"
    bits = int(spec.get_int_attribute("oiio:BitsPerSample", 8 if kind in ("uint8", "int8") else 16))
    return {8: "uint8", 10: "uint10", 12: "uint12"}.get(bits, "uint16")  # type: ignore[return-value]


def _attributes(spec: Any) -> Attributes:
    code = spec.getattribute("smpte:TimeCode")
    rate = spec.getattribute("FramesPerSecond")
    if rate is None:
        rate = spec.getattribute("dpx:FrameRate") or spec.getattribute("dpx:TemporalFrameRate")
    primaries = spec.getattribute("chromaticities")
    reel = spec.getattribute("reelName") or spec.getattribute("dpx:InputDevice")
    return Attributes(
        _timecode(code),
        _rate(rate),
        float(spec.get_float_attribute("PixelAspectRatio", 1.0)) or 1.0,
        None if primaries is None or len(primaries) != 8 else tuple(map(float, primaries)),
        str(reel) if reel else None,
    )


def _timecode(code: Any) -> str | None:
    """Convert SMPTE 12M's packed digits to text; None for digits that are not a timecode."""
    if code is None:
        return None
    word = int(code[0])
    fields = [(word >> shift & 0xF) + 10 * (word >> (shift + 4) & mask) for shift, mask in _FIELDS]
    frames, seconds, minutes, hours = fields
    if frames > 59 or seconds > 59 or minutes > 59 or hours > 23:
        return None
    return f"{hours:02}:{minutes:02}:{seconds:02}{';' if word >> 6 & 1 else ':'}{frames:02}"


_FIELDS = ((0, 3), (8, 7), (16, 7), (24, 3))
"""Bit position of the units of frames, seconds, minutes and hours, and the mask of their tens."""


def packed_timecode(text: str) -> int:
    """Convert a timecode to SMPTE 12M's packed digits."""
    hours, minutes, seconds, frames = (int(text[at : at + 2]) for at in (0, 3, 6, 9))
    word = 0
    for value, (shift, _) in zip((frames, seconds, minutes, hours), _FIELDS, strict=True):
        word |= (value % 10) << shift | (value // 10) << (shift + 4)
    return word | (1 << 6 if text[8] in ";." else 0)


def _rate(value: Any) -> Fraction | None:
    if value is None:
        return None
    if isinstance(value, tuple):
        return Fraction(*map(int, value)) if len(value) == 2 and value[1] and 0 < value[0] / value[1] <= 1000 else None
    number = float(value)
    if not 0 < number <= 1000:
        return None
    ntsc = Fraction(round(number * 1.001) * 1000, 1001)
    return ntsc if abs(float(ntsc) - number) < 5e-4 * number else Fraction(number).limit_denominator(1000)


def _channels(image: Any, name: str, layer: str | None) -> tuple[int, int, int, bool]:
    """Return part, first channel and number of channels of a layer, and whether it is grey.

    Raises UsageError, with the layers that exist, for any other.
    """
    layers: dict[str, tuple[int, list[str], int]] = {}
    part = 0
    while image.seek_subimage(part, 0):
        spec = image.spec()
        called = str(spec.get_string_attribute("oiio:subimagename"))
        for number, channel in enumerate(spec.channelnames):
            prefix, _, _ = channel.rpartition(".")
            key = prefix or (called if part else "")
            layers.setdefault(key, (part, list(spec.channelnames), number))
            if called and not prefix:
                layers.setdefault(called, (part, list(spec.channelnames), number))
        part += 1
    wanted = layer or ""
    if wanted not in layers and layer is None and layers:
        wanted = next(iter(layers))
    if wanted not in layers:
        known = sorted(each for each in layers if each)
        close = nearest(wanted, known)
        hint = f"Did you mean {close}? " if close else ""
        raise UsageError(
            f"{name} has no layer '{layer}'",
            hint + (f"It has {', '.join(known)}." if known else "Leave the layer out."),
        )
    part, names, _ = layers[wanted]
    return part, *_run_of_colours(names, wanted, name)


def _run_of_colours(names: list[str], layer: str, name: str) -> tuple[int, int, bool]:
    """Return first channel and number of channels of a layer's colours, which are consecutive, and whether it is
    grey."""
    lowered = [each.lower() for each in names]
    for prefix in (f"{layer.lower()}.", ""):
        for wanted, grey in ((("r", "g", "b", "a"), False), (("r", "g", "b"), False), (("y", "a"), True)):
            channels = [prefix + each for each in wanted]
            if channels[0] in lowered:
                first = lowered.index(channels[0])
                if lowered[first : first + len(channels)] == channels:
                    return first, len(channels), grey
        for one in ("y", "luma"):
            if prefix + one in lowered:
                return lowered.index(prefix + one), 1, True
    if len(names) in (1, 2):
        return 0, len(names), True
    raise InputError(
        f"{name} has no colours in {'its layer ' + layer if layer else 'it'}: {', '.join(names[:8])}",
        "Name a layer with R, G and B by --layer.",
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file in OpenImageIO. Raises InputError and MissingError."""
    with path.open("rb") as file:
        kind = "an OpenEXR picture" if file.read(4) == _EXR else "a DPX picture"
    oiio = import_openimageio(f"{path.name} is {kind}, which")
    oiio.attribute("limits:imagesize_MB", 4096)
    as_stored = oiio.ImageSpec()
    as_stored.attribute("oiio:UnassociatedAlpha", 1)
    image = oiio.ImageInput.open(str(path), as_stored)
    if image is None:
        raise _damaged(path, oiio.geterror())
    try:
        yield image
    except MemoryError as error:
        raise InputError(f"not enough memory for {path.name}", "Scale it down first.") from error
    finally:
        image.close()


def _damaged(path: Path, reason: object) -> InputError:
    lines = str(reason).strip().splitlines()
    return InputError(f"{path.name} is damaged: {lines[0] if lines else 'it cannot be read'}", "Copy it again.")


def from_codes(
    codes: NDArray[np.uint8] | NDArray[np.uint16], options: ReadOptions = PLAIN, tags: ColourTags | None = None
) -> Plate:
    """Convert codes (H, W, 3 or 4) of 8 or 16 bits, with straight alpha, to a plate.

    tags: give its space if the options name none; None: sRGB.
    """
    top = np.iinfo(codes.dtype).max
    values = codes.astype(np.float32) / np.float32(top)
    alpha = np.ascontiguousarray(values[..., 3]) if values.shape[2] == 4 else None
    space = space_of(tags or ColourTags())
    if options.space is not None:
        space = find_space(options.space, options.config, options.flag)
    display = choose_display_transform(space, floating=False, view=options.view, config=options.config)
    return Plate(np.ascontiguousarray(values[..., :3]), alpha, False, "uint8" if top == 255 else "uint16", display)
