"""The plugin host: faulty plugins, and equal treatment of all plugins."""

import logging
import sys
from collections.abc import Callable
from colorsys import rgb_to_hsv
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from distributions import BROKEN, GOOD, install_metadata

from fommctl.api import BackendSpec, UsageError
from fommctl.api.metrics import FrameChunk, MetricClip
from fommctl.host import Host, PluginInfo, load_host

HOOK = "from fommctl.api import hookimpl\n@hookimpl\n"
DATASET = """
    from fommctl.api import DatasetSpec, hookimpl

    @hookimpl
    def fommctl_datasets():
        yield DatasetSpec(name="{name}", summary="s", licence="l", build=list)
"""


def info(host: Host, name: str) -> PluginInfo:
    return next(plugin for plugin in host.plugins if plugin.name == name)


def test_first_party_plugins_come_through_the_entry_points(host: Host) -> None:
    ours = {plugin.name: plugin for plugin in host.plugins if plugin.distribution == "fommctl"}
    assert {"fomm", "faces", "synthetic"} <= set(ours)
    assert all(plugin.problem is None for plugin in ours.values())
    assert {"synthetic", "synthetic-256", "synthetic-shapes"} <= set(ours["synthetic"].registers["dataset"])
    assert host.find("dataset", "synthetic") is host.datasets["synthetic"]


def test_a_third_party_plugin_is_treated_like_ours(third_party: Callable[..., None]) -> None:
    """`plugins list` shows what is known of it."""
    third_party(GOOD)
    host = load_host()
    scorer = host.find("metric", "mean-difference").build().clip(MetricClip("clip", rate=25.0))
    scorer.add(FrameChunk(np.uint8([[[[3]]]]), np.uint8([[[[1]]]])))
    assert scorer.finish().value == 2.0


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (BROKEN, "does not load: ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise SystemExit(3)", "does not load: SystemExit: 3"),
        ("this is no Python", "does not load: SyntaxError: invalid syntax"),
        (
            f"{HOOK}def fommctl_dataset(): return []",
            "unknown hook fommctl_dataset (did you mean 'fommctl_datasets'?)",
        ),
        ("def fommctl_datasets(): return []", "fommctl_datasets is not marked with @hookimpl"),
        (f"{HOOK}def fommctl_datasets(root): return []", "does not load: PluginValidationError"),
        (f"{HOOK}def fommctl_datasets(): return 3", "fommctl_datasets returned int, not several DatasetSpec"),
        (f"{HOOK}def fommctl_datasets(): return ['x']", "fommctl_datasets: str is not a DatasetSpec"),
        (f"{HOOK}def fommctl_datasets(): raise KeyError('k')", "fommctl_datasets failed: KeyError: 'k'"),
        (f"{HOOK}def fommctl_datasets(): raise SystemExit", "fommctl_datasets failed: SystemExit"),
        (
            f"class Odd(BaseException): pass\n{HOOK}def fommctl_datasets(): raise Odd('not an Exception')",
            "fommctl_datasets failed: Odd: not an Exception",
        ),
        (DATASET.format(name="Upper Case"), "the dataset name 'Upper Case' may only have lower-case letters"),
        (
            DATASET.format(name="ok").replace("build=list", "build=3"),
            "build of the dataset 'ok' is not callable, or 'module:Name'",
        ),
        (
            DATASET.format(name="ok").replace("build=list", "build='no name'"),
            "build of the dataset 'ok' is not callable",
        ),
        (DATASET.format(name="ok").replace('"l"', "None"), "licence of the dataset 'ok' is not a str"),
    ],
)
def test_a_broken_plugin_is_a_warning_that_names_it(
    third_party: Callable[..., None], caplog: pytest.LogCaptureFixture, source: str, problem: str
) -> None:
    third_party(source, name="Bad.Plugin", entry="bad")
    host = load_host()
    with caplog.at_level(logging.WARNING, "fommctl.host"):
        found = info(host, "bad")
    assert found.problem is not None
    assert problem in found.problem
    assert found.distribution == "Bad.Plugin"
    assert "synthetic" in host.datasets
    assert [record.getMessage() for record in caplog.records] == [
        f"plugin 'bad' (bad_plugin) of Bad.Plugin: {found.problem}"
    ]


def test_functions_by_name_are_imported_when_they_are_called(third_party: Callable[..., None]) -> None:
    third_party(DATASET.format(name="by-name").replace("build=list", 'build="colorsys:rgb_to_hsv"'), entry="by-name")
    spec = load_host().datasets["by-name"]
    assert cast(Any, spec.build)(0, 0, 1) == (2 / 3, 1, 1)
    assert replace(spec, summary="another").build == spec.build
    thing = BackendSpec(
        name="a", summary="", schema="colorsys:rgb_to_hsv", recognises="math:fsum", build="no.such:Thing"
    )
    assert cast(Any, thing.schema()) is rgb_to_hsv
    with pytest.raises(ModuleNotFoundError, match=r"no\.such|'no'"):
        thing.build(cast(Any, None))


def test_a_module_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install_metadata(tmp_path, "gone", "1", {"gone": "gone_module", "odd": "not a reference!"})
    monkeypatch.syspath_prepend(tmp_path)
    host = load_host()
    assert info(host, "gone").problem == "does not load: ModuleNotFoundError: No module named 'gone_module'"
    assert "does not load" in str(info(host, "odd").problem)
    assert len(caplog.records) == 2


