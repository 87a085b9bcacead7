"""Writes the files of a farm job: three tasks of one shot, each of which waits for the one before it."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fommctl.animate.config import AnimateConfig, FrameRange, ModelChoice, parse_frames
from fommctl.animate.inputs import open_source
from fommctl.animate.motion import Motion, is_motion_file
from fommctl.animate.plan import check_outputs
from fommctl.animate.run import expected_frames
from fommctl.errors import InputError, UsageError
from fommctl.farm.config import EngineName, FarmConfig
from fommctl.farm.shot import DONE, MOTION, PATHS, SHOT, FarmShot
from fommctl.files import create_temporary_folder, replace_folder, require_own_folder, safe_file_name
from fommctl.media.marking import printable
from fommctl.media.movie import output_errors
from fommctl.media.output_paths import is_pattern
from fommctl.media.reader import Clip

FILES: Mapping[EngineName, Mapping[str, str]] = {
    "openjd": {
        "template.yaml": "openjd run {folder}/template.yaml --run-dependencies --step {last}",
        "asset_references.yaml": "deadline bundle submit {folder}",
    },
    "opencue": {"submit.py": "python {folder}/submit.py"},
    "deadline": {
        "submit.sh": "sh {folder}/submit.sh",
        **{f"{task}_{part}.txt": "" for task in ("motion", "render", "encode") for part in ("job", "plugin")},
    },
    "slurm": {
        "submit.sh": "sh {folder}/submit.sh",
        **{f"{task}.sbatch": "" for task in ("motion", "render", "encode")},
    },
    "flamenco": {
        "fommctl-shot.js": "copy fommctl-shot.js to the manager's folder 'scripts', then submit that job type"
    },
}
"""Files by engine, each with the command or instruction that submits the job with it; empty for other files."""
MOST_CHUNKS = 100_000


@dataclass(frozen=True, slots=True)
class FarmFiles:
    """The files of a job that were written."""

    folder: Path
    engine: EngineName
    files: tuple[Path, ...]
    frames: FrameRange
    chunks: int
    encodes: bool
    """Whether a last task encodes the rendered frames."""
    submit: tuple[str, ...]
    """Commands or instructions, each of which submits the job."""

    def to_json(self) -> dict[str, Any]:
        """Return the result for --json. Keys may be added, but never renamed or removed."""
        return {
            "folder": str(self.folder),
            "engine": self.engine,
            "files": [str(path) for path in self.files],
            "frames": [self.frames.first, self.frames.last],
            "chunks": self.chunks,
            "encode": self.encodes,
            "submit": list(self.submit),
        }


def emit(config: AnimateConfig, choice: ModelChoice, farm: FarmConfig) -> FarmFiles:
    """Write the folder of a job, atomically.

    Raises UsageError, InputError and OutputError, also for everything that `animate` refuses before it loads a model.
    """
    folder = Path(os.path.abspath(farm.folder))
    require_own_folder(folder, SHOT, contents="job of a farm")
    if (folder / SHOT).exists() and not config.overwrite:
        raise UsageError(f"the job already exists: {farm.folder}", "Use --overwrite, or another folder with -o.")
    config = absolute(replace(config, output=farm.result))
    check_outputs(config)
    frames = expected_range(config)
    shot = FarmShot(config=config, choice=_absolute_choice(choice), frames=frames, chunk=farm.chunk)
    if len(shot.ranges) > MOST_CHUNKS:
        raise UsageError(f"{len(shot.ranges):,} chunks, at most {MOST_CHUNKS:,}", "Give a larger --chunk.")
    names = [name for name in FILES[farm.engine] if shot.encodes or not name.startswith("encode")]
    with output_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = create_temporary_folder(folder)
        try:
            (temporary / DONE).mkdir()
            shot.write(temporary / SHOT)
            for name in names:
                text = _filled(f"{farm.engine}-{name}", folder, shot)
                (temporary / name).write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")
            replace_folder(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    last = "Encode" if shot.encodes else "Render"
    hints = [hint.format(folder=shlex.quote(str(folder)), last=last) for hint in FILES[farm.engine].values() if hint]
    return FarmFiles(
        folder,
        farm.engine,
        tuple(folder / name for name in names),
        frames,
        len(shot.ranges),
        shot.encodes,
        tuple(hints),
    )


def absolute(config: AnimateConfig) -> AnimateConfig:
    """Return the options with absolute paths, and with the default output if none is given."""

    def whole(value: Any) -> Any:
        return tuple(map(whole, value)) if isinstance(value, tuple) else Path(os.path.abspath(value))

    config = replace(config, output=config.result_path)
    paths = {name: whole(value) for name in PATHS if (value := getattr(config, name)) is not None}
    # A restorer may be a name, which each machine resolves in its own FOMMCTL_HOME.
    if config.restore is not None and not config.restore.exists():
        paths["restore"] = config.restore
    return replace(config, **paths)


def _absolute_choice(choice: ModelChoice) -> ModelChoice:
    def whole(text: str | None) -> str | None:
        return os.path.abspath(text) if text is not None and Path(text).is_file() else text

    return replace(choice, model=whole(choice.model), preset=whole(choice.preset))


def expected_range(config: AnimateConfig) -> FrameRange:
    """Return the numbers of the first and last driving frame to be rendered, as expected from headers.

    Raises InputError if there are no frames, UsageError if `--frames` begins after the last.
    """
    source = None
    if config.source_video:
        with open_source(config) as film:
            source = film.info.duration
    if is_motion_file(config.driving):
        motion = Motion.load(config.driving)
        until = len(motion) if source is None else int(np.searchsorted(motion.times, math.ceil(source * motion.clock)))
        first, last = int(motion.numbers[0]), int(motion.numbers[until - 1])
    else:
        reading = config.driving_reading
        with Clip(config.driving, fps=config.fps, deinterlace=config.deinterlace, reading=reading) as clip:
            timed = config.timed(clip.info)
            count = expected_frames(replace(timed, fps=None), clip.info)
            if count is None:
                count = sum(1 for _ in clip.reader(size=(16, 16)))
            if source is not None:
                count = min(count, math.ceil(source * clip.info.rate))
        if not count:
            raise InputError(
                f"{printable(config.driving.name)} has no frames from --start to --end", "Check --start and --end."
            )
        first = 1 if clip.info.first_number is None else clip.info.first_number
        last = first + count - 1
    wanted = parse_frames(config.frames)
    if wanted.first is not None and wanted.first > last:
        raise UsageError(f"--frames {wanted} is beyond the end", f"The last driving frame is number {last}.")
    return FrameRange(max(first, wanted.first or first), min(last, wanted.last or last))


def _filled(template: str, folder: Path, shot: FarmShot) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # The engines' own formats use braces.
    environment = Environment(
        loader=PackageLoader("fommctl.farm"),
        undefined=StrictUndefined,
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"json": json.dumps, "sh": lambda value: shlex.quote(str(value)), "python": repr}
    config = shot.config
    used = [*config.inputs]
    used += [Path(name) for name in (shot.choice.model, shot.choice.preset) if name and os.path.isabs(name)]
    output = config.result_path
    return environment.get_template(f"{template}.j2").render(
        name=printable(safe_file_name(output.parent.name if is_pattern(output) else output.stem)),
        folder=str(folder),
        motion=MOTION,
        first=shot.frames.first,
        last=shot.frames.last,
        chunk=shot.chunk,
        chunks=len(shot.ranges),
        encodes=shot.encodes,
        inputs=[str(path) for path in used if path.is_file()],
        input_folders=[str(path if path.is_dir() else path.parent) for path in used if not path.is_file()],
        output_folder=str(output.parent),
        python=sys.version_info,
    )
