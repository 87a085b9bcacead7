"""`fommctl evaluate`: how good a model is, or which of several is best."""

import shlex
from typing import TYPE_CHECKING

import typer

from fommctl.cli import evaluate_options as opt
from fommctl.cli.session import DeviceOption, SeedOption, Session, SetOption, command
from fommctl.errors import UsageError

if TYPE_CHECKING:
    from fommctl.evaluate.config import EvaluateConfig

EXAMPLES = """Examples:

  fommctl evaluate --model vox --data data/vox -o results

  fommctl evaluate --models fomm.safetensors,monkeynet.safetensors --data data --metrics l1.paper,akd,aed -o ranking

  fommctl evaluate --data data/vox --mode animation --max-clips 20 -o pairs

  fommctl evaluate --models old.safetensors,new.safetensors --data faces --mode defaults -o across

  fommctl evaluate --pred reconstruction/png --truth data/vox/test --metrics l1,psnr,ssim -o scores --json

The same command again scores only what is missing or was changed.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, epilog=EXAMPLES)
    def evaluate(
        session: Session,
        context: typer.Context,
        output: opt.Output,
        model: opt.Model = None,
        models: opt.Models = None,
        names: opt.Names = None,
        preset: opt.Preset = None,
        data: opt.Data = None,
        split: opt.Split = "auto",
        mode: opt.Mode = "reconstruction",
        pairs: opt.Pairs = None,
        pred: opt.Pred = None,
        truth: opt.Truth = None,
        column: opt.Column = None,
        resize: opt.Resize = False,
        max_clips: opt.MaxClips = None,
        max_frames: opt.MaxFrames = None,
        metrics: opt.Metrics = None,
        keypoints: opt.Keypoints = "auto",
        embedder: opt.Embedder = None,
        save: opt.Save = "none",
        videos: opt.Videos = True,
        overwrite: opt.Overwrite = False,
        workers: opt.Workers = None,
        device: DeviceOption = "auto",
        precision: opt.Precision = "fp32",
        seed: SeedOption = 0,
        set: SetOption = None,
    ) -> None:
        """Score a model on the clips of a data set, or finished results against references; tables and a page."""
        from fommctl.evaluate.config import EvaluateConfig

        if model is not None and models is not None:
            raise UsageError("--model and --models exclude each other", "Name all in --models.")
        for option, text in (("--models", models), ("--names", names), ("--metrics", metrics)):
            if text is not None and not _listed(text):
                raise UsageError(f"{option} names nothing", "Give names with commas between them, or leave it out.")
        config = EvaluateConfig(
            output=output,
            models=tuple(_listed(models)) or (model,),
            names=tuple(_listed(names)),
            preset=preset,
            sets=tuple(set or ()),
            data=data,
            split=split,  # type: ignore[arg-type]  # checked by EvaluateConfig, as the next ones
            mode=mode,  # type: ignore[arg-type]
            pairs=pairs,
            predictions=tuple(pred or ()),
            truth=truth,
            column=column,
            resize=resize,
            max_clips=max_clips,
            max_frames=max_frames,
            metrics=tuple(_listed(metrics)),
            keypoints=keypoints,
            embedder=embedder,
            save=save,  # type: ignore[arg-type]
            videos=videos,
            overwrite=overwrite,
            workers=workers,
            device=device,
            precision=precision,
            seed=seed,
        )
        _run(session, config, shlex.join(["fommctl", *context.find_root().obj]))


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _run(session: Session, config: "EvaluateConfig", line: str) -> None:
    """line: the command as it was given."""
    from fommctl.cli.evaluation_table import summary
    from fommctl.evaluate.run import exit_code, run
    from fommctl.host import load_host

    host = load_host()
    with session.progress("evaluating") as report:
        result = run(config, host, report, commands=(line,))
    session.result(result.to_json(), None if session.json else summary(result))
    if code := exit_code(result):
        raise typer.Exit(code)
