"""What `animate` does where an option is left open: what the model's preset says, else the general default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fommctl.animate.config import AnimateConfig
from fommctl.animate.engine import choose_motion
from fommctl.api.specs import BackendSpec
from fommctl.presets.preset import Preset

GENERAL: Mapping[str, Any] = {
    "motion": None,  # relative where the model has it, else absolute
    "adapt_scale": True,
    "best_frame": "first",
    "smooth": False,
    "size": None,  # that of the frames that the model was trained on
    "source_width": None,  # the framing of the preset
    "driving_width": None,  # the framing of the preset
    "head_motion": 0.25,  # with more, necks tear; with none, a head that walks about stands still
    "cuts": True,
    "detail": None,  # where frames are pasted back
}
"""By the name of the option; presets change them by `animate_params.defaults`."""

AS_PUBLISHED: Mapping[str, Any] = {
    "motion": None,  # relative where the model has it, else absolute
    "adapt_scale": True,  # by the ratio of the keypoints' hulls
    "best_frame": "first",  # the first driving frame with a subject is the reference
    "smooth": False,  # keypoints are used as they are detected
    "size": None,  # the networks run at the size that they were trained at
    "source_width": None,  # the source is framed as the training data was
    "driving_width": None,  # and so is the driving video
    "head_motion": 1.0,  # a fixed square, which is that of --driving-crop auto here, leaves all of the head's travel in
    "cuts": False,  # one reference for all shots
    "detail": False,  # frames are what the networks paint; beyond the picture, its border is repeated
}
"""What `--as-published` means: nothing but this is done where an option is left open."""


def resolve(config: AnimateConfig, preset: Preset, family: BackendSpec) -> AnimateConfig:
    """The configuration with what it leaves open filled in, for a model of this preset and family.

    Resolving again changes nothing. Raises UsageError for a motion that the family does not have.
    """
    given = preset.pairs().defaults
    preferred = {} if given is None or config.as_published else given.model_dump(exclude_none=True)
    usual = AS_PUBLISHED if config.as_published else GENERAL
    chosen = {name: preferred.get(name, usual[name]) for name in usual if getattr(config, name) is None}
    motion = choose_motion(family, config.motion or chosen["motion"])
    return replace(config, **chosen | {"motion": motion})
