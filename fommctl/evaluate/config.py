"""The configuration of `evaluate`, from which its command-line options are built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fommctl.errors import UsageError
from fommctl.options import BackendOptions, Device, Reads, Seed, Sets, as_json, configuration, listed, option

ModelMode = Literal["reconstruction", "animation", "defaults"]
Mode = Literal[ModelMode, "files"]
"""Mode of an evaluation: `files` for finished results."""
SplitChoice = Literal["auto", "test", "train", "all"]
Save = Literal["none", "png", "mkv"]
WHAT, SCORES, RESULT, RUN = "What is evaluated", "Scores", "Result", "Run"
"""Panels of --help."""
NEITHER = "Give --data to evaluate a model, or --pred and --truth to score finished results."


@configuration
class EvaluateConfig:
    """Inputs and options of one evaluation."""

    output: Annotated[
        Path,
        option(RESULT, "Folder for all results; new, empty, or from an earlier evaluation.", "-o", "--output"),
    ]
    models: Annotated[
        tuple[str | None, ...],
        Reads(listed("--models")),
        option(WHAT, "Several models to compare on the same clips.", "--models", metavar="A,B,..."),
    ] = (None,)
    """Names of registered models, or paths; None for the built-in model, or the weights registered for `preset`."""
    names: Annotated[
        tuple[str, ...],
        Reads(listed("--names")),
        option(
            WHAT,
            "Names of the models or results in tables. Default: their own names.",
            "--names",
            metavar="A,B,...",
        ),
    ] = ()
    """Name of each model or folder of predictions; empty for their own names."""
    preset: Annotated[
        str | None,
        option(WHAT, "A name (see 'fommctl presets list') or a YAML file. Default: the model's own.", "-p", "--preset"),
    ] = None
    data: Annotated[
        Path | None, option(WHAT, "Clips: test/ (and train/) written by preprocess, or any folder.", "--data")
    ] = None
    split: Annotated[
        SplitChoice,
        option(WHAT, "test, train or all; auto: test if the data has both folders test and train, else all."),
    ] = "auto"
    mode: Annotated[
        ModelMode,
        option(
            WHAT,
            "reconstruction: each clip drives its own first frame; animation: a clip drives somebody else's first "
            "frame, as the model's preset says; defaults: the same as fommctl animate does without options, on whole "
            "pictures.",
        ),
    ] = "reconstruction"
    pairs: Annotated[
        Path | None,
        option(
            WHAT,
            "CSV file of the clips to pair, with columns source and driving. Default: the preset's pairs_list if that "
            "file exists, else random pairs (see --seed).",
        ),
    ] = None
    predictions: Annotated[
        tuple[Path, ...],
        option(
            WHAT,
            "Finished results to score: a folder of videos, frame folders or strips (PNG or JPEG), or a single one of "
            "these. Repeat to compare several.",
            "--pred",
        ),
    ] = ()
    """Folders or files of finished results; no model is used for them."""
    truth: Annotated[
        Path | None, option(WHAT, "References for --pred, matched by name up to the first dot.", "--truth")
    ] = None
    column: Annotated[
        int | None,
        Field(ge=0),
        option(WHAT, "For results that are grids: the column to score, from 0; columns are as wide as the truth."),
    ] = None
    resize: Annotated[
        bool, option(WHAT, "Resize results to the size of their truth; otherwise sizes must match.", "--resize")
    ] = False
    max_clips: Annotated[
        int | None,
        Field(ge=1),
        option(WHAT, "At most this many clips or pairs. Default: the preset's num_videos or num_pairs."),
    ] = None
    max_frames: Annotated[int | None, Field(ge=1), option(WHAT, "Only the first N frames of each clip.")] = None
    metrics: Annotated[
        tuple[str, ...],
        Reads(listed("--metrics")),
        option(
            SCORES,
            "Metric names, or families such as akd for all variants (see 'fommctl plugins list'). Default: all that "
            "apply and are ready. Models are ranked by the first.",
            "--metrics",
            metavar="A,B,...",
        ),
    ] = ()
    keypoints: Annotated[
        str,
        option(
            SCORES,
            "Source of keypoints for metrics: true (from the data set), model (the model's own) or a detector's name; "
            "auto: true ones if there are any, else the detector for the model's subject.",
        ),
    ] = "auto"
    embedder: Annotated[
        str | None,
        option(SCORES, "Identity embedder, by name. Default: the one for the model's subject."),
    ] = None
    save: Annotated[
        Save, option(RESULT, "Keep the predictions, losslessly: png (folders of frames), mkv (FFV1) or none.")
    ] = "none"
    videos: Annotated[
        bool,
        option(
            RESULT,
            "Put side-by-side videos of the best, the median and the worst clip into the report.",
            "--videos/--no-videos",
        ),
    ] = True
    overwrite: Annotated[bool, option(RESULT, "Score again what an earlier run has scored.", "--overwrite")] = False
    workers: Annotated[
        int | None,
        Field(ge=0),
        option(RUN, "Worker processes; 0: work in this process. Default: one per core, or 0 on a GPU."),
    ] = None
    device: Device = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        option(RUN, "fp32, bf16, fp16 or auto; published numbers use fp32."),
    ] = "fp32"
    seed: Seed = 0
    options: BackendOptions = ()
    sets: Sets = ()

    def conflicts(self) -> Iterator[UsageError]:
        """Yield an error for each combination of options that is impossible."""
        if self.finished:
            yield from self._conflicts_of_finished()
        elif self.truth is not None or self.data is None:
            yield UsageError("nothing to evaluate", NEITHER)
        elif self.resize or self.column is not None:
            yield UsageError("--resize and --column are only for finished results", NEITHER)
        if self.pairs is not None and self.mode == "reconstruction":
            yield UsageError("--pairs needs another --mode", "Add --mode animation or --mode defaults.")
        evaluated = self.predictions if self.finished else self.models
        if self.names and len(self.names) != len(evaluated):
            yield UsageError(
                f"{len(self.names)} names for {len(evaluated)} models", "Give each one its own name with --names."
            )
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            yield UsageError(f"the name '{twice[0]}' is given twice", "Give each one its own name with --names.")

    def _conflicts_of_finished(self) -> Iterator[UsageError]:
        if self.truth is None:
            yield UsageError("--pred needs --truth", "Name the folder of the true clips.")
        if self.data is not None or any(model is not None for model in self.models):
            yield UsageError("--pred excludes --model and --data", NEITHER)
        if self.mode != "reconstruction" or self.save != "none":
            yield UsageError("--mode and --save are only for models", NEITHER)

    @property
    def finished(self) -> bool:
        """Whether finished results are scored, without a model."""
        return bool(self.predictions)

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON values, for plugins and the saved configuration."""
        return as_json(self)
