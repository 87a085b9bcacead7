"""Names in manifests, tables and lists that lead out of the folder are rejected, and nothing there is even opened.
Links are the user's own decision: folders may be links, and media folders may contain links, since data sets are kept
on several disks. Names in files are not, because the author of a file is not the one who runs the command."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing import layouts, trees
from fuzzing.campaign import Campaign

from fommctl.crop.manifest import Manifest
from fommctl.datasets.clips import find_clips

OUTSIDE = ("../forbidden/secret.txt", "train/../../forbidden/secret.txt", "/etc/passwd", "..\\forbidden\\secret.txt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, layouts.Layout]:
    return layouts.text_layouts(tmp_path_factory.mktemp("layouts"))


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """Start a process that may neither write outside the folder of the case nor look at `forbidden` next to it."""
    with Campaign("manifests", tmp_path_factory.mktemp("sandbox"), 400) as opened:
        yield opened


def placed(tree: Any, outside: str, *keys: str) -> Any:
    """Return the tree with `outside` for every value of these keys, and for lists of texts for each element."""
    if isinstance(tree, list):
        return [placed(each, outside, *keys) for each in tree]
    if isinstance(tree, dict):
        return {key: outside if key in keys else placed(value, outside, *keys) for key, value in tree.items()}
    return tree


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize(
    ("kind", "keys", "said"),
    [
        ("training", ("file",), "outside its folder"),
        ("index", ("file",), "outside its folder"),
        ("pairs", ("source",), "which does not exist"),
        ("voxceleb", ("video_id",), "no usable row"),
        ("taichi", ("video_id",), "no usable row"),
        ("nemo", ("video_id",), "no usable row"),
        ("lerobot", ("video_path",), "not a file of the data set"),
    ],
)
def test_manifests_that_lead_outside_are_refused(
    campaign: Campaign, found: dict[str, layouts.Layout], kind: str, keys: tuple[str, ...], said: str, outside: str
) -> None:
    layout = found[kind]
    name = f"outside{OUTSIDE.index(outside)}-{kind}"
    assert campaign.run(name, layout.written(placed(layout.tree, outside, *keys))) == "refused", campaign.last
    assert said in campaign.last
    assert "(3)" in campaign.last or "(2)" in campaign.last


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize(
    ("kind", "keys"),
    [("crop", ("name",)), ("crop", ("output",)), ("preprocess", ("file",)), ("journal", ("file",)),
     ("lerobot episodes", ("tasks",)), ("voxceleb", ("person_id",))],
)  # fmt: skip
def test_what_leads_outside_is_left_out_and_nothing_there_is_touched(
    campaign: Campaign, found: dict[str, layouts.Layout], kind: str, keys: tuple[str, ...], outside: str
) -> None:
    layout = found[kind]
    name = f"left{OUTSIDE.index(outside)}{keys[0]}-{kind}"
    outcome = campaign.run(name, layout.written(placed(layout.tree, outside, *keys)))
    assert outcome in ("result", "refused"), campaign.last


def test_a_lerobot_camera_called_like_a_path_is_refused(campaign: Campaign, found: dict[str, layouts.Layout]) -> None:
    layout = found["lerobot"]
    features = {"../../forbidden": next(iter(layout.tree["features"].values()))}
    assert campaign.run("camera-lerobot", layout.written({**layout.tree, "features": features})) == "refused"
    assert "not a file of the data set" in campaign.last


def test_a_journal_of_crop_deletes_nothing_but_its_own_clips(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("keep")
    folder = tmp_path / "clips"
    folder.mkdir()
    row = {"source": "a.mp4", "start": 0, "end": 1, "box": [0, 0, 8, 8], "size": 8, "detector": "x", "score": 1.0,
           "frames": 5, "fps": "25"}  # fmt: skip
    rows = [{**row, "output": "../precious.txt"}]
    line = {"key": "/a.mp4", "name": "a", "source": "a.mp4", "stamp": [1, 2], "options": "0", "rows": rows}
    (folder / ".crop.jsonl").write_text(json.dumps(line) + "\n")
    with Manifest(folder, overwrite=False) as manifest:
        assert manifest.records == {}
        manifest.begin("/a.mp4", "a")
        manifest.finish("/a.mp4", "a.mp4", [1, 2], "0", [])
    assert precious.read_text() == "keep"


def test_a_data_set_that_is_a_link_and_links_in_it_are_followed(
    found: dict[str, layouts.Layout], tmp_path: Path
) -> None:
    layout = found["training"]
    for name, content in layout.written(layout.tree).items():  # type: ignore[union-attr]
        path = tmp_path / "disk" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(layout.others["train/ben#1.png"])
    os.symlink(elsewhere, tmp_path / "disk" / "train" / "eva#1.png")
    os.symlink(tmp_path / "disk", tmp_path / "linked")
    assert {clip.identity for clip in find_clips(tmp_path / "linked", "train")} == {"anna", "ben", "eva"}


def test_a_table_of_hostile_texts_names_no_file_outside(campaign: Campaign, found: dict[str, layouts.Layout]) -> None:
    layout = found["fashion"]
    for number, text in enumerate(trees.HOSTILE):
        outcome = campaign.run(f"text{number}-fashion", layout.written([f"{text}.mp4", *layout.tree]))
        assert outcome in ("result", "refused"), campaign.last
