"""Sources of more than 8 bits: outside the matte they return bit for bit, inside it nothing is rounded to 8 bits."""

from pathlib import Path

import numpy as np
import pytest
from media_factory import write_clip
from shots import face_clip

import fommctl
from fommctl.animate.compose import feather
from fommctl.media.boxes import Box

pytest.importorskip("OpenImageIO")

import plates_made as plates

GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"
BY_HAND = {"crop": plates.FACE, "driving_crop": "none", "motion": "relative"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sources and a driving clip of three frames that the tests of this file only read."""
    folder = tmp_path_factory.mktemp("plates")
    write_clip(folder / "driving.mp4", width=64, height=64, frames=3, audio=())
    plates.write(folder / "deep.png", plates.deep_codes(), "uint16")
    plates.write(folder / "deep.tif", plates.deep_codes(), "uint16")
    plates.write(folder / "half.exr", plates.linear(), "half")
    plates.write(folder / "float.exr", plates.linear(), "float")
    plates.write(folder / "float.tif", plates.linear(), "float")
    return folder


@pytest.fixture(scope="module")
def animator():
    return fommctl.load(
        GOLDEN / "vox-tiny.pth.tar", preset=str(GOLDEN / "vox-tiny.model_params.yaml"), device="cpu", precision="fp32"
    )


def outside() -> np.ndarray:
    """Where the matte of the face is 0: (512, 512)."""
    matte = np.zeros((512, 512), np.float32)
    matte[plates.INSIDE] = feather(Box(139, 25, 317, 203), 512, 512)
    return matte == 0


def bits(path: Path, kind: str) -> np.ndarray:
    """The numbers of a file as unsigned integers, so that -0 is not 0."""
    pixels = plates.read(path, kind)
    return pixels if pixels.dtype == np.uint16 else pixels.view(np.uint16 if kind == "half" else np.uint32)


@pytest.mark.parametrize(
    ("source", "output", "kind"),
    [
        ("deep.png", "out/%04d.png", "uint16"),
        ("deep.tif", "out/####.tif", "uint16"),
        ("half.exr", "out/####.exr", "half"),
        ("float.exr", "out/####.exr", "float"),
        ("float.tif", "out/####.tif", "float"),
    ],
)
def test_outside_the_matte_the_source_returns_bit_for_bit(folder, animator, tmp_path, source, output, kind):
    result = animator.animate(folder / source, folder / "driving.mp4", tmp_path / output, **BY_HAND)
    assert result.frames == 3
    written = sorted((tmp_path / "out").iterdir())
    assert len(written) == 3
    before, still = bits(folder / source, kind), outside()
    for path in written:
        after = bits(path, kind)
        assert np.array_equal(after[still], before[still])
        assert (after[~still] != before[~still]).any()


def test_a_prores_4444_source_returns_bit_for_bit(folder, animator, tmp_path):
    rows, columns = np.mgrid[0:512, 0:512]
    draw = np.stack([rows / 2, columns / 2, (rows + columns) / 4], axis=2).astype(np.uint8)
    write_clip(
        tmp_path / "source.mov", width=512, height=512, frames=1, codec="prores_ks", pix_fmt="yuva444p10le",
        draw=lambda index: draw, audio=(),
    )  # fmt: skip
    from fommctl.media.images import read_picture

    plate = read_picture(tmp_path / "source.mov", deep=True).plate
    before = np.rint(plate.values * np.float32(65535)).astype(np.uint16)
    assert len(np.unique(before[..., 0])) > 256
    animator.animate(tmp_path / "source.mov", folder / "driving.mp4", tmp_path / "out/%04d.png", **BY_HAND)
    after = plates.read(tmp_path / "out/0002.png", "uint16")[..., :3]
    assert np.array_equal(after[outside()], before[outside()])


def test_a_gradient_behind_a_moving_face_has_no_bands(tmp_path):
    ramp = np.linspace(20000, 26000, 512)
    picture = np.repeat(np.repeat(ramp[None, :, None], 512, 0), 3, 2)
    face = plates.deep_codes()[40:150, 180:270]
    picture[40:150, 180:270] = face
    plates.write(tmp_path / "gradient.png", picture.astype(np.uint16), "uint16")
    face_clip(tmp_path / "face.mp4", count=3)
    fommctl.load(device="cpu", precision="fp32").animate(
        tmp_path / "gradient.png", tmp_path / "face.mp4", tmp_path / "out/%02d.png"
    )
    after = plates.read(tmp_path / "out/03.png", "uint16")
    changed = (after != picture.astype(np.uint16)).any(axis=2)
    assert changed.sum() > 10000
    assert len(np.unique(after[changed])) > 256
    # Beside the face inside the square, where 6000 levels of 65535 are 23 of 255.
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    beside = after[rows[0] : rows[-1], columns[0] : 170, 0]
    assert len(np.unique(beside)) > 256
    assert len(np.unique(beside // 257)) < 24


def test_light_above_the_models_white_comes_from_the_source(folder, animator, tmp_path):
    bright = plates.linear()
    bright[40:60, 200:250] = 20.0  # inside the square
    plates.write(tmp_path / "bright.exr", bright, "half")
    options = {**BY_HAND, "exr_type": "half"}
    faces = fommctl.load(device="cpu", precision="fp32")
    faces.animate(tmp_path / "bright.exr", folder / "driving.mp4", tmp_path / "out/%04d.exr", **options)
    after = plates.read(tmp_path / "out/1001.exr")
    # The first driving frame is the reference: nothing has moved.
    assert np.median(after[44:56, 205:245]) > 10


class Halved:
    """A frame filter that asks for floats."""

    floats = True

    def __call__(self, frame, index):
        assert frame.dtype == np.float32
        return frame / 2


def brightened(frame, index):
    """A frame filter of 8 bits that changes the uppermost rows."""
    assert frame.dtype == np.uint8
    frame = frame.copy()
    frame[:4] = 255
    return frame


@pytest.mark.parametrize(("change", "source"), [(Halved(), "half.exr"), (brightened, "half.exr")])
def test_frame_filters_get_what_they_ask_for(folder, animator, tmp_path, monkeypatch, change, source):
    monkeypatch.setattr(type(animator.host), "frame_filters", lambda self, event: [change])
    animator.animate(folder / source, folder / "driving.mp4", tmp_path / "%04d.exr", **BY_HAND)
    before, after = plates.read(folder / source), plates.read(tmp_path / "1001.exr")
    still = outside()
    if change is brightened:
        assert np.all(after[:4] > 1)
        still[:4] = False
        assert np.array_equal(after[still], before[still])
    else:
        assert np.array_equal(after[still], (before[still] / 2).astype(np.float16).astype(np.float32))


def test_a_float_filter_of_an_8_bit_result(folder, animator, tmp_path, monkeypatch):
    monkeypatch.setattr(type(animator.host), "frame_filters", lambda self, event: [Halved()])
    from PIL import Image

    Image.fromarray(plates.astronaut()).save(tmp_path / "plain.png")
    animator.animate(tmp_path / "plain.png", folder / "driving.mp4", tmp_path / "o/%04d.png", **BY_HAND)
    after = np.asarray(Image.open(tmp_path / "o/0001.png"))
    assert after.dtype == np.uint8
    assert np.array_equal(after[300:], np.rint(plates.astronaut()[300:] / np.float32(510) * 255).astype(np.uint8))
