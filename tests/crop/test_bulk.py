"""`crop` for large amounts of footage: parts, lengths, rates and sizes of clips, grids of pictures, replaced clips."""

import errno
import json
import shlex
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from crop_shots import BLOBS, blob_clip
from interlaced import FRAMES, HEIGHT, WIDTH, interlaced
from PIL import Image
from written_media import track

from fommctl.crop.clips import ffmpeg_command, nominal_rate
from fommctl.crop.config import CropConfig
from fommctl.crop.search import Piece
from fommctl.media.boxes import Box
from fommctl.media.probe import probe
from fommctl.media.reader import Reader
from fommctl.media.writer import Writer

ONE = ("--workers", "1", "--json")


@pytest.fixture
def blobs(third_party):
    third_party(BLOBS, name="blob-plugin", entry="blobs")
    return ("--detector", "blobs", *ONE)


def clips(run_cli, *arguments):
    result = run_cli("crop", *arguments)
    assert result.code == 0, result.stderr
    return result.json()["clips"]


def grid(levels, *, side=100):
    """Return a draw function for panels side by side, each with a blob near its right border."""

    def draw(number):
        panels = []
        for level in levels:
            panel = np.full((side, side, 3), level, np.uint8)
            panel[30:70, 52:92] = (220, 30, 30)
            panels.append(panel)
        return np.concatenate(panels, axis=1)

    return draw


def test_squares_stay_in_their_panel_of_a_grid(run_cli, blobs, tmp_path):
    clip = blob_clip(tmp_path / "grid.mp4", draw=grid((60, 200, 90)), frames=30)
    found = clips(run_cli, clip, "-o", tmp_path / "out", *blobs)
    assert [(left // 100, right) for left, _, right, _ in (each["box"] for each in found)] == [
        (0, 100),
        (1, 200),
        (2, 300),
    ]
    # In a single room, a square may include the surroundings of its subject.
    room = blob_clip(tmp_path / "room.mp4", draw=grid((60, 60, 60)), frames=30)
    found = clips(run_cli, room, "-o", tmp_path / "out", *blobs)
    assert found[0]["box"][2] > 100


def test_a_square_that_fits_when_it_is_tighter_stays_in_the_picture(run_cli, blobs, tmp_path):
    def draw(number):
        picture = np.full((64, 160, 3), 90, np.uint8)
        picture[8:54, 60:106] = (220, 30, 30)
        return picture

    (found,) = clips(run_cli, blob_clip(tmp_path / "a.mp4", draw=draw, frames=30), "-o", tmp_path / "out", *blobs)
    left, top, right, bottom = found["box"]
    # 46 / 0.52 = 88 pixels, more than the 64 available.
    assert (top, bottom, right - left) == (0, 64, 64)
    assert left <= 60 < 106 <= right


def test_parts_lengths_and_rates(run_cli, blobs, tmp_path):
    clip, out = blob_clip(tmp_path / "a.mp4", frames=40), tmp_path / "out"
    (found,) = clips(run_cli, clip, "-o", out, "--start", "0.4", "--end", "1.2", "--min-duration", "0.1", *blobs)
    assert (found["start"], found["end"], found["frames"]) == (0.4, 1.2, 20)
    found = clips(run_cli, clip, "-o", out, "--max-duration", "0.6", "--min-duration", "0.1", *blobs)
    assert [(each["start"], each["frames"]) for each in found] == [(0.0, 15), (0.6, 15), (1.2, 10)]
    assert sum((Fraction(len(track(Path(each["output"])).times)) for each in found), Fraction(0)) == 40
    (found,) = clips(run_cli, clip, "-o", out, "--max-fps", "12.5", *blobs)
    assert (found["fps"], found["frames"]) == ("25/2", 20)
    # A rate that does not divide the source's, starting between its frames: the steps are even all the same.
    for rate, start, count in ((Fraction(25, 2), "0.2", 18), (Fraction(10), "0.28", 13)):
        (found,) = clips(run_cli, clip, "-o", tmp_path / f"at{start}", "--start", start, "--max-fps", rate, *blobs)
        times = track(Path(found["output"])).times
        assert (found["frames"], times) == (count, [number / rate for number in range(count)])
    # The two others, which an earlier run of fommctl wrote, are gone.
    assert [path.name for path in out.glob("*.mp4")] == ["a#track0.mp4"]


def test_interlaced_footage_is_made_whole(run_cli, blobs, tmp_path):
    def scene(field):
        picture = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
        left = 40 + 3 * abs(field % 8 - 4)
        picture[30:70, left : left + 40] = (220, 30, 30)
        return picture

    clip = interlaced(tmp_path / "a.mts", scene=scene)
    combs = {}
    for mode, count in (("auto", FRAMES), ("field", 2 * FRAMES), ("off", FRAMES)):
        out = tmp_path / mode
        (found,) = clips(run_cli, clip, "-o", out, "--deinterlace", mode, "--min-duration", "0.2", *blobs)
        with Reader(Path(found["output"])) as reader:
            pictures = [frame.pixels[..., 0].astype(int) for frame in reader]
        assert len(pictures) == count
        combs[mode] = np.abs(pictures[5][1:-1] - (pictures[5][:-2] + pictures[5][2:]) / 2).mean()
    assert combs["off"] > 1.5 * max(combs["auto"], combs["field"]), combs


def test_a_photo_of_a_telephone_becomes_a_picture(run_cli, blobs, tmp_path):
    picture = np.full((160, 200, 3), 60, np.uint8)
    picture[50:110, 60:120] = (220, 30, 30)
    pillow_heif.register_heif_opener()
    Image.fromarray(picture).save(tmp_path / "IMG_1.HEIC", "HEIF", quality=95)
    (found,) = clips(run_cli, tmp_path / "IMG_1.HEIC", "-o", tmp_path / "out", *blobs)
    assert (Path(found["output"]).suffix, found["fps"]) == (".png", None)
    with Image.open(found["output"]) as written:
        assert written.size[0] == written.size[1]


def test_small_subjects_are_reported_or_left_out(run_cli, blobs, tmp_path):
    clip = blob_clip(tmp_path / "a.mp4")
    result = run_cli("crop", clip, "--dry-run", *blobs)
    (warning,) = result.json()["warnings"]
    assert warning.endswith("track0 is enlarged from 38 to 256 pixels; --min-size skips small subjects")
    assert run_cli("crop", clip, "--dry-run", "--size", "48", *blobs).json()["warnings"] == []
    result = run_cli("crop", clip, "--dry-run", "--min-size", "64", *blobs)
    assert result.json()["clips"] == []
    assert result.json()["warnings"] == [f"{clip}: skipped 1 subject smaller than --min-size 64"]


def test_an_average_rate_becomes_a_common_one(tmp_path):
    info = probe(blob_clip(tmp_path / "a.mp4", frames=3))
    config = CropConfig(inputs=("a",), output=tmp_path)
    rates = {"2067609598/84024135": "25", "2997/100": "30000/1001", "24000/1001": "24000/1001", "18": "18"}
    for rate, wanted in rates.items():
        assert nominal_rate(replace(info, rate=Fraction(rate)), config) == Fraction(wanted)


def test_the_command_for_hdr_maps_its_tones(tmp_path):
    info = probe(blob_clip(tmp_path / "a.mp4", frames=3))
    config = CropConfig(inputs=("a",), output=tmp_path)
    piece = Piece(Fraction(0), Fraction(1), 3, Box(0, 0, 32, 32), 1.0)
    hlg = replace(info, colour=replace(info.colour, primaries=9, transfer=18, matrix=9), hdr=True)
    assert hlg.hdr
    for each, expected in ((info, False), (hlg, True)):
        words = shlex.split(ffmpeg_command(each, piece, tmp_path / "a.mp4", config))
        assert ("tonemap" in words[words.index("-vf") + 1]) is expected


def test_old_clips_stay_where_new_ones_cannot_be_written(run_cli, blobs, tmp_path, monkeypatch):
    draw = grid((60, 200))
    clip, out = blob_clip(tmp_path / "a.mp4", draw=draw, frames=30), tmp_path / "out"
    assert len(clips(run_cli, clip, "-o", out, *blobs)) == 2
    before = {path.name: path.read_bytes() for path in out.glob("*.mp4")}
    listed = (out / "manifest.json").read_text()
    written = []
    real = Writer.write

    def write(self, *frame):
        written.append(self)
        if len(written) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, *frame)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "write", write)
        result = run_cli("crop", clip, "-o", out, "--overwrite", "--size", "64", *blobs)
    assert result.code != 0
    assert {path.name: path.read_bytes() for path in out.glob("*.mp4")} == before
    assert (out / "manifest.json").read_text() == listed
    assert not list(out.glob(".*.tmp*"))
    assert len(clips(run_cli, clip, "-o", out, "--size", "64", *blobs)) == 2


