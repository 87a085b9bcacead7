"""`animate` with several faces: choice, mapping, and composition to one picture. Faces are red blobs, found by a test
detector; a driving face that stands still moves nothing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from crop_shots import BLOBS, background
from media_factory import write_clip
from PIL import Image
from shots import HALF

from fommctl import Motion
from fommctl.animate.faces import FaceBlend
from fommctl.media.boxes import Box

RATE = Fraction(10)
WIDE, HIGH = 480, 200
LEFT, RIGHT = slice(40, 200), slice(280, 440)
"""Columns of the source's faces and their surroundings."""
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(autouse=True)
def blobs(third_party) -> None:
    third_party(BLOBS, name="blob-plugin", entry="blobs")


def face(picture: np.ndarray, left: float, top: float, size: int = 56) -> None:
    """Return a red blob with two lighter stripes, so that the networks can see it move."""
    left, top = round(left), round(top)
    picture[top : top + size, left : left + size] = (200, 40, 40)
    picture[top + size // 3 : top + size // 2, left + 6 : left + size - 6] = (255, 80, 80)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two faces, the right one slightly larger."""
    picture = np.minimum(background(WIDE, HIGH), 149)
    face(picture, 90, 70)
    face(picture, 330, 66, 64)
    Image.fromarray(picture).save(tmp_path / "two.png")
    return tmp_path / "two.png"


def driving(path: Path, *places, frames: int = 8) -> Path:
    """Write a clip of faces.  places: functions from frame number to (left, top), or None if the face is gone."""

    def draw(number: int) -> np.ndarray:
        picture = np.minimum(background(WIDE, HIGH), 149)
        for place in places:
            if (at := place(number)) is not None:
                face(picture, *at)
        return picture

    return write_clip(
        path, width=WIDE, height=HIGH, frames=frames, rate=RATE, draw=draw, pix_fmt="yuv444p", options={"crf": "0"}
    )


def still(number: int) -> tuple[float, float]:
    return 90, 70


def nodding(number: int) -> tuple[float, float]:
    return 330, 70 + 8 * np.sin(number)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A driving video whose left face is still and whose right face nods."""
    return driving(tmp_path / "pair.mp4", still, nodding)


@pytest.fixture
def animate(run_cli, source, tmp_path):
    def run(clip: Path, *more: str | Path, output: str = "out.mkv", code: int = 0):
        words = ("--detector", "blobs", "--device", "cpu", "--overwrite", "--json", "--audio", "none", "--set", HALF)
        codec = ("--codec", "ffv1") if output.endswith(".mkv") else ()
        done = run_cli("animate", source, clip, "-o", tmp_path / output, *words, *codec, *more)
        assert done.code == code, done.stdout + done.stderr
        return done.json()

    return run


def frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def moves(path: Path) -> tuple[bool, bool]:
    """Return whether the left and the right face of the source change from frame to frame."""
    shown = frames(path).astype(int)
    changes = [np.abs(np.diff(shown[:, :, part], axis=0)).max() for part in (LEFT, RIGHT)]
    return changes[0] > 12, changes[1] > 12


def test_one_face_is_chosen_by_size_number_or_place(animate, pair, source, tmp_path):
    plate = np.asarray(Image.open(source))
    for more, expected in (
        ((), None),
        (("--face", "1", "--driving-face", "2"), (True, False)),
        (("--face", "100,90", "--driving-face", "340,90"), (True, False)),
        (("--face", "2", "--driving-face", "1"), (False, False)),
    ):
        result = animate(pair, *more)
        shown = frames(tmp_path / "out.mkv")
        assert len(shown) == 8
        untouched = RIGHT if more and more[1] in ("1", "100,90") else LEFT
        assert (shown[:, :, untouched] == plate[:, untouched]).all()
        if more and expected is not None:
            assert moves(tmp_path / "out.mkv") == expected, more
        told = any("the largest is taken, number 2 from the left (--face)" in one for one in result["warnings"])
        assert told is (not more)


def test_every_face_by_its_own_driving_face(animate, pair, source, tmp_path):
    """By position, crossed, and both by one; nothing between the squares changes."""
    plate = np.asarray(Image.open(source))
    for more, expected in (
        (("--face", "all"), (False, True)),
        (("--map", "1:2,2:1"), (True, False)),
        (("--face", "all", "--driving-face", "2"), (True, True)),
    ):
        animate(pair, *more)
        assert moves(tmp_path / "out.mkv") == expected, more
        assert (frames(tmp_path / "out.mkv")[:, :4] == plate[:4]).all()


def test_each_face_is_what_it_is_alone(animate, pair, tmp_path):
    """If squares do not overlap, the picture of both equals those of each, bit for bit."""
    animate(pair, "--map", "2:1,1:2", output="both.mkv")
    animate(pair, "--face", "1", "--driving-face", "2", output="one.mkv")
    animate(pair, "--face", "2", "--driving-face", "1", output="two.mkv")
    both, one, two = (frames(tmp_path / f"{name}.mkv") for name in ("both", "one", "two"))
    assert (both[:, :, :210] == one[:, :, :210]).all()
    assert (both[:, :, 270:] == two[:, :, 270:]).all()


def test_a_face_that_leaves_is_held(animate, source, tmp_path):
    clip = driving(tmp_path / "leaves.mp4", still, lambda number: nodding(number) if number < 8 else None, frames=22)
    result = animate(clip, "--face", "all")
    shown = frames(tmp_path / "out.mkv").astype(int)
    assert len(shown) == 22
    assert np.abs(np.diff(shown[:7, :, RIGHT], axis=0)).max() > 12
    assert np.abs(np.diff(shown[10:, :, RIGHT], axis=0)).max() == 0
    assert any("no subject in leaves.mp4" in warning for warning in result["warnings"])


def test_a_motion_file_of_several_faces(animate, pair, tmp_path):
    take = tmp_path / "take.motion"
    animate(pair, "--face", "all", "--motion-out", take, output="whole.mkv")
    first, second = Motion.load(take), Motion.load(take, 2)
    assert len(first) == len(second) == 8
    assert not np.array_equal(first.keypoints, second.keypoints)
    animate(take, "--face", "all", output="again.mkv")
    assert (frames(tmp_path / "again.mkv") == frames(tmp_path / "whole.mkv")).all()
    animate(take, "--map", "2:1", output="one.mkv")
    assert moves(tmp_path / "one.mkv") == (True, False)
    assert "there is no face 3" in animate(take, "--driving-face", "3", code=3)["error"]["message"]
    assert "--driving-face 9,9" in animate(take, "--driving-face", "9,9", code=2)["error"]["message"]


def test_a_sidecar_renders_all_faces_again(animate, run_cli, pair, tmp_path):
    animate(pair, "--map", "1:2,2:1", "--sidecar")
    again = run_cli("animate", "--from-sidecar", tmp_path / "out.mkv.json", "-o", tmp_path / "again.mkv", "--json")
    assert again.json()["reproduction"]["identical"] is True


def test_plates_hold_all_faces_and_the_source(animate, pair, source, tmp_path):
    oiio = pytest.importorskip("OpenImageIO")
    more = (
        "--face",
        "all",
        "--frames",
        "2-3",
        "--matte",
        tmp_path / "matte.%04d.exr",
        "--uv",
        tmp_path / "uv.%04d.exr",
    )
    animate(pair, *more, output="out.%04d.exr")
    pictures = sorted(tmp_path.glob("out.*.exr"))
    assert len(pictures) == 2
    still = animate(pair, "--face", "1", "--driving-face", "1", "--frames", "2", output="one.%04d.exr")
    assert still["frames"] == 1
    one = oiio.ImageBuf(str(next(tmp_path.glob("one.*.exr")))).get_pixels(oiio.FLOAT)
    for picture in pictures:
        read = [
            oiio.ImageBuf(str(picture).replace("out.", name)).get_pixels(oiio.FLOAT)
            for name in ("out.", "matte.", "uv.")
        ]
        frame, matte, uv = read
        matte = matte[..., 0]
        assert matte[:, LEFT].max() == matte[:, RIGHT].max() == 1
        # Where neither square shows, the frame equals the other's, which is the source there.
        assert (matte[:, 470:] == 0).all()
        assert (frame[:, 470:] == one[:, 470:]).all()
        assert np.abs(uv[:, 475, 0] - 475.5 / WIDE).max() < 1e-6


def test_a_farm_renders_all_faces_and_its_chunks_search_for_none(animate, run_cli, pair, source, tmp_path, monkeypatch):
    """Chunks in any order, as a movie and as plates; the film is decoded as often as for one face."""
    pytest.importorskip("OpenImageIO")
    options = ("--detector", "blobs", "--device", "cpu", "--set", HALF, "--map", "2:1,1:2")
    plates = ("--matte", tmp_path / "m.%04d.exr")
    for number, (result, more) in enumerate((("farm.mkv", ()), ("p.%04d.exr", plates))):
        job = tmp_path / f"job{number}"
        words = ("--engine", "slurm", "--chunk", "4", "--result", tmp_path / "farm" / result, "-o", job, *more)
        (tmp_path / "farm").mkdir(exist_ok=True)
        done = run_cli("farm", "emit", source, pair, *options, "--audio", "none", *words)
        assert done.code == 0, done.stderr
        assert run_cli("farm", "motion", job).code == 0
        with monkeypatch.context() as patch:
            patch.setattr("fommctl.detection.detectors.choose_detector", None)
            for frames in ("5-8", "1-4"):
                done = run_cli("farm", "render", job, "--frames", frames)
                assert done.code == 0, done.stderr
            assert number or run_cli("farm", "encode", job).code == 0
    mattes = {path.name: path.read_bytes() for path in tmp_path.glob("m.*.exr")}
    animate(pair, "--map", "2:1,1:2", output="farm.mkv")
    animate(pair, "--map", "2:1,1:2", *plates, output="p.%04d.exr")
    written = sorted(path.name for path in (tmp_path / "farm").iterdir())
    assert len(written) == 9
    other = [name for name in written if (tmp_path / "farm" / name).read_bytes() != (tmp_path / name).read_bytes()]
    assert other == []
    assert mattes == {path.name: path.read_bytes() for path in tmp_path.glob("m.*.exr")}


def test_a_film_is_decoded_once_for_all_faces(animate, pair, monkeypatch):
    from fommctl.media import reader

    passes = []
    decoded = reader.pending_frames
    monkeypatch.setattr(reader, "pending_frames", lambda *more: passes.append(more) or decoded(*more))
    animate(pair, "--face", "2", "--driving-face", "2", "--compare")
    alone = len(passes)
    animate(pair, "--face", "all", "--compare")
    assert len(passes) - alone <= alone


def test_a_filter_changes_all_faces_of_a_plate(animate, pair, tmp_path, monkeypatch):
    oiio = pytest.importorskip("OpenImageIO")
    from fommctl.host import Host

    class Halved:
        floats = True

        def __call__(self, frame, index):
            return frame / 2

    animate(pair, "--face", "all", "--frames", "3", output="whole.%04d.exr")
    monkeypatch.setattr(Host, "frame_filters", lambda self, event: [Halved()])
    animate(pair, "--face", "all", "--frames", "3", output="half.%04d.exr")
    from fommctl.media.colourspaces import encode_srgb

    # The filter received the source's sRGB.
    whole, half = (
        encode_srgb(oiio.ImageBuf(str(tmp_path / f"{name}.1003.exr")).get_pixels(oiio.FLOAT))
        for name in ("whole", "half")
    )
    np.testing.assert_allclose(half, whole / 2, atol=1e-3)


def test_compare_shows_the_numbers(animate, pair, source, tmp_path):
    plain = animate(pair, "--face", "2", "--driving-face", "2", "--compare", output="one.mkv")
    both = animate(pair, "--face", "all", "--compare", output="both.mkv")
    assert (plain["width"], plain["height"]) == (2 * WIDE + HIGH, HIGH)
    assert (both["width"], both["height"]) == (2 * WIDE + HIGH // 2, HIGH)
    plate = np.asarray(Image.open(source))
    for name in ("one", "both"):
        panel = frames(tmp_path / f"{name}.mkv")[0][:, :WIDE]
        white = (panel == 255).all(2) & ~(plate == 255).all(2)
        assert white[:, LEFT].any()
        assert white[:, RIGHT].any()


def test_crop_dry_run_shows_the_numbers(run_cli, source, pair):
    words = ("--detector", "blobs", "--dry-run", "--min-duration", "0.1", "--json")
    still_faces = run_cli("crop", source, *words).json()["clips"]
    moving = run_cli("crop", pair, *words).json()["clips"]
    for clips in (still_faces, moving):
        assert [(each["face"], each["box"][0] < 200) for each in clips] == [(1, True), (2, False)]
    assert "  face 2" in run_cli("crop", source, *words[:-1]).stdout


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--face", "3"), "there is no face 3 in two.png"),
        (("--driving-face", "3"), "there is no face 3 in pair.mp4"),
        (("--face", "0"), "--face cannot be '0'"),
        (("--map", "1:2,2:2"), "--map 1:2,2:2 moves a face of the source twice"),
        (("--map", "1-2"), "--map cannot be '1-2'"),
        (("--map", "1:2", "--face", "1"), "--map excludes --face"),
        (("--face", "all", "--crop", "none"), "--face needs --crop auto"),
        (("--driving-face", "all"), "--driving-face all needs --face all"),
        (("--driving-face", "2", "--driving-crop", "none"), "--driving-face needs --driving-crop auto"),
        (("--face", "all", "--no-paste-back"), "several faces need automatic crops"),
    ],
)
def test_what_is_refused(animate, pair, tmp_path, more, message):
    error = animate(pair, *more, code=3 if "there is no" in message else 2)["error"]
    assert message in error["message"]
    assert not (tmp_path / "out.mkv").exists()


def test_overlapping_squares_share_what_lies_between():
    boxes = [Box(0, 0, 80, 80), Box(40, 0, 120, 80), Box(150, 0, 190, 40)]
    levels = [np.full((80, 200, 3), value, np.uint8) for value in (10, 110, 210)]
    blended = FaceBlend(boxes, (200, 80))(levels)[40, :, 0].astype(int)
    assert (blended[:40] == 10).all()
    assert (blended[80:119] == 110).all()
    assert blended[59] + blended[60] == 120
    assert (np.diff(blended[40:80]) >= 0).all()
    same = [np.random.default_rng(1).random((80, 200, 3), np.float32)] * 3
    assert (FaceBlend(boxes, (200, 80))(same) == same[0]).all()
