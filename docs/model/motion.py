"""Trains the motion networks of the built-in model by themselves, from landmarks and optical flow.

    python docs/model/motion.py INIT --data DIR -o JOINED [--steps 1800] [--flow 100] [--seed 0]

INIT is a checkpoint of `fommctl train --preset faces-mini`, or the name of a model; JOINED is the same with new motion
networks, for `--init-from`. A step without the generator is several times as fast.

Keypoints learn where landmarks are, how far lips and eyelids are open (vectors between them), and how they move from
frame to frame of a clip. Keypoints and dense motion together learn the optical flow between the frames of a pair,
wherever the flow back leads home, and to warp the source to the driving frame: what moves hair, shoulders and
background. With `--flow 0` the detector learns alone, and the keypoints that no landmark guides stay what they were.
Weights are an exponential average, rates fall along a cosine.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fommctl.datasets.clips import Clip, find_clips
from fommctl.host import load_host
from fommctl.media.random_access import read_frames
from fommctl.models.loading import load_model
from fommctl.networks.fomm import DenseMotion, inside
from fommctl.networks.grids import gaussians, identity_grid, resize_grid, sample
from fommctl.presets.preset import load_preset
from fommctl.train.pairs import KeptLandmarks, Landmarks

SIDE = 128
SMALL = (
    f"dataset_params.frame_shape=[{SIDE},{SIDE},3]",
    "model_params.kp_detector_params.scale_factor=0.5",
    "model_params.generator_params.dense_motion_params.scale_factor=0.5",
)
"""Settings of the preset: the motion networks see the same 64 x 64 pixels."""
MIDDLE = (SIDE - 1) / 2
MIRRORED = (0, 1, 3, 2, 4, 7, 8, 5, 6, 10, 9, 11, 13, 12, 14)
"""Numbers of the preset's guided points in a mirrored picture."""
DISTANCES = ((13, 14), (159, 145), (386, 374), (4, 234), (10, 4), (61, 291))
"""Landmarks by whose distance the two frames of a pair are chosen: lips, eyelids, turns, nods, smiles."""
STILLS, SYNTHETIC, CHOSEN, ALIKE, GRAY, SOFT = 0.1, 0.12, 0.7, 0.9, 0.12, 0.15
"""Shares: of pairs of one still; of synthetic clips; of pairs chosen by distances; of those of clips whose frames are
framed alike, so that the background keeps still; of gray and of blurred pictures."""
FOCUS = (0, 1, 2, 3, 5, 6, 7, 8)
"""Guided points around which the flow counts more: lips, corners of the mouth, eyelids."""
MORE, NEAR = 5.0, 0.005
"""How much more it counts there, and the variance of the Gaussians in which it does."""
ALIVE = 0.02
"""Weight of the loss that keeps parts of the dense motion from dying."""
AGREES = (0.02, 0.4)
"""How far the flow back may end from where the flow began: in parts of their squared lengths, and in square pixels."""
MOTION = ("kp_detector", "generator")
"""Networks that move: the second holds the dense motion, of which alone it learns."""
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shown:
    """A clip in memory."""

    frames: Pixels
    """(F, SIDE, SIDE, 3)."""
    marks: NDArray[np.float32]
    """(F, N, 2): landmarks in [-1, 1]."""


