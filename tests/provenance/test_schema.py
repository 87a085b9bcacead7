"""Sidecars of unknown origin."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fommctl.animate.rerender import plan
from fommctl.errors import FommctlError, InputError, UsageError
from fommctl.provenance.sidecar import differences, read, sidecar_of

HASH = 64 * "a"
FILE = {"path": "a.png", "relative": "a.png", "sha256": HASH}
RECORD = {
    "format": "fommctl sidecar",
    "version": 1,
    "tool": {"name": "fommctl", "version": "0.1.0"},
    "synthetic": True,
    "inputs": {"source": FILE, "driving": FILE, "views": [FILE]},
    "model": {"name": "faces-mini", "file": FILE, "preset": "backend: fomm"},
    "options": {"motion": "relative", "adapt_scale": True, "batch_size": 4, "end": "1/5", "fps": None},
    "settings": {"device": "cpu", "precision": "fp32", "seed": 0, "torch_threads": 1, "encoder_threads": 1},
    "environment": {"versions": {"torch": "2.6.0"}, "platform": "Linux x86_64"},
    "output": {"path": "a.mp4", "relative": "a.mp4", "sha256": HASH, "unsigned_sha256": None},
}
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.just("x" * 5000)
    | st.just("a\0/%05d.png")
    | st.just("/dev/zero"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    ("version",), ("tool",), ("inputs",), ("inputs", "source"), ("inputs", "source", "path"), ("inputs", "views"),
    ("inputs", "driving", "relative"), ("inputs", "driving", "sha256"), ("model", "name"), ("model", "file"),
    ("model", "preset"), ("options",), ("options", "motion"), ("options", "adapt_scale"), ("options", "batch_size"),
    ("options", "end"), ("options", "crop"), ("options", "views"), ("options", "sign"), ("options", "size"),
    ("settings", "seed"), ("settings", "torch_threads"), ("settings", "device"), ("environment",), ("output",),
]  # fmt: skip


def write(folder: Path, record: object) -> Path:
    path = folder / "a.mp4.json"
    path.write_text(json.dumps(record))
    return path


def test_a_whole_one_is_read(tmp_path):
    record = read(write(tmp_path, RECORD))
    assert record.inputs.views[0].sha256 == record.pixels_sha256 == HASH
    assert record.settings.seed == 0


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PLACES), JSON_VALUES)
def test_any_value_anywhere_is_read_or_refused(tmp_path_factory, place, value):
    folder = tmp_path_factory.mktemp("sidecar")
    (folder / "a.png").write_bytes(b"a picture")
    record = copy.deepcopy(RECORD)
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    before = sorted(folder.iterdir())
    with pytest.raises(FommctlError) as caught:  # At the latest because the picture is different.
        plan(write(folder, record))
    assert caught.value.exit_code in (2, 3)
    assert caught.value.hint
    assert "\n" not in caught.value.message.replace(str(folder), "")
    assert sorted(folder.iterdir()) == sorted([*before, folder / "a.mp4.json"])


def test_numbers_too_long_for_python_and_other_encodings(tmp_path):
    path = tmp_path / "a.mp4.json"
    for content in (b'{"version": ' + b"9" * 10_000 + b"}", b"\xff\xfe{", b'{"format": "\\ud800"}', b"NaN"):
        path.write_bytes(content)
        with pytest.raises(UsageError):
            read(path)
    with pytest.raises(InputError):
        read(tmp_path)


@pytest.mark.parametrize(
    ("output", "sidecar"),
    [("a/shot.mov", "a/shot.mov.json"), ("frames/%05d.png", "frames/%05d.png.json"), ("x.y.mp4", "x.y.mp4.json")],
)
def test_the_name_of_a_sidecar_is_that_of_the_result(output, sidecar):
    assert sidecar_of(Path(output)) == Path(sidecar)


def test_the_name_of_the_result_follows_from_that_of_the_sidecar(tmp_path):
    import hashlib

    (tmp_path / "a.png").write_bytes(b"a picture")
    found = {**FILE, "sha256": hashlib.sha256(b"a picture").hexdigest()}
    record = {**RECORD, "inputs": {"source": found, "driving": found}}
    again = plan(write(tmp_path, record))
    assert again.config.result_path == tmp_path / "a.mp4"
    assert (again.config.batch_size, again.config.encoder_threads, again.config.motion) == (4, 1, "relative")
    (tmp_path / "a.mp4.json").rename(tmp_path / "record.json")
    with pytest.raises(UsageError, match="does not tell that of the result"):
        plan(tmp_path / "record.json")
    with pytest.raises(UsageError, match="1 --view, the sidecar has 0"):
        plan(tmp_path / "record.json", views=[tmp_path / "a.png"], output=tmp_path / "b.mp4")


def test_differences_between_environments_are_named():
    then = {"versions": {"torch": "1", "gone": "2"}, "plugins": {"mine": "1"}, "gpu": None, "processor": ["odd"]}
    now = {"versions": {"torch": "2"}, "plugins": {"mine": "2"}, "gpu": None, "processor": "A"}
    assert differences(then, now) == [
        "gone absent, then 2",
        "plugin mine 2, then 1",
        "processor A, then ['odd']",
        "torch 2, then 1",
    ]
    assert differences(now, now) == []
