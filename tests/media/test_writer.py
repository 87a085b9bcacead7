"""Files of moving pictures: timestamps, counts, lossless pixels, colours, tags."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import moving_square, solid
from written_media import centre_colour, frames, metadata, spans, tags, track, uneven_spans, write

from fommctl.media.colour import ColourTags

MOVIES = ["out.mp4", "out.mov", "out.mkv", "out.webm"]
RATES = [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25), Fraction(60), Fraction(15)]
TIMELINES = [
    *(pytest.param(rate, spans(rate, 24), id=str(rate).replace("/", "-")) for rate in RATES),
    pytest.param(Fraction(25), uneven_spans(Fraction(1, 90000), 24), id="uneven-90000"),
    pytest.param(Fraction(25), uneven_spans(Fraction(1, 1000), 24), id="uneven-1000"),
    pytest.param(Fraction(270000, 16897), uneven_spans(Fraction(1, 15360), 24), id="uneven-15360"),
    pytest.param(Fraction(2997, 100), spans(Fraction(2997, 100), 24), id="2997-100"),
]


@pytest.mark.parametrize(("rate", "timeline"), TIMELINES)
@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
def test_times_in_mp4_and_mov_are_those_given_exactly(tmp_path, name, rate, timeline):
    write(tmp_path / name, timeline, rate=rate)
    result = track(tmp_path / name)
    assert result.times == [time for time, _ in timeline]
    with av.open(str(tmp_path / name)) as container:
        decoded = [frame.pts * frame.time_base for frame in container.decode(video=0)]
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == timeline[-1][0] + timeline[-1][1]
    assert decoded == result.times


@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
@pytest.mark.parametrize("rate", RATES)
def test_every_frame_of_a_constant_rate_lasts_as_given(tmp_path, name, rate):
    write(tmp_path / name, spans(rate, 10), rate=rate)
    assert track(tmp_path / name).durations == [1 / rate] * 10
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].average_rate == rate


def test_uneven_frames_of_prores_last_as_given_to_the_last(tmp_path):
    timeline = uneven_spans(Fraction(1, 1000), 12)
    write(tmp_path / "out.mov", timeline)
    assert track(tmp_path / "out.mov").durations == [duration for _, duration in timeline]


@pytest.mark.parametrize(("rate", "timeline"), TIMELINES)
@pytest.mark.parametrize(
    ("name", "tick"),
    [("out.mkv", Fraction(1, 1000)), ("out.webm", Fraction(1, 1000)), ("out.gif", Fraction(1, 100))],
)
def test_times_on_a_coarse_clock_are_the_nearest_and_never_drift(tmp_path, name, tick, rate, timeline):
    write(tmp_path / name, timeline, rate=rate)
    times = track(tmp_path / name).times
    assert len(times) == len(timeline)
    assert max(abs(got - given) for got, (given, _) in zip(times, timeline, strict=True)) <= tick / 2
    assert all(earlier < later for earlier, later in pairwise(times))


@pytest.mark.parametrize("name", MOVIES)
@pytest.mark.parametrize("start", [Fraction(1, 25), Fraction(2)])
def test_a_start_after_zero_is_kept(tmp_path, name, start):
    write(tmp_path / name, [(start + time, duration) for time, duration in spans(Fraction(25), 10)])
    assert track(tmp_path / name).times[0] == start


def test_a_foreign_time_base_is_exact_when_named(tmp_path):
    unit = Fraction(1, 11025)
    timeline = uneven_spans(unit, 10)
    write(tmp_path / "out.mp4", timeline, time_base=unit)
    assert track(tmp_path / "out.mp4").times == [time for time, _ in timeline]


@pytest.mark.parametrize("name", [*MOVIES, "out.gif"])
@pytest.mark.parametrize("count", [1, 2, 60])
def test_the_frame_count_is_exact(tmp_path, name, count):
    writer = write(tmp_path / name, spans(Fraction(25), count))
    assert len(frames(tmp_path / name)) == writer.frames_written == count


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (1, 1), (2, 3)])
def test_ffv1_gives_back_every_bit(tmp_path, size):
    noise = np.random.default_rng(0).integers(0, 256, (6, size[1], size[0], 3), np.uint8)
    write(tmp_path / "out.mkv", spans(Fraction(25), 6), list(noise))
    np.testing.assert_array_equal(np.stack(frames(tmp_path / "out.mkv")), noise)
    assert track(tmp_path / "out.mkv").codec == "ffv1"


def test_ffv1_gives_back_every_bit_of_alpha(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 4), np.uint8)
    write(tmp_path / "out.mkv", spans(Fraction(25), 3), list(noise), alpha=True)
    np.testing.assert_array_equal(np.stack(frames(tmp_path / "out.mkv", "rgba")), noise)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("out.mp4", "h264", "yuv420p"),
        ("out.mov", "prores", "yuv422p10le"),
        ("out.mkv", "ffv1", "bgr0"),
        ("out.webm", "vp9", "yuv420p"),
        ("out.gif", "gif", "bgra"),
    ],
)
def test_each_container_has_its_codec_and_pixel_format(tmp_path, name, codec, pix_fmt):
    write(tmp_path / name, spans(Fraction(25), 2))
    with av.open(str(tmp_path / name)) as container:
        frame = next(container.decode(video=0))
        assert (track(tmp_path / name).codec, frame.format.name) == (codec, pix_fmt)


def test_mov_is_prores_422_hq_and_4444_with_alpha(tmp_path):
    picture = np.dstack([moving_square(0), np.full((48, 64), 96, np.uint8)])
    write(tmp_path / "hq.mov", spans(Fraction(25), 1))
    write(tmp_path / "4444.mov", spans(Fraction(25), 1), [picture], alpha=True)
    write(tmp_path / "444.mov", spans(Fraction(25), 1), pix_fmt="yuv444p10le")
    found = {}
    for name in ("hq", "4444", "444"):
        with av.open(str(tmp_path / f"{name}.mov")) as container:
            found[name] = (container.streams.video[0].codec_context.codec_tag, next(container.decode(video=0)))
    assert [found[name][0] for name in ("hq", "4444", "444")] == ["apch", "ap4h", "ap4h"]
    rgba = found["4444"][1].to_ndarray(format="rgba")
    assert np.abs(rgba[..., 3].astype(int) - 96).max() <= 1


def test_mp4_has_its_index_before_the_pictures(tmp_path):
    write(tmp_path / "out.mp4", spans(Fraction(25), 10))
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(("codec", "name"), [("hevc", "out.mp4"), ("av1", "out.mp4"), ("vp9", "out.mkv")])
def test_other_codecs_by_their_common_names(tmp_path, codec, name):
    pictures = [moving_square(index, 96, 64) for index in range(5)]
    write(tmp_path / name, spans(Fraction(25), 5), pictures, codec=codec)
    assert track(tmp_path / name).codec == codec
    assert len(frames(tmp_path / name)) == 5


def test_crf_and_pixel_format_reach_the_encoder(tmp_path):
    noise = list(np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), np.uint8))
    sizes = {}
    for crf in (0, 18, 40):
        write(tmp_path / f"{crf}.mp4", spans(Fraction(25), 5), noise, crf=crf)
        sizes[crf] = (tmp_path / f"{crf}.mp4").stat().st_size
    assert sizes[0] > 2 * sizes[18] > 4 * sizes[40]
    write(tmp_path / "deep.mp4", spans(Fraction(25), 2), pix_fmt="yuv422p10le")
    with av.open(str(tmp_path / "deep.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv422p10le"


def test_rgb_in_h264_is_lossless_at_crf_0(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)
    write(tmp_path / "out.mkv", spans(Fraction(25), 3), list(noise), codec="h264", pix_fmt="rgb24", crf=0)
    np.testing.assert_array_equal(np.stack(frames(tmp_path / "out.mkv")), noise)


def test_prores_pads_odd_widths_only(tmp_path):
    write(tmp_path / "out.mov", spans(Fraction(25), 3), [moving_square(index, 63, 47) for index in range(3)])
    assert frames(tmp_path / "out.mov")[0].shape == (47, 64, 3)


def test_odd_sizes_are_padded_by_the_border_in_mp4_and_reported(tmp_path):
    pictures = [moving_square(index, 63, 47) for index in range(3)]
    writer = write(tmp_path / "out.mp4", spans(Fraction(25), 3), pictures, crf=0)
    decoded = frames(tmp_path / "out.mp4")[0].astype(int)
    assert decoded.shape == (48, 64, 3)
    assert np.abs(decoded[:, 63] - decoded[:, 62]).max() <= 2
    assert np.abs(decoded[47] - decoded[46]).max() <= 2
    assert writer.warnings == ["libx264 holds even sizes only in yuv420p: 63x47 became 64x48, with the border repeated"]


@pytest.mark.parametrize("name", ["out.mkv", "out.webm", "out.gif"])
def test_odd_sizes_stay_elsewhere(tmp_path, name):
    writer = write(tmp_path / name, spans(Fraction(25), 3), [moving_square(index, 63, 47) for index in range(3)])
    assert frames(tmp_path / name)[0].shape == (47, 63, 3)
    assert writer.warnings == []


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 64, 200)]


@pytest.mark.parametrize("size", [(64, 48), (1280, 720)], ids=["sd", "hd"])
@pytest.mark.parametrize("name", [*MOVIES, "out.gif"])
def test_pure_colours_come_back_through_the_tags(tmp_path, name, size):
    for colour in COLOURS if size[0] == 64 else COLOURS[:3]:
        write(tmp_path / name, spans(Fraction(25), 1), [solid(*size, colour)], overwrite=True)
        assert np.abs(centre_colour(tmp_path / name) - colour).max() <= 3, colour


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("full", [False, True])
def test_the_matrix_and_range_of_the_source_are_used_and_tagged(tmp_path, matrix, full):
    source = ColourTags(primaries=1, transfer=1, matrix=matrix, range=2 if full else 1)
    for colour in COLOURS[:3]:
        write(tmp_path / "a.mp4", spans(Fraction(25), 1), [solid(64, 48, colour)], colour=source, overwrite=True)
        assert np.abs(centre_colour(tmp_path / "a.mp4") - colour).max() <= 3, colour
    assert tags(tmp_path / "a.mp4") == (1, 1, matrix, 2 if full else 1)


@pytest.mark.parametrize("name", MOVIES)
def test_untagged_sources_are_tagged_by_size(tmp_path, name):
    write(tmp_path / name, spans(Fraction(25), 1), [solid(64, 48, (9, 9, 9))])
    small = tags(tmp_path / name)
    write(tmp_path / name, spans(Fraction(25), 1), [solid(1280, 720, (9, 9, 9))], overwrite=True)
    large = tags(tmp_path / name)
    # FFV1 stores RGB; ProRes has one code for the curve that bt601 and bt709 share.
    expected = {"out.mkv": [(6, 6, 0, 2), (1, 1, 0, 2)], "out.mov": [(6, 1, 6, 1), (1, 1, 1, 1)]}
    assert [small, large] == expected.get(name, [(6, 6, 6, 1), (1, 1, 1, 1)])


def test_what_the_source_leaves_open_follows_its_matrix(tmp_path):
    write(tmp_path / "a.mp4", spans(Fraction(25), 1), colour=ColourTags(matrix=5))
    assert tags(tmp_path / "a.mp4") == (5, 6, 5, 1)


@pytest.mark.parametrize("source", [ColourTags(9, 16, 9, 1), ColourTags(9, 18, 9, 1), ColourTags(12, 13, 1, 1)])
def test_tags_of_hdr_and_wide_gamut_are_for_pixels_that_have_them(tmp_path, source):
    write(tmp_path / "a.mp4", spans(Fraction(25), 1), colour=source)
    assert tags(tmp_path / "a.mp4") == (source.primaries, source.transfer, source.matrix, source.range)


def test_prores_is_limited_even_from_a_full_range_source(tmp_path):
    write(tmp_path / "a.mov", spans(Fraction(25), 1), [solid(64, 48, (255, 0, 0))], colour=ColourTags(1, 1, 1, 2))
    assert tags(tmp_path / "a.mov") == (1, 1, 1, 1)
    assert np.abs(centre_colour(tmp_path / "a.mov") - (255, 0, 0)).max() <= 3


def test_alpha_is_laid_over_black_where_it_cannot_be_kept(tmp_path):
    picture = np.dstack([solid(64, 48, (200, 100, 50)), np.full((48, 64), 128, np.uint8)])
    write(tmp_path / "a.mp4", spans(Fraction(25), 1), [picture], alpha=True)
    assert np.abs(centre_colour(tmp_path / "a.mp4") - (100, 50, 25)).max() <= 3


@pytest.mark.parametrize("name", [*MOVIES, "out.gif"])
def test_the_comment_is_written_and_read_back(tmp_path, name):
    text = "Synthetic video — made by fommctl. " * 10
    write(tmp_path / name, spans(Fraction(25), 2), metadata={"comment": text})
    assert metadata(tmp_path / name)["comment"] == text


@pytest.mark.parametrize(
    ("rate", "timecode"),
    [(Fraction(25), "01:02:03:04"), (Fraction(24000, 1001), "10:00:00:23"), (Fraction(30000, 1001), "00:59:59;28")],
)
def test_a_timecode_is_carried_into_mov(tmp_path, rate, timecode):
    write(tmp_path / "out.mov", spans(rate, 3), rate=rate, timecode=timecode)
    with av.open(str(tmp_path / "out.mov")) as container:
        assert container.streams.video[0].metadata["timecode"] == timecode
        assert [stream.type for stream in container.streams] == ["video", "data"]


@pytest.mark.parametrize("timecode", ["00:00:00;00", "soon"])
def test_a_timecode_that_does_not_fit_is_left_out_and_reported(tmp_path, timecode):
    writer = write(tmp_path / "out.mov", spans(Fraction(25), 3), timecode=timecode)
    assert writer.warnings == [f"the timecode {timecode} does not fit 25 frames/s and is left out"]
    assert len(frames(tmp_path / "out.mov")) == 3


def test_frames_of_a_wrong_kind_are_refused(tmp_path):
    timeline = spans(Fraction(25), 1)
    for wrong in (np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.float32), np.zeros((48, 64, 2), np.uint8)):
        with pytest.raises(ValueError, match="frames are uint8"):
            write(tmp_path / "out.mp4", [*timeline, *timeline], [moving_square(0), wrong])
    assert list(tmp_path.iterdir()) == []


def test_a_path_as_text_and_a_name_in_upper_case(tmp_path: Path):
    write(str(tmp_path / "OUT.MP4"), spans(Fraction(25), 2))  # type: ignore[arg-type]
    assert track(tmp_path / "OUT.MP4").codec == "h264"


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("name", ["out.mp4", "out.mov"])
def test_the_last_frame_stays_where_another_one_is_coded_last(tmp_path, name, codec):
    hundredths = [(0, 4), (4, 10), (14, 10), (24, 1), (25, 50)]
    write(tmp_path / name, [(Fraction(time, 100), Fraction(stay, 100)) for time, stay in hundredths], codec=codec)
    with av.open(str(tmp_path / name)) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == Fraction(3, 4)
        assert container.duration == 750_000
