"""The published weights of both models: one file per network, all in one repository."""

from __future__ import annotations

from fommctl.api import ModelFile, ModelSpec

REPOSITORY = "hf://KlingTeam/LivePortrait@main"
LICENCE = "MIT (Kuaishou, 2024)"
NETWORKS = ("appearance_feature_extractor", "motion_extractor", "warping_module", "spade_generator")
SMALL = "liveportrait/retargeting_models/stitching_retargeting_module.pth"

FILES = {
    **{f"base_models/{network}": (network,) for network in NETWORKS},
    "retargeting_models/stitching_retargeting_module": ("retarget_shoulder", "retarget_mouth", "retarget_eye"),
}
"""Groups in each published file."""


def _model(name: str, summary: str, folder: str) -> ModelSpec:
    files = [ModelFile(name=f"{folder}/{network}.pth") for network in NETWORKS]
    return ModelSpec(
        name=name,
        summary=summary,
        preset=name,
        licence=LICENCE,
        repository=REPOSITORY,
        files=(*files, ModelFile(name=SMALL)),
    )


PUBLISHED = (
    _model("liveportrait", "LivePortrait for faces, 512 pixels", "liveportrait/base_models"),
    _model("liveportrait-animals", "LivePortrait for animals, 512 pixels", "liveportrait_animals/base_models_v1.1"),
)
