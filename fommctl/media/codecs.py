"""What this installation of PyAV and Pillow can encode and decode: codecs by name, and round trips of small clips."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from numpy.typing import NDArray
from PIL import features

from fommctl.media.containers import CONTAINERS
from fommctl.media.reader import Reader
from fommctl.media.writer import Writer

DECODERS = ("h264", "hevc", "vp9", "av1", "prores", "ffv1", "mjpeg", "mpeg4", "gif", "png")
"""Codecs of most driving videos."""
STILLS = ("webp", "jpg", "zlib", "libtiff", "avif")
"""Codecs for which Pillow needs a library of its own."""
_SIDE, _FRAMES, _RATE = 64, 3, Fraction(25)
LOSSLESS = frozenset({".mkv", ".png"})
WORST = 12.0
"""Largest mean difference, in levels, after lossy coding of the smooth test pictures; measured: below 4 (GIF)."""


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """How one kind of output is encoded, and which of its default encoders are missing."""

    encoder: str
    sound_encoder: str | None
    missing: tuple[str, ...]
    """Expected decoders and encoders that are missing."""
    others: tuple[str, ...]
    """Available video encoders to choose instead (`--codec`)."""


def versions() -> dict[str, str]:
    """Return the versions of PyAV, of the FFmpeg libraries inside it, and of Pillow."""
    import PIL

    libraries = {name: ".".join(map(str, number)) for name, number in sorted(av.library_versions.items())}
    return {"PyAV": av.__version__, "Pillow": PIL.__version__, **libraries}


def output_facts(suffix: str) -> OutputFacts:
    """Return the encoders for the kind of output with this suffix."""
    container = CONTAINERS[suffix]
    encoder, *others = container.encoders
    wanted = [name for name in (encoder, container.sound_encoder) if name is not None]
    missing = tuple(name for name in wanted if not has_codec(name, "w"))
    return OutputFacts(encoder, container.sound_encoder, missing, tuple(n for n in others if has_codec(n, "w")))


def has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    """Return whether this PyAV has a codec.  mode: `r` to decode, `w` to encode."""
    try:
        Codec(name, mode)
    except UnknownCodecError:
        return False
    return True


def missing_decoders() -> list[str]:
    """Return those of DECODERS and STILLS that are missing."""
    return [name for name in DECODERS if not has_codec(name, "r")] + [
        name for name in STILLS if name not in features.get_supported()
    ]


def round_trip(suffix: str, folder: Path) -> str:
    """Write three small pictures as this kind of output into an empty folder and read them back.

    Returns how exact they are, in words. Raises ValueError if they differ too much, and the errors of writer and
    reader.
    """
    path = folder / ("%05d.png" if suffix == ".png" else f"clip{suffix}")
    pictures = [_picture(number) for number in range(_FRAMES)]
    with Writer(path, width=_SIDE, height=_SIDE, rate=_RATE) as writer:
        for number, picture in enumerate(pictures):
            writer.write(picture, number / _RATE, 1 / _RATE)
    with Reader(path, fps=_RATE if suffix == ".png" else None) as reader:
        back = [frame.pixels for frame in reader]
    if len(back) != _FRAMES:
        raise ValueError(f"{len(back)} of {_FRAMES} pictures came back")
    error = max(float(np.abs(a.astype(float) - b).mean()) for a, b in zip(back, pictures, strict=True))
    if error > (0 if suffix in LOSSLESS else WORST):
        raise ValueError(f"the pictures came back different, by {error:.1f} levels in the mean")
    return "exact" if error == 0 else f"within {error:.1f} levels"


def _picture(number: int) -> NDArray[np.uint8]:
    """Return (64, 64, 3): a ramp that moves with `number`."""
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE]
    ramp = np.stack([rows * 3, columns * 3, (rows + columns) * 3 // 2 + number * 20], axis=-1)
    return ramp.astype(np.uint8)
