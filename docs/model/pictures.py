"""Draws sheets that compare the results of models, with the defaults of `fommctl animate`, side by side.

    python docs/model/pictures.py --portraits DIR --driving DIR --model old=faces-mini --model new=FILE -o OUT
        [--seconds 3] [--moments 3] [--rows 10] [--side 160]

Each driving clip gets one or more JPEGs, OUT/CLIP-1.jpg, ...: frames of the clip at the top, and below them a row for
each portrait with the models' results for these frames. The frames are those that are most difficult: the widest open
mouth, the most closed eyes, and the head furthest from where it started. Results are kept in OUT/frames, so that the
command continues where it stopped; if a model has changed, delete its folder there.

Use only pictures that you may publish.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

import fommctl
from fommctl.host import load_host
from fommctl.media.reader import Reader
from fommctl_keypoints.opening import EYELIDS, MOUTH, openings

LANDMARKS = "dlib-68"
MARGIN, HEADING = 4, 22
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Moment:
    """A frame of a driving clip to show."""

    frame: int
    """Index of the frame, from 0."""
    what: str
    """What can be seen in it."""
    picture: Image.Image


def main(arguments: Sequence[str]) -> int:
    """Render missing results and draw all sheets."""
    options = _options(arguments)
    models = dict(each.partition("=")[::2] for each in options.model)
    portraits, clips = (_files(folder) for folder in (options.portraits, options.driving))
    detector = load_host().detectors[LANDMARKS].build()
    shown = {}
    for clip in clips:
        frames = _frames(clip, options.seconds)
        found = detector.detect(frames)
        points = np.array([each[0].landmarks if each else np.full((68, 2), np.nan) for each in found], np.float64)
        shown[clip] = [Moment(number, what, Image.fromarray(frames[number])) for number, what in moments(points)]
        shown[clip] = shown[clip][: options.moments]
    for name, model in models.items():
        animator = fommctl.load(model)
        for clip in clips:
            for portrait in portraits:
                _render(animator, portrait, clip, shown[clip], options.seconds, _folder(options.output, name, clip))
    for clip in clips:
        for number, start in enumerate(range(0, len(portraits), options.rows), start=1):
            part = portraits[start : start + options.rows]
            rows = [
                [
                    [_kept(_folder(options.output, name, clip), each, moment) for name in models]
                    for moment in shown[clip]
                ]
                for each in part
            ]
            sheet = _sheet(
                [Image.open(each).convert("RGB") for each in part], shown[clip], rows, [*models], options.side
            )
            target = options.output / f"{clip.stem}-{number}.jpg"
            sheet.save(target, quality=88, optimize=True)
            print(target)
    return 0


def moments(points: NDArray[np.float64]) -> list[tuple[int, str]]:
    """Return the indices of the most difficult frames of a clip, each with what can be seen in it.

    points: landmarks (N, 68, 2) in pixels, NaN for frames without a face.
    """
    mouths, lids = openings(points, MOUTH), openings(points, EYELIDS)
    present = points[np.isfinite(mouths)]
    moved = np.linalg.norm(points - present[0], axis=-1).mean(1) if len(present) else mouths
    wanted = ((mouths, "mouth open"), (-lids, "eyes closed"), (moved, "head away"))
    chosen: dict[int, str] = {}
    for values, what in wanted:
        order = np.argsort(np.where(np.isfinite(values), -values, np.inf), kind="stable")
        frame = next(int(number) for number in order if int(number) not in chosen)
        chosen[frame] = what
    return list(chosen.items())


def _render(
    animator: fommctl.Animator, portrait: Path, clip: Path, shown: Sequence[Moment], seconds: float, folder: Path
) -> None:
    """Write the frames of these moments as PNG files, unless they all exist."""
    if all(_name(folder, portrait, moment).exists() for moment in shown):
        return
    with tempfile.TemporaryDirectory() as work:
        result = Path(work) / "result.mkv"
        animator.animate(portrait, clip, result, end=seconds, audio="none")
        frames = _frames(result, seconds)
    folder.mkdir(parents=True, exist_ok=True)
    for moment in shown:
        Image.fromarray(frames[moment.frame]).save(_name(folder, portrait, moment))


def _frames(path: Path, seconds: float) -> list[Pixels]:
    with Reader(path, end=Fraction(str(seconds))) as reader:
        return [frame.pixels for frame in reader]


def _folder(output: Path, model: str, clip: Path) -> Path:
    return output / "frames" / model / clip.stem


def _name(folder: Path, portrait: Path, moment: Moment) -> Path:
    return folder / f"{portrait.name}-{moment.frame:04d}.png"


def _kept(folder: Path, portrait: Path, moment: Moment) -> Image.Image:
    return Image.open(_name(folder, portrait, moment)).convert("RGB")


def _files(folder: Path) -> list[Path]:
    return [each for each in sorted(folder.iterdir()) if each.is_file() and not each.name.startswith(".")]


def _sheet(
    portraits: Sequence[Image.Image],
    shown: Sequence[Moment],
    rows: Sequence[Sequence[Sequence[Image.Image]]],
    models: Sequence[str],
    side: int,
) -> Image.Image:
    """Return a sheet of square cells.  rows: by portrait and moment, the pictures of all models."""
    step, wide = side + MARGIN, len(models) * (side + MARGIN)
    sheet = Image.new("RGB", (step + len(shown) * (wide + MARGIN), HEADING + (1 + len(rows)) * step), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((2, HEADING + step - 16), "source", "black")
    for column, moment in enumerate(shown):
        left = step + column * (wide + MARGIN)
        sheet.paste(_cell(moment.picture, side), (left + (wide - step) // 2, HEADING))
        draw.text(
            (left + 2, 5), f"driving video, {moment.what} (frame {moment.frame}); below: {' | '.join(models)}", "black"
        )
    for number, (portrait, of_moments) in enumerate(zip(portraits, rows, strict=True), start=1):
        top = HEADING + number * step
        sheet.paste(_cell(portrait, side), (0, top))
        for left, picture in _places(of_moments, step, wide):
            sheet.paste(_cell(picture, side), (left, top))
    return sheet


def _places(of_moments: Sequence[Sequence[Image.Image]], step: int, wide: int) -> Iterator[tuple[int, Image.Image]]:
    for column, pictures in enumerate(of_moments):
        for place, picture in enumerate(pictures):
            yield step + column * (wide + MARGIN) + place * step, picture


def _cell(picture: Image.Image, side: int) -> Image.Image:
    return ImageOps.pad(picture, (side, side), Image.Resampling.LANCZOS, color="white")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--portraits", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--driving", type=Path, required=True, help="folder of clips")
    parser.add_argument("--model", action="append", required=True, metavar="NAME=MODEL", help="repeat it")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of each clip to use")
    parser.add_argument("--moments", type=int, default=3, help="frames of each clip to show, 1 to 3")
    parser.add_argument("--rows", type=int, default=10, help="portraits per sheet")
    parser.add_argument("--side", type=int, default=160, help="side of each picture in pixels")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
