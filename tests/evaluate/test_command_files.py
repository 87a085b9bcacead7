"""`fommctl evaluate --pred --truth`: finished results of all kinds compared with references."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from evaluation_data import square_clip, write_strip
from media_factory import write_frames
from PIL import Image
from written_media import spans, write

LENGTHS = {"ann#1": 6, "bob#2": 20}


def shifted(frames):
    """Return frames with every value 10 higher, so that all scores are known."""
    return [np.minimum(frame.astype(int) + 10, 255).astype(np.uint8) for frame in frames]


def expected_l1(frames):
    return np.mean([np.abs(a.astype(float) - b) for a, b in zip(frames, shifted(frames), strict=True)]) / 255


@pytest.fixture
def truth(tmp_path):
    """Two clips as folders of frames."""
    for number, (name, length) in enumerate(LENGTHS.items()):
        write_frames(tmp_path / f"truth/{name}.mp4", square_clip(length, number))
    return tmp_path / "truth"


@pytest.fixture
def evaluate(run_cli, tmp_path, truth):
    """evaluate(PRED, ...): compares with these clips, in this process, by l1.strict."""

    def run(prediction, *options):
        return run_cli(
            "evaluate", "--pred", prediction, "--truth", truth, "--metrics", "l1.strict", "-o", tmp_path / "out",
            "--workers", "0", "--no-videos", "--json", *options,
        )  # fmt: skip

    return run


def write_results(folder, kind, frames_of=shifted):
    for number, (name, length) in enumerate(LENGTHS.items()):
        frames = frames_of(square_clip(length, number))
        if kind == "frames":
            write_frames(folder / name, frames, "%07d.png")
        elif kind == "JPEG strips":
            write_strip(folder / f"{name}.mp4.jpg", frames, quality=100, subsampling=0)
        elif kind == "strips":
            write_strip(folder / f"{name}.mp4.png", frames)
        else:
            folder.mkdir(exist_ok=True)
            write(folder / f"{name}.reconstructed.mkv", spans(Fraction(25), length), frames)
    return folder


@pytest.mark.parametrize("kind", ["frames", "strips", "JPEG strips", "videos"])
def test_results_are_matched_by_name_and_scored(evaluate, tmp_path, kind):
    result = evaluate(write_results(tmp_path / "pred", kind))
    assert result.code == 0, result.stderr
    data = result.json()
    assert (data["mode"], data["model"], data["clips"], data["frames"]) == ("files", "pred", 2, 26)
    assert data["warnings"] == []
    wanted = np.mean([expected_l1(square_clip(length, number)) for number, length in enumerate(LENGTHS.values())])
    # JPEG changes values by a level or two, in both directions.
    tolerance = 1 / 255 if kind == "JPEG strips" else 1e-6
    assert data["metrics"]["l1.strict"]["mean"] == pytest.approx(wanted, abs=tolerance)


def test_a_column_of_a_grid_is_cut_out(evaluate, tmp_path):
    def grid(frames):
        black = [np.zeros_like(frame) for frame in frames]
        return [np.concatenate(row, axis=1) for row in zip(black, shifted(frames), black, strict=True)]

    result = evaluate(write_results(tmp_path / "pred", "videos", grid), "--column", "1")
    assert result.code == 0, result.stderr
    wanted = np.mean([expected_l1(square_clip(length, number)) for number, length in enumerate(LENGTHS.values())])
    assert result.json()["metrics"]["l1.strict"]["mean"] == pytest.approx(wanted, abs=1e-6)
    beyond = evaluate(tmp_path / "pred", "--column", "3")
    assert beyond.code == 3
    assert "3 columns of 64x64, so there is no column 3" in beyond.json()["error"]["message"]


def test_other_sizes_are_refused_or_resized(evaluate, tmp_path):
    def small(frames):
        return [np.asarray(Image.fromarray(frame).resize((32, 32))) for frame in frames]

    write_results(tmp_path / "pred", "frames", small)
    refused = evaluate(tmp_path / "pred")
    assert refused.code == 3
    assert "32x32 and the truth 64x64" in refused.json()["error"]["message"]
    assert evaluate(tmp_path / "pred", "--resize").code == 0


def test_what_is_on_one_side_only_is_named_and_common_frames_are_compared(evaluate, tmp_path):
    frames = square_clip(20, 1)
    write_frames(tmp_path / "pred/bob#2", shifted(frames)[:17])
    write_frames(tmp_path / "pred/eve#3", frames)
    result = evaluate(tmp_path / "pred")
    assert result.code == 0, result.stderr
    data = result.json()
    assert (data["clips"], data["frames"]) == (1, 17)
    assert data["metrics"]["l1.strict"]["mean"] == pytest.approx(expected_l1(frames[:17]), abs=1e-6)
    text = " | ".join(data["warnings"])
    for part in ("1 true clips have no prediction", "ann#1", "1 predictions have no true clip", "eve#3"):
        assert part in text
    assert "the truth has 3 more frames; the first 17 were compared" in text


def test_several_results_are_compared(run_cli, truth, tmp_path):
    one = write_results(tmp_path / "one", "strips")
    other = write_results(tmp_path / "other", "strips", lambda frames: shifted(shifted(frames)))
    result = run_cli(
        "evaluate", "--pred", other, "--pred", one, "--truth", truth, "--metrics", "l1.strict,psnr",
        "-o", tmp_path / "out", "--workers", "2", "--json",
    )  # fmt: skip
    assert result.code == 0, result.stderr
    data = result.json()
    assert data["ranking"] == {"l1.strict": ["one", "other"], "psnr": ["one", "other"]}
    # Paired: every clip is worse by about the same amount, so the interval is far from zero.
    low, high = next(each for each in data["differences"] if each["metric"] == "l1.strict")["ci95"]
    assert 0 < low <= high
    assert len(list((tmp_path / "out/videos").glob("*.webm"))) == 2


def test_what_a_killed_run_left_is_removed_and_the_folder_taken_for_its_own(evaluate, tmp_path):
    out = tmp_path / "out"
    for name in ("clips/pred/ann#1.npz", "predictions/m/ann#1", "videos/a.webm"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        # As named by a process that has ended.
        code = f"from pathlib import Path; from fommctl.files import temporary_path as t; print(t(Path({name!r})))"
        made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        (out / made).write_bytes(b"half")
    (out / "predictions/m/bob#2").mkdir()
    (out / ".fommctl-evaluation").write_bytes(b"")
    result = evaluate(write_results(tmp_path / "pred", "frames"))
    assert result.code == 0, result.stderr
    assert [path.name for path in out.rglob(".*")] == [".fommctl-evaluation"]
    assert (out / "predictions/m/bob#2").is_dir()


def test_a_result_that_is_broken_leaves_its_clip_out_of_all_means(run_cli, truth, tmp_path):
    one = write_results(tmp_path / "one", "frames")
    other = write_results(tmp_path / "other", "videos", lambda frames: shifted(shifted(frames)))
    (other / "bob#2.reconstructed.mkv").write_bytes(b"no video")
    result = run_cli(
        "evaluate", "--pred", one, "--pred", other, "--truth", truth, "--metrics", "l1.strict",
        "-o", tmp_path / "out", "--workers", "0", "--no-videos", "--json",
    )  # fmt: skip
    assert result.code == 6, result.stderr
    data = result.json()
    assert [each["clip"] for each in data["failed"]] == ["bob#2"]
    assert [data["models"][name]["metrics"]["l1.strict"]["frames"] for name in ("one", "other")] == [6, 6]
    assert data["metrics"]["l1.strict"]["mean"] == pytest.approx(expected_l1(square_clip(6)), abs=1e-6)
    assert "left out of all means, as some models failed: bob#2" in data["warnings"]


def test_single_files_need_no_names(run_cli, tmp_path):
    frames = square_clip(5)
    for name, pictures in (("result.mkv", shifted(frames)), ("original.mkv", frames)):
        write(tmp_path / name, spans(Fraction(25), 5), pictures)
    result = run_cli(
        "evaluate", "--pred", tmp_path / "result.mkv", "--truth", tmp_path / "original.mkv", "--metrics", "l1.strict",
        "-o", tmp_path / "out", "--workers", "0", "--no-videos", "--json",
    )  # fmt: skip
    assert result.code == 0, result.stderr
    assert result.json()["metrics"]["l1.strict"]["mean"] == pytest.approx(expected_l1(frames), abs=1e-6)


def test_names_that_do_not_meet_are_an_error(evaluate, tmp_path):
    write_strip(tmp_path / "pred/carl.png", square_clip(3))
    write_strip(tmp_path / "pred/dora.png", square_clip(3))
    result = evaluate(tmp_path / "pred")
    assert result.code == 3
    assert "no prediction has the name of a true clip" in result.json()["error"]["message"]
    assert not (tmp_path / "out").exists()
