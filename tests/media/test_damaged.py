"""Bad input gives one InputError with a hint, or every frame that can be decoded and a warning; it never hangs."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from media_factory import BT601, Colour, damage, solid, truncate, write_clip, write_gif, write_sound, write_variant
from PIL import Image

from fommctl.errors import InputError
from fommctl.media.decoding import MAX_ERRORS
from fommctl.media.images import read_picture
from fommctl.media.probe import probe
from fommctl.media.random_access import count_frames, read_frames
from fommctl.media.reader import Reader


def noise(index: int) -> np.ndarray:
    """Return pictures that compress badly, so that damage affects pixels."""
    return np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def refused(path, what: str) -> None:
    """Assert that probing and reading reject the file in one short line with its name, and with a hint."""
    for open_it in (probe, lambda file: list(Reader(file))):
        with pytest.raises(InputError, match=what) as caught:
            open_it(path)
        assert path.name in caught.value.message
        assert "\n" not in caught.value.message
        assert len(caught.value.message) < 200 + len(str(path))
        assert caught.value.hint
        assert caught.value.exit_code == 3


def png_header(width: int, height: int) -> bytes:
    """Return a PNG whose header claims more than its content."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a.png", "a.mov", "a.gif"])
def test_text(tmp_path, name):
    (tmp_path / name).write_text("not a video\n" * 100)
    refused(tmp_path / name, "cannot be decoded|readable|can be decoded|is text")


def test_noise(tmp_path):
    (tmp_path / "a.mp4").write_bytes(np.random.default_rng(0).bytes(200_000))
    refused(tmp_path / "a.mp4", "not a readable video or picture")


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.wav", "pcm_s16le"), ("a.mkv", "libopus")])
def test_sound_alone(tmp_path, name, codec):
    if codec == "libopus":
        write_clip(tmp_path / "b.mkv", audio=("libopus",))
        with av.open(str(tmp_path / "b.mkv")) as source, av.open(str(tmp_path / name), "w") as target:
            track = target.add_stream_from_template(source.streams.audio[0])
            for packet in source.demux(audio=0):
                if packet.dts is not None:
                    packet.stream = track
                    target.mux(packet)
    else:
        write_sound(tmp_path / name, codec)
    refused(tmp_path / name, "holds sound and no video")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_no_frames(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    refused(tmp_path / name, "contains no streams|readable|can be decoded")


def test_a_lost_index(tmp_path):
    refused(truncate(write_clip(tmp_path / "a.mp4", frames=60), 0.6), "incomplete|readable")


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("mpeg4.avi", b"FMP4", b"ZZQ9"), ("ffv1.mkv", b"V_FFV1", b"V_ZZZ1"), ("h264.mp4", b"avc1", b"zzz1")],
)
def test_an_unknown_codec(tmp_path, name, before, after):
    path = write_variant(tmp_path, name)
    path.write_bytes(path.read_bytes().replace(before, after))
    refused(path, "codec that cannot be decoded")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(20000, 20000), (16384, 16384), (17000, 10)])
