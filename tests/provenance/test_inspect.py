"""`fommctl inspect` on signed and unsigned files, our own and others'."""

import json
import shutil
import time
from fractions import Fraction

import c2pa
import numpy as np
import pytest
from boxes import media_data
from certificates import SIGNER, write_chain
from media_factory import write_clip
from PIL import Image
from shots import portrait

import fommctl
from fommctl.provenance.signing import read_credentials

KIND = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Inputs, signed and unsigned results with sidecars, and the chain; read-only."""
    folder = tmp_path_factory.mktemp("shots")
    portrait(folder / "portrait.png")
    write_clip(folder / "clip.mp4", width=256, height=256, frames=3, rate=Fraction(25), audio=("aac",))
    chain = write_chain(folder / "chain")
    animator = fommctl.load(device="cpu", precision="fp32")
    for name in ("plain.mp4", "plain.mkv", "plain.gif", "frames/%02d.png", "signed.mp4", "signed.mov", "signed.gif"):
        keys = {"sign": chain.cert, "sign_key": chain.key} if name.startswith("signed") else {}
        animator.animate(folder / "portrait.png", folder / "clip.mp4", folder / name, crop="none", sidecar=True, **keys)
    return folder


@pytest.fixture
def look(run_cli):
    """look(path, ...): returns (exit code, JSON)."""

    def run(path, *options):
        result = run_cli("inspect", path, "--json", *options)
        assert "Traceback" not in result.stderr
        return result.code, result.json()

    return run


@pytest.mark.parametrize("name", ["plain.mp4", "plain.mkv", "plain.gif", "frames/%02d.png"])
def test_an_unsigned_result(shots, look, name):
    code, data = look(shots / name)
    assert code == 0
    assert data["synthetic"] is True
    assert data["statement"]["digital_source_type"] == KIND
    assert data["statement"]["tool"] == {
        "version": fommctl.__version__, "model": "faces-mini", "preset": "faces-mini",
    }  # fmt: skip
    assert (data["media"]["width"], data["media"]["height"], data["media"]["frames"]) == (256, 256, 3)
    assert data["sidecar"]["fits"] is True
    assert data["sidecar"]["model"]["name"] == "faces-mini"
    assert data["credentials"]["state"] == ("none" if name in ("plain.mp4", "plain.gif") else "unread")
    assert data["changed"] == []


@pytest.mark.parametrize("name", ["signed.mp4", "signed.mov", "signed.gif"])
def test_a_signed_result(shots, look, run_cli, name):
    code, data = look(shots / name)
    assert (code, data["credentials"]["state"]) == (0, "valid")
    assert data["statement"]["digital_source_type"] == KIND
    assert data["sidecar"]["fits"] is True
    code, data = look(shots / name, "--trust", shots / "chain" / "root.pem")
    assert (code, data["credentials"]["state"], data["credentials"]["signer"]) == (0, "trusted", SIGNER)
    text = run_cli("inspect", shots / name).stdout
    for said in (
        "says that it is synthetic",
        "describes this file",
        SIGNER,
        "c2pa.created",
        "ingredient: clip.mp4",
    ):
        assert said in text


def _pictures(data):
    """Return offset and length of the coded pictures."""
    if data.startswith(b"GIF"):
        first = data.rindex(b"NETSCAPE2.0") + 40
        return first, len(data) - first - 2000
    return media_data(data)


@pytest.mark.parametrize("name", ["signed.mp4", "signed.mov", "signed.gif"])
def test_every_changed_byte_of_the_picture_is_detected(shots, look, run_cli, tmp_path, name):
    data = (shots / name).read_bytes()
    first, length = _pictures(data)
    for position in np.linspace(first, first + length - 1, 7).astype(int):
        changed = bytearray(data)
        changed[position] ^= 1
        (tmp_path / name).write_bytes(changed)
        code, found = look(tmp_path / name)
        assert (code, found["credentials"]["state"]) == (3, "invalid"), position
        assert any(problem.endswith("Hash.mismatch") for problem in found["credentials"]["problems"])
        assert found["changed"]
    assert "changed: it was changed after it was signed" in run_cli("inspect", tmp_path / name).stdout


def test_damaged_credentials_are_not_taken_for_none(shots, look, tmp_path):
    data = (shots / "signed.mp4").read_bytes()
    start = data.index(b"jumdc2pa")
    rng = np.random.default_rng(7)
    states = set()
    for position in rng.integers(start, start + 3000, 60):
        changed = bytearray(data)
        changed[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "a.mp4").write_bytes(changed)
        code, found = look(tmp_path / "a.mp4")
        states.add((code, found["credentials"]["state"]))
    assert (3, "invalid") in states
    # Changes in the padding of the signature have no effect; a removed mark stays removed.
    assert states <= {(3, "invalid"), (0, "valid"), (0, "none")}


def test_a_result_that_is_not_the_one_of_its_sidecar(shots, look, run_cli, tmp_path):
    for name in ("plain.mkv", "plain.mkv.json"):
        shutil.copy(shots / name, tmp_path)
    with (tmp_path / "plain.mkv").open("rb+") as file:
        file.seek(-100, 2)
        byte = file.read(1)
        file.seek(-100, 2)
        file.write(bytes([byte[0] ^ 1]))
    code, data = look(tmp_path / "plain.mkv")
    assert (code, data["sidecar"]["fits"]) == (3, False)
    assert data["changed"] == ["it is not the result that its sidecar describes"]
    (tmp_path / "plain.mkv.json").write_text("{")
    code, data = look(tmp_path / "plain.mkv")
    assert (code, data["sidecar"]["fits"], "is not a JSON file" in data["sidecar"]["note"]) == (0, False, True)
    assert "cannot be used" in run_cli("inspect", tmp_path / "plain.mkv").stdout


def test_files_of_others(shots, look, tmp_path):
    code, data = look(shots / "portrait.png")
    assert (code, data["synthetic"], data["credentials"]["state"], data["sidecar"]) == (0, False, "none", None)
    code, data = look(shots / "clip.mp4")
    assert (code, data["media"]["audio"], data["synthetic"]) == (0, ["aac"], False)
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><Iptc4xmpExt:DigitalSourceType>" + KIND.encode() + b"</x></x:xmpmeta>"
    Image.new("RGB", (16, 16)).save(tmp_path / "generated.jpg", xmp=xmp, comment=b"made up \x1b[31m")
    code, data = look(tmp_path / "generated.jpg")
    assert (code, data["synthetic"], data["statement"]["tool"]) == (0, True, None)
    (tmp_path / "notes.txt").write_text("a text")
    code, data = look(tmp_path / "notes.txt")
    assert (code, data["media"], data["credentials"]["state"]) == (0, None, "unread")
    assert data["notes"]


def test_texts_of_strangers_do_not_reach_the_terminal_as_they_are(run_cli, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.jpg", comment=b"hello \x1b]0;title\x07 there")
    assert "\x1b" not in run_cli("inspect", tmp_path / "a.jpg").stdout


def test_trust_has_to_be_satisfied(shots, look, run_cli, tmp_path):
    others = write_chain(tmp_path / "others")
    code, data = look(shots / "signed.mp4", "--trust", others.root)
    assert (code, data["credentials"]["state"]) == (3, "valid")
    assert data["credentials"]["problems"] == ["signingCredential.untrusted"]
    assert look(shots / "plain.mp4", "--trust", others.root)[0] == 3
    (tmp_path / "junk.pem").write_bytes(b"\xff junk")
    result = run_cli("inspect", shots / "signed.mp4", "--trust", tmp_path / "junk.pem")
    assert (result.code, "contains no PEM certificate" in result.stderr) == (2, True)
    assert run_cli("inspect", shots / "signed.mp4", "--trust", tmp_path / "gone.pem").code == 3


def test_a_certificate_that_expired_since_is_no_change_of_the_file(shots, look, tmp_path):
    chain = write_chain(tmp_path / "chain", days=(-1, 3 / 86400))
    credentials = read_credentials(chain.cert, chain.key)
    info = c2pa.C2paSignerInfo(credentials.algorithm, credentials.chain, credentials.key, None)
    created = {"action": "c2pa.created", "digitalSourceType": KIND}
    manifest = {"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}]}
    c2pa.Builder(manifest).sign_file(shots / "portrait.png", tmp_path / "a.png", c2pa.Signer.from_info(info))
    assert look(tmp_path / "a.png", "--trust", chain.root)[1]["credentials"]["state"] == "trusted"
    time.sleep(4)
    code, data = look(tmp_path / "a.png")
    assert (code, data["credentials"]["state"], data["changed"]) == (0, "expired", [])
    assert look(tmp_path / "a.png", "--trust", chain.root)[0] == 3


def test_without_the_package_the_rest_is_shown(shots, look, run_cli, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "c2pa", None)
    code, data = look(shots / "signed.mp4")
    assert (code, data["credentials"]["state"], data["synthetic"]) == (0, "not checked", True)
    assert "pip install" in data["credentials"]["note"]
    result = run_cli("inspect", shots / "signed.mp4", "--trust", shots / "chain" / "root.pem")
    assert (result.code, "pip install 'fommctl[c2pa]'" in result.stderr) == (5, True)


def test_a_sidecar_full_of_nonsense_is_a_note(shots, look, tmp_path):
    shutil.copy(shots / "plain.gif", tmp_path)
    for text in ("[]", json.dumps({"format": "fommctl sidecar", "version": 99}), "\0" * 100, "[" * 50_000):
        (tmp_path / "plain.gif.json").write_text(text)
        code, data = look(tmp_path / "plain.gif")
        assert (code, data["sidecar"]["fits"]) == (0, False)
        assert data["sidecar"]["note"]
