"""Sound: copied bit for bit where possible, always in sync, and never longer than the video."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_factory import damage, moving_square, write_clip, write_sound
from written_media import Track, frames, spans, track, write

from fommctl.media.sound import AudioSource

RATE = Fraction(25)
CLICKS = [0.3, 0.9, 1.5, 2.1, 2.7]
"""Times of 10 ms bursts in the test signal, in seconds on the sound's own clock."""
MADE: dict[tuple[Any, ...], bytes] = {}
"""Cache of `clip_with_sound`."""

COPIED = [
    ("aac.mp4", "aac", "out.mp4"),
    ("aac.mp4", "aac", "out.mov"),
    ("aac.mp4", "aac", "out.mkv"),
    ("aac.mkv", "aac", "out.mp4"),
    ("mp3.mp4", "libmp3lame", "out.mp4"),
    ("mp3.mkv", "libmp3lame", "out.mov"),
    ("opus.webm", "libopus", "out.webm"),
    ("opus.mkv", "libopus", "out.mp4"),
    ("opus.mp4", "libopus", "out.webm"),
    ("opus.webm", "libopus", "out.mkv"),
    ("flac.mkv", "flac", "out.mkv"),
    ("pcm.mov", "pcm_s16le", "out.mov"),
    ("pcm.mov", "pcm_s16le", "out.mkv"),
    ("alac.mov", "alac", "out.mp4"),
    ("ac3.mkv", "ac3", "out.mp4"),
]
TRANSCODED = [
    ("aac.mp4", "aac", "out.webm", "opus"),
    ("pcm.mov", "pcm_s16le", "out.mp4", "aac"),
    ("flac.mkv", "flac", "out.mp4", "aac"),
    ("opus.webm", "libopus", "out.mov", "aac"),
    ("mp2.mkv", "mp2", "out.mov", "aac"),
    ("mp3.mkv", "libmp3lame", "out.webm", "opus"),
]


def clicking(instants: np.ndarray) -> np.ndarray:
    """Return a 1 kHz burst of 10 ms at each of CLICKS, over faint noise that keeps encoders awake."""
    signal = np.random.default_rng(0).normal(0, 30, len(instants))
    for click in CLICKS:
        inside = (instants >= click) & (instants < click + 0.01)
        signal[inside] += 20000 * np.sin(2 * np.pi * 1000 * (instants[inside] - click) + np.pi / 2)
    return signal.clip(-32768, 32767).astype(np.int16)


def clip_with_sound(
    path: Path,
    codec: str,
    *,
    layout: str = "stereo",
    rate: int | None = None,
    seconds: float = 3,
    audio_start: Fraction = Fraction(0),
    skip: tuple[float, float] | None = None,
) -> Path:
    """Write a video of 25 frames/s with sound that has clicks at CLICKS; `skip` leaves out the sound between two
    times."""
    kind = path.suffix, codec, layout, rate, seconds, audio_start, skip
    if kind not in MADE:
        _write_clip_with_sound(path, codec, layout, rate, seconds, audio_start, skip)
        MADE[kind] = path.read_bytes()
    path.write_bytes(MADE[kind])
    return path


