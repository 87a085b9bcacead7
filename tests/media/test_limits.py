"""Numbers in files have limits, each reported in one message; legitimate values are below them."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import moving_square, write_clip
from PIL import Image

from fommctl.animate.motion import at_rate
from fommctl.api.readers import LONGEST_LINE, parse_json, read_table
from fommctl.errors import LONGEST_MESSAGE, InputError, UsageError
from fommctl.host import Host
from fommctl.media import stills
from fommctl.media.limits import MAX_PIXELS, MAX_SIDE, check_size
from fommctl.media.probe import probe
from fommctl.media.reader import Frame, Reader
from fommctl.media.sound import AudioSource
from fommctl.media.stills import LONGEST_PAUSE
from fommctl.media.writer import Writer
from fommctl.models.loading import MOST_VALUES, build_backend
from fommctl.presets.preset import load_preset


def frame(time: int, duration: int) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), 0, Fraction(time), Fraction(duration))


def test_a_frame_is_repeated_for_an_hour_and_no_longer() -> None:
    (timed,) = at_rate([frame(0, 3600)], Fraction(1))
    assert len(timed.presentations) == LONGEST_PAUSE
    with pytest.raises(InputError, match="one frame for 3601 s: its timestamps are wrong"):
        list(at_rate([frame(0, 3601)], Fraction(1)))
    (timed,) = at_rate([frame(0, 10**12)], Fraction(25), end=Fraction(2))
    assert len(timed.presentations) == 50


def test_a_gap_of_years_in_the_sound_is_not_filled(tmp_path: Path) -> None:
    import av

    source = write_clip(tmp_path / "whole.mkv", audio=("flac",), frames=25)
    late = tmp_path / "late.mkv"
    with av.open(str(source)) as given, av.open(str(late), "w") as made:
        track = made.add_stream_from_template(given.streams.audio[0])
        packets = [packet for packet in given.demux(audio=0) if packet.dts is not None]
        for number, packet in enumerate(packets):
            shift = 0 if number < len(packets) // 2 else round(10**8 / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, track
            made.mux(packet)
    with Writer(
        tmp_path / "out.webm", width=32, height=32, rate=Fraction(25), audio=AudioSource(late, 0, Fraction(0))
    ) as out:
        for time in (Fraction(0), Fraction(1, 25), Fraction(10**8) + 1):
            out.write(moving_square(0, 32, 32), time, Fraction(1, 25))
    assert "the sound stops early: its timestamps jump by more than an hour" in out.warnings
    assert (tmp_path / "out.webm").stat().st_size < 100_000


def test_pictures_of_the_largest_cameras_and_8k_video_are_below_the_limits() -> None:
    for width, height in ((14204, 10652), (16384, 12207), (7680, 4320), (8192, 8192)):
        check_size("a.png", width, height)
    for width, height in ((MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (MAX_SIDE, MAX_PIXELS // MAX_SIDE + 1)):
        with pytest.raises(InputError, match="too large") as caught:
            check_size("a.png", width, height)
        assert "16384 pixels a side and 200 megapixels" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["a.webp", "a.avif"])
def test_delays_are_those_of_the_decoded_animation(tmp_path: Path, name: str) -> None:
    pictures = [Image.fromarray(moving_square(index, 32, 32)) for index in range(4)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=[40, 70, 30, 90])
    decoded = [delay for _, _, delay in stills.animation(tmp_path / name)]
    assert stills.delays(tmp_path / name) == decoded == [40, 70, 30, 90]
    assert probe(tmp_path / name).duration == Fraction(230, 1000)


def test_a_delay_of_nothing_in_webp_is_a_tenth_of_a_second(tmp_path: Path) -> None:
    pictures = [Image.fromarray(moving_square(index, 32, 32)) for index in range(2)]
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=0, minimize_size=False)
    assert stills.delays(tmp_path / "a.webp") == [delay for _, _, delay in stills.animation(tmp_path / "a.webp")]


def test_a_picture_turned_by_exif_is_upright_in_both_ways_of_reading(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(moving_square(3, 40, 28)).save(tmp_path / "a.png", exif=exif)
    pixels, _ = stills.decode(tmp_path / "a.png")
    assert np.array_equal(pixels, np.rot90(moving_square(3, 40, 28), -1))
    (read,) = Reader(tmp_path / "a.png")
    assert np.array_equal(read.pixels, pixels)


def test_messages_have_an_end() -> None:
    error = InputError("x" * 10**6)
    assert len(error.message) == LONGEST_MESSAGE + 4
    assert str(error) == error.message
    assert InputError("short").message == "short"


@pytest.mark.parametrize(
    "text", ["[" * 10**5, "9" * 5_000, "NaN", "[Infinity]", "1e999", "{", "", b"\xff", '{"a": -1e400}']
)
def test_whatever_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_json_is_read_as_it_is() -> None:
    assert parse_json('{"a": [1, 2.5, null, "\\u00e9", 1e3]}') == {"a": [1, 2.5, None, "é", 1000.0]}
    assert parse_json("[Infinity]", finite=False) == [float("inf")]


def test_a_table_whose_line_does_not_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("file,identity\na,b\n" + "x" * (LONGEST_LINE + 1))
    with pytest.raises(InputError, match="line 3 is longer than 1,048,576 characters"):
        list(read_table(path, ("file",)))


@pytest.mark.parametrize("name", ["vox-adv-256", "monkeynet-vox", "x2face-vox"])
def test_the_largest_published_networks_are_far_below_the_limit(host: Host, name: str) -> None:
    preset = load_preset(name, host)
    networks = build_backend(host.find("backend", preset.backend), preset.model_params).modules().values()
    values = sum(tensor.numel() for network in networks for tensor in network.state_dict().values())
    assert 50_000_000 < values < MOST_VALUES / 3


def test_networks_of_terabytes_are_refused(host: Host) -> None:
    wide = [f"model_params.generator_params.{key}" for key in ("block_expansion=4096", "max_features=16384")]
    preset = load_preset("smoke", host, sets=wide)
    with pytest.raises(UsageError, match=f"fomm networks of more than {MOST_VALUES:,} values"):
        build_backend(host.find("backend", preset.backend), preset.model_params)
