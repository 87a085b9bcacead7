"""The help of every command: a summary, its options, an example that parses. The output of --help is recorded in
tests/golden/help: `pytest tests/cli/test_help.py --write-golden` rewrites it; delete the text of a removed command by
hand."""

import re
import shlex
from pathlib import Path

import pytest

from fommctl.cli.main import COMMANDS
from fommctl.cli.options import built


def commands(command, path):
    """Yield (words, command) for a command, or for every command below a group."""
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            yield from commands(each, (*path, name))
    else:
        yield path, command


ALL = dict(pair for name in COMMANDS for pair in commands(built(name), (name,)))
GROUPS = {words[:length] for words in ALL for length in range(len(words))}
"""Words of every group of commands; () is fommctl itself."""
HELP = Path(__file__).parents[1] / "golden" / "help"


def file_name(words):
    return "-".join(words or ("fommctl",)) + ".txt"


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


@pytest.mark.parametrize("words", sorted([*GROUPS, *ALL]), ids=file_name)
def test_the_text_is_as_recorded(words, run_cli, golden, monkeypatch):
    """160 columns wrap few sentences; without colours, which typer takes from the environment."""
    monkeypatch.setenv("COLUMNS", "160")
    text = re.sub(r"\x1b\[[0-9;]*m", "", run_cli(*words, "--help").stdout)
    golden(f"help/{file_name(words)}", "".join(f"{line.rstrip()}\n" for line in text.splitlines()))


def test_no_text_is_left_over():
    assert {path.name for path in HELP.iterdir()} == {file_name(words) for words in (*GROUPS, *ALL)}
