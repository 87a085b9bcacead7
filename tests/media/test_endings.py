"""All commands share one list of file extensions, and skipped files are reported."""

import logging

import pytest
from media_factory import write_clip

from fommctl.api.folders import MEDIA_SUFFIXES, media_below, plain_folder
from fommctl.crop.inputs import expand
from fommctl.media.sequences import passed_over


@pytest.mark.parametrize("ending", ["3gp", "MXF", "m2ts", "vob", "mts", "HEIC", "heif", "jp2", "webm", "y4m"])
def test_every_command_knows_the_same_endings(tmp_path, ending):
    clip = tmp_path / f"clip.{ending}"
    clip.write_bytes(b"never read")
    assert clip.suffix.lower() in MEDIA_SUFFIXES
    assert expand([str(tmp_path)], None)[0] == [clip]
    assert [record.path for record in plain_folder(tmp_path)] == [clip]


def test_skipped_files_are_counted_and_reported(tmp_path, caplog):
    write_clip(tmp_path / "a.mp4", frames=1)
    for name in ("b.braw", "c.BRAW", "README", "sub/d.r3d", "notes.txt", "manifest.jsonl", ".hidden.braw"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with caplog.at_level(logging.WARNING, "fommctl"):
        assert [path.name for path in media_below(tmp_path)] == ["a.mp4"]
    assert caplog.messages == [f"{tmp_path}: 4 files passed over: .braw (2), .r3d (1), no ending (1)"]


def test_tables_and_notes_are_not_reported(tmp_path, caplog):
    for name in ("a.mp4", "index.csv", "notes.md", "a.keypoints.npy"):
        (tmp_path / name).write_bytes(b"x")
    with caplog.at_level(logging.WARNING, "fommctl"):
        list(media_below(tmp_path))
    assert caplog.messages == []


def test_many_endings_are_cut():
    told = passed_over([f"a.x{number}" for number in range(10)])
    assert told is not None
    assert told.startswith("10 files passed over: .x0 (1), .x1 (1)")
    assert told.endswith(" and 2 more endings")