def test_formulas_in_the_manifest_are_text(run_cli, blobs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blob_clip(Path("=cmd.mp4"))
    clips(run_cli, "=cmd.mp4", "-o", "out", *blobs)
    line = Path("out/manifest.csv").read_text().splitlines()[1]
    assert line.startswith("'=cmd.mp4,'=cmd#track0.mp4,")
    assert json.loads(Path("out/manifest.json").read_text())[0]["source"] == "=cmd.mp4"


@pytest.mark.parametrize("damage", [b"", b"\0" * 500, b"\xff\xfe\n[1]\n"])
def test_a_damaged_journal_loses_no_clip(run_cli, blobs, tmp_path, damage):
    """Clips in the manifest stay there, and a source that is cropped again keeps the names of its clips."""
    first, second = (blob_clip(tmp_path / name, frames=30) for name in ("a.mp4", "b.mp4"))
    out = tmp_path / "out"
    clips(run_cli, first, second, "-o", out, *blobs)
    listed = json.loads((out / "manifest.json").read_text())
    assert len(listed) == 2
    (out / ".crop.jsonl").write_bytes(damage)
    result = run_cli("crop", first, "-o", out, *blobs)
    assert result.code == 0
    assert "the clips of 2 sources were found in manifest.json instead" in " ".join(result.stderr.split())
    assert json.loads((out / "manifest.json").read_text()) == listed
    assert sorted(path.name for path in out.glob("*.mp4")) == ["a#track0.mp4", "b#track0.mp4"]
    again = run_cli("crop", first, second, "-o", out, *blobs)
    assert "known from" not in again.stderr
    assert json.loads((out / "manifest.json").read_text()) == listed
