"""Reading single pictures, from image files or the first frame of a video: sRGB pixels, with alpha apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from fommctl.errors import InputError
from fommctl.media import plates, stills
from fommctl.media.colour import read_tags
from fommctl.media.conversion import Converter, FilterGraph, View, WholeFrame, has_alpha
from fommctl.media.decoding import Decoder, deinterlaced
from fommctl.media.files import check_file, opened, video_stream
from fommctl.media.limits import check_memory
from fommctl.media.plates import Plate
from fommctl.media.probe import probe
from fommctl.media.read_options import PLAIN, ReadOptions
from fommctl.media.resampling import Pixels, resize


@dataclass(frozen=True, slots=True)
class Picture:
    """A still: pixels (H, W, 3) uint8 sRGB as displayed; straight alpha (H, W) uint8, or None."""

    pixels: Pixels
    alpha: Pixels | None = None
    plate: Plate | None = None
    """The picture with the file's own numbers, if it has more than 8 bits and was read with `deep`."""

    @property
    def has_alpha(self) -> bool:
        """Whether the file has an alpha channel."""
        return self.alpha is not None or (self.plate is not None and self.plate.alpha is not None)


def read_picture(path: Path, options: ReadOptions = PLAIN, *, deep: bool = False) -> Picture:
    """Read an image file, or the first frame of a video.

    Grey, palette, 16-bit and CMYK pictures, EXIF orientation and ICC profiles all become upright 8-bit sRGB.
    deep: also return the file's own numbers, if it has more than 8 bits.  options: for files of post-production.
    Raises InputError, also for pictures over 16,384 pixels a side or 200 megapixels, before they are decoded; and the
    errors of `plates.read_plate`.
    """
    path = Path(path)
    check_file(path)
    still = stills.identify(path)
    if still is None:
        return _first_frame(path, options, deep)
    if deep:
        check_memory(path.name, still.width, still.height)
    plate = _plate(path, options) if deep else None
    return Picture(*stills.decode(path, options=options)) if plate is None else Picture(*plate.bytes(), plate)


def _plate(path: Path, options: ReadOptions) -> Plate | None:
    """Return the picture with the file's own numbers; None if they have 8 bits, or an ICC profile."""
    if plates.needs_openimageio(path):
        return plates.read_plate(path, options)
    if not plates.is_deep(path):
        return None
    if plates.is_deep_tiff(path):
        return None if _profiled(path) else plates.read_plate(path, options)
    # Decoding by PIL also checks that the file is complete, and its text chunks not too large.
    stills.decode(path)
    if stills.has_profile(path):
        return None
    with opened(path) as container:
        frame = next(iter(container.decode(video_stream(container, path))))
        tags = read_tags(frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
        return plates.from_codes(_codes(frame), options, tags)


def _profiled(path: Path) -> bool:
    try:
        return stills.has_profile(path)
    except InputError:
        # PIL cannot read this TIFF.
        return False


def _codes(frame: VideoFrame) -> NDArray[np.uint16]:
    """Convert a frame of RGB or grey to 16-bit RGB or RGBA."""
    name = "rgba64le" if has_alpha(frame) else "rgb48le"
    return np.asarray(frame.reformat(format=name).to_ndarray(), np.uint16)


def _first_frame(path: Path, options: ReadOptions, deep: bool) -> Picture:
    info = probe(path)
    with opened(path) as container:
        stream = video_stream(container, path)
        frames = deinterlaced(Decoder(container, stream).frames(), info.deinterlace, info.parity, 1 / info.rate)
        for frame, _, aspect in frames:
            size = (info.width, info.height)
            as_coded = info.orientation.size((frame.width, frame.height)) == size
            if deep and as_coded and frame.format.components[0].bits > 8:
                steps = [("scale", f"{frame.width}:{frame.height}")]
                graph = FilterGraph(frame, info.colour, steps, "rgba64le" if has_alpha(frame) else "rgb48le")
                plate = plates.from_codes(info.orientation.apply(graph.codes(frame)), options, info.colour)
                return Picture(*plate.bytes(), plate)
            if not has_alpha(frame) or info.hdr:
                return Picture(Converter(View(size), info.orientation, info.colour, info.peak)(frame, aspect))
            pixels, alpha = WholeFrame(frame, info.colour)(frame)
            coded = info.orientation.size(size)
            turned = info.orientation.apply(resize(pixels, coded))
            return Picture(turned, None if alpha is None else info.orientation.apply(resize(alpha, coded)))
    raise InputError(f"{path.name} has no frame that can be decoded", "Check that it was copied whole.")
