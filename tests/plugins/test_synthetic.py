"""The synthetic data sets: frames, keypoints and flow agree."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from fommctl.api import testing
from fommctl.host import Host
from fommctl_synthetic.casts import CASTS
from fommctl_synthetic.dataset import Synthetic
from fommctl_synthetic.layers import Limb, Shape, Waves
from fommctl_synthetic.scenes import Scene

KINDS = tuple(CASTS)
PAIRS = [
    ("shapes00-take0", 6, 14),
    ("shapes03-take1", 0, 12),
    ("figure01-take0", 2, 9),
    ("arm02-take1", 20, 8),
    ("turning01-take0", 3, 11),
    ("reach02-take1", 20, 8),
]


@pytest.fixture(scope="module")
def data() -> Synthetic:
    return Synthetic()


@pytest.fixture(scope="module")
def large() -> Synthetic:
    return Synthetic(size=256, kinds=KINDS)


def test_size_and_splits(data: Synthetic) -> None:
    clips = list(data.clips(Path("not/read")))
    assert len(clips) == 12
    assert {clip.identity for clip in clips if clip.split == "train"} == {f"shapes0{i}" for i in range(4)}
    assert {clip.identity for clip in clips if clip.split == "test"} == {"shapes04", "shapes05"}
    frames = list(clips[0].frames()) if clips[0].frames else []
    assert (len(frames), frames[0].shape, frames[0].dtype) == (24, (64, 64, 3), np.uint8)


@pytest.mark.parametrize(("name", "size"), [("synthetic", 64), ("synthetic-256", 256)])
def test_registered_sets_have_all_kinds(host: Host, name: str, size: int) -> None:
    testing.check_dataset(host.datasets[name], limit=1)
    clips = list(host.datasets[name].build().clips(Path("not/read")))
    identities = {clip.identity: clip.split for clip in clips}
    kinds = ("shapes", "figure", "arm")
    assert list(identities) == [f"{kind}{number:02d}" for kind in kinds for number in range(6)]
    assert [identities[f"{kind}04"] for kind in kinds] == ["test"] * 3
    assert len(clips) == 36
    assert next(clips[-1].frames()).shape == (size, size, 3)


@pytest.mark.parametrize("kind", ["shapes", "turning", "reach"])
def test_sets_of_one_kind_test_on_eight_of_its_identities(host: Host, kind: str) -> None:
    testing.check_dataset(host.datasets[f"synthetic-{kind}"], limit=1)
    clips = list(host.datasets[f"synthetic-{kind}"].build().clips(Path("not/read")))
    assert {clip.identity for clip in clips if clip.split == "test"} == {f"{kind}{number}" for number in range(40, 48)}
    assert len([clip for clip in clips if clip.split == "train"]) == 80


def test_turning_shapes_turn_and_grow_more(large: Synthetic) -> None:
    def ranges(kind: str) -> tuple[float, float]:
        """Return the largest rotation in radians and the largest ratio of sizes within a clip, averaged over clips."""
        maps = [large.motion(name)[1][:, 0] for name in large.scenes if name.startswith(kind)]
        angles = [np.ptp(np.unwrap(np.arctan2(each[:, 1, 0], each[:, 0, 0]))) for each in maps]
        sizes = [np.sqrt(np.linalg.det(each)) for each in maps]
        return float(np.mean(angles)), float(np.mean([size.max() / size.min() for size in sizes]))

    (turn, growth), (before_turn, before_growth) = ranges("turning"), ranges("shapes")
    assert before_turn < 1.4 < 2 < turn
    assert before_growth < 1.5 < growth


@pytest.mark.parametrize("kind", KINDS)
def test_clips_go_to_another_process(large: Synthetic, kind: str) -> None:
    clip = next(clip for clip in large.clips(Path()) if clip.name == f"{kind}00-take0")
    sent = pickle.loads(pickle.dumps(clip))
    np.testing.assert_array_equal(next(sent.frames()), next(clip.frames()))


def test_motion_is_known(data: Synthetic) -> None:
    keypoints, jacobians = data.motion("shapes00-take0")
    assert keypoints.shape == (24, 6, 2)
    assert jacobians.shape == (24, 6, 2, 2)
    assert np.abs(keypoints).max() < 1
    moved = np.ptp(keypoints, axis=0).max()
    assert moved > 0.1
    # A similarity: columns of equal length at right angles; its scale is that of the distances between keypoints.
    scale = np.linalg.norm(jacobians[:, 0, :, 0], axis=-1)
    np.testing.assert_allclose(np.linalg.det(jacobians[:, 0]), scale**2)
    np.testing.assert_allclose(np.linalg.norm(keypoints[:, 1] - keypoints[:, 0], axis=-1), 0.7 * scale)


def test_the_texture_goes_with_the_keypoints(data: Synthetic) -> None:
    """The colour at the front shape's keypoints does not change, unlike that at their earlier positions."""
    clip = next(clip for clip in data.clips(Path()) if clip.name == "shapes02-take1")
    assert clip.frames is not None
    frames = np.stack(list(clip.frames())).astype(float)
    keypoints, _ = data.motion(clip.name)
    pixels = np.round((keypoints[:, 3:] + 1) / 2 * 63).astype(int)
    following = np.stack([frame[at[:, 1], at[:, 0]] for frame, at in zip(frames, pixels, strict=True)])
    standing = np.stack([frame[pixels[0][:, 1], pixels[0][:, 0]] for frame in frames])
    assert np.abs(following - following[0]).mean() < 0.5 * np.abs(standing - standing[0]).mean()


