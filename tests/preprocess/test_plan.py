"""The plan of `preprocess`: splits by identity, harmless names, rejected files."""

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fommctl.api import ClipRecord, UsageError
from fommctl.datasets.clips import split_of
from fommctl.preprocess.clip import ClipOptions
from fommctl.preprocess.plan import LONGEST, Planned, assign_splits, plan, safe_names

OPTIONS = ClipOptions(size=16, format="mp4", fit="pad", audio=True)
PEOPLE = [f"id{number:05d}" for number in range(30)]
HOSTILE = st.text(st.characters(codec=None), max_size=120) | st.sampled_from(
    [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "a/b",
        "a\\b",
        "a\0b",
        "a#b",
        "Bob",
        "bob",
        "BOB",
        "\udcff",
        "x" * 500,
        "é" * 99,
    ]
)


def clip(identity: str, name: str = "c", **more) -> ClipRecord:
    return ClipRecord(identity=identity, name=name, **more)


def test_the_rule_of_the_split() -> None:
    """The first tenth by the SHA-256 of `seed:identity`, computed here by hand."""
    ordered = sorted(PEOPLE, key=lambda name: sha256(f"7:{name}".encode()).hexdigest())
    assert split_of(PEOPLE, 0.1, 7) == set(ordered[:3])
    assert split_of(reversed(PEOPLE * 2), 0.1, 7) == set(ordered[:3])
    assert split_of(PEOPLE, 0.11, 7) == set(ordered[:4])
    assert split_of(PEOPLE, 0.1, 8) != set(ordered[:3])
    assert split_of(PEOPLE, 0, 7) == split_of(["alone"], 0.5, 7) == split_of([], 0.5, 7) == set()
    assert len(split_of(["a", "b"], 0.001, 0)) == len(split_of(["a", "b"], 0.999, 0)) == 1
    for fraction in (-0.1, 1, float("nan")):
        with pytest.raises(UsageError, match="test fraction"):
            split_of(PEOPLE, fraction, 0)


def test_splits_of_the_data_set_win_and_no_identity_is_in_both(caplog: pytest.LogCaptureFixture) -> None:
    told = [clip("a", split="test"), clip("a", "d"), clip("b", split="train"), clip("b", "d", split="test")]
    free = [clip(name) for name in PEOPLE]
    splits = assign_splits([*told, *free], 0.1, 7)
    assert splits["a"] == "test"
    assert splits["b"] == "train"
    assert [record.message for record in caplog.records] == [
        "the data set lists b in both train and test; all its clips go to train"
    ]
    assert {name for name in PEOPLE if splits[name] == "test"} == split_of(PEOPLE, 0.1, 7)


@pytest.mark.parametrize("seed", range(8))
def test_pictures_are_split_apart_from_clips(tmp_path: Path, seed: int) -> None:
    """One person in a clip and another in a photograph: whatever the seed, the clip is for training."""
    clips = [clip("ann", path=tmp_path / "ann.mp4"), clip("ben", path=tmp_path / "ben.PNG")]
    assert assign_splits(clips, 0.1, seed) == {"ann": "train", "ben": "train"}
    clips += [clip("cat", path=tmp_path / "cat.gif")]
    splits = assign_splits(clips, 0.1, seed)
    assert sorted(splits[name] for name in ("ann", "cat")) == ["test", "train"]
    assert splits["ben"] == "train"


@given(st.lists(HOSTILE, max_size=8), st.sampled_from(["", "#"]))
def test_names_are_harmless_and_unique(texts: list[str], keep: str) -> None:
    names = safe_names(texts, keep=keep)
    assert set(names) == set(texts)
    assert len({name.casefold() for name in names.values()}) == len(names)
    for name in names.values():
        assert 0 < len(name.encode()) <= LONGEST
        assert not set(name) & set('/\\\0:*?"<>|\n' + ("" if keep else "#"))
        assert name.strip(" .") == name
    assert safe_names(reversed(texts), keep=keep) == names


def test_good_names_stay() -> None:
    good = ["id10270", "J9lHsKG98U8#000025#000250", "Zoë Müller", "王", "a.b-c_d"]
    assert safe_names(good, keep="#") == {name: name for name in good}
    assert safe_names(["a/b"]) == {"a/b": f"a_b-{sha256(b'a/b').hexdigest()[:8]}"}


