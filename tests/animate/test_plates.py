"""Sources of more than 8 bits: identical bit for bit outside the matte, and not rounded to 8 bits inside it."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import write_clip
from shots import face_clip

import fommctl
from fommctl.animate.paste import feather
from fommctl.media.boxes import Box
from fommctl.media.colourspaces import DisplayTransform
from fommctl.media.probe import probe

pytest.importorskip("OpenImageIO")

import plates_made as plates

GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"
BY_HAND = {"crop": plates.FACE, "driving_crop": "none", "motion": "relative"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sources and a driving clip of three frames; read-only."""
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
    """Return where the face's matte is 0, (512, 512)."""
    matte = np.zeros((512, 512), np.float32)
    matte[plates.INSIDE] = feather(Box(139, 25, 317, 203), 512, 512)
    return matte == 0


def bits(path: Path, kind: str) -> np.ndarray:
    """Return the values of a file as unsigned integers, so that -0 differs from 0."""
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


PQ, HLG = (9, 16, 9), (9, 18, 9)


@pytest.mark.parametrize(
    ("name", "options", "tags"),
    [
        ("hlg.mp4", {"codec": "libx265", "pix_fmt": "yuv420p10le"}, HLG),
        ("pq.mov", {"codec": "prores"}, PQ),
        ("wide.mov", {"codec": "prores", "pix_fmt": "yuv444p10le"}, (9, 1, 9)),
    ],
)
def test_an_hdr_source_returns_bit_for_bit_with_its_tags(folder, animator, tmp_path, name, options, tags):
    """In 16-bit PNG and ProRes, including a rotated phone video; 8-bit MP4 is tone-mapped as before."""
    from media_factory import tagged

    from fommctl.media.colour import ColourTags
    from fommctl.media.images import read_picture
    from fommctl.media.probe import probe
    from fommctl.media.writer import Writer

    light = (plates.deep_codes() / 65535 * 0.8).astype(np.float32)
    if name == "hlg.mp4":
        write_clip(
            tmp_path / name, width=512, height=512, frames=1, colour=tagged(9, primaries=9, transfer=18), audio=(),
            draw=lambda index: light, rotation=180, **options,
        )  # fmt: skip
    else:
        size = {"width": 512, "height": 512, "rate": Fraction(25)}
        with Writer(tmp_path / name, deep=True, colour=ColourTags(*tags), **size, **options) as writer:
            writer.write(light, Fraction(0), Fraction(1, 25))
    before = np.rint(read_picture(tmp_path / name, deep=True).plate.values * np.float32(65535)).astype(np.uint16)
    assert len(np.unique(before[..., 0])) > 256
    # A rotated picture has another square, which does not reach any edge.
    crop = {**BY_HAND, "crop": "195,309,178"} if name == "hlg.mp4" else BY_HAND
    still = outside()[::-1, ::-1] if name == "hlg.mp4" else outside()
    animator.animate(tmp_path / name, folder / "driving.mp4", tmp_path / "out/%04d.png", **crop)
    after = plates.read(tmp_path / "out/0002.png", "uint16")
    assert np.array_equal(after[still], before[still])
    assert (after[~still] != before[~still]).any()
    animator.animate(tmp_path / "out/0002.png", folder / "driving.mp4", tmp_path / "again/%04d.png", **crop)
    assert np.array_equal(plates.read(tmp_path / "again/0003.png", "uint16")[still], before[still])
    animator.animate(tmp_path / name, folder / "driving.mp4", tmp_path / "out.mov", **crop)
    written = probe(tmp_path / "out.mov")
    assert (written.colour.primaries, written.colour.transfer, written.colour.matrix) == tags
    coded = read_picture(tmp_path / "out.mov", deep=True).plate.values
    assert np.abs(coded - before / 65535)[10:60, 400:500].mean() < 0.01
    animator.animate(tmp_path / name, folder / "driving.mp4", tmp_path / "out.mp4", **crop)
    assert not probe(tmp_path / "out.mp4").hdr


def test_light_of_hdr_signals():
    from fommctl.media.colourspaces import Space, from_linear, to_linear

    grey = np.array([[0.5807] * 3, [0.75] * 3], np.float32)
    assert to_linear(Space("pq_rec2020_display"))(grey)[0] == pytest.approx(1, abs=2e-3)
    assert to_linear(Space("hlg_rec2020_display"))(grey)[1] == pytest.approx(1, abs=2e-3)
    inside = np.random.default_rng(0).uniform(0.3, 0.7, (100, 3)).astype(np.float32)
    for name in ("pq_rec2020_display", "pq_p3d65_display", "hlg_rec2020_display", "g24_rec2020_display"):
        np.testing.assert_allclose(from_linear(Space(name))(to_linear(Space(name))(inside)), inside, atol=2e-3)


def test_files_of_hdr_signals_say_so(tmp_path):
    from fommctl.media.colourspaces import Space
    from fommctl.media.plates import read_plate
    from fommctl.media.plates_out import PlateFormat, PlateWriter

    space = Space("hlg_rec2020_display")
    PlateWriter("gbrpf32le", PlateFormat("float", space=space), None)(tmp_path / "a.exr", plates.linear(), 0)
    assert read_plate(tmp_path / "a.exr").display.space == space


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
    """A frame filter that receives floats."""

    floats = True

    def __call__(self, frame, index):
        assert frame.dtype == np.float32
        return frame / 2


