"""The synthetic data set: its frames follow its keypoints."""

from pathlib import Path

import numpy as np
import pytest

from fommctl_synthetic.dataset import Synthetic


@pytest.fixture(scope="module")
def data() -> Synthetic:
    return Synthetic()


def test_size_and_splits(data: Synthetic) -> None:
    clips = list(data.clips(Path("not/read")))
    assert len(clips) == 12
    assert {clip.identity for clip in clips if clip.split == "train"} == {f"shapes0{i}" for i in range(4)}
    assert {clip.identity for clip in clips if clip.split == "test"} == {"shapes04", "shapes05"}
    frames = list(clips[0].frames()) if clips[0].frames else []
    assert (len(frames), frames[0].shape, frames[0].dtype) == (24, (64, 64, 3), np.uint8)


def test_motion_is_known(data: Synthetic) -> None:
    keypoints, jacobians = data.motion("shapes00-take0")
    assert keypoints.shape == (24, 6, 2)
    assert jacobians.shape == (24, 6, 2, 2)
    assert np.abs(keypoints).max() < 1
    moved = np.ptp(keypoints, axis=0).max()
    assert moved > 0.1
    # A similarity: equal columns, at right angles; its scale is that of the distances between keypoints.
    scale = np.linalg.norm(jacobians[:, 0, :, 0], axis=-1)
    np.testing.assert_allclose(np.linalg.det(jacobians[:, 0]), scale**2)
    np.testing.assert_allclose(np.linalg.norm(keypoints[:, 1] - keypoints[:, 0], axis=-1), 0.7 * scale)


def test_the_texture_goes_with_the_keypoints(data: Synthetic) -> None:
    """At the keypoints of the shape in front the colour stays; where they were, it changes."""
    clip = next(clip for clip in data.clips(Path()) if clip.name == "shapes02-take1")
    assert clip.frames is not None
    frames = np.stack(list(clip.frames())).astype(float)
    keypoints, _ = data.motion(clip.name)
    pixels = np.round((keypoints[:, 3:] + 1) / 2 * 63).astype(int)
    following = np.stack([frame[at[:, 1], at[:, 0]] for frame, at in zip(frames, pixels, strict=True)])
    standing = np.stack([frame[pixels[0][:, 1], pixels[0][:, 0]] for frame in frames])
    assert np.abs(following - following[0]).mean() < 0.5 * np.abs(standing - standing[0]).mean()


def test_takes_of_one_identity_look_alike_and_move_differently(data: Synthetic) -> None:
    scenes = [data.scenes[f"shapes01-take{take}"][1] for take in (0, 1)]
    assert all(
        np.array_equal(one.texture.colours, other.texture.colours)
        for one, other in zip(scenes[0].shapes, scenes[1].shapes, strict=True)
    )
    assert not np.allclose(scenes[0].motion()[0], scenes[1].motion()[0])
