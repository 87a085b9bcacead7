"""Defaults of `animate`: the option, then the preset, then the general default."""

from pathlib import Path

import pytest

from fommctl.animate.config import AnimateConfig
from fommctl.animate.plan import AS_PUBLISHED, GENERAL, resolve
from fommctl.errors import UsageError
from fommctl.presets.preset import load_preset, preset_from_text, presets_root, with_usual_defaults

SMOKE = presets_root() / "smoke.yaml"
OTHERS = {
    "best_frame": "auto",
    "smooth": True,
    "motion": "absolute",
    "adapt_scale": False,
    "size": 128,
    "source_width": 0.4,
    "driving_width": 0.45,
    "head_motion": 0.25,
    "expression": 1.0,
}
SETS = [f"animate_params.defaults.{name}={str(value).lower()}" for name, value in OTHERS.items()]


def resolved(host, sets=(), preset="smoke", **options):
    loaded = load_preset(preset, host, sets=sets)
    config = AnimateConfig(source=Path("a.png"), driving=Path("b.mp4"), **options)
    return resolve(config, loaded, host.find("backend", loaded.backend))


def values(config):
    return {name: getattr(config, name) for name in OTHERS}


def test_every_default_can_be_set_in_a_preset_and_is_part_of_as_published():
    assert set(GENERAL) == set(AS_PUBLISHED) >= set(OTHERS)


def test_the_general_defaults(host):
    assert values(resolved(host)) == {
        "best_frame": "first",
        "smooth": False,
        "motion": "relative",
        "adapt_scale": True,
        "size": None,
        "source_width": None,
        "driving_width": None,
        "head_motion": 0.25,
        "expression": 1.0,
    }


def test_a_preset_changes_what_is_left_open(host):
    assert values(resolved(host, SETS)) == OTHERS
    given = {"best_frame": "3", "smooth": False, "motion": "relative", "adapt_scale": True, "size": 64}
    assert values(resolved(host, SETS, **given)) == {**OTHERS, **given}


@pytest.mark.parametrize("name", OTHERS)
def test_one_default_leaves_the_others(host, name):
    found = values(resolved(host, [each for each in SETS if f".{name}=" in each]))
    assert found == {**values(resolved(host)), name: OTHERS[name]}


def test_as_published_whatever_the_preset_says(host):
    assert values(resolved(host, SETS, as_published=True)) == {
        **{name: AS_PUBLISHED[name] for name in OTHERS},
        "motion": "relative",
    }
    assert resolved(host, SETS, as_published=True, smooth=True, size=64).smooth is True
    assert resolved(host, SETS, as_published=True, size=64).size == 64


def test_resolving_again_changes_nothing(host):
    for options in ({}, {"as_published": True}, {"smooth": False}):
        loaded = load_preset("smoke", host, sets=SETS)
        once = resolved(host, SETS, **options)
        assert resolve(once, loaded, host.find("backend", loaded.backend)) == once


def test_motion_follows_the_model(host):
    assert resolved(host, preset="small-x2face").motion == "absolute"
    with pytest.raises(UsageError, match="do not support --motion relative"):
        resolved(host, preset="small-x2face", motion="relative")


def test_mistakes_in_the_section_are_reported_with_the_nearest_key(host):
    with pytest.raises(UsageError, match="did you mean 'smooth'"):
        load_preset("smoke", host, sets=["animate_params.defaults.smoth=true"])
    for wrong in ("best_frame=last", "size=0", "source_width=0", "driving_width=3", "head_motion=1.5", "smooth=1"):
        with pytest.raises(UsageError, match=wrong.partition("=")[0]):
            load_preset("smoke", host, sets=[f"animate_params.defaults.{wrong}"])


def test_defaults_are_shown_and_read_back(host):
    loaded = load_preset("smoke", host, sets=SETS)
    assert "head_motion: 0.25" in loaded.text()
    again = preset_from_text(loaded.text(), host, source="again")
    assert again.pairs().defaults == loaded.pairs().defaults
    assert "defaults" not in load_preset("vox-256", host).text()


def test_monkey_net_has_defaults_in_its_own_section(host):
    found = resolved(host, ["transfer_params.defaults.smooth=true"], preset="small-monkeynet")
    assert found.smooth is True


def test_a_stored_preset_takes_the_defaults_of_its_name(host):
    """Models that were saved before presets had defaults."""
    usual = load_preset("faces-mini", host)
    stored = preset_from_text(usual.text(), host, source="model")
    pairs = stored.pairs().model_copy(update={"defaults": None})
    bare = stored.model_copy(update={"animate_params": pairs})
    assert with_usual_defaults(bare, host).pairs().defaults == usual.pairs().defaults
    own = preset_from_text(usual.text(), host, source="model", sets=["animate_params.defaults.size=512"])
    assert with_usual_defaults(own, host) == own
    stranger = bare.model_copy(update={"name": "mine"})
    assert with_usual_defaults(stranger, host) == stranger


def test_a_stored_preset_does_not_need_that_of_its_name(host, monkeypatch, tmp_path):
    from fommctl.presets import preset as presets

    monkeypatch.setattr(presets, "presets_root", lambda: tmp_path)
    (tmp_path / "smoke.yaml").write_text("model_params: [")
    stored = preset_from_text(SMOKE.read_text(), host, source="model").model_copy(update={"name": "smoke"})
    assert with_usual_defaults(stored, host) == stored


@pytest.mark.parametrize(
    ("option", "value"),
    [("source_width", 0.0), ("driving_width", 2.5), ("head_motion", -0.1), ("head_motion", float("nan"))],
)
def test_widths_and_shares_that_make_no_sense(option, value):
    with pytest.raises(UsageError, match=option.replace("_", ".")):
        AnimateConfig(source=Path("a"), driving=Path("b"), **{option: value})
