"""Plugins that raise, end the process, conflict or are not ready: installed as a third party's are."""

import sys

import distributions

from fommctl.detection.framing import choose_detector, ready_detectors
from fommctl.host import load_host
from fommctl.stages.doctor import plugins
from fommctl.stages.doctor.probe import Probes, Seen

ODD = """
    from fommctl.api import DetectorSpec, hookimpl

    def _ready():
        raise KeyError("which")

    @hookimpl
    def fommctl_detectors():
        return [DetectorSpec(name="odd", summary="Odd", subject="face", build=object, ready=_ready, priority=99)]
"""


def examined(folder, monkeypatch, limit=60.0):
    """The findings by name, with the distributions in `folder`; looked at in a real process."""
    monkeypatch.syspath_prepend(folder)
    with Probes(limit) as probes:
        seen = probes.start(plugins.items()).result()
    found = list(plugins.check_plugins(seen))
    for name in [name for name in sys.modules if name.startswith("their_")]:
        del sys.modules[name]
    return {finding.name: finding for finding in found}


def test_what_is_installed(monkeypatch, tmp_path):
    found = examined(tmp_path, monkeypatch)
    assert found["fomm"].level == "ok"
    assert "1 backend" in found["fomm"].value
    assert found["dlib-hog"].level == "ok"
    assert not any(finding.level == "problem" for finding in found.values())


def test_a_plugin_that_raises_and_one_whose_detector_is_odd(monkeypatch, tmp_path):
    distributions.install(tmp_path, distributions.BROKEN, name="their-broken", entry="broken")
    distributions.install(tmp_path, ODD, name="their-odd", entry="oddity")
    found = examined(tmp_path, monkeypatch)
    assert (found["broken"].level, found["broken"].stops) == ("problem", False)
    assert found["broken"].value == (
        "their-broken 1.2; does not load: ModuleNotFoundError: No module named 'no_such_library'"
    )
    assert found["broken"].advice.startswith("Run 'pip install --upgrade their-broken' or uninstall it")
    assert (found["odd"].level, found["odd"].value) == (
        "note",
        "face: whether it is ready cannot be told: KeyError: 'which'",
    )
    assert found["dlib-hog"].value == "face: ready, taken where none is named"


def test_animate_does_without_a_detector_that_is_odd(third_party):
    """Neither a failing `ready` nor a failing `build` keeps the next detector from being taken."""
    third_party(ODD, name="their-odd", entry="oddity")
    worse = ODD.replace('name="odd"', 'name="worse"').replace("build=object, ready=_ready", "build=_ready")
    third_party(worse, name="their-worse", entry="worse")
    host = load_host()
    assert [spec.name for spec in ready_detectors(host, "face")][:2] == ["worse", "dlib-hog"]
    assert choose_detector(host, "face")[0].name == "dlib-hog"


def test_a_plugin_that_ends_the_process_is_named(monkeypatch, tmp_path):
    distributions.install(tmp_path, "import os\nos._exit(3)", name="their-end", entry="ending")
    found = examined(tmp_path, monkeypatch)
    assert list(found) == ["ending"]
    assert (found["ending"].value, found["ending"].stops) == ("loading it ended the process with exit code 3", True)
    assert "export FOMMCTL_PLUGINS=bodies,faces,fomm," in found["ending"].advice
    assert ",ending" not in found["ending"].advice


def test_a_plugin_that_hangs_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("FOMMCTL_PLUGINS", "hanging,fomm")
    distributions.install(tmp_path, "import time\ntime.sleep(600)", name="their-hang", entry="hanging")
    found = examined(tmp_path, monkeypatch, limit=2.0)
    assert found["hanging"].value == "loading it took more than 2 s"
    assert "'export FOMMCTL_PLUGINS=fomm'" in found["hanging"].advice


def test_two_with_one_name(monkeypatch, tmp_path):
    distributions.install(tmp_path, distributions.GOOD, name="their-one", entry="one")
    distributions.install(tmp_path, distributions.GOOD, name="their-two", entry="two")
    found = examined(tmp_path, monkeypatch)
    assert found["conflict"].stops
    assert "their-one and plugin 'two'" in found["conflict"].value
    assert found["conflict"].advice.startswith("Uninstall one of them")


def test_restricted_to_none_of_ours(monkeypatch, tmp_path):
    monkeypatch.setenv("FOMMCTL_PLUGINS", "fom")
    found = examined(tmp_path, monkeypatch)
    assert found["plugins"].stops
    assert found["plugins"].value == "none of fommctl's own is loaded"
    assert found["FOMMCTL_PLUGINS"].value == "FOMMCTL_PLUGINS names 'fom', which no installed plugin has"
    assert found["detectors"].value == "no detector of a face is ready, so --crop auto cannot work"


def test_all_of_a_kind_in_one_line():
    specs = [{"name": "a", "subject": "", "reason": None}, {"name": "b", "subject": "", "reason": "no weights"}]
    host = {"plugins": [], "warnings": [], "conflicts": []}
    face = [{"name": "hog", "subject": "face", "reason": None}]
    facts = {"plugins.host": host, "plugins.metric": specs, "plugins.detector": face, "plugins.embedder": []}
    values = [finding.value for finding in plugins.check_plugins(Seen(facts)) if finding.name == "metrics"]
    assert values == ["1 of 2 ready", "b: no weights"]
