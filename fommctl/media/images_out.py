"""Writing numbered pictures, bit-exact, encoded by a few threads and moved into place at the end."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from fommctl.files import HeldFolder, atomic_write, keep_copy, publish, temporary_path
from fommctl.media.colour import BT709, BT2020, ColourTags
from fommctl.media.containers import Encoding
from fommctl.media.marking import OURS, Mark
from fommctl.media.movie import Frame, as_frame, laid_over_black, output_errors
from fommctl.media.output_paths import matching, numbered

_WAITING = 1 << 29
"""Most bytes of pictures in the encoders' queue."""
_BEGINNING = 4096
"""Bytes at the beginning or end of a picture that contain its comment."""
_AFTER_HEADER = 8 + 25
"""Bytes of the signature and of the IHDR chunk, which comes first (PNG, section 5.6)."""
_SRGB_TRANSFER = 13
# Measured at 1280x720 on one core: 57 pictures/s at level 1, 34 at level 3 (a tenth smaller), 12 at level 6.
_OPTIONS = {"compression_level": "1", "pred": "mixed"}


class PictureSequence:
    """Numbered pictures in a temporary folder; `publish` moves them, `abort` puts everything back.

    A target folder that does not exist yet appears with all pictures at once, because the temporary one, beside it, is
    renamed. In an existing folder, the pictures are moved one by one, and replaced ones are kept until all are moved.
    """

    audio_codec: str | None = None

    def __init__(
        self,
        pattern: Path,
        encoding: Encoding,
        metadata: Mapping[str, str],
        threads: int,
        mark: Mark | None = None,
        *,
        overwrite: bool = False,
        first_number: int = 1,
        part: bool = False,
        save: Callable[[Path, Frame, int], None] | None = None,
        colour: ColourTags | None = None,
    ) -> None:
        """Create the temporary folder.

        overwrite: replace pictures of the same numbers, and remove those of an older, longer result.  part: the
        pictures are a part of a result, so leave the others.  save: writes one picture, by its index from 0; None
        writes PNG, tagged as sRGB unless `colour` is of HDR or a wide gamut.
        """
        self._pattern = pattern
        self._encoding = encoding
        texts = {key.capitalize(): value for key, value in metadata.items()}
        if mark is not None:
            texts |= {"Comment": mark.comment, "XML:com.adobe.xmp": mark.xmp.decode()}
        self._text = b"".join(_text_chunk(key, value) for key, value in texts.items())
        folder = pattern.parent
        self._new_folder = not folder.exists()
        self._folder = (folder.parent if self._new_folder else folder) / temporary_path(folder).name
        with output_errors(pattern):
            self._folder.mkdir()
            self._parent = HeldFolder(self._folder.parent)
        self._first = first_number
        self._alone = not part
        self._colour = colour
        self._save = save or self._save_png
        self._count = 0
        self._overwrite = overwrite
        self._moved: list[Path] = []
        self._aside = self._folder / "old"
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "png")
        self._running: deque[Future[None]] = deque()

    def write(self, pixels: Frame, time: Fraction, duration: Fraction) -> None:
        """Add a picture (H, W, 3 or 4); times are ignored."""
        target = self._folder / numbered(self._pattern, self._first + self._count).name
        # Copied, because the caller may reuse its array; a queue longer than the workers need would only cost memory.
        self._running.append(self._pool.submit(self._save, target, np.array(pixels), self._count))
        self._count += 1
        with output_errors(self._pattern):
            while len(self._running) > min(2 * self._threads, _WAITING // pixels.nbytes):
                self._running.popleft().result()

    def finish(self) -> None:
        """Wait for the encoders."""
        with output_errors(self._pattern):
            while self._running:
                self._running.popleft().result()
            self._pool.shutdown()

    def publish(self, *, keep: bool = True) -> None:
        """Move the pictures into place; replaced ones are kept until `release`."""
        targets = [numbered(self._pattern, number) for number in range(self._first, self._first + self._count)]
        with output_errors(self._pattern):
            if self._new_folder and self._renamed_folder():
                self._moved += targets
                return
            if self._overwrite:
                self._aside.mkdir()
                for target in targets:
                    if target.exists():
                        keep_copy(target, self._aside / target.name)
            for target in targets:
                publish(self._folder / target.name, target, overwrite=self._overwrite)
                self._moved.append(target)

    def release(self) -> None:
        """Remove replaced pictures, and the rest of an older, longer result."""
        self._moved.clear()
        with output_errors(self._pattern):
            if self._overwrite and self._alone:
                self._remove_older()
            self._parent.remove(self._folder.name)
            self._parent.close()

    def abort(self) -> None:
        """Remove all pictures of this run, and restore those that they have replaced."""
        self._pool.shutdown(cancel_futures=True)
        for target in self._moved:
            aside = self._aside / target.name
            if aside.exists():
                os.replace(aside, target)
            else:
                target.unlink(missing_ok=True)
        self._parent.remove(self._folder.name)
        self._parent.close()
        if self._new_folder and self._moved:
            with contextlib.suppress(OSError):
                self._pattern.parent.rmdir()

    def _remove_older(self) -> None:
        """Remove other pictures of the pattern that fommctl has written."""
        for number, entry in list(matching(self._pattern)):
            if not self._first <= number < self._first + self._count and _is_ours(entry):
                entry.unlink()

    def _renamed_folder(self) -> bool:
        """Rename the temporary folder to the target; return False if another process has created that meanwhile."""
        try:
            os.rename(self._folder, self._pattern.parent)
        except OSError:
            if not self._pattern.parent.is_dir():
                raise
            return False
        return True

    def _save_png(self, target: Path, pixels: Frame, number: int) -> None:
        if pixels.shape[2] == 4 and not self._encoding.alpha:
            pixels = laid_over_black(pixels)
        data = encode_png(pixels, "gray16be" if pixels.shape[2] == 1 else self._encoding.pix_fmt, self._colour)
        with open(target, "wb") as file:
            file.write(data[:_AFTER_HEADER] + self._text + data[_AFTER_HEADER:])


def _is_ours(picture: Path) -> bool:
    """Return whether a picture has fommctl's comment at its beginning, or at its end, where TIFF has it."""
    with picture.open("rb") as file:
        if OURS.encode() in file.read(_BEGINNING):
            return True
        file.seek(max(0, file.seek(0, os.SEEK_END) - _BEGINNING))
        return OURS.encode() in file.read()


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write one picture, (H, W, 3 or 4) uint8, atomically, replacing an existing file. Raises OutputError."""
    with output_errors(path), atomic_write(path) as temporary:
        temporary.write_bytes(encode_png(pixels, "rgba" if pixels.shape[2] == 4 else "rgb24"))


def encode_png(pixels: Frame, pix_fmt: str, tags: ColourTags | None = None) -> bytes:
    """Encode (H, W, 3 or 4), uint8 or a float signal in [0, 1], as a PNG file of this pixel format.

    tags: tags of HDR or a wide gamut are written; otherwise the file is tagged as sRGB.
    """
    height, width = pixels.shape[:2]
    frame = as_frame(pixels)
    frame = frame.reformat(format=pix_fmt)
    frame.color_primaries, frame.color_trc = BT709, _SRGB_TRANSFER
    if tags is not None and (tags.hdr or tags.wide_gamut):
        frame.color_primaries, frame.color_trc = tags.primaries or BT2020, tags.transfer or BT709
    frame.pts = 0
    encoder = av.VideoCodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pix_fmt
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = _OPTIONS
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _text_chunk(key: str, value: str) -> bytes:
    """Return an iTXt chunk, uncompressed UTF-8 (PNG, section 11.3.3.4)."""
    keyword = key.encode("latin-1", "replace")[:79]
    body = b"iTXt" + keyword + b"\0\0\0\0\0" + value.encode()
    return (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
