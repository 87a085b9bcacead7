"""Tells how far mouths and eyelids open in what models of faces make, by MediaPipe's face mesh.

    python docs/model/openings.py OLD NEW --data DIR [--split test]

Each clip is made from its own first frame (every second of its first 48 frames). For lips and eyelids: the correlation
of the result's opening with the true frame's, and as gain the slope of the least-squares line over it, each over the
distance of the outer corners of the eyes; means over the clips in which they move, and the difference of the two
models with its 95 % interval (bootstrap over clips). It sees lids that dlib's landmarks, which `measure.py` takes, lose
in noise; the mesh also guided the models' training. Needs `pip install 'fommctl[mesh]'`.
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

from fommctl.datasets.clips import find_clips
from fommctl.host import Host, load_host
from fommctl.media.random_access import read_frames
from fommctl.models.loading import load_model

FRAMES, EVERY = 48, 2
PARTS = {"mouth": ([13], [14], 0.010), "eyelids": ([159, 386], [145, 374], 0.006)}
"""Upper and lower landmarks, and the standard deviation of their opening below which a clip keeps still."""
EYES = (33, 263)
"""Outer corners."""
FEWEST = 6
"""Frames with a face, for a clip to count."""
Openings = NDArray[np.float64]


def opening(marks: Openings, upper: Sequence[int], lower: Sequence[int]) -> Openings:
    """Return how far something is open (F,) over the distance of the eyes.  marks: (F, N, 2), NaN for no face."""
    apart = np.linalg.norm(marks[:, upper] - marks[:, lower], axis=2).mean(1)
    return np.asarray(apart / np.linalg.norm(marks[:, EYES[0]] - marks[:, EYES[1]], axis=1))


def likeness(found: Openings, true: Openings, least: float) -> tuple[float, float]:
    """Return correlation and gain of openings (F,) with the true ones; NaN where there is nothing to compare."""
    seen = np.isfinite(found) & np.isfinite(true)
    if seen.sum() < FEWEST or true[seen].std() < least:
        return np.nan, np.nan
    found, true = (each[seen] - each[seen].mean() for each in (found, true))
    together, length = (found * true).sum(), (true**2).sum()
    return together / np.sqrt(length * (found**2).sum() + 1e-12), together / length


def marks_of(detector: Any, frames: NDArray[np.uint8]) -> Openings:
    """Return the landmarks (F, 478, 2) of frames."""
    none = np.full((478, 2), np.nan)
    return np.stack([found[0].landmarks if found else none for found in detector.detect(list(frames))])


def made(backend: Any, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what a model makes of the first frame for each frame."""
    batch = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        source, motion = backend.keypoint_detector(batch[:1]), backend.keypoint_detector(batch)
        drawn = [
            backend.generator(batch[:1], source, motion[number : number + 1]).prediction for number in range(len(batch))
        ]
    return (torch.cat(drawn).permute(0, 2, 3, 1) * 255).round().byte().numpy()


def measured(names: Sequence[str], data: Path, split: str, host: Host) -> NDArray[np.float64]:
    """Return correlation and gain (model, clip, part, 2)."""
    models = [load_model(name, host) for name in names]
    size = tuple(models[0].preset.section("dataset_params").frame_shape[:2])
    detector = host.find("detector", "face-mesh").build()
    rows = []
    for clip in find_clips(data, split):
        if clip.still:
            continue
        frames = np.stack(read_frames(clip.path, range(0, min(FRAMES, clip.frames), EVERY), size=size))
        true, *results = (
            marks_of(detector, each) for each in (frames, *(made(each.backend, frames) for each in models))
        )
        rows.append(
            [
                [
                    likeness(opening(marks, upper, lower), opening(true, upper, lower), least)
                    for upper, lower, least in PARTS.values()
                ]
                for marks in results
            ]
        )
    return np.array(rows).swapaxes(0, 1)


def main(arguments: Sequence[str]) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs=2)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test", choices=("train", "test"))
    options = parser.parse_args(arguments)
    found = measured(options.models, options.data, options.split, load_host())
    random = np.random.default_rng(0)
    print(f"| | {' | '.join(options.models)} | difference | clips |\n|---|---|---|---|---|")
    for place, part in enumerate(PARTS):
        for which, text in enumerate(("correlation", "gain")):
            old, new = found[:, :, place, which]
            apart = (new - old)[np.isfinite(new - old)]
            low, high = np.percentile(random.choice(apart, (5000, len(apart))).mean(1), (2.5, 97.5))
            means = " | ".join(f"{np.nanmean(each):.2f}" for each in (old, new))
            print(f"| {part}, {text} | {means} | {apart.mean():+.2f} [{low:+.2f}, {high:+.2f}] | {len(apart)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
