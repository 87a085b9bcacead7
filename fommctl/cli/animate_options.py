"""The options of `fommctl animate`, in the order of its help."""

from pathlib import Path
from typing import Annotated, Any

import typer

MOTION, CROP, OUTPUT, MODEL, PROVENANCE = "Motion", "Framing", "Result", "Model", "Provenance"


def _option(group: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=group, **more)


Source = Annotated[
    Path | None,
    typer.Argument(help="The still: an image, or a video whose first frame is taken.", show_default=False),
]
Driving = Annotated[
    Path | None,
    typer.Argument(
        help="The motion: a video, a GIF, a folder of frames, a pattern (frames/%05d.png) or a file of --motion-out.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    _option(
        OUTPUT,
        "Result; its ending decides the format: .mp4 .mov .mkv .webm .gif or a pattern such as "
        "frames/%05d.png. Default: SOURCE--DRIVING.mp4 here.",
        "-o",
        "--output",
    ),
]
Model = Annotated[
    str | None,
    _option(MODEL, "A name (see 'fommctl models list') or a file. Default: the built-in model.", "-m", "--model"),
]
Preset = Annotated[
    str | None,
    _option(MODEL, "A name (see 'fommctl presets list') or a YAML file. Default: the model's own.", "-p", "--preset"),
]
View = Annotated[
    list[Path] | None,
    _option(
        CROP,
        "One more picture of the source's subject, framed like it, for models that make use of several (x2face). "
        "May be given several times.",
        "--view",
    ),
]
Motion = Annotated[
    str | None,
    _option(
        MOTION,
        "relative: move as the driving video moves; absolute: take its very pose. Default: the preset's, else relative "
        "where the model has it.",
    ),
]
AdaptScale = Annotated[
    bool | None,
    _option(
        MOTION,
        "Scale relative motion by the ratio of the keypoints' hulls. Default: the preset's, else yes.",
        "--adapt-scale/--no-adapt-scale",
    ),
]
BestFrame = Annotated[
    str | None,
    _option(
        MOTION,
        "Driving frame that stands for the source's pose: first, auto (nearest pose) or its number. Default: the "
        "preset's, else first.",
    ),
]
Smooth = Annotated[
    bool | None,
    _option(MOTION, "Steady jittering keypoints. Default: the preset's, else no.", "--smooth/--no-smooth"),
]
AsPublished = Annotated[
    bool,
    _option(
        MOTION,
        "Do as the published code does, whatever the preset says; options that are given count all the same.",
        "--as-published",
    ),
]
Crop = Annotated[
    str,
    _option(
        CROP,
        "auto finds the subject in source and driving video (models of faces; others take none); none for "
        "prepared input; X,Y,SIZE is the source's square by hand.",
    ),
]
DrivingCrop = Annotated[
    str | None,
    _option(
        CROP,
        "The driving video's square: fixed for each shot, follow (moves, grows and turns with the subject), auto (the "
        "clip decides), none or X,Y,SIZE. Default: as --crop, auto for X,Y,SIZE.",
    ),
]
HeadMotion = Annotated[
    float | None,
    _option(
        MOTION,
        "Where the square follows: the share (0 to 1) of the head's travel that the head in the source makes too. "
        "Default: the preset's, else 0.25.",
        show_default=False,
    ),
]
Cuts = Annotated[
    bool | None,
    _option(
        MOTION,
        "Give every shot of the driving video its own reference and square. Default: yes.",
        "--cuts/--no-cuts",
    ),
]
Detector = Annotated[
    str | None,
    _option(CROP, "Subject detector by name (see 'fommctl plugins list'). Default: the best at hand."),
]
PasteBack = Annotated[
    bool | None,
    _option(
        CROP,
        "Put the animated square back into the whole source. Default: where there was a crop.",
        "--paste-back/--no-paste-back",
    ),
]
Detail = Annotated[
    bool | None,
    _option(
        CROP,
        "Give frames the detail of the source at its own resolution, where they show the source. Default: where they "
        "are pasted back.",
        "--detail/--no-detail",
    ),
]
Restore = Annotated[
    Path | None,
    _option(
        CROP,
        "Weights (.pth, .safetensors) of a network that restores or enlarges the animated square before it is pasted "
        "back, or the name of a file in FOMMCTL_HOME/restorers; needs the extra 'restore'.",
        metavar="FILE",
    ),
]
Size = Annotated[
    int | None,
    _option(CROP, "Side of the model's frames in pixels. Default: the preset's, else the one that it was trained at."),
]
OnMissing = Annotated[
    str,
    _option(
        CROP,
        "Where the driving video shows no subject: hold the last pose, skip the animation (the source as it "
        "is) or fail. The frame count stays.",
    ),
]
Start = Annotated[
    str | None, _option(MOTION, "Begin here in the driving video: seconds, M:SS, or frames as HH:MM:SS:FF (;FF drops).")
]
End = Annotated[str | None, _option(MOTION, "End before this time: seconds, M:SS or HH:MM:SS:FF.")]
Frames = Annotated[
    str | None,
    _option(
        MOTION,
        "Render these driving frames only: 101-200, 101-, -200. Numbers count from 1 at --start; those of a pattern "
        "of pictures are the numbers in their names. The frames are those of a rendering of all, bit for bit.",
    ),
]
MotionOut = Annotated[
    Path | None,
    _option(
        OUTPUT,
        "Also save the driving video's motion in this file (.motion.safetensors), which can be given as DRIVING.",
    ),
]
Timecode = Annotated[
    bool,
    _option(
        MOTION, "--start and --end are the driving video's own timecodes, not counted from its beginning.", "--timecode"
    ),
]
Audio = Annotated[
    str, _option(OUTPUT, "auto: the driving video's sound where there is any; driving: it must be there; none.")
]
AudioTrack = Annotated[
    str,
    _option(
        OUTPUT,
        "Sound track of the driving video: auto (the default one, two mono tracks as stereo, another where that cannot "
        "be decoded), its number from 1, or all.",
    ),
]
Fps = Annotated[
    str | None,
    _option(
        OUTPUT,
        "Frame rate of a folder of frames (default 25); a video is brought to it by dropping or repeating frames.",
    ),
]
Deinterlace = Annotated[
    str,
    _option(
        MOTION,
        "Interlaced driving footage: auto makes whole pictures at its frame rate, field at twice that, one a field; "
        "off leaves it woven.",
    ),
]
Codec = Annotated[str | None, _option(OUTPUT, "Video encoder, where the default is not wanted.")]
Crf = Annotated[int | None, _option(OUTPUT, "Quality of the encoder: lower is better and larger.")]
PixFmt = Annotated[str | None, _option(OUTPUT, "Pixel format of the result, such as yuv444p.")]
Compare = Annotated[bool, _option(OUTPUT, "Write source, driving video and result side by side.")]
Keypoints = Annotated[bool, _option(OUTPUT, "Draw keypoints and their local frames (side by side, as --compare).")]
Overwrite = Annotated[bool, _option(OUTPUT, "Replace an existing result.")]
BatchSize = Annotated[str, _option(MODEL, "Frames at a time: auto or a number.")]
EncoderThreads = Annotated[
    int | None,
    _option(OUTPUT, "Threads of the video encoder. Default: a quarter of the processor's, at most 4."),
]
Sidecar = Annotated[
    bool,
    _option(
        PROVENANCE,
        "Write RESULT.json: all options, versions and the SHA-256 of inputs, model and result, enough to render it "
        "again.",
        "--sidecar",
    ),
]
FromSidecar = Annotated[
    Path | None,
    _option(
        PROVENANCE,
        "Render again what this sidecar describes, and compare bit for bit. SOURCE and DRIVING say where the inputs "
        "lie now, if they moved.",
    ),
]
Sign = Annotated[
    Path | None,
    _option(
        PROVENANCE,
        "Sign the result with C2PA content credentials: the certificate chain (PEM), the signer's first. "
        "For .mp4, .mov and .gif.",
        metavar="CERT",
    ),
]
Key = Annotated[
    Path | None,
    _option(
        PROVENANCE,
        "Private key of --sign (PEM); if it is encrypted, FOMMCTL_KEY_PASSWORD holds the password.",
        "--key",
    ),
]
