"""Trains the keypoint detector of the built-in model without the generator, the second phase of its training.

    python docs/model/detector.py INIT --data DIR -o JOINED [--steps 1800] [--seed 0]

INIT is a checkpoint of `fommctl train --preset faces-mini`; JOINED is the same checkpoint with the new detector, for
`--init-from`. Steps without the generator are ten times as fast, and eyelids need many steps. Keypoints learn the
positions of landmarks, the vectors between them (how far lips and eyelids are open), and their changes between frames
of a clip. Jacobians, and keypoints without landmarks, are kept near those of INIT on the same pictures. The result is
an exponential moving average of the weights; the learning rate follows a cosine.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fommctl.datasets.clips import Clip, find_clips
from fommctl.host import load_host
from fommctl.media.random_access import read_frames
from fommctl.presets.preset import load_preset
from fommctl.train.pairs import KeptLandmarks, Landmarks

SIDE = 256
MIDDLE = (SIDE - 1) / 2
MIRRORED = (0, 1, 3, 2, 4, 7, 8, 5, 6, 10, 9, 11, 13, 12, 14)
"""Index of each of the preset's guided points after the picture is mirrored."""
DISTANCES = ((13, 14), (159, 145), (386, 374), (4, 234), (10, 4), (61, 291))
"""Pairs of landmarks whose distances select the frames of a pair: lips, eyelids, turns, nods, smiles."""
STILLS, SYNTHETIC, CHOSEN, GRAY, SOFT = 0.2, 0.12, 0.7, 0.12, 0.15
"""Shares of pairs from stills and from synthetic clips, of pairs selected by distance, and of gray and blurred
pictures."""
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shown:
    """A clip in memory."""

    frames: Pixels
    """(F, 256, 256, 3) RGB."""
    marks: NDArray[np.float32]
    """Landmarks (F, N, 2) in [-1, 1], NaN if none were found."""


class Pairs:
    """Draws random pairs of frames with landmarks, with random motion, colour and blur."""

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
        """Return frames (2 count, 3, 256, 256) in [0, 1] and points (2 count, K, 2) in [-1, 1]; pairs are adjacent."""
        drawn = [each for _ in range(count) for each in self._pair()]
        frames = torch.from_numpy(np.stack([frame for frame, _ in drawn])).permute(0, 3, 1, 2).float() / 255
        return frames, torch.from_numpy(np.stack([points for _, points in drawn])).float()

    def _chosen(self) -> tuple[Shown, int, int]:
        """Return a clip and the numbers of two of its frames."""
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
        pair = []
        for place, number in enumerate(numbers):
            move = framing @ self._shake() if place or random.random() < 0.5 else framing
            frame, points = shown.frames[number], (shown.marks[number, self._points] + 1) * MIDDLE
            if mirrored:
                frame, points = frame[:, ::-1], points[list(MIRRORED)] * [-1, 1] + [SIDE - 1, 0]
            frame = cv2.warpAffine(np.ascontiguousarray(frame), move[:2], (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
            if random.random() < SOFT:
                frame = cv2.GaussianBlur(frame, (0, 0), random.uniform(0.5, 2))
            points = points @ move[:2, :2].T + move[:2, 2]
            pair.append((coloured(frame, colours, gray=gray), points / MIDDLE - 1))
        return pair

    def _framing(self) -> NDArray[np.float64]:
        random = self._random
        scale, angle = np.exp(random.uniform(np.log(0.72), np.log(1.2))), np.deg2rad(8 * random.normal())
        return about_the_middle(scale * turned(angle), 8 * random.normal(size=2))

    def _shake(self) -> NDArray[np.float64]:
        random = self._random
        scale, angle = np.exp(random.uniform(-0.06, 0.06)), np.deg2rad(3 * random.normal())
        sheared = np.array([[1 + random.uniform(-0.05, 0.05), random.uniform(-0.05, 0.05)], [0, 1]])
        return about_the_middle(scale * turned(angle) @ sheared, 4 * random.normal(size=2))


def turned(angle: float) -> NDArray[np.float64]:
    """Return the rotation matrix (2, 2) of an angle in radians."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def about_the_middle(linear: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine map (3, 3) of pixels that applies `linear` (2, 2) about the middle, then a shift (2,)."""
    move = np.eye(3)
    move[:2, :2] = linear
    move[:2, 2] = MIDDLE - linear @ [MIDDLE, MIDDLE] + shift
    return move


def coloured(frame: Pixels, draws: NDArray[np.float64], *, gray: bool) -> Pixels:
    """Change brightness, contrast, saturation and tint of a frame (H, W, 3).  draws: (7,) in [-1, 1]."""
    values = frame.astype(np.float32) * (1 + 0.3 * draws[0])
    mean = values.mean()
    values = (values - mean) * (1 + 0.3 * draws[1]) + mean
    luma = (values @ np.array([0.299, 0.587, 0.114]))[..., None]
    values = luma + (values - luma) * (0 if gray else 1 + 0.4 * draws[2])
    if draws[3] < 0:
        values = values * (1 + 0.08 * draws[4:7])
    return values.clip(0, 255).astype(np.uint8)


def spans(points: Tensor, pairs: Sequence[Sequence[int]]) -> Tensor:
    """Return the vectors (B, S, 2) between S pairs of points (B, K, 2)."""
    return torch.stack([points[:, first] - points[:, second] for first, second in pairs], 1)


def main(arguments: Sequence[str]) -> int:
    """Train the detector and write the joined checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("init", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    checkpoint = torch.load(options.init, map_location="cpu", weights_only=False)
    host = load_host()
    preset = load_preset("faces-mini", host)
    guidance = preset.section("train_params").guidance
    build = host.find("backend", "fomm").build
    teacher, network, average = (build(preset.model_params).keypoint_detector for _ in range(3))
    # The downsampling filter is not learned, and depends on the frame size.
    learned = checkpoint.get("average", checkpoint)["kp_detector"]
    learned = {name: values for name, values in learned.items() if name != "down.weight"}
    for each in (teacher, network, average):
        each.load_state_dict(learned, strict=False)
    teacher.eval()
    network.train()
    pairs = Pairs(find_clips(options.data, "train"), [numbers[0] for numbers in guidance.points], options.seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=options.rate)
    for step in range(options.steps):
        rate = options.rate * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        frames, wanted = pairs.batch(options.pairs)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                held = teacher(frames)
            found = network(frames)
        guided = wanted.shape[1]
        seen = wanted.isfinite().all(2, keepdim=True).all(1, keepdim=True)
        error = torch.where(seen, found.keypoints[:, :guided] - wanted.nan_to_num(), 0)
        others = found.keypoints[:, guided:] - held.keypoints[:, guided:]
        moved = torch.where(seen[0::2] & seen[1::2], error[0::2] - error[1::2], 0)
        losses = (
            100 * error.abs().mean(),
            200 * spans(error, guidance.spans).abs().mean(),
            100 * (moved.abs().mean() + spans(moved, guidance.spans).abs().mean()),
            5 * (found.jacobians - held.jacobians).abs().mean(),
            200 * others.abs().mean(),
        )
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 50)
        optimiser.step()
        decay = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)
        if step % 50 == 49:
            print(step + 1, *(f"{loss.item():.3f}" for loss in losses), flush=True)
    for part in (checkpoint, checkpoint.get("average", {})):
        if "kp_detector" in part:
            part["kp_detector"].update({name: average.state_dict()[name] for name in learned})
    torch.save(checkpoint, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