class Pairs:
    """Random pairs of frames with their landmarks, moved, coloured and blurred."""

    def __init__(self, clips: Sequence[Clip], points: Sequence[int], seed: int) -> None:
        preset = load_preset("faces-mini", host := load_host())
        spec = host.find("detector", preset.section("train_params").guidance.detector)
        kept = KeptLandmarks(Landmarks(spec), spec.landmarks, spec.name)
        self._points = list(points)
        self._random = np.random.default_rng(seed)
        people: dict[tuple[bool, str], list[Shown]] = {}
        self._stills: list[Shown] = []
        for clip in clips:
            frames = np.stack(read_frames(clip.path, range(clip.frames), size=(SIDE, SIDE)))
            marks = (kept.read(clip, range(clip.frames)) * SIDE - 0.5) / MIDDLE - 1
            shown = Shown(frames, marks.astype(np.float32))
            if clip.still:
                self._stills.append(shown)
            else:
                people.setdefault((clip.name.startswith("synthetic/"), clip.identity), []).append(shown)
        self._real = [each for (synthetic, _), each in people.items() if not synthetic]
        self._synthetic = [each for (synthetic, _), each in people.items() if synthetic] or self._real

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Return frames (2 count, 3, SIDE, SIDE) in [0, 1], two and two of a pair, and their points (2 count, K, 2)."""
        drawn = [each for _ in range(count) for each in self._pair()]
        frames = torch.from_numpy(np.stack([frame for frame, _ in drawn])).permute(0, 3, 1, 2).float() / 255
        return frames, torch.from_numpy(np.stack([points for _, points in drawn])).float()

    def _chosen(self) -> tuple[Shown, int, int]:
        random = self._random
        kind = random.random()
        if self._stills and kind < STILLS:
            return self._stills[random.integers(len(self._stills))], 0, 0
        people = self._synthetic if kind < STILLS + SYNTHETIC else self._real
        clips = people[random.integers(len(people))]
        shown = clips[random.integers(len(clips))]
        numbers = random.integers(0, len(shown.frames), 12)
        if random.random() >= CHOSEN:
            return shown, int(numbers[0]), int(numbers[1])
        first, second = DISTANCES[random.integers(len(DISTANCES))]
        marks = shown.marks[numbers]
        distance = np.nan_to_num(np.linalg.norm(marks[:, first] - marks[:, second], axis=1))
        return shown, int(numbers[distance.argmin()]), int(numbers[distance.argmax()])

    def _pair(self) -> list[tuple[Pixels, NDArray[np.float64]]]:
        random = self._random
        shown, *numbers = self._chosen()
        framing, colours, gray = self._framing(), random.uniform(-1, 1, 7), random.random() < GRAY
        mirrored = random.random() < 0.5
        alike = len(set(numbers)) > 1 and random.random() < ALIKE
        framing = framing @ self._shake()
        pair = []
        for number in numbers:
            move = framing if alike else framing @ self._shake()
            frame, points = shown.frames[number], (shown.marks[number, self._points] + 1) * MIDDLE
            if mirrored:
                frame, points = frame[:, ::-1], points[list(MIRRORED)] * [-1, 1] + [SIDE - 1, 0]
            frame = cv2.warpAffine(np.ascontiguousarray(frame), move[:2], (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
            if random.random() < SOFT:
                frame = cv2.GaussianBlur(frame, (0, 0), SIDE / 256 * random.uniform(0.5, 2))
            points = points @ move[:2, :2].T + move[:2, 2]
            pair.append((coloured(frame, colours, gray=gray), points / MIDDLE - 1))
        return pair

    def _framing(self) -> NDArray[np.float64]:
        random = self._random
        scale, angle = np.exp(random.uniform(np.log(0.72), np.log(1.2))), np.deg2rad(8 * random.normal())
        return about_the_middle(scale * turned(angle), SIDE / 32 * random.normal(size=2))

    def _shake(self) -> NDArray[np.float64]:
        random = self._random
        scale, angle = np.exp(random.uniform(-0.06, 0.06)), np.deg2rad(3 * random.normal())
        sheared = np.array([[1 + random.uniform(-0.05, 0.05), random.uniform(-0.05, 0.05)], [0, 1]])
        return about_the_middle(scale * turned(angle) @ sheared, SIDE / 64 * random.normal(size=2))


def turned(angle: float) -> NDArray[np.float64]:
    """Return a rotation (2, 2)."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def about_the_middle(linear: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine map (3, 3) of pixels that keeps the middle of the picture but for a shift."""
    move = np.eye(3)
    move[:2, :2] = linear
    move[:2, 2] = MIDDLE - linear @ [MIDDLE, MIDDLE] + shift
    return move


def coloured(frame: Pixels, draws: NDArray[np.float64], *, gray: bool) -> Pixels:
    """Change brightness, contrast, saturation and tint by draws (7,) in [-1, 1]."""
    values = frame.astype(np.float32) * (1 + 0.3 * draws[0])
    mean = values.mean()
    values = (values - mean) * (1 + 0.3 * draws[1]) + mean
    luma = (values @ np.array([0.299, 0.587, 0.114]))[..., None]
    values = luma + (values - luma) * (0 if gray else 1 + 0.4 * draws[2])
    if draws[3] < 0:
        values = values * (1 + 0.08 * draws[4:7])
    return values.clip(0, 255).astype(np.uint8)


def spans(points: Tensor, pairs: Sequence[Sequence[int]]) -> Tensor:
    """Return the vectors (B, S, 2) between points (B, K, 2)."""
    return torch.stack([points[:, first] - points[:, second] for first, second in pairs], 1)


