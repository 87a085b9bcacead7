"""Motion files and ranges of frames equal the whole, bit for bit; the content of files, and files that are rejected."""

import json
import shutil
import struct
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import write_clip
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from shots import ASTRONAUT, HALF, face_clip, portrait
from written_media import frames as frames_of

import fommctl
from fommctl.animate import run as animate
from fommctl.animate.config import AnimateConfig, parse_frames
from fommctl.errors import InputError, ModelError, UsageError
from fommctl.media.probe import probe

pytestmark = pytest.mark.usefixtures("one_thread")
COUNT = 14


@pytest.fixture(scope="module")
def animator():
    return fommctl.load(device="cpu", precision="fp32", sets=[HALF])


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """`a.png`, `b.png` and a talking head with sound whose face is gone for a while."""
    folder = tmp_path_factory.mktemp("shots")
    portrait(folder / "a.png")
    Image.open(folder / "a.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "b.png")
    Image.open(ASTRONAUT).convert("RGB").save(folder / "wide.png")
    face_clip(folder / "talk.mp4", count=COUNT)
    face_clip(folder / "gone.mkv", count=50, missing=range(8, 40), rate=Fraction(25))
    return folder


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: np.asarray(Image.open(path)).tobytes() for path in sorted(folder.glob("*.png"))}


def decoded(path: Path) -> list[bytes]:
    return [frame.tobytes() for frame in frames_of(path)]


def test_a_motion_file_renders_what_the_video_renders(animator, shots, tmp_path):
    motion = tmp_path / "take1.anything"
    options = {"crop": "none", "driving_crop": "auto", "smooth": True}
    animator.animate(shots / "a.png", shots / "talk.mp4", tmp_path / "a.mkv", motion_out=motion, **options)
    animator.animate(shots / "b.png", shots / "talk.mp4", tmp_path / "b.mkv", **options)
    del options["driving_crop"]
    for name in "ab":
        again = animator.animate(shots / f"{name}.png", motion, tmp_path / f"{name}2.mkv", **options)
        assert again.audio is not None, "the sound of the video that the file names"
        assert (tmp_path / f"{name}2.mkv").read_bytes() == (tmp_path / f"{name}.mkv").read_bytes()
    assert decoded(tmp_path / "a.mkv") != decoded(tmp_path / "b.mkv")


