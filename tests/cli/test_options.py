"""Errors in the words of a command, and shell completion."""

import os
from pathlib import Path

import pytest
from command_line import run_process

import fommctl
from fommctl.cli.console import clean


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("animate -s a.png -d b.mp4", "animate SOURCE DRIVING -o RESULT"),
        ("animate --source a.png", "animate SOURCE DRIVING -o RESULT"),
        ("animate --source_image a.png", "animate SOURCE DRIVING -o RESULT"),
        ("animate a.png b.mp4 out.mp4", "Name the result with -o"),
        ("animate a.png b.mp4 --relative", "Write --motion relative"),
        ("animate a.png b.mp4 -y", "Write --overwrite"),
        ("animate a.png b.mp4 --force", "Write --overwrite"),
        ("animate a.png b.mp4 --driving_crop none", "Did you mean --driving-crop?"),
        ("train --epochs 3", "Write --max-steps N"),
        ("anmate a.png b.mp4", "Did you mean animate?"),
    ],
)
def test_habits_of_other_tools_and_mistyped_words_get_a_hint(words: str, hint: str, run_cli) -> None:
    result = run_cli(*words.split())
    assert (result.code, result.stdout) == (2, "")
    assert hint in result.stderr.splitlines()[-1]


def test_a_missing_input_is_reported_before_anything_is_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemError('torch was imported')")
    result = run_process("animate", tmp_path / "no.png", tmp_path / "no.mp4", path=tmp_path)
    assert (result.code, result.stderr.splitlines()[0]) == (3, f"error: {tmp_path / 'no.png'} does not exist")


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("animate --motion ", {"relative", "absolute"}),
        ("animate --preset vox-a", {"vox-adv-256", "vox-adv"}),
        ("presets show vox-adv-", {"vox-adv-256"}),
        ("models pull faces-", {"faces-mini"}),
        ("evaluate --metrics psnr,ssi", {"psnr,ssim"}),
    ],
)
def test_the_shell_completes_values(words: str, values: set[str], run_beside) -> None:
    count = len(words.split()) + words.endswith(" ")
    changed = {"_FOMMCTL_COMPLETE": "complete_bash", "COMP_WORDS": f"fommctl {words}", "COMP_CWORD": str(count)}
    result = run_beside(**changed)
    assert result.code == 0
    assert values <= set(result.stdout.split())


def test_control_characters_reach_no_terminal(tmp_path: Path, run_cli) -> None:
    name = "a\x1b[31m\nerror: forged\x07.png"
    result = run_cli("animate", tmp_path / name, "b.mp4")
    assert result.code == 3
    assert "\x1b" not in result.stderr
    assert "\x07" not in result.stderr
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["error", "  error", "hint"]
    assert clean("one\ntwo\u202e") == "one\n  two\ufffd"


@pytest.mark.parametrize(
    "words",
    [
        ("animate", "https://example.org/b%20c.png", "b.mp4"),
        ("crop", "https://example.org/b%20c.png", "-o", "out"),
        ("inspect", "https://example.org/b%20c.png"),
        ("preprocess", "faces", "https://example.org/b%20c.png", "-o", "out"),
        ("evaluate", "--data", "https://example.org/b%20c.png", "-o", "out"),
    ],
)
def test_an_address_is_called_one_by_every_command(
    words: tuple[str, ...], run_cli, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_cli(*words)
    assert result.code == 3
    assert "https://example.org/b%20c.png is a URL, but fommctl reads only files" in result.stderr
    assert "Download it first" in result.stderr


def test_a_name_that_begins_with_a_dash_is_explained(run_cli) -> None:
    result = run_cli("animate", "-clip.mp4", "talk.mp4")
    assert (result.code, result.stderr.splitlines()[-1]) == (
        2,
        "hint: Write a file name that starts with a dash as ./-clip.mp4.",
    )


RED = """
    import sys
    from fommctl.api import CommandSpec, hookimpl


    def build():
        import typer

        app = typer.Typer()

        @app.callback(invoke_without_command=True)
        def root(how: str = "exit"):
            if how == "exit":
                sys.exit("\\x1b[31mred")
            raise ValueError("\\x1b[31mred")

        return app


    @hookimpl
    def fommctl_commands():
        yield CommandSpec(name="red", summary="\\x1b]0;title\\x07Paints", build=build)
"""


def test_control_characters_of_plugins_neither(run_cli, third_party) -> None:
    third_party(RED, name="red-plugin", entry="red")
    for words in (("red",), ("red", "--how", "error"), ("red", "--how", "error", "--debug"), ("plugins", "list")):
        result = run_cli(*words)
        assert "\x1b" not in result.stderr + result.stdout, words
    assert "\ufffd[31mred" in run_cli("red").stderr
    help_text = run_cli("--help").stdout
    assert "\x1b]0" not in help_text
    assert "Paints" in help_text


def test_the_public_names_are_listed() -> None:
    assert {"Animator", "load"} <= set(dir(fommctl))


def test_a_home_that_does_not_exist_is_no_bug(run_cli) -> None:
    result = run_cli("animate", "~nosuchuser/a.png", "b.mp4")
    assert (result.code, os.linesep in result.stderr) == (3, True)
    assert "bug" not in result.stderr
