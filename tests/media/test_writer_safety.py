"""Nothing is half-written or replaced by accident, and there is one clear error for what cannot be written."""

import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from itertools import count as forever
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from media_factory import moving_square, write_clip, write_frames, write_sound
from small_disk import files_up_to
from written_media import frames, spans, track, write

from fommctl.errors import OutputError, UsageError
from fommctl.media.sound import AudioSource
from fommctl.media.writer import Writer, check_output, holds_alpha, holds_audio

NAMES = ["out.mp4", "out.mov", "out.mkv", "out.webm", "out.gif", "%03d.png", "sub/%03d.png"]


def everything(folder: Path) -> list[str]:
    return sorted(str(entry.relative_to(folder)) for entry in folder.rglob("*"))


def error_of(path: Path, overwrite: bool = False, inputs: tuple[Path, ...] = (), **options: object) -> tuple[str, str]:
    with pytest.raises((OutputError, UsageError)) as caught:
        check_output(path, overwrite, inputs, **options)
    return type(caught.value).__name__, f"{caught.value.message} | {caught.value.hint}"


def write_until(path: Path, error: type[BaseException]) -> None:
    """Write fifty frames, then fail."""
    with Writer(path, width=64, height=48, rate=Fraction(25)) as writer:
        for index, (start, duration) in enumerate(spans(Fraction(25), 50)):
            writer.write(moving_square(index), start, duration)
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("name", NAMES)
def test_an_exception_leaves_nothing(tmp_path, name, error):
    with pytest.raises(error):
        write_until(tmp_path / name, error)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_no_frame_at_all_is_an_error_that_leaves_nothing(tmp_path, name):
    with pytest.raises(OutputError, match="no frame to write"):
        write(tmp_path / name, [], [moving_square(0)])
    assert everything(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_result_has_its_name_only_when_it_is_complete(tmp_path, name):
    with Writer(tmp_path / name, width=64, height=48, rate=Fraction(25)) as writer:
        writer.write(moving_square(0), Fraction(0), Fraction(1, 25))
        hidden = [part for part in everything(tmp_path) if part != "sub"]
        assert all(".fommctl-" in part for part in hidden)
        assert not any(".fommctl-" not in Path(part).parts[-1] for part in hidden if part.endswith(name))
    assert not any(".fommctl-" in part for part in everything(tmp_path))


def test_a_failed_run_keeps_the_old_result(tmp_path):
    write(tmp_path / "out.mp4", spans(Fraction(25), 5))
    before = (tmp_path / "out.mp4").read_bytes()
    wrong = [moving_square(0), np.zeros((2, 2, 3), np.uint8)]
    with pytest.raises(ValueError, match="frames are uint8"):
        write(tmp_path / "out.mp4", spans(Fraction(25), 2), wrong, overwrite=True)
    assert (tmp_path / "out.mp4").read_bytes() == before
    assert everything(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("limit", "count"), [(20_000, 60), (60_000, 2)], ids=["soon", "at-the-end"])
def test_a_full_disk_is_an_output_error_that_leaves_nothing(tmp_path, name, limit, count):
    noise = np.random.default_rng(0).integers(0, 256, (count, 240, 320, 3), np.uint8)
    with files_up_to(limit), pytest.raises(OutputError, match=re.escape(f"the disk is full: {tmp_path / name}")):
        write(tmp_path / name, spans(Fraction(25), count), list(noise))
    assert everything(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
@pytest.mark.parametrize("name", NAMES)
def test_ctrl_c_leaves_nothing(tmp_path, name):
    def write_for_ever():
        picture = np.zeros((48, 64, 3), np.uint8)
        with Writer(tmp_path / name, width=64, height=48, rate=Fraction(25)) as writer:
            for index in forever():
                writer.write(picture + np.uint8(index % 256), Fraction(index, 25), Fraction(1, 25))
                if index == 100:
                    Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        write_for_ever()
    assert everything(tmp_path) == []


def test_an_existing_result_is_kept_without_overwrite(tmp_path):
    write(tmp_path / "out.mp4", spans(Fraction(25), 1))
    expected = (
        "UsageError",
        f"the output already exists: {tmp_path / 'out.mp4'} | Use --overwrite, or another name with -o.",
    )
    assert error_of(tmp_path / "out.mp4") == expected
    with pytest.raises(UsageError, match="already exists"):
        write(tmp_path / "out.mp4", spans(Fraction(25), 1))
    write(tmp_path / "out.mp4", spans(Fraction(25), 3), overwrite=True)
    assert len(frames(tmp_path / "out.mp4")) == 3


def test_an_output_must_not_be_an_input_by_any_name(tmp_path):
    source = write_clip(tmp_path / "in.mp4", frames=2)
    (tmp_path / "link.mp4").symlink_to(source)
    (tmp_path / "hard.mp4").hardlink_to(source)
    for name in ("in.mp4", "link.mp4", "hard.mp4", "../" + tmp_path.name + "/in.mp4"):
        kind, text = error_of(tmp_path / name, True, (source,))
        assert (kind, text.split(":")[0]) == ("UsageError", "the output would replace an input")
    with pytest.raises(UsageError, match="would replace an input"):
        write(source, spans(Fraction(25), 1), overwrite=True, audio=AudioSource(source, 0, Fraction(0)))


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path):
    (tmp_path / "store").mkdir()
    write(tmp_path / "store/real.mp4", spans(Fraction(25), 1))
    (tmp_path / "latest.mp4").symlink_to(tmp_path / "store/real.mp4")
    write(tmp_path / "latest.mp4", spans(Fraction(25), 4), overwrite=True)
    assert (tmp_path / "latest.mp4").is_symlink()
    assert len(frames(tmp_path / "store/real.mp4")) == 4


def test_frames_do_not_go_into_a_folder_of_input_frames(tmp_path):
    folder = write_frames(tmp_path / "frames", [moving_square(0)] * 2)
    kind, text = error_of(folder / "out-%03d.png", True, (folder,))
    assert (kind, text.split(":")[0]) == ("UsageError", "the output would mix with the input frames")
    kind, text = error_of(folder / "%05d.png", True, (folder / "%05d.png",))
    assert (kind, text.split(":")[0]) == ("UsageError", "the output would mix with the input frames")
    kind, text = error_of(folder / "%05d.png", True, (folder / "00002.png",))
    assert (kind, text.split(":")[0]) == ("UsageError", "the output would replace an input")
    check_output(folder / "out-%03d.png", False, (folder / "%05d.png",))
    check_output(tmp_path / "other" / "%03d.png", False, (folder,))


def test_folders_that_are_missing_or_wrong(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "dir.mp4").mkdir()
    kind, text = error_of(tmp_path / "no/out.mp4")
    assert (kind, text) == (
        "OutputError",
        f"the output folder does not exist: {tmp_path / 'no'} | Create it first: mkdir -p '{tmp_path / 'no'}'.",
    )
    assert error_of(tmp_path / "no/no/%d.png")[0] == "OutputError"
    assert error_of(tmp_path / "file/out.mp4")[1].startswith("the output folder is not a folder")
    assert error_of(tmp_path / "file/%d.png")[1].startswith("the output folder is not a folder")
    assert error_of(tmp_path / "dir.mp4", True)[1].startswith("the output is a folder")


@pytest.mark.skipif(sys.platform == "win32", reason="needs permissions of POSIX")
def test_a_folder_that_is_not_writable():
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            kind, text = error_of(Path(name) / "out.mp4")
        finally:
            os.seteuid(user)
            os.chmod(name, 0o755)
    assert (kind, text.split(":")[0]) == ("OutputError", "the output folder is not writable")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("out.avi", "OutputError", "unknown output type '.avi'"),
        ("out", "OutputError", "'out' has no file type"),
        ("out.png", "OutputError", "one picture cannot hold a video"),
    ],
)
def test_unknown_types_name_the_known_ones(tmp_path, name, kind, message):
    found, text = error_of(tmp_path / name)
    assert found == kind
    assert text.startswith(message)
    assert "%05d.png" in text
    if name != "out.png":
        assert ".mp4, .mov, .mkv, .webm, .gif" in text