def flow_between(pairs: Pixels) -> tuple[Tensor, Tensor]:
    """Return the optical flow (B, H, W, 2) in pixels from the second picture of each pair to the first, and where it
    is known (B, H, W): 1 where the flow back leads home, else 0.  pairs: (2 B, H, W, 3)."""
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pairs]
    places = np.moveaxis(np.mgrid[: pairs.shape[1], : pairs.shape[2]][::-1].astype(np.float32), 0, -1)
    last = np.array(pairs.shape[2:0:-1]) - 1
    flows, known = [], []
    for source, driving in zip(grey[0::2], grey[1::2], strict=True):
        flow, back = finder.calc(driving, source, None), finder.calc(source, driving, None)
        seen = places + flow
        returned = cv2.remap(back, seen, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        allowed = AGREES[0] * ((flow**2).sum(-1) + (returned**2).sum(-1)) + AGREES[1]
        flows.append(flow)
        known.append((((flow + returned) ** 2).sum(-1) < allowed) & (seen >= 0).all(-1) & (seen <= last).all(-1))
    return torch.from_numpy(np.stack(flows)), torch.from_numpy(np.stack(known)).float()


def flow_losses(dense: DenseMotion, frames: Tensor, points: Tensor) -> list[Tensor]:
    """Return how far a dense motion is from the optical flow, how far the warped source is from the driving frame, and
    how little weight the parts have.

    frames: (2 B, 3, H, W), source and driving frames in turns.  points: (B, P, 2), around which more counts.
    """
    height, width = frames.shape[2:]
    flow, known = flow_between((frames * 255).byte().permute(0, 2, 3, 1).numpy())
    wanted = identity_grid(height, width, like=flow) + flow * 2 / torch.tensor([width - 1, height - 1])
    grid = resize_grid(dense.deformation, height, width)
    weight = 1 + MORE * gaussians(points, height, width, NEAR).amax(1)
    off = (grid - wanted).square().sum(-1).add(1e-6).sqrt() * known * weight
    warped = sample(frames[0::2], inside(grid), align_corners=True)
    unlike = (warped - frames[1::2]).abs().mean(1) * weight
    # A part that has died gets no other gradient.
    dying = -dense.mask.mean((0, 2, 3)).clamp(min=1e-6).log().mean()
    return [off.mean(), unlike.mean(), dying]


def average_of(networks: nn.Module, average: nn.Module, decay: float) -> None:
    """Draw the average's weights nearer to those of the networks."""
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), networks.state_dict().values(), strict=True):
            kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)


def learned_in(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without the filters that reduce frames: they are not learned, and differ with the frames' size."""
    return {name: values for name, values in weights.items() if not name.endswith("down.weight")}


def write(checkpoint: Mapping[str, Any], networks: nn.ModuleDict, path: Path) -> None:
    """Write a checkpoint with the weights of these networks in the place of its own."""
    for weights in (checkpoint, checkpoint.get("average", {})):
        for name in MOTION:
            if name in weights:
                weights[name].update(learned_in(networks[name].state_dict()))
    torch.save(checkpoint, path)


def main(arguments: Sequence[str]) -> int:
    """Train and write the joined checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("init")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--flow", type=float, default=100)
    parser.add_argument("--bf16", action="store_true", help="where the processor multiplies bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    host = load_host()
    if Path(options.init).suffix == ".pt":
        checkpoint = torch.load(options.init, map_location="cpu", weights_only=False)
    else:
        model: Any = load_model(options.init, host).backend
        checkpoint = {name: dict(module.state_dict()) for name, module in model.modules().items()}
    preset = load_preset("faces-mini", host, sets=SMALL)
    guidance = preset.section("train_params").guidance
    build = host.find("backend", "fomm").build
    weights = checkpoint.get("average", checkpoint)
    networks, average, before = (nn.ModuleDict(build(preset.model_params).modules()) for _ in range(3))
    for each in (networks, average, before):
        for name in MOTION:
            each[name].load_state_dict(learned_in(weights[name]), strict=False)
    teacher = before["kp_detector"].eval()
    networks.train()
    detector, dense_motion = networks["kp_detector"], networks["generator"].dense_motion_network
    learned = nn.ModuleDict({"kp_detector": detector, "dense_motion": dense_motion}) if options.flow else detector
    pairs = Pairs(find_clips(options.data, "train"), [numbers[0] for numbers in guidance.points], options.seed)
    optimiser = torch.optim.Adam(learned.parameters(), lr=options.rate, betas=(0.5, 0.999))
    for step in range(options.steps):
        rate = options.rate * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        frames, wanted = pairs.batch(options.pairs)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            found = detector(frames)
            if options.flow:
                source, driving = (found[place::2] for place in (0, 1))
                dense = dense_motion(frames[0::2], source, driving)
        guided = wanted.shape[1]
        seen = wanted.isfinite().all(2, keepdim=True).all(1, keepdim=True)
        error = torch.where(seen, found.keypoints[:, :guided] - wanted.nan_to_num(), 0)
        moved = torch.where(seen[0::2] & seen[1::2], error[0::2] - error[1::2], 0)
        losses = [
            100 * error.abs().mean(),
            200 * spans(error, guidance.spans).abs().mean(),
            100 * (moved.abs().mean() + spans(moved, guidance.spans).abs().mean()),
        ]
        if options.flow:
            focus = torch.where(seen[1::2], wanted[1::2, list(FOCUS)], 10.0)
            parts = flow_losses(dense, frames, focus)
            losses += [options.flow * parts[0], 0.4 * options.flow * parts[1], ALIVE * parts[2]]
        else:
            with torch.no_grad():
                held = teacher(frames)
            losses.append(5 * (found.jacobians - held.jacobians).abs().mean())
            losses.append(200 * (found.keypoints[:, guided:] - held.keypoints[:, guided:]).abs().mean())
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(learned.parameters(), 50)
        optimiser.step()
        average_of(networks, average, min(0.998, (1 + step) / (10 + step)))
        if step % 50 == 49:
            print(step + 1, *(f"{loss.item():.3f}" for loss in losses), flush=True)
        if step % 250 == 249 or step + 1 == options.steps:
            write(checkpoint, average, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
