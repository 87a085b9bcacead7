"""Changes the built-in model's networks: adds keypoints, revives unused parts of the dense motion, embeds keypoints.

    python docs/model/parts.py widen INIT --data DIR -o WIDENED
    python docs/model/parts.py wake INIT --data DIR -o WOKEN
    python docs/model/parts.py embed INIT -o EMBEDDED
    python docs/model/parts.py motion INIT --of OTHER -o JOINED

INIT is a checkpoint of `fommctl train --preset faces-mini` or the name of a model; the result is for `--init-from`.

widen: adds ten keypoints around the face (hair, neck, shoulders, corners of the frame), because the fifteen that
landmarks guide are on the face and do not follow anything else. Only their heads are fitted; the detector's features
do not change. In the dense motion they start with a small share of the background's weight.

wake: revives parts of the dense motion that have no weight and therefore get no gradient, because a few parts took over
the whole head: lips and eyelids then move with the cheek, and open only as far as the generator paints them. Each part
with less than `--least` of the total weight becomes a copy of the part that is strongest around its keypoint, e times
weaker, but stronger where its own keypoint moved.

embed: adds an embedding of the driving keypoints to the generator (`embed_keypoints`), with zero weights, so that the
pictures do not change.

motion: replaces the dense motion by that of another model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fommctl.datasets.clips import find_clips
from fommctl.host import load_host
from fommctl.media.random_access import read_frames
from fommctl.models.loading import load_model
from fommctl.networks.fomm import soft_argmax
from fommctl.networks.grids import gaussians
from fommctl.presets.preset import load_preset
from fommctl.train.pairs import KeptLandmarks, Landmarks

SIDES = (234, 454)
"""Landmarks at the sides of the face, which define its middle and half its width."""
AROUND = ((0, -1.8), (-1.35, -0.9), (1.35, -0.9), (-1.3, 1.1), (1.3, 1.1), (0, 2.1), (-2, 2.2), (2, 2.2))
"""Initial positions of new keypoints relative to the face's middle, in half widths: hair, sides of the head, neck,
shoulders."""
CORNERS = ((-0.8, -0.75), (0.8, -0.75))
"""Initial positions of new keypoints on the background, in [-1, 1] of the frame."""
MOST = 0.93
"""Largest absolute coordinate of a new keypoint, in a frame from -1 to 1."""
PER_CLIP = 8
"""Frames per clip."""
STEPS = 300
SHARE = -3.0
"""Logarithm of a new part's weight relative to the background's."""
WEAKER = -1.0
"""Logarithm of a revived part's weight relative to that of the part it is copied from."""
OWN = 6.0
"""Weight of a revived part's own heatmap in its logit."""
NEAR = 0.003
"""Variance of the Gaussian around a keypoint in which weights of parts are compared."""
MASK = "dense_motion_network.mask"
Weights = dict[str, dict[str, Tensor]]
"""Tensors by network and name."""


def begin_at(marks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the initial positions (F, 10, 2) of new keypoints in [-1, 1].  marks: landmarks (F, N, 2) in [-1, 1]."""
    right, left = marks[:, SIDES[0]], marks[:, SIDES[1]]
    middle, across = (left + right) / 2, (left - right) / 2
    down = np.stack((-across[:, 1], across[:, 0]), -1)
    places = [middle + x * across + y * down for x, y in AROUND]
    places += [np.where(np.isnan(middle), np.nan, np.array(corner)) for corner in CORNERS]
    return np.stack(places, 1).clip(-MOST, MOST).astype(np.float32)


def frames_and_places(data: Path, side: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return frames (F, 3, side, side) in [0, 1] of all training clips, and initial positions of new keypoints."""
    host = load_host()
    spec = host.find("detector", load_preset("faces-mini", host).section("train_params").guidance.detector)
    kept = KeptLandmarks(Landmarks(spec), spec.landmarks, spec.name)
    frames, marks = [], []
    for clip in find_clips(data, "train"):
        numbers = sorted({int(number) for number in random.integers(clip.frames, size=PER_CLIP)})
        frames += read_frames(clip.path, numbers, size=(side, side))
        marks.append(kept.read(clip, numbers) * 2 - 1)
    places = torch.from_numpy(begin_at(np.concatenate(marks)))
    seen = places.isfinite().flatten(1).all(1)
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[seen].float() / 255, places[seen]


def fitted_head(detector: Any, frames: Tensor, places: Tensor) -> nn.Conv2d:
    """Fit a head to a detector's features, so that its keypoints are at these places (F, K, 2); return it."""
    head = nn.Conv2d(detector.kp.in_channels, places.shape[1], detector.kp.kernel_size, padding=detector.kp.padding)
    with torch.no_grad():
        features = torch.cat([detector.predictor(detector.down(part)) for part in frames.split(32)])
    optimiser = torch.optim.Adam(head.parameters(), lr=2e-3)
    for _ in range(STEPS):
        drawn = torch.randint(len(features), (32,))
        found, _ = soft_argmax(head(features[drawn]), detector.temperature)
        loss = (found - places[drawn]).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"new keypoints are {loss.item():.3f} from their initial positions")
    return head


