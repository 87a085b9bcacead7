"""Trains the decoder of the built-in model on close-ups of mouths and eyes: the last phase of its training.

    python docs/model/closeups.py INIT --data DIR -o RUN [--steps 2000] [--seed 0]

INIT is a model in a .safetensors file or a checkpoint of `fommctl train --preset faces-mini`; RUN/step-N.pt, written
every 250 steps, is a checkpoint for `--init-from`. Keypoints, dense motion and encoder stay as they are. Of each pair
of frames, two windows are decoded: one around the mouth, one around an eye or anywhere. Their middles are compared by
pixels, by the features of a perceptual network, and by discriminators on these features. Windows are a quarter of a
frame and nothing before the decoder is differentiated, so that a step compares eight times as many mouths as one of
whole frames in the same time. Weights are an exponential average; the rate falls along a cosine.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detector
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fommctl.datasets.clips import find_clips
from fommctl.host import load_host
from fommctl.models.perceptual import load_perceptual
from fommctl.networks.fomm import EMBEDDED_HEIGHT, EMBEDDED_VARIANCE, Generator, inside
from fommctl.networks.grids import gaussians
from fommctl.networks.layers import heads
from fommctl.presets.preset import load_preset
from fommctl.train.step import WeightAverage

CELL = 4
"""Pixels per cell of the features that the decoder reads."""
WINDOW, MIDDLE = 32, 16
"""Sides of a window and of the square in it that is compared, in cells. Within eight cells of a window's border, the
decoder's convolutions see zeros where the frame goes on; where the window ends with the frame, they see zeros in the
frame, too, and the square reaches to that border."""
MOUTH, EYES = (0, 1, 2, 3), ((5, 6), (7, 8))
"""Numbers of the preset's guided points around which windows lie."""
LIPS = 3
"""Entries of the distance of the lips that are added to the detector's: closed and open lips make four pairs of nine
instead of one of six."""
SHAKEN, CLOSING = 0.15, 0.3
"""Shares of the pairs in which the second frame is shaken, and in which the mouth closes instead of opening."""
WEIGHTS = {"pixel": 60.0, "perceptual": 1.0, "adversarial": 0.25}
CHANNELS = (16, 24, 40, 112)
"""Channels of the perceptual network's maps that are compared."""


class Pairs(detector.Pairs):
    """Pairs of frames whose background mostly stands still."""

    def _shake(self) -> NDArray[np.float64]:
        return super()._shake() if self._random.random() < SHAKEN else np.eye(3)

    def _chosen(self) -> tuple[detector.Shown, int, int]:
        shown, first, second = super()._chosen()
        return (shown, second, first) if self._random.random() < CLOSING else (shown, first, second)


class Judge(nn.Module):
    """Discriminators on the features of a frozen network (Projected GANs, Sauer et al. 2021), conditional on keypoints.

    FOMM's own discriminator, on pixels and with instance normalisation, which removes what distinguishes a soft mouth
    from a sharp one, learns nothing in a hundred steps; these classify four of five unseen windows correctly by then.
    """

    def __init__(self, keypoints: int, width: int = 64) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for channels in CHANNELS)
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels + keypoints, width, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, width, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, 1, 1),
            )
            for channels in CHANNELS
        )

    def forward(self, features: Sequence[Tensor], heatmaps: Tensor) -> list[Tensor]:
        """Return a map of scores for each map of features.  heatmaps: (B, K, H, W) of the driving keypoints."""
        scores = []
        for norm, head, found in zip(self.norms, self.heads, features, strict=True):
            beside = F.interpolate(heatmaps, found.shape[2:])
            scores.append(head(torch.cat((norm(found.float()), beside), 1)).float())
        return scores


