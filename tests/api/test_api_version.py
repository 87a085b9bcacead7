"""The version of the plugin API: who suits whom, what the host says of those that do not, and what it promises."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fommctl.api.version import API_VERSION, version_fault
from fommctl.host import PluginInfo, load_host

PLUGINS = Path(__file__).parents[2] / "plugins"
DATASET = """
    {before}
    from fommctl.api import DatasetSpec, hookimpl
    {after}

    @hookimpl
    def fommctl_datasets():
        yield DatasetSpec(name="dated", summary="s", licence="l", build=list)
"""


@pytest.mark.parametrize(
    ("declared", "offered", "advice"),
    [
        ("1.0", "1.0", None),
        ("1.0", "1.7", None),
        ("1.8", "1.7", "made for version 1.8 of the plugin API, and this fommctl offers 1.7: upgrade fommctl"),
        ("1.10", "1.9", "upgrade fommctl"),
        ("2.0", "1.7", "upgrade fommctl"),
        ("1.7", "2.0", "upgrade the plugin"),
        (1.0, "1.0", "fommctl_api is 1.0, not a version as text"),
        ("1", "1.0", "fommctl_api is '1', not a version as text, such as fommctl_api = '1.0'"),
        ("1.0.0", "1.0", "not a version"),
        ("newest", "1.0", "not a version"),
        ("", "1.0", "not a version"),
    ],
)
def test_which_plugins_suit(declared: object, offered: str, advice: str | None) -> None:
    fault = version_fault(declared, offered)
    assert fault is None if advice is None else advice in str(fault)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_same_major_and_no_higher_minor(major: int, minor: int, own_major: int, own_minor: int) -> None:
    fault = version_fault(f"{major}.{minor}", f"{own_major}.{own_minor}")
    assert (fault is None) == (major == own_major and minor <= own_minor)


def loaded(third_party: Callable[..., None], source: str, **options: str) -> PluginInfo:
    third_party(source, **options)
    host = load_host()
    assert "synthetic" in host.datasets
    return next(info for info in host.plugins if info.name == "good")


@pytest.mark.parametrize(
    ("before", "after", "api", "registers"),
    [
        ("", f'fommctl_api = "{API_VERSION}"', API_VERSION, {"dataset": ("dated",)}),
        ("", "", None, {"dataset": ("dated",)}),
        ("", "fommctl_api = '2.0'", "2.0", {}),
        ("", "fommctl_api = 1.0", None, {}),
    ],
)
def test_a_plugin_for_another_version_is_not_asked(
    third_party: Callable[..., None], before: str, after: str, api: str | None, registers: object
) -> None:
    info = loaded(third_party, DATASET.format(before=before, after=after))
    assert (info.api, info.registers) == (api, registers)
    assert (info.problem is None) == bool(registers)
    assert info.traceback is None


@pytest.mark.parametrize("written", ["fommctl_api = '9.3'", 'fommctl_api: str = "9.3"'])
def test_what_only_a_newer_api_has_is_told_as_such(third_party: Callable[..., None], written: str) -> None:
    """The import fails before the declaration can be read from the module."""
    info = loaded(third_party, DATASET.format(before=written, after="from fommctl.api import Hologram"))
    assert info.api == "9.3"
    assert info.problem == (
        f"it was made for version 9.3 of the plugin API, and this fommctl offers {API_VERSION}: upgrade fommctl"
    )


def test_a_failing_import_of_a_plugin_that_suits(third_party: Callable[..., None]) -> None:
    info = loaded(third_party, DATASET.format(before="fommctl_api = '1.0'", after="import nowhere_to_be_found"))
    assert info.problem == "does not load: ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    assert info.api == "1.0"


OBJECT = """
    from fommctl.api import hookimpl
    {module}

    class Plugin:
        {own}
        @hookimpl
        def fommctl_datasets(self):
            return []

    plugin = Plugin()
"""


@pytest.mark.parametrize(
    ("module", "own", "api"),
    [("", "fommctl_api = '1.0'", "1.0"), ("fommctl_api = '1.0'", "", "1.0"), ("fommctl_api = '7.0'", "", "7.0")],
)
def test_an_object_or_its_module_declares(third_party: Callable[..., None], module: str, own: str, api: str) -> None:
    info = loaded(third_party, OBJECT.format(module=module, own=own), value="good_plugin:plugin")
    assert info.api == api
    assert (info.problem is None) == (api == "1.0")


@pytest.mark.parametrize("plugin", sorted(PLUGINS.glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_ours_state_their_version_themselves(plugin: Path) -> None:
    """Not taken over from fommctl, which would make every plugin suit every version."""
    tree = ast.parse(plugin.read_text(encoding="utf-8"))
    values = [
        ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "fommctl_api"
    ]
    assert values == ["'1.0'"]
