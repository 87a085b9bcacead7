"""`fommctl batch`: many animations from a file of jobs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fommctl.cli.session import Session, SetOption, command
from fommctl.errors import UsageError

if TYPE_CHECKING:
    from fommctl.batch.run import BatchConfig

RUN, FIELDS = "How jobs are run", "Fields of jobs that do not have them"
EXAMPLES = """A CSV file of jobs (# begins a comment, relative paths begin at the folder of the file):

  source,driving,output,crop,audio
  anna.png,takes/*.mp4,out/{source.stem}_{driving.stem}.mov,,
  shots/*.png,wave.mp4,out/{number:03}.mp4,none,none

The same in YAML; JSON Lines (.jsonl) has one object a line:

  defaults: {crop: none, model: vox}
  jobs:
    - {source: anna.png, driving: "takes/*.mp4", output: "out/{source.stem}_{driving.stem}.mov"}

A job has source, driving, output and any option of animate (best_frame or best-frame), model and device too. Patterns
(*, ?, **) in source and driving stand for all that fits, each source with each driving video. An output may hold
{number}, {source.stem}, .name, .suffix, .parent, .folder, the same of {driving...}, and {model}, {preset}, {size}, ...

Examples:

  fommctl batch shots.csv --dry-run

  fommctl batch shots.csv --workers 2 --retry 1 --timeout 3600

  fommctl batch shots.yaml --default crop=none --model vox --devices cuda:0,cuda:1 --json

What was done is in status.jsonl beside the file; the same command again does what is missing, failed or changed, and
nothing else.
"""


def _option(group: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=group, **more)


Jobs = Annotated[Path, typer.Argument(help="File of jobs: .csv, .tsv, .jsonl, .yaml or .json.")]
Output = Annotated[
    str | None,
    _option(
        FIELDS,
        "Result, with fields such as {number}. Default: {source.stem}--{driving.stem}.mp4 beside JOBS.",
        "-o",
        "--output",
    ),
]
Default = Annotated[
    list[str] | None, _option(FIELDS, "Any field, such as crop=none; repeatable.", "--default", metavar="KEY=VALUE")
]
Model = Annotated[str | None, _option(FIELDS, "A name (see 'fommctl models list') or a file.", "-m", "--model")]
Preset = Annotated[str | None, _option(FIELDS, "A name (see 'fommctl presets list') or a file.", "-p", "--preset")]
Device = Annotated[str | None, _option(FIELDS, "auto (shared out among the workers), cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str | None, _option(FIELDS, "auto, fp32, bf16 or fp16.")]
Seed = Annotated[int | None, _option(FIELDS, "Seed of everything random.")]
Overwrite = Annotated[bool, _option(FIELDS, "Replace results that no batch has made.", "--overwrite")]
Workers = Annotated[
    int | None, _option(RUN, "Processes, each with its own model. Default: one a device; 0: none but this one.")
]
Devices = Annotated[
    str | None,
    _option(RUN, "Devices for the workers in turn, such as cuda:0,cuda:1. Default: every GPU, else the CPU."),
]
EngineName = Annotated[
    Literal["local", "ray"],
    _option(RUN, "local: processes on this machine. ray: the machines of a Ray cluster.", "--engine"),
]
Address = Annotated[
    str | None,
    _option(
        RUN,
        "Of a running Ray: auto (the one on this machine) or HOST:PORT. Default: RAY_ADDRESS, else one is started here "
        "and stopped at the end.",
        "--address",
    ),
]
Split = Annotated[
    str | None,
    _option(
        RUN,
        "With Ray: render each driving video in so many segments at once and join them. auto: long ones, where no "
        "other job waits.",
        "--split",
        metavar="auto|N",
    ),
]
Retry = Annotated[int, _option(RUN, "Try a job that fails so many times more, after a pause.")]
Timeout = Annotated[float | None, _option(RUN, "Stop a job after so many seconds; it counts as failed.")]
KeepGoing = Annotated[
    bool | None,
    _option(
        RUN,
        "Default: a job that fails stops no other, one that is wrong in the file stops all before they start. "
        "--keep-going: neither stops the others. --fail-fast: the first failure is the last.",
        "--keep-going/--fail-fast",
    ),
]
DryRun = Annotated[bool, _option(RUN, "Check all jobs and show which would run and why; write nothing.", "--dry-run")]
Status = Annotated[
    Path | None, _option(RUN, "Where it is noted what was done. Default: status.jsonl beside JOBS.", "--status")
]
Root = Annotated[Path | None, _option(RUN, "Refuse outputs outside this folder, links followed.", "--root")]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, epilog=EXAMPLES)
    def batch(
        session: Session,
        jobs: Jobs,
        output: Output = None,
        default: Default = None,
        model: Model = None,
        preset: Preset = None,
        device: Device = None,
        precision: Precision = None,
        seed: Seed = None,
        set: SetOption = None,
        overwrite: Overwrite = False,
        workers: Workers = None,
        devices: Devices = None,
        engine: EngineName = "local",
        address: Address = None,
        split: Split = None,
        retry: Retry = 0,
        timeout: Timeout = None,
        keep_going: KeepGoing = None,
        dry_run: DryRun = False,
        status: Status = None,
        root: Root = None,
    ) -> None:
        """Animate all jobs of a file; what is done already is not done again."""
        from fommctl.batch.run import BatchConfig

        options = {
            "output": output,
            "model": model,
            "preset": preset,
            "device": device,
            "precision": precision,
            "seed": seed,
            "sets": set or None,
            "overwrite": overwrite or None,
        }
        fields = {name: value for name, value in options.items() if value is not None}
        config = BatchConfig(
            jobs=jobs,
            defaults={**_defaults(default or ()), **fields},
            workers=workers,
            devices=tuple(part.strip() for part in (devices or "").split(",") if part.strip()),
            engine=engine,
            address=address,
            split=_split(split),
            status=status,
            root=root,
            retry=retry,
            timeout=timeout,
            keep_going=keep_going,
        )
        _run(session, config, dry_run=dry_run)


def _split(text: str | None) -> int | None:
    """A number of segments; None for `auto`."""
    if text == "auto":
        return None
    if text is not None and not text.isdecimal():
        raise UsageError(f"--split is '{text}'", "Give auto or a number.")
    return int(text or 1)


def _defaults(texts: "list[str] | tuple[()]") -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--default {text}: expected KEY=VALUE", "For example: --default crop=none")
        if value:
            found[name.strip()] = value
    return found


def _run(session: Session, config: "BatchConfig", *, dry_run: bool) -> None:
    from fommctl.batch.run import exit_code, make_plan, run
    from fommctl.cli.batch_progress import watching
    from fommctl.cli.batch_tables import plan_table, summary
    from fommctl.host import load_host

    host = load_host()
    with session.progress("checking", unit="jobs") as report:
        plan = make_plan(config, host, report)
    if dry_run:
        session.result(plan.to_json(), None if session.json else plan_table(plan))
        _exit(6 if plan.invalid else 0)
        return
    with watching(session, plan) as watcher:
        result = run(config, host, plan, watcher)
    session.summary(result.to_json(), None if session.json else summary(result))
    _exit(exit_code(result))


def _exit(code: int) -> None:
    if code:
        raise typer.Exit(code)