def cut(maps: Tensor, corners: Tensor, side: int, scale: int = 1) -> Tensor:
    """Cut squares out of maps (B, C, H, W): (B, C, side * scale, side * scale).

    corners: (B, 2) in cells, x before y.  side: in cells.  scale: pixels of the maps per cell.
    """
    squares = [
        each[:, y * scale : (y + side) * scale, x * scale : (x + side) * scale]
        for each, (x, y) in zip(maps, corners.tolist(), strict=True)
    ]
    return torch.stack(squares)


def centres(points: Tensor, random: np.random.Generator) -> Tensor:
    """Return the centres (2 B, 2) of the windows of frames with points (B, K, 2), in [-1, 1].

    First the mouths, then one eye of half of the frames, or a random place; so too where no landmarks were found.
    """
    eyes = torch.stack([each[list(EYES[random.integers(2)])].mean(0) for each in points])
    eyes[torch.from_numpy(random.random(len(points)) < 0.5)] = math.nan
    wanted = torch.cat((points[:, list(MOUTH)].mean(1), eyes))
    wanted += torch.from_numpy(random.normal(0, 0.03, wanted.shape)).float()
    anywhere = torch.from_numpy(random.uniform(-1, 1, wanted.shape)).float()
    return torch.where(wanted.isfinite().all(1, keepdim=True), wanted, anywhere)


