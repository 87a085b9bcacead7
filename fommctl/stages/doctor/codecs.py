"""What results can be written as, and what inputs can be read."""

from __future__ import annotations

from collections.abc import Iterator

from fommctl.stages.doctor.findings import Finding
from fommctl.stages.doctor.probe import Seen

AREA = "codecs"
OUTPUTS = (".mp4", ".mov", ".mkv", ".webm", ".gif", ".png")
DEFAULT = ".mp4"
"""What `animate` writes where no output is named."""
ITEMS = ("codecs.versions", *(f"codecs.{suffix}" for suffix in OUTPUTS), "codecs.decoders", "codecs.hardware")
_WHEEL = (
    "Install the wheel from PyPI, which brings its own FFmpeg: 'pip install --force-reinstall --only-binary av av'."
)


def check_codecs(seen: Seen) -> Iterator[Finding]:
    """seen: what was found for ITEMS."""
    versions = seen.facts.get("codecs.versions")
    if versions is None:
        why = seen.troubles.get("codecs.versions", "not looked at")
        advice = "Without PyAV and Pillow no file can be read or written: see what is said of them under packages."
        yield Finding(area=AREA, name="PyAV", value=why, level="problem", advice=advice, stops=True)
        return
    yield Finding(area=AREA, name="PyAV", value=", ".join(f"{name} {number}" for name, number in versions.items()))
    yield from (_output(suffix, seen) for suffix in OUTPUTS)
    yield _decoders(seen)
    hardware = seen.facts.get("codecs.hardware")
    if hardware:
        value = f"{', '.join(hardware)} in this build; fommctl encodes on the CPU"
        yield Finding(area=AREA, name="hardware encoders", value=value)


def _output(suffix: str, seen: Seen) -> Finding:
    item, stops = f"codecs.{suffix}", suffix == DEFAULT
    facts = seen.facts.get(item)
    if facts is None:
        value = f"a small clip cannot be written and read again: {seen.troubles.get(item)}"
        return Finding(area=AREA, name=suffix, value=value, level="problem", advice=_advice(value), stops=stops)
    sound = f", sound by {facts['sound_encoder']}" if facts["sound_encoder"] else ""
    value = f"{facts['encoder']}{sound}"
    if facts["missing"]:
        value = f"{value}; this PyAV has no {' and no '.join(facts['missing'])}"
        stops = stops and facts["encoder"] in facts["missing"]
        others = f" Until then take --codec {facts['others'][0]}." if facts["others"] else ""
        return Finding(area=AREA, name=suffix, value=value, level="problem", advice=_WHEEL + others, stops=stops)
    return Finding(area=AREA, name=suffix, value=f"{value}; a small clip came back {facts['round_trip']}")


def _advice(trouble: str) -> str:
    if "temporary directory" in trouble or "No space left" in trouble or "disk is full" in trouble:
        return "Free some space, or set TMPDIR to a folder that can be written to."
    return _WHEEL


def _decoders(seen: Seen) -> Finding:
    if "codecs.decoders" in seen.troubles:
        value = f"cannot be listed: {seen.troubles['codecs.decoders']}"
        return Finding(area=AREA, name="decoders", value=value, level="problem", advice=_WHEEL)
    missing = seen.facts["codecs.decoders"]
    if missing:
        value = f"none for {', '.join(missing)}"
        return Finding(area=AREA, name="decoders", value=value, level="note", advice=_WHEEL)
    return Finding(area=AREA, name="decoders", value="all common ones")
