"""`fommctl animate --from-sidecar`: a result is rendered again and compared with the recorded one."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fommctl.cli.animate_summary import summary
from fommctl.cli.session import Session
from fommctl.errors import JobsFailedError, UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from fommctl.animate.config import AnimateConfig
    from fommctl.animate.rerender import Comparison
    from fommctl.animate.result import AnimateResult

OWN = ("source", "driving", "views", "output", "overwrite", "sidecar")
"""Options of `animate` that may be given beside --from-sidecar; so may --model and --device."""


def run_again(
    session: Session,
    path: Path,
    config: "AnimateConfig",
    source: Path | None,
    driving: Path | None,
    choice: dict[str, Any],
) -> None:
    """Render what the sidecar at `path` describes.

    config, choice: of the command line, as for `animate`. Raises JobsFailedError where the result differs and nothing
    in the environment explains it.
    """
    _refuse_other_options(config, choice)
    from fommctl.animate.plan import check_outputs
    from fommctl.animate.rerender import load, plan, render

    again = plan(
        path,
        source=source,
        driving=driving,
        views=config.views,
        output=config.output,
        overwrite=config.overwrite,
        sidecar=config.sidecar,
    )
    check_outputs(again.config)
    device = None if choice["device"] == "auto" else choice["device"]
    animator = load(again, model=choice["model"], device=device)
    with session.progress("animating") as report:
        result, comparison = render(again, animator, report)
    if not comparison.identical and not comparison.differences:
        raise JobsFailedError(
            f"{result.output} is not the recorded result, though versions and processor are the same",
            "The sidecar was changed, or this device does not compute the same twice.",
        )
    session.result({**result.to_json(), "reproduction": comparison.to_json()}, _summary(result, comparison))


def _refuse_other_options(config: "AnimateConfig", choice: dict[str, Any]) -> None:
    """What decides the result is in the sidecar."""
    given = [
        field.name for field in fields(config) if field.name not in OWN and getattr(config, field.name) != field.default
    ]
    usual = {"preset": None, "precision": "auto", "seed": 0, "sets": ()}
    given += [
        name.removesuffix("s") if name == "sets" else name for name, value in usual.items() if choice[name] != value
    ]
    if given:
        name = {"sign_key": "key"}.get(given[0], given[0].replace("_", "-"))
        raise UsageError(
            f"--{name} and --from-sidecar exclude each other",
            "Beside a sidecar there may be SOURCE, DRIVING, --view, -o, --overwrite, --sidecar, --model and --device.",
        )


def _summary(result: "AnimateResult", comparison: "Comparison") -> "Text":
    from rich.text import Text

    if comparison.identical:
        said = ("\nidentical to the recorded result, bit for bit", "green")
    else:
        said = ("\nnot identical to the recorded result: the environment differs", "yellow")
    return Text.assemble(summary(result), said, *(f"\n  {line}" for line in comparison.differences))