def corners(centres: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the upper left corners (B, 2), x before y, of windows in a frame, and of their middles in the windows.

    centres: (B, 2) in [-1, 1].  side: of the frame in cells.
    """
    cells = (centres + 1) / 2 * side
    windows = (cells - WINDOW / 2).round().clamp(0, side - WINDOW)
    margin = (WINDOW - MIDDLE) / 2
    first = torch.where(windows == 0, 0, margin)
    last = torch.where(windows == side - WINDOW, WINDOW - MIDDLE, margin)
    middles = (cells - MIDDLE / 2 - windows).round().maximum(first).minimum(last)
    return windows.long(), middles.long()


@torch.no_grad()
def windows(
    backend: Any, source: Tensor, driving: Tensor, centres: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cut two windows out of each frame: what the decoder reads, and what it is to decode.

    source, driving: (B, 3, H, W) in [0, 1].  centres: (2 B, 2) in [-1, 1], first one window of each frame.  Returns
    features, warped and occluded, heatmaps of the driving keypoints, warped source, driving frame, and the corners of
    the windows' middles.
    """
    generator, moved, wanted = backend.generator, *(backend.keypoint_detector(each) for each in (source, driving))
    motion = generator.dense_motion_network(source, moved, wanted)
    features = generator.warp(generator.encode(source).float(), motion.deformation) * motion.occlusion
    side = features.shape[2]
    heatmaps = gaussians(wanted.keypoints, side, side, EMBEDDED_VARIANCE)
    kept = generator.warp(source, inside(motion.deformation))
    own, middles = corners(centres, side)
    maps = ((features, 1), (heatmaps, 1), (kept, CELL), (driving, CELL))
    features, heatmaps, kept, true = (cut(torch.cat((each, each)), own, WINDOW, scale) for each, scale in maps)
    return features, heatmaps, kept, true, middles


def hinge_loss(judge: Judge, real: Sequence[Tensor], made: Sequence[Tensor], heatmaps: Tensor) -> Tensor:
    """Return the discriminators' loss; no gradient reaches the features of the decoded windows."""
    both = [torch.cat((one, other.detach())) for one, other in zip(real, made, strict=True)]
    halves = [scores.chunk(2) for scores in judge(both, torch.cat((heatmaps, heatmaps)))]
    return torch.stack([F.relu(1 - true).mean() + F.relu(1 + false).mean() for true, false in halves]).mean()


def decoded(generator: Generator, features: Tensor, heatmaps: Tensor, kept: Tensor) -> Tensor:
    """Decode windows (B, 3, WINDOW * CELL, WINDOW * CELL).

    features, heatmaps: (B, C, WINDOW, WINDOW), warped and occluded, and of the driving keypoints.  kept: the warped
    source.
    """
    assert generator.embedding is not None
    assert generator.blend is not None
    out = generator.bottleneck(features + generator.embedding(heatmaps * EMBEDDED_HEIGHT))
    for block in generator.up_blocks:
        out = block(out)
    frames, blend = (torch.sigmoid(each.float()) for each in heads(out, generator.final, generator.blend))
    return torch.lerp(frames, kept, blend)


def load(backend: Any, path: Path) -> None:
    """Load the weights of a model or checkpoint into a backend of FOMM."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors = load_file(path)
        weights = {
            group: {
                name.removeprefix(f"{group}/"): values for name, values in tensors.items() if name.startswith(group)
            }
            for group in backend.modules()
        }
    else:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        weights = checkpoint.get("average", checkpoint)
    for group, module in backend.modules().items():
        module.load_state_dict(weights[group])


def main(arguments: Sequence[str]) -> int:
    """Train and write the checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("init", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=8, help="of a step; each gives two windows")
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    random = np.random.default_rng(options.seed + 1)
    options.output.mkdir(parents=True, exist_ok=True)
    preset = load_preset("faces-mini", host := load_host())
    backend = host.find("backend", "fomm").build(preset.model_params)
    load(backend, options.init)
    for module in backend.modules().values():
        module.requires_grad_(False)
    generator, average = backend.generator, WeightAverage(backend.modules(), 0.998)
    decoder = (generator.embedding, generator.bottleneck, generator.up_blocks, generator.final, generator.blend)
    parameters = [values for part in decoder for values in part.requires_grad_(True).parameters()]
    perceptual, judge = load_perceptual("efficientnet-lite0"), Judge(backend.keypoint_detector.kp.out_channels)
    assert perceptual is not None
    optimiser = torch.optim.Adam(parameters, lr=options.rate, betas=(0.5, 0.999))
    judging = torch.optim.Adam(judge.parameters(), lr=1e-3, betas=(0.5, 0.99))
    guided = [numbers[0] for numbers in preset.section("train_params").guidance.points]
    detector.SOFT = 0.0  # nothing is blurred: blur is what is to be unlearned
    detector.DISTANCES = (*detector.DISTANCES, *detector.DISTANCES[:1] * LIPS)
    pairs = Pairs(find_clips(options.data, "train"), guided, options.seed)
    for step in range(options.steps):
        rate = min(1, (step + 1) / 30) * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        optimiser.param_groups[0]["lr"] = options.rate * rate
        frames, points = pairs.batch(options.pairs)
        source, driving = frames[0::2], frames[1::2]
        with torch.autocast("cpu", torch.bfloat16):
            features, heatmaps, kept, true, middles = windows(backend, source, driving, centres(points[1::2], random))
            true, told = cut(true, middles, MIDDLE, CELL), cut(heatmaps, middles, MIDDLE)
            with torch.no_grad():
                aims = perceptual.first(true, len(CHANNELS))
            made = cut(decoded(generator, features, heatmaps, kept), middles, MIDDLE, CELL)
            found = perceptual.first(made, len(CHANNELS))
            losses = {
                "pixel": (made - true).abs().mean(),
                "perceptual": torch.stack(
                    [(one.float() - other.float()).abs().mean() for one, other in zip(found, aims, strict=True)]
                ).sum(),
                "adversarial": -torch.stack([score.mean() for score in judge.eval()(found, told)]).sum(),
            }
        optimiser.zero_grad()
        torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 50)
        optimiser.step()
        judging.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            judged = hinge_loss(judge.train(), aims, found, told)
        judged.backward()
        judging.step()
        average.update(step)
        if step % 20 == 19:
            print(step + 1, *(f"{name} {loss.item():.3f}" for name, loss in losses.items()), f"{judged.item():.3f}")
            sys.stdout.flush()
        if step % 250 == 249 or step + 1 == options.steps:
            torch.save({"average": average.state_dict()}, options.output / f"step-{step + 1:05d}.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
