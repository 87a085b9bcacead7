"""`animate --sign`: the content of signed results, what cannot sign, and that nothing unsigned appears."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from boxes import media_data
from certificates import DOCUMENT_SIGNING, SERVER, SIGNER, Chain, write_chain
from shots import prepared_shot
from small_disk import files_up_to

import fommctl
from fommctl.errors import OutputError
from fommctl.media.writer import Writer
from fommctl.provenance.inspection import verify

KIND = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SHORT = ("--crop", "none", "--precision", "fp32", "--end", "0.08")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return prepared_shot(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return write_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def sign(inputs, animator):
    """sign(output, chain, ...): animates two frames and signs them."""

    def run(output, chain, source="portrait.png", driving="clip.mp4", **options):
        options = {"crop": "none", "end": Fraction(2, 25), **options}
        return animator.animate(
            inputs / source, inputs / driving, output, sign=chain.cert, sign_key=chain.key, **options
        )

    return run


def frames(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.gif"])
def test_a_signed_result_tells_what_it_was_made_from_and_by_whom(sign, inputs, animator, chain, tmp_path, name):
    out = tmp_path / name
    sign(out, chain)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    found = verify(out, chain.root)
    assert (found.state, found.problems) == ("trusted", ())
    assert (found.signer, found.issuer, found.algorithm) == (SIGNER, "Tests", "Es256")
    assert found.generator == f"fommctl {fommctl.__version__}"
    assert found.actions == ({"action": "c2pa.created", "digital_source_type": KIND},)
    assert found.ingredients == (
        {"title": "portrait.png", "relationship": "inputTo", "state": "none"},
        {"title": "clip.mp4", "relationship": "inputTo", "state": "none"},
    )
    assert found.animation["model"]["name"] == "faces-mini"
    assert len(found.animation["model"]["sha256"]) == 64
    assert [each["role"] for each in found.animation["inputs"]] == ["source", "driving"]
    assert verify(out).state == "valid"  # The signer is not trusted yet.
    plain = tmp_path / f"plain-{name}"
    animator.animate(inputs / "portrait.png", inputs / "clip.mp4", plain, crop="none", end=Fraction(2, 25))
    assert frames(out) == frames(plain)


@pytest.mark.parametrize(("kind", "algorithm"), [("p384", "Es384"), ("rsa", "Ps256"), ("ed25519", "Ed25519")])
def test_the_key_chooses_the_algorithm(sign, tmp_path, kind, algorithm):
    chain = write_chain(tmp_path / "chain", kind, usage=DOCUMENT_SIGNING)
    sign(tmp_path / "a.mp4", chain)
    found = verify(tmp_path / "a.mp4", chain.root)
    assert (found.state, found.algorithm) == ("trusted", algorithm)


def test_signed_inputs_are_ingredients_with_their_credentials(sign, inputs, chain, tmp_path):
    signed = tmp_path / "signed.mp4"
    sign(signed, chain, end=None)
    data = bytearray(signed.read_bytes())
    data[media_data(data)[0] + 500] ^= 1
    (tmp_path / "tampered.mp4").write_bytes(data)
    for name, state in (("signed", "valid"), ("tampered", "invalid")):
        sign(tmp_path / f"again-{name}.mp4", chain, driving=tmp_path / f"{name}.mp4")
        found = verify(tmp_path / f"again-{name}.mp4", chain.root)
        assert found.state == "trusted"
        assert {each["title"]: each["state"] for each in found.ingredients} == {
            "portrait.png": "none",
            f"{name}.mp4": state,
        }


def test_frames_and_other_containers_may_be_inputs(sign, inputs, animator, chain, tmp_path):
    (tmp_path / "in").mkdir()
    for driving in (tmp_path / "in" / "%02d.png", tmp_path / "drive.mkv"):
        animator.animate(inputs / "portrait.png", inputs / "clip.mp4", driving, crop="none", end=Fraction(2, 25))
        out = tmp_path / f"{driving.stem.strip('%')}.mp4"
        sign(out, chain, driving=driving)
        found = verify(out, chain.root)
        assert found.state == "trusted"
        assert [each["title"] for each in found.ingredients][-2:] != []
        assert {each["title"] for each in found.ingredients} == {"portrait.png", driving.name}


def test_a_sidecar_of_a_signed_result_renders_the_unsigned_one(sign, run_cli, chain, tmp_path):
    sign(tmp_path / "a.mp4", chain, sidecar=True)
    record = json.loads((tmp_path / "a.mp4.json").read_text())
    assert record["output"]["sha256"] != record["output"]["unsigned_sha256"]
    result = run_cli("animate", "--from-sidecar", tmp_path / "a.mp4.json", "-o", tmp_path / "b.mp4", "--json")
    assert result.code == 0, result.stderr
    assert result.json()["reproduction"]["identical"] is True
    assert result.json()["reproduction"]["sha256"] == record["output"]["unsigned_sha256"]


def _refused(run_cli, inputs, out, *options):
    result = run_cli("animate", inputs / "portrait.png", inputs / "clip.mp4", "-o", out, *SHORT, *options)
    assert not out.exists()
    assert "Traceback" not in result.stderr
    return result.code, result.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"days": (-9, -2)}, "cert.pem expired on "),
        ({"days": (2, 9)}, "cert.pem is valid only from "),
        ({"usage": SERVER}, "cert.pem cannot sign: the certificate is invalid"),
        ({"usage": None}, "cert.pem cannot sign: the certificate is invalid"),
        ({"kind": "k256"}, "key.pem is of a type that cannot sign content credentials"),
        ({"kind": "rsa1024"}, "key.pem is of a type that cannot sign content credentials"),
        ({"password": b"secret"}, "key.pem is encrypted"),
    ],
)
def test_what_cannot_sign_is_reported_before_rendering(run_cli, inputs, tmp_path, options, complaint):
    chain = write_chain(tmp_path / "chain", **options)
    code, said = _refused(run_cli, inputs, tmp_path / "a.mp4", *chain.options)
    assert (code, complaint in said) == (2, True), said


def test_an_encrypted_key_is_opened_by_the_password_in_the_environment(sign, run_cli, inputs, tmp_path, monkeypatch):
    chain = write_chain(tmp_path / "chain", password="Schlüssel".encode())
    monkeypatch.setenv("FOMMCTL_KEY_PASSWORD", "wrong")
    code, said = _refused(run_cli, inputs, tmp_path / "a.mp4", *chain.options)
    assert (code, "the password in FOMMCTL_KEY_PASSWORD is wrong for" in said) == (2, True)
    monkeypatch.setenv("FOMMCTL_KEY_PASSWORD", "Schlüssel")
    sign(tmp_path / "a.mp4", chain)
    assert verify(tmp_path / "a.mp4", chain.root).state == "trusted"


def test_files_that_are_no_certificate_or_key(run_cli, inputs, chain, tmp_path):
    out, junk, gone = tmp_path / "a.mp4", tmp_path / "junk.pem", tmp_path / "gone.pem"
    junk.write_bytes(b"junk")
    big = tmp_path / "big.pem"
    big.write_bytes(bytes(2**20 + 1))
    other = write_chain(tmp_path / "other")
    cases = [
        (gone, chain.key, 3, "does not exist"),
        (chain.cert, gone, 3, "does not exist"),
        (junk, chain.key, 2, "contains no PEM certificate"),
        (chain.cert, junk, 2, "contains no PEM private key"),
        (chain.cert, chain.cert, 2, "contains no PEM private key"),
        (chain.cert, other.key, 2, "is not the key of the first certificate"),
        (big, chain.key, 2, "too large for a PEM file"),
        (Path("/dev/zero"), chain.key, 3, "is not a regular file"),
    ]
    for cert, key, expected, complaint in cases:
        code, said = _refused(run_cli, inputs, out, "--sign", cert, "--key", key)
        assert (code, complaint in said) == (expected, True), said
    code, said = _refused(run_cli, inputs, out, "--sign", chain.cert)
    assert (code, "--sign and --key need each other" in said) == (2, True)


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "%02d.png"])
def test_containers_without_a_place_for_credentials(run_cli, inputs, chain, tmp_path, name):
    code, said = _refused(run_cli, inputs, tmp_path / name, *chain.options)
    assert (code, "cannot have content credentials" in said) == (2, True), said
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_there_is_a_command_to_install_it(run_cli, inputs, chain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    code, said = _refused(run_cli, inputs, tmp_path / "a.mp4", *chain.options)
    assert (code, "pip install 'fommctl[c2pa]'" in said) == (5, True), said


def test_a_key_that_others_can_read_is_a_warning(sign, tmp_path):
    chain = write_chain(tmp_path / "chain")
    chain.key.chmod(0o644)
    result = sign(tmp_path / "a.mp4", chain)
    assert f"other users can read the private key {chain.key}: restrict it with chmod 600" in result.warnings


def test_a_result_that_cannot_be_signed_does_not_appear(sign, chain, tmp_path, monkeypatch):
    mine = Chain(tmp_path / "c.pem", tmp_path / "k.pem", chain.root)
    mine.cert.write_bytes(chain.cert.read_bytes())
    mine.key.write_bytes(chain.key.read_bytes())
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "a.mp4"
    out.write_bytes(b"an older result")
    import c2pa

    def fails(self, *arguments):
        raise c2pa.C2paError("Signature: the device is gone")

    from fommctl.animate import plan

    monkeypatch.setattr(plan, "check_signing", lambda *files: ())
    monkeypatch.setattr(c2pa.Builder, "sign", fails)
    with pytest.raises(OutputError, match=r"cannot sign .*a\.mp4: the device is gone"):
        sign(out, mine, overwrite=True)
    assert [entry.name for entry in out.parent.iterdir()] == ["a.mp4"]
    assert out.read_bytes() == b"an older result"


def test_a_full_disk_while_signing_leaves_nothing(sign, chain, tmp_path, monkeypatch):
    """The limit is the size of the unsigned file; the signed one is larger."""
    from fommctl.provenance.signing import Signature

    signs = Signature.__call__

    def with_limit(self, finished):
        with files_up_to(finished.stat().st_size):
            signs(self, finished)

    monkeypatch.setattr(Signature, "__call__", with_limit)
    with pytest.raises(OutputError, match=r"the disk is full: .*a\.mp4"):
        sign(tmp_path / "a.mp4", chain)
    assert list(tmp_path.iterdir()) == []


def test_keys_are_never_shown():
    from fommctl.provenance.signing import Credentials

    assert "secret" not in repr(Credentials(b"chain", b"secret", "es256"))


@pytest.mark.slow
def test_signing_and_verifying_take_little_memory_however_long_the_video_is(chain, tmp_path):
    """`mdat` has 45 MB: the library itself would need as much for verifying, and twice as much for signing."""
    video, script = tmp_path / "long.mov", tmp_path / "sign.py"
    with Writer(video, width=1280, height=720, rate=Fraction(25), codec="prores") as writer:
        noise = np.random.default_rng(1).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
        for index in range(24):
            writer.write(noise, Fraction(index, 25), Fraction(1, 25))
    assert video.stat().st_size > 40e6
    script.write_text(f"""
import resource, sys
from pathlib import Path
from fommctl.provenance.hashing import InputFile
from fommctl.provenance.signing import Signature, check_signing
from fommctl.media.writer import Writer
from fommctl.provenance.inspection import verify
video = Path({str(video)!r})
files = Path("out.mov"), Path({str(chain.cert)!r}), Path({str(chain.key)!r})
check_signing(*files)
inputs = [(role, InputFile.of(video)) for role in ("source", "driving")]
class Plain(Signature):
    def _about(self):
        return {{}}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
Plain(*files, inputs, {{}})(video)
assert verify(video).state == "valid"
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
""")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert int(done.stdout) < 30