def brightened(frame, index):
    """Return a frame with brighter top rows; an 8-bit frame filter."""
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


def coordinates(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the ST coordinates of pixels of the source: from the left, and from the bottom."""
    return np.stack([(columns + 0.5) / 512, 1 - (rows + 0.5) / 512], axis=-1)


@pytest.mark.parametrize("output", ["out/%04d.exr", "out.mp4"])
def test_the_matte_and_the_map_stand_in_the_sources_frame(folder, animator, tmp_path, output):
    paths = {"matte": str(tmp_path / "m/m.####.exr"), "uv": tmp_path / "uv/%04d.exr"}
    animator.animate(folder / "half.exr", folder / "driving.mp4", tmp_path / output, **paths, **BY_HAND)
    first = 1001 if output.endswith("exr") else 1
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [f"m.{first + n:04d}.exr" for n in range(3)]
    matte = plates.read(tmp_path / f"m/m.{first + 1:04d}.exr")
    assert plates.header(tmp_path / f"m/m.{first + 1:04d}.exr")["channels"] == ("A",)
    assert np.array_equal(matte[..., 0] == 0, outside())
    assert matte[114, 228, 0] == 1
    uv = plates.read(tmp_path / f"uv/{first + 1:04d}.exr")
    assert plates.header(tmp_path / f"uv/{first + 1:04d}.exr")["format"] == "float"
    rows, columns = np.mgrid[0:512, 0:512]
    itself = coordinates(rows, columns)
    assert np.abs(uv - itself)[outside()].max() < 1e-6
    assert np.abs(uv - itself)[~outside()].max() > 1e-3
    assert uv.min() >= 0
    assert uv.max() <= 1


def test_the_matte_as_a_layer_of_the_result(folder, animator, tmp_path):
    animator.animate(folder / "half.exr", folder / "driving.mp4", tmp_path / "####.exr", matte="embed", **BY_HAND)
    assert plates.header(tmp_path / "1002.exr")["channels"] == ("R", "G", "B", "matte.A")
    pixels = plates.read(tmp_path / "1002.exr")
    assert np.array_equal(pixels[..., 3] == 0, outside())
    assert np.array_equal(pixels[outside()][:, :3], plates.read(folder / "half.exr")[outside()])
    # The layer is not the colours' transparency.
    assert not probe(tmp_path / "1002.exr").has_alpha


def test_what_is_converted_in_strips_is_what_the_whole_gives(folder, animator, tmp_path, monkeypatch):
    paths = folder / "half.exr", folder / "driving.mp4"
    animator.animate(*paths, tmp_path / "strips/####.exr", **BY_HAND)
    monkeypatch.setattr(DisplayTransform, "in_strips", property(lambda self: False))
    animator.animate(*paths, tmp_path / "whole/####.exr", **BY_HAND)
    strips, whole = (plates.read(tmp_path / name / "1002.exr") for name in ("strips", "whole"))
    assert np.array_equal(strips, whole)


@pytest.mark.parametrize("output", ["new/%04d.exr", "there/%04d.exr", "there/out.mkv"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_result_and_plates_are_there_together_or_not_at_all(folder, animator, tmp_path, monkeypatch, output, error):
    from fommctl.errors import OutputError
    from fommctl.media.images_out import PictureSequence

    paths = {"matte": str(tmp_path / "new/m.%04d.exr"), "uv": tmp_path / "uv/%04d.exr", "overwrite": True}
    (tmp_path / "there").mkdir()
    for name in ("1001.exr", "1009.exr", "out.mkv"):
        (tmp_path / "there" / name).write_text("older")
    published = PictureSequence.publish

    def fail(self, *, keep):
        if "uv" in str(self._pattern):
            raise error
        published(self, keep=keep)

    monkeypatch.setattr(PictureSequence, "publish", fail)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises((KeyboardInterrupt, OutputError, OSError)):
        animator.animate(folder / "half.exr", folder / "driving.mp4", tmp_path / output, **paths, **BY_HAND)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]
    monkeypatch.undo()
    animator.animate(folder / "half.exr", folder / "driving.mp4", tmp_path / output, **paths, **BY_HAND)
    assert len([path for path in tmp_path.rglob("*") if path.is_file() and path not in before]) >= 6


def test_parts_with_planes_are_those_of_the_whole(folder, animator, tmp_path):
    from fommctl.animate import run as animate
    from fommctl.animate.config import AnimateConfig

    options = {"source": folder / "half.exr", "driving": folder / "driving.mp4", **BY_HAND}

    def config(name: str) -> AnimateConfig:
        return AnimateConfig(output=tmp_path / name / "%04d.exr", matte=str(tmp_path / f"{name}-m/%04d.png"), **options)

    animate.run(config("whole"), animator)
    plan, motion = animate.make_motion(config("parts"), animator)
    (tmp_path / "frames").mkdir()
    parts = [
        animate.render_frames(plan, motion, animator, each, tmp_path / "frames")
        for each in animate.divide(plan, motion, 2, batch_size=1)
    ]
    animate.encode_frames(plan, motion, animator, parts)
    for name in ("1001.exr", "1003.exr"):
        assert np.array_equal(plates.read(tmp_path / "whole" / name), plates.read(tmp_path / "parts" / name))
    assert np.array_equal(
        plates.read(tmp_path / "whole-m/1002.png", "uint16"), plates.read(tmp_path / "parts-m/1002.png", "uint16")
    )
