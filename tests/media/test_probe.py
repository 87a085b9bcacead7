"""Properties of files by probing."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest
from av.stream import Disposition
from media_factory import BT709, moving_square, tagged, write_clip, write_frames, write_gif, write_variant
from PIL import Image

from fommctl.media.colour import ColourTags
from fommctl.media.probe import AudioTrack, probe
from fommctl.media.random_access import count_frames


def test_a_video_with_two_sound_tracks_and_a_timecode(tmp_path):
    path = write_clip(
        tmp_path / "a.mov",
        width=96,
        height=64,
        rate=Fraction(30000, 1001),
        frames=30,
        audio=("aac", "pcm_s16le"),
        languages=("eng", "ger"),
        timecode="01:02:03:04",
        colour=tagged(BT709),
    )
    info = probe(path)
    assert (info.kind, info.container, info.video_codec, info.pix_fmt) == ("video", "mov", "h264", "yuv420p")
    assert (info.width, info.height, info.rate, info.frames) == (96, 64, Fraction(30000, 1001), 30)
    assert info.duration is not None
    assert abs(info.duration - 30 * Fraction(1001, 30000)) < Fraction(1, 1000)
    assert info.audio == (
        AudioTrack(1, "aac", "eng", True, 1, 44100),
        AudioTrack(2, "pcm_s16le", "ger", False, 1, 44100),
    )
    assert info.timecode == "01:02:03:04"
    assert info.colour == ColourTags(1, 1, 1, 1)
    assert not info.hdr
    assert not info.has_alpha
    assert info.origin == 0


def test_no_sound(tmp_path):
    assert probe(write_clip(tmp_path / "a.mkv")).audio == ()


def test_origin_is_the_time_of_the_first_frame(tmp_path):
    """Sound codecs may start before the picture to warm up; time 0 is still the first picture."""
    path = write_clip(tmp_path / "a.mp4", start=Fraction(5, 2), audio=("aac",))
    assert probe(path).origin == Fraction(5, 2)
    assert probe(write_variant(tmp_path, "mpeg1.mpg")).origin == Fraction(48600, 90000)


def test_untagged_colours_are_unknown(tmp_path):
    assert probe(write_variant(tmp_path, "ffv1.mkv")).colour == ColourTags()


def test_a_picture(tmp_path):
    Image.new("RGBA", (30, 20)).save(tmp_path / "a.png")
    info = probe(tmp_path / "a.png", fps=Fraction(12))
    assert (info.kind, info.video_codec, info.width, info.height) == ("image", "png", 30, 20)
    assert (info.frames, info.rate, info.duration, info.has_alpha) == (1, 12, Fraction(1, 12), True)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_picture_that_lies_on_its_side(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / f"a.{suffix}", exif=exif)
    info = probe(tmp_path / f"a.{suffix}")
    assert (info.width, info.height) == (20, 30)


def test_a_folder_and_a_pattern(tmp_path):
    folder = write_frames(tmp_path / "frames", [moving_square(index) for index in range(7)])
    for path in (folder, folder / "%05d.png"):
        info = probe(path, fps=Fraction(30))
        assert (info.kind, info.frames, info.rate, info.duration) == ("sequence", 7, 30, Fraction(7, 30))
        assert (info.width, info.height) == (64, 48)
    assert probe(folder).rate == 25


def test_gifs(tmp_path):
    moving = write_gif(tmp_path / "moving.gif", [moving_square(index) for index in range(5)], [100] * 5)
    still = write_gif(tmp_path / "still.gif", [moving_square(0)], [100])
    info = probe(moving)
    assert (info.kind, info.video_codec, info.frames, info.duration) == ("video", "gif", 5, Fraction(1, 2))
    assert probe(still).kind == "image"


def two_tracks(path, counts, default):
    """Write a film with two video tracks with these numbers of frames, 64x48 and 32x24, at 25 frames/s."""
    with av.open(str(path), "w") as container:
        streams = []
        for number in range(2):
            stream = container.add_stream("mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64 >> number, 48 >> number, "yuvj420p"
            stream.disposition = Disposition.default if number == default else Disposition(0)
            streams.append(stream)
        for stream, count in zip(streams, counts, strict=True):
            for index in range(count):
                frame = av.VideoFrame.from_ndarray(moving_square(index, stream.width, stream.height), "rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("counts", "default", "width"),
    [((1, 25), 0, 32), ((25, 1), 1, 64), ((10, 25), 0, 32), ((25, 26), 0, 64), ((25, 25), 1, 32), ((25, 10), 0, 64)],
)
def test_the_longest_track_is_the_film_and_among_equals_the_default(tmp_path, suffix, counts, default, width):
    path = two_tracks(tmp_path / f"a{suffix}", counts, default)
    assert probe(path).width == width
    assert count_frames(path) == (counts[0] if width == 64 else counts[1])
