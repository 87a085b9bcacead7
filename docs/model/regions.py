"""Measures the errors of a face model by region of the frame: the face, around it, below it, above and beside it.

    python docs/model/regions.py MODEL [MODEL ...] --data DIR [--split train] [--every 5]

Each clip is reconstructed from its own first frame (ten of its first sixty frames). The model's mean absolute error is
compared with that of repeating the first frame, and of warping the first frame by the optical flow to the true frame,
which is about the best that motion alone can reach. `--every 5` uses every fifth clip. Needs the optional packages of
`pip install 'fommctl[mesh]'`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fommctl.datasets.clips import find_clips
from fommctl.host import Host, load_host
from fommctl.media.random_access import read_frames
from fommctl.models.loading import load_model

FRAMES, EVERY = 60, 6
AROUND = 61 / 256
"""Side of the square that dilates the face to its surroundings, in sides of the frame."""
REGIONS = ("face", "around it", "below", "above and beside")
Map = NDArray[np.float64]


def regions(face: NDArray[np.uint8]) -> list[NDArray[np.bool_]]:
    """Return the masks (H, W) of the four regions, which do not overlap.  face: (H, W), 1 on the face, else 0."""
    side = round(AROUND * len(face)) | 1
    wide = cv2.dilate(face, np.ones((side, side), np.uint8)).astype(bool)
    inside, chin = face.astype(bool), int(np.nonzero(face.any(1))[0].max())
    below = ~wide
    below[:chin] = False
    return [inside, wide & ~inside, below, ~wide & ~below]


def along_flow(source: NDArray[np.uint8], driving: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the source (H, W, 3) warped to the driving frame by the optical flow between them."""
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (driving, source)]
    flow = finder.calc(*grey, None)
    places = np.moveaxis(np.mgrid[: len(source), : source.shape[1]][::-1].astype(np.float32), 0, -1)
    return cv2.remap(source, places + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def errors(backend: Any, frames: NDArray[np.uint8], faces: Sequence[Any]) -> Iterator[tuple[Any, list[Map]]]:
    """Yield the detections in each frame after the first, and maps (H, W) of the errors of repeating the first frame,
    of the optical flow, and of the model; frames without a face are skipped."""
    batch = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        source = backend.keypoint_detector(batch[:1])
        for number in range(1, len(frames)):
            if not faces[number]:
                continue
            motion = backend.keypoint_detector(batch[number : number + 1])
            prediction = backend.generator(batch[:1], source, motion).prediction[0].permute(1, 2, 0).numpy()
            others = (frames[0] / 255, along_flow(frames[0], frames[number]) / 255, prediction)
            yield faces[number], [np.abs(each - frames[number] / 255).mean(-1) for each in others]


def measured(name: str, data: Path, split: str, every: int, host: Host) -> NDArray[np.float64]:
    """Return sums (regions, 4) over all frames: errors of repeating, of the optical flow, of the model, and pixels."""
    model = load_model(name, host)
    size = tuple(model.preset.section("dataset_params").frame_shape[:2])
    detector = host.find("detector", "face-mesh").build()
    sums = np.zeros((len(REGIONS), 4))
    for clip in [each for each in find_clips(data, split) if not each.still][::every]:
        numbers = range(0, min(FRAMES, clip.frames), EVERY)
        frames = np.stack(read_frames(clip.path, numbers, size=size))
        for found, maps in errors(model.backend, frames, detector.detect(list(frames))):
            hull = cv2.convexHull(found[0].landmarks.astype(np.float32)).astype(np.int32)
            face = cv2.fillConvexPoly(np.zeros(size, np.uint8), hull, 1)
            for row, region in zip(sums, regions(face), strict=True):
                row += [*(each[region].sum() for each in maps), region.sum()]
    return sums


def main(arguments: Sequence[str]) -> int:
    """Measure the models and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="train", choices=("train", "test"))
    parser.add_argument("--every", type=int, default=5)
    options = parser.parse_args(arguments)
    host = load_host()
    for name in options.models:
        sums = measured(name, options.data, options.split, options.every, host)
        print(
            f"\n{name}\n\n| | area | repeating | along the flow | model | over repeating |\n|---|---|---|---|---|---|"
        )
        for region, (repeated, flow, model, pixels) in zip((*REGIONS, "all"), [*sums, sums.sum(0)], strict=True):
            shown = (repeated / pixels, flow / pixels, model / pixels)
            values = " | ".join(f"{each:.4f}" for each in shown)
            print(f"| {region} | {pixels / sums[:, 3].sum():.2f} | {values} | {model / repeated:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
