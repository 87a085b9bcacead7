"""Compositing pipelines around `fommctl animate`: sequences, spaces, attributes, bad plates."""

import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import moving_square, write_clip

from fommctl.media.probe import probe

pytest.importorskip("OpenImageIO")

import OpenImageIO as oiio
import plates_made as plates

GOLDEN = Path(__file__).parents[1] / "golden" / "fomm"
TINY = ("--model", GOLDEN / "vox-tiny.pth.tar", "--preset", GOLDEN / "vox-tiny.model_params.yaml")
BY_HAND = (*TINY, "--crop", plates.FACE, "--driving-crop", "none", "--precision", "fp32", "-q")
AP1 = (0.713, 0.293, 0.165, 0.83, 0.128, 0.044, 0.32168, 0.33767)
FILM = Fraction(24000, 1001)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Plates; read-only."""
    folder = tmp_path_factory.mktemp("post")
    plates.write(folder / "plate.exr", plates.linear(), "half", reelName="A001C003", PixelAspectRatio=2.0)
    write_clip(folder / "driving.mp4", width=64, height=64, frames=3, audio=())
    for number in (1001, 1002, 1004, 1005):
        picture = (moving_square(number - 1001, 64, 64) / 255).astype(np.float32) ** 2.4
        code = {"smpte__TimeCode": plates.timecode(1, 2, 3, number - 1001)}
        rate = {"FramesPerSecond": ("rational", (24000, 1001))}
        plates.write(folder / f"shot/drive.{number}.exr", picture, "half", **code, **rate)
    return folder


@pytest.fixture
def animate(run_cli, folder):
    """animate(source, driving, output, *options): returns the result of the command; names are in the folder."""

    def run(source, driving, output, *options):
        return run_cli("animate", folder / source, folder / driving, "-o", output, *BY_HAND, *options)

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("driving", ["shot/drive.####.exr", "shot/drive.%04d.exr", "shot/drive.1001-1005#.exr", "shot"])
def test_pictures_keep_the_numbers_of_the_driving_pictures(animate, folder, tmp_path, driving):
    result = animate("plate.exr", driving, tmp_path / "out/comp.####.exr")
    assert result.code == 0, result.stderr
    assert names(tmp_path / "out") == [f"comp.{number}.exr" for number in range(1001, 1006)]
    held, before = (plates.read(tmp_path / f"out/comp.{number}.exr") for number in (1003, 1002))
    assert np.array_equal(held, before), "the picture before stays in the place of one that is missing"


def test_gaps_may_be_black_or_an_error(animate, tmp_path):
    failed = animate("plate.exr", "shot/drive.####.exr", tmp_path / "out/####.exr", "--on-gap", "fail")
    assert failed.code == 3
    assert "has gaps: 1003" in failed.stderr
    assert not (tmp_path / "out").exists()
    black = animate("plate.exr", "shot/drive.####.exr", tmp_path / "out/####.exr", "--on-gap", "black")
    assert black.code == 0, black.stderr
    held, before = (plates.read(tmp_path / f"out/{number}.exr") for number in (1003, 1002))
    assert not np.array_equal(held, before)


@pytest.mark.parametrize(
    ("driving", "output", "options", "first"),
    [
        ("driving.mp4", "%04d.exr", (), 1001),
        ("driving.mp4", "%04d.dpx", (), 1001),
        ("driving.mp4", "%04d.tif", (), 1),
        ("driving.mp4", "%04d.png", ("--start-number", "7"), 7),
        ("driving.mp4", "%04d.exr", ("--frames", "2-"), 1002),
        ("shot", "%04d.exr", ("--start-number", "1"), 1),
        ("shot", "%04d.exr", ("--frames", "1004-"), 1004),
        ("shot/drive.1004-1005#.exr", "%04d.exr", (), 1004),
    ],
)
def test_where_numbers_begin(animate, tmp_path, driving, output, options, first):
    result = animate("plate.exr", driving, tmp_path / "out" / output, *options)
    assert result.code == 0, result.stderr
    assert int(names(tmp_path / "out")[0][:4]) == first


def test_attributes_are_carried(animate, tmp_path):
    assert animate("plate.exr", "shot", tmp_path / "o/####.exr", "--exr-compression", "piz").code == 0
    found = plates.header(tmp_path / "o/1005.exr")
    assert found["FramesPerSecond"] == (24000, 1001)
    assert found["smpte:TimeCode"] == plates.timecode(1, 2, 3, 4)[1]
    assert found["reelName"] == "A001C003"
    assert found["PixelAspectRatio"] == 2.0
    assert found["compression"] == "piz"
    assert found["ImageDescription"].startswith("Synthetic video, animated by fommctl")
    assert animate("plate.exr", "shot", tmp_path / "d/####.dpx").code == 0
    found = plates.header(tmp_path / "d/1005.dpx")
    assert found["smpte:TimeCode"] == plates.timecode(1, 2, 3, 4)[1]
    assert found["dpx:InputDevice"] == "A001C003"
    assert found["dpx:FrameRate"] == pytest.approx(float(FILM), abs=1e-3)
    assert found["dpx:Transfer"] == "Logarithmic"


@pytest.mark.parametrize("suffix", ["exr", "dpx"])
def test_timecodes_without_a_rate_are_carried_as_they_count(animate, tmp_path, suffix):
    kind = "half" if suffix == "exr" else "uint16"
    picture = moving_square(0, 64, 64).astype(np.float32) / 255
    codes = {1001: plates.timecode(1, 0, 9, 22), 1002: plates.timecode(1, 0, 9, 23), 1004: plates.timecode(1, 0, 10, 1)}
    for number, code in codes.items():
        pixels = picture if suffix == "exr" else (picture * 65535).astype(np.uint16)
        plates.write(tmp_path / f"scan/scan.{number}.{suffix}", pixels, kind, smpte__TimeCode=code)
    result = animate("plate.exr", tmp_path / "scan", tmp_path / f"o/####.{suffix}", "--json")
    assert result.code == 0, result.stderr
    assert result.json()["fps"] == "24/1", "not 25: the timecodes count in 24"
    found = [plates.header(path)["smpte:TimeCode"][0] for path in sorted((tmp_path / "o").iterdir())]
    assert found == [code[1][0] for code in (*list(codes.values())[:2], plates.timecode(1, 0, 10, 0), codes[1004])]


@pytest.mark.parametrize("suffix", ["exr", "dpx", "tif"])
def test_inspect_shows_how_a_plate_was_made(animate, run_cli, tmp_path, suffix):
    assert animate("plate.exr", "driving.mp4", tmp_path / f"####.{suffix}", "--frames", "1", "--sidecar").code == 0
    found = run_cli("inspect", next(tmp_path.glob(f"*.{suffix}")), "--json").json()
    assert "Synthetic video, animated by fommctl" in str(found)


def outside() -> np.ndarray:
    still = np.ones((512, 512), bool)
    still[plates.INSIDE] = False
    return still


def test_chromaticities_make_a_linear_space_and_stay(animate, folder, tmp_path):
    plates.write(tmp_path / "ap1.exr", plates.linear(), "half", chromaticities=("float[8]", AP1))
    assert animate(tmp_path / "ap1.exr", "driving.mp4", tmp_path / "####.exr").code == 0
    assert plates.header(tmp_path / "1001.exr")["chromaticities"] == pytest.approx(AP1)
    before, after = plates.read(tmp_path / "ap1.exr"), plates.read(tmp_path / "1002.exr")
    assert np.array_equal(after[outside()], before[outside()])


@pytest.mark.parametrize(
    ("space", "config"),
    [
        ("ACEScg", ()),
        ("scene_linear", ()),
        ("ACEScct", ()),
        ("ARRI LogC4", ("--ocio", "ocio://studio-config-latest")),
    ],
)
def test_a_source_returns_through_its_own_space_bit_for_bit(animate, folder, tmp_path, space, config):
    light = np.clip(plates.linear(), 0.001, 1) ** 0.4 if space not in ("ACEScg", "scene_linear") else plates.linear()
    plates.write(tmp_path / "own.exr", light, "float")
    spaces = ("--source-space", space, "--output-space", space, *config)
    result = animate(tmp_path / "own.exr", "driving.mp4", tmp_path / "####.exr", "--frames", "1-2", *spaces)
    assert result.code == 0, result.stderr
    before, after = (plates.read(path).view(np.uint32) for path in (tmp_path / "own.exr", tmp_path / "1002.exr"))
    assert np.array_equal(after[outside()], before[outside()])
    assert (after[plates.INSIDE] != before[plates.INSIDE]).any()


def test_a_result_in_another_space_is_what_ocio_makes_of_it(animate, folder, tmp_path):
    result = animate(
        "plate.exr", "driving.mp4", tmp_path / "####.exr", "--output-space", "ACEScg", "--exr-type", "float"
    )
    assert result.code == 0, result.stderr
    picture = oiio.ImageBuf(plates.read(folder / "plate.exr"))
    expected = oiio.ImageBufAlgo.colorconvert(
        picture, "Linear Rec.709 (sRGB)", "ACEScg", colorconfig="ocio://cg-config-latest"
    ).get_pixels(oiio.FLOAT)
    after = plates.read(tmp_path / "1001.exr")
    np.testing.assert_allclose(after[outside()], expected[outside()], atol=2e-5, rtol=1e-4)


def test_a_png_of_a_linear_source_shows_what_the_model_sees(animate, tmp_path):
    assert animate("plate.exr", "driving.mp4", tmp_path / "%d.png").code == 0
    after = plates.read(tmp_path / "1.png")[outside()]
    signal = plates.deep_codes()[outside()] / 65535
    lamp, black = np.zeros((512, 512), bool), np.zeros((512, 512), bool)
    lamp[5:20, 400:420] = black[500:, :20] = True
    dark = (signal < 0.7).all(axis=1) & ~(lamp | black)[outside()]
    np.testing.assert_allclose(after[dark], signal[dark], atol=1e-3)


def test_a_view_of_the_configuration(animate, folder, tmp_path):
    view = ("--display-view", "sRGB - Display/Un-tone-mapped", "--frames", "1")
    result = animate("plate.exr", "driving.mp4", tmp_path / "####.exr", *view)
    assert result.code == 0, result.stderr
    before, after = plates.read(folder / "plate.exr"), plates.read(tmp_path / "1001.exr")
    assert np.array_equal(after[outside()], before[outside()])


def test_a_view_with_a_tone_map_leaves_no_seam(animate, tmp_path):
    """Outside the matte, the source is identical bit for bit; at its soft edge, so are values that the tone map has
    clipped."""
    light = plates.linear() * 4
    light[20:60, 130:330] = 60.0  # across the upper edge of the square
    plates.write(tmp_path / "bright.exr", light, "float")
    view = ("--display-view", "sRGB - Display/ACES 2.0 - SDR 100 nits (Rec.709)", "--frames", "1")
    result = animate(tmp_path / "bright.exr", "driving.mp4", tmp_path / "####.exr", *view, "--exr-type", "float")
    assert result.code == 0, result.stderr
    before, after = plates.read(tmp_path / "bright.exr"), plates.read(tmp_path / "1001.exr")
    assert np.array_equal(after[outside()], before[outside()])
    ring = np.s_[25:26, 170:290]
    assert np.abs(after[ring] - 60).max() < 2
    assert after[50, 228].max() < 60


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (("--source-space", "ACESgc"), "--source-space is 'ACESgc', which is not a colour space", "Nearest: ACEScg"),
        (("--output-space", "linear_p3"), "--output-space is 'linear_p3'", "Nearest: Linear P3-D65"),
        (("--driving-space", "x"), "--driving-space is 'x'", "Nearest: "),
        (("--display-view", "sRGB/ACES"), "--display-view is 'sRGB/ACES', which is no DISPLAY/VIEW", "Nearest: "),
        (("--layer", "spce"), "plate.exr has no layer 'spce'", ""),
    ],
)
def test_unknown_names_are_reported_with_the_nearest(animate, tmp_path, options, message, hint):
    result = animate("plate.exr", "driving.mp4", tmp_path / "####.exr", *options)
    assert result.code == 2
    assert message in result.stderr
    assert hint in result.stderr
    assert names(tmp_path) == []


def test_an_ocio_configuration_that_is_not_there(animate, tmp_path):
    result = animate(
        "plate.exr", "driving.mp4", tmp_path / "####.exr", "--ocio", tmp_path / "no.ocio", "--source-space", "a"
    )
    assert (result.code, "does not exist" in result.stderr) == (3, True)


def test_layers(animate, tmp_path):
    beauty = plates.linear()
    both = np.concatenate((beauty * 0.25, beauty), axis=2)
    channels = ("R", "G", "B", "beauty.R", "beauty.G", "beauty.B")
    plates.write(tmp_path / "layers.exr", both, "half", channels=channels)
    result = animate(tmp_path / "layers.exr", "driving.mp4", tmp_path / "o/####.exr", "--layer", "beauty")
    assert result.code == 0, result.stderr
    after, expected = plates.read(tmp_path / "o/1001.exr"), beauty.astype(np.float16).astype(np.float32)
    assert np.array_equal(after[outside()], expected[outside()])
    wrong = animate(tmp_path / "layers.exr", "driving.mp4", tmp_path / "x/####.exr", "--layer", "beuty")
    assert wrong.code == 2
    assert "Did you mean beauty?" in wrong.stderr


def test_overscan_stands_around_the_result(animate, tmp_path):
    light = np.pad(plates.linear(), ((16, 16), (24, 24), (0, 0)), mode="edge")
    windows = {"x": -24, "y": -16, "full_width": 512, "full_height": 512}
    plates.write(tmp_path / "over.exr", light, "half", **windows)
    assert animate(tmp_path / "over.exr", "driving.mp4", tmp_path / "####.exr").code == 0
    assert plates.header(tmp_path / "1001.exr")["data"] == (-24, -16, 560, 544)
    assert plates.header(tmp_path / "1001.exr")["display"] == (0, 0, 512, 512)
    before, after = plates.read(tmp_path / "over.exr"), plates.read(tmp_path / "1001.exr")
    still = np.pad(outside(), ((16, 16), (24, 24)), constant_values=True)
    assert np.array_equal(after[still], before[still])


def test_a_data_window_inside_the_display_window(animate, tmp_path):
    windows = {"x": 10, "y": 20, "full_width": 512, "full_height": 512}
    plates.write(tmp_path / "small.exr", plates.linear()[20:500, 10:480], "half", **windows)
    assert animate(tmp_path / "small.exr", "driving.mp4", tmp_path / "####.exr").code == 0
    after, before = plates.read(tmp_path / "1001.exr"), plates.read(tmp_path / "small.exr")
    assert after.shape == (512, 512, 3)
    assert np.array_equal(after[220:500, 10:480], before[200:480])
    assert not after[:20].any()


def test_alpha_stays_multiplied_in_exr_and_straight_in_tiff(animate, tmp_path):
    alpha = np.full((512, 512, 1), 1, np.float32)
    alpha[400:] = 0.5
    premultiplied = np.concatenate((plates.linear() * alpha, alpha), axis=2)
    plates.write(tmp_path / "alpha.exr", premultiplied, "half")
    assert animate(tmp_path / "alpha.exr", "driving.mp4", tmp_path / "e/####.exr").code == 0
    before, after = plates.read(tmp_path / "alpha.exr"), plates.read(tmp_path / "e/1001.exr")
    assert np.array_equal(after[outside()], before[outside()])
    straight = np.concatenate((plates.deep_codes(), (alpha * 65535).astype(np.uint16)), axis=2)
    plates.write(tmp_path / "alpha.tif", straight, "uint16", oiio__UnassociatedAlpha=1)
    assert animate(tmp_path / "alpha.tif", "driving.mp4", tmp_path / "t/####.tif").code == 0
    after = plates.read(tmp_path / "t/0001.tif", "uint16")
    assert np.array_equal(after[outside()], plates.read(tmp_path / "alpha.tif", "uint16")[outside()])
    assert plates.header(tmp_path / "t/0001.tif")["oiio:UnassociatedAlpha"] == 1


@pytest.mark.parametrize("bits", [10, 16])
def test_dpx_returns_bit_for_bit(animate, tmp_path, bits):
    codes = plates.deep_codes()
    plates.write(tmp_path / "scan.dpx", codes, "uint16", oiio__BitsPerSample=bits, dpx__Transfer="Logarithmic")
    assert animate(tmp_path / "scan.dpx", "driving.mp4", tmp_path / "####.dpx").code == 0
    before, after = (plates.read(path, "uint16") for path in (tmp_path / "scan.dpx", tmp_path / "1001.dpx"))
    assert np.array_equal(after[outside()], before[outside()])
    assert plates.header(tmp_path / "1001.dpx")["oiio:BitsPerSample"] == bits


def test_nan_is_black_and_counted_or_an_error(animate, tmp_path):
    light = plates.linear()
    light[400, 400], light[401, 400:402] = np.nan, np.inf
    plates.write(tmp_path / "nan.exr", light, "half")
    result = animate(tmp_path / "nan.exr", "driving.mp4", tmp_path / "o/####.exr", "--frames", "1", "--json")
    assert result.code == 0, result.stderr
    assert any("NaN or infinity in 3 pixels" in warning for warning in result.json()["warnings"])
    after = plates.read(tmp_path / "o/1001.exr")
    assert not after[400, 400].any()
    assert not after[401, 400:402].any()
    failed = animate(tmp_path / "nan.exr", "driving.mp4", tmp_path / "f/####.exr", "--nan", "fail")
    assert failed.code == 3
    assert "NaN or infinity in 3 pixels" in failed.stderr
    assert not (tmp_path / "f").exists()


def deep_file(path: Path) -> None:
    spec = oiio.ImageSpec(8, 8, 5, "float")
    spec.channelnames = ("R", "G", "B", "A", "Z")
    spec.deep = True
    samples = oiio.DeepData()
    samples.init(spec)
    for pixel in range(64):
        samples.set_samples(pixel, 1)
    output = oiio.ImageOutput.create(str(path))
    assert output.open(str(path), spec), output.geterror()
    assert output.write_deep_image(samples)
    output.close()


def wide_file(path: Path) -> None:
    plates.write(path, np.zeros((2, 16400, 3), np.float32), "half")


def torn_file(path: Path) -> None:
    plates.write(path, plates.linear(), "half")
    path.write_bytes(path.read_bytes()[:20000])


def depth_file(path: Path) -> None:
    plates.write(path, np.zeros((8, 8, 3), np.float32), "float", channels=("Z", "id", "mask"))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (deep_file, "contains deep samples"),
        (wide_file, "is too large: 16400 x 2 pixels"),
        (torn_file, "is damaged"),
        (depth_file, "has no colours"),
    ],
)
def test_bad_plates_are_reported_in_one_line(animate, tmp_path, make, complaint):
    make(tmp_path / "bad.exr")
    result = animate(tmp_path / "bad.exr", "driving.mp4", tmp_path / "o/####.exr")
    assert result.code == 3
    assert complaint in result.stderr
    assert not (tmp_path / "o").exists()


def integers_of_32_bits(path: Path) -> None:
    """Write a baseline TIFF, which OpenImageIO reads but does not write."""
    codes = plates.deep_codes().astype("<u4") << 16
    data, place = codes.tobytes(), 8 + codes.nbytes
    more = place + 2 + 12 * 11 + 4
    tags = [
        (256, 3, 1, 512), (257, 3, 1, 512), (258, 3, 3, more), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
        (277, 3, 1, 3), (278, 3, 1, 512), (279, 4, 1, len(data)), (284, 3, 1, 1), (339, 3, 3, more + 6),
    ]  # fmt: skip
    listed = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHI", b"II", 42, place)
    path.write_bytes(
        head + data + struct.pack("<H", 11) + listed + bytes(4) + struct.pack("<6H", *(32,) * 3, *(1,) * 3)
    )


@pytest.mark.parametrize("kind", ["uint32", "double"])
def test_numbers_that_no_tiff_keeps_are_refused(animate, tmp_path, kind):
    if kind == "double":
        plates.write(tmp_path / "wide.tif", plates.linear().astype(np.float64), "double")
    else:
        integers_of_32_bits(tmp_path / "wide.tif")
    result = animate(tmp_path / "wide.tif", "driving.mp4", tmp_path / "o/####.tif")
    assert (result.code, "which a TIFF result cannot store" in result.stderr) == (3, True)
    assert not (tmp_path / "o").exists()
    space = ("--output-space", "srgb_rec709_display") if kind == "uint32" else ()
    made = animate(
        tmp_path / "wide.tif", "driving.mp4", tmp_path / "o/####.exr", "--frames", "1", *space, "--exr-type", "float"
    )
    assert made.code == 0, made.stderr
    after, before = plates.read(tmp_path / "o/1001.exr"), plates.read(tmp_path / "wide.tif")
    assert np.array_equal(after[outside()], before[outside()])


def test_tiled_files_are_read(animate, tmp_path):
    plates.write(tmp_path / "tiled.exr", plates.linear(), "half", tile_width=64, tile_height=64)
    assert animate(tmp_path / "tiled.exr", "driving.mp4", tmp_path / "####.exr").code == 0
    before, after = plates.read(tmp_path / "tiled.exr"), plates.read(tmp_path / "1001.exr")
    assert np.array_equal(after[outside()], before[outside()])


@pytest.mark.parametrize(("source", "output"), [("plate.exr", "o.mp4"), ("driving.mp4", "o/####.exr")])
def test_without_openimageio(animate, tmp_path, monkeypatch, source, output):
    monkeypatch.setitem(sys.modules, "OpenImageIO", None)
    result = animate(source, "driving.mp4", tmp_path / output)
    assert result.code == 5
    assert "needs OpenImageIO" in result.stderr
    assert "pip install 'fommctl[vfx]'" in result.stderr
    assert names(tmp_path) == []


def small(path: Path, size: int = 64, **more) -> Path:
    return plates.write(path, np.full((size, size, 3), 0.2, np.float32), "half", **more)


@pytest.mark.parametrize(
    ("others", "driving", "complaint"),
    [
        ({"a.1003.exr": 32}, "shot/a.####.exr", "a.1003.exr is 32x32 and the pictures before 64x64"),
        ({"a.1003.exr": 32}, "shot", "a.1003.exr is 32x32 and the pictures before 64x64"),
        ({"a.1001.jpg": 64}, "shot", "contains pictures of several kinds: a.#.exr (2), a.#.jpg (1)"),
        ({"depth.1001.exr": 64}, "shot", "contains pictures of several kinds: a.#.exr (2), depth.#.exr (1)"),
    ],
)
def test_driving_pictures_that_are_no_one_shot(animate, tmp_path, others, driving, complaint):
    for name in ("a.1001.exr", "a.1002.exr"):
        small(tmp_path / "shot" / name)
    for name, size in others.items():
        plates.write(
            tmp_path / "shot" / name, np.zeros((size, size, 3), np.float32), "half" if "exr" in name else "uint8"
        )
    result = animate("plate.exr", tmp_path / driving, tmp_path / "o/####.exr")
    assert result.code == 3
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 2
    assert not (tmp_path / "o").exists()


def test_a_damaged_driving_picture_is_held_or_an_error(animate, tmp_path):
    for number in (1001, 1002, 1003):
        small(tmp_path / f"shot/a.{number}.exr")
    torn = tmp_path / "shot/a.1002.exr"
    torn.write_bytes(torn.read_bytes()[:-300])
    result = animate("plate.exr", tmp_path / "shot", tmp_path / "o/####.exr", "--json")
    assert result.code == 0, result.stderr
    assert any("a.1002.exr is damaged" in warning for warning in result.json()["warnings"])
    failed = animate("plate.exr", tmp_path / "shot", tmp_path / "f/####.exr", "--on-gap", "fail")
    assert (failed.code, "a.1002.exr is damaged" in failed.stderr) == (3, True)
    assert not (tmp_path / "f").exists()


def test_a_layer_of_driving_pictures(animate, tmp_path):
    moving, channels = np.zeros((64, 64, 3), np.float32), ("R", "G", "B", "beauty.R", "beauty.G", "beauty.B")
    for number in range(1001, 1004):
        square = (moving_square(number - 1001, 64, 64) / 255).astype(np.float32) ** 2.4
        plates.write(tmp_path / f"beauty/a.{number}.exr", square, "half")
        plates.write(tmp_path / f"both/a.{number}.exr", np.dstack((moving, square)), "half", channels=channels)
    for name, layer in (("beauty", ()), ("both", ("--driving-layer", "beauty"))):
        assert animate("plate.exr", tmp_path / name, tmp_path / f"o-{name}/####.exr", *layer).code == 0
    one, other = (plates.read(tmp_path / f"o-{name}/1003.exr") for name in ("beauty", "both"))
    assert np.array_equal(one, other)
    wrong = animate("plate.exr", tmp_path / "both", tmp_path / "x/####.exr", "--driving-layer", "beuty")
    assert (wrong.code, "Did you mean beauty?" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("driving", ["shot/a.####.exr", "shot"])
def test_negative_numbers(animate, tmp_path, driving):
    small(tmp_path / "shot/a.-0001.exr")
    small(tmp_path / "shot/a.0001.exr")
    result = animate("plate.exr", tmp_path / driving, tmp_path / "o/####.exr")
    assert result.code == 3
    assert "negative frame numbers are not supported: a.-0001.exr" in result.stderr


def test_a_plate_for_which_there_is_no_memory(animate, tmp_path, monkeypatch):
    """One error line before the plate is read; the limit is the free memory, or that of the container."""
    monkeypatch.setattr("fommctl.media.limits.BYTES_A_PIXEL", 20_000)
    monkeypatch.setattr("fommctl.machine.memory", lambda: (8 << 30, 4 << 30))
    result = animate("plate.exr", "driving.mp4", tmp_path / "o/####.exr")
    assert (result.code, len(result.stderr.splitlines())) == (3, 2)
    assert "plate.exr: 512 x 512 pixels need about 4.9 GB of memory, and 4.0 GB are free" in result.stderr
    assert not (tmp_path / "o").exists()
    assert animate("plate.exr", "driving.mp4", tmp_path / "o.mp4", "--end", "0.04").code == 0


@pytest.mark.parametrize(
    ("output", "options", "codec"),
    [
        ("a.mov", ("--codec", "dnxhr_hqx"), "dnxhd"),
        ("a.mxf", ("--codec", "dnxhr_hqx"), "dnxhd"),
        ("a.mov", (), "prores"),
        ("a.mxf", ("--codec", "prores"), "prores"),
    ],
)
def test_movies_for_editors(animate, tmp_path, output, options, codec):
    write_clip(
        tmp_path / "drive.mov", width=256, height=256, frames=3, rate=FILM, audio=("pcm_s16le",), timecode="01:00:00:00"
    )
    result = animate("plate.exr", tmp_path / "drive.mov", tmp_path / output, *options)
    assert result.code == 0, result.stderr
    with av.open(str(tmp_path / output)) as container:
        (video,) = container.streams.video
        assert video.codec_context.codec.canonical_name == codec
        assert video.time_base.denominator == 24000
        assert output.endswith("mxf") or video.time_base.numerator == 1
        said = {key: value for stream in container.streams for key, value in stream.metadata.items()}
        said |= dict(container.metadata)
        assert said["timecode"] == "01:00:00:00"
        assert said["reel_name"] == "A001C003"
        frames = list(container.decode(video=0))
    assert len(frames) == 3
    assert probe(tmp_path / output).rate == FILM
    assert frames[0].format.components[0].bits == 10


def test_the_time_base_is_the_driving_videos_or_the_rates(animate, folder, tmp_path):
    def unit(output: str, *options: str) -> Fraction:
        assert animate("plate.exr", "driving.mp4", tmp_path / output, *options).code == 0
        with av.open(str(tmp_path / output)) as container:
            return Fraction(container.streams.video[0].time_base)

    with av.open(str(folder / "driving.mp4")) as container:
        own = Fraction(container.streams.video[0].time_base)
    assert unit("a.mp4") == own
    assert unit("b.mp4", "--fps", "30000/1001") == Fraction(1, 30000)
