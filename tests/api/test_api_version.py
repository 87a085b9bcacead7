"""Compatibility of plugins with this version of fommctl, by the dependencies of their distributions."""

from collections.abc import Callable

import pytest

from fommctl import __version__
from fommctl.host import PluginInfo, load_host

DATASET = """
    {before}
    from fommctl.api import DatasetSpec, hookimpl

    @hookimpl
    def fommctl_datasets():
        yield DatasetSpec(name="dated", summary="s", licence="l", build=list)
"""


def loaded(third_party: Callable[..., None], requires: str | None, before: str = "") -> PluginInfo:
    third_party(DATASET.format(before=before), requires=requires)
    host = load_host()
    assert "synthetic" in host.datasets
    return next(info for info in host.plugins if info.name == "good")


@pytest.mark.parametrize(
    ("requires", "versions"),
    [
        ("fommctl>=2,<3", "<3,>=2"),
        ("fommctl[train]>=2 ; python_version > '3'", ">=2"),
        ("Fommctl", ""),
        ("fommctl-other>=9", None),
        ("fommctl>>9", None),
        (None, None),
    ],
)
def test_plugins_that_suit(third_party: Callable[..., None], requires: str | None, versions: str | None) -> None:
    info = loaded(third_party, requires)
    assert (info.requires, info.problem, info.registers) == (versions, None, {"dataset": ("dated",)})


@pytest.mark.parametrize("requires", ["fommctl<2,>=1", "fommctl>=99"])
def test_a_plugin_for_another_version_is_not_imported(
    third_party: Callable[..., None], caplog: pytest.LogCaptureFixture, requires: str
) -> None:
    info = loaded(third_party, requires, "from fommctl.api import Hologram")
    assert info.problem == f"it requires {requires}, and this is fommctl {__version__}"
    assert (info.registers, info.traceback) == ({}, None)
    assert f"plugin 'good' (good_plugin) of good-plugin: {info.problem}" in caplog.text


def test_a_failing_import_of_a_plugin_that_suits(third_party: Callable[..., None]) -> None:
    info = loaded(third_party, "fommctl>=2,<3", "import nowhere_to_be_found")
    assert info.problem == "does not load: ModuleNotFoundError: No module named 'nowhere_to_be_found'"
