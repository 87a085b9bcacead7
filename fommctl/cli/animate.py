"""`fommctl animate`: the main job."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fommctl.cli import animate_options as opt
from fommctl.cli.animate_summary import summary
from fommctl.cli.session import DeviceOption, PrecisionOption, SeedOption, Session, SetOption, command
from fommctl.errors import UsageError

if TYPE_CHECKING:
    from fommctl.animate.config import AnimateConfig

EXAMPLES = """Examples:

  fommctl animate portrait.jpg talk.mp4

  fommctl animate portrait.png talk.mov -o shot.mov --best-frame auto

  fommctl animate face.png face.mp4 --crop none --model vox-256.pth.tar -o frames/%05d.png

  fommctl animate portrait.jpg talk.mp4 --start 3 --end 8.5 --compare --json

  fommctl animate portrait.jpg talk.mp4 --motion-out talk.motion

  fommctl animate other.jpg talk.motion -o frames/%05d.png --frames 101-200

  fommctl animate portrait.jpg talk.mp4 -o shot.mov --sidecar

  fommctl animate --from-sidecar shot.mov.json -o again.mov
"""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, epilog=EXAMPLES)
    def animate(
        session: Session,
        source: opt.Source = None,
        driving: opt.Driving = None,
        output: opt.Output = None,
        model: opt.Model = None,
        preset: opt.Preset = None,
        motion: opt.Motion = None,
        adapt_scale: opt.AdaptScale = None,
        best_frame: opt.BestFrame = None,
        smooth: opt.Smooth = None,
        as_published: opt.AsPublished = False,
        crop: opt.Crop = "auto",
        driving_crop: opt.DrivingCrop = None,
        head_motion: opt.HeadMotion = None,
        cuts: opt.Cuts = None,
        detector: opt.Detector = None,
        paste_back: opt.PasteBack = None,
        detail: opt.Detail = None,
        restore: opt.Restore = None,
        size: opt.Size = None,
        on_missing: opt.OnMissing = "hold",
        start: opt.Start = None,
        end: opt.End = None,
        frames: opt.Frames = None,
        timecode: opt.Timecode = False,
        deinterlace: opt.Deinterlace = "auto",
        audio: opt.Audio = "auto",
        audio_track: opt.AudioTrack = "auto",
        fps: opt.Fps = None,
        codec: opt.Codec = None,
        crf: opt.Crf = None,
        pix_fmt: opt.PixFmt = None,
        compare: opt.Compare = False,
        keypoints: opt.Keypoints = False,
        motion_out: opt.MotionOut = None,
        overwrite: opt.Overwrite = False,
        batch_size: opt.BatchSize = "auto",
        encoder_threads: opt.EncoderThreads = None,
        view: opt.View = None,
        sidecar: opt.Sidecar = False,
        from_sidecar: opt.FromSidecar = None,
        sign: opt.Sign = None,
        key: opt.Key = None,
        device: DeviceOption = "auto",
        precision: PrecisionOption = "auto",
        seed: SeedOption = 0,
        set: SetOption = None,
    ) -> None:
        """Animate a still image with the motion of a video."""
        from fommctl.animate.config import AnimateConfig, parse_batch_size, parse_moment, parse_rate

        if from_sidecar is None and (source is None or driving is None):
            missing = "SOURCE" if source is None else "DRIVING"
            raise UsageError(f"missing argument '{missing}'", "See 'fommctl animate --help'.")
        config = AnimateConfig(
            source=source or Path(),
            driving=driving or Path(),
            output=output,
            views=tuple(view or ()),
            as_published=as_published,
            motion=motion,  # type: ignore[arg-type]  # checked by AnimateConfig, as the next ones
            adapt_scale=adapt_scale,
            best_frame=best_frame,
            crop=crop,
            driving_crop=driving_crop,
            head_motion=head_motion,
            cuts=cuts,
            detector=detector,
            paste_back=paste_back,
            detail=detail,
            restore=restore,
            size=size,
            smooth=smooth,
            start=None if start is None else parse_moment(start),
            end=None if end is None else parse_moment(end),
            frames=frames,
            timecode=timecode,
            audio=audio,  # type: ignore[arg-type]
            audio_track=audio_track,
            deinterlace=deinterlace,  # type: ignore[arg-type]
            fps=None if fps is None else parse_rate(fps),
            codec=codec,
            crf=crf,
            pix_fmt=pix_fmt,
            on_missing=on_missing,  # type: ignore[arg-type]
            batch_size=parse_batch_size(batch_size),
            compare=compare,
            keypoints=keypoints,
            motion_out=motion_out,
            overwrite=overwrite,
            encoder_threads=encoder_threads,
            sidecar=sidecar,
            sign=sign,
            sign_key=key,
        )
        architecture = {"model": model, "preset": preset, "sets": set or ()}
        choice = {**architecture, "device": device, "precision": precision, "seed": seed}
        if from_sidecar is None:
            _run(session, config, choice)
        else:
            from fommctl.cli.animate_again import run_again

            run_again(session, from_sidecar, config, source, driving, choice)


def _run(session: Session, config: "AnimateConfig", choice: dict[str, Any]) -> None:
    """choice: of the model, as `fommctl.load` takes it."""
    from fommctl.animate.animator import load
    from fommctl.animate.plan import check_outputs
    from fommctl.animate.run import run

    # Before the model is loaded: a mistyped path is answered at once.
    check_outputs(config)
    animator = load(**choice)
    with session.progress("animating") as report:
        result = run(config, animator, report)
    session.summary(result.to_json(), summary(result))
