"""The options of `animate`: one frozen configuration, checked as a whole before any work is done."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field

from fommctl.detection.choice import LARGEST, check_face
from fommctl.errors import UsageError
from fommctl.media import Deinterlace
from fommctl.media.boxes import Box
from fommctl.media.read_options import Compression, ExrType, OnGap, OnNan, ReadOptions
from fommctl.media.times import Timecode, parse_moment, parse_rate
from fommctl.options import BackendOptions, Device, Precision, Reads, Seed, Sets, as_json, configuration, option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fommctl.media.probe import VideoInfo

MotionMode = str
"""One of `BackendSpec.motions`."""
AudioMode = Literal["auto", "driving", "none"]
MissingMode = Literal["hold", "skip", "fail"]
SEARCHED = ("auto", "fixed", "follow")
"""Values of --driving-crop for which subjects are detected: decided by the clip, one square per shot, or following."""
MOTION, CROP, OUTPUT, MODEL, PROVENANCE = "Motion", "Framing", "Result", "Model", "Provenance"
POST = "Post-production"
"""Panels of --help."""
LARGEST_CROP = 32_768
"""Pixels of a side."""


@configuration
class ModelChoice:
    """The arguments of `fommctl.load`; jobs with equal choices share a loaded model."""

    model: Annotated[
        str | None,
        option(MODEL, "A name (see 'fommctl models list') or a file. Default: the built-in model.", "-m", "--model"),
    ] = None
    preset: Annotated[
        str | None,
        option(
            MODEL, "A name (see 'fommctl presets list') or a YAML file. Default: the model's own.", "-p", "--preset"
        ),
    ] = None
    device: Device = "auto"
    precision: Precision = "auto"
    seed: Seed = 0
    sets: Sets = ()


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Driving frames by number, first and last included. Numbers count from 1 at --start; frames of a pattern have the
    numbers in their files' names."""

    first: int | None = None
    last: int | None = None

    def __contains__(self, number: object) -> bool:
        assert isinstance(number, int)
        return (self.first is None or number >= self.first) and not self.ends_before(number)

    def ends_before(self, number: int) -> bool:
        """Return whether this frame and all later ones are beyond the range."""
        return self.last is not None and number > self.last

    def check_begun(self, last: int) -> None:
        """Raise UsageError if the range begins after the last frame."""
        if self.first is not None and self.first > last:
            raise UsageError(f"--frames {self} is beyond the end", f"The last driving frame is number {last}.")

    def __str__(self) -> str:
        return f"{'' if self.first is None else self.first}-{'' if self.last is None else self.last}"


def parse_frames(text: str | None) -> FrameRange:
    """Parse `101-200`, `101-`, `-200` or `101`; None gives all frames. Raises UsageError for anything else."""
    if text is None:
        return FrameRange()
    match = re.fullmatch(r"([0-9]{1,9})?(-)?([0-9]{1,9})?", text.strip())
    first, last = (int(match[group]) if match and match[group] else None for group in (1, 3))
    if match is not None and not match[2]:
        last = first
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        raise UsageError(
            f"--frames cannot be '{text}'", "Give the numbers of driving frames: 101-200, 101-, -200 or 101."
        )
    return FrameRange(first, last)


def parse_crop(text: str, searched: tuple[str, ...] = ("auto",)) -> Box | None:
    """Parse `X,Y,SIZE`; `none` and the words in `searched` give None. Raises UsageError for anything else."""
    if text in (*searched, "none"):
        return None
    try:
        left, top, side = (int(part) for part in text.split(","))
    except ValueError:
        left = top = side = 0
    if not 0 < side <= LARGEST_CROP or max(abs(left), abs(top)) > 10**6:
        words = ", ".join((*searched, "none"))
        hint = f"Give {words} or X,Y,SIZE in pixels, such as 120,40,256, with SIZE at most {LARGEST_CROP}."
        raise UsageError(f"'{text}' is not a crop", hint)
    return Box(left, top, left + side, top + side)


