"""Options are declared once: a field is an option of a command, a field of job files and a keyword in Python."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from fommctl.animate.config import AnimateConfig, ModelChoice
from fommctl.cli.console import Session
from fommctl.cli.options import command
from fommctl.errors import ProblemsError, UsageError
from fommctl.options import Reads, configuration, field_named, listed, option_fields, with_options


@configuration
class BoilConfig:
    """Options of a command that exists only for these tests."""

    egg: Annotated[Path, typer.Argument(help="What is boiled.")]
    minutes: Annotated[int, Field(ge=1, le=20), typer.Option("-m", "--minutes", help="How long.")] = 4
    salt: Annotated[float | None, typer.Option(help="Grams.")] = None
    shell: Annotated[Literal["brown", "white"], typer.Option(help="brown or white.")] = "brown"
    guests: Annotated[tuple[str, ...], Reads(listed("--guests")), typer.Option(help="For whom.")] = ()
    spoons: Annotated[tuple[Path, ...], typer.Option("--spoon", help="With which.")] = ()
    lid: Annotated[bool | None, typer.Option("--lid/--no-lid", help="Cover the pot.")] = None
    secret: str | None = None

    def conflicts(self) -> Iterator[UsageError]:
        if self.lid and self.salt:
            yield UsageError("--lid and --salt exclude each other", "Give one of them.")


@configuration
class PeelConfig(BoilConfig):
    """The same options with one more field."""

    knife: Annotated[str, typer.Option(help="Which knife.")] = "small"


def call(kind: type, *words: str) -> tuple[int, Any, str]:
    """Return exit code, configuration and output of a command with the options of `kind`."""
    app, seen = typer.Typer(), []

    def cook(session: Session, config: Any) -> None:
        """Cook."""
        seen.append(config)

    command(app, reads={"config": kind})(cook)
    result = CliRunner().invoke(app, words)
    if isinstance(result.exception, UsageError):
        return result.exception.exit_code, result.exception, result.output
    return result.exit_code, seen[0] if seen else None, result.output


def test_a_field_is_an_option_a_job_field_and_a_keyword() -> None:
    words = ("egg.png", "-m", "7", "--salt", "1.5", "--shell", "white", "--guests", "a, b", "--spoon", "x", "--no-lid")
    _, found, _ = call(BoilConfig, *words)
    same = BoilConfig(egg="egg.png", minutes="7", salt="1.5", shell="white", guests="a,b", spoons=("x",), lid="no")  # type: ignore[arg-type]
    assert found == same == BoilConfig(
        egg=Path("egg.png"), minutes=7, salt=1.5, shell="white", guests=("a", "b"), spoons=(Path("x"),), lid=False
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(found)) == found
    assert replace(found, minutes=9).minutes == 9


def test_one_field_more_is_an_option_a_job_field_and_a_keyword() -> None:
    code, _, help_text = call(PeelConfig, "--help")
    assert (code, "--knife" in help_text, "Which knife." in help_text) == (0, True, True)
    assert "--knife" not in call(BoilConfig, "--help")[2]
    assert call(PeelConfig, "egg.png", "--knife", "big")[1].knife == "big"
    field = field_named(PeelConfig, "Knife")
    assert field is not None
    assert (field.name, PeelConfig(egg="e", **{field.name: "big"}).knife) == ("knife", "big")  # type: ignore[arg-type]

    @with_options(PeelConfig)
    def cook(egg: str, *, report: bool = False, **options: Any) -> None: ...

    assert list(inspect.signature(cook).parameters)[:3] == ["egg", "report", "minutes"]
    assert inspect.signature(cook).parameters["knife"].default == "small"


def test_all_problems_are_reported_at_once_on_the_command_line_and_in_python() -> None:
    code, error, _ = call(BoilConfig, "--minutes", "30", "--salt", "nan", "--shell", "whit", "--guests", ",")
    assert code == 2
    assert isinstance(error, ProblemsError)
    expected = [
        ("missing argument 'EGG'", "What is boiled."),
        ("--minutes cannot be 30", "Give a whole number from 1 to 20."),
        ("--salt cannot be 'nan'", "Give a number."),
        ("--shell cannot be 'whit'", "Did you mean white? Choices: brown, white."),
        ("--guests is empty", "Give names separated by commas, or leave it out."),
    ]
    assert [(each.message, each.hint) for each in error.problems] == expected
    assert error.message.startswith("5 problems:\n  missing argument 'EGG'. What is boiled.\n  --minutes")
    with pytest.raises(ProblemsError) as caught:
        BoilConfig(minutes=30, salt=float("nan"), shell="whit", guests=",", spon="x")  # type: ignore[call-arg,arg-type]
    assert [each.message for each in caught.value.problems] == [
        "missing argument 'EGG'",
        "--minutes cannot be 30",
        "--salt cannot be nan",
        "--shell cannot be 'whit'",
        "--guests is empty",
        "boil has no option 'spon' (did you mean 'spoons'?)",
    ]


def test_a_single_problem_is_reported_as_it_is_and_its_traceback_has_the_hint() -> None:
    with pytest.raises(UsageError) as caught:
        BoilConfig(egg="e", lid=True, salt=1)  # type: ignore[arg-type]
    assert not isinstance(caught.value, ProblemsError)
    assert caught.value.__notes__ == ["hint: Give one of them."]


@pytest.mark.parametrize(
    "wrong",
    [
        {"minutes": True},
        {"minutes": 2.5},
        {"minutes": 10**40},
        {"minutes": "9" * 400},
        {"minutes": "1_0"},
        {"salt": "inf"},
        {"salt": "1" * 38},
        {"lid": 2},
        {"lid": "maybe"},
        {"spoons": 7},
        {"shell": None},
        {"secret": ["x"]},
    ],
    ids=str,
)
def test_what_no_option_means_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"--minutes|--salt|--lid|--spoon|--shell|secret"):
        BoilConfig(egg="e", **wrong)  # type: ignore[arg-type]


def test_names_in_job_files() -> None:
    named = {"driving-crop": "driving_crop", "Source": "source", "view": "views", "key": "sign_key", "VIEWS": "views"}
    for written, name in named.items():
        field = field_named(AnimateConfig, written)
        assert field is not None
        assert field.name == name
    set_field = field_named(ModelChoice, "set")
    assert set_field is not None
    assert set_field.name == "sets"
    assert field_named(AnimateConfig, "cropp") is None


def test_options_of_animate_as_text_are_what_they_are_as_values() -> None:
    texts = {"smooth": "on", "size": "256", "batch_size": "auto", "views": "a.png", "fps": 29.97, "best_frame": 3}
    found = AnimateConfig(source="s", driving="d", start="1:02", **texts)  # type: ignore[arg-type]
    assert (found.smooth, found.size, found.batch_size, found.views) == (True, 256, None, (Path("a.png"),))
    assert (found.fps, found.best_frame, found.start) == (Fraction(30000, 1001), "3", Fraction(62))
    wrong: list[dict[str, Any]] = [
        {"smooth": 2}, {"size": True}, {"codec": ["x"]}, {"output": 3}, {"fps": "1e9_9999_9999"}, {"fps": 0},
        {"start": "1e29"}, {"crop": "9" * 38}, {"crop": f"0,0,{'9' * 38}"}, {"crop": "0,0,60000"}, {"crop": 3},
        {"best_frame": "9" * 12}, {"audio_track": "0"}, {"audio_track": "1.5"}, {"audio": "sideways"}, {"sizee": 1},
        {"batch_size": "0"}, {"head_motion": 1.5}, {"source_width": 0}, {"seed": 0},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(UsageError):
            AnimateConfig(source="s", driving="d", **options)  # type: ignore[arg-type]


def test_the_signature_of_animate_in_python_is_that_of_its_options() -> None:
    from fommctl import Animator

    parameters = inspect.signature(Animator.animate).parameters
    assert list(parameters)[:5] == ["self", "source", "driving", "output", "report"]
    assert set(option_fields(AnimateConfig)) <= set(parameters)
    assert parameters["on_missing"].default == "hold"


def test_every_option_has_a_help() -> None:
    for kind in (AnimateConfig, ModelChoice):
        for field in option_fields(kind).values():
            assert field.info is None or field.info.help, field.name
