"""`fommctl animate` on real files: frames, times, sound, framing, pasting back, output and messages."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from interlaced import FRAMES, interlaced
from media_factory import write_clip
from PIL import Image
from shots import ASTRONAUT, HALF, NTSC, carphone_frames, face_clip, portrait
from written_media import frames, track

import fommctl
from fommctl.cli.animate import summary
from fommctl.errors import InputError, UsageError
from fommctl.media.reader import Reader

WHOLE = ("--crop", "none", "--precision", "fp32")
QUICK = ("--set", HALF)
CROP_NONE = (*WHOLE, *QUICK)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared portrait and clips; read-only."""
    folder = tmp_path_factory.mktemp("shots")
    portrait(folder / "portrait.png")
    portrait(folder / "small.png", 128)
    face_clip(folder / "face.mp4")
    write_clip(folder / "plain.mp4", width=256, height=256, frames=9, rate=NTSC, audio=("aac",))
    return folder


@pytest.fixture(scope="module")
def animator():
    return fommctl.load(device="cpu", precision="fp32", sets=[HALF])


def comment(path):
    with av.open(str(path)) as container:
        return {**container.metadata, **container.streams.video[0].metadata}


def test_default_result(folder, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_cli("animate", ASTRONAUT, folder / "face.mp4", "--json")
    assert result.code == 0, result.stderr
    data, path = result.json(), tmp_path / "astronaut--face.mp4"
    assert data["output"] == path.name
    assert {key: data[key] for key in ("frames", "fps", "width", "height", "audio")} == {
        "frames": 12, "fps": "30000/1001", "width": 512, "height": 512, "audio": "aac",
    }  # fmt: skip
    assert data["model"] == "faces-mini"
    assert data["duration_s"] == pytest.approx(12 * 1001 / 30000, abs=1e-5)
    video, driving = track(path), track(folder / "face.mp4")
    assert video.times == driving.times == [index / NTSC for index in range(12)]
    assert video.codec == "h264"
    sound, original = track(path, "audio"), track(folder / "face.mp4", "audio")
    assert sound.payloads == original.payloads[: len(sound.payloads)]  # bit for bit
    assert len(sound.payloads) >= len(original.payloads) - 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name]
    text = comment(path)["comment"]
    assert "Synthetic" in text
    assert fommctl.__version__ in text
    assert "faces-mini" in text


def test_outside_of_the_square_the_source_is_untouched_and_inside_it_moves(folder, run_cli, tmp_path):
    out = tmp_path / "%02d.png"
    result = run_cli("animate", ASTRONAUT, folder / "face.mp4", "-o", out, "--json")
    assert result.code == 0, result.stderr
    source = np.asarray(Image.open(ASTRONAUT).convert("RGB")).astype(int)
    written = [np.asarray(Image.open(path)).astype(int) for path in sorted(tmp_path.glob("*.png"))]
    assert len(written) == 12
    changed = np.any([np.abs(frame - source).max(2) > 0 for frame in written], axis=0)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    assert 130 < side < 300  # a face of 100 pixels, framed at 0.52
    assert columns[0] < 190
    assert columns[-1] > 260
    assert np.abs(written[-1] - source)[60:180, 170:280].max() > 10
    # The first driving frame is the reference: the model repaints the source, close to the original.
    assert np.abs(written[0] - source)[changed].mean() < 8


def test_relative_motion_of_the_first_driving_frame_is_the_source_itself(folder, animator):
    still = np.asarray(Image.open(folder / "portrait.png"))
    driving = frames(folder / "plain.mp4")
    first = next(animator.frames(still, iter(driving), adapt_scale=False))
    itself = next(animator.frames(still, [still], motion="absolute"))
    assert np.abs(first.astype(int) - itself).max() <= 1


