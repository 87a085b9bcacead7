"""Colours of decoded frames compared with values computed by hand: matrices, ranges, untagged files, HDR, alpha."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from media_factory import BT601, BT709, HLG, PQ, Colour, solid, tagged, write_clip

from fommctl.media.colour import BT2020, ColourTags, ToneMap, pq_light, to_bt709
from fommctl.media.reader import Reader

PATCHES = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 30), (128, 128, 128)]


def decoded(path, **options) -> np.ndarray:
    with Reader(path, **options) as reader:
        return next(iter(reader)).pixels


def lossless(path, colour, pixels, pix_fmt="yuv444p"):
    codec = {"codec": "ffv1", "pix_fmt": pix_fmt}
    height, width = pixels(0).shape[:2]
    return write_clip(path, **codec, width=width, height=height, frames=len(PATCHES), draw=pixels, colour=colour)


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [BT709, BT601, BT2020])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p16le"])
def test_patches_decode_to_their_colours(tmp_path, pix_fmt, matrix, full):
    path = lossless(tmp_path / "a.mkv", tagged(matrix, full=full), lambda i: solid(34, 18, PATCHES[i]), pix_fmt)
    for options in ({}, {"size": (16, 16)}):
        for frame, patch in zip(Reader(path, **options), PATCHES, strict=True):
            assert np.abs(frame.pixels.astype(int) - patch).max() <= 2, (patch, options)


@pytest.mark.parametrize(("width", "height", "matrix"), [(1280, 96, BT709), (96, 720, BT709), (720, 576, BT601)])
def test_untagged_video_is_read_by_its_size(tmp_path, width, height, matrix):
    path = lossless(tmp_path / "a.mkv", Colour(matrix), lambda i: solid(width, height, PATCHES[i]), "yuv420p")
    frame = decoded(path, size=(8, 8))
    assert np.abs(frame.astype(int) - PATCHES[0]).max() <= 2


@pytest.mark.parametrize("code", [("libx264", "yuv420p", "a.mp4"), ("libx264", "yuv420p10le", "a.mov")])
def test_tags_survive_h264(tmp_path, code):
    codec, pix_fmt, name = code
    path = write_clip(
        tmp_path / name,
        codec=codec,
        pix_fmt=pix_fmt,
        frames=1,
        draw=lambda i: solid(64, 48, (200, 40, 40)),
        colour=tagged(BT709, full=True),
        options={"qp": "1"},
    )
    with Reader(path) as reader:
        assert reader.info.colour == ColourTags(1, 1, 1, 2)
        assert np.abs(next(iter(reader)).pixels.astype(int) - (200, 40, 40)).max() <= 3


def test_mjpeg_is_full_range(tmp_path):
    path = write_clip(
        tmp_path / "a.avi",
        codec="mjpeg",
        pix_fmt="yuvj420p",
        frames=1,
        draw=lambda i: solid(64, 48, (250, 128, 5)),
        options={"qmin": "1", "qmax": "1"},
    )
    assert np.abs(decoded(path).astype(int) - (250, 128, 5)).max() <= 3


def test_rgb_files_are_bit_exact(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (47, 33, 3), dtype=np.uint8)
    for name, codec, pix_fmt in (("a.mkv", "ffv1", "bgr0"), ("b.mov", "qtrle", "rgb24")):
        path = write_clip(
            tmp_path / name, codec=codec, pix_fmt=pix_fmt, width=33, height=47, frames=1, draw=lambda i: noise
        )
        np.testing.assert_array_equal(decoded(path), noise)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name"), [("prores_ks", "yuva444p10le", "a.mov"), ("ffv1", "bgra", "a.mkv")]
)
def test_alpha_is_laid_over_black(tmp_path, codec, pix_fmt, name):
    def draw(index):
        picture = solid(64, 48, (200, 100, 50, 255))
        picture[:, 32:, 3] = 64
        return picture

    path = write_clip(tmp_path / name, codec=codec, pix_fmt=pix_fmt, frames=1, draw=draw, colour=Colour(BT601))
    with Reader(path) as reader:
        assert reader.info.has_alpha
    pixels = decoded(path).astype(int)
    assert np.abs(pixels[24, 8] - (200, 100, 50)).max() <= 3
    assert np.abs(pixels[24, 56] - np.array((200, 100, 50)) * 64 / 255).max() <= 3


def pq_signal(nits: float) -> float:
    """Return the inverse of the PQ EOTF (SMPTE ST 2084, equation 5)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = (nits / 10000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def test_the_pq_curve_has_its_published_points():
    assert pq_light(np.array([1.0]))[0] == pytest.approx(10000)
    assert pq_light(np.array([pq_signal(100)]))[0] == pytest.approx(100)
    assert pq_signal(203) == pytest.approx(0.5807, abs=1e-4)  # BT.2408: reference white is 58 % PQ


def test_bt2020_to_bt709_is_the_published_matrix():
    published = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    np.testing.assert_allclose(to_bt709(BT2020), published, atol=1e-4)  # ITU-R BT.2087, annex 2


def hdr_clip(path, transfer, signals):
    colour = tagged(BT2020, primaries=BT2020, transfer=transfer)
    return write_clip(
        path,
        codec="ffv1",
        pix_fmt="yuv420p10le",
        width=32,
        height=32,
        frames=len(signals),
        draw=lambda i: np.full((32, 32, 3), signals[i]),
        colour=colour,
    )


@pytest.mark.parametrize(
    ("name", "transfer", "signals"),
    [
        ("pq", PQ, [0, pq_signal(26), pq_signal(101.5), pq_signal(203), pq_signal(1000)]),
        ("hlg", HLG, [0, 0.38, None, 0.75, 1.0]),
    ],
)
def test_hdr_grey_is_tone_mapped(tmp_path, name, transfer, signals):
    """Black stays, 26 cd/m2 (18 % grey) is as in SDR, reference white is bright but not white, the peak is white."""
    wanted = [0, 108, 191, 228, 255]
    pairs = [(signal, level) for signal, level in zip(signals, wanted, strict=True) if signal is not None]
    path = hdr_clip(tmp_path / f"{name}.mkv", transfer, [signal for signal, _ in pairs])
    with Reader(path) as reader:
        assert reader.info.hdr
        for frame, (_, level) in zip(reader, pairs, strict=True):
            assert np.abs(frame.pixels.astype(int) - level).max() <= 2
            assert (np.ptp(frame.pixels, axis=2) <= 1).all()


def test_hdr_hevc_keeps_its_tags(tmp_path):
    colour = tagged(BT2020, primaries=BT2020, transfer=PQ)
    path = write_clip(
        tmp_path / "a.mp4",
        codec="libx265",
        pix_fmt="yuv420p10le",
        frames=3,
        colour=colour,
        draw=lambda i: np.full((48, 64, 3), pq_signal(203)),
        options={"x265-params": "log-level=none:qp=4"},
    )
    with Reader(path, size=(32, 24)) as reader:
        assert reader.info.hdr
        assert reader.info.colour == ColourTags(BT2020, PQ, BT2020, 1)
        frames = list(reader)
    assert len(frames) == 3
    assert np.abs(frames[0].pixels.astype(int) - 228).max() <= 2


def test_tone_mapping_keeps_order_and_hue():
    codes = np.linspace(0, 65535, 500).astype(np.uint16)
    grey = ToneMap(ColourTags(BT2020, PQ, BT2020, 1))(np.repeat(codes[None, :, None], 3, axis=2))
    assert (np.diff(grey[0, :, 0].astype(int)) >= 0).all()
    red = ToneMap(ColourTags(1, PQ, 1, 1))(np.array([[[round(pq_signal(900) * 65535), 0, 0]]], np.uint16))
    assert red[0, 0, 0] > 245
    assert red[0, 0, 1] == red[0, 0, 2] == 0


def test_sdr_in_bt2020_becomes_bt709(tmp_path):
    """bt709's red, written in BT.2020 coordinates, is read back as pure red."""
    linear = np.linalg.inv(to_bt709(BT2020).astype(np.float64)) @ (1, 0, 0)
    signal = linear ** (1 / 2.4)
    path = write_clip(
        tmp_path / "a.mkv",
        codec="ffv1",
        pix_fmt="yuv444p16le",
        frames=1,
        rate=Fraction(24),
        draw=lambda i: np.broadcast_to(signal, (48, 64, 3)),
        colour=tagged(BT2020, primaries=BT2020, transfer=14),
    )
    assert np.abs(decoded(path).astype(int) - (255, 0, 0)).max() <= 6
