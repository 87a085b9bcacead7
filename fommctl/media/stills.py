"""Image files through PIL: what they are, and their pixels as sRGB with alpha apart."""

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
"""Seconds for which one frame, or a gap in the sound, may be filled with repetitions or silence: longer ones are
timestamps that are wrong, and filling them would write without end."""


HEIF = "HEIF"
"""Pillow's name of the format."""
_STILL_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"mif3"})
"""Brands of ISO/IEC 23008-12 files that hold one picture. Sequences (`hevc`, `msf1`) are films."""
_OTHERS = frozenset({b"avif", b"avis"})
"""Brands of pictures that Pillow reads itself."""
_LONGEST_BOX = 1024


def is_heif(path: Path) -> bool:
    """Tell whether the file calls itself a still of this kind."""
    with path.open("rb") as file:
        head = file.read(_LONGEST_BOX)
    if head[4:8] != b"ftyp" or head[8:12] not in _STILL_BRANDS:
        return False
    length = min(int.from_bytes(head[:4], "big"), len(head))
    return _OTHERS.isdisjoint(head[at : at + 4] for at in range(16, length - 3, 4))


@cache
def _register_heif() -> None:
    """Let Pillow open HEIF, without the thumbnails and depth maps beside the picture."""
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


def tags_of(image: Image.Image) -> ColourTags | None:
    """Return what an opened file says about its colours where no ICC profile says it."""
    stated = image.info.get("nclx_profile")
    if image.info.get("icc_profile") or not stated:
        return None
    codes = (stated[name] for name in ("color_primaries", "transfer_characteristics", "matrix_coefficients"))
    primaries, transfer, matrix = map(int, codes)
    return read_tags(primaries, transfer, matrix, 0)


def tone_mapped(path: Path, tags: ColourTags) -> NDArray[np.uint8]:
    """Return (H, W, 3) sRGB of a still in PQ, HLG or a wide gamut."""
    from pillow_heif import open_heif

    heif = open_heif(path, convert_hdr_to_8bit=False)
    codes = np.asarray(heif)[..., :3]
    deep = codes if codes.dtype == np.uint16 else codes.astype(np.uint16) * 257
    return ToneMap(tags)(np.ascontiguousarray(deep))


ANIMATED_CODECS = frozenset({"webp", "avif"})
"""Animations that PIL reads; GIF and animated PNG go through PyAV."""

# PIL refuses at twice its limit, which lies below ours, and warns before; `check_size` refuses right after opening.
Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, MAX_PIXELS)
# What it warns of on stderr is either refused or harmless.
warnings.filterwarnings("ignore", module=r"PIL\.")

