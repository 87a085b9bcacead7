"""Frames and timestamps of all kinds of input, cut, scaled and rotated."""

from __future__ import annotations

import threading
import tracemalloc
from fractions import Fraction
from itertools import islice, pairwise

import numpy as np
import pytest
from media_factory import CODECS, moving_square, solid, write_clip, write_frames, write_gif, write_variant
from PIL import Image

from fommctl.errors import InputError, UsageError
from fommctl.media.boxes import Box
from fommctl.media.reader import Reader


def gradient(width: int, height: int) -> np.ndarray:
    """Return a picture with red growing to the right and green downwards, which shows its orientation."""
    rows, columns = np.mgrid[:height, :width]
    channels = [columns * 200 // max(1, width - 1), rows * 200 // max(1, height - 1), np.full((height, width), 60)]
    return np.stack(channels, axis=2).astype(np.uint8)


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_gives_every_frame(tmp_path, name):
    path = write_variant(tmp_path, name)
    with Reader(path) as reader:
        frames = list(reader)
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.time for frame in frames] == [Fraction(index, 25) for index in range(10)]
    assert {frame.duration for frame in frames} == {Fraction(1, 25)}
    assert reader.warnings == []
    for frame in frames:
        height, width = frame.pixels.shape[:2]
        assert frame.pixels.dtype == np.uint8
        error = np.abs(frame.pixels.astype(int) - moving_square(frame.index, width, height))
        assert error.mean() < 6


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60), Fraction(15, 2)])
def test_exact_rates_keep_exact_times(tmp_path, rate):
    path = write_clip(tmp_path / "a.mp4", rate=rate, frames=40)
    with Reader(path) as reader:
        assert reader.info.rate == rate
        assert [frame.time for frame in reader] == [index / rate for index in range(40)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_variable_rates_keep_their_times(tmp_path, name):
    times = [Fraction(tick, 30) for tick in (0, 1, 3, 6, 7, 15)]
    path = write_clip(tmp_path / name, times=times)
    frames = list(Reader(path))
    grid = Fraction(1, 1000) if name == "a.mkv" else Fraction(1, 90000)
    assert all(abs(frame.time - time) <= grid / 2 for frame, time in zip(frames, times, strict=True))
    assert [frame.duration for frame in frames[:-1]] == [after.time - frame.time for frame, after in pairwise(frames)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_clip_that_starts_late_starts_at_zero(tmp_path, name):
    path = write_clip(tmp_path / name, start=Fraction(5, 2), frames=8)
    with Reader(path) as reader:
        assert reader.info.origin >= Fraction(5, 2)
        assert [frame.time for frame in reader] == [Fraction(index, 25) for index in range(8)]


def test_a_clock_that_jumps_by_hours_leaves_no_pause(tmp_path):
    """Spliced recordings of broadcasts have such jumps."""
    spliced = [Fraction(index, 25) + (9000 if index >= 5 else 0) for index in range(10)]
    clip = write_clip(tmp_path / "spliced.mkv", times=spliced)
    with Reader(clip) as reader:
        times = [float(frame.time) for frame in reader]
    np.testing.assert_allclose(times, np.arange(10) / 25, atol=0.002)
    assert "spliced.mkv: timestamps jump by more than an hour in 1 place(s), left out" in reader.warnings


def test_gif_delays_are_timestamps(tmp_path):
    pictures = [moving_square(index) for index in range(4)]
    path = write_gif(tmp_path / "a.gif", pictures, [40, 100, 250, 30])
    frames = list(Reader(path))
    assert [frame.time for frame in frames] == [Fraction(0), Fraction(4, 100), Fraction(14, 100), Fraction(39, 100)]
    assert [frame.duration for frame in frames[:3]] == [Fraction(4, 100), Fraction(10, 100), Fraction(25, 100)]
    assert np.abs(frames[2].pixels.astype(int) - pictures[2]).max() <= 8


def test_animated_webp_delays_are_timestamps(tmp_path):
    pictures = [moving_square(index) for index in range(3)]
    stills = [Image.fromarray(picture) for picture in pictures]
    path = tmp_path / "a.webp"
    stills[0].save(path, save_all=True, append_images=stills[1:], duration=[40, 100, 200], lossless=True)
    frames = list(Reader(path))
    assert [frame.time for frame in frames] == [0, Fraction(1, 25), Fraction(7, 50)]
    assert frames[2].duration == Fraction(1, 5)
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.pixels, picture)


def test_a_picture_is_a_clip_of_one_frame(tmp_path):
    Image.fromarray(gradient(20, 10)).save(tmp_path / "a.png")
    (frame,) = Reader(tmp_path / "a.png")
    np.testing.assert_array_equal(frame.pixels, gradient(20, 10))
    assert (frame.time, frame.duration) == (0, Fraction(1, 25))


def test_a_folder_is_read_in_counting_order(tmp_path):
    pictures = [solid(8, 6, (index, 0, 0)) for index in range(12)]
    folder = write_frames(tmp_path / "frames", pictures, "shot%d.png")
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_bytes(b"")
    frames = list(Reader(folder, fps=Fraction(24000, 1001)))
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == list(range(12))
    assert frames[3].time == 3 * Fraction(1001, 24000)


def test_a_pattern_takes_the_files_it_names_and_keeps_gaps(tmp_path):
    pictures = [solid(8, 6, (index, 0, 0)) for index in range(6)]
    folder = write_frames(tmp_path / "frames", pictures, "%05d.png", first=99998)
    (folder / "99999.png").unlink()
    (folder / "7.png").write_bytes(b"")
    reader = Reader(folder / "%05d.png", fps=Fraction(10))
    frames = list(reader)
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [0, 2, 3, 4, 5]
    assert [frame.time for frame in frames] == [Fraction(tick, 10) for tick in (0, 2, 3, 4, 5)]
    assert frames[0].duration == Fraction(1, 5)
    assert "1 number is missing" in reader.warnings[0]


def test_unreadable_frames_of_a_folder_are_left_out(tmp_path):
    folder = write_frames(tmp_path / "frames", [solid(8, 6, (index, 0, 0)) for index in range(4)])
    (folder / "00002.png").write_bytes(b"broken")
    reader = Reader(folder)
    assert [frame.time for frame in reader] == [0, Fraction(2, 25), Fraction(3, 25)]
    assert "00002.png" in reader.warnings[0]


def test_start_and_end_bound_the_frames(tmp_path):
    path = write_clip(tmp_path / "a.mp4", frames=100, options={"g": "12"})
    frames = list(Reader(path, start=Fraction(6, 5), end=Fraction(2)))
    assert [frame.time for frame in frames] == [Fraction(index, 25) for index in range(20)]
    assert [frame.index for frame in frames] == list(range(20))
    error = np.abs(frames[0].pixels.astype(int) - moving_square(30)).mean()
    assert error < 6


@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "mpeg4.avi", "mpeg1.mpg", "mpeg2.ts", "ffv1.mkv"])
def test_seeking_finds_the_exact_frame(tmp_path, name):
    path = write_variant(tmp_path, name, frames=100)
    frames = list(Reader(path, start=Fraction(2)))
    assert len(frames) == 50
    assert np.abs(frames[0].pixels.astype(int) - moving_square(50)).mean() < 6