def _write_clip_with_sound(
    path: Path,
    codec: str,
    layout: str,
    rate: int | None,
    seconds: float,
    audio_start: Fraction,
    skip: tuple[float, float] | None,
) -> None:
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264" if path.suffix != ".webm" else "libvpx-vp9", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = container.add_stream(codec, rate=rate or (48000 if codec == "libopus" else 44100), layout=layout)
        for index in range(int(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(moving_square(index), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        per_second, channels = sound.codec_context.sample_rate, len(av.AudioLayout(layout).channels)
        first = round(audio_start * per_second)
        for begin in range(first, int(seconds * per_second), 1024):
            instants = np.arange(begin, begin + 1024) / per_second
            if skip and skip[0] <= instants[0] < skip[1]:
                continue
            wave = np.repeat(clicking(instants)[None], channels, axis=0)
            frame = av.AudioFrame.from_ndarray(wave, "s16p", layout)
            frame.sample_rate, frame.pts, frame.time_base = per_second, begin, Fraction(1, per_second)
            if codec.startswith("pcm") or skip:
                frames_in = av.AudioResampler(sound.format, layout, per_second).resample(frame)
            else:
                frames_in = [frame]
            for part in frames_in:
                container.mux(sound.encode(part))
        container.mux(sound.encode(None))


def heard(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return times (n,) in seconds and samples (n,) of the first channel, as a player would play them."""
    instants, samples = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            values = av.AudioResampler("fltp", frame.layout, frame.sample_rate).resample(frame)[0].to_ndarray()[0]
            start = float(frame.pts * frame.time_base)
            instants.append(start + np.arange(len(values)) / frame.sample_rate)
            samples.append(values)
    return np.concatenate(instants), np.concatenate(samples)


def clicks(path: Path) -> list[float]:
    """Return when each burst begins, in seconds."""
    instants, samples = heard(path)
    loud = instants[np.abs(samples) > 0.2]
    return [float(loud[0]), *(float(later) for earlier, later in pairwise(loud) if later - earlier > 0.1)]


def with_sound(
    tmp_path: Path, name: str, source: Path, *, count: int = 75, origin: float = 0, end: Fraction | None = None
) -> Any:
    index = track_index(source)
    audio = AudioSource(source, index, Fraction(origin).limit_denominator(1000), end)
    return write(tmp_path / name, spans(RATE, count), audio=audio)


def track_index(path: Path) -> int:
    with av.open(str(path)) as container:
        return container.streams.audio[0].index


def ends(result: Track) -> Fraction:
    return result.times[-1] + result.durations[-1]


@pytest.mark.parametrize(("source", "encoder", "name"), COPIED)
def test_packets_are_copied_bit_for_bit_and_in_sync(tmp_path, source, encoder, name):
    given = clip_with_sound(tmp_path / source, encoder)
    writer = with_sound(tmp_path, name, given)
    before, after = track(given, "audio"), track(tmp_path / name, "audio")
    assert writer.audio_codec == after.codec == before.codec
    assert writer.warnings == []
    # Matroska has no negative times: the priming packet of AAC and MP3 is left out.
    offset = before.payloads.index(after.payloads[0])
    assert offset <= (1 if name.endswith("mkv") and after.codec in ("aac", "mp3") else 0)
    assert after.payloads == before.payloads[offset : offset + len(after.payloads)]
    assert ends(after) > Fraction(29, 10)
    np.testing.assert_allclose(clicks(tmp_path / name), CLICKS, atol=0.003)
    assert len(frames(tmp_path / name)) == 75


@pytest.mark.parametrize(("source", "encoder", "name", "codec"), TRANSCODED)
def test_other_sound_is_transcoded_in_sync(tmp_path, source, encoder, name, codec):
    given = clip_with_sound(tmp_path / source, encoder)
    writer = with_sound(tmp_path, name, given)
    assert writer.audio_codec == track(tmp_path / name, "audio").codec == codec
    np.testing.assert_allclose(clicks(tmp_path / name), CLICKS, atol=0.003)
    instants, _ = heard(tmp_path / name)
    assert instants[0] == pytest.approx(0, abs=0.01)
    assert instants[-1] == pytest.approx(3, abs=0.025)


@pytest.mark.parametrize("origin", [0.02, 0.8, 1.37])
@pytest.mark.parametrize(
    ("source", "encoder", "name"),
    [*COPIED[:1], *COPIED[2:3], *COPIED[6:9], *(row[:3] for row in TRANSCODED[:2])],
)
def test_a_later_start_keeps_the_sync(tmp_path, source, encoder, name, origin):
    given = clip_with_sound(tmp_path / source, encoder)
    with_sound(tmp_path, name, given, count=25, origin=origin)
    expected = [click - origin for click in CLICKS if 0.03 < click - origin < 0.98]
    found = [instant for instant in clicks(tmp_path / name) if 0.03 < instant < 0.98]
    np.testing.assert_allclose(found, expected, atol=0.004)
    assert track(tmp_path / name).times == [index / RATE for index in range(25)]


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm"])
@pytest.mark.parametrize("count", [10, 50])
def test_sound_stops_with_the_video(tmp_path, name, count):
    given = clip_with_sound(tmp_path / "aac.mp4", "aac")
    with_sound(tmp_path, name, given, count=count)
    end = count / RATE
    assert end - Fraction(1, 25) < ends(track(tmp_path / name, "audio")) <= end + Fraction(1, 25)
    with av.open(str(tmp_path / name)) as container:
        assert container.duration / 1e6 == pytest.approx(float(end), abs=0.025)


@pytest.mark.parametrize("name", ["out.mp4", "out.webm"])
def test_sound_stops_at_its_own_end(tmp_path, name):
    given = clip_with_sound(tmp_path / "aac.mp4", "aac")
    with_sound(tmp_path, name, given, count=60, origin=0.5, end=Fraction(3, 2))
    instants, _ = heard(tmp_path / name)
    assert instants[-1] == pytest.approx(1.0, abs=0.025)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm"])
def test_sound_that_begins_after_the_video_begins_later(tmp_path, name):
    given = clip_with_sound(tmp_path / "aac.mp4", "aac", audio_start=Fraction(3, 4))
    with_sound(tmp_path, name, given)
    np.testing.assert_allclose(clicks(tmp_path / name), CLICKS[1:], atol=0.004)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm"])
def test_sound_that_begins_before_the_video_loses_its_beginning(tmp_path, name):
    given = clip_with_sound(tmp_path / "aac.mkv", "aac")
    with_sound(tmp_path, name, given, count=40, origin=1.2)
    np.testing.assert_allclose(clicks(tmp_path / name), [0.3, 0.9, 1.5], atol=0.004)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm"])
def test_sync_holds_far_into_a_long_sound(tmp_path, name):
    given = write_sound(tmp_path / "long.m4a", seconds=Fraction(20))
    with_sound(tmp_path, name, given, count=25, origin=17.5)
    result = track(tmp_path / name, "audio")
    assert result.times[0] <= Fraction(1, 25)
    assert ends(result) == pytest.approx(1, abs=0.025)
    _, samples = heard(tmp_path / name)
    assert np.abs(samples).max() > 0.3


@pytest.mark.parametrize(("layout", "rate"), [("mono", 22050), ("stereo", 48000), ("5.1", 48000), ("mono", 8000)])
def test_rate_and_layout_are_kept_where_the_codec_has_them(tmp_path, layout, rate):
    given = clip_with_sound(tmp_path / "a.mkv", "flac", layout=layout, rate=rate)
    for name, expected in (("out.mp4", rate), ("out.webm", 48000)):
        with_sound(tmp_path, name, given)
        with av.open(str(tmp_path / name)) as container:
            context = container.streams.audio[0].codec_context
            assert (context.layout.nb_channels, context.sample_rate) == (len(av.AudioLayout(layout).channels), expected)
        np.testing.assert_allclose(clicks(tmp_path / name), CLICKS, atol=0.004)


def test_a_stream_that_the_container_refuses_is_transcoded(tmp_path):
    given = clip_with_sound(tmp_path / "low.mkv", "libmp3lame", rate=8000)
    writer = with_sound(tmp_path, "out.mp4", given)
    assert writer.audio_codec == track(tmp_path / "out.mp4", "audio").codec == "aac"
    np.testing.assert_allclose(clicks(tmp_path / "out.mp4"), CLICKS, atol=0.004)
    assert writer.warnings == []


def test_a_gap_in_the_sound_becomes_silence(tmp_path):
    given = clip_with_sound(tmp_path / "gap.mkv", "pcm_s16le", skip=(1.0, 2.0))
    with_sound(tmp_path, "out.mp4", given)
    np.testing.assert_allclose(clicks(tmp_path / "out.mp4"), [0.3, 0.9, 2.1, 2.7], atol=0.004)
    instants, samples = heard(tmp_path / "out.mp4")
    assert np.abs(samples[(instants > 1.1) & (instants < 1.9)]).max() < 0.001


def test_damaged_sound_costs_neither_frames_nor_sync(tmp_path):
    given = damage(clip_with_sound(tmp_path / "a.mkv", "flac"), 0.5, 0.6)
    writer = with_sound(tmp_path, "out.mp4", given)
    assert len(frames(tmp_path / "out.mp4")) == 75
    assert clicks(tmp_path / "out.mp4")[0] == pytest.approx(CLICKS[0], abs=0.004)
    assert all("sound" in warning for warning in writer.warnings)


def test_a_track_is_chosen_by_its_index_and_keeps_its_language(tmp_path):
    given = write_clip(tmp_path / "two.mp4", frames=25, audio=("aac", "aac"), languages=("eng", "deu"))
    write(tmp_path / "out.mp4", spans(RATE, 25), audio=AudioSource(given, 2, Fraction(0)))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].language == "deu"
    assert track(tmp_path / "out.mp4", "audio").payloads != track(given, "audio").payloads


@pytest.mark.parametrize("index", [0, 9])
def test_tracks_without_sound_are_left_out_with_a_warning(tmp_path, index):
    given = write_clip(tmp_path / "silent.mp4", frames=5)
    writer = write(tmp_path / "out.mp4", spans(RATE, 5), audio=AudioSource(given, index, Fraction(0)))
    assert writer.audio_codec is None
    assert len(writer.warnings) == 1
    assert writer.warnings[0].startswith("the sound is left out: ")
    assert len(frames(tmp_path / "out.mp4")) == 5


@pytest.mark.parametrize("name", ["out.gif", "%d.png"])
def test_gif_and_pictures_have_no_sound(tmp_path, name):
    given = write_sound(tmp_path / "a.m4a")
    writer = write(tmp_path / name, spans(RATE, 3), audio=AudioSource(given, 0, Fraction(0)))
    assert writer.audio_codec is None


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm"])
def test_sound_and_pictures_alternate_in_the_file(tmp_path, name):
    given = clip_with_sound(tmp_path / "aac.mp4", "aac")
    with_sound(tmp_path, name, given)
    last = {"video": Fraction(0), "audio": Fraction(0)}
    with av.open(str(tmp_path / name)) as container:
        packets = [packet for packet in container.demux() if packet.size]
        for packet in sorted(packets, key=lambda packet: packet.pos):
            last[packet.stream.type] = packet.pts * packet.time_base
            assert abs(last["video"] - last["audio"]) < 1


def test_pictures_from_two_seconds_on_keep_sound_in_place(tmp_path):
    given = clip_with_sound(tmp_path / "aac.mp4", "aac")
    timeline = [(Fraction(1) + time, duration) for time, duration in spans(RATE, 50)]
    write(tmp_path / "out.mp4", timeline, audio=AudioSource(given, 1, Fraction(0)))
    np.testing.assert_allclose(clicks(tmp_path / "out.mp4"), CLICKS, atol=0.003)
    assert track(tmp_path / "out.mp4").times[0] == 1


def many_channels(path: Path, layout: str, channels: int) -> Path:
    """Write a second of video with PCM sound: channel n has 200 + 100 n Hz, at a quarter of full scale."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = container.add_stream("pcm_s16le", rate=48000, layout=layout)
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(moving_square(index), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        instants = np.arange(48000) / 48000
        tones = [np.sin(2 * np.pi * (200 + 100 * number) * instants) * 8192 for number in range(channels)]
        samples = np.stack(tones, axis=1).astype(np.int16)
        for begin in range(0, 48000, 1000):
            block = np.ascontiguousarray(samples[begin : begin + 1000]).reshape(1, -1)
            part = av.AudioFrame.from_ndarray(block, "s16", layout)
            part.sample_rate, part.pts, part.time_base = 48000, begin, Fraction(1, 48000)
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
    return path


def relabelled(path: Path) -> Path:
    """Relabel the eight channels of the QuickTime file as L R C LFE Ls Rs Rls Rrs, as in cameras and editors: libav
    then lists them in another order."""
    data = bytearray(path.read_bytes())
    at = data.find(b"chan") + 8
    data[at : at + 8] = ((128 << 16) | 8).to_bytes(4, "big") + bytes(4)
    path.write_bytes(bytes(data))
    return path


def tones(path: Path) -> list[dict[int, float]]:
    """Return the tones of `many_channels` in each channel and their levels relative to the source."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        channels = stream.codec_context.layout.nb_channels
        graph = av.filter.Graph()
        parts = []
        for frame in container.decode(stream):
            if not parts:
                kind = {"sample_fmt": frame.format.name, "channel_layout": frame.layout.name}
                source = graph.add("abuffer", sample_rate=str(frame.sample_rate), **kind)
                graph.link_nodes(source, graph.add("aformat", sample_fmts="flt"), graph.add("abuffersink")).configure()
            graph.push(frame)
            parts.append(graph.pull().to_ndarray().reshape(-1, channels))
    samples = np.concatenate(parts)[4800:43200]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))[:, None], axis=0)) * 4 / len(samples) / 0.25
    hertz = np.fft.rfftfreq(len(samples), 1 / 48000)
    levels = {200 + 100 * number: spectrum[np.argmin(abs(hertz - 200 - 100 * number))] for number in range(24)}
    return [
        {tone: float(level[index]) for tone, level in levels.items() if level[index] > 0.02}
        for index in range(channels)
    ]


@pytest.mark.parametrize("name", ["out.mp4", "out.webm"])
@pytest.mark.parametrize("labelled", [True, False])
def test_eight_channels_keep_their_places(tmp_path, name, labelled):
    given = many_channels(tmp_path / "eight.mov", "7.1", 8)
    writer = with_sound(tmp_path, name, relabelled(given) if labelled else given, count=25)
    heard_in = tones(tmp_path / name)
    # libav's own order is FL FR FC LFE BL BR SL SR; AAC keeps nothing above 120 Hz in the fourth.
    order = [200, 300, 400, 500, 800, 900, 600, 700] if labelled else [200, 300, 400, 500, 600, 700, 800, 900]
    for position, tone in enumerate(order):
        if (position, name) != (3, "out.mp4"):
            assert heard_in[position] == {tone: pytest.approx(1, abs=0.05)}
    assert writer.warnings == []


@pytest.mark.parametrize("name", ["out.mp4", "out.webm"])
@pytest.mark.parametrize("layout", ["16 channels", "hexadecagonal"])
def test_sixteen_channels_are_mixed_down_and_reported(tmp_path, name, layout):
    writer = with_sound(tmp_path, name, many_channels(tmp_path / "many.mov", layout, 16), count=25)
    left, right = tones(tmp_path / name)
    assert writer.warnings == [f"the sound was mixed down from {layout} to stereo"]
    expected = {200, 400, 600, 800} if layout == "16 channels" else {200, 400, 500, 700}
    assert expected <= set(left)
    # No side clips, and the level of each is given by the weights.
    assert sum(left.values()) == pytest.approx(1, abs=0.05)
    assert sum(right.values()) == pytest.approx(1, abs=0.05)


def test_eight_channels_are_copied_where_the_container_holds_them(tmp_path):
    given = relabelled(many_channels(tmp_path / "eight.mov", "7.1", 8))
    writer = with_sound(tmp_path, "out.mov", given, count=25)
    assert (writer.audio_codec, writer.warnings) == ("pcm_s16le", [])
    assert track(tmp_path / "out.mov", "audio").payloads == track(given, "audio").payloads
