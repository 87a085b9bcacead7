"""Content hashes of media."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fommctl.errors import InputError
from fommctl.host import load_host
from fommctl.models.loading import load_model
from fommctl.provenance.hashing import InputFile, media_hash, model_identity


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    assert media_hash(tmp_path / "a.mp4") == hashlib.sha256(b"abc").hexdigest()


def test_frames_are_hashed_in_order_and_by_content(tmp_path: Path) -> None:
    for folder, names in (("one", ("1.png", "2.png")), ("two", ("f9.png", "f10.png"))):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, (b"x", b"y"), strict=True):
            (tmp_path / folder / name).write_bytes(content)
    by_folder = media_hash(tmp_path / "one")
    assert by_folder == media_hash(tmp_path / "two") == media_hash(tmp_path / "one" / "%d.png")
    (tmp_path / "two" / "f10.png").write_bytes(b"z")
    assert media_hash(tmp_path / "two") != by_folder


def test_a_missing_frame_is_another_sequence(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(bytes([number]))
    whole = media_hash(tmp_path / "%d.png")
    (tmp_path / "3.png").rename(tmp_path / "4.png")
    assert media_hash(tmp_path / "%d.png") != whole


def test_what_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.mp4"):
        media_hash(tmp_path / "none.mp4")


def test_an_input_that_changes_while_it_is_read_has_no_hash(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for path in (tmp_path / "a.mp4", frames / "1.png", frames / "2.png"):
        path.write_bytes(b"one")
    files = [InputFile.of(path) for path in (tmp_path / "a.mp4", frames, frames / "%d.png")]
    assert [file.sha256() for file in files] == [media_hash(file.path) for file in files]
    for path in (tmp_path / "a.mp4", frames / "2.png"):
        times = path.stat()
        path.write_bytes(b"two")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for file in files:
        with pytest.raises(InputError, match="changed while it was being read"):
            file.sha256()


def test_a_model_is_its_file_and_its_resolved_preset() -> None:
    host = load_host()
    plain, changed = (load_model(None, host, sets=sets) for sets in ((), ("animate_params.num_pairs=3",)))
    assert plain.path is not None
    identity, other = model_identity(plain), model_identity(changed)
    assert identity["name"] == "faces-mini"
    assert identity["sha256"] == other["sha256"] == hashlib.sha256(plain.path.read_bytes()).hexdigest()
    assert "num_pairs: 3" in other["preset"]
    assert "num_pairs: 3" not in identity["preset"]


OTHER = """
    from dataclasses import replace

    from fommctl.api import hookimpl
    import fommctl_fomm


    @hookimpl
    def fommctl_backends():
        yield replace(next(fommctl_fomm.fommctl_backends()), name="other", recognises=lambda params: 0)
"""


def test_the_version_of_a_plugin_s_backend_belongs_to_a_model(third_party: Callable[..., None], tmp_path: Path) -> None:
    third_party(OTHER)
    host = load_host()
    preset = tmp_path / "other.yaml"
    preset.write_text(load_model(None, host).preset.text().replace("backend: fomm", "backend: other"))
    assert model_identity(load_model(None, host, preset="faces-mini")).get("backend") is None
    loaded = load_model("faces-mini", host, preset=str(preset))
    assert model_identity(loaded)["backend"] == "good-plugin 1.2"


def test_a_model_that_was_replaced_since_it_was_loaded_has_no_identity(tmp_path: Path) -> None:
    host = load_host()
    built_in = load_model(None, host).path
    assert built_in is not None
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(built_in.read_bytes())
    model = load_model(str(copy), host)
    assert model_identity(model)["sha256"] == hashlib.sha256(copy.read_bytes()).hexdigest()
    copy.write_bytes(copy.read_bytes() + b" ")
    with pytest.raises(InputError, match="changed while it was being read"):
        model_identity(model)