def test_max_rate_skips_by_time(tmp_path):
    times = [Fraction(tick, 30) for tick in (0, 1, 2, 3, 9, 10, 11, 20, 21)]
    path = write_clip(tmp_path / "a.mp4", times=times)
    kept = [frame.time for frame in Reader(path, max_rate=Fraction(5))]
    assert kept == [Fraction(tick, 30) for tick in (0, 9, 20)]
    even = write_clip(tmp_path / "b.mp4", frames=50)
    assert [frame.time for frame in Reader(even, max_rate=Fraction(5))] == [Fraction(index, 5) for index in range(10)]


def test_one_frame(tmp_path):
    (frame,) = Reader(write_clip(tmp_path / "a.mp4", frames=1))
    assert (frame.time, frame.duration) == (0, Fraction(1, 25))


def test_a_reader_can_be_read_twice_and_closed_early(tmp_path):
    path = write_clip(tmp_path / "a.mp4", frames=30)
    with Reader(path) as reader:
        assert len(list(islice(reader, 3))) == 3
        frames = iter(reader)
        next(frames)
        assert len(list(reader)) == 30
    assert list(frames) == []


def test_close_from_another_thread_ends_the_iteration(tmp_path):
    path = write_clip(tmp_path / "a.mp4", frames=300)
    reader = Reader(path)
    seen = []
    third = threading.Event()
    closed = threading.Event()

    def consume():
        for frame in reader:
            seen.append(frame.index)
            if frame.index == 2:
                third.set()
                closed.wait()

    worker = threading.Thread(target=consume)
    worker.start()
    third.wait()
    reader.close()
    closed.set()
    worker.join(timeout=30)
    assert not worker.is_alive()
    assert seen == [0, 1, 2]