@pytest.mark.parametrize(
    ("picture", "complaint"),
    [
        (np.zeros((64, 64, 3)), "a driving frame has the shape (64, 64, 3) and the type float64"),
        (np.zeros((64, 64), np.uint8), "a driving frame has the shape (64, 64) and the type uint8"),
        (np.zeros((64, 64, 4), np.uint8), "a driving frame has the shape (64, 64, 4) and the type uint8"),
        ("d.mp4", "a driving frame is not an array but str"),
    ],
)
def test_the_api_refuses_invalid_pictures(folder, animator, picture, complaint):
    with pytest.raises(InputError) as caught:
        next(animator.frames(folder / "portrait.png", [picture]))
    assert caught.value.message == complaint


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"size": 96.5}, "--size cannot be 96.5"),
        ({"crop": (0, 0, 100)}, "--crop cannot be a list"),
        ({"end": "soon"}, "a time of 'soon' cannot be read"),
        ({"cropp": "none"}, "animate has no option 'cropp' (did you mean 'crop'?)"),
    ],
)
def test_the_api_refuses_wrong_options(folder, animator, tmp_path, options, complaint):
    with pytest.raises(UsageError) as caught:
        animator.animate(folder / "portrait.png", folder / "plain.mp4", tmp_path / "out.mp4", **options)
    assert caught.value.message == complaint
    assert caught.value.hint


def test_the_api_reads_options_as_the_command_does(folder, animator, tmp_path):
    result = animator.animate(
        folder / "portrait.png",
        folder / "plain.mp4",
        tmp_path / "out.mp4",
        crop="none",
        start="0:00",
        end=0.2,
        fps=29.97,
        batch_size="auto",
    )
    assert (result.fps, result.frames) == (Fraction(30000, 1001), 6)


@pytest.mark.parametrize("seed", [-1, 2**63, "7"])
def test_a_seed_out_of_range(seed):
    with pytest.raises(UsageError, match="invalid seed"):
        fommctl.load(seed=seed)


