"""Image files through PIL: their headers, and their pixels as sRGB with alpha apart."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from fommctl.errors import InputError, first_line
from fommctl.media import plates
from fommctl.media.colour import ColourTags, ToneMap, read_tags
from fommctl.media.limits import MAX_PIXELS, SMALLER, check_size
from fommctl.media.read_options import PLAIN, ReadOptions
from fommctl.media.resampling import Pixels

LONGEST_PAUSE = Fraction(3600)
"""Longest duration of a frame, or of a gap in the sound, in seconds: longer ones are wrong timestamps, and filling them
with repetitions or silence would never end."""


HEIF = "HEIF"
"""Pillow's name of the format."""
_STILL_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"mif3"})
"""Brands of ISO/IEC 23008-12 files with one picture. Sequences (`hevc`, `msf1`) are read as videos."""
_OTHERS = frozenset({b"avif", b"avis"})
"""Brands of pictures that Pillow reads itself."""
_LONGEST_BOX = 1024


def is_heif(path: Path) -> bool:
    """Return whether the file is a HEIF still, by its brand."""
    with path.open("rb") as file:
        head = file.read(_LONGEST_BOX)
    if head[4:8] != b"ftyp" or head[8:12] not in _STILL_BRANDS:
        return False
    length = min(int.from_bytes(head[:4], "big"), len(head))
    return _OTHERS.isdisjoint(head[at : at + 4] for at in range(16, length - 3, 4))


@cache
def _register_heif() -> None:
    """Register HEIF with Pillow, without thumbnails and depth maps."""
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


def tags_of(image: Image.Image) -> ColourTags | None:
    """Return the colour tags of an opened file; None if it has none, or an ICC profile."""
    stated = image.info.get("nclx_profile")
    if image.info.get("icc_profile") or not stated:
        return None
    codes = (stated[name] for name in ("color_primaries", "transfer_characteristics", "matrix_coefficients"))
    primaries, transfer, matrix = map(int, codes)
    return read_tags(primaries, transfer, matrix, 0)


def tone_mapped(path: Path, tags: ColourTags) -> NDArray[np.uint8]:
    """Decode a HEIF still in PQ, HLG or a wide gamut to (H, W, 3) sRGB."""
    from pillow_heif import open_heif

    heif = open_heif(path, convert_hdr_to_8bit=False)
    codes = np.asarray(heif)[..., :3]
    deep = codes if codes.dtype == np.uint16 else codes.astype(np.uint16) * 257
    return ToneMap(tags)(np.ascontiguousarray(deep))


ANIMATED_CODECS = frozenset({"webp", "avif"})
"""Animations that PIL reads; GIF and animated PNG go through PyAV."""

# PIL's own limit is below ours; `check_size` refuses larger pictures right after opening.
Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, MAX_PIXELS)
# Everything that PIL warns about on stderr is either refused here or harmless.
warnings.filterwarnings("ignore", module=r"PIL\.")