_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_FOREIGN = {
    "a JPEG XL picture": (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n"),
    "a Radiance HDR picture": (b"#?RADIANCE", b"#?RGBE"),
    "a Photoshop document": (b"8BPS",),
    "a PDF document": (b"%PDF",),
    "a GIMP document": (b"gimp xcf",),
}
"""First bytes of files that look like pictures to their users."""
_RAW_SUFFIXES = frozenset([".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"])
_PNG = b"\x89PNG\r\n\x1a\n"
_LEAST_DELAY = 100
"""Milliseconds: as browsers do, a delay of nothing is read as a tenth of a second."""
_WEBP_FRAME_HEAD = 28
"""Bytes: header of the chunk, place, size, delay and flags of the frame, name of the chunk with its pixels."""
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
    """Open the image without decoding it; data: its bytes where they lie in something else. Raises InputError for
    whatever goes wrong while it is open."""
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
    # A Targa file has no mark of its own: any bytes may pass for one.
    tga = ("TGA",) if path.suffix.lower() == ".tga" else ()
    return [name for name in (*_FORMATS, *tga) if name in Image.OPEN]


class _DamagedError(InputError):
    """PIL cannot read it; something else perhaps can."""


def identify(path: Path, *, strip: bool = False) -> Still | None:
    """Read the header of an image file; None where it is not one (a video, text, ...). Raises InputError if too large.

    width, height: as displayed, after the EXIF orientation.  strip: see `check_size`. Raises MissingError for files of
    post-production without OpenImageIO.
    """
    if plates.needs_openimageio(path):
        return _plate(path)
    try:
        with _opened(path, strip=strip) as image:
            width, height = image.size
            # PIL turns TIFF itself, and would decode a whole PNG to look for a chunk behind the pixels.
            asks_exif = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
            if asks_exif and image.getexif().get(_EXIF_ORIENTATION) in _QUARTER_TURNS:
                width, height = height, width
            animated = bool(getattr(image, "is_animated", False)) and image.format not in ("TIFF", "MPO", HEIF)
            animated = animated or is_broken_webp(path)
            return Still(image.format or "", image.mode, width, height, image.has_transparency_data, animated)
    except _DamagedError:
        if _is_png(path) or is_heif(path):
            # Others that read PNG unpack whatever its chunks of text and colours hold, gigabytes from some kilobytes;
            # video readers take one tile of a HEIF for all of it.
            raise
        return _plate(path) if plates.is_deep_tiff(path) else None


def _plate(path: Path) -> Still:
    """Return the header of a file that OpenImageIO reads."""
    header = plates.read_header(path)
    mode = "RGBA" if header.has_alpha else "RGB"
    return Still(header.format.upper(), mode, header.width, header.height, header.has_alpha, False)


def check_format(path: Path) -> None:
    """Refuse pictures of kinds that neither PIL nor FFmpeg reads well, by name. Raises InputError."""
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
    """Return comments and XMP before the pixels of an image file, by PIL's names in small letters. Raises
    InputError."""
    with _opened(path) as image:
        return {str(name).lower(): text for name, text in image.info.items() if isinstance(text, str | bytes)}


def decode(path: Path, *, strip: bool = False, options: ReadOptions = PLAIN) -> tuple[Pixels, Pixels | None]:
    """Return (H, W, 3) uint8 sRGB and straight alpha (H, W), None where the file has none. Raises InputError.

    strip: see `check_size`.  options: of files of post-production; a space or a view counts for all. Raises what
    `plates.read_plate` does.
    """
    if plates.needs_openimageio(path):
        return plates.read_plate(path, options).bytes()
    try:
        pixels, alpha = _decode(path, strip)
    except _DamagedError:
        if not plates.is_deep_tiff(path):
            raise
        return plates.read_plate(path, options).bytes()
    if options.space is not None or options.view is not None:
        return plates.from_codes(pixels if alpha is None else np.dstack((pixels, alpha)), options).bytes()
    return pixels, alpha


def _decode(path: Path, strip: bool) -> tuple[Pixels, Pixels | None]:
    with _opened(path, strip=strip) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        tags = tags_of(image) if image.format == HEIF else None
        if tags is not None and (tags.hdr or tags.wide_gamut):
            return tone_mapped(path, tags), None
        return _to_srgb(image)


def has_profile(path: Path) -> bool:
    """Tell whether an ICC profile says that the colours are no sRGB. Raises InputError."""
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
    """Return (H, W, 3) uint8 sRGB of an image file in memory, alpha left out. Raises InputError that calls it
    `name`."""
    with _opened(Path(name), data=data) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _to_srgb(image)[0]


def delays(path: Path) -> list[int]:
    """Return milliseconds that each frame of an animated image stays. Raises InputError.

    Those of WebP stand in the headers of its frames: nothing is decoded.
    """
    found = _webp_delays(path)
    with _opened(path) as image:
        if len(found) == getattr(image, "n_frames", 1):
            return [delay or _LEAST_DELAY for delay in found]
    return [delay for _, _, delay in animation(path)]


def _webp_delays(path: Path) -> list[int]:
    """Return the delays in the headers of the frames (WebP Container Specification, "ANMF"); none in other files."""
    return [delay for delay, _ in _webp_chunks(path) if delay is not None]


def _webp_chunks(path: Path) -> list[tuple[int | None, int]]:
    """Return the delay, None where it is no frame, and the end of each chunk of a WebP file up to the first that is
    damaged or cut."""
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
    """Tell whether a file is a WebP animation whose chunks do not reach the end that its header states."""
    with path.open("rb") as file:
        head = file.read(21)
    if len(head) < 21 or head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X" or not head[20] & _WEBP_ANIMATED:
        return False
    stated = int.from_bytes(head[4:8], "little") + 8
    # What is shorter than the header of a chunk is none.
    return max((end for _, end in _webp_chunks(path)), default=0) + 8 <= stated


def _mended_webp(path: Path) -> bytes | None:
    """Return a broken animation with its whole frames only, which Pillow reads; None where it has none."""
    ends = [end for delay, end in _webp_chunks(path) if delay is not None]
    if not ends:
        return None
    with path.open("rb") as file:
        whole = file.read(ends[-1])
    return b"RIFF" + (len(whole) - 8).to_bytes(4, "little") + whole[8:]


def animation(path: Path, warn: Callable[[str], None] | None = None) -> Iterator[tuple[Pixels, Pixels | None, int]]:
    """Yield frames of an animated image: pixels, alpha and the time it stays, in milliseconds.

    It ends before the first frame that is damaged, since later ones are drawn over it; `warn` is called with the
    reason. Raises InputError where no frame can be read.
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
    """Return a picture in 8 bits of sRGB, and its alpha.

    image: upright; it is copied as seldom as can be, for it may fill a gigabyte.
    """
    profile = image.info.get("icc_profile")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA") if image.mode not in ("LA", "RGBA") else image
        alpha = np.array(image.getchannel("A"))
    return np.array(_colours(_eight_bits(image), profile)), alpha


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and floating-point greys to 8 bits; everything else as it is."""
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
    """Return RGB by the embedded profile; a profile that is broken or is of another kind of colour is left out."""
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