@pytest.mark.parametrize(
    ("name", "options", "kind", "text"),
    [
        ("o.mp4", {"codec": "vp9"}, "OutputError", ".mp4 cannot be written with codec 'vp9' | It takes libx264, "),
        ("o.webm", {"codec": "h264"}, "OutputError", ".webm cannot be written with codec 'h264' | It takes libvpx-vp9"),
        ("o.mp4", {"codec": "nonsense"}, "OutputError", ".mp4 cannot be written with codec 'nonsense' | It takes "),
        ("o.gif", {"codec": "h264"}, "OutputError", ".gif cannot be written with codec 'h264' | It takes gif."),
        ("o.mp4", {"crf": 52}, "UsageError", "crf 52 is out of range for codec 'libx264' | It takes 0 (best) to 51"),
        ("o.mp4", {"crf": -1}, "UsageError", "crf -1 is out of range for codec 'libx264' | It takes 0 (best) to 51"),
        ("o.mov", {"crf": 18}, "UsageError", "codec 'prores' has no constant quality (crf) | Leave --crf out."),
        ("o.mp4", {"pix_fmt": "rgba"}, "UsageError", "codec 'libx264' has no pixel format 'rgba' | It has yuv420p, "),
        ("%d.png", {"pix_fmt": "gray"}, "UsageError", "codec 'png' has no pixel format 'gray' | It has rgb24, rgba, "),
    ],
)
def test_choices_are_checked_before_any_work(tmp_path, name, options, kind, text):
    found, message = error_of(tmp_path / name, **options)
    assert found == kind
    assert message.startswith(text)


