"""VoxCeleb, UvA-Nemo and plain folders of faces, with miniatures of their raw layouts."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import raw_layouts
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_layouts import BOX, TABLE_SIZE, VOX_HEADER, row, shade, table, video

from fommctl.api import Box, ClipRecord, InputError, testing
from fommctl.api.folders import identity_in, media_below, plain_folder
from fommctl.api.readers import read_table
from fommctl.api.video_metadata import chunks
from fommctl.host import Host
from fommctl_faces.datasets import NEMO_TEST, Faces, UvaNemo, VoxCeleb

SHARED = Path(__file__).parents[3] / "shared"


def told(clips: list[ClipRecord]) -> list[tuple[str, str, str | None]]:
    return [(clip.identity, clip.name, clip.split) for clip in clips]


def test_voxceleb(tmp_path: Path) -> None:
    root = raw_layouts.make_voxceleb(tmp_path / "vox")
    clips = list(VoxCeleb().clips(root))
    assert told(clips) == [
        ("id10005", "WMh3ye5tBsE#000005#000012", "train"),
        ("id10005", "WMh3ye5tBsE#000012#000030", "train"),
        ("id10270", "-Dxy7bnj_bc#000000#000025", "test"),
        ("id10270", "tCq2LcKO6xY#000000#000025", "test"),
    ]
    assert (clips[0].start, clips[0].end) == (0.2, 0.48)
    assert all((clip.box, clip.box_frame) == (Box(*BOX), TABLE_SIZE) for clip in clips)
    paths = [clip.path.relative_to(root).as_posix() for clip in clips if clip.path]
    assert paths[1:] == ["videos/WMh3ye5tBsE.mkv", "videos/-Dxy7bnj_bc.mp4", "tCq2LcKO6xY.mp4"]
    assert not (root / "tCq2LcKO6xY.mp4").exists()


def test_the_contract_holds(tmp_path: Path, host: Host) -> None:
    # One of the videos is missing, as many are by now.
    testing.check_dataset(host.datasets["voxceleb"], raw_layouts.make_voxceleb(tmp_path / "vox"))
    testing.check_dataset(host.datasets["nemo"], raw_layouts.make_nemo(tmp_path / "nemo"))
    testing.check_dataset(host.datasets["faces"], raw_layouts.make_plain(tmp_path / "plain"))


def test_preprocess_takes_the_published_frames_and_boxes(tmp_path: Path, run_cli) -> None:
    """The clip has the frames i with 5 <= i * 25 / 50 < 12 of a video with twice the rate, and the box at twice the
    size."""
    root, out = raw_layouts.make_voxceleb(tmp_path / "vox"), tmp_path / "out"
    options = ("--format", "png", "--size", 16, "--fit", "stretch", "--workers", 1)
    result = run_cli("preprocess", "voxceleb", root, "-o", out, *options)
    assert result.code == 6
    (failed,) = map(json.loads, (out / "failed.jsonl").read_text().splitlines())
    assert (failed["clip"], failed["source"]) == ("id10270#tCq2LcKO6xY#000000#000025", "tCq2LcKO6xY.mp4")
    frames = sorted((out / "train/id10005#WMh3ye5tBsE#000005#000012").iterdir())
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in frames])
    assert pixels.shape == (14, 16, 16, 3)
    np.testing.assert_allclose(pixels[:, 1:-1, 1:-1, 0].mean((1, 2)), [shade(i) for i in range(10, 24)], atol=1)
    np.testing.assert_allclose(pixels[:, 3:-3, 3:-3, 1:].astype(int), 40, atol=2)
    # At the border, the resampling filter includes the same amount of the surroundings on either side.
    np.testing.assert_allclose(pixels[:, :, ::-1].astype(int), pixels, atol=2)
    np.testing.assert_allclose(pixels[:, ::-1].astype(int), pixels, atol=2)
    assert len(list((out / "train").iterdir())) == 2


def test_rows_that_cannot_be_used_are_reported_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video(tmp_path / "good.mp4")
    bad = {
        row("good", 10, 10, "train", "p"): "the end 10 is not after the start 10",
        row("good", 10, 5, "train", "p"): "the end 5 is not after the start 10",
        row("good", -1, 5, "train", "p"): "start is -1, not a number of frames",
        row("good", "1.5", 5, "train", "p"): "start is 1.5, not a number of frames",
        row("good", "soon", 5, "train", "p"): "start is 'soon', not a number",
        row("good", "nan", 5, "train", "p"): "start is 'nan', not a number",
        row("good", 0, 10**400, "train", "p"): "not a number",
        row("good", 0, 9, "train", "p", box="1-2-3"): "bbox is '1-2-3', not LEFT-TOP-RIGHT-BOTTOM",
        row("good", 0, 9, "train", "p", box="-1-2-3-4"): "bbox is '-1-2-3-4'",
        row("good", 0, 9, "train", "p", box="5-5-5-9"): "the box 5-5-5-9 is empty",
        row("good", 0, 9, "valid", "p"): "partition is 'valid', neither train nor test",
        row("../secret", 0, 9, "train", "p"): "video_id '../secret' cannot be a file name",
        row("/etc/passwd", 0, 9, "train", "p"): "cannot be a file name",
        row("..", 0, 9, "train", "p"): "video_id '..' cannot be a file name",
        row("", 0, 9, "train", "p"): "video_id '' cannot be a file name",
        row("good", 0, 9, "train", "../p"): "person_id '../p' cannot be a file name",
        "good,0,9,1-1-5-5,0,64,48,train,p": "fps is 0, not above zero",
        "good,0,9,1-1-5-5,25,64,0,train,p": "height is 0, not above zero",
        "good,0,9": "fps is '', not a number",
        row("good", 0, 8, "train", "p"): "duplicate of good from 0 to 8",
    }
    caplog.set_level(logging.INFO, "fommctl")
    table(tmp_path / "vox-metadata.csv", VOX_HEADER, [row("good", 0, 8, "train", "p"), *bad])
    clips = list(VoxCeleb().clips(tmp_path))
    assert told(clips) == [("p", "good#000000#000008", "train")]
    lines = [record for record in caplog.records if "was skipped" in record.message]
    assert [record.levelname for record in lines] == ["WARNING"] * 5 + ["INFO"] * (len(bad) - 5)
    for number, (record, message) in enumerate(zip(lines, bad.values(), strict=True), 3):
        assert f"line {number} was skipped: " in record.message
        assert message in record.message
    assert f"{len(bad)} rows were skipped in total" in caplog.text


def test_tables_as_spreadsheets_write_them(tmp_path: Path) -> None:
    lines = [
        '"person_id", partition ,note,height,width,fps,bbox,end,start,video_id',
        '"id1","train","it says ""hello, you""\nand more",48,64,25.0,10-4-40-44,30.0, 5 ,"good"',
        "",
        ",,,,,,,,,",
        "id2,test,,48,64,25,10-4-40.5-44,31,5,good,one cell too many",
    ]
    (tmp_path / "anything.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    table(tmp_path / "other.csv", "file,size", ["a,1"])
    video(tmp_path / "good.MP4".lower())
    clips = list(VoxCeleb().clips(tmp_path))
    assert told(clips) == [("id1", "good#000005#000030", "train"), ("id2", "good#000005#000031", "test")]
    assert clips[1].box == Box(10, 4, 40.5, 44)
    assert [each.line for each in read_table(tmp_path / "anything.csv", ())] == [3, 6]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_with_other_delimiters(tmp_path: Path, delimiter: str) -> None:
    lines = ["video_id,start,end,bbox,fps,width,height", row("v", 5, 30)]
    (tmp_path / "vox-metadata.csv").write_text("\n".join(lines).replace(",", delimiter))
    video(tmp_path / "v.mp4")
    assert told(list(VoxCeleb().clips(tmp_path))) == [("v", "000005#000030", None)]


def test_one_person_stays_in_one_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table(tmp_path / "vox-metadata.csv", VOX_HEADER, [row("v", 0, 8, "test", "p"), row("v", 8, 16, "train", "p")])
    video(tmp_path / "v.mp4")
    assert [clip.split for clip in VoxCeleb().clips(tmp_path)] == ["test", "test"]
    assert "p is in test and in train; the first counts" in caplog.text


def test_video_ids_with_the_person_behind(tmp_path: Path) -> None:
    """The format written by crop_vox.py of video-preprocessing, published as PERSON#VIDEO#START#END."""
    header = VOX_HEADER.removesuffix(",person_id")
    table(tmp_path / "vox-metadata.csv", header, [row("v#id7", 0, 8, "train"), row("w", 0, 8, "train")])
    video(tmp_path / "v.mp4")
    clips = list(VoxCeleb().clips(tmp_path))
    assert told(clips) == [("id7", "v#000000#000008", "train"), ("w", "000000#000008", "train")]


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (None, "has no vox-metadata.csv", "Its columns: video_id, start, end, bbox"),
        (b"", "vox-metadata.csv is empty", "Download the file again"),
        (b"video_id,start,end\nv,1,2\n", "has no column bbox and no column fps", "it names video_id, start, end."),
        (VOX_HEADER.encode(), "vox-metadata.csv has no rows", "download the file again"),
        (f"{VOX_HEADER}\n{row('v', 2, 1)}".encode(), "has no usable row", "the log says what is wrong"),
        (f"{VOX_HEADER}\n{row('gone', 1, 2)}".encode(), "none of the 1 videos that vox-metadata.csv", "gone.mp4"),
        (VOX_HEADER.encode("utf-16"), "is not UTF-8 text", "Save it as CSV in UTF-8"),
        (b"%s\n%s" % (VOX_HEADER.encode(), b"x" * 200_000), "is not a CSV table: field larger than", "Save it as CSV"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str, hint: str) -> None:
    video(tmp_path / "v.mp4")
    if content is not None:
        (tmp_path / "vox-metadata.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        list(VoxCeleb().clips(tmp_path))
    assert hint in str(error.value.hint)


def test_several_tables_or_videos_of_one_name(tmp_path: Path) -> None:
    video(tmp_path / "a/b/v.mp4")
    near = video(tmp_path / "z/v.mkv")
    table(tmp_path / "one.csv", VOX_HEADER, [row("v", 0, 8, "train", "p")])
    assert [clip.path for clip in VoxCeleb().clips(tmp_path)] == [near]
    table(tmp_path / "two.csv", VOX_HEADER, [row("v", 0, 8, "train", "p")])
    with pytest.raises(InputError, match=r"several tables: one\.csv, two\.csv"):
        list(VoxCeleb().clips(tmp_path))
    with pytest.raises(InputError, match="is not a folder"):
        list(VoxCeleb().clips(tmp_path / "one.csv"))


def test_nemo_by_its_names(tmp_path: Path) -> None:
    root = raw_layouts.make_nemo(tmp_path)
    clips = list(UvaNemo().clips(root))
    assert told(clips) == [
        ("001", "001_deliberate_smile_2", "train"),
        ("001", "001_spontaneous_smile_1", "train"),
        ("004", "004_deliberate_smile_1", "test"),
        ("558", "558_spontaneous_smile_3", "train"),
    ]
    assert len(set(NEMO_TEST.split())) == 41


def test_nemo_by_its_table(tmp_path: Path) -> None:
    root = raw_layouts.make_nemo(tmp_path, ["004_deliberate_smile_1"])
    header = VOX_HEADER.removesuffix(",person_id")
    table(root / "nemo-metadata.csv", header, [row("004_deliberate_smile_1.mp4", 0, 20, "test")])
    (clip,) = UvaNemo().clips(root)
    assert (clip.identity, clip.name, clip.box) == ("004", "004_deliberate_smile_1#000000#000020", Box(*BOX))
    assert clip.path == root / "videos/004_deliberate_smile_1.mp4"


def test_other_videos_are_not_nemo(tmp_path: Path) -> None:
    video(tmp_path / "holiday.mp4")
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="contains no UvA-Nemo clips"):
            list(UvaNemo().clips(root))


