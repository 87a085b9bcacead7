"""Draws keys.jpg: what each key of `fommctl edit` does, without the published networks.

    python docs/edit/pictures.py

The keys move the keypoints exactly as `fommctl edit` does. The positions of the keypoints in the face are guesses
(PLACES), and a smooth warp between them replaces the networks: it shows the direction and rough size of each change,
not what frames look like.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from skimage.data import astronaut

from fommctl_liveportrait.edits import FaceEdits
from fommctl_liveportrait.motion import FaceMotion

PLACES = (
    (0.0, 0.02, -0.25), (0.0, -0.42, -0.1), (0.0, -0.27, -0.15), (-0.26, 0.06, 0.0), (-0.22, 0.22, 0.1),
    (0.0, 0.36, 0.0), (0.0, 0.24, -0.1), (0.26, 0.06, 0.0), (0.22, 0.22, 0.1), (0.0, -0.55, 0.0),
    (0.0, -0.7, 0.1), (-0.17, -0.19, -0.05), (0.0, 0.11, -0.15), (-0.17, -0.14, -0.05), (0.12, 0.13, -0.1),
    (0.17, -0.19, -0.05), (0.17, -0.14, -0.05), (0.0, 0.15, -0.15), (0.0, -0.15, -0.15), (0.0, 0.2, -0.12),
    (-0.12, 0.13, -0.1),
)  # fmt: skip
"""x, y and z of each keypoint in [-1, 1], guessed."""
ENDS = {"yaw": 25, "pitch": 20, "roll": 20, "x": 0.15, "y": 0.15, "zoom": (0.75, 1.3)}
"""Values shown for keys whose full range is too much for a warp; for other keys, -1 and 1 are shown."""
SIDE, FACE, SPREAD, BEHIND = 132, (89, 0, 371, 282), 0.012, 1e-4
LARGER = 4
"""Factor by which expressions are exaggerated: at 1 they are a pixel or two in these small pictures."""


def moved(key: str, value: float) -> torch.Tensor:
    """Return the keypoints (21, 2) under one edit."""
    parts = FaceEdits.motion([FaceEdits(), FaceEdits(**{key: value})])
    tensors = {name: torch.from_numpy(part) for name, part in parts.items()}
    tensors["expression"] = LARGER * tensors["expression"]
    tensors["canonical"] = torch.tensor(PLACES).expand(2, -1, -1)
    return FaceMotion(**tensors).keypoints()[1, :, :2]


def picture(source: torch.Tensor, points: torch.Tensor, size: int) -> Image.Image:
    """Warp a face (1, 3, N, N) with its keypoints at PLACES so that they move to `points`."""
    still = torch.tensor(PLACES)[:, :2]
    line = (torch.arange(size) * 2 + 1) / size - 1
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    weights = (-(grid[:, :, None] - points).square().sum(-1) / SPREAD).exp()
    shift = (weights[..., None] * (still - points)).sum(2) / (weights.sum(2, keepdim=True) + BEHIND)
    warped = F.grid_sample(source, (grid + shift)[None], padding_mode="border", align_corners=False)
    drawn = Image.fromarray((warped[0].permute(1, 2, 0) * 255).round().byte().numpy())
    pen = ImageDraw.Draw(drawn)
    for start, end in zip(((still + 1) / 2 * size).tolist(), ((points + 1) / 2 * size).tolist(), strict=True):
        pen.line((*start, *end), fill=(255, 200, 0))
        pen.ellipse((end[0] - 1, end[1] - 1, end[0] + 1, end[1] + 1), fill=(255, 60, 0))
    return drawn


def main() -> None:
    face = Image.fromarray(np.asarray(astronaut())).crop(FACE).resize((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)
    source = torch.from_numpy(np.asarray(face).copy()).permute(2, 0, 1)[None].float() / 255
    keys = list(FaceEdits.model_fields)
    columns = 4
    rows = -(-len(keys) // columns)
    sheet = Image.new("RGB", (columns * (2 * SIDE + 12), rows * (SIDE + 18)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, key in enumerate(keys):
        left, top = number % columns * (2 * SIDE + 12), number // columns * (SIDE + 18)
        end = ENDS.get(key, 1)
        values = end if isinstance(end, tuple) else (-end, end)
        for place, value in enumerate(values):
            near = 1 if key in ENDS else 2
            shown = picture(source, moved(key, value), near * SIDE)
            start = (near - 1) * SIDE // 2
            sheet.paste(shown.crop((start, start, start + SIDE, start + SIDE)), (left + place * (SIDE + 2), top + 14))
            pen.text((left + place * (SIDE + 2) + 2, top + 2), f"{key}={value:g}", fill="black")
    sheet.save(Path(__file__).with_name("keys.jpg"), quality=80)


if __name__ == "__main__":
    main()
