"""Files that claim, or unpack to, far more than their size give one message, quickly and in little memory. Each is
passed to a process limited to 300 MiB and 20 seconds, by the rule of the fuzz suite."""

from collections.abc import Iterator
from pathlib import Path

import hostile
import pytest
from fuzzing.campaign import Campaign

MEMORY, SECONDS = 300, 20


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Campaign]]:
    """Start one process per kind of file, for all tests."""
    found = {}
    for target in ("images", "media", "headers", "manifests"):
        campaign = Campaign(target, tmp_path_factory.mktemp(target), MEMORY, SECONDS)
        found[target] = campaign.__enter__()
    yield found
    for campaign in found.values():
        campaign.__exit__(None, None, None)


HUGE = "too large"
IMAGES = {
    "sides.png": (lambda: hostile.png_of(60_000, 60_000), HUGE),
    "wide.png": (lambda: hostile.png_of(2**31 - 1, 1), HUGE),
    "whole.png": (lambda: hostile.png_bomb(20_000), HUGE),
    "deep.png": (lambda: hostile.png_of(16_000, 16_000, depth=16, kind=6), HUGE),
    "profile.png": (lambda: hostile.png_of(8, 8, (b"iCCP", b"x\0\0" + hostile.zeros(2**28))), "damaged|decompress"),
    "text.png": (lambda: hostile.png_of(8, 8, (b"zTXt", b"x\0\0" + hostile.zeros(2**28))), "damaged|decompress"),
    "words.png": (lambda: hostile.png_of(8, 8, (b"iTXt", b"x\0\1\0\0\0" + hostile.zeros(2**28))), "damaged|decompress"),
    "sides.jpg": (lambda: hostile.jpeg_of(65_535, 65_535), HUGE),
    "sides.tif": (lambda: hostile.tiff_of(2**31, 2**31), HUGE),
    "strip.tif": (lambda: hostile.tiff_of(14_000, 14_000), "damaged"),
    "entries.tif": (lambda: hostile.tiff_of(8, 8, entries=65_535), None),
    "sides.webp": (lambda: hostile.webp_of(16_384, 16_384), HUGE),
    "sides.gif": (lambda: hostile.gif_of(65_535, 65_535), HUGE),
    "sides.bmp": (lambda: hostile.bmp_of(2**31 - 1, 2**31 - 1), HUGE),
    "sides.ppm": (lambda: b"P6\n999999999 999999999\n255\n" + bytes(100), HUGE),
}


@pytest.mark.parametrize("name", IMAGES)
def test_pictures_that_unpack_to_gigabytes_are_refused(fed: dict[str, Campaign], name: str) -> None:
    make, said = IMAGES[name]
    outcome = fed["images"].run(name, make())
    if said is None:
        assert outcome in ("result", "refused"), fed["images"].last
        return
    assert outcome == "refused", fed["images"].last
    assert any(each in fed["images"].last for each in said.split("|")), fed["images"].last


MEDIA = {
    "sides.mp4": {b"avc1": [(24, b"\x75\x30\x75\x30")], b"tkhd": [(76, b"\x75\x30\0\0\x75\x30\0\0")]},
    "rate.mp4": {b"mdhd": [(12, b"\x7f\xff\xff\xff")], b"stts": [(12, b"\0\0\0\1")]},
    "centuries.mp4": {b"stts": [(12, b"\x7f\xff\xff\xff")], b"mdhd": [(12, b"\0\0\0\1")]},
    "samples.mp4": {b"stts": [(8, b"\xff\xff\xff\xff")], b"stsz": [(8, b"\xff\xff\xff\xff")]},
    "entries.mp4": {b"stts": [(4, b"\xff\xff\xff\xff")], b"stco": [(4, b"\xff\xff\xff\xff")]},
}


@pytest.mark.parametrize("name", MEDIA)
def test_videos_that_claim_the_impossible_are_read_or_refused(
    fed: dict[str, Campaign], name: str, tmp_path: Path
) -> None:
    campaign = fed["media"]
    assert campaign.run(name, hostile.mp4_with(tmp_path, MEDIA[name])) in ("result", "refused"), campaign.last


def test_frames_that_are_larger_than_the_container_says_are_refused(fed: dict[str, Campaign], tmp_path: Path) -> None:
    campaign = fed["media"]
    content = hostile.mov_of_pictures(tmp_path, hostile.png_bomb(30_000))
    assert campaign.run("pictures.mov", content) == "refused", campaign.last


def test_a_video_of_ten_thousand_streams(fed: dict[str, Campaign], tmp_path: Path) -> None:
    campaign = fed["media"]
    assert campaign.run("streams.mp4", hostile.mp4_of_many_streams(tmp_path, 10_000)) in ("result", "refused")


def test_a_gif_of_many_frames(fed: dict[str, Campaign]) -> None:
    campaign = fed["media"]
    assert campaign.run("frames.gif", hostile.gif_of(64, 64, frames=20_000)) == "result", campaign.last


def test_an_animation_that_unpacks_to_gigabytes_is_probed_without_decoding_it(fed: dict[str, Campaign]) -> None:
    campaign = fed["headers"]
    assert campaign.run("frames.webp", hostile.animated_webp(4000, 5000)) == "result", campaign.last
    assert "frames=5000" in campaign.last


DEEP = b"[" * 100_000
LONG = b"x" * (64 * 2**20)
LINES = {
    "journal": (".preprocess.jsonl", DEEP, "result"),
    "training": ("manifest.jsonl", b'{"file": ' + DEEP, "not a JSON object"),
    "lerobot": ("meta/info.json", DEEP, "nested too deeply"),
    "index": ("index.csv", b"file,identity\n" + LONG + b",x\n", "longer than"),
    "pairs": ("pairs.csv", b"source,driving\n" + LONG, "longer than"),
    "voxceleb": ("vox-metadata.csv", LONG, "longer than"),
    "fashion": ("fashion_train.txt", LONG, "longer than"),
    "keypoints": ("a.keypoints.npy", hostile.npy_header((2**20, 2**20, 2)), "cannot be read"),
}


@pytest.mark.parametrize("kind", LINES)
def test_lines_and_headers_without_end(fed: dict[str, Campaign], kind: str) -> None:
    name, content, said = LINES[kind]
    files = {name: content, "train/a.png": hostile.png_of(8, 8), "test/b.png": hostile.png_of(8, 8)}
    outcome = fed["manifests"].run(f"hostile-{kind}", files)
    assert outcome == ("result" if said == "result" else "refused"), fed["manifests"].last
    assert said == "result" or said in fed["manifests"].last, fed["manifests"].last