def test_what_is_good_in_a_plugin_remains(third_party: Callable[..., None]) -> None:
    third_party(
        """
        from fommctl.api import CommandSpec, DatasetSpec, hookimpl

        @hookimpl
        def fommctl_datasets():
            yield DatasetSpec(name="first", summary="s", licence="l", build=list)
            yield DatasetSpec(name="not good", summary="s", licence="l", build=list)
            yield DatasetSpec(name="third", summary="s", licence="l", build=list)
            raise RuntimeError("and that is all")

        @hookimpl
        def fommctl_commands():
            yield CommandSpec(name="fine", summary="s", build=list)
        """
    )
    found = info(load_host(), "good")
    assert found.registers == {"dataset": ("first", "third"), "command": ("fine",)}
    assert found.problem is not None
    assert "'not good'" in found.problem
    assert "RuntimeError: and that is all" in found.problem
    assert found.traceback is not None
    assert found.traceback.endswith("RuntimeError: and that is all\n")


def test_hooks_may_be_methods_of_an_object(third_party: Callable[..., None]) -> None:
    third_party(
        """
        from fommctl.api import DatasetSpec, hookimpl

        class Plugin:
            @hookimpl
            def fommctl_datasets(self):
                return [DatasetSpec(name="of-object", summary="s", licence="l", build=list)]

        plugin = Plugin()
        """,
        value="good_plugin:plugin",
    )
    assert info(load_host(), "good").registers == {"dataset": ("of-object",)}


def test_what_a_plugin_prints_does_not_reach_stdout(
    third_party: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    third_party("from fommctl.api import hookimpl\nprint('loading')\n@hookimpl\ndef fommctl_datasets(): print('asked')")
    load_host()
    assert capsys.readouterr() == ("", "loading\nasked\n")


def test_two_specs_of_one_name_are_an_error_that_names_both(third_party: Callable[..., None]) -> None:
    third_party(DATASET.format(name="twice"), name="one-plugin", entry="one")
    third_party(DATASET.format(name="twice"), name="other-plugin", entry="other")
    with pytest.raises(UsageError, match=r"more than one dataset 'twice': .*one-plugin and .*other-plugin") as caught:
        load_host()
    assert "FOMMCTL_PLUGINS" in str(caught.value.hint)
    host = load_host(check=False)
    assert "twice" not in host.datasets
    assert "synthetic" in host.datasets
    assert len(host.conflicts()) == 1
    with pytest.raises(UsageError, match=r"one-plugin and .*other-plugin"):
        host.find("dataset", "twice")


PRESET = """
    from pathlib import Path
    from fommctl.api import PresetSpec, hookimpl

    @hookimpl
    def fommctl_presets():
        yield PresetSpec(name="{name}", summary="s", path=Path("x.yaml"), aliases=("{alias}",))
"""


def test_aliases_count_as_names(third_party: Callable[..., None]) -> None:
    third_party(PRESET.format(name="walk-256", alias="walk"), name="one-plugin", entry="one")
    host = load_host()
    assert host.find("preset", "walk").name == "walk-256"
    assert "walk" not in host.presets
    third_party(PRESET.format(name="walk", alias="stroll"), name="other-plugin", entry="other")
    with pytest.raises(UsageError, match="more than one preset 'walk'"):
        load_host()


def test_one_default_model(third_party: Callable[..., None]) -> None:
    model = """
        from fommctl.api import ModelSpec, hookimpl

        @hookimpl
        def fommctl_models():
            for name in "ab":
                yield ModelSpec(name=name, summary="s", preset="p", licence="l", default=True)
    """
    third_party(model)
    with pytest.raises(UsageError, match="more than one default model"):
        load_host()


def test_a_distribution_that_is_found_twice_does_not_conflict_with_itself(
    third_party: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third_party(DATASET.format(name="mine"), name="my-plugin", entry="mine")
    install_metadata(tmp_path / "copy", "My_Plugin", "0.9", {"mine": "my_plugin"})
    monkeypatch.syspath_prepend(tmp_path)
    sys.path.append(str(tmp_path / "copy"))
    host = load_host()
    assert [plugin.version for plugin in host.plugins if plugin.name == "mine"] == ["1.2"]


def test_restriction_by_environment(
    third_party: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    third_party(BROKEN, name="bad-plugin", entry="bad")
    monkeypatch.setenv("FOMMCTL_PLUGINS", "synthetic, fomm")
    assert [plugin.name for plugin in load_host().plugins] == ["synthetic", "fomm"]
    monkeypatch.setenv("FOMMCTL_PLUGINS", "")
    assert load_host().plugins == ()
    assert not caplog.records
    monkeypatch.setenv("FOMMCTL_PLUGINS", "synthetic,nonesuch")
    host = load_host()
    assert host.warnings == ("FOMMCTL_PLUGINS names 'nonesuch', which no installed plugin has",)
    assert [record.getMessage() for record in caplog.records] == list(host.warnings)


def test_an_unknown_name_is_answered_with_the_nearest(host: Host) -> None:
    with pytest.raises(UsageError, match="unknown dataset 'sintetic'") as caught:
        host.find("dataset", "sintetic")
    assert caught.value.hint == "Did you mean 'synthetic'?"
    with pytest.raises(UsageError) as caught:
        host.find("dataset", "zzz")
    assert caught.value.hint == f"Known: {', '.join(host.names('dataset'))}."


def test_an_unknown_name_may_be_that_of_a_broken_plugin(third_party: Callable[..., None]) -> None:
    third_party(BROKEN, name="bad-plugin", entry="bad")
    with pytest.raises(UsageError) as caught:
        load_host().find("dataset", "zzz")
    assert "fommctl plugins list" in str(caught.value.hint)


def test_a_wrapper_does_not_wrap_the_hooks_of_others(third_party: Callable[..., None]) -> None:
    source = """
        from fommctl.api import hookimpl

        @hookimpl(wrapper=True)
        def fommctl_datasets():
            yield
            return []
    """
    third_party(source, name="wrapping", entry="wrapping")
    assert "synthetic" in load_host().datasets