def test_which_outputs_hold_alpha_and_sound():
    names = ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.gif", "%d.png"]
    assert [holds_alpha(Path(name)) for name in names] == [False, True, True, True, False, True]
    assert [holds_audio(Path(name)) for name in names] == [True, True, True, True, False, False]
    assert not holds_alpha(Path("a.mov"), codec="h264")
    assert not holds_alpha(Path("a.mov"), pix_fmt="yuv422p10le")


def test_a_very_long_name(tmp_path):
    name = "n" * 251 + ".mp4"
    write(tmp_path / name, spans(Fraction(25), 1))
    assert everything(tmp_path) == [name]


def test_a_colon_in_a_name_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_sound(tmp_path / "sound.mp4").rename(tmp_path / "a:b.mp4")
    writer = write(Path("c:d.mp4"), spans(Fraction(25), 25), audio=AudioSource(Path("a:b.mp4"), 0, Fraction(0)))
    assert writer.warnings == []
    assert track(tmp_path / "c:d.mp4", "audio").codec == "aac"


def test_the_text_in_a_sound_file_need_not_be_utf8(tmp_path):
    source = write_sound(tmp_path / "sound.mkv")
    # The name of the muxer, which Matroska stores as text.
    source.write_bytes(source.read_bytes().replace(b"Lavf", b"L\xe9vf"))
    writer = write(tmp_path / "out.mp4", spans(Fraction(25), 25), audio=AudioSource(source, 0, Fraction(0)))
    assert writer.warnings == []
    assert track(tmp_path / "out.mp4", "audio").codec == "aac"


def test_a_percent_sign_before_a_d_makes_no_pattern_of_a_video(tmp_path):
    write(tmp_path / "100%done.mp4", spans(Fraction(25), 5))
    assert everything(tmp_path) == ["100%done.mp4"]
    assert len(frames(tmp_path / "100%done.mp4")) == 5


@pytest.mark.parametrize("name", ["o" * 252 + ".mp4", "o" * 250 + "%05d.png"])
def test_a_name_that_is_too_long(tmp_path, name):
    kind, text = error_of(tmp_path / name)
    assert kind == "OutputError"
    assert "too long" in text
    assert "the output already exists" not in error_of(tmp_path / name, inputs=(tmp_path / ("i" * 300),))[1]


def write_while(path: Path, meanwhile: Callable[[], object]) -> None:
    """Write one frame; do something before the result gets its final name."""
    with Writer(path, width=64, height=48, rate=Fraction(25)) as writer:
        writer.write(moving_square(0), Fraction(0), Fraction(1, 25))
        meanwhile()


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out.mkv"])
def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path, name):
    with pytest.raises(UsageError, match="written by another program in the meantime"):
        write_while(tmp_path / name, lambda: (tmp_path / name).write_text("theirs"))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "theirs"


def test_two_runs_on_one_output_do_not_both_succeed(tmp_path):
    path = tmp_path / "out.mkv"
    with pytest.raises(UsageError, match="written by another program"):
        write_while(path, lambda: write(path, spans(Fraction(25), 4)))
    assert len(frames(path)) == 4
    assert [each.name for each in tmp_path.iterdir()] == ["out.mkv"]


def test_outputs_whose_names_begin_alike_do_not_share_a_temporary_file(tmp_path):
    one, other = (tmp_path / f"{'long' * 12}-{number}.mkv" for number in (1, 2))
    write_while(one, lambda: write(other, spans(Fraction(25), 4)))
    assert (len(frames(one)), len(frames(other))) == (1, 4)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.gif", "%03d.png"])
def test_a_folder_that_is_moved_meanwhile_is_reported_and_left_clean(tmp_path, name):
    (tmp_path / "out").mkdir()
    pixels = np.zeros((16, 16, 3), np.uint8)

    def write():
        with Writer(tmp_path / "out" / name, width=16, height=16, rate=Fraction(25)) as writer:
            writer.write(pixels, Fraction(0), Fraction(1, 25))
            (tmp_path / "out").rename(tmp_path / "moved")
            writer.write(pixels, Fraction(1, 25), Fraction(1, 25))

    with pytest.raises(OutputError, match="its folder was moved or removed in the meantime"):
        write()
    assert everything(tmp_path) == ["moved"]