def widen(backend: Any, checkpoint: Sequence[Weights], data: Path, side: int, seed: int) -> None:
    """Add keypoints to all sets of weights of a checkpoint."""
    frames, places = frames_and_places(data, side, np.random.default_rng(seed))
    head = fitted_head(backend.keypoint_detector, frames, places)
    count = places.shape[1]
    for weights in checkpoint:
        detector, generator = weights["kp_detector"], weights["generator"]
        more = {
            "kp.weight": head.weight.detach(),
            "kp.bias": head.bias.detach(),
            "jacobian.weight": torch.zeros(4 * count, *head.weight.shape[1:]),
            "jacobian.bias": torch.eye(2).flatten().repeat(count),
        }
        for name, values in more.items():
            detector[name] = torch.cat((detector[name], values.to(detector[name])))
        # The input of these convolutions is the network's features, then its own input.
        for name in ("hourglass.encoder.down_blocks.0.conv", "mask", "occlusion"):
            seen = generator[f"dense_motion_network.{name}.weight"]
            grown = torch.cat((seen, seen.new_zeros(len(seen), 4 * count, *seen.shape[2:])), 1)
            generator[f"dense_motion_network.{name}.weight"] = grown
        weight, bias = generator[f"{MASK}.weight"], generator[f"{MASK}.bias"]
        generator[f"{MASK}.weight"] = torch.cat((weight, weight[:1].repeat(count, 1, 1, 1)))
        generator[f"{MASK}.bias"] = torch.cat((bias, bias[:1].repeat(count) + SHARE))


def weights_of_parts(backend: Any, data: Path, side: int) -> tuple[Tensor, Tensor]:
    """Return the mean weight of each part (K + 1,), background first, and of each around each keypoint (K, K + 1)."""
    everywhere, around = [], []
    for clip in find_clips(data, "train"):
        if clip.still:
            continue
        frames = np.stack(read_frames(clip.path, [0, clip.frames // 2], size=(side, side)))
        source, driving = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(255).split(1)
        with torch.inference_mode():
            motions = [backend.keypoint_detector(each) for each in (source, driving)]
            mask = backend.generator(source, *motions).motion.mask
        everywhere.append(mask.mean((0, 2, 3)))
        near = gaussians(motions[1].keypoints, *mask.shape[2:], NEAR)
        around.append(torch.einsum("bkhw,bphw->kp", near, mask))
    return torch.stack(everywhere).mean(0), torch.stack(around).mean(0)


def wake(backend: Any, checkpoint: Sequence[Weights], data: Path, side: int, least: float) -> None:
    """Revive parts in all sets of weights of a checkpoint.  least: smallest mean weight of a live part."""
    everywhere, around = weights_of_parts(backend, data, side)
    dead = [part for part in range(1, len(everywhere)) if everywhere[part] < least]
    around[:, dead] = 0
    begins = {part: int(around[part - 1].argmax()) for part in dead}
    # The mask's input is the network's features, then its own input: for each part a heatmap and three colours.
    features = backend.generator.dense_motion_network.hourglass.out_filters - 4 * len(everywhere)
    for weights in checkpoint:
        weight, bias = weights["generator"][f"{MASK}.weight"], weights["generator"][f"{MASK}.bias"]
        centre = weight.shape[-1] // 2
        for part, like in begins.items():
            weight[part], bias[part] = weight[like], bias[like] + WEAKER
            weight[part, features + 4 * part, centre, centre] += OWN
    print("woken:", *(f"keypoint {part - 1} (weight {everywhere[part]:.4f})" for part in dead), sep="\n  ")


def embed(checkpoint: Sequence[Weights]) -> None:
    """Add an embedding of keypoints with zero weights to all sets of weights of a checkpoint."""
    for weights in checkpoint:
        generator = weights["generator"]
        features, keypoints = len(generator["bottleneck.r0.conv1.weight"]), len(generator[f"{MASK}.bias"]) - 1
        generator["embedding.weight"] = torch.zeros(features, keypoints, 3, 3)
        generator["embedding.bias"] = torch.zeros(features)


def take_motion(backend: Any, checkpoint: Sequence[Weights]) -> None:
    """Replace the dense motion in all sets of weights of a checkpoint by a model's."""
    for weights in checkpoint:
        for name, values in backend.generator.dense_motion_network.state_dict().items():
            weights["generator"][f"dense_motion_network.{name}"] = values


def main(arguments: Sequence[str]) -> int:
    """Change a model's networks and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("change", choices=("widen", "wake", "embed", "motion"))
    parser.add_argument("init")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--of", metavar="OTHER")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--least", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    needed = {"widen": "data", "wake": "data", "motion": "of"}.get(options.change)
    if needed and getattr(options, needed) is None:
        parser.error(f"{options.change} needs --{needed}")
    torch.manual_seed(options.seed)
    model = load_model(options.init, load_host())
    backend: Any = model.backend
    if Path(options.init).suffix == ".pt":
        checkpoint = torch.load(options.init, map_location="cpu", weights_only=False)
    else:
        checkpoint = {name: dict(module.state_dict()) for name, module in backend.modules().items()}
    both = [checkpoint, checkpoint["average"]] if "average" in checkpoint else [checkpoint]
    side = model.preset.section("dataset_params").frame_shape[0]
    if options.change == "widen":
        widen(backend, both, options.data, side, options.seed)
    elif options.change == "wake":
        wake(backend, both, options.data, side, options.least)
    elif options.change == "embed":
        embed(both)
    else:
        take_motion(load_model(options.of, load_host()).backend, both)
    torch.save(checkpoint, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
