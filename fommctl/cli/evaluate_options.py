"""The options of `fommctl evaluate`, in the order of its help."""

from pathlib import Path
from typing import Annotated, Any

import typer

WHAT, SCORES, RESULT, RUN = "What is evaluated", "Scores", "Result", "Run"


def _option(group: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=group, **more)


Output = Annotated[
    Path, _option(RESULT, "Folder for all results; new, empty, or of an earlier evaluation.", "-o", "--output")
]
Model = Annotated[
    str | None,
    _option(WHAT, "A name (see 'fommctl models list') or a file. Default: the built-in model.", "-m", "--model"),
]
Models = Annotated[
    str | None, _option(WHAT, "Several models, compared on the same clips.", "--models", metavar="A,B,...")
]
Names = Annotated[
    str | None,
    _option(WHAT, "What to call them in the tables. Default: their own names.", "--names", metavar="A,B,..."),
]
Preset = Annotated[
    str | None,
    _option(WHAT, "A name (see 'fommctl presets list') or a YAML file. Default: the model's own.", "-p", "--preset"),
]
Data = Annotated[
    Path | None, _option(WHAT, "Clips: test/ (and train/) as preprocess writes them, or any folder.", "--data")
]
Split = Annotated[
    str,
    _option(WHAT, "test, train or all; auto: test where the data has a folder test beside a folder train, else all."),
]
Mode = Annotated[
    str,
    _option(
        WHAT,
        "reconstruction: the first frame of each clip is driven by the clip; animation: by the clip of somebody else, "
        "as the model's preset says; defaults: the same as fommctl animate does it without options, on whole pictures.",
    ),
]
Pairs = Annotated[
    Path | None,
    _option(
        WHAT,
        "CSV of the clips to animate, with the columns source and driving. Default: the preset's pairs_list where "
        "that file exists, else pairs drawn by --seed.",
    ),
]
Pred = Annotated[
    list[Path] | None,
    _option(
        WHAT,
        "Finished results to score: a folder of videos, folders of frames or strips (PNG or JPEG), or a single one. "
        "Several are compared.",
        "--pred",
    ),
]
Truth = Annotated[Path | None, _option(WHAT, "Their references, of the same names up to the first dot.", "--truth")]
Column = Annotated[
    int | None, _option(WHAT, "The results are grids: the column to score, counted from 0, each as wide as the truth.")
]
Resize = Annotated[
    bool, _option(WHAT, "Resize results to the size of their truth; else other sizes are refused.", "--resize")
]
MaxClips = Annotated[
    int | None, _option(WHAT, "Only so many clips or pairs. Default: the preset's num_videos or num_pairs.")
]
MaxFrames = Annotated[int | None, _option(WHAT, "Only so many frames of each clip, from the first on.")]
Metrics = Annotated[
    str | None,
    _option(
        SCORES,
        "Names, or families such as akd for all its variants (see 'fommctl plugins list'). Default: all that make "
        "sense and are ready. The first one ranks.",
        "--metrics",
        metavar="A,B,...",
    ),
]
Keypoints = Annotated[
    str,
    _option(
        SCORES,
        "Where metrics get keypoints: true (those of the data set), model (the model's own) or a detector's name; "
        "auto: true ones where there are some, else the detector for the model's subject.",
    ),
]
Embedder = Annotated[
    str | None, _option(SCORES, "What describes identities, by name. Default: the one for the model's subject.")
]
Save = Annotated[
    str, _option(RESULT, "Keep the predictions, without loss: png (folders of frames), mkv (FFV1) or none.")
]
Videos = Annotated[
    bool,
    _option(
        RESULT, "Side-by-side videos of the best, the median and the worst clip in the page.", "--videos/--no-videos"
    ),
]
Overwrite = Annotated[bool, _option(RESULT, "Score anew what an earlier run has scored.", "--overwrite")]
Workers = Annotated[
    int | None, _option(RUN, "Processes. Default: one a processor; none but this one where the device is no CPU.")
]
Precision = Annotated[
    str, typer.Option(help="fp32, bf16, fp16 or auto; published numbers are of fp32.", rich_help_panel=RUN)
]
