"""Every command explains itself: a summary, its options, an example that parses."""

import shlex

import pytest

from fommctl.cli.main import COMMANDS
from fommctl.cli.options import built


def commands(command, path):
    """(words, command) of a command, or of every command below a group."""
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            yield from commands(each, (*path, name))
    else:
        yield path, command


ALL = dict(pair for name in COMMANDS for pair in commands(built(name), (name,)))


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
        given = shlex.split(example)[1:]
        assert tuple(given[: len(words)]) == words
        command = ALL[words]
        with command.make_context(" ".join(words), given[len(words) :]):
            pass