CASES = {
    "smooth": ("talk.mp4", {"smooth": True}, "6-9"),
    "auto": ("talk.mp4", {"best_frame": "auto", "batch_size": 3}, "-5"),
    "numbered": ("talk.mp4", {"best_frame": "10"}, "2"),
    "held": ("gone.mkv", {"driving_crop": "auto", "smooth": True}, "30-45"),
    "rate": ("talk.mp4", {"fps": Fraction(12), "smooth": True}, "5-11"),
    "follows": ("talk.mp4", {"driving_crop": "follow", "crop": "auto", "paste_back": True}, "9-"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_range_is_bit_for_bit_that_of_the_whole(animator, shots, tmp_path, case):
    driving, options, frames = CASES[case]
    options = {"crop": "none", "motion_out": None, **options}
    source = shots / ("wide.png" if options["crop"] == "auto" else "a.png")
    motion = tmp_path / "take.motion"
    animator.animate(source, shots / driving, tmp_path / "whole/%03d.png", **{**options, "motion_out": motion})
    whole = pictures(tmp_path / "whole")
    animator.animate(source, shots / driving, tmp_path / "part/%03d.png", frames=frames, **options)
    part = pictures(tmp_path / "part")
    assert 0 < len(part) < len(whole)
    assert part == {name: whole[name] for name in part}
    if "fps" not in options:
        wanted = parse_frames(frames)
        assert [int(name[:3]) for name in part] == [int(name[:3]) for name in whole if int(name[:3]) in wanted]
    given = {name: value for name, value in options.items() if name != "driving_crop"}
    animator.animate(source, motion, tmp_path / "again/%03d.png", frames=frames, **given)
    assert pictures(tmp_path / "again") == part


def test_parts_side_by_side_are_the_whole(animator, shots, tmp_path):
    whole, motion = tmp_path / "whole/%03d.png", tmp_path / "take.motion"
    animator.animate(shots / "a.png", shots / "talk.mp4", whole, motion_out=motion, crop="none")
    for frames in ("9-", "1-4", "5-8"):
        animator.animate(shots / "a.png", motion, tmp_path / "parts/%03d.png", frames=frames, crop="none")
    assert pictures(tmp_path / "parts") == pictures(tmp_path / "whole")
    with pytest.raises(UsageError, match=r"frames already exist: .*004\.png"):
        animator.animate(shots / "a.png", motion, tmp_path / "parts/%03d.png", frames="4-5", crop="none")
    animator.animate(shots / "a.png", motion, tmp_path / "parts/%03d.png", frames="4-5", crop="none", overwrite=True)
    assert pictures(tmp_path / "parts") == pictures(tmp_path / "whole"), "--overwrite replaces these, others stay"


def test_three_steps_in_any_order_make_the_same_file(animator, shots, tmp_path):
    options = {"source": shots / "a.png", "driving": shots / "talk.mp4", "crop": "none", "smooth": True}
    animate.run(AnimateConfig(output=tmp_path / "whole.mkv", **options), animator)
    config = AnimateConfig(output=tmp_path / "parts.mkv", **options)
    plan, motion = animate.make_motion(config, animator)
    ranges = animate.divide(plan, motion, 3, batch_size=4)
    assert [str(each) for each in ranges] == ["1-4", "5-8", "9-14"]
    folder = tmp_path / "frames"
    folder.mkdir()
    parts = [animate.render_frames(plan, motion, animator, each, folder) for each in reversed(ranges)]
    assert len(list(folder.iterdir())) == COUNT
    result = animate.encode_frames(plan, motion, animator, parts)
    assert (tmp_path / "parts.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert result.frames == COUNT
    assert result.reference_s == 0


def test_a_range_has_its_own_sound_times_and_timecode(animator, shots, tmp_path):
    rate = Fraction(25)
    clip = write_clip(
        tmp_path / "drive.mov", width=64, height=64, frames=50, rate=rate, audio=("pcm_s16le",), timecode="01:00:00:10"
    )
    part = tmp_path / "part.mov"
    animator.animate(shots / "a.png", clip, part, frames="21-40", crop="none", codec="prores")
    info = probe(part)
    assert (info.frames, info.duration, info.origin) == (20, Fraction(20, 25), 0)
    assert info.timecode == "01:00:01:05"
    cut = tmp_path / "cut.mov"
    animator.animate(
        shots / "a.png", clip, cut, start=Fraction(20, 25), end=Fraction(40, 25), crop="none", codec="prores"
    )
    assert probe(cut).timecode == info.timecode
    assert sound(part) == sound(cut)


def sound(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return b"".join(frame.to_ndarray().tobytes() for frame in container.decode(audio=0))


def test_numbers_of_a_pattern_are_those_of_its_files(animator, shots, tmp_path):
    driving = tmp_path / "drive"
    driving.mkdir()
    rng = np.random.default_rng(0)
    for number in (*range(1001, 1007), *range(1009, 1012)):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(driving / f"{number}.png")
    options = {"crop": "none", "batch_size": 2}
    animator.animate(shots / "a.png", driving / "%04d.png", tmp_path / "whole/%04d.png", **options)
    whole = list(pictures(tmp_path / "whole").values())
    animator.animate(shots / "a.png", driving / "%04d.png", tmp_path / "part/%04d.png", frames="1005-1009", **options)
    # 1007 and 1008 are missing: the frame before is held.
    assert list(pictures(tmp_path / "part")) == [f"{number}.png" for number in range(1005, 1010)]
    assert list(pictures(tmp_path / "part").values()) == whole[4:9]
    assert whole[5] == whole[6] == whole[7] != whole[8]
    with pytest.raises(UsageError, match="--frames 2000- is beyond the end"):
        animator.animate(shots / "a.png", driving / "%04d.png", tmp_path / "none/%04d.png", frames="2000-", **options)


def test_an_edited_motion_moves_the_source_otherwise(animator, shots, tmp_path):
    path = tmp_path / "take.motion.safetensors"
    animator.animate(shots / "a.png", shots / "talk.mp4", tmp_path / "a.mkv", motion_out=path, crop="none")
    motion = fommctl.Motion.load(path)
    assert len(motion) == COUNT
    assert motion.numbers.tolist() == list(range(1, COUNT + 1))
    assert motion.keypoints.shape == (COUNT, motion.keypoints.shape[1], 2)
    assert motion.present.all()
    assert Fraction(int(motion.times[3]), motion.clock) == Fraction(3003, 30000)
    motion.keypoints[:] = motion.keypoints[:1]
    motion.jacobians[:] = motion.jacobians[:1]
    motion.save(tmp_path / "still.motion")
    animator.animate(shots / "a.png", tmp_path / "still.motion", tmp_path / "still.mkv", crop="none")
    still = decoded(tmp_path / "still.mkv")
    assert len(set(still)) == 1, "a motion that stands still shows one picture"
    motion.present[:] = False
    motion.save(tmp_path / "still.motion")
    skipped = animator.animate(
        shots / "a.png", tmp_path / "still.motion", tmp_path / "skip.mkv", crop="none", on_missing="skip"
    )
    assert skipped.frames == COUNT


def test_a_motion_of_another_family_or_shape_is_refused(animator, shots, tmp_path):
    path = tmp_path / "take.motion"
    animator.animate(shots / "a.png", shots / "talk.mp4", tmp_path / "a.mkv", motion_out=path, crop="none")
    motion = fommctl.Motion.load(path)
    replace(motion, family="monkeynet").save(path)
    with pytest.raises(ModelError, match=r"^the motion in take\.motion is that of a monkeynet model, not of a fomm"):
        animator.animate(shots / "a.png", path, tmp_path / "b.mkv", crop="none")
    replace(motion, parts={"keypoints": motion.keypoints}).save(path)
    with pytest.raises(ModelError, match=r"does not fit the model .*: its jacobians differ"):
        animator.animate(shots / "a.png", path, tmp_path / "b.mkv", crop="none")
    replace(motion, model="other").save(path)
    result = animator.animate(shots / "a.png", path, tmp_path / "b.mkv", crop="none")
    assert any("was made with the model other" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 1}, "--start cannot be used with a motion file"),
        ({"driving_crop": "follow"}, "--driving-crop cannot be used with a motion file"),
        ({"compare": True}, "--compare needs the driving video's frames"),
        ({"frames": "99-"}, "--frames 99- is beyond the end"),
        ({"frames": "9-2"}, "--frames cannot be '9-2'"),
        ({"frames": "-"}, "--frames cannot be '-'"),
        ({"best_frame": "99"}, "--best-frame 99 is beyond the end"),
    ],
)
def test_options_that_a_motion_file_does_not_take(animator, taken, shots, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        animator.animate(shots / "a.png", taken, tmp_path / "b.mkv", crop="none", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def taken(animator, shots, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taken")
    path = folder / "take.motion"
    animator.animate(
        shots / "a.png", shots / "talk.mp4", folder / "a.mkv", motion_out=path, crop="none", driving_crop="auto"
    )
    return path


def rewritten(path: Path, target: Path, tensors=None, header=None, metadata=None) -> Path:
    """Write a motion file with changes in some tensors, header fields or metadata."""
    with safe_open(path, framework="numpy") as file:
        texts = file.metadata()
    content = json.loads(texts["motion"])
    for name, value in (header or {}).items():
        part, names = content, name.split(".")
        for each in names[:-1]:
            part = part[int(each) if each.isdecimal() else each]
        part[names[-1]] = value
    arrays = {**load_file(path), **(tensors or {})}
    kept = {name: array for name, array in arrays.items() if array is not None}
    save_file(kept, target, {**texts, "motion": json.dumps(content), **(metadata or {})})
    return target


HOSTILE = {
    "no_keypoints": {"tensors": {"keypoints": None}},
    "more": {"tensors": {"code": np.zeros(3, np.float32)}},
    "lengths": {"tensors": {"times": np.arange(3)}},
    "kinds": {"tensors": {"keypoints": np.zeros((COUNT, 10, 2), np.float64)}},
    "infinite": {"tensors": {"keypoints": np.full((COUNT, 10, 2), np.inf, np.float32)}},
    "times": {"tensors": {"times": np.zeros(COUNT, np.int64)}},
    "durations": {"tensors": {"durations": np.zeros(COUNT, np.int64)}},
    "numbers": {"tensors": {"numbers": np.arange(COUNT)[::-1].copy()}},
    "empty": {"tensors": {name: np.zeros(0, np.int64) for name in ("times", "numbers", "durations")}},
    "clock": {"header": {"clock": 0}},
    "rate": {"header": {"driving.info.rate": "0"}},
    "huge_number": {"header": {"driving.info.rate": "1e999999999"}},
    "division": {"header": {"driving.info.duration": "1/0"}},
    "size": {"header": {"driving.info.width": 10**9}},
    "tags": {"header": {"driving.info.colour.primaries": 10**12}},
    "shots": {"header": {"driving.shots.0.start": "5"}},
    "box": {"header": {"driving.shots.0.box": [0, 0, 0, 0]}},
    "samples": {"header": {"driving.shots.0.samples": []}},
    "missing": {"header": {"driving": {}}},
    "version": {"metadata": {"format_version": "3"}},
    "no_json": {"metadata": {"motion": "{"}},
    "deep": {"metadata": {"motion": "[" * 100_000}},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_motion_file_is_one_clear_error(animator, taken, shots, tmp_path, case):
    path = rewritten(taken, tmp_path / "bad.motion", **HOSTILE[case])
    with pytest.raises(InputError, match=r"bad\.motion") as raised:
        animator.animate(shots / "a.png", path, tmp_path / "b.mkv", crop="none")
    assert "\n" not in raised.value.message
    assert raised.value.hint
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.motion"]


def test_damaged_motion_files(animator, taken, tmp_path):
    content = taken.read_bytes()
    header = struct.unpack("<Q", content[:8])[0]
    path = tmp_path / "bad.motion"
    for length in (4, 9, 8 + header, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"bad\.motion"):
            fommctl.Motion.load(path)
    path.write_bytes(struct.pack("<Q", 2**62) + content[8:])
    with pytest.raises(InputError, match="is not a motion file"):
        fommctl.Motion.load(path)
    with pytest.raises(InputError, match="is not a motion file"):
        fommctl.Motion.load(tmp_path / "gone.motion")


def test_the_sound_of_a_video_that_is_gone_or_another_is_left_out(animator, shots, taken, tmp_path):
    for name in ("gone.mp4", str(shots / "gone.mkv"), "/dev/zero"):
        path = rewritten(taken, tmp_path / "moved.motion", header={"driving.info.path": name})
        result = animator.animate(shots / "a.png", path, tmp_path / "b.mkv", crop="none", overwrite=True)
        assert result.audio is None
        assert any("the sound is left out" in warning for warning in result.warnings)
    with pytest.raises(InputError, match="--audio driving, but zero is not where it was"):
        animator.animate(shots / "a.png", path, tmp_path / "c.mkv", crop="none", audio="driving")


def test_motion_out_replaces_nothing(animator, shots, tmp_path):
    taken_name = tmp_path / "take.motion"
    taken_name.write_bytes(b"mine")
    with pytest.raises(UsageError, match="the motion file already exists"):
        animator.animate(shots / "a.png", shots / "talk.mp4", tmp_path / "a.mkv", motion_out=taken_name)
    with pytest.raises(UsageError, match="the motion file would replace"):
        animator.animate(
            shots / "a.png", shots / "talk.mp4", tmp_path / "a.mkv", motion_out=shots / "talk.mp4", overwrite=True
        )
    assert taken_name.read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["take.motion"]


@pytest.mark.parametrize(
    ("options", "opens"),
    [
        ({"crop": "none"}, 1),
        ({"crop": "none", "best_frame": "auto"}, 1),
        ({"crop": "none", "driving_crop": "auto"}, 2),
        ({"crop": "none", "driving_crop": "auto", "best_frame": "auto", "smooth": True}, 2),
    ],
)
def test_a_driving_video_is_opened_once_to_plan_and_once_to_render(
    animator, shots, tmp_path, monkeypatch, options, opens
):
    counted: Counter[str] = Counter()
    opened = av.open

    def spy(file, mode=None, **more):
        counted[str(file).removeprefix("file:")] += mode != "w"
        return opened(file, mode, **more)

    # A clip that another test has already searched would not be searched again.
    clip = Path(shutil.copy(shots / "talk.mp4", tmp_path))
    monkeypatch.setattr(av, "open", spy)
    animator.animate(shots / "a.png", clip, tmp_path / "a.mkv", audio="none", **options)
    assert counted[str(clip)] == opens
