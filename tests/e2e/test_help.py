"""Every command explains itself: a summary, its options, an example that parses."""

import shlex

import pytest
import typer.main

from fommctl.cli.app import build_app


def commands(group, path=()):
    """(words, command) of every command below a group."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands(typer.main.get_command(build_app())))


def test_the_commands_are_there():
    expected = {("animate",), ("bench",), ("demo",), ("models", "pull"), ("plugins", "list"), ("presets", "show")}
    assert expected <= set(ALL)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help(words, run_cli):
    result = run_cli(*words, "--help")
    assert result.code == 0
    assert f"fommctl {' '.join(words)}" in result.stdout
    assert "Example" in result.stdout
    for parameter in ALL[words].params:
        assert parameter.help or parameter.name == "help", parameter.name


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_examples_parse(words):
    lines = [line.strip() for line in (ALL[words].epilog or "").splitlines()]
    examples = [line.removeprefix("Example: ") for line in lines if "fommctl " in line]
    assert examples
    for example in examples:
        given = shlex.split(example)
        # torchrun ... -m fommctl train ...
        given = given[given.index("fommctl") + 1 :]
        assert tuple(given[: len(words)]) == words
        command = ALL[words]
        with command.make_context(" ".join(words), given[len(words) :]):
            pass