def test_a_plain_folder(tmp_path: Path) -> None:
    root = raw_layouts.make_plain(tmp_path)
    clips = list(Faces().clips(root))
    assert told(clips) == [
        ("anna", "one", None),
        ("anna", "two", None),
        ("ben", "one#0001", None),
        ("carla", "carla", None),
        ("anna", "img_0", None),
        ("dora", "img_1", None),
        ("img_2", "img_2", None),
    ]
    assert clips[3].path == root / "clips/carla"
    assert all(clip.box is None for clip in clips)


def test_a_manifest_counts_more_than_an_index_and_names(tmp_path: Path) -> None:
    root = raw_layouts.make_plain(tmp_path)
    lines = [{"file": "clips/anna__one.mp4", "identity": "eva/#1"}, {"file": "clips/anna__two.mp4"}, {"run": 1}]
    (root / "manifest.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    clips = list(Faces().clips(root))
    assert told(clips)[:2] == [("eva__1", "anna__one", None), ("anna", "two", None)]
    for content in (b'{"file": "a"}\n[1]', b'{"file": "a"}\n{"fi'):
        (root / "manifest.jsonl").write_bytes(content)
        with pytest.raises(InputError, match=r"manifest\.jsonl, line 2: not a JSON object"):
            list(Faces().clips(root))
    (root / "manifest.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        list(Faces().clips(root))


def test_the_published_layout(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("train/p#a.png", "train/00.png", "train/q/1/x.png", "train/q/2/x.png", "test/00.png", "test/p#b.png")
    for name in (*names, "elsewhere.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert told(list(plain_folder(tmp_path))) == [
        ("00", "00", "train"),
        ("p", "a", "train"),
        ("q", "1", "train"),
        ("q", "2", "train"),
        # The same number in the other folder is a different person, unlike the same name.
        ("test-00", "00", "test"),
        ("p", "b", "train"),
    ]
    assert "p is in both splits and is kept in train" in caplog.text


def test_links_that_lead_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.mp4").write_bytes(b"")
    (tmp_path / "a/back").symlink_to(tmp_path)
    (tmp_path / "z").symlink_to(tmp_path / "a")
    assert [path.relative_to(tmp_path).as_posix() for path in media_below(tmp_path)] == ["a/x.mp4"]


def test_an_empty_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no clips"):
        list(Faces().clips(tmp_path))
    with pytest.raises(InputError, match="is not a folder"):
        list(Faces().clips(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("name", "identity"),
    [("id1#vid#000", "id1"), ("lp_d0__KwaiVGI", "lp_d0"), ("a__b#c", "a"), ("#a", None), ("__a", None), ("a_b", None)],
)
def test_identities_in_names(name: str, identity: str | None) -> None:
    assert identity_in(name) == identity


NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=30)


@settings(max_examples=30, deadline=None)
@given(names=st.lists(st.one_of(NAMES, st.from_regex(r"[ab](#|__)[ab]{1,2}", fullmatch=True)), min_size=1, max_size=8))
def test_any_names_give_records_that_keep_the_contract(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    root = tmp_path_factory.mktemp("names")
    for number, name in enumerate(names):
        path = root / ("one" if number % 2 else "two") / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (root / "sure.mp4").write_bytes(b"")
    clips = list(plain_folder(root))
    assert len(clips) == sum(1 for path in root.rglob("*.mp4") if not path.name.startswith("."))
    assert len({(clip.identity, clip.name.casefold()) for clip in clips}) == len(clips)
    for clip in clips:
        assert not set("/\\\n") & set(clip.name + clip.identity)
        assert "#" not in clip.identity


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_table_is_read_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("table")
    (root / "t.csv").write_text(f"{VOX_HEADER}\n{text}", encoding="utf-8", newline="")
    with pytest.raises(InputError):
        list(chunks(root, "t.csv"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the media of ../shared are absent")
def test_real_faces(host: Host) -> None:
    testing.check_dataset(host.datasets["faces"], SHARED / "faces")
    clips = list(Faces().clips(SHARED / "faces"))
    index = {row.cells["file"]: row.cells["identity"] for row in read_table(SHARED / "faces/index.csv", ())}
    assert {clip.path.relative_to(SHARED / "faces").as_posix(): clip.identity for clip in clips if clip.path} == index
    assert (len(clips), len({clip.identity for clip in clips})) == (156, 152)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the media of ../shared are absent")
def test_real_uncropped_clips(host: Host) -> None:
    testing.check_dataset(host.datasets["faces"], SHARED / "raw")
    assert len({clip.identity for clip in Faces().clips(SHARED / "raw")}) == 4
