"""What the trial of the main job says."""

from __future__ import annotations

from collections.abc import Iterator

from fommctl.stages.doctor.findings import Finding
from fommctl.stages.doctor.probe import SKIPPED, Seen

AREA = "trial"
ITEM = "trial.animate"
ITEMS = (ITEM,)
SLOW = 5.0
"""Frames a second of the built-in model; a laptop's two cores make about 40."""


def check_trial(seen: Seen) -> Iterator[Finding]:
    """seen: what was found for ITEMS."""
    found = seen.facts.get(ITEM)
    if found is None:
        why = seen.troubles.get(ITEM, "not tried")
        advice = "Run it again with a larger --timeout, while the machine is quiet."
        if not why.startswith(("took more", SKIPPED)):
            advice = "Solve the other problems first; then, if it stays, report what 'fommctl demo --debug' says."
        yield Finding(area=AREA, name="animate", value=f"fails: {why}", level="problem", advice=advice, stops=True)
        return
    finder = f"; {found['detector']} finds subjects" if found["detector"] else ""
    value = (
        f"{found['model']} on {found['device']} in {found['precision']}: about {found['frames_per_second']:g} frames/s"
        f", loaded in {found['loading_s']:g} s{finder}"
    )
    if found["frames_per_second"] < SLOW:
        advice = "Something else may keep the processor busy; 'fommctl bench' measures at length."
        yield Finding(area=AREA, name="animate", value=value, level="note", advice=advice)
    else:
        yield Finding(area=AREA, name="animate", value=value)
