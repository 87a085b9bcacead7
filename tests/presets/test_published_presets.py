"""The built-in presets have the published values, and files in the published layout load unchanged by path."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from configurations import configuration

from fommctl.host import Host
from fommctl.presets.preset import load_preset

# The layout of the published files, with capitals, quotes, uneven indentation and older names.
AS_PUBLISHED = Path(__file__).parents[1] / "golden" / "presets" / "taichi-adv-256.yaml"
SHORT = {
    "jitter": "dataset_params.augmentation_params.jitter_param",
    "crop": "dataset_params.augmentation_params.crop_param",
    "resize": "dataset_params.augmentation_params.resize_param",
    "discriminator": "model_params.discriminator_params",
    "detector": "model_params.kp_detector_params",
    "data": "dataset_params",
    "train": "train_params",
    "loss": "train_params.loss_weights",
}
ALONE = {"data.id_sampling": False, "data.pairs_list": None}
HUE = {"jitter.brightness": 0, "jitter.contrast": 0, "jitter.saturation": 0}
VOX = {"data.root_dir": "data/vox-png", "data.pairs_list": "data/vox256.csv", "train.num_repeats": 75}
DROPS = {"train.num_epochs": 100, "train.epoch_milestones": (60, 90)}
USUAL = {"discriminator.use_kp": False, "train.lr_kp_detector": 2e-4}
# Differences from the published configuration of taichi-adv-256, which is the file above.
PUBLISHED: dict[str, dict[str, Any]] = {
    "vox-256": VOX | DROPS | USUAL | {"train.batch_size": 40, "loss.generator_gan": 0, "discriminator.sn": True},
    "vox-adv-256": VOX | {"train.lr_kp_detector": 2e-4, "train.batch_size": 36},
    "taichi-256": DROPS | USUAL | {"train.batch_size": 30, "loss.generator_gan": 0},
    "taichi-adv-256": {},
    "fashion-256": ALONE | HUE | DROPS | USUAL | {"data.root_dir": "data/fashion-png", "train.num_repeats": 50},
    "mgif-256": ALONE | HUE | DROPS | USUAL | {
        "data.root_dir": "data/moving-gif", "jitter.hue": 0.5, "crop": "absent", "crop.size": (256, 256),
        "resize": "absent", "resize.ratio": (0.9, 1.1), "resize.interpolation": "nearest", "train.num_repeats": 25,
        "train.batch_size": 36, "train.checkpoint_freq": 100, "detector.single_jacobian_map": True,
        "discriminator.sn": True,
    },
    "nemo-256": ALONE | DROPS | USUAL | dict.fromkeys([*HUE, "jitter.hue"], "absent") | {
        "data.root_dir": "data/nemo-png", "jitter": None, "train.num_repeats": 8, "train.batch_size": 36,
        "discriminator.sn": True,
    },
    "bair-256": ALONE | USUAL | {
        "data.root_dir": "data/bair", "train.num_epochs": 20, "train.epoch_milestones": (12, 18),
        "train.num_repeats": 1, "train.batch_size": 36, "train.checkpoint_freq": 10, "discriminator.sn": True,
    },
}  # fmt: skip
DATASETS = {"vox": "faces", "taichi": "bodies", "fashion": "bodies", "mgif": "mgif", "nemo": "faces", "bair": "robots"}
# Values missing in the published file: the defaults of its code, with our additions turned off.
UNSAID = {
    "dataset_params": {
        "frame_shape": (256, 256, 3), "pair_candidates": 2, "stills": None, "rigid": None, "expressions": None,
        "augmentation_params": dict.fromkeys(["crop_param", "resize_param", "rotation_param", "framing_param"]),
    },
    "model_params": {
        "common_params": {"align_corners": True},
        "kp_detector_params": {"single_jacobian_map": False, "pad": 0},
        "generator_params": {"blend_source": False, "embed_keypoints": None},
        "discriminator_params": {"sn": False},
    },
    "train_params": {
        "schedule": "milestones", "warmup_steps": 0, "checkpoint_every_steps": None, "max_grad_norm": None,
        "ema_decay": None, "perceptual_network": "vgg19", "perceptual_scales": None, "guidance": None,
        "hold_dense_motion": None,
        "loss_weights": {
            "pixel": 0, "warped": 0, "guidance": 0, "spans": None, "likeness": None, "focus": 0, "revealed": 0,
        },
    },
    "animate_params": {"defaults": None, "openings": None},
}  # fmt: skip


def joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Merge both, section by section; they have no key in common."""
    assert not [key for key in one.keys() & other.keys() if not isinstance(one[key], dict)]
    both = {key: joined(one[key], other[key]) for key in one.keys() & other.keys()}
    return {**one, **other, **both}


def test_a_published_file_loads_unchanged_by_path(host: Host) -> None:
    said = yaml.safe_load(AS_PUBLISHED.read_text())
    said["dataset_params"].pop("image_shape")  # the older name of frame_shape
    for name in ("lr_generator", "lr_discriminator"):
        said["train_params"][name] = float(said["train_params"][name])
    published = load_preset(str(AS_PUBLISHED), host)
    assert (published.backend, published.dataset) == ("fomm", None)
    sections = joined(said, UNSAID)
    found = published.model_dump(include=set(sections))
    assert plain(found) == plain(sections)
    assert configuration(published).keys() == configuration(load_preset("taichi-adv", host)).keys()


def plain(value: Any) -> Any:
    """Convert tuples to lists."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", PUBLISHED)
def test_shipped_presets_are_the_published_ones(name: str, host: Host) -> None:
    preset = load_preset(name, host)
    own, base = configuration(preset), configuration(load_preset(str(AS_PUBLISHED), host))
    differences = {
        key: own.get(key, "absent")
        for key in own.keys() | base.keys()
        if own.get(key, "absent") != base.get(key, "absent")
    }
    assert differences == {
        ".".join([SHORT[key.partition(".")[0]], *key.split(".")[1:]]): value for key, value in PUBLISHED[name].items()
    }
    assert preset.dataset == DATASETS[name.partition("-")[0]]
    assert (preset.framing is not None) is (preset.dataset == "faces")


def test_the_smoke_preset_is_small_and_needs_no_perceptual_network(host: Host) -> None:
    preset = load_preset("smoke", host)
    assert preset.frame_shape == (64, 64, 3)
    assert sum(preset.section("train_params").loss_weights.perceptual) == 0
    backend = host.backends["fomm"].build(preset.model_params)
    assert sum(each.numel() for module in backend.modules().values() for each in module.parameters()) < 300_000
