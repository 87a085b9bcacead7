"""`fommctl crop`: finds subjects, follows them, cuts square clips."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fommctl.cli.session import Session, command

if TYPE_CHECKING:
    from fommctl.crop.config import CropConfig
    from fommctl.crop.run import CropResult

EXAMPLES = """Examples:

  fommctl crop interview.mp4 -o clips

  fommctl crop raw/ "more/*.mov" -o clips --min-duration 2 --workers 4

  fommctl crop talk.mp4 --dry-run

Clips are called NAME#track0.mp4, NAME#track1.mp4, ...: for training, NAME is the identity.
"""
TRACKING, RESULT = "Tracking and framing", "Result"


def _option(group: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=group, **more)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, epilog=EXAMPLES)
    def crop(
        session: Session,
        inputs: Annotated[
            list[str],
            typer.Argument(
                help="Videos, pictures, folders of them, and patterns (*.mp4, frames/%05d.png).", metavar="INPUT..."
            ),
        ],
        output: Annotated[
            Path | None, _option(RESULT, "Folder for clips, manifest.csv and manifest.json.", "-o", "--output")
        ] = None,
        dry_run: Annotated[
            bool, _option(RESULT, "Print the boxes and ffmpeg commands that cut them; write nothing.", "--dry-run")
        ] = False,
        preset: Annotated[
            str | None, _option(TRACKING, "Whose framing is used. Default: the built-in model's.", "-p", "--preset")
        ] = None,
        detector: Annotated[
            str | None, _option(TRACKING, "Subject detector (see 'fommctl plugins list'). Default: the best at hand.")
        ] = None,
        iou: Annotated[float, _option(TRACKING, "Overlap with the first box of a track that keeps it going.")] = 0.25,
        margin: Annotated[
            float, _option(TRACKING, "Room around the union of a track's boxes, at least, in parts of it.")
        ] = 0.1,
        min_duration: Annotated[str, _option(TRACKING, "Shortest clip: seconds or M:SS.")] = "1",
        min_frames: Annotated[
            int | None, _option(TRACKING, "Shortest clip in frames, instead (published: 150).")
        ] = None,
        max_gap: Annotated[
            str, _option(TRACKING, "Seconds without a detection that a track outlives (published: 0).")
        ] = "1",
        rate: Annotated[str, _option(TRACKING, "Frames a second that are searched.")] = "5",
        cuts: Annotated[bool, _option(TRACKING, "End clips at scene changes.", "--cuts/--no-cuts")] = True,
        start: Annotated[str, _option(TRACKING, "Start of the part of every source: seconds or M:SS.")] = "0",
        end: Annotated[str | None, _option(TRACKING, "End of that part.")] = None,
        max_duration: Annotated[
            str | None, _option(TRACKING, "Longest clip: longer ones are divided. Seconds or M:SS.")
        ] = None,
        max_fps: Annotated[str | None, _option(RESULT, "Highest frame rate of the clips.")] = None,
        min_size: Annotated[
            int, _option(TRACKING, "Smallest square, in pixels of the source: smaller subjects are left out.")
        ] = 0,
        size: Annotated[int, _option(RESULT, "Side of the clips in pixels.")] = 256,
        fps: Annotated[str | None, _option(RESULT, "Frame rate of patterns of frames (25).")] = None,
        deinterlace: Annotated[
            str,
            _option(
                RESULT,
                "Interlaced footage: auto makes whole pictures at its frame rate, field at twice that, one a field; "
                "off leaves it woven.",
            ),
        ] = "auto",
        audio: Annotated[str, _option(RESULT, "auto: clips have the sound of their source; none.")] = "auto",
        codec: Annotated[str | None, _option(RESULT, "Video encoder, where H.264 is not wanted.")] = None,
        crf: Annotated[int | None, _option(RESULT, "Quality of the encoder: lower is better and larger.")] = None,
        pix_fmt: Annotated[str | None, _option(RESULT, "Pixel format of the clips, such as yuv444p.")] = None,
        workers: Annotated[int | None, _option(RESULT, "Files at a time. Default: one for each core.")] = None,
        overwrite: Annotated[bool, _option(RESULT, "Make clips anew that are up to date.")] = False,
    ) -> None:
        """Cut every subject out of videos and pictures: square clips with sound, for training and animation.

        A second run goes on where the first one stopped: sources whose clips are up to date are left out.
        """
        from fommctl.animate.config import parse_rate, parse_time
        from fommctl.crop.config import CropConfig

        config = CropConfig(
            inputs=tuple(inputs),
            output=output,
            preset=preset,
            detector=detector,
            iou=iou,
            margin=margin,
            min_duration=parse_time(min_duration),
            min_frames=min_frames,
            max_gap=parse_time(max_gap),
            rate=parse_rate(rate),
            start=parse_time(start),
            end=None if end is None else parse_time(end),
            max_duration=None if max_duration is None else parse_time(max_duration),
            max_fps=None if max_fps is None else parse_rate(max_fps),
            min_size=min_size,
            size=size,
            cuts=cuts,
            fps=None if fps is None else parse_rate(fps),
            deinterlace=deinterlace,  # type: ignore[arg-type]  # checked by CropConfig, as the next one
            audio=audio,  # type: ignore[arg-type]
            codec=codec,
            crf=crf,
            pix_fmt=pix_fmt,
            workers=workers,
            overwrite=overwrite,
            dry_run=dry_run,
        )
        _run(session, config)


def _run(session: Session, config: "CropConfig") -> None:
    from fommctl.crop.run import run
    from fommctl.host import load_host

    single = len(config.inputs) == 1 and Path(config.inputs[0]).is_file()
    with session.progress("cropping", "frames" if single else "files") as report:
        result = run(config, load_host(), report)
    error = result.error()
    if error is None:
        session.summary(result.to_json(), _summary(result, config))
        return
    # What was done counts too: the whole result is printed, with the error in it.
    body = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
    session.result({**result.to_json(), "error": body}, _summary(result, config))
    if not session.json:
        raise error
    raise typer.Exit(error.exit_code)


def _summary(result: "CropResult", config: "CropConfig") -> str:
    lines = []
    for clip in result.clips:
        left, top, right, _ = clip["box"]
        times = f"{clip['start']:.3f}-{clip['end']:.3f} s  " if clip["fps"] else ""
        what = f"{times}crop {left},{top},{right - left}  score {clip['score']:.2f}"
        lines.append(f"{clip['source']}: {what}" + ("" if config.dry_run else f"  -> {Path(clip['output']).name}"))
        lines += [f"  {clip['command']}"] if "command" in clip else []
    lines += [f"no {result.subject}, or not for long enough: {source}" for source in result.without_subject]
    lines += [f"failed: {each.source}: {each.message}" for each in result.failed]
    count = f"{len(result.clips)} clip{'' if len(result.clips) == 1 else 's'}"
    up_to_date = f"; {len(result.skipped)} of the inputs were up to date" if result.skipped else ""
    where = " found" if config.dry_run else f" in {config.output}"
    return "\n".join([*lines, f"{count}{where}{up_to_date}"])
