"""Shots for jobs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from batches import write_shots


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only shots."""
    return write_shots(tmp_path_factory.mktemp("shots"))


@pytest.fixture
def folder(shots: Path, tmp_path: Path) -> Path:
    """A copy of the shots."""
    shutil.copytree(shots, tmp_path / "night")
    return tmp_path / "night"
