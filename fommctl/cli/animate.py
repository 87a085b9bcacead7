"""`fommctl animate`: the main job."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fommctl.cli.session import DeviceOption, PrecisionOption, SeedOption, Session, SetOption, command

if TYPE_CHECKING:
    from rich.text import Text

    from fommctl.stages.animate import AnimateResult

MOTION, CROP, OUTPUT, MODEL = "Motion", "Framing", "Result", "Model"
EXAMPLES = """Examples:

  fommctl animate portrait.jpg talk.mp4

  fommctl animate portrait.png talk.mov -o shot.mov --best-frame auto

  fommctl animate face.png face.mp4 --crop none --model vox-256.pth.tar -o frames/%05d.png

  fommctl animate portrait.jpg talk.mp4 --start 3 --end 8.5 --compare --json
"""


def _option(group: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=group, **more)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, epilog=EXAMPLES)
    def animate(
        session: Session,
        source: Annotated[Path, typer.Argument(help="The still: an image, or a video whose first frame is taken.")],
        driving: Annotated[
            Path, typer.Argument(help="The motion: a video, a GIF, a folder of frames or a pattern (frames/%05d.png).")
        ],
        output: Annotated[
            Path | None,
            _option(
                OUTPUT,
                "Result; its ending decides the format: .mp4 .mov .mkv .webm .gif or a pattern such as "
                "frames/%05d.png. Default: SOURCE--DRIVING.mp4 here.",
                "-o",
                "--output",
            ),
        ] = None,
        model: Annotated[
            str | None,
            _option(
                MODEL, "A name (see 'fommctl models list') or a file. Default: the built-in model.", "-m", "--model"
            ),
        ] = None,
        preset: Annotated[
            str | None,
            _option(
                MODEL, "A name (see 'fommctl presets list') or a YAML file. Default: the model's own.", "-p", "--preset"
            ),
        ] = None,
        motion: Annotated[
            str, _option(MOTION, "relative: move as the driving video moves; absolute: take its very pose.")
        ] = "relative",
        adapt_scale: Annotated[
            bool, _option(MOTION, "Scale relative motion by the ratio of the keypoints' hulls.")
        ] = True,
        best_frame: Annotated[
            str,
            _option(
                MOTION, "Driving frame that stands for the source's pose: first, auto (nearest pose) or its number."
            ),
        ] = "first",
        smooth: Annotated[bool, _option(MOTION, "Steady jittering keypoints (one-euro filter).")] = False,
        crop: Annotated[
            str,
            _option(
                CROP,
                "auto finds the subject in source and driving video (models of faces; others take none); none for "
                "prepared input; X,Y,SIZE is the source's square by hand.",
            ),
        ] = "auto",
        driving_crop: Annotated[
            str | None,
            _option(CROP, "The driving video's square: auto, none or X,Y,SIZE. Default: as --crop, auto for X,Y,SIZE."),
        ] = None,
        detector: Annotated[
            str | None,
            _option(CROP, "Subject detector by name (see 'fommctl plugins list'). Default: the best at hand."),
        ] = None,
        paste_back: Annotated[
            bool | None,
            _option(
                CROP,
                "Put the animated square back into the whole source. Default: where there was a crop.",
                "--paste-back/--no-paste-back",
            ),
        ] = None,
        size: Annotated[
            int | None, _option(CROP, "Side of the model's frames in pixels, other than its native one.")
        ] = None,
        on_missing: Annotated[
            str,
            _option(
                CROP,
                "Where the driving video shows no subject: hold the last pose, skip the animation (the source as it "
                "is) or fail. The frame count stays.",
            ),
        ] = "hold",
        start: Annotated[str | None, _option(MOTION, "Begin here in the driving video: seconds or M:SS.")] = None,
        end: Annotated[str | None, _option(MOTION, "End before this time: seconds or M:SS.")] = None,
        audio: Annotated[
            str, _option(OUTPUT, "auto: the driving video's sound where there is any; driving: it must be there; none.")
        ] = "auto",
        fps: Annotated[
            str | None,
            _option(
                OUTPUT,
                "Frame rate of a folder of frames (default 25); a video is brought to it by dropping or repeating "
                "frames.",
            ),
        ] = None,
        codec: Annotated[str | None, _option(OUTPUT, "Video encoder, where the default is not wanted.")] = None,
        crf: Annotated[int | None, _option(OUTPUT, "Quality of the encoder: lower is better and larger.")] = None,
        pix_fmt: Annotated[str | None, _option(OUTPUT, "Pixel format of the result, such as yuv444p.")] = None,
        compare: Annotated[bool, _option(OUTPUT, "Write source, driving video and result side by side.")] = False,
        keypoints: Annotated[
            bool, _option(OUTPUT, "Draw keypoints and their local frames (side by side, as --compare).")
        ] = False,
        overwrite: Annotated[bool, _option(OUTPUT, "Replace an existing result.")] = False,
        batch_size: Annotated[str, _option(MODEL, "Frames at a time: auto or a number.")] = "auto",
        device: DeviceOption = "auto",
        precision: PrecisionOption = "auto",
        seed: SeedOption = 0,
        set: SetOption = None,
    ) -> None:
        """Animate a still image with the motion of a video."""
        from fommctl.stages.options import AnimateConfig, parse_batch_size, parse_rate, parse_time

        config = AnimateConfig(
            source=source,
            driving=driving,
            output=output,
            motion=motion,  # type: ignore[arg-type]  # checked by AnimateConfig, as the next ones
            adapt_scale=adapt_scale,
            best_frame=best_frame,
            crop=crop,
            driving_crop=driving_crop,
            detector=detector,
            paste_back=paste_back,
            size=size,
            smooth=smooth,
            start=None if start is None else parse_time(start),
            end=None if end is None else parse_time(end),
            audio=audio,  # type: ignore[arg-type]
            fps=None if fps is None else parse_rate(fps),
            codec=codec,
            crf=crf,
            pix_fmt=pix_fmt,
            on_missing=on_missing,  # type: ignore[arg-type]
            batch_size=parse_batch_size(batch_size),
            compare=compare,
            keypoints=keypoints,
            overwrite=overwrite,
        )
        from fommctl.stages.animate import check_outputs, run

        check_outputs(config)
        from fommctl.stages.animator import load

        animator = load(model, preset=preset, device=device, precision=precision, seed=seed, sets=set or ())
        with session.progress("animating") as report:
            result = run(config, animator, report)
        session.result(result.to_json(), _summary(result))


def _summary(result: "AnimateResult") -> "Text":
    from rich.text import Text

    sound = f", sound {result.audio}" if result.audio else ""
    rates = f"{result.end_to_end_rate:.1f} frames/s on {result.device} ({result.precision})"
    return Text.assemble(
        (str(result.output), "bold"),
        f"\n{result.frames} frames, {result.width}x{result.height}, {float(result.fps):.3f} fps{sound}; "
        f"model {result.model}; {rates}",
    )
