"""What the paper says, and which of our systems stand for which of its rows.

Siarohin et al., First Order Motion Model for Image Animation, NeurIPS 2019: table 1 (ablation, on Tai-Chi-HD) and
table 3 (video reconstruction). The numbers are recalled from the paper and were not checked against its text again,
but for those in CHECKED, which its author quotes in the issues of the published evaluation scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Column = Literal["L1", "AKD", "MKR", "AED"]
Benchmark = Literal["tai-chi-hd", "voxceleb", "nemo", "bair"]
COLUMNS: tuple[Column, ...] = ("L1", "AKD", "MKR", "AED")
BENCHMARKS: tuple[Benchmark, ...] = ("tai-chi-hd", "voxceleb", "nemo", "bair")
X2FACE, MONKEY_NET, FOMM = "X2Face", "Monkey-Net", "FOMM"
BASELINE, PYRAMID, OCCLUSION, JACOBIAN = "Baseline", "Pyr.", "Pyr.+O", "Jac. w/o Eq. (12)"
ROWS = (X2FACE, MONKEY_NET, BASELINE, PYRAMID, OCCLUSION, JACOBIAN, FOMM)


def _row(
    l1: float, akd: float | None = None, mkr: float | None = None, aed: float | None = None
) -> Mapping[Column, float]:
    values = {"L1": l1, "AKD": akd, "MKR": mkr, "AED": aed}
    return {column: value for column in COLUMNS if (value := values[column]) is not None}


PAPER: Mapping[Benchmark, Mapping[str, Mapping[Column, float]]] = {
    "tai-chi-hd": {
        X2FACE: _row(0.080, 17.654, 0.109, 0.272),
        MONKEY_NET: _row(0.077, 10.798, 0.059, 0.228),
        BASELINE: _row(0.073, 8.945, 0.099, 0.235),
        PYRAMID: _row(0.069, 9.407, 0.065, 0.213),
        OCCLUSION: _row(0.069, 8.773, 0.050, 0.205),
        JACOBIAN: _row(0.073, 9.887, 0.052, 0.220),
        FOMM: _row(0.063, 6.862, 0.036, 0.179),
    },
    "voxceleb": {
        X2FACE: _row(0.078, 7.687, aed=0.405),
        MONKEY_NET: _row(0.049, 1.878, aed=0.199),
        FOMM: _row(0.043, 1.294, aed=0.140),
    },
    "nemo": {
        X2FACE: _row(0.031, 3.539, aed=0.221),
        MONKEY_NET: _row(0.018, 1.285, aed=0.077),
        FOMM: _row(0.016, 1.119, aed=0.048),
    },
    "bair": {X2FACE: _row(0.065), MONKEY_NET: _row(0.034), FOMM: _row(0.027)},
}
CHECKED: frozenset[tuple[Benchmark, str, Column]] = frozenset({("voxceleb", FOMM, "AKD"), ("nemo", FOMM, "AKD")})


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of the paper's tables is better than another one."""

    better: str
    worse: str


CLAIMS = (
    Claim(FOMM, MONKEY_NET),
    Claim(MONKEY_NET, X2FACE),
    Claim(FOMM, JACOBIAN),
    Claim(FOMM, OCCLUSION),
    Claim(OCCLUSION, PYRAMID),
    Claim(PYRAMID, BASELINE),
)
"""FOMM before Monkey-Net before X2Face, and each part of the ablation before the same without it. The paper's table 1
itself has ties (L1 of Pyr.+O) and exceptions (AKD of Pyr.)."""

FAMILIES: Mapping[str, Mapping[str, str]] = {
    "small": {
        "small-x2face": X2FACE,
        "small-monkeynet": MONKEY_NET,
        "small-fomm-baseline": BASELINE,
        "small-fomm-pyramid": PYRAMID,
        "small-fomm-occlusion": OCCLUSION,
        "small-fomm-jacobian": JACOBIAN,
        "small-fomm": FOMM,
    },
    "taichi": {
        "x2face-vox": X2FACE,
        "monkeynet-taichi": MONKEY_NET,
        "taichi-baseline": BASELINE,
        "taichi-pyramid": PYRAMID,
        "taichi-occlusion": OCCLUSION,
        "taichi-jacobian": JACOBIAN,
        "taichi-256": FOMM,
    },
    "vox": {"x2face-vox": X2FACE, "monkeynet-vox": MONKEY_NET, "vox-256": FOMM},
}
"""Presets and the rows that they stand for. X2Face was never published for bodies; its network is the same for all."""


def row_of(preset: str) -> str | None:
    """The paper's row that a preset stands for."""
    return next((rows[preset] for rows in FAMILIES.values() if preset in rows), None)
