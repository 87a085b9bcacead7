"""`animate --detail`: results at the source's resolution, from file to file."""

import json
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from shots import ASTRONAUT, prepared_shot
from written_media import frames

SIDE = 720
SQUARE = "40,60,640"
INSIDE = slice(200, 560), slice(180, 540)
"""Rows and columns of the middle of the square."""
pytestmark = pytest.mark.usefixtures("one_thread")


def sharpness(picture):
    """Return the variance of the Laplacian of the luma."""
    luma = torch.from_numpy(picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))
    kernel = torch.tensor([[0, 1.0, 0], [1, -4, 1], [0, 1, 0]])
    return float(F.conv2d(luma[None, None], kernel[None, None]).var())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A face of 720 pixels with grain two pixels wide, and a clip whose motion the model can follow."""
    folder = prepared_shot(tmp_path_factory.mktemp("inputs"))
    face = Image.open(ASTRONAUT).convert("RGB").crop((139, 25, 317, 203)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 10, (SIDE // 2, SIDE // 2)).astype(np.float32)
    grain = np.asarray(Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    Image.fromarray((np.asarray(face) + grain[..., None]).clip(0, 255).astype(np.uint8)).save(folder / "large.png")
    return folder


@pytest.fixture(scope="module")
def animate(inputs, animator, tmp_path_factory):
    @cache
    def run(name="a.mkv", source="large.png", **options):
        out = tmp_path_factory.mktemp("out") / name
        given = {"crop": SQUARE, "driving_crop": "none", "end": "0.12", "audio": "none", "smooth": False, **options}
        result = animator.animate(inputs / source, inputs / "clip.mp4", out, **given)
        return out, list(frames(out)), result

    return run


def test_what_is_pasted_back_is_as_sharp_as_the_source(inputs, animate):
    large = np.asarray(Image.open(inputs / "large.png"))
    _, detailed, result = animate()
    _, plain, _ = animate(detail=False)
    assert (result.width, result.height) == (SIDE, SIDE)
    assert len(detailed) == len(plain) == 3
    wanted = sharpness(large[INSIDE])
    assert min(sharpness(frame[INSIDE]) for frame in detailed) > 0.5 * wanted
    assert max(sharpness(frame[INSIDE]) for frame in plain) < 0.1 * wanted  # what the network itself makes
    for one, other in zip(detailed, plain, strict=True):
        small = [
            np.asarray(Image.fromarray(each).resize((90, 90), Image.Resampling.BOX), float) for each in (one, other)
        ]
        assert np.abs(small[0] - small[1]).mean() < 3, "detail changes what there is to see"
        assert np.array_equal(one[:60], large[:60])
    assert np.abs(detailed[-1][INSIDE].astype(float) - detailed[0][INSIDE]).mean() > 0.5


def test_a_square_of_few_pixels_has_nothing_to_give(animate):
    _, with_it, _ = animate(source="portrait.png", crop="40,30,180", detail=True)
    _, without, _ = animate(source="portrait.png", crop="40,30,180", detail=False)
    assert all(np.array_equal(one, other) for one, other in zip(with_it, without, strict=True))


def test_prepared_input_is_as_it_was_unless_detail_is_asked_for(animate):
    _, usual, result = animate(crop="none")
    _, plain, _ = animate(crop="none", detail=False)
    assert (result.width, result.height) == (256, 256)
    assert all(np.array_equal(one, other) for one, other in zip(usual, plain, strict=True))
    _, detailed, result = animate(crop="none", detail=True)
    assert (result.width, result.height) == (SIDE, SIDE)
    assert sharpness(detailed[0][INSIDE]) > 10 * sharpness(
        np.asarray(Image.fromarray(plain[0]).resize((SIDE, SIDE)))[INSIDE]
    )


def test_the_square_alone_has_the_size_that_it_has_in_the_source(animate):
    _, alone, result = animate(paste_back=False, detail=True)
    _, pasted, _ = animate()
    assert (result.width, result.height) == (640, 640)
    # Colours are matched at the border with the source; shapes are alike.
    close = np.abs(alone[1][140:500, 140:500].astype(float) - pasted[1][200:560, 180:540])
    assert close.mean() < 6


def test_side_by_side_with_keypoints(animate):
    _, shown, result = animate(keypoints=True)
    assert (result.width, result.height) == (3 * SIDE, SIDE)
    panel = shown[0][:, 2 * SIDE :]
    assert (panel != shown[0][:, :SIDE]).any()
    assert sharpness(panel[INSIDE]) > 0


def test_a_sidecar_from_before_there_was_detail_renders_what_it_did(inputs, animate, run_cli, tmp_path):
    plain, _, _ = animate("plain.mkv", as_published=True, sidecar=True)
    record = json.loads(plain.with_name("plain.mkv.json").read_text())
    assert record["options"].pop("detail") is False
    for later in ("as_published", "cuts", "head_motion", "expression", "source_width", "driving_width"):
        record["options"].pop(later)
    old = tmp_path / "plain.mkv.json"
    old.write_text(json.dumps(record))
    inputs_given = (inputs / "large.png", inputs / "clip.mp4")
    again = run_cli("animate", *inputs_given, "--from-sidecar", old, "-o", tmp_path / "again.mkv", "--json")
    assert again.code == 0, again.stderr
    assert again.json()["reproduction"]["identical"] is True
    detailed, _, _ = animate("detailed.mkv", sidecar=True)
    record = json.loads(detailed.with_name("detailed.mkv.json").read_text())
    assert record["options"]["detail"] is True
    again = run_cli(
        "animate", *inputs_given, "--from-sidecar", f"{detailed}.json", "-o", tmp_path / "detailed.mkv", "--json"
    )
    assert again.json()["reproduction"]["identical"] is True


SHARPER = """
    import torch.nn.functional as F
    from fommctl.api import hookimpl

    @hookimpl
    def fommctl_square(event):
        if event.stage != "animate":
            return None

        def darker_and_twice_as_large(squares):
            assert squares.dtype.is_floating_point and squares.shape[1:] == (3, {size}, {size})
            assert 0 <= squares.min() and squares.max() <= 1
            return F.interpolate(squares, scale_factor=2) / 2

        return darker_and_twice_as_large