def test_takes_of_one_identity_look_alike_and_move_differently(large: Synthetic) -> None:
    for kind in KINDS:
        scenes = [large.scenes[f"{kind}01-take{take}"][1] for take in (0, 1)]
        assert all(
            np.array_equal(one.texture.colours, other.texture.colours)
            for one, other in zip(scenes[0].layers, scenes[1].layers, strict=True)
        )
        assert not np.allclose(scenes[0].motion()[0], scenes[1].motion()[0])


@pytest.mark.parametrize(
    "name", [f"{kind}{number:02d}-take1" for kind in ("figure", "arm", "reach") for number in range(6)]
)
def test_limbs_stay_joined_in_the_picture_and_of_one_length(large: Synthetic, name: str) -> None:
    scene = large.scenes[name][1]
    keypoints, jacobians = scene.motion()
    assert np.abs(keypoints).max() < 0.97
    ends = {id(limb): keypoints[:, 2 * number + 1] for number, limb in enumerate(scene.layers)}
    lengths = np.linalg.norm(keypoints[:, 1::2] - keypoints[:, ::2], axis=-1)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape))
    joined = 0
    for number, limb in enumerate(scene.layers):
        np.testing.assert_allclose(np.linalg.det(jacobians[:, 2 * number]), limb.half_width**2)
        if limb.parent is not None and np.array_equal(limb.joint, (limb.parent.length, 0)):
            np.testing.assert_allclose(keypoints[:, 2 * number], ends[id(limb.parent)], atol=1e-12)
            joined += 1
    assert joined == {"figure": 4, "arm": 3, "reach": 2}[name[:-8]]
    assert np.ptp(keypoints, axis=0).max() > 0.25