def test_huge_pictures_are_refused_before_they_are_decoded(tmp_path, size):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(*size))
    tracemalloc.start()
    try:
        refused(path, "too large")
        with pytest.raises(InputError, match="too large"):
            read_picture(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_cut_picture(tmp_path, name):
    Image.fromarray(noise(0)).save(tmp_path / name)
    truncate(tmp_path / name, 0.5)
    with pytest.raises(InputError, match="is damaged"):
        read_picture(tmp_path / name)
    with pytest.raises(InputError, match="is damaged"):
        list(Reader(tmp_path / name))


def test_playlists_and_pipes(tmp_path):
    write_clip(tmp_path / "a.ts")
    (tmp_path / "a.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n")
    refused(tmp_path / "a.m3u8", "playlist")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.mp4")
        refused(tmp_path / "pipe.mp4", "not a regular file")


def test_names_that_ffmpeg_would_take_for_addresses(tmp_path):
    path = write_clip(tmp_path / "a.mp4").rename(tmp_path / "concat:x|y %d.mp4")
    assert len(list(Reader(path))) == 10


def broken_variant(tmp_path, name):
    """Write a hundred frames of noise with a key frame every tenth, in small clusters if the container has them."""
    options = {"g": "10", "x265-params": "log-level=none:keyint=10", "cpu-used": "8", "qscale": "2"}
    muxing = {".mp4": {"movflags": "faststart"}, ".mov": {"movflags": "faststart"}}.get(
        (tmp_path / name).suffix, {"cluster_time_limit": "400"}
    )
    wanted = {"hevc-10bit.mkv": ("x265-params",), "vp9.webm": ("g", "cpu-used"), "mpeg4.avi": ("g", "qscale")}
    chosen = {key: options[key] for key in wanted.get(name, ("g",))}
    return write_variant(tmp_path, name, frames=100, draw=noise, options=chosen, container_options=muxing)


ROBUST = ["h264.mp4", "hevc-10bit.mkv", "vp9.webm", "mpeg4.avi", "mpeg1.mpg", "mpeg2.ts", "mjpeg.avi", "ffv1.mkv"]


@pytest.mark.parametrize("name", ROBUST)
def test_decoding_continues_after_damage(tmp_path, name):
    path = damage(broken_variant(tmp_path, name), 0.40, 0.45)
    with Reader(path) as reader:
        frames = list(reader)
    assert 60 <= len(frames) <= 100
    assert frames[-1].time >= Fraction(96, 25) - Fraction(1, 2)
    assert all(after.time > frame.time for frame, after in pairwise(frames))


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi", "mpeg1.mpg", "mpeg2.ts", "mjpeg.avi", "ffv1.mkv"])
def test_damage_is_reported(tmp_path, name):
    reader = Reader(damage(broken_variant(tmp_path, name), 0.40, 0.45))
    list(reader)
    assert any("damaged" in warning and name in warning for warning in reader.warnings)


@pytest.mark.parametrize("name", [*ROBUST, "prores.mov"])
def test_cut_files_give_what_they_have(tmp_path, name):
    path = truncate(broken_variant(tmp_path, name), 0.6)
    with Reader(path) as reader:
        frames = list(reader)
    assert 45 <= len(frames) <= 62
    if name != "mpeg2.ts":
        assert any("cut short" in warning or "damaged" in warning for warning in reader.warnings)


def test_a_cut_gif_is_reported(tmp_path):
    path = truncate(write_gif(tmp_path / "a.gif", [noise(index) for index in range(10)], [50] * 10), 0.55)
    reader = Reader(path)
    assert 4 <= len(list(reader)) <= 6
    assert "cut short" in reader.warnings[0]


@pytest.mark.parametrize(
    ("name", "least", "most"), [("a.webp", 5, 5), ("a.gif", 5, 6), ("a.png", 5, 5), ("a.avif", 3, 5)]
)
def test_a_cut_animation_gives_what_it_has(tmp_path, name, least, most):
    """Complete frames are those of the intact file, and both ways of reading count the same number."""
    path = tmp_path / name
    first, *others = (Image.fromarray(noise(index)) for index in range(10))
    first.save(path, save_all=True, append_images=others, duration=50, lossless=True)
    whole = [frame.pixels for frame in Reader(path)]
    truncate(path, 0.55)
    reader = Reader(path)
    frames = [frame.pixels for frame in reader]
    assert least <= len(frames) <= most
    assert len(frames) == count_frames(path)
    # Two AVIF decoders upsample colours differently; two pictures of noise differ by 85.
    limit = 12 if name == "a.avif" else 0
    for number in range(least):
        for pixels in (frames[number], read_frames(path, [number])[0]):
            assert np.abs(pixels.astype(int) - whole[number]).mean() <= limit, number
    assert any(word in reader.warnings[0] for word in ("cut short", "damaged"))
    assert all(name in warning for warning in reader.warnings)


def test_a_cut_animation_of_one_whole_frame_is_reported(tmp_path):
    path = tmp_path / "a.webp"
    Image.fromarray(noise(0)).save(path, save_all=True, append_images=[Image.fromarray(noise(1))], lossless=True)
    reader = Reader(truncate(path, 0.7))
    assert len(list(reader)) == 1
    assert "cut short" in reader.warnings[0]


@pytest.mark.parametrize("name", ["a.webp", "a.gif", "a.png", "a.avif"])
def test_damage_in_the_middle_of_an_animation_is_reported(tmp_path, name):
    path = tmp_path / name
    first, *others = (Image.fromarray(noise(index)) for index in range(10))
    first.save(path, save_all=True, append_images=others, duration=50, lossless=True)
    reader = Reader(damage(path, 0.4, 0.6))
    assert 1 <= len(list(reader)) <= 10
    assert "damaged" in reader.warnings[0]


def test_endless_damage_ends(tmp_path):
    path = write_variant(tmp_path, "prores.mov", frames=MAX_ERRORS + 200, draw=lambda index: solid(64, 48, (9, 9, 9)))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in packets[3:]:
        data[position : position + size] = b"\0" * size
    path.write_bytes(bytes(data))
    reader = Reader(path)
    assert len(list(reader)) == 3
    assert any("stopped after" in warning for warning in reader.warnings)


@pytest.mark.filterwarnings("ignore:::PIL")
def test_flipped_bytes_are_refused_or_read(tmp_path):
    """Whatever is damaged, the result is frames or an InputError."""
    random = np.random.default_rng(0)
    names = ["h264.mp4", "hevc-10bit.mkv", "mpeg1.mpg", "mjpeg.avi", "prores4444.mov", "ffv1-rgb.mkv"]
    files = [write_variant(tmp_path, name, frames=4) for name in names]
    files.append(write_gif(tmp_path / "a.gif", [noise(index) for index in range(3)], [50] * 3))
    for name in ("a.png", "a.jpg", "a.webp", "a.tif", "a.bmp"):
        Image.fromarray(noise(0)).save(tmp_path / name)
        files.append(tmp_path / name)
    for path in files:
        whole = path.read_bytes()
        for round_number in range(12):
            broken = bytearray(whole)
            for position in random.integers(0, min(len(whole), 600), 1 + 4 * round_number):
                broken[position] = random.integers(0, 256)
            path.write_bytes(bytes(broken))
            for read in (lambda file: list(Reader(file, size=(16, 16))), read_picture):
                with suppress(InputError):
                    assert read(path) is not None


def test_a_video_of_photographs_with_exif(tmp_path):
    """PyAV 18 does not support EXIF on frames, and then gives no other side data of the frame either."""
    exif = Image.Exif()
    exif[0x010F] = "camera"
    Image.fromarray(solid(64, 48, (200, 90, 40))).save(tmp_path / "a.jpg", exif=exif, quality=98)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(3):
            packet = av.Packet((tmp_path / "a.jpg").read_bytes())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            packet.is_keyframe = True
            container.mux(packet)
    frames = list(Reader(tmp_path / "a.avi"))
    assert len(frames) == 3
    assert np.abs(frames[0].pixels.astype(int) - (200, 90, 40)).max() <= 4


def test_a_matrix_that_cannot_be_inverted_is_read_like_untagged_video(tmp_path):
    tags = {"colorspace": 8, "color_primaries": 1, "color_trc": 1, "color_range": 1}
    path = write_clip(
        tmp_path / "a.mkv",
        codec="ffv1",
        pix_fmt="yuv444p",
        frames=1,
        draw=lambda index: solid(64, 48, (200, 90, 40)),
        colour=Colour(BT601, tags=tags),
    )
    (frame,) = Reader(path)
    assert np.abs(frame.pixels.astype(int) - (200, 90, 40)).max() <= 2
