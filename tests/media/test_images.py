"""Pictures of all kinds become upright 8-bit sRGB with separate alpha."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from media_factory import Colour, linear_profile, moving_square, solid, write_clip, write_gif
from PIL import Image

from fommctl.errors import InputError
from fommctl.media.images import read_picture
from fommctl.media.probe import probe


def saved(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_rgb_is_exact(tmp_path, name):
    pixels = moving_square(3)
    options = {"lossless": True} if name == "a.webp" else {}
    picture = read_picture(saved(tmp_path / name, Image.fromarray(pixels), **options))
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert picture.alpha is None


def test_jpeg(tmp_path):
    picture = read_picture(saved(tmp_path / "a.jpg", Image.fromarray(solid(32, 32, (200, 90, 40))), quality=98))
    assert np.abs(picture.pixels.astype(int) - (200, 90, 40)).max() <= 3


def test_grey_becomes_three_equal_channels(tmp_path):
    picture = read_picture(saved(tmp_path / "a.png", Image.fromarray(np.array([[0, 77, 255]], np.uint8))))
    assert picture.pixels.tolist() == [[[0] * 3, [77] * 3, [255] * 3]]


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 257 * 100, 257 * 100 + 128, 65535]], np.uint16)
    picture = read_picture(saved(tmp_path / "a.png", Image.fromarray(values)))
    assert picture.pixels[0, :, 0].tolist() == [0, 100, 100, 255]


def test_sixteen_bit_rgb_is_scaled_within_one_level(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 8, 8, "rgb48be"
    encoder.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(values, format="rgb48le").reformat(format="rgb48be")
    (tmp_path / "a.png").write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode()]))
    picture = read_picture(tmp_path / "a.png")
    assert np.abs(picture.pixels - values / 257).max() <= 1


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_floating_point_grey(tmp_path, top):
    values = np.array([[0, 0.5 * top, top]], np.float32)
    picture = read_picture(saved(tmp_path / "a.tif", Image.fromarray(values)))
    assert picture.pixels[0, :, 1].tolist() == [0, 128, 255]


def test_alpha_is_kept_apart(tmp_path):
    pixels = np.dstack([moving_square(0), np.arange(64 * 48).reshape(48, 64).astype(np.uint8)])
    picture = read_picture(saved(tmp_path / "a.png", Image.fromarray(pixels)))
    np.testing.assert_array_equal(picture.pixels, pixels[..., :3])
    np.testing.assert_array_equal(picture.alpha, pixels[..., 3])


def test_grey_with_alpha(tmp_path):
    pixels = np.array([[[10, 20], [200, 255]]], np.uint8)
    picture = read_picture(saved(tmp_path / "a.png", Image.fromarray(pixels)))
    assert picture.pixels.tolist() == [[[10] * 3, [200] * 3]]
    assert picture.alpha.tolist() == [[20, 255]]


def test_a_palette_with_a_transparent_colour(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([250, 10, 20, 30, 200, 40])
    image.putdata([0, 1])
    picture = read_picture(saved(tmp_path / "a.png", image, transparency=0))
    assert picture.pixels[0, 1].tolist() == [30, 200, 40]
    assert picture.alpha.tolist() == [[0, 255]]


def test_cmyk_without_a_profile(tmp_path):
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)
    picture = read_picture(saved(tmp_path / "a.tif", Image.fromarray(inks, mode="CMYK")))
    assert picture.pixels.tolist() == [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize(
    ("orientation", "undo"),
    [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, lambda a: np.rot90(a, 1))],
)
def test_exif_orientation(tmp_path, name, orientation, undo):
    pixels = moving_square(0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path / name, Image.fromarray(pixels), exif=exif, **options)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, undo(pixels))
    assert (probe(path).width, probe(path).height) == (picture.pixels.shape[1], picture.pixels.shape[0])


def test_an_icc_profile_becomes_srgb(tmp_path):
    """Half the light is 188 in sRGB: 255 * (1.055 * 0.5 ** (1 / 2.4) - 0.055)."""
    image = Image.fromarray(solid(4, 4, (128, 128, 128)))
    picture = read_picture(saved(tmp_path / "a.png", image, icc_profile=linear_profile()))
    assert np.abs(picture.pixels.astype(int) - 188).max() <= 1


def test_an_icc_profile_with_alpha(tmp_path):
    image = Image.fromarray(solid(4, 4, (128, 128, 128, 99)))
    picture = read_picture(saved(tmp_path / "a.png", image, icc_profile=linear_profile()))
    assert np.abs(picture.pixels.astype(int) - 188).max() <= 1
    assert (picture.alpha == 99).all()


def test_a_broken_icc_profile_is_left_out(tmp_path):
    picture = read_picture(saved(tmp_path / "a.png", Image.fromarray(solid(4, 4, (9, 8, 7))), icc_profile=b"nonsense"))
    assert picture.pixels[0, 0].tolist() == [9, 8, 7]


def test_the_first_frame_of_animations_and_videos(tmp_path):
    pictures = [moving_square(index) for index in range(3)]
    gif = read_picture(write_gif(tmp_path / "a.gif", pictures, [100] * 3))
    assert np.abs(gif.pixels.astype(int) - pictures[0]).max() <= 8
    video = read_picture(write_clip(tmp_path / "a.mkv", codec="ffv1", pix_fmt="bgr0"))
    np.testing.assert_array_equal(video.pixels, pictures[0])
    assert video.alpha is None


def test_the_first_frame_of_a_video_with_alpha_that_lies_on_its_side(tmp_path):
    path = write_clip(
        tmp_path / "a.mov",
        codec="prores_ks",
        pix_fmt="yuva444p10le",
        frames=1,
        draw=lambda index: solid(64, 48, (200, 100, 50, 100)),
        rotation=90,
        colour=Colour(6),
    )
    picture = read_picture(path)
    assert picture.pixels.shape == (64, 48, 3)
    assert np.abs(picture.pixels.astype(int) - (200, 100, 50)).max() <= 3
    assert np.abs(picture.alpha.astype(int) - 100).max() <= 1


def test_one_pixel(tmp_path):
    picture = read_picture(saved(tmp_path / "a.png", Image.new("RGB", (1, 1), (1, 2, 3))))
    assert picture.pixels.tolist() == [[[1, 2, 3]]]


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        read_picture(tmp_path)