def test_files_and_frames_of_the_api_are_the_same_pixels(folder, tmp_path):
    animator = fommctl.load(device="cpu", precision="fp32")
    result = animator.animate(
        folder / "portrait.png", folder / "plain.mp4", tmp_path / "out.mkv", crop="none", batch_size=2
    )
    assert result.frames == 9
    assert result.audio == "aac"  # Matroska supports it unchanged
    with Reader(folder / "plain.mp4") as reader:
        pictures = (frame.pixels for frame in reader)
        streamed = list(animator.frames(folder / "portrait.png", pictures, batch_size=4, fps=float(result.fps)))
    written = frames(tmp_path / "out.mkv")
    assert len(written) == len(streamed) == 9
    for one, other in zip(written, streamed, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1  # batches of other sizes are summed in another order


def test_variable_rate_times_are_kept(folder, run_cli, tmp_path):
    times = [Fraction(part, 90000) for part in (0, 3000, 9000, 10001, 20000, 26011)]
    clip = write_clip(tmp_path / "vfr.mkv", width=64, height=64, times=times, codec="ffv1", pix_fmt="bgr0")
    result = run_cli("animate", folder / "portrait.png", clip, "-o", tmp_path / "out.mp4", *CROP_NONE, "--json")
    assert result.code == 0, result.stderr
    assert track(tmp_path / "out.mp4").times == track(clip).times  # Matroska has milliseconds; these are exact


def test_trimming_keeps_sound_and_picture_together(folder, run_cli, tmp_path):
    clip = write_clip(tmp_path / "long.mp4", width=64, height=64, frames=50, audio=("aac",))
    result = run_cli(
        "animate", folder / "portrait.png", clip, "-o", tmp_path / "out.mov", *CROP_NONE, "--start", "0.4",
        "--end", "1.2", "--codec", "h264", "--json",
    )  # fmt: skip
    assert result.code == 0, result.stderr
    assert result.json()["frames"] == 20
    assert track(tmp_path / "out.mov").times == [Fraction(index, 25) for index in range(20)]
    sound = track(tmp_path / "out.mov", "audio")
    packet = Fraction(1024, 44100)
    assert -2 * packet <= sound.times[0] <= Fraction(1, 25)
    assert abs(sound.times[-1] + sound.durations[-1] - Fraction(8, 10)) <= Fraction(1, 25)
    payloads = track(clip, "audio").payloads
    start = payloads.index(sound.payloads[2])
    assert abs(start * packet - Fraction(4, 10) - 2 * packet) <= Fraction(1, 25) + packet


@pytest.mark.parametrize(("rate", "count"), [("12.5", 5), ("50", 18)])
def test_fps_drops_or_repeats_frames(folder, run_cli, tmp_path, rate, count):
    clip = write_clip(tmp_path / "clip.mkv", width=64, height=64, frames=9, codec="ffv1", pix_fmt="bgr0")
    result = run_cli(
        "animate", folder / "portrait.png", clip, "-o", tmp_path / "out.mkv", *CROP_NONE, "--fps", rate, "--json"
    )
    assert result.code == 0, result.stderr
    assert result.json()["frames"] == count
    assert result.json()["fps"] == ("25/2" if rate == "12.5" else "50/1")
    shown = frames(tmp_path / "out.mkv")
    if rate == "50":
        assert all(np.array_equal(shown[index], shown[index + 1]) for index in range(0, count, 2))


def test_a_folder_of_frames_plays_at_the_given_rate_and_at_25_else(folder, run_cli, tmp_path):
    (tmp_path / "driving").mkdir()
    for index, frame in enumerate(frames(folder / "plain.mp4")):
        Image.fromarray(frame).save(tmp_path / "driving" / f"{index:04d}.png")
    for rate, expected in ((None, Fraction(25)), ("24000/1001", Fraction(24000, 1001))):
        more = () if rate is None else ("--fps", rate)
        result = run_cli(
            "animate", folder / "portrait.png", tmp_path / "driving", "-o", tmp_path / "out.mp4", "--overwrite",
            *CROP_NONE, *more, "--json",
        )  # fmt: skip
        assert result.code == 0, result.stderr
        assert track(tmp_path / "out.mp4").times == [index / expected for index in range(9)]


@pytest.mark.slow
def test_a_missing_subject_is_held_skipped_or_refused(run_cli, tmp_path):
    clip = face_clip(tmp_path / "gap.mp4", count=24, missing=range(7, 19), audio=(), rate=Fraction(6))
    results = {}
    for mode in ("hold", "skip"):
        out = tmp_path / mode / "%03d.png"
        result = run_cli("animate", ASTRONAUT, clip, "-o", out, "--on-missing", mode, "--no-smooth", *QUICK, "--json")
        assert result.code == 0, result.stderr
        assert result.json()["frames"] == 24
        assert any("no subject" in warning for warning in result.json()["warnings"])
        results[mode] = [np.asarray(Image.open(path)).astype(int) for path in sorted(out.parent.iterdir())]
    source = np.asarray(Image.open(ASTRONAUT).convert("RGB")).astype(int)
    assert np.abs(results["hold"][12] - results["hold"][10]).max() == 0
    assert np.abs(results["hold"][12] - source).max() > 20
    assert np.array_equal(results["skip"][12], source)
    assert np.array_equal(results["hold"][22], results["skip"][22])
    refused = run_cli("animate", ASTRONAUT, clip, "-o", tmp_path / "out.mp4", "--on-missing", "fail", "--json")
    assert refused.code == 3
    assert "no subject in gap.mp4" in refused.json()["error"]["message"]
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.slow
def test_best_frame(folder, run_cli, tmp_path):
    def animate(*more):
        out = tmp_path / "out.mkv"
        result = run_cli(
            "animate", folder / "portrait.png", folder / "face.mp4", "-o", out, "--overwrite", "--crop", "none",
            "--driving-crop", "auto", "--precision", "fp32", "--no-smooth", *QUICK, "--json", *more,
        )  # fmt: skip
        return result, (frames(out) if result.code == 0 else [])

    first, shown = animate()
    assert first.json()["reference_s"] == 0
    numbered, moved = animate("--best-frame", "7")
    assert numbered.json()["reference_s"] == pytest.approx(7 / float(NTSC), abs=1e-5)
    # Relative to frame 7, frame 7 is the source at rest, like frame 0 relative to frame 0.
    assert np.abs(moved[7].astype(int) - shown[0]).mean() < 1.0
    automatic, _ = animate("--best-frame", "auto")
    assert 0 <= automatic.json()["reference_s"] < 0.4
    beyond, _ = animate("--best-frame", "12")
    assert beyond.code == 2
    assert beyond.json()["error"]["hint"] == "Frames are numbered 0 to 11."


def test_compare_and_keypoints(folder, run_cli, tmp_path):
    for flag, out in (("--compare", "compare.mkv"), ("--keypoints", "keypoints.mkv")):
        result = run_cli(
            "animate", folder / "small.png", folder / "plain.mp4", "-o", tmp_path / out, flag, *CROP_NONE, "--json"
        )
        assert result.code == 0, result.stderr
        assert (result.json()["width"], result.json()["height"]) == (384, 128)
    plain, marked = frames(tmp_path / "compare.mkv")[4], frames(tmp_path / "keypoints.mkv")[4]
    assert np.array_equal(plain[:, :128], np.asarray(Image.open(folder / "small.png")))
    for panel in range(3):
        part = slice(128 * panel, 128 * (panel + 1))
        assert np.abs(plain[:, part].astype(int) - marked[:, part]).max() > 100


def test_other_sizes(folder, run_cli, tmp_path):
    result = run_cli(
        "animate", folder / "portrait.png", folder / "plain.mp4", "-o", tmp_path / "out.mkv", *CROP_NONE, "--size",
        "256", "--json",
    )  # fmt: skip
    assert result.code == 0, result.stderr
    assert (result.json()["width"], result.json()["height"]) == (256, 256)
    assert any("trained at 128" in warning for warning in result.json()["warnings"])
    wrong = run_cli(
        "animate", folder / "portrait.png", folder / "plain.mp4", "-o", tmp_path / "no.mkv", *CROP_NONE, "--size", "200"
    )
    assert wrong.code == 2
    assert "200" in wrong.stderr
    assert not (tmp_path / "no.mkv").exists()


def test_a_square_by_hand(folder, run_cli, tmp_path):
    out = tmp_path / "%02d.png"
    result = run_cli(
        "animate", ASTRONAUT, folder / "plain.mp4", "-o", out, "--crop", "134,0,180", "--driving-crop", "none", "--json"
    )
    assert result.code == 0, result.stderr
    source = np.asarray(Image.open(ASTRONAUT).convert("RGB")).astype(int)
    last = np.asarray(Image.open(tmp_path / "08.png" if (tmp_path / "08.png").exists() else tmp_path / "09.png"))
    changed = np.abs(last.astype(int) - source).max(2) > 0
    assert not changed[180:].any()
    assert not changed[:, :134].any()
    assert not changed[:, 314:].any()
    assert changed[20:160, 150:300].mean() > 0.8


def test_alpha_of_the_source_is_kept_where_the_result_can_hold_it(folder, run_cli, tmp_path):
    picture = Image.open(ASTRONAUT).convert("RGBA")
    alpha = np.full((512, 512), 255, np.uint8)
    alpha[:, 400:] = 40
    picture.putalpha(Image.fromarray(alpha))
    picture.save(tmp_path / "cutout.png")
    animated = ("animate", tmp_path / "cutout.png", folder / "face.mp4", *QUICK)
    result = run_cli(*animated, "-o", tmp_path / "%02d.png", "--json")
    assert result.code == 0, result.stderr
    written = sorted(path for path in tmp_path.glob("*.png") if path.stem.isdecimal())
    assert len(written) == 12
    for path in written:
        assert np.array_equal(np.asarray(Image.open(path))[..., 3], alpha)
    flat = run_cli(*animated, "-o", tmp_path / "flat.mkv", "--no-paste-back")
    assert flat.code == 0
    assert frames(tmp_path / "flat.mkv")[0].shape == (128, 128, 3)


def test_sound_by_option(folder, run_cli, tmp_path):
    silent = run_cli(
        "animate", folder / "portrait.png", folder / "plain.mp4", "-o", tmp_path / "a.mp4", *CROP_NONE, "--audio",
        "none", "--json",
    )  # fmt: skip
    assert silent.json()["audio"] is None
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert not container.streams.audio
    gif = run_cli(
        "animate",
        folder / "portrait.png",
        folder / "plain.mp4",
        "-o",
        tmp_path / "a.gif",
        *CROP_NONE,
        "--audio",
        "driving",
    )
    assert gif.code == 2
    assert "cannot hold sound" in gif.stderr


def test_smoothing_changes_little_and_nothing_at_rest(folder, animator):
    driving = frames(folder / "plain.mp4")
    still = list(animator.frames(folder / "portrait.png", [driving[0]] * 4, smooth=True))
    rough = list(animator.frames(folder / "portrait.png", [driving[0]] * 4))
    assert all(np.array_equal(one, other) for one, other in zip(still, rough, strict=True))


def test_frames_are_taken_a_batch_at_a_time(folder, animator):
    taken = []

    def endless():
        picture = np.asarray(Image.open(folder / "portrait.png"))
        while True:
            taken.append(1)
            yield picture

    stream = animator.frames(folder / "portrait.png", endless(), batch_size=2)
    next(stream)
    assert len(taken) <= 4
    stream.close()


def test_plugins_see_the_run_and_change_its_frames(folder, run_cli, third_party, tmp_path):
    third_party(
        """
        import json
        from pathlib import Path

        from fommctl.api import hookimpl

        SEEN = Path(__file__).with_name("seen.jsonl")

        @hookimpl
        def fommctl_stage_started(event):
            SEEN.with_name("begun.txt").write_text(event.details["output"])

        @hookimpl
        def fommctl_stage_finished(event):
            SEEN.write_text(json.dumps([event.stage, dict(event.details)]))

        @hookimpl
        def fommctl_frame(event):
            return lambda frame, index: 255 - frame
        """,
        name="negative",
        entry="negative",
    )
    plain, changed = tmp_path / "plain.mkv", tmp_path / "changed.mkv"
    arguments = ("animate", folder / "portrait.png", folder / "plain.mp4", *CROP_NONE)
    assert run_cli(*arguments, "-o", changed).code == 0
    stage, details = json.loads(next(tmp_path.rglob("seen.jsonl")).read_text())
    assert stage == "animate"
    assert details["frames"] == 9
    assert next(tmp_path.rglob("begun.txt")).read_text() == details["output"] == str(changed)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as without:
        without.setenv("FOMMCTL_PLUGINS", "fomm,faces")
        assert run_cli(*arguments, "-o", plain).code == 0
    for one, other in zip(frames(plain), frames(changed), strict=True):
        assert np.array_equal(255 - one, other)


def test_a_model_of_unknown_subjects_crops_nothing_and_says_so(folder, run_cli, tmp_path):
    golden = Path(__file__).parents[1] / "golden" / "fomm" / "vox-tiny.pth.tar"
    result = run_cli(
        "animate",
        folder / "portrait.png",
        folder / "plain.mp4",
        "-o",
        tmp_path / "out.mkv",
        "--model",
        golden,
        "--json",
    )
    assert result.code == 0, result.stderr
    warnings = " ".join(result.json()["warnings"])
    assert "architecture was inferred from its tensors" in result.stderr
    assert "nothing is cropped" in warnings
    assert result.json()["width"] == result.json()["height"]


def test_bf16_frames_of_the_built_in_model_stay_within_40_db_of_fp32(folder, animator):
    faces = [np.asarray(Image.fromarray(frame[:, 32:320]).resize((256, 256))) for frame in carphone_frames(24)[::3]]
    exact = list(animator.frames(folder / "portrait.png", faces))
    rounded = list(fommctl.load(device="cpu", precision="bf16", sets=[HALF]).frames(folder / "portrait.png", faces))
    error = np.mean([(one.astype(float) - other) ** 2 for one, other in zip(exact, rounded, strict=True)])
    assert error > 0
    assert 10 * np.log10(255**2 / error) > 40


def test_the_pose_that_is_held_was_seen(run_cli, tmp_path):
    # The face leaves between two searched frames (0.8 and 1.0 s): frames 13 and 14 are black and must not be held.
    clip = face_clip(tmp_path / "gap.mp4", count=36, missing=range(13, 33), audio=(), rate=Fraction(15))
    result = run_cli("animate", ASTRONAUT, clip, "-o", tmp_path / "out" / "%02d.png", "--no-smooth", *QUICK, "--json")
    assert result.code == 0, result.stderr
    shown = [np.asarray(Image.open(path)).astype(int) for path in sorted((tmp_path / "out").glob("*.png"))]
    assert len(shown) == 36
    assert all(np.array_equal(shown[12], held) for held in shown[13:33])


@pytest.mark.parametrize(
    ("options", "expected"),
    [(("--start", "0.5"), "10:00:00:13"), (("--start", "0.41"), "10:00:00:11"), (("--fps", "50"), "10:00:00:00"),
     (("--start", "0.5", "--fps", "50"), "10:00:00:26")],
)  # fmt: skip
def test_timecode_of_the_first_frame_that_is_used(folder, run_cli, tmp_path, options, expected):
    driving = write_clip(
        tmp_path / "tc.mov", codec="prores_ks", pix_fmt="yuv422p10le", width=64, height=64, frames=16,
        timecode="10:00:00:00",
    )  # fmt: skip
    out = tmp_path / "out.mov"
    result = run_cli("animate", folder / "portrait.png", driving, "-o", out, *CROP_NONE, *options, "--json")
    assert result.code == 0, result.stderr
    with av.open(str(out)) as container:
        assert container.streams.video[0].metadata["timecode"] == expected


def test_a_start_that_is_the_videos_own_timecode_names_the_option(folder, run_cli, tmp_path):
    driving = write_clip(tmp_path / "tc.mov", width=64, height=64, frames=4, timecode="10:00:00:00")
    words = ("animate", folder / "portrait.png", driving, "-o", tmp_path / "o.mp4", *CROP_NONE)
    result = run_cli(*words, "--start", "10:00:00:01")
    assert result.code == 3
    assert "which begin at 10:00:00:00, add --timecode." in result.stderr


@pytest.mark.parametrize(("name", "size"), [("out.mp4", (182, 242)), ("out.mov", (182, 241)), ("out.webm", (181, 241))])
def test_the_size_that_is_reported_is_that_of_the_file(folder, run_cli, tmp_path, name, size):
    Image.open(ASTRONAUT).convert("RGB").crop((150, 20, 331, 261)).save(tmp_path / "odd.png")
    out = tmp_path / name
    crops = ("--crop", "20,20,120", "--driving-crop", "none", "--end", "0.1")
    result = run_cli("animate", tmp_path / "odd.png", folder / "plain.mp4", "-o", out, *crops, "--json")
    assert result.code == 0, result.stderr
    assert (result.json()["width"], result.json()["height"]) == size
    assert frames(out)[0].shape[1::-1] == size


def test_a_driving_video_of_one_picture_and_a_swap_are_reported(folder, run_cli, tmp_path):
    swapped = run_cli("animate", folder / "plain.mp4", ASTRONAUT, "-o", tmp_path / "a.mp4", "--json", *CROP_NONE)
    assert swapped.json()["frames"] == 1
    named = (
        "the driving video astronaut.png is one picture: nothing moves; plain.mp4 is a film: is it the driving video?"
    )
    assert any(warning.startswith(named) for warning in swapped.json()["warnings"])
    assert f"warning: {named}" in swapped.stderr
    still = run_cli("animate", ASTRONAUT, ASTRONAUT, "-o", tmp_path / "b.mp4", "--json", *CROP_NONE)
    assert "the driving video astronaut.png is one picture: nothing moves" in still.json()["warnings"]


@pytest.mark.parametrize(("mode", "rate"), [("auto", 25), ("field", 50), ("off", 25)])
def test_interlaced_footage_drives_at_its_rate_or_twice_it(run_cli, tmp_path, mode, rate):
    clip, out = interlaced(tmp_path / "a.mts"), tmp_path / "out.mp4"
    result = run_cli("animate", ASTRONAUT, clip, "-o", out, "--deinterlace", mode, "--json", *CROP_NONE)
    assert result.code == 0, result.stderr
    assert (result.json()["fps"], result.json()["frames"]) == (f"{rate}/1", FRAMES * rate // 25)
    assert track(out).times == [Fraction(index, rate) for index in range(FRAMES * rate // 25)]


def test_sound_tracks_are_paired_chosen_and_reported(run_cli, tmp_path):
    clip = write_clip(tmp_path / "a.mov", frames=9, audio=["pcm_s16le"] * 3)
    for options, tracks in ((("--audio-track", "all"), [2, 1]), (("--audio-track", "3"), [1]), ((), [2])):
        out = tmp_path / f"{len(tracks)}{tracks[0]}.mov"
        result = run_cli("animate", ASTRONAUT, clip, "-o", out, *options, "--json", *CROP_NONE)
        assert (result.code, result.json()["audio"]) == (0, "pcm_s16le")
        with av.open(str(out)) as container:
            assert [stream.codec_context.layout.nb_channels for stream in container.streams.audio] == tracks
    assert "left out of the sound of a.mov: track 3 (see --audio-track)" in result.json()["warnings"]


def test_sound_that_must_be_there_and_cannot_be_decoded_is_an_error(run_cli, tmp_path):
    clip = write_clip(tmp_path / "a.mov", frames=9, audio=["pcm_s16le"])
    clip.write_bytes(clip.read_bytes().replace(b"sowt", b"apac"))
    wanted = ("animate", ASTRONAUT, clip, "-o", tmp_path / "out.mov", *CROP_NONE)
    assert run_cli(*wanted, "--audio", "driving").code == 3
    silent = run_cli(*wanted, "--json")
    assert (silent.code, silent.json()["audio"]) == (0, None)
    assert "the sound is left out: track 1 of a.mov cannot be decoded" in silent.json()["warnings"]


def test_a_picture_of_one_pixel_is_animated_as_what_it_is(folder, run_cli, tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    result = run_cli(
        "animate", tmp_path / "dot.png", folder / "plain.mp4", "-o", tmp_path / "a.mkv", *CROP_NONE, "--json"
    )
    assert result.code == 0, result.stderr
    assert result.json()["frames"] == 9


def test_several_faces_the_largest_is_taken_and_the_number_is_reported(run_cli, tmp_path):
    face = Image.open(ASTRONAUT).convert("RGB")
    wide = Image.new("RGB", (900, 512), (120, 120, 120))
    wide.paste(face, (0, 0))
    wide.paste(face.crop((100, 0, 356, 256)).resize((205, 205)), (620, 40))
    wide.save(tmp_path / "two.png")
    clip = face_clip(tmp_path / "face.mp4", count=4, audio=())
    result = run_cli("animate", tmp_path / "two.png", clip, "-o", tmp_path / "%d.png", "--json")
    assert result.code == 0, result.stderr
    told = "2 subjects in two.png: the largest is taken, number 1 from the left (--face)"
    assert told in result.json()["warnings"]
    changed = np.asarray(Image.open(tmp_path / "4.png" if (tmp_path / "4.png").exists() else tmp_path / "3.png"))
    difference = np.abs(changed.astype(int) - np.asarray(wide)).max(2)
    assert difference[:, :450].any()
    assert not difference[:, 600:].any()


@pytest.mark.parametrize(("rate", "told", "shown"), [(0.003456, 0.003456, "289.4 s/frame"), (36.789, 36.79, "36.8 f")])
def test_slow_models_have_a_speed_too(animator, folder, tmp_path, rate, told, shown):
    made = animator.animate(folder / "face.mp4", folder / "plain.mp4", tmp_path / "a.mkv", crop="none", frames="1-1")
    slow = replace(made, model_rate=rate, end_to_end_rate=rate)
    assert slow.to_json()["frames_per_second"] == {"model": told, "end_to_end": told}
    assert shown in summary(slow).plain
    assert "\n1 frame, " in summary(slow).plain


def test_a_name_makes_no_line_of_its_own(animator, folder, tmp_path):
    made = animator.animate(
        folder / "face.mp4", folder / "plain.mp4", tmp_path / "a\nerror: b.mkv", crop="none", frames="1-1"
    )
    assert not any(line.startswith("error:") for line in summary(made).plain.splitlines())