def parse_map(text: str) -> list[tuple[int, int]]:
    """Parse `1:2,2:1` into pairs (driving face, source face). Raises UsageError for anything else."""
    pairs = re.findall(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})", text)
    if ",".join(f"{one}:{other}" for one, other in pairs) != text:
        raise UsageError(f"--map cannot be '{text}'", "Give pairs of face numbers DRIVING:SOURCE, such as 1:2,2:1.")
    sources = [int(source) for _, source in pairs]
    if len(set(sources)) < len(sources):
        raise UsageError(f"--map {text} moves a face of the source twice", "Name each source face once.")
    return [(int(driving), source) for (driving, _), source in zip(pairs, sources, strict=True)]


def parse_best_frame(text: str) -> str:
    """Check `first`, `auto` or a frame number, and return it. Raises UsageError for anything else."""
    if text not in ("first", "auto") and not (text.isdecimal() and len(text) < 10):
        raise UsageError(f"--best-frame cannot be '{text}'", "Give first, auto or a frame number.")
    return text


def parse_audio_track(text: str) -> str:
    """Check `auto`, `all` or a number from 1, and return it. Raises UsageError for anything else."""
    if text not in ("auto", "all") and not re.fullmatch("0*[1-9][0-9]{0,8}", text):
        raise UsageError(f"--audio-track cannot be '{text}'", "Give auto, all or the number of a sound track, from 1.")
    return text


def parse_batch_size(text: str) -> int | None:
    """Parse a number of frames; `auto` gives None. Raises UsageError for anything else."""
    if text == "auto":
        return None
    if not (text.isdecimal() and len(text) < 10):
        raise UsageError(f"--batch-size cannot be '{text}'", "Give auto or a number.")
    return int(text)


