"""PNG patterns and GIF."""

import errno
import os
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import moving_square, solid
from PIL import Image
from written_media import frames, spans, uneven_spans, write

from fommctl.errors import OutputError, UsageError
from fommctl.media.marking import Mark
from fommctl.media.output_paths import is_pattern, number_of, numbered
from fommctl.media.writer import Writer, check_output

MARK = Mark("1.0", "faces-mini", "faces-mini")
RATE = Fraction(25)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(64, 48), (63, 47), (1, 1)])
def test_png_pictures_are_bit_exact_and_numbered_from_one(tmp_path, channels, size):
    noise = np.random.default_rng(0).integers(0, 256, (12, size[1], size[0], channels), np.uint8)
    writer = write(tmp_path / "frames/%05d.png", spans(RATE, 12), list(noise), alpha=channels == 4)
    assert (writer.frames_written, writer.audio_codec) == (12, None)
    assert names(tmp_path / "frames") == [f"{number:05d}.png" for number in range(1, 13)]
    for number, picture in enumerate(noise, start=1):
        with Image.open(tmp_path / "frames" / f"{number:05d}.png") as image:
            assert image.mode == ("RGB" if channels == 3 else "RGBA")
            np.testing.assert_array_equal(np.array(image), picture)


@pytest.mark.parametrize("pattern", ["%05d.png", "./%05d.png", "../below/%05d.png", "../%05d.png"])
def test_pictures_go_to_a_folder_named_in_any_way(tmp_path, monkeypatch, pattern):
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    for overwrite in (False, True):
        write(Path(pattern), spans(RATE, 2), [solid(4, 4, (9, 9, 9))] * 2, overwrite=overwrite)
    found = names(Path(pattern).parent)
    assert [name for name in found if name != "below"] == ["00001.png", "00002.png"]


def test_the_caller_may_use_its_array_again(tmp_path):
    picture = np.zeros((48, 64, 3), np.uint8)
    with Writer(tmp_path / "%d.png", width=64, height=48, rate=RATE) as writer:
        for index in range(30):
            picture[:] = index
            writer.write(picture, index / RATE, 1 / RATE)
    for number in range(1, 31):
        with Image.open(tmp_path / f"{number}.png") as image:
            assert np.array(image).mean() == number - 1


def test_pixel_format_rgb24_drops_alpha_onto_black(tmp_path):
    picture = np.dstack([solid(4, 4, (200, 100, 50)), np.full((4, 4), 51, np.uint8)])
    write(tmp_path / "%d.png", spans(RATE, 1), [picture], alpha=True, pix_fmt="rgb24")
    with Image.open(tmp_path / "1.png") as image:
        assert np.array(image)[0, 0].tolist() == [40, 20, 10]


def test_png_carries_the_comment_and_valid_checksums(tmp_path):
    text = "Synthetic video — fommctl"
    write(tmp_path / "%d.png", spans(RATE, 2), metadata={"comment": text})
    with Image.open(tmp_path / "2.png") as image:
        image.load()
        assert image.info["Comment"] == text
    data = (tmp_path / "2.png").read_bytes()
    position, kinds = 8, []
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        body = data[position + 4 : position + 8 + length]
        assert zlib.crc32(body) == struct.unpack(">I", data[position + 8 + length : position + 12 + length])[0]
        kinds.append(body[:4])
        position += 12 + length
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    assert {b"iTXt", b"sRGB"} <= set(kinds)


def test_existing_frames_are_kept_without_overwrite_and_stale_ones_go_with_it(tmp_path):
    pattern = tmp_path / "shot-%03d.png"
    write(pattern, spans(RATE, 5), mark=MARK)
    for other in ("shot-x.png", "shot-0001.png", "note.txt"):
        (tmp_path / other).write_text("mine")
    with pytest.raises(UsageError, match=r"frames already exist: .*shot-001\.png"):
        check_output(pattern, False)
    write(pattern, spans(RATE, 2), [solid(64, 48, (1, 2, 3))] * 2, overwrite=True)
    assert names(tmp_path) == ["note.txt", "shot-0001.png", "shot-001.png", "shot-002.png", "shot-x.png"]
    with Image.open(tmp_path / "shot-002.png") as image:
        assert np.array(image)[0, 0].tolist() == [1, 2, 3]


def test_pictures_that_are_not_ours_stay(tmp_path):
    """A photo whose name happens to be a number is not a frame of an older result."""
    write(tmp_path / "%d.png", spans(RATE, 4), mark=MARK)
    Image.fromarray(solid(4, 4, (9, 9, 9))).save(tmp_path / "2024.png")
    write(tmp_path / "%d.png", spans(RATE, 2), mark=MARK, overwrite=True)
    assert names(tmp_path) == ["1.png", "2.png", "2024.png"]


def write_while(pattern: Path, meanwhile: Callable[[], object]) -> None:
    """Write three pictures; do something before they get their final names."""
    with Writer(pattern, width=4, height=4, rate=RATE) as writer:
        for time, duration in spans(RATE, 3):
            writer.write(solid(4, 4, (1, 2, 3)), time, duration)
        meanwhile()


