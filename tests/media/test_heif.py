"""HEIC photos: whole, upright, with their profile, and never taken for films."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pillow_heif
import pytest
from media_factory import linear_profile, moving_square, solid, write_clip
from PIL import Image

from fommctl.errors import InputError
from fommctl.media.colour import ColourTags, ToneMap
from fommctl.media.images import read_picture
from fommctl.media.probe import probe
from fommctl.media.reader import Reader

TILE = 64


def heic(path: Path, pixels: np.ndarray, **options) -> Path:
    """Write a lossless HEIC.  tile_size: of a grid as written by phones."""
    pillow_heif.register_heif_opener()
    Image.fromarray(pixels).save(path, "HEIF", quality=-1, chroma=444, **options)
    return path


@pytest.mark.parametrize("options", [{}, {"tile_size": TILE}])
@pytest.mark.parametrize("name", ["IMG_0001.HEIC", "a.heif", "a.jpg"])
def test_the_whole_picture_is_read(tmp_path, name, options):
    pixels = moving_square(3, 3 * TILE - 10, 2 * TILE + 6)
    given = heic(tmp_path / name, pixels, **options)
    info = probe(given)
    assert (info.kind, info.width, info.height, info.frames) == ("image", 182, 134, 1)
    np.testing.assert_allclose(read_picture(given).pixels.astype(int), pixels, atol=2)


def test_tiles_are_streams_for_a_video_reader(tmp_path):
    given = heic(tmp_path / "a.heic", moving_square(3, 3 * TILE, 2 * TILE), tile_size=TILE)
    with av.open(str(given)) as container:
        assert len(container.streams.video) >= 6


def test_a_grid_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = moving_square(3, 3 * TILE, 2 * TILE)
    given = heic(tmp_path / "a.heic", pixels, tile_size=TILE, exif=exif.tobytes())
    assert (probe(given).width, probe(given).height) == (2 * TILE, 3 * TILE)
    np.testing.assert_allclose(read_picture(given).pixels.astype(int), np.rot90(pixels, -1), atol=2)


def test_the_profile_is_respected(tmp_path):
    given = heic(tmp_path / "a.heic", solid(64, 64, (55, 55, 55)), icc_profile=linear_profile())
    # Light of 55 / 255 is 0.2157, whose sRGB code is 0.502.
    np.testing.assert_allclose(read_picture(given).pixels[32, 32].astype(int), 128, atol=2)


def test_alpha_is_kept_apart(tmp_path):
    pixels = solid(64, 64, (200, 80, 40, 255))
    pixels[:, :32, 3] = 0
    picture = read_picture(heic(tmp_path / "a.heic", pixels))
    assert picture.alpha is not None
    assert (picture.alpha[10, 10], picture.alpha[10, 50]) == (0, 255)


def test_pq_is_tone_mapped_as_in_films(tmp_path):
    codes = np.full((64, 64, 3), (30000, 26000, 22000), np.uint16)
    heif = pillow_heif.from_bytes("RGB;16", (64, 64), codes.astype("<u2").tobytes())
    heif.info["nclx_profile"] = {
        "color_primaries": 9,
        "transfer_characteristics": 16,
        "matrix_coefficients": 9,
        "full_range_flag": 1,
    }
    heif.save(tmp_path / "a.heic", quality=-1, chroma=444)
    expected = ToneMap(ColourTags(9, 16, 9, 2))(codes)
    np.testing.assert_allclose(read_picture(tmp_path / "a.heic").pixels[32, 32].astype(int), expected[32, 32], atol=4)


def test_a_damaged_one_is_refused_and_not_taken_for_a_film(tmp_path):
    given = heic(tmp_path / "a.heic", moving_square(3, 3 * TILE, 2 * TILE), tile_size=TILE)
    data = given.read_bytes()
    at = data.find(b"meta")
    given.write_bytes(data[:at] + bytes(40) + data[at + 40 :])
    with pytest.raises(InputError, match="damaged"):
        read_picture(given)
    with pytest.raises(InputError, match="damaged"):
        probe(given)


def test_a_folder_of_photos_is_a_clip(tmp_path):
    for index in range(3):
        heic(tmp_path / f"IMG_{index}.HEIC", moving_square(index, 2 * TILE, TILE), tile_size=TILE)
    with Reader(tmp_path) as reader:
        pictures = [frame.pixels for frame in reader]
    for index, pixels in enumerate(pictures):
        np.testing.assert_allclose(pixels.astype(int), moving_square(index, 2 * TILE, TILE), atol=2)


def test_a_film_in_the_same_kind_of_container_stays_a_film(tmp_path):
    info = probe(write_clip(tmp_path / "a.mp4", codec="libx265", options={"x265-params": "log-level=none"}))
    assert (info.kind, info.frames) == ("video", 10)
