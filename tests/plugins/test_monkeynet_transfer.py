"""How Monkey-Net's presets define the animation of pairs, and that `evaluate` follows them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from evaluation_data import pictures
from media_factory import moving_square, write_frames
from monkeynet_models import MODEL, PRESET

from fommctl.animate.engine import Engine
from fommctl.api.schema import TransferRules
from fommctl.evaluate.rendering import animation
from fommctl.evaluate.streams import ClipFrames
from fommctl.models.loading import load_model
from fommctl.networks.grids import to_tensor
from fommctl.networks.transfer import adapted_covariances, movement_scale
from fommctl.presets.preset import load_preset

SIDE, FRAMES = 64, 4
KEY = "transfer_params.normalization_params"
CPU = torch.device("cpu")


def test_presets_say_how_pairs_are_animated(host):
    absolute, moved = load_preset("monkeynet-mgif", host).pairs(), load_preset("monkeynet-vox", host).pairs()
    assert absolute.rules == TransferRules(relative=False)
    assert moved.rules == TransferRules(relative=True)
    assert (absolute.num_pairs, load_preset("vox", host).pairs().num_pairs) == (100, 50)
    assert load_preset("smoke", host).pairs().rules.relative
    changed = load_preset(
        "monkeynet-vox", host, sets=[f"{KEY}.{name}=true" for name in ("movement_mult", "adapt_variance", "clip_mean")]
    )
    assert changed.pairs().rules == TransferRules(adapt_scale=True, adapt_covariances=True, inside=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, start in (("one", 0), ("other", 7)):
        write_frames(folder / name, [moving_square(start + 5 * index, SIDE, SIDE) for index in range(FRAMES)])
    return folder


def frames(folder: Path) -> torch.Tensor:
    return to_tensor(list(pictures(folder)), CPU)


def animated(clips: Path, host, *sets: str) -> torch.Tensor:
    """Return one clip's first frame animated by the other clip, (N, 3, H, W)."""
    engine = Engine(load_model(str(MODEL), host, preset=PRESET, sets=sets), host, device="cpu", precision="fp32")
    stream = animation(engine, ClipFrames(clips / "one", (SIDE, SIDE)), ClipFrames(clips / "other", (SIDE, SIDE)))
    return torch.cat([torch.from_numpy(batch.chunk.exact).permute(0, 3, 1, 2) for batch in stream.batches])


CASES = {
    "move_location=false": lambda motion, source: motion,
    "move_location=true": lambda motion, source: replace(
        motion, keypoints=motion.keypoints - motion.keypoints[:1] + source.keypoints
    ),
    "movement_mult=true": lambda motion, source: replace(
        motion,
        keypoints=(motion.keypoints - motion.keypoints[:1]) * movement_scale(source, motion[:1]) + source.keypoints,
    ),
    "adapt_variance=true": lambda motion, source: replace(
        motion,
        keypoints=motion.keypoints - motion.keypoints[:1] + source.keypoints,
        covariances=adapted_covariances(motion.covariances, motion.covariances[:1], source.covariances),
    ),
    "clip_mean=true": lambda motion, source: replace(
        motion, keypoints=(motion.keypoints - motion.keypoints[:1] + source.keypoints).clamp(-1, 1)
    ),
}


def test_evaluate_animates_as_the_preset_says(clips, host):
    backend = load_model(str(MODEL), host, preset=PRESET).backend
    renderer = backend.prepare(CPU, "fp32", fast=False)
    context, motion = renderer.encode_source(frames(clips / "one")[:1]), renderer.detect(frames(clips / "other"))
    found = {name: animated(clips, host, f"{KEY}.{name}") for name in CASES}
    for name, expected in CASES.items():
        wanted = renderer.render(context, expected(motion, context.motion))
        torch.testing.assert_close(found[name], wanted, atol=1e-4, rtol=0, msg=lambda text, name=name: name + text)
    usual = found["move_location=true"]
    for name in ("move_location=false", "movement_mult=true", "adapt_variance=true"):
        assert (found[name] - usual).abs().max() > 3e-4, name