def warped(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample a frame (H, W, 3) as models do."""
    picture = torch.from_numpy(frame.astype(np.float64)).permute(2, 0, 1)[None]
    return grid_sample(picture, torch.from_numpy(flow)[None], align_corners=True)[0].permute(1, 2, 0).numpy()


def interior(labels: np.ndarray) -> np.ndarray:
    """Return which pixels are four or more away from all edges."""
    same = np.ones(labels.shape, bool)
    for down in range(-4, 5):
        for right in range(-4, 5):
            same &= np.roll(labels, (down, right), (0, 1)) == labels
    return same


@pytest.mark.parametrize(("name", "source", "driving"), PAIRS)
def test_the_source_frame_under_the_flow_is_the_driving_frame(
    large: Synthetic, name: str, source: int, driving: int
) -> None:
    scene = large.scenes[name][1]
    frames = list(scene.frames())
    flow, visible = large.flow(name, source, driving)
    assert flow.shape == (256, 256, 2)
    assert visible.shape == (256, 256)
    difference = np.abs(warped(frames[source], flow) - frames[driving]).max(-1)
    axis = np.linspace(-1, 1, 256)
    before, labels = (scene.labels_at(np.stack(np.meshgrid(axis, axis), -1), index / 24) for index in (source, driving))
    column, row = np.moveaxis(np.clip(np.round((flow + 1) / 2 * 255).astype(int), 0, 255), -1, 0)
    inner = visible & interior(labels) & interior(before)[row, column]
    assert inner[labels >= 0].sum() > 100
    # Levels of 255: rounding, and the error of bilinear sampling of the finest texture.
    assert difference[inner].max() < 8
    assert difference[inner].mean() < 1
    assert difference[visible].mean() < 2
    # What is hidden in the source is not found there; what moved is no longer where it was.
    assert difference[~visible].mean() > 10
    standing = np.abs(frames[source].astype(float) - frames[driving]).max(-1)
    assert standing[labels >= 0].mean() > 5 * difference[visible & (labels >= 0)].mean()


@pytest.mark.parametrize(("name", "source", "driving"), PAIRS)
def test_keypoints_move_with_the_flow(large: Synthetic, name: str, source: int, driving: int) -> None:
    scene = large.scenes[name][1]
    keypoints, _ = scene.motion()
    flow, _ = scene.flow(source, driving)
    owners = np.repeat(np.arange(len(scene.layers)), [len(layer.keypoints) for layer in scene.layers])
    seen = scene.labels_at(keypoints[driving], driving / 24) == owners
    assert seen.sum() >= 3
    sampled = grid_sample(
        torch.from_numpy(flow).permute(2, 0, 1)[None],
        torch.from_numpy(keypoints[driving])[None, None],
        align_corners=True,
    )[0, :, 0].T.numpy()
    # Within a layer, the flow is affine and hence sampled without error; ends of limbs are near edges.
    exact = np.abs(sampled - keypoints[source]).max(-1) < 1e-9
    assert exact[seen].mean() > 0.7


def test_flow_of_a_frame_to_itself_is_the_identity(large: Synthetic) -> None:
    for kind in KINDS:
        flow, visible = large.flow(f"{kind}05-take0", 7, 7)
        axis = np.linspace(-1, 1, 256)
        np.testing.assert_allclose(flow, np.stack(np.meshgrid(axis, axis), -1), atol=1e-12)
        assert visible.all()


def square(centre: tuple[float, float], swing: tuple[float, float]) -> Shape:
    """Return a square of side 0.5; at its centre at time 0, at centre + swing at 0.25, at centre - swing at 0.75."""
    texture = Waves(np.zeros((1, 2)), np.zeros(1), np.zeros((1, 3)), np.array([0.2, 0.4, 0.6]))
    return Shape(texture, True, 0.25, np.array(centre), np.array(swing), 0.0, 0.0, np.zeros(4))


def test_occlusion_by_hand() -> None:
    """Frames have nine pixels to a side, 0.25 apart. A front square moves from the left onto one that stands still."""
    standing, moving = square((0.5, 0.0), (0.0, 0.0)), square((-0.5, 0.0), (1.0, 0.0))
    paper = Waves(np.zeros((1, 2)), np.zeros(1), np.zeros((1, 3)), np.ones(3))
    scene = Scene(paper, (standing, moving), size=9, length=4)
    # Columns 5 to 7 (0.25 to 0.75) and rows 3 to 5; the moving one starts at columns 1 to 3.
    block, start = (slice(3, 6), slice(5, 8)), (slice(3, 6), slice(1, 4))
    axis = np.linspace(-1, 1, 9)
    grid = np.stack(np.meshgrid(axis, axis), -1)

    flow, visible = scene.flow(0, 1)  # in the driving frame, the moving square covers the other
    np.testing.assert_allclose(flow[block], grid[start])
    assert visible[block].all()
    assert not visible[start].any()  # the background at its former position
    np.testing.assert_allclose(flow[start], grid[start])
    assert visible.sum() == 81 - 9

    flow, visible = scene.flow(1, 0)  # in reverse: the static square was hidden
    np.testing.assert_allclose(flow[start], grid[block])
    assert visible[start].all()
    assert not visible[block].any()
    assert visible.sum() == 81 - 9

    flow, visible = scene.flow(3, 0)  # at time 0.75, its centre is at -1.5, outside the picture
    np.testing.assert_allclose(flow[start][..., 0], grid[start][..., 0] - 1)
    assert not visible[start].any()
    assert visible[block].all()


def test_keypoints_are_absent_where_they_are_hidden_or_outside() -> None:
    """The squares of the previous test: apart, one over the other, apart, one outside the picture."""
    paper = Waves(np.zeros((1, 2)), np.zeros(1), np.zeros((1, 3)), np.ones(3))
    scene = Scene(paper, (square((0.5, 0.0), (0.0, 0.0)), square((-0.5, 0.0), (1.0, 0.0))), size=9, length=4)
    visible, everything = scene.visible_keypoints(), scene.motion()[0]
    seen = np.isfinite(visible).all(-1)
    assert seen.tolist() == [[True] * 6, [False] * 3 + [True] * 3, [True] * 6, [True] * 3 + [False] * 3]
    np.testing.assert_array_equal(visible[seen], everything[seen])


@pytest.mark.parametrize("kind", KINDS)
def test_clips_tell_their_visible_keypoints(data: Synthetic, large: Synthetic, kind: str) -> None:
    clip = next(clip for clip in large.clips(Path()) if clip.name == f"{kind}02-take0")
    assert clip.keypoints is not None
    points = pickle.loads(pickle.dumps(clip)).keypoints()
    np.testing.assert_array_equal(points, large.scenes[clip.name][1].visible_keypoints())
    assert points.shape == (24, len(large.motion(clip.name)[0][0]), 2)
    assert np.isfinite(points).all(-1).mean() > 0.4


def test_a_limb_by_hand() -> None:
    """A bar 0.1 wide to each side and 0.4 long, hanging on the end of another that points right."""
    texture = Waves(np.zeros((1, 2)), np.zeros(1), np.zeros((1, 3)), np.ones(3))
    still = np.zeros(2)
    upper = Limb(texture, None, np.array([0.0, -0.5]), 0.1, 5.0, 0.0, 0.0, 0.0, still)
    lower = Limb(texture, upper, np.array([5.0, 0.0]), 0.1, 4.0, np.pi / 2, np.pi / 2, 0.0, still)
    scene = Scene(texture, (upper, lower), size=8, length=4)
    keypoints, jacobians = scene.motion()
    np.testing.assert_allclose(keypoints[0], [(0, -0.5), (0.5, -0.5), (0.5, -0.5), (0.5, -0.1)], atol=1e-12)
    np.testing.assert_allclose(keypoints[1, 3], (0.1, -0.5), atol=1e-12)  # a quarter turn further, towards the left
    np.testing.assert_allclose(keypoints[3, 3], (0.9, -0.5), atol=1e-12)
    np.testing.assert_allclose(jacobians[0, 3], [(0, -0.1), (0.1, 0)], atol=1e-12)
    radius = lower.radius(np.array([(2.0, 0.5), (5.0, 0.0), (-2.0, 0.0)]))
    np.testing.assert_allclose(radius, (0.5, 1.0, 2.0))
