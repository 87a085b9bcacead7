"""Checks of what can be written and read: a small clip of each kind of output, there and back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from fommctl.doctor.report import Row

OUTPUTS = (".mp4", ".mov", ".mkv", ".webm", ".gif", ".png")
NAMES = ("PyAV", *OUTPUTS, "decoders")
WHEEL = "Install the wheel with its own FFmpeg: 'pip install --force-reinstall --only-binary av av'."


def check(name: str) -> Iterator[Row]:
    """Check PyAV, one kind of output, or the decoders: runs in the child."""
    from fommctl.media import codecs

    if name == "PyAV":
        value = ", ".join(f"{library} {number}" for library, number in codecs.versions().items())
        yield Row(area="codecs", name=name, value=value)
        if hardware := codecs.hardware_encoders():
            value = f"{', '.join(hardware)} in this build; fommctl encodes on the CPU"
            yield Row(area="codecs", name="hardware encoders", value=value)
    elif name == "decoders":
        missing = codecs.missing_decoders()
        if missing:
            yield Row(area="codecs", name=name, value=f"none for {', '.join(missing)}", level="note", advice=WHEEL)
        else:
            yield Row(area="codecs", name=name, value="all common ones")
    else:
        yield _output(name)


def _output(suffix: str) -> Row:
    from fommctl.media import codecs

    found = codecs.output_facts(suffix)
    value = f"{found.encoder}, sound by {found.sound_encoder}" if found.sound_encoder else found.encoder
    if found.missing:
        advice = f"{WHEEL} Until then use --codec {found.others[0]}." if found.others else WHEEL
        value = f"{value}; this PyAV has no {' and no '.join(found.missing)}"
        stops = suffix == ".mp4" and found.encoder in found.missing
        return Row(area="codecs", name=suffix, value=value, level="problem", advice=advice, stops=stops)
    with tempfile.TemporaryDirectory(prefix="fommctl-doctor-") as folder:
        result = codecs.round_trip(suffix, Path(folder))
    return Row(area="codecs", name=suffix, value=f"{value}; a small clip came back {result}")
