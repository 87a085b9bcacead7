"""The shipped presets hold the published values, and the published layout loads unchanged by path."""

from pathlib import Path
from typing import Any

import pytest

from fommctl.host import Host
from fommctl.presets.preset import load_preset
from fommctl.presets.sections import AugmentationParams

FLIP = {"horizontal_flip": True, "time_flip": True}
ALL_JITTER = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1}
# What differs between the published configurations. gan: weight of the adversarial loss for the generator.
PUBLISHED: dict[str, dict[str, Any]] = {
    "vox-256": {"epochs": 100, "repeats": 75, "drops": (60, 90), "batch": 40, "gan": 0, "freq": 50, "sn": True},
    "vox-adv-256": {"epochs": 150, "repeats": 75, "drops": (), "batch": 36, "gan": 1, "freq": 50, "use_kp": True},
    "taichi-256": {"epochs": 100, "repeats": 150, "drops": (60, 90), "batch": 30, "gan": 0, "freq": 50},
    "taichi-adv-256": {
        "epochs": 150,
        "repeats": 150,
        "drops": (),
        "batch": 27,
        "gan": 1,
        "freq": 50,
        "use_kp": True,
        "lr_kp_detector": 0,
    },
    "fashion-256": {
        "epochs": 100,
        "repeats": 50,
        "drops": (60, 90),
        "batch": 27,
        "gan": 1,
        "freq": 50,
        "jitter": {"hue": 0.1},
    },
    "mgif-256": {
        "epochs": 100,
        "repeats": 25,
        "drops": (60, 90),
        "batch": 36,
        "gan": 1,
        "freq": 100,
        "sn": True,
        "single_jacobian_map": True,
        "jitter": {"hue": 0.5},
    },
    "nemo-256": {
        "epochs": 100,
        "repeats": 8,
        "drops": (60, 90),
        "batch": 36,
        "gan": 1,
        "freq": 50,
        "sn": True,
        "jitter": None,
    },
    "bair-256": {"epochs": 20, "repeats": 1, "drops": (12, 18), "batch": 36, "gan": 1, "freq": 10, "sn": True},
}
DATA = {
    "vox-256": ("faces", "data/vox-png", True, "data/vox256.csv"),
    "vox-adv-256": ("faces", "data/vox-png", True, "data/vox256.csv"),
    "taichi-256": ("bodies", "data/taichi-png", True, "data/taichi256.csv"),
    "taichi-adv-256": ("bodies", "data/taichi-png", True, "data/taichi256.csv"),
    "fashion-256": ("bodies", "data/fashion-png", False, None),
    "mgif-256": ("mgif", "data/moving-gif", False, None),
    "nemo-256": ("faces", "data/nemo-png", False, None),
    "bair-256": ("robots", "data/bair", False, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_are_the_published_ones(name: str, host: Host) -> None:
    own = PUBLISHED[name]
    assert load_preset(name, host).model_params.model_dump() == {
        "common_params": {"num_kp": 10, "num_channels": 3, "estimate_jacobian": True, "align_corners": True},
        "kp_detector_params": {
            "temperature": 0.1,
            "block_expansion": 32,
            "max_features": 1024,
            "scale_factor": 0.25,
            "num_blocks": 5,
            "single_jacobian_map": own.get("single_jacobian_map", False),
            "pad": 0,
        },
        "generator_params": {
            "block_expansion": 64,
            "max_features": 512,
            "num_down_blocks": 2,
            "num_bottleneck_blocks": 6,
            "estimate_occlusion_map": True,
            "blend_source": False,  # ours
            "dense_motion_params": {
                "block_expansion": 64,
                "max_features": 1024,
                "num_blocks": 5,
                "scale_factor": 0.25,
            },
        },
        "discriminator_params": {
            "scales": (1,),
            "block_expansion": 32,
            "max_features": 512,
            "num_blocks": 4,
            "sn": own.get("sn", False),
            "use_kp": own.get("use_kp", False),
        },
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_training_is_the_published_one(name: str, host: Host) -> None:
    own = PUBLISHED[name]
    assert load_preset(name, host).section("train_params").model_dump() == {
        "num_epochs": own["epochs"],
        "num_repeats": own["repeats"],
        "epoch_milestones": own["drops"],
        "lr_generator": 2e-4,
        "lr_discriminator": 2e-4,
        "lr_kp_detector": own.get("lr_kp_detector", 2e-4),
        "batch_size": own["batch"],
        "scales": (1, 0.5, 0.25, 0.125),
        "checkpoint_freq": own["freq"],
        "transform_params": {"sigma_affine": 0.05, "sigma_tps": 0.005, "points_tps": 5},
        "loss_weights": {
            "generator_gan": own["gan"],
            "discriminator_gan": 1,
            "feature_matching": (10,) * 4,
            "perceptual": (10,) * 5,
            "equivariance_value": 10,
            "equivariance_jacobian": 10,
            # What we added does nothing here.
            "pixel": 0,
            "warped": 0,
            "guidance": 0,
            "spans": None,
            "likeness": None,
            "focus": 0,
            "revealed": 0,
        },
        "perceptual_network": "vgg19",
        "perceptual_scales": None,
        "guidance": None,
        "schedule": "milestones",
        "warmup_steps": 0,
        "checkpoint_every_steps": None,
        "max_grad_norm": None,
        "ema_decay": None,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_data_and_results_are_the_published_ones(name: str, host: Host) -> None:
    preset = load_preset(name, host)
    adapter, root, id_sampling, pairs = DATA[name]
    augmentation = {"flip_param": FLIP, "jitter_param": PUBLISHED[name].get("jitter", ALL_JITTER)}
    if name == "mgif-256":
        augmentation |= {
            "resize_param": {"ratio": (0.9, 1.1), "interpolation": "nearest"},
            "crop_param": {"size": (256, 256)},
        }
    none = dict.fromkeys(AugmentationParams.model_fields)
    if isinstance(augmentation["jitter_param"], dict):
        augmentation["jitter_param"] = dict.fromkeys(ALL_JITTER, 0) | augmentation["jitter_param"]
    assert preset.section("dataset_params").model_dump() == {
        "root_dir": root,
        "frame_shape": (256, 256, 3),
        "id_sampling": id_sampling,
        "pairs_list": pairs,
        "augmentation_params": none | augmentation,
        "pair_candidates": 2,
        "stills": None,
        "rigid": None,
        "expressions": None,
    }
    assert preset.dataset == adapter
    assert (preset.framing is not None) is (adapter == "faces")
    assert preset.section("reconstruction_params").model_dump() == {"num_videos": 1000, "format": ".mp4"}
    assert preset.section("animate_params").model_dump() == {
        "num_pairs": 50,
        "format": ".mp4",
        "defaults": None,
        "openings": None,
        "normalization_params": {
            "adapt_movement_scale": False,
            "use_relative_movement": True,
            "use_relative_jacobian": True,
        },
    }
    assert preset.section("visualizer_params").model_dump() == {
        "kp_size": 5,
        "draw_border": True,
        "colormap": "gist_rainbow",
    }


# The layout of the published files, with its capitals, quotes, uneven indentation and older names.
AS_PUBLISHED = """\
dataset_params:
  root_dir: data/taichi-png\x20
  image_shape: [256, 256, 3]
  id_sampling: True
  pairs_list: data/taichi256.csv
  augmentation_params:
    flip_param:
      horizontal_flip: True
      time_flip: True
    jitter_param:
      brightness: 0.1
      contrast: 0.1
      saturation: 0.1
      hue: 0.1


model_params:
  common_params:
    num_kp: 10
    num_channels: 3
    estimate_jacobian: True
  kp_detector_params:
     temperature: 0.1
     block_expansion: 32
     max_features: 1024
     num_blocks: 5
     scale_factor: 0.25
  generator_params:
    block_expansion: 64
    max_features: 512
    num_down_blocks: 2
    num_bottleneck_blocks: 6
    estimate_occlusion_map: True
    dense_motion_params:
      block_expansion: 64
      max_features: 1024
      num_blocks: 5
      scale_factor: 0.25
  discriminator_params:
    scales: [1]
    block_expansion: 32
    max_features: 512
    num_blocks: 4
    use_kp: True

train_params:
  num_epochs: 150
  num_repeats: 150
  epoch_milestones: []
  lr_generator: 2.0e-4
  lr_discriminator: 2.0e-4
  lr_kp_detector: 0
\x20
  batch_size: 27
  scales: [1, 0.5, 0.25, 0.125]
  checkpoint_freq: 50
  transform_params:
    sigma_affine: 0.05
    sigma_tps: 0.005
    points_tps: 5
  loss_weights:
    generator_gan: 1
    discriminator_gan: 1
    feature_matching: [10, 10, 10, 10]
    perceptual: [10, 10, 10, 10, 10]
    equivariance_value: 10
    equivariance_jacobian: 10

reconstruction_params:
  num_videos: 1000
  format: '.mp4'

animate_params:
  num_pairs: 50
  format: '.mp4'
  normalization_params:
    adapt_movement_scale: False
    use_relative_movement: True
    use_relative_jacobian: True

visualizer_params:
  kp_size: 5
  draw_border: True
  colormap: 'gist_rainbow'
"""


def test_a_published_file_loads_unchanged_by_path(tmp_path: Path, host: Host) -> None:
    path = tmp_path / "taichi-adv-256.yaml"
    path.write_text(AS_PUBLISHED)
    published, shipped = load_preset(str(path), host), load_preset("taichi-adv", host)
    assert published.backend == "fomm"
    assert published.dataset is None
    assert published.model_params == shipped.model_params
    header = {"name", "summary", "backend", "dataset", "framing"}
    assert published.model_dump(exclude=header) == shipped.model_dump(exclude=header)


def test_the_smoke_preset_is_small_and_needs_no_perceptual_network(host: Host) -> None:
    preset = load_preset("smoke", host)
    assert preset.frame_shape == (64, 64, 3)
    assert sum(preset.section("train_params").loss_weights.perceptual) == 0
    backend = host.backends["fomm"].build(preset.model_params)
    assert sum(each.numel() for module in backend.modules().values() for each in module.parameters()) < 300_000