def test_frames_do_not_pile_up_in_memory(tmp_path):
    path = write_clip(tmp_path / "a.mp4", width=320, height=240, frames=200)
    tracemalloc.start()
    try:
        assert sum(1 for _ in Reader(path)) == 200
        assert tracemalloc.get_traced_memory()[1] < 20 * 320 * 240 * 3
    finally:
        tracemalloc.stop()


def test_frames_own_their_memory(tmp_path):
    frames = list(Reader(write_clip(tmp_path / "a.mp4")))
    frames[0].pixels[:] = 7
    assert not (frames[1].pixels == 7).all()


def test_times_that_make_no_sense_are_refused(tmp_path):
    path = write_clip(tmp_path / "a.mp4")
    for options in (
        {"start": Fraction(-1)},
        {"start": Fraction(1), "end": Fraction(1)},
        {"fps": Fraction(0)},
        {"max_rate": Fraction(-5)},
        {"box": Box(5, 5, 5, 9)},
    ):
        with pytest.raises(UsageError):
            Reader(path, **options)
    with pytest.raises(InputError, match="no readable frame in the requested part"):
        list(Reader(path, start=Fraction(60)))


@pytest.mark.parametrize(("codec", "quality"), [("libx264", {"crf": "18"}), ("mpeg4", {"b": "4000000"})])
def test_avi_with_frames_coded_out_of_order_keeps_order_and_times(tmp_path, codec, quality):
    path = write_clip(tmp_path / "a.avi", codec=codec, frames=60, options={"bf": "3", "g": "12", **quality})
    reader = Reader(path)
    assert [frame.time for frame in reader] == [Fraction(index, 25) for index in range(60)]
    assert reader.warnings == []
    later = list(Reader(path, start=Fraction(3, 2)))
    assert [frame.time for frame in later] == [Fraction(index, 25) + Fraction(1, 50) for index in range(22)]
    for index, frame in enumerate(later, start=38):
        near = range(index - 3, index + 4)
        assert min(near, key=lambda one: np.abs(frame.pixels.astype(int) - moving_square(one)).mean()) == index


def test_the_last_frame_ends_with_the_part_asked_for_but_lasts_a_nominal_step(tmp_path):
    path = write_clip(tmp_path / "v.mp4", times=[Fraction(0), Fraction(1, 10), Fraction(2)])
    frames = list(Reader(path, end=Fraction(1)))
    assert [frame.duration for frame in frames] == [Fraction(1, 10), Fraction(9, 10)]
    even = write_clip(tmp_path / "c.mp4", frames=20)
    assert {frame.duration for frame in Reader(even, end=Fraction(1, 2))} == {Fraction(1, 25)}


def test_a_name_that_is_too_long_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        Reader(tmp_path / ("a" * 300 + ".mp4"))
