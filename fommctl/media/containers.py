"""Containers by the suffix of the output, their codecs and pixel formats, and the user's choice among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import av
import numpy as np
from av.codec import Codec
from av.codec.codec import UnknownCodecError

from fommctl.errors import OutputError, UsageError
from fommctl.media.output_paths import PICTURES, is_pattern


@dataclass(frozen=True)
class Encoder:
    """A video encoder of the PyAV wheel, and fommctl's settings for it."""

    name: str
    pix_fmt: str
    """Default pixel format."""
    alpha_pix_fmt: str | None = None
    """Pixel format that keeps alpha, if the codec has one."""
    deep_pix_fmts: tuple[str, str] | None = None
    """Pixel formats for sources of more than 8 bits, without and with alpha; None: the default has enough bits."""
    crf: tuple[int, int, int] | None = None
    """Default, lowest and highest constant quality; None if the codec has no such scale."""
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    only: tuple[str, ...] = ()
    """Pixel formats that fommctl offers; empty: all of the encoder's."""


_X265_QUIET = MappingProxyType({"preset": "fast", "x265-params": "log-level=none"})
# Measured on one core at 1280x720: libx264 veryfast makes 50 frames/s, medium 16, for half a decibel and no smaller
# files; `prores` makes 48 frames/s and prores_ks 15 at the same PSNR and size; VP9 in realtime mode at speed 6 makes
# 78 frames/s and good mode 20, for a fifth more bytes at a better PSNR.
_ENCODERS = (
    Encoder("libx264", "yuv420p", crf=(18, 0, 51), options={"preset": "veryfast"}),
    Encoder("libx264rgb", "rgb24", crf=(18, 0, 51), options={"preset": "veryfast"}),
    Encoder("libx265", "yuv420p", crf=(20, 0, 51), options=_X265_QUIET),
    Encoder("libsvtav1", "yuv420p", crf=(28, 0, 63), options={"preset": "10"}),
    Encoder(
        "libvpx-vp9",
        "yuv420p",
        alpha_pix_fmt="yuva420p",
        crf=(24, 0, 63),
        options={"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "b": "0"},
    ),
    Encoder("prores", "yuv422p10le", alpha_pix_fmt="yuva444p10le", options={"vendor": "apl0"}),
    Encoder("ffv1", "bgr0", alpha_pix_fmt="bgra", options={"level": "3", "slicecrc": "1", "g": "1"}),
    Encoder("dnxhd", "yuv422p10le", options={"profile": "dnxhr_hqx"}, only=("yuv422p10le",)),
    Encoder("gif", "pal8", only=("pal8",)),
    Encoder(
        "png",
        "rgb24",
        alpha_pix_fmt="rgba",
        deep_pix_fmts=("rgb48be", "rgba64be"),
        only=("rgb24", "rgba", "rgb48be", "rgba64be"),
    ),
    # The next three are written by OpenImageIO; their pixel formats have ffmpeg's names.
    Encoder("exr", "gbrpf32le", alpha_pix_fmt="gbrapf32le", only=("gbrpf32le", "gbrapf32le")),
    Encoder(
        "dpx",
        "rgb48le",
        alpha_pix_fmt="rgba64le",
        only=("gbrp10le", "gbrp12le", "rgb48le", "rgba64le"),
    ),
    Encoder(
        "tiff",
        "rgb48le",
        alpha_pix_fmt="rgba64le",
        only=("rgb24", "rgba", "rgb48le", "rgba64le", "gbrpf32le", "gbrapf32le"),
    ),
)
ENCODERS = MappingProxyType({encoder.name: encoder for encoder in _ENCODERS})

OPENIMAGEIO = frozenset({"exr", "dpx", "tiff"})
"""Encoders that are OpenImageIO's."""
_EVEN_CHROMA = ("libx264", "libx265", "libsvtav1")

_CODEC_NAMES = MappingProxyType(
    {
        "h264": "libx264",
        "x264": "libx264",
        "avc": "libx264",
        "h265": "libx265",
        "x265": "libx265",
        "hevc": "libx265",
        "av1": "libsvtav1",
        "vp9": "libvpx-vp9",
        "prores_aw": "prores",
        "prores_ks": "prores",
        "dnxhr_hqx": "dnxhd",
        "dnxhr": "dnxhd",
    }
)
"""Common names of codecs, with their encoders."""


@dataclass(frozen=True)
class Container:
    """A kind of output file."""

    suffix: str
    muxer: str
    encoders: tuple[str, ...]
    """Video encoders that it supports; the first is the default."""
    sound: frozenset[str] | None = frozenset()
    """Sound codecs that are copied as they are; None: all that the muxer accepts."""
    sound_encoder: str | None = None
    """The encoder for other sound; None if the container holds no sound."""
    tick: Fraction | None = None
    """Fixed unit of timestamps, in seconds; None if any unit is possible."""


_MP4_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus"})
_CONTAINERS = (
    Container(".mp4", "mp4", ("libx264", "libx265", "libsvtav1", "libx264rgb"), _MP4_SOUND, "aac"),
    Container(
        ".mov",
        "mov",
        ("prores", "libx264", "libx265", "libx264rgb", "dnxhd"),
        frozenset(
            {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_f32le"}
        ),
        "aac",
    ),
    Container(
        ".mkv",
        "matroska",
        ("ffv1", "libx264", "libx265", "libvpx-vp9", "libsvtav1", "prores", "libx264rgb"),
        None,
        "flac",
        Fraction(1, 1000),
    ),
    Container(
        ".webm", "webm", ("libvpx-vp9", "libsvtav1"), frozenset({"opus", "vorbis"}), "libopus", Fraction(1, 1000)
    ),
    Container(".gif", "gif", ("gif",), tick=Fraction(1, 100)),
    Container(".mxf", "mxf", ("dnxhd", "prores"), sound_encoder="pcm_s24le"),
    Container(".png", "", ("png",)),
    Container(".exr", "", ("exr",)),
    Container(".dpx", "", ("dpx",)),
    Container(".tif", "", ("tiff",)),
    Container(".tiff", "", ("tiff",)),
)
CONTAINERS = MappingProxyType({container.suffix: container for container in _CONTAINERS})


@dataclass(frozen=True)
class Encoding:
    """How a file is encoded: container, encoder, pixel format and options."""

    container: Container
    encoder: Encoder
    pix_fmt: str
    options: Mapping[str, str]

    @property
    def alpha(self) -> bool:
        """Whether the pixel format keeps alpha."""
        return any(component.is_alpha for component in av.VideoFormat(self.pix_fmt).components)

    @property
    def bits(self) -> int:
        """Bits per channel."""
        return max(component.bits for component in av.VideoFormat(self.pix_fmt).components)

    @property
    def floating(self) -> bool:
        """Whether numbers are floats, which may exceed 1."""
        return "f32" in self.pix_fmt

    @property
    def openimageio(self) -> bool:
        """Whether OpenImageIO writes it."""
        return self.encoder.name in OPENIMAGEIO

    @property
    def rgb(self) -> bool:
        """Whether the pixels are stored as RGB, without a matrix."""
        return bool(av.VideoFormat(self.pix_fmt).is_rgb) or self.pix_fmt == "pal8"

    def coded_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of the smallest picture that contains this one and that the encoder accepts: all but
        VP9 and FFV1 refuse half chroma samples."""
        form, even = av.VideoFormat(self.pix_fmt), self.encoder.name in _EVEN_CHROMA
        even_width = self.encoder.name == "prores" or (even and form.chroma_width(2) == 1)
        even_height = even and form.chroma_height(2) == 1
        return width + (width % 2 if even_width else 0), height + (height % 2 if even_height else 0)


def resolve_encoding(
    path: Path,
    *,
    codec: str | None = None,
    crf: int | None = None,
    pix_fmt: str | None = None,
    alpha: bool = False,
    deep: bool = False,
) -> Encoding:
    """Choose container (by the suffix of `path`), codec, quality and pixel format.

    alpha: prefer a pixel format with alpha.  deep: prefer one of more than 8 bits.
    Raises OutputError for a suffix that fommctl does not write and for codecs that the container does not hold,
    UsageError for a pixel format or a quality that the codec does not have.
    """
    container = container_of(path)
    encoder = _choose_encoder(container, codec, pix_fmt)
    chosen = _choose_pix_fmt(encoder, pix_fmt, alpha, deep)
    options = dict(encoder.options)
    if encoder.name == "prores":
        # The encoder takes the number only: 3 is 422 HQ, 4 is 4444.
        options["profile"] = "3" if chosen.startswith("yuv422") else "4"
    if encoder.name.startswith("libx264") and _has_avx512():
        # x264's AVX-512 code for macroblock trees reads past its rows if the width is not a multiple of 128, so that
        # equal frames sometimes give different bytes. AVX2 is as fast (measured: 1280x720, one core).
        options["x264-params"] = "asm=AVX2,FMA3,LZCNT,BMI2"
    if (quality := _choose_crf(encoder, crf)) is not None:
        options["crf"] = str(quality)
    return Encoding(container, encoder, chosen, MappingProxyType(options))


def is_plate_format(path: Path) -> bool:
    """Return whether results with this suffix are written by OpenImageIO."""
    container = CONTAINERS.get(path.suffix.lower())
    return container is not None and container.encoders[0] in OPENIMAGEIO


def container_of(path: Path) -> Container:
    """Return the container for the suffix of `path`. Raises OutputError, with the known ones, for any other suffix, and
    for one picture that is not a pattern."""
    container = CONTAINERS.get(path.suffix.lower())
    if container is None:
        known = ", ".join(suffix for suffix in CONTAINERS if suffix not in PICTURES)
        what = f"unknown output type '{path.suffix}'" if path.suffix else f"'{path.name}' has no file type"
        raise OutputError(f"{what}: {path}", f"Known are {known} and a pattern of pictures such as frames/%05d.png.")
    if container.suffix in PICTURES and not is_pattern(path):
        digits = "-%05d" if container.suffix == ".png" else ".%04d"
        example = path.with_name(f"{path.stem}{digits}{path.suffix}")
        raise OutputError(f"one picture cannot hold a video: {path}", f"Name a pattern such as {example}.")
    return container


def _choose_encoder(container: Container, codec: str | None, pix_fmt: str | None) -> Encoder:
    name = container.encoders[0] if codec is None else _CODEC_NAMES.get(codec.lower(), codec.lower())
    if name == "libx264" and pix_fmt is not None and pix_fmt in _pix_fmts(ENCODERS["libx264rgb"]):
        name = "libx264rgb"
    if name not in container.encoders:
        known = ", ".join(container.encoders)
        raise OutputError(f"{container.suffix} cannot be written with codec '{codec}'", f"It takes {known}.")
    try:
        Codec(name, "w")
    except UnknownCodecError:
        raise OutputError(
            f"this installation of PyAV has no encoder '{name}'", "Install the wheel from PyPI: pip install av."
        ) from None
    return ENCODERS[name]


def _choose_pix_fmt(encoder: Encoder, pix_fmt: str | None, alpha: bool, deep: bool) -> str:
    if pix_fmt is None and deep and encoder.deep_pix_fmts is not None:
        return encoder.deep_pix_fmts[alpha]
    if pix_fmt is None:
        return encoder.alpha_pix_fmt if alpha and encoder.alpha_pix_fmt else encoder.pix_fmt
    known = _pix_fmts(encoder)
    if pix_fmt not in known:
        raise UsageError(f"codec '{encoder.name}' has no pixel format '{pix_fmt}'", f"It has {', '.join(known)}.")
    return pix_fmt


def _choose_crf(encoder: Encoder, crf: int | None) -> int | None:
    if encoder.crf is None:
        if crf is not None:
            raise UsageError(f"codec '{encoder.name}' has no constant quality (crf)", "Leave --crf out.")
        return None
    default, lowest, highest = encoder.crf
    if crf is not None and not lowest <= crf <= highest:
        raise UsageError(
            f"crf {crf} is out of range for codec '{encoder.name}'",
            f"It takes {lowest} (best) to {highest} (smallest); {default} is the default.",
        )
    return default if crf is None else crf


def _pix_fmts(encoder: Encoder) -> tuple[str, ...]:
    return encoder.only or tuple(form.name for form in Codec(encoder.name, "w").video_formats or ())


@cache
def _has_avx512() -> bool:
    """Return whether this processor has AVX-512, and with it all older extensions."""
    built: Any = np.show_config(mode="dicts")
    known = built.get("SIMD Extensions", {})
    return any(name.startswith(("AVX512", "X86_V4")) for name in (*known.get("baseline", ()), *known.get("found", ())))
