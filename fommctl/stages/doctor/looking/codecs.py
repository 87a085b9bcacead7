"""What can be encoded and decoded here."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any


def look(what: str) -> Any:
    """what: `versions`, `decoders`, `hardware`, or the suffix of a kind of output, such as `.mp4`."""
    from fommctl.media import codecs

    if what == "versions":
        return codecs.versions()
    if what == "decoders":
        return codecs.missing_decoders()
    if what == "hardware":
        return codecs.hardware_encoders()
    facts = asdict(codecs.output_facts(what))
    if facts["encoder"] in facts["missing"]:
        return {**facts, "round_trip": None}
    with tempfile.TemporaryDirectory(prefix="fommctl-doctor-") as folder:
        return {**facts, "round_trip": codecs.round_trip(what, Path(folder))}