def test_frames_that_appear_meanwhile_are_not_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="written by another program in the meantime"):
        write_while(tmp_path / "out" / "%d.png", lambda: (tmp_path / "out" / "2.png").write_text("theirs"))
    assert names(tmp_path / "out") == ["2.png"]
    assert (tmp_path / "out" / "2.png").read_text() == "theirs"


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path):
    pattern = tmp_path / "out" / "%d.png"
    with pytest.raises(UsageError, match="written by another program"):
        write_while(pattern, lambda: write(pattern, spans(RATE, 2), [solid(4, 4, (7, 7, 7))] * 2))
    assert names(tmp_path / "out") == ["1.png", "2.png"]
    with Image.open(tmp_path / "out" / "1.png") as image:
        assert np.array(image)[0, 0].tolist() == [7, 7, 7]
    assert names(tmp_path) == ["out"]


def test_an_error_in_the_middle_of_the_exchange_puts_the_old_frames_back(tmp_path, monkeypatch):
    write(tmp_path / "%d.png", spans(RATE, 4), [solid(4, 4, (9, 9, 9))] * 4, mark=MARK)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real, calls = os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "no space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OutputError, match="the disk is full"):
        write(tmp_path / "%d.png", spans(RATE, 4), [solid(4, 4, (0, 0, 0))] * 4, mark=MARK, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_failed_run_keeps_the_old_frames(tmp_path):
    write(tmp_path / "%d.png", spans(RATE, 3), [solid(4, 4, (9, 9, 9))] * 3)
    with pytest.raises(ValueError, match="frames are uint8"):
        write(tmp_path / "%d.png", spans(RATE, 2), [solid(4, 4, (0, 0, 0)), solid(5, 4, (0, 0, 0))], overwrite=True)
    assert names(tmp_path) == ["1.png", "2.png", "3.png"]
    with Image.open(tmp_path / "1.png") as image:
        assert np.array(image)[0, 0].tolist() == [9, 9, 9]


@pytest.mark.parametrize(
    ("pattern", "number", "name"),
    [("%05d.png", 7, "00007.png"), ("a%d.png", 12, "a12.png"), ("100%%-%03d.png", 5, "100%-005.png")],
)
def test_patterns_name_and_recognise_their_pictures(pattern, number, name):
    path = Path("folder") / pattern
    assert is_pattern(path)
    assert numbered(path, number) == Path("folder") / name
    assert number_of(path, name) == number
    assert number_of(path, "x" + name) is None
    assert number_of(path, name.replace(".png", ".jpg")) is None


@pytest.mark.parametrize("name", ["frame.png", "%d-%d.png", "100%%d.png", "%s.png"])
def test_invalid_patterns(name):
    assert not is_pattern(Path(name))


def ramp(index: int) -> np.ndarray:
    """Return a smooth picture of many colours, shifted by a pixel per frame."""
    rows, columns = np.mgrid[0:96, 0:128]
    planes = (2 * columns + index, 2 * rows + 30, 255 - columns - rows)
    return np.stack(planes, axis=2).clip(0, 255).astype(np.uint8)


def test_gif_colours_are_near_on_average_and_each_frame_has_its_own(tmp_path):
    pictures = [ramp(0), solid(128, 96, (250, 10, 10)), solid(128, 96, (10, 20, 240)), ramp(60)]
    write(tmp_path / "a.gif", spans(RATE, 4), pictures)
    for given, got in zip(pictures, frames(tmp_path / "a.gif"), strict=True):
        blocks = (got.astype(float) - given).reshape(12, 8, 16, 8, 3).mean(axis=(1, 3))
        assert np.abs(blocks).mean() <= 1
        assert np.abs(got.astype(float) - given).mean() <= 5


@pytest.mark.parametrize(
    ("rate", "delays"),
    [
        (Fraction(25), [40] * 6),
        (Fraction(30), [30, 40, 30, 30, 40, 30]),
        (Fraction(10), [100] * 6),
        (Fraction(50), [20] * 6),
    ],
)
def test_gif_delays_add_up_to_the_times_given(tmp_path, rate, delays):
    write(tmp_path / "a.gif", spans(rate, 6), rate=rate)
    assert gif_delays(tmp_path / "a.gif") == delays


def test_gif_delays_of_a_variable_rate(tmp_path):
    timeline = uneven_spans(Fraction(1, 100), 8)
    write(tmp_path / "a.gif", timeline)
    assert gif_delays(tmp_path / "a.gif") == [int(duration * 1000) for _, duration in timeline]


def gif_delays(path: Path) -> list[int]:
    """Return the delay of each frame in milliseconds, read by Pillow."""
    delays = []
    with Image.open(path) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            delays.append(int(image.info["duration"]))
        assert image.info["loop"] == 0
    return delays


def test_a_gif_above_fifty_frames_a_second_is_warned_about(tmp_path):
    writer = write(tmp_path / "a.gif", spans(Fraction(60), 3), rate=Fraction(60))
    assert writer.warnings == ["GIF players slow down above 50 frames/s; this one has 60"]


def test_a_still_gif_of_equal_frames_keeps_them_all(tmp_path):
    write(tmp_path / "a.gif", spans(RATE, 7), [moving_square(0)] * 7)
    assert len(frames(tmp_path / "a.gif")) == 7