@configuration
class AnimateConfig:
    """Inputs, outputs and options of one animation. Options left at None are decided by the model's preset or the
    inputs."""

    source: Annotated[
        Path,
        typer.Argument(
            help="The still to animate: an image, or the first frame of a video (every frame: --source-video).",
            show_default=False,
        ),
    ]
    driving: Annotated[
        Path,
        typer.Argument(
            help="The motion: a video, a GIF, a folder of frames, a pattern (frames/%05d.png) or a file written by "
            "--motion-out.",
            show_default=False,
        ),
    ]
    output: Annotated[
        Path | None,
        option(
            OUTPUT,
            "Result; its extension sets the format: .mp4 .mov .mkv .webm .mxf .gif, or a pattern for numbered "
            "pictures, such as frames/%05d.png or shot.####.exr (.png .exr .dpx .tif). Default: SOURCE--DRIVING.mp4 in "
            "the current folder.",
            "-o",
            "--output",
        ),
    ] = None
    motion: Annotated[
        MotionMode | None,
        option(
            MOTION,
            "relative: add the driving video's movement to the source's pose; absolute: copy the driving pose itself. "
            "Some models have other modes, or only one. Default: the preset's, else relative if the model supports it.",
            metavar="MODE",
        ),
    ] = None
    adapt_scale: Annotated[
        bool | None,
        option(
            MOTION,
            "Scale relative motion by the ratio of the sizes of the keypoints' convex hulls. Default: the preset's, "
            "else yes.",
            "--adapt-scale/--no-adapt-scale",
        ),
    ] = None
    best_frame: Annotated[
        str | None,
        Reads(parse_best_frame),
        option(
            MOTION,
            "Reference frame of the driving video, matched to the source's pose: first, auto (the closest pose) or its "
            "number. Default: the preset's, else first.",
        ),
    ] = None
    """`first`, `auto` or the number of a frame of the (trimmed) driving video, from 0."""
    smooth: Annotated[
        bool | None,
        option(MOTION, "Steady jittering keypoints. Default: the preset's, else no.", "--smooth/--no-smooth"),
    ] = None
    as_published: Annotated[
        bool,
        option(
            MOTION,
            "Reproduce the published code, whatever the preset says; options that you give still apply.",
            "--as-published",
        ),
    ] = False
    reel: str | None = None
    """Reel of the result, where neither source nor driving video has one."""
    driving_timecode: str | None = None
    """Timecode of the driving video's first frame, where its file has none."""
    source_width: Annotated[float | None, Field(gt=0, le=2)] = None
    """Width of the source's subject, in sides of its square."""
    driving_width: Annotated[float | None, Field(gt=0, le=2)] = None
    """Width of the driving video's subject, in sides of its square."""
    crop: Annotated[
        str,
        Reads(parse_crop, as_text=True),
        option(
            CROP,
            "auto: find the subject in source and driving video (face models; other models use none); none: input is "
            "already cropped; X,Y,SIZE: the square of the source.",
        ),
    ] = "auto"
    driving_crop: Annotated[
        str | None,
        Reads(partial(parse_crop, searched=SEARCHED), as_text=True),
        option(
            CROP,
            "The driving video's square: fixed for each shot, follow (moves, grows and turns with the subject), auto "
            "(whichever suits the clip), none or X,Y,SIZE. Default: as --crop; auto if --crop is X,Y,SIZE.",
        ),
    ] = None
    face: Annotated[
        str,
        Reads(lambda text: check_face(text, "--face")),
        option(
            CROP,
            "Which face of the source: largest, its number from left to right (see 'crop --dry-run'), X,Y (a pixel in "
            "it), or all: each driven by its own driving face if there are as many, else all by one.",
        ),
    ] = LARGEST
    driving_face: Annotated[
        str | None,
        Reads(lambda text: check_face(text, "--driving-face")),
        option(
            CROP,
            "Which face of the driving video, in each of its shots; values as for --face. For a motion file, its "
            "number. Default: largest; with --face all, all if there are as many.",
        ),
    ] = None
    face_map: Annotated[
        str | None,
        Reads(parse_map, as_text=True),
        option(
            CROP,
            "Pair several faces explicitly: with 1:2,2:1 the first driving face moves the second face of the source, "
            "and the second moves the first.",
            "--map",
            metavar="DRIVING:SOURCE,...",
        ),
    ] = None
    head_motion: Annotated[
        float | None,
        Field(ge=0, le=1),
        option(
            MOTION,
            "When the driving square follows the head: how much of its travel the head in the source makes too (0 to "
            "1). Default: the preset's, else 0.25.",
            show_default=False,
        ),
    ] = None
    expression: Annotated[
        float | None,
        Field(ge=0, le=5),
        option(
            MOTION,
            "How far mouth and eyelids open and close, as a factor of what the driving video shows (0 to 5); needs a "
            "model with keypoints on them. Default: the preset's, else 1.",
            show_default=False,
        ),
    ] = None
    cuts: Annotated[
        bool | None,
        option(
            MOTION,
            "Give every shot of the driving video its own reference frame and square. Default: yes.",
            "--cuts/--no-cuts",
        ),
    ] = None
    detector: Annotated[
        str | None,
        option(CROP, "Subject detector by name (see 'fommctl plugins list'). Default: the best one available."),
    ] = None
    source_video: Annotated[
        bool,
        option(
            CROP,
            "SOURCE is a video (or a folder or pattern of pictures): animate every frame of it, each by the driving "
            "frame at the same time, up to the end of the shorter one.",
            "--source-video",
        ),
    ] = False
    paste_back: Annotated[
        bool | None,
        option(
            CROP,
            "Put the animated square back into the whole source. Default: yes if it was cropped.",
            "--paste-back/--no-paste-back",
        ),
    ] = None
    detail: Annotated[
        bool | None,
        option(
            CROP,
            "Restore the source's full-resolution detail wherever frames show the source. Default: yes if they are "
            "pasted back.",
            "--detail/--no-detail",
        ),
    ] = None
    restore: Annotated[
        Path | None,
        option(
            CROP,
            "Weights (.pth, .safetensors) of a network that restores or upscales the animated square before it is "
            "pasted back, or the name of a file in FOMMCTL_HOME/restorers; needs the extra 'restore'.",
            metavar="FILE",
        ),
    ] = None
    size: Annotated[
        int | None,
        Field(gt=0),
        option(CROP, "Side of the model's frames in pixels. Default: the preset's, else the size it was trained at."),
    ] = None
    on_missing: Annotated[
        MissingMode,
        option(
            CROP,
            "Where the driving video shows no subject: hold the last pose, skip the animation (show the source "
            "unchanged) or fail. The number of frames stays the same.",
        ),
    ] = "hold"
    start: Annotated[
        Fraction | Timecode | None,
        Reads(parse_moment),
        option(
            MOTION,
            "Start at this time of the driving video: seconds, M:SS, or frames as HH:MM:SS:FF (;FF: drop-frame).",
        ),
    ] = None
    end: Annotated[
        Fraction | Timecode | None,
        Reads(parse_moment),
        option(MOTION, "End before this time: seconds, M:SS or HH:MM:SS:FF."),
    ] = None
    frames: Annotated[
        str | None,
        Reads(parse_frames, as_text=True),
        option(
            MOTION,
            "Render only these driving frames: 101-200, 101-, -200. Numbers count from 1 at --start; for numbered "
            "pictures they are those in the file names. The frames are bit for bit those of a complete render.",
        ),
    ] = None
    timecode: Annotated[
        bool,
        option(
            MOTION,
            "--start and --end are timecodes of the driving video, not times from its beginning.",
            "--timecode",
        ),
    ] = False
    deinterlace: Annotated[
        Deinterlace,
        option(
            MOTION,
            "Interlaced driving footage: auto makes full frames at its frame rate; field makes one per field, at twice "
            "the rate; off leaves it interlaced.",
        ),
    ] = "auto"
    audio: Annotated[
        AudioMode,
        option(OUTPUT, "auto: the driving video's sound, if any; driving: the same, but fail without sound; none."),
    ] = "auto"
    audio_track: Annotated[
        str,
        Reads(parse_audio_track),
        option(
            OUTPUT,
            "Sound track of the driving video: auto (the default track; two mono tracks as stereo; another one if that "
            "cannot be decoded), its number from 1, or all.",
        ),
    ] = "auto"
    fps: Annotated[
        Fraction | None,
        Field(gt=0),
        Reads(parse_rate),
        option(
            OUTPUT,
            "Frame rate of a folder of frames (default 25); a video is converted to it by dropping or repeating "
            "frames.",
        ),
    ] = None
    codec: Annotated[str | None, option(OUTPUT, "Video encoder. Default: by the format.")] = None
    crf: Annotated[int | None, option(OUTPUT, "Encoder quality: lower is better, and makes larger files.")] = None
    pix_fmt: Annotated[str | None, option(OUTPUT, "Pixel format of the result, such as yuv444p.")] = None
    compare: Annotated[bool, option(OUTPUT, "Write source, driving video and result side by side.")] = False
    keypoints: Annotated[
        bool, option(OUTPUT, "Draw the keypoints and their local axes (side by side, as with --compare).")
    ] = False
    motion_out: Annotated[
        Path | None,
        option(
            OUTPUT,
            "Also save the driving video's motion to this file (.motion.safetensors), which can be used as DRIVING.",
        ),
    ] = None
    overwrite: Annotated[bool, option(OUTPUT, "Replace an existing result.")] = False
    batch_size: Annotated[
        int | None,
        Field(gt=0),
        Reads(parse_batch_size, default="auto"),
        option(MODEL, "Frames per batch: auto or a number."),
    ] = None
    """Frames in a batch; None: chosen for the device."""
    encoder_threads: Annotated[
        int | None,
        Field(gt=0),
        option(OUTPUT, "Threads of the video encoder. Default: a quarter of the CPU's threads, at most 4."),
    ] = None
    """Number of encoder threads; it changes the bytes of H.264 and H.265 a little."""
    views: Annotated[
        tuple[Path, ...],
        option(
            CROP,
            "Another picture of the source's subject, framed like it, for models that can use several (x2face); "
            "repeatable.",
            "--view",
        ),
    ] = ()
    options: BackendOptions = ()
    source_space: Annotated[
        str | None,
        option(
            POST,
            "Colour space of the source: a name or a role of the OCIO configuration. Default: as tagged in the file, "
            "else scene-linear Rec.709 for OpenEXR and float TIFF, film density or sRGB for DPX (by its header), sRGB "
            "for the rest.",
            metavar="SPACE",
        ),
    ] = None
    driving_space: Annotated[
        str | None, option(POST, "Colour space of the driving video; as --source-space.", metavar="SPACE")
    ] = None
    output_space: Annotated[
        str | None,
        option(
            POST,
            "Colour space of the result. Default: the source's if the format is the same, else as for --source-space.",
            metavar="SPACE",
        ),
    ] = None
    ocio: Annotated[
        str | None,
        option(
            POST,
            "OCIO configuration: a file or a built-in one (ocio://...). Default: $OCIO, else the built-in ACES CG one.",
            metavar="CONFIG",
        ),
    ] = None
    display_view: Annotated[
        str | None,
        option(
            POST,
            "DISPLAY/VIEW of the OCIO configuration through which the model sees the picture. Default: sRGB without a "
            "tone map: values up to 0.5 are kept, higher ones compressed by a logarithm (2.74 is the model's white), "
            "which is undone exactly afterwards.",
            metavar="DISPLAY/VIEW",
        ),
    ] = None
    layer: Annotated[
        str | None, option(POST, "Layer or part of an OpenEXR source. Default: the main one.", metavar="NAME")
    ] = None
    driving_layer: Annotated[
        str | None, option(POST, "Layer or part of OpenEXR driving pictures. Default: the main one.", metavar="NAME")
    ] = None
    nan: Annotated[
        OnNan,
        option(POST, "Pixels with NaN or infinity: black makes them black, with a warning; fail stops."),
    ] = "black"
    on_gap: Annotated[
        OnGap,
        option(
            POST, "Missing driving pictures: hold the previous one, use a black one, or fail (at damaged ones too)."
        ),
    ] = "hold"
    start_number: Annotated[
        int | None,
        Field(ge=0, le=10**8),
        option(
            POST,
            "Number of the result's first picture. Default: that of the driving pictures; if the driving video is a "
            "movie, 1001 for OpenEXR and DPX, else 1.",
        ),
    ] = None
    exr_compression: Annotated[Compression, option(POST, "Compression of OpenEXR results.")] = "zip"
    exr_type: Annotated[
        ExrType | None,
        option(POST, "Pixel type of OpenEXR results. Default: float if the source has 32 bits, else half."),
    ] = None
    matte: Annotated[
        str | None,
        option(
            POST,
            "Also write the matte of the animated square, at the size of the source: a pattern for pictures, or embed "
            "for a layer matte.A in the OpenEXR result. Where it is 0, the result is the source, bit for bit.",
            metavar="PATTERN|embed",
        ),
    ] = None
    uv: Annotated[
        Path | None,
        option(
            POST,
            "Also write where in the source each pixel comes from, as an ST map of 32-bit floats: a pattern for "
            "OpenEXR or TIFF pictures.",
            metavar="PATTERN",
        ),
    ] = None
    sidecar: Annotated[
        bool,
        option(
            PROVENANCE,
            "Also write RESULT.json: all options, versions and the SHA-256 of inputs, model and result, enough to "
            "render it again.",
            "--sidecar",
        ),
    ] = False
    sign: Annotated[
        Path | None,
        option(
            PROVENANCE,
            "Sign the result with C2PA content credentials, with this certificate chain (PEM, the signer's certificate "
            "first). For .mp4, .mov and .gif.",
            metavar="CERT",
        ),
    ] = None
    sign_key: Annotated[
        Path | None,
        option(
            PROVENANCE,
            "Private key for --sign (PEM); if it is encrypted, the password is read from FOMMCTL_KEY_PASSWORD.",
            "--key",
        ),
    ] = None

    def conflicts(self) -> Iterator[UsageError]:
        """Yield an error for each set of options that exclude each other."""
        if self.timecode and any(isinstance(time, Fraction) for time in (self.start, self.end)):
            yield UsageError("--timecode needs timecodes", "Give --start and --end as HH:MM:SS:FF.")
        if not isinstance(self.start, Timecode) and not isinstance(self.end, Timecode):
            start = self.start or Fraction(0)
            if start < 0:
                yield UsageError("--start is negative", "Times are seconds, from 0.")
            elif self.end is not None and self.end <= start:
                yield UsageError(
                    "--start and --end leave nothing to animate", "Times are seconds; --end must be after --start."
                )
        if self.face_map is not None and (self.face != LARGEST or self.driving_face is not None):
            yield UsageError(
                "--map excludes --face and --driving-face", "Leave these out: --map names the faces of both."
            )
        if self.face != LARGEST and self.crop != "auto":
            yield UsageError("--face needs --crop auto", "Leave one of them out.")
        if self.driving_face is not None and self.driving_crop is not None and self.driving_crop not in SEARCHED:
            yield UsageError("--driving-face needs --driving-crop auto, fixed or follow", "Leave one of them out.")
        several = self.face_map is not None or "all" in (self.face, self.driving_face)
        if several and (self.crop != "auto" or self.paste_back is False):
            yield UsageError(
                "several faces need automatic crops that are pasted back",
                "Leave out --crop and --no-paste-back, or choose one face by its number.",
            )
        if self.driving_face == "all" and self.face != "all":
            yield UsageError("--driving-face all needs --face all", "Or pair the faces explicitly: --map 1:2,2:1.")
        if self.matte == "embed" and self.result_path.suffix.lower() != ".exr":
            yield UsageError("--matte embed needs an OpenEXR result", "Give --matte a pattern of its own.")
        if self.uv is not None and self.uv.suffix.lower() not in (".exr", ".tif", ".tiff"):
            yield UsageError(f"--uv is {self.uv}: 32-bit floats need OpenEXR or TIFF", "For example uv.%04d.exr.")
        if (self.sign is None) != (self.sign_key is None):
            yield UsageError("--sign and --key need each other", "Give both the certificate chain and its private key.")

    @property
    def start_s(self) -> Fraction:
        """Seconds since the start of the driving video; timecodes must be converted by `timed` first."""
        assert not isinstance(self.start, Timecode), "the rate of the driving video is not known yet"
        return self.start or Fraction(0)

    @property
    def end_s(self) -> Fraction | None:
        """Seconds since the start of the driving video, exclusive; None for its end."""
        assert not isinstance(self.end, Timecode), "the rate of the driving video is not known yet"
        return self.end

    def timed(self, info: VideoInfo) -> AnimateConfig:
        """Convert timecodes to seconds of the driving video that `info` describes. Raises UsageError for a timecode
        that the video does not have."""
        if not isinstance(self.start, Timecode) and not isinstance(self.end, Timecode):
            return self
        start, end = (
            time.seconds(info, self.timecode) if isinstance(time, Timecode) else time for time in (self.start, self.end)
        )
        return replace(self, start=start, end=end, timecode=False)

    def to_json(self) -> dict[str, Any]:
        """Return all options as JSON values, for listeners and sidecars."""
        return as_json(self)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The paths of all inputs: source, driving video, further views of the source."""
        return (self.source, self.driving, *self.views)

    @property
    def result_path(self) -> Path:
        """The path of the result."""
        return self.output or Path(f"{self.source.stem}--{self.driving.stem}.mp4")

    @property
    def first_number(self) -> int:
        """Number of the result's first picture, where the driving frames have no numbers of their own."""
        if self.start_number is not None:
            return self.start_number
        return 1001 if self.result_path.suffix.lower() in (".exr", ".dpx") else 1

    @property
    def matte_path(self) -> Path | None:
        """Path of the matte, where it is written as separate pictures."""
        return None if self.matte in (None, "embed") else Path(self.matte)

    @property
    def source_reading(self) -> ReadOptions:
        """How the source is read: colour space, OCIO, layer, NaN."""
        return ReadOptions(self.source_space, self.ocio, self.display_view, self.layer, self.nan)

    @property
    def driving_reading(self) -> ReadOptions:
        """How driving pictures are read: colour space, OCIO, layer, NaN, gaps."""
        return ReadOptions(
            self.driving_space,
            self.ocio,
            self.display_view,
            self.driving_layer,
            self.nan,
            self.on_gap,
            "--driving-space",
        )

    @property
    def crop_of_driving(self) -> str:
        """The driving video's crop with its default filled in: `auto`, `fixed`, `follow`, `none` or `X,Y,SIZE`."""
        if self.driving_crop is not None:
            return self.driving_crop
        if self.crop == "none":
            return "none"
        return "fixed" if self.as_published else "auto"


def option_names() -> tuple[str, ...]:
    """Return the names of all options."""
    return tuple(field.name for field in fields(AnimateConfig))
