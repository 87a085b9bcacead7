"""Codecs: real clips there and back, and what is said where something is missing."""

import pytest

from fommctl.media import codecs as facts
from fommctl.media.containers import CONTAINERS
from fommctl.stages.doctor import codecs
from fommctl.stages.doctor.looking import codecs as looking
from fommctl.stages.doctor.probe import Seen

WHOLE = {"encoder": "libx264", "sound_encoder": "aac", "missing": [], "others": ["libx265"], "round_trip": "exact"}


def seen(**changes):
    found = {f"codecs.{suffix}": dict(WHOLE) for suffix in codecs.OUTPUTS}
    return {**found, "codecs.versions": {"PyAV": "18.1"}, "codecs.decoders": [], "codecs.hardware": [], **changes}


def check(found, troubles=None):
    return {finding.name: finding for finding in codecs.check_codecs(Seen(found, troubles or {}))}


def test_every_kind_of_output_is_looked_at():
    assert tuple(CONTAINERS) == codecs.OUTPUTS


@pytest.mark.parametrize("suffix", codecs.OUTPUTS)
def test_a_clip_there_and_back(suffix, tmp_path):
    back = facts.round_trip(suffix, tmp_path)
    assert (back == "exact") if suffix in (".mkv", ".png") else back.startswith("within ")
    found = facts.output_facts(suffix)
    assert found.encoder == CONTAINERS[suffix].encoders[0]
    assert found.missing == ()


def test_other_pictures_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "WORST", 0.001)
    with pytest.raises(ValueError, match=r"came back different, by \d"):
        facts.round_trip(".mp4", tmp_path)


def test_codecs_by_name():
    assert facts.has_codec("h264", "r")
    assert facts.has_codec("ffv1", "w")
    assert not facts.has_codec("no-such-codec", "r")
    assert facts.missing_decoders() == []
    assert facts.versions()["libavcodec"].count(".") == 2
    assert looking.look("decoders") == []
    assert looking.look(".mkv")["round_trip"] == "exact"


def test_all_is_well():
    found = check(seen())
    assert {finding.level for finding in found.values()} == {"ok"}
    assert found[".mp4"].value == "libx264, sound by aac; a small clip came back exact"


def test_a_missing_encoder():
    lacking = {**WHOLE, "missing": ["libx264"], "round_trip": None}
    found = check(seen(**{"codecs..mp4": lacking, "codecs..webm": lacking}))
    assert (found[".mp4"].level, found[".mp4"].stops, found[".webm"].stops) == ("problem", True, False)
    assert found[".mp4"].value == "libx264, sound by aac; this PyAV has no libx264"
    assert found[".mp4"].advice.endswith("Until then take --codec libx265.")


def test_a_missing_sound_encoder_stops_nothing():
    found = check(seen(**{"codecs..mp4": {**WHOLE, "missing": ["aac"]}}))[".mp4"]
    assert (found.level, found.stops) == ("problem", False)


def test_a_clip_that_does_not_come_back():
    data = seen()
    del data["codecs..mp4"]
    found = check(data, {"codecs..mp4": "FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp']"})
    assert found[".mp4"].stops
    assert found[".mp4"].advice == "Free some space, or set TMPDIR to a folder that can be written to."


def test_without_pyav():
    (finding,) = codecs.check_codecs(Seen({}, {"codecs.versions": "ImportError: libav"}))
    assert (finding.name, finding.value, finding.stops) == ("PyAV", "ImportError: libav", True)


def test_missing_decoders_and_hardware():
    found = check(seen(**{"codecs.decoders": ["av1"], "codecs.hardware": ["h264_nvenc"]}))
    assert (found["decoders"].level, found["decoders"].value) == ("note", "none for av1")
    assert found["hardware encoders"].value.startswith("h264_nvenc in this build")