"""


@pytest.mark.parametrize(("options", "size"), [((), 640), (("--no-detail",), 256), (("--no-paste-back",), 256)])
def test_a_plugin_changes_squares_before_they_are_pasted(inputs, run_cli, third_party, tmp_path, options, size):
    third_party(SHARPER.format(size=size), name="sharper", entry="sharper")
    arguments = (
        "animate", inputs / "large.png", inputs / "clip.mp4", "--crop", SQUARE, "--driving-crop", "none",
        "--end", "0.1", "--precision", "fp32", *options,
    )  # fmt: skip
    changed, plain = tmp_path / "changed.mkv", tmp_path / "plain.mkv"
    result = run_cli(*arguments, "-o", changed, "--json")
    assert result.code == 0, result.stderr
    with pytest.MonkeyPatch().context() as without:
        without.setenv("FOMMCTL_PLUGINS", "fomm,faces")
        assert run_cli(*arguments, "-o", plain).code == 0
    one, other = next(iter(frames(changed))), next(iter(frames(plain)))
    assert one.shape == other.shape
    middle = (slice(300, 400), slice(300, 400)) if "--no-paste-back" not in options else (slice(100, 150),) * 2
    assert abs(one[middle].mean() / other[middle].mean() - 0.5) < 0.02
    if "--no-paste-back" not in options:
        assert np.array_equal(one[:60], other[:60])


@pytest.mark.parametrize(
    ("body", "complaint"),
    [("return lambda squares: squares[0]", "came back for"), ("return lambda squares: 1 / 0", "ZeroDivisionError")],
)
def test_what_a_plugin_does_wrong_with_squares_names_it(inputs, run_cli, third_party, tmp_path, body, complaint):
    source = f"from fommctl.api import hookimpl\n\n@hookimpl\ndef fommctl_square(event):\n    {body}\n"
    third_party(source, name="wrong", entry="wrong")
    result = run_cli(
        "animate",
        inputs / "portrait.png",
        inputs / "clip.mp4",
        "--crop",
        "none",
        "--end",
        "0.1",
        "-o",
        tmp_path / "a.mkv",
    )
    assert result.code == 1
    assert "the square filter of plugin 'wrong'" in result.stderr.replace("\n", " ")
    assert complaint in result.stderr.replace("\n", " ")
    assert not (tmp_path / "a.mkv").exists()
