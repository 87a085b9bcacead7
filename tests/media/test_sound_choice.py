"""The choice of sound tracks: pairs of mono tracks, languages, tracks that cannot be decoded."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import write_clip
from written_media import spans, write

from fommctl.errors import InputError, UsageError
from fommctl.media.probe import probe
from fommctl.media.sound import AudioSource, choose_tracks

RATE = Fraction(25)


def camera(path: Path, *audio: str, languages: tuple[str, ...] = ()) -> Path:
    """Write a second of video with mono tracks; track n has 220 n Hz."""
    return write_clip(path, frames=25, audio=audio, languages=languages)


def mute(path: Path, number: int) -> Path:
    """Give sound track `number` of the QuickTime file an unknown codec, as in those of new phones."""
    data = bytearray(path.read_bytes())
    at = -1
    for _ in range(number):
        at = data.find(b"sowt", at + 1)
    data[at : at + 4] = b"apac"
    path.write_bytes(bytes(data))
    return path


def chosen(path: Path, wanted: str = "auto", *, must: bool = False):
    sources, warnings = choose_tracks(probe(path), Fraction(0), wanted=wanted, must=must)
    return [(source.track, source.right) for source in sources], warnings


def pitches(path: Path) -> list[list[int]]:
    """Return the loudest pitch of each channel of each sound track, in multiples of 220 Hz."""
    found = []
    with av.open(str(path)) as container:
        for number in range(len(container.streams.audio)):
            container.seek(0)
            parts = []
            for frame in container.decode(audio=number):
                resampler = av.AudioResampler("flt", frame.layout.name, frame.sample_rate)
                parts += [each.to_ndarray() for each in resampler.resample(frame)]
                channels, rate = frame.layout.nb_channels, frame.sample_rate
            samples = np.concatenate([part.reshape(-1, channels) for part in parts])[2000:40000]
            spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))[:, None], axis=0))
            assert samples.std(axis=0).min() > 0.1
            found.append([round(np.argmax(each) * rate / len(samples) / 220) for each in spectrum.T])
    return found


def test_two_equal_mono_tracks_are_left_and_right(tmp_path):
    given = camera(tmp_path / "a.mov", "pcm_s16le", "pcm_s16le")
    assert chosen(given) == ([(1, 2)], [])


def test_four_are_two_pairs_and_the_second_is_reported(tmp_path):
    given = camera(tmp_path / "a.mov", *["pcm_s16le"] * 4)
    left = ["left out of the sound of a.mov: tracks 3 and 4 (see --audio-track)"]
    assert chosen(given) == ([(1, 2)], left)
    assert chosen(given, "all") == ([(1, 2), (3, 4)], [])
    assert chosen(given, "3") == ([(3, None)], [])


def test_languages_are_no_pair(tmp_path):
    given = camera(tmp_path / "a.mov", "aac", "aac", languages=("eng", "ger"))
    assert chosen(given) == ([(1, None)], ["left out of the sound of a.mov: track 2 (ger) (see --audio-track)"])
    assert chosen(given, "2") == ([(2, None)], [])
    assert chosen(given, "all") == ([(1, None), (2, None)], [])


def test_another_track_is_taken_where_the_default_cannot_be_decoded(tmp_path):
    given = mute(camera(tmp_path / "a.mov", "pcm_s16le", "aac"), 1)
    assert chosen(given) == ([(2, None)], ["track 1 of a.mov cannot be decoded"])


def test_none_that_can_be_decoded_is_silence_or_an_error(tmp_path):
    given = mute(camera(tmp_path / "a.mov", "pcm_s16le"), 1)
    assert chosen(given) == ([], ["the sound is left out: track 1 of a.mov cannot be decoded"])
    with pytest.raises(InputError, match=r"track 1 of a\.mov cannot be decoded"):
        chosen(given, must=True)
    with pytest.raises(InputError, match=r"track 1 of a\.mov cannot be decoded"):
        chosen(given, "1")


def test_numbers_are_checked(tmp_path):
    given = camera(tmp_path / "a.mov", "aac")
    with pytest.raises(UsageError, match="has 1 sound track, and no number 2"):
        chosen(given, "2")


@pytest.mark.parametrize(
    ("name", "codec"), [("out.mov", "pcm_s16le"), ("out.mp4", "aac"), ("out.webm", "opus"), ("out.mkv", "pcm_s16le")]
)
def test_a_pair_becomes_stereo(tmp_path, name, codec):
    given = camera(tmp_path / "a.mov", "pcm_s16le", "pcm_s16le")
    writer = write(tmp_path / name, spans(RATE, 25), audio=AudioSource(given, 1, Fraction(0), right=2))
    assert (writer.audio_codec, writer.warnings) == (codec, [])
    assert pitches(tmp_path / name) == [[1, 2]]


def test_a_pair_of_pcm_is_kept_bit_for_bit(tmp_path):
    given = camera(tmp_path / "a.mov", "pcm_s16le", "pcm_s16le")
    write(tmp_path / "out.mov", spans(RATE, 25), audio=AudioSource(given, 1, Fraction(0), right=2))
    with av.open(str(given)) as container:
        mono = [np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)[0]]
    with av.open(str(given)) as container:
        mono.append(np.concatenate([f.to_ndarray() for f in container.decode(audio=1)], axis=1)[0])
    with av.open(str(tmp_path / "out.mov")) as container:
        stereo = np.concatenate([f.to_ndarray().reshape(-1, 2) for f in container.decode(audio=0)])
    np.testing.assert_array_equal(stereo, np.stack(mono, axis=1)[: len(stereo)])
    assert len(stereo) >= 44100 - 1


@pytest.mark.parametrize("name", ["out.mov", "out.mp4", "out.mkv", "out.webm"])
def test_all_tracks_are_carried(tmp_path, name):
    given = camera(tmp_path / "a.mov", "pcm_s16le", "pcm_s16le", "aac")
    sources, _ = choose_tracks(probe(given), Fraction(0), wanted="all")
    write(tmp_path / name, spans(RATE, 25), audio=sources)
    assert pitches(tmp_path / name) == [[1, 2], [3]]