def planned(tmp_path: Path, *records: ClipRecord) -> list[Planned]:
    return plan(records, tmp_path, OPTIONS, assign_splits(records, 0.1, 0))


def test_clips_of_one_name_get_numbers(tmp_path: Path) -> None:
    records = [clip("a", name) for name in ("x", "x", "x~2", "x")]
    assert [each.stem for each in planned(tmp_path, *records)] == ["a#x", "a#x~3", "a#x~2", "a#x~4"]


def test_files_outside_of_the_raw_folder_are_refused(tmp_path: Path) -> None:
    raw, other = tmp_path / "raw", tmp_path / "secret.mp4"
    (raw / "sub").mkdir(parents=True)
    for path in (other, raw / "sub/in.mp4"):
        path.write_bytes(b"12345")
    (raw / "loop.mp4").symlink_to("loop.mp4")
    bad = [other, raw / "../secret.mp4", raw / "sub/../../secret.mp4", Path("/etc/passwd")]
    for each in planned(raw, *(clip("a", path=path) for path in bad)):
        assert each.problem is not None
        assert each.problem.startswith("its file is outside the raw folder: ")
        assert each.source is None
    fine = planned(raw, *(clip("a", path=raw / name) for name in ("sub/in.mp4", "sub/../sub/in.mp4")))
    assert [(each.source, each.source_bytes, each.problem) for each in fine] == [("sub/in.mp4", 5, None)] * 2
    gone, loop, nul = planned(raw, *(clip("a", path=raw / name) for name in ("gone.mp4", "loop.mp4", "a\0b")))
    assert (gone.source, gone.source_bytes, gone.problem) == ("gone.mp4", None, "the raw file is missing: gone.mp4")
    assert loop.problem
    assert nul.problem


def test_raw_files_may_be_links_to_elsewhere(tmp_path: Path) -> None:
    raw, elsewhere = tmp_path / "raw", tmp_path / "disk2"
    raw.mkdir()
    elsewhere.mkdir()
    (elsewhere / "a.mp4").write_bytes(b"12345")
    (raw / "link.mp4").symlink_to(elsewhere / "a.mp4")
    (raw / "folder").symlink_to(elsewhere)
    (raw / "broken.mp4").symlink_to(elsewhere / "gone.mp4")
    (tmp_path / "alias").symlink_to(raw)
    names = ("link.mp4", "folder/a.mp4", "broken.mp4")
    for root in (raw, tmp_path / "alias"):
        # An adapter may return resolved paths.
        for base in (root, root.resolve()):
            clips = plan([clip("a", path=base / name) for name in names], root, OPTIONS, {"a": "train"})
            assert [(each.source, each.source_bytes, each.problem) for each in clips] == [
                ("link.mp4", 5, None),
                ("folder/a.mp4", 5, None),
                ("broken.mp4", None, "the raw file is missing: broken.mp4"),
            ]


def test_records_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    (dev, nothing, two) = planned(
        tmp_path,
        clip("a", split="../dev", path=tmp_path),
        clip("b"),
        clip("c", path=tmp_path, frames=lambda: iter([])),
    )
    assert dev.problem == "its split in the data set is '../dev', neither train nor test"
    assert dev.split in ("train", "test")
    assert nothing.problem == "its record has neither a file nor frames"
    assert two.problem == "its record has both a file and frames"


def test_what_a_clip_is_made_with_is_its_state(tmp_path: Path) -> None:
    def state(options: ClipOptions = OPTIONS, **more) -> str:
        (each,) = plan([clip("a", path=tmp_path, **more)], tmp_path, options, {"a": "train"})
        return each.state

    base = {"start": 1.0, "end": 2.0}
    states = [
        state(**base),
        state(**base, rate=30),
        state(**base, box_frame=(64, 48)),
        state(start=1.0, end=3.0),
        state(),
        state(ClipOptions(size=32, format="mp4", fit="pad", audio=True), **base),
    ]
    assert len(set(states)) == len(states)
    assert state(**base) == states[0]
