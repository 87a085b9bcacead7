"""Pictures as the stages use them: a file's pixels as sRGB with alpha apart; cutting and resizing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fommctl.errors import InputError
from fommctl.media import stills
from fommctl.media.conversion import Converter, View, WholeFrame, has_alpha
from fommctl.media.decoding import Decoder, deinterlaced
from fommctl.media.files import check_file, opened, video_stream
from fommctl.media.probe import probe
from fommctl.media.resampling import Pixels, crop, over_black, resize

__all__ = ["Picture", "Pixels", "crop", "over_black", "read_picture", "resize"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A still: pixels (H, W, 3) uint8 sRGB as displayed; alpha (H, W) uint8, straight, None where there is none."""

    pixels: Pixels
    alpha: Pixels | None = None


def read_picture(path: Path) -> Picture:
    """Read an image file, or the first frame of a video.

    Grey, palette, 16-bit and CMYK pictures, EXIF orientation and ICC profiles all become upright 8-bit sRGB.
    Raises InputError, also for pictures over 16,384 pixels a side or 200 megapixels, before they are decoded.
    """
    path = Path(path)
    check_file(path)
    if stills.identify(path) is not None:
        return Picture(*stills.decode(path))
    return _first_frame(path)


def _first_frame(path: Path) -> Picture:
    info = probe(path)
    with opened(path) as container:
        stream = video_stream(container, path)
        frames = deinterlaced(Decoder(container, stream).frames(), info.deinterlace, info.parity, 1 / info.rate)
        for frame, _, aspect in frames:
            size = (info.width, info.height)
            if not has_alpha(frame) or info.hdr:
                return Picture(Converter(View(size), info.orientation, info.colour, info.peak)(frame, aspect))
            pixels, alpha = WholeFrame(frame, info.colour)(frame)
            coded = info.orientation.size(size)
            turned = info.orientation.apply(resize(pixels, coded))
            return Picture(turned, None if alpha is None else info.orientation.apply(resize(alpha, coded)))
    raise InputError(f"{path.name} has no frame that can be decoded", "Check that it was copied whole.")