_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_FOREIGN = {
    "a JPEG XL picture": (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n"),
    "a Radiance HDR picture": (b"#?RADIANCE", b"#?RGBE"),
    "a Photoshop document": (b"8BPS",),
    "a PDF document": (b"%PDF",),
    "a GIMP document": (b"gimp xcf",),
}
"""First bytes of picture files that are not supported, to name them in the error."""
_RAW_SUFFIXES = frozenset([".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"])
_PNG = b"\x89PNG\r\n\x1a\n"
_LEAST_DELAY = 100
"""Milliseconds that replace a delay of 0, as in browsers."""
_WEBP_FRAME_HEAD = 28
"""Bytes of a frame's header: chunk header, place, size, delay and flags, and the name of the chunk with its pixels."""
_WEBP_PICTURES = (b"VP8 ", b"VP8L", b"ALPH")
_WEBP_ANIMATED = 0x02
"""Flag in the first byte of the chunk VP8X."""
_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = {5, 6, 7, 8}


@dataclass(frozen=True, slots=True)
class Still:
    """The header of an image file."""

    format: str
    mode: str
    width: int
    height: int
    has_alpha: bool
    animated: bool


@contextmanager
def _opened(path: Path, *, strip: bool = False, data: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image without decoding it.  data: its bytes, if they are not in a file.

    Converts any error while it is open to InputError.
    """
    try:
        Image.init()
        if data is None and is_broken_webp(path):
            data = _mended_webp(path)
        source = path if data is None else BytesIO(data)
        with Image.open(source, formats=_formats(path, data)) as image:
            check_size(path.name, *image.size, strip=strip)
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{path.name} is too large", SMALLER) from error
    except MemoryError as error:
        raise InputError(f"not enough memory for {path.name}", SMALLER) from error
    except Exception as error:  # PIL's readers of broken files let any error of their own escape.
        raise _DamagedError(
            f"{path.name} is damaged: {first_line(error)}", "Save it again in an image editor."
        ) from error


def _formats(path: Path, data: bytes | None) -> list[str]:
    if data is None and is_heif(path):
        _register_heif()
        return [HEIF]
    # Targa has no signature, so any bytes could pass for it: accept it by suffix only.
    tga = ("TGA",) if path.suffix.lower() == ".tga" else ()
    return [name for name in (*_FORMATS, *tga) if name in Image.OPEN]


class _DamagedError(InputError):
    """PIL cannot read the file; another reader may."""


def identify(path: Path, *, strip: bool = False) -> Still | None:
    """Read the header of an image file; None if it is something else (a video, text, ...).

    Width and height are as displayed, after the EXIF orientation.  strip: see `check_size`. Raises InputError for a
    picture that is too large, and MissingError for files of post-production without OpenImageIO.
    """
    if plates.needs_openimageio(path):
        return _plate(path)
    try:
        with _opened(path, strip=strip) as image:
            width, height = image.size
            # PIL itself applies the orientation of TIFF, and would decode a whole PNG to find EXIF after the pixels.
            asks_exif = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
            if asks_exif and image.getexif().get(_EXIF_ORIENTATION) in _QUARTER_TURNS:
                width, height = height, width
            animated = bool(getattr(image, "is_animated", False)) and image.format not in ("TIFF", "MPO", HEIF)
            animated = animated or (image.format == "WEBP" and is_broken_webp(path))
            return Still(image.format or "", image.mode, width, height, image.has_transparency_data, animated)
    except _DamagedError:
        if _is_png(path) or is_heif(path):
            # No other reader: those of PNG unpack any text and colour chunks, gigabytes from some kilobytes, and video
            # readers take one tile of a HEIF for all of it.
            raise
        return _plate(path) if plates.is_deep_tiff(path) else None


def _plate(path: Path) -> Still:
    """Read the header of a file by OpenImageIO."""
    header = plates.read_header(path)
    mode = "RGBA" if header.has_alpha else "RGB"
    return Still(header.format.upper(), mode, header.width, header.height, header.has_alpha, False)


def check_format(path: Path) -> None:
    """Raise InputError, which names the format, for pictures that neither PIL nor FFmpeg reads well."""
    with path.open("rb") as file:
        start = file.read(16)
    kind = next((kind for kind, marks in _FOREIGN.items() if start.startswith(marks)), None)
    if kind is None and path.suffix.lower() in _RAW_SUFFIXES:
        kind = "a camera raw file"
    if kind is not None:
        raise InputError(f"{path.name} is {kind}, which cannot be read", "Convert it to PNG or TIFF first.")


def _is_png(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_PNG)) == _PNG


def texts(path: Path) -> dict[str, str | bytes]:
    """Return comments and XMP before the pixels of an image file, by PIL's names in lower case. Raises InputError."""
    with _opened(path) as image:
        return {str(name).lower(): text for name, text in image.info.items() if isinstance(text, str | bytes)}


def decode(path: Path, *, strip: bool = False, options: ReadOptions = PLAIN) -> tuple[Pixels, Pixels | None]:
    """Decode an image file to (H, W, 3) uint8 sRGB and straight alpha (H, W), None if it has none.

    strip: see `check_size`.  options: for files of post-production; space and view apply to all files. Raises
    InputError, and the errors of `plates.read_plate`.
    """
    if plates.needs_openimageio(path):
        return plates.read_plate(path, options).bytes()
    try:
        with _opened(path, strip=strip) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            tags = tags_of(image) if image.format == HEIF else None
            if tags is not None and (tags.hdr or tags.wide_gamut):
                pixels, alpha = tone_mapped(path, tags), None
            else:
                pixels, alpha = _to_srgb(image)
    except _DamagedError:
        if not plates.is_deep_tiff(path):
            raise
        return plates.read_plate(path, options).bytes()
    if options.space is not None or options.view is not None:
        return plates.from_codes(pixels if alpha is None else np.dstack((pixels, alpha)), options).bytes()
    return pixels, alpha


def has_profile(path: Path) -> bool:
    """Return whether the file has an ICC profile other than sRGB. Raises InputError."""
    with _opened(path) as image:
        profile = image.info.get("icc_profile")
        if not profile:
            return False
        try:
            found = ImageCms.ImageCmsProfile(BytesIO(profile))
            return "srgb" not in ImageCms.getProfileDescription(found).lower()
        except (ImageCms.PyCMSError, OSError, ValueError):
            return False


def decode_bytes(data: bytes, name: str) -> Pixels:
    """Decode an image file in memory to (H, W, 3) uint8 sRGB, without alpha.  name: for errors.  Raises InputError."""
    with _opened(Path(name), data=data) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _to_srgb(image)[0]


def delays(path: Path) -> list[int]:
    """Return the duration of each frame of an animated image, in milliseconds. Raises InputError.

    WebP has them in the headers of its frames, so that nothing is decoded.
    """
    found = _webp_delays(path)
    with _opened(path) as image:
        if len(found) == getattr(image, "n_frames", 1):
            return [delay or _LEAST_DELAY for delay in found]
    return [delay for _, _, delay in animation(path)]


def _webp_delays(path: Path) -> list[int]:
    """Return the durations in the headers of WebP frames (WebP Container Specification, "ANMF"); none for other
    files."""
    return [delay for delay, _ in _webp_chunks(path) if delay is not None]


def _webp_chunks(path: Path) -> list[tuple[int | None, int]]:
    """Return duration (None for chunks that are not frames) and end of each chunk of a WebP file, up to the first that
    is damaged or truncated."""
    found: list[tuple[int | None, int]] = []
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(12)
        end = 12 if head[:4] == b"RIFF" and head[8:] == b"WEBP" else size
        while end + 8 <= size:
            file.seek(end)
            head = file.read(_WEBP_FRAME_HEAD)
            name, length = head[:4], int.from_bytes(head[4:8], "little")
            end += 8 + length + length % 2
            is_frame = name == b"ANMF"
            if end > size or not name.isalnum() or (is_frame and head[24:28] not in _WEBP_PICTURES):
                break
            found.append((int.from_bytes(head[20:23], "little") if is_frame else None, end))
    return found


def is_broken_webp(path: Path) -> bool:
    """Return whether a file is a WebP animation whose chunks end before the size that its header states."""
    with path.open("rb") as file:
        head = file.read(21)
    if len(head) < 21 or head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X" or not head[20] & _WEBP_ANIMATED:
        return False
    stated = int.from_bytes(head[4:8], "little") + 8
    # A rest shorter than a chunk's header is not a chunk.
    return max((end for _, end in _webp_chunks(path)), default=0) + 8 <= stated


def _mended_webp(path: Path) -> bytes | None:
    """Return a broken animation reduced to its complete frames, which Pillow can read; None if it has none."""
    ends = [end for delay, end in _webp_chunks(path) if delay is not None]
    if not ends:
        return None
    with path.open("rb") as file:
        whole = file.read(ends[-1])
    return b"RIFF" + (len(whole) - 8).to_bytes(4, "little") + whole[8:]


def animation(path: Path, warn: Callable[[str], None] | None = None) -> Iterator[tuple[Pixels, Pixels | None, int]]:
    """Yield the frames of an animated image: pixels, alpha and duration in milliseconds.

    Ends before the first damaged frame, because later ones are drawn over it, and calls `warn` with the reason. Raises
    InputError if no frame can be read.
    """
    done = 0
    try:
        with _opened(path) as image:
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()
                pixels, alpha = _to_srgb(ImageOps.exif_transpose(image))
                milliseconds = int(image.info.get("duration") or _LEAST_DELAY)
                yield pixels, alpha, milliseconds
                done += milliseconds
    except _DamagedError as error:
        if not done:
            raise
        if warn is not None:
            warn(f"{error.message}; it ends at {done / 1000:.2f} s")


def _to_srgb(image: Image.Image) -> tuple[Pixels, Pixels | None]:
    """Convert an upright picture to 8-bit sRGB, and its alpha; avoids copies, since it may take a gigabyte."""
    profile = image.info.get("icc_profile")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA") if image.mode not in ("LA", "RGBA") else image
        alpha = np.array(image.getchannel("A"))
    return np.array(_colours(_eight_bits(image), profile)), alpha


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point greys to 8 bits; return anything else unchanged."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(_scaled(np.array(image), 65535))
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.array(image, dtype=np.float64))
        tops = (1, 255, 65535) if image.mode == "F" else (65535, 2**31 - 1)
        return Image.fromarray(_scaled(values, next((top for top in tops if values.max() <= top), values.max())))
    return image


def _scaled(values: NDArray[np.generic], top: float) -> Pixels:
    return np.rint(np.clip(values.astype(np.float64) / top, 0, 1) * 255).astype(np.uint8)


def _colours(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to RGB by the embedded profile; a profile that is broken or for another colour model is ignored."""
    if image.mode in ("RGBA", "LA", "P", "PA", "1", "RGBX"):
        image = image.convert("L" if image.mode in ("LA", "1") else "RGB")
    if profile and image.mode in ("RGB", "L", "CMYK", "LAB"):
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if image.mode != "RGB" or "srgb" not in ImageCms.getProfileDescription(source).lower():
                converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
                return converted or image
        except (ImageCms.PyCMSError, OSError, ValueError):
            return image.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
