"""What every test stands on: a home of its own, no network, the plugin host, and ways to run the command."""

from collections.abc import Callable
from pathlib import Path

import command_line
import pytest

from fommctl.host import Host, load_host


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FOMMCTL_HOME in a temporary folder, no downloads, all plugins; returns the home."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FOMMCTL_HOME", str(home))
    monkeypatch.setenv("FOMMCTL_OFFLINE", "1")
    monkeypatch.delenv("FOMMCTL_PLUGINS", raising=False)
    return home


@pytest.fixture
def host() -> Host:
    """The host with the plugins of this installation."""
    return load_host()


@pytest.fixture
def run_cli() -> Callable[..., command_line.Result]:
    """run_cli("animate", ...) in this process -> Result(code, stdout, stderr, json())."""
    return command_line.run_inside


@pytest.fixture
def run_process() -> Callable[..., command_line.Result]:
    """run_process("animate", ..., path=FOLDER_OF_DISTRIBUTIONS, VARIABLE="value") in a process of its own."""
    return command_line.run_process
