"""Writing results: one class for all kinds of output, and checks before any work is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from fommctl.errors import OutputError
from fommctl.files import HeldFolder, create_temporary, real_target
from fommctl.media.colour import ColourTags
from fommctl.media.colourspaces import import_openimageio
from fommctl.media.containers import container_of, resolve_encoding
from fommctl.media.images_out import PictureSequence
from fommctl.media.marking import Mark
from fommctl.media.movie import Frame, Movie, PictureFormat, choose_time_base, output_errors
from fommctl.media.output_paths import check_target, is_pattern, remove_stale_output
from fommctl.media.plates_out import PlateFormat, PlateWriter
from fommctl.media.sound import AudioSource
from fommctl.signals import held_back

_FASTEST_GIF = 50


class _Sink(Protocol):
    """An output that is being written."""

    audio_codec: str | None

    def write(self, pixels: Frame, time: Fraction, duration: Fraction) -> None: ...

    def finish(self) -> None:
        """Complete the output under its temporary name."""

    def publish(self, *, keep: bool) -> None:
        """Rename the output to its final name.  keep: `abort` can still undo it."""

    def release(self) -> None:
        """Remove what `abort` would need."""

    def abort(self) -> None:
        """Remove the output, and restore what it has replaced."""


def check_output(
    path: Path,
    overwrite: bool,
    inputs: Sequence[Path] = (),
    *,
    codec: str | None = None,
    crf: int | None = None,
    pix_fmt: str | None = None,
    numbers: Container[object] | None = None,
) -> None:
    """Check, before any work is done, that an output can be written.

    Raises UsageError if the output exists and `overwrite` is false, if it is one of `inputs` (also through a link) or
    would put frames into a folder of input frames, and for a wrong `crf` or `pix_fmt`; OutputError if the folder is
    missing or not writable, and for an unknown container or codec; MissingError without the package for it.

    numbers: numbers of the pictures to write, if others of the pattern may exist; None: all.
    """
    encoding = resolve_encoding(path, codec=codec, crf=crf, pix_fmt=pix_fmt)
    if encoding.openimageio:
        import_openimageio(f"writing {path.suffix.lower()}")
    check_target(path, overwrite, inputs, numbers)


def holds_alpha(path: Path, *, codec: str | None = None, pix_fmt: str | None = None) -> bool:
    """Return whether an output of this name, written with `alpha=True`, keeps alpha; otherwise frames are composited
    over black."""
    return resolve_encoding(path, codec=codec, pix_fmt=pix_fmt, alpha=True).alpha


def holds_more(path: Path, *, codec: str | None = None, pix_fmt: str | None = None) -> bool:
    """Return whether an output of this name can hold more than 8 bits per channel."""
    return resolve_encoding(path, codec=codec, pix_fmt=pix_fmt, deep=True).bits > 8


def holds_audio(path: Path) -> bool:
    """Return whether an output of this name can carry sound."""
    return container_of(path).sound_encoder is not None


class Writer:
    """Writes frames, and sound beside them, to .mp4, .mov, .mkv, .webm, .mxf, .gif or a pattern of pictures.

    A context manager: after a normal exit the result is complete under its name, after an exception nothing is left.

    width, height: size of the frames in pixels.  rate: nominal frames per second.
    alpha: keep the fourth channel if the codec can; otherwise frames are composited over black.
    deep: frames are floats, of which more than 8 bits are kept if the codec can.
    plates: format of OpenEXR, DPX and TIFF.
    audio: sound, one source per track, copied if the container supports its codec, else transcoded.
    colour: tags of the driving video; missing ones follow from the size.
    codec, crf, pix_fmt: ffmpeg's names and values; None: the container's default.
    metadata: such as {"comment": ...}.  mark: the mark of synthetic media, written if the container has a place for it.
    timecode, reel: values of the first frame, for .mov and .mxf.
    time_base: unit of the timestamps, in seconds; without it, multiples of 1/rate and of the usual clocks
    (1/90000, 1/1000, 1/600, 1/15360, 1/12800) are exact. Times are rounded to milliseconds in Matroska and WebM, and
    to hundredths of a second in GIF.
    threads: threads of the encoder; None leaves most of the processor to the model.
    first_number: number of the first picture of a pattern.  part: leave other pictures of the pattern alone; otherwise
    those of an older result are removed.
    complete: called with the finished file (not with pictures) before it is renamed; may change the file.
    Raises the OutputError and UsageError of `check_output`, and OutputError if the disk is full.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        width: int,
        height: int,
        rate: Fraction,
        alpha: bool = False,
        deep: bool = False,
        plates: PlateFormat | None = None,
        audio: AudioSource | Sequence[AudioSource] | None = None,
        colour: ColourTags | None = None,
        codec: str | None = None,
        crf: int | None = None,
        pix_fmt: str | None = None,
        metadata: Mapping[str, str] | None = None,
        mark: Mark | None = None,
        timecode: str | None = None,
        reel: str | None = None,
        overwrite: bool = False,
        time_base: Fraction | None = None,
        threads: int | None = None,
        first_number: int = 1,
        part: bool = False,
        complete: Callable[[Path], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.frames_written = 0
        self._encoding = resolve_encoding(self.path, codec=codec, crf=crf, pix_fmt=pix_fmt, alpha=alpha, deep=deep)
        self._audio = (audio,) if isinstance(audio, AudioSource) else tuple(audio or ())
        check_target(self.path, overwrite, [source.path for source in self._audio], () if part else None)
        self._first_number, self._part = first_number, part
        self._plates = plates or PlateFormat()
        self._deep = deep
        unit = choose_time_base(self._encoding, rate, time_base)
        self._picture = PictureFormat(width, height, rate, unit)
        self._colour = colour
        self._metadata = dict(metadata or {})
        self._mark = mark
        self._timecode, self._reel = timecode, reel
        self.threads = threads or max(1, min(4, (os.cpu_count() or 1) // 4))
        """Number of encoder threads."""
        self._complete = complete
        self._target = real_target(self.path)
        self._overwrite = overwrite
        self._temporary: Path | None = None
        self._folder: HeldFolder | None = None
        self._sink: _Sink | None = None
        self.warnings: list[str] = []
        if self._encoding.container.muxer == "gif" and rate > _FASTEST_GIF:
            self.warnings.append(f"GIF players slow down above {_FASTEST_GIF} frames/s; this one has {float(rate):g}")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the written frames in pixels: rounded up to even sizes for codecs that need them."""
        return self._encoding.coded_size(self._picture.width, self._picture.height)

    @property
    def audio_codec(self) -> str | None:
        """Codec of the written sound; None without sound, and before the writer is entered."""
        return self._sink.audio_codec if self._sink else None

    def __enter__(self) -> Self:
        try:
            # A signal while the files are created would leave some behind, since `abort` does not know them yet.
            with held_back():
                self._open()
        except BaseException:
            self.abort()
            raise
        return self

    def _open(self) -> None:
        remove_stale_output(self._target)
        if is_pattern(self.path):
            plates = None
            if self._encoding.openimageio:
                comment = None if self._mark is None else self._mark.comment
                plates = PlateWriter(self._encoding.pix_fmt, self._plates, comment)
            self._sink = PictureSequence(
                self.path,
                self._encoding,
                self._metadata,
                self.threads,
                self._mark,
                overwrite=self._overwrite,
                first_number=self._first_number,
                part=self._part,
                save=plates,
                colour=self._colour,
            )
            return
        with output_errors(self.path):
            self._temporary = create_temporary(self._target)
            self._folder = HeldFolder(self._target.parent)
        self._sink = Movie(
            self.path,
            self._temporary,
            self._target,
            self._encoding,
            self._picture,
            folder=self._folder,
            colour=self._colour,
            audio=self._audio,
            metadata=self._metadata,
            mark=self._mark,
            timecode=self._timecode,
            reel=self._reel,
            threads=self.threads,
            overwrite=self._overwrite,
            warnings=self.warnings,
        )

    def write(self, pixels: Frame, time: Fraction, duration: Fraction) -> None:
        """Add a frame, shown from `time` for `duration`, in seconds from the start of the output.

        pixels: (height, width, 3 or 4), uint8 sRGB or float32 in the result's space; pictures may have other channels.
        Raises OutputError.
        """
        if self._sink is None:
            raise ValueError("the writer is not open: use it in a `with` statement")
        size = (self._picture.height, self._picture.width)
        kinds = (np.uint8, np.float32) if self._deep or self._encoding.openimageio else (np.uint8,)
        known = pixels.dtype in kinds and pixels.ndim == 3 and pixels.shape[:2] == size
        if not known or (pixels.shape[2] not in (3, 4) and not is_pattern(self.path)):
            names = " or ".join(kind.__name__ for kind in kinds)
            what = f"{names} of {size} pixels with 3 or 4 channels"
            raise ValueError(f"frames are {what}, not {pixels.dtype} {pixels.shape}")
        self._sink.write(pixels, time, duration)
        self.frames_written += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort()
            return
        try:
            self.finish()
            self.publish()
        except BaseException:
            self.abort()
            raise
        self.release()

    # The steps of a normal exit, for several writers whose results belong together.

    def finish(self) -> None:
        """Complete the result under its temporary name. Raises OutputError."""
        assert self._sink is not None
        if self.frames_written == 0:
            raise OutputError(f"there is no frame to write to {self.path}", "Check --start, --end and the input.")
        self._sink.finish()
        if self._temporary is not None and self._complete is not None:
            self._complete(self._temporary)

    def publish(self, *, keep: bool = False) -> None:
        """Rename the result to its final name. Raises OutputError.  keep: `abort` can undo it until `release`."""
        assert self._sink is not None
        self._sink.publish(keep=keep)

    def release(self) -> None:
        """Remove what the result has replaced."""
        assert self._sink is not None
        self._sink.release()
        self._close_folder()

    def abort(self) -> None:
        """Remove the result, and restore what it has replaced."""
        if self._sink is not None:
            self._sink.abort()
        elif self._temporary is not None and self._folder is not None:
            self._folder.remove(self._temporary.name)
        self._close_folder()

    def _close_folder(self) -> None:
        if self._folder is not None:
            self._folder.close()
