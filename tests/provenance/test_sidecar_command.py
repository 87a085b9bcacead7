"""Results are marked as synthetic; a sidecar renders them again, bit for bit."""

import contextlib
import json
import shutil
from fractions import Fraction

import av
import pytest
from PIL import Image
from shots import prepared_shot

import fommctl
from fommctl.animate.plan import open_driving
from fommctl.errors import InputError
from fommctl.media.output_paths import is_pattern, numbered
from fommctl.provenance.hashing import media_hash

OUTPUTS = ("a.mp4", "a.mov", "a.mkv", "a.webm", "a.gif", "frames/%02d.png")
KIND = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMMENT = f"Synthetic video, animated by fommctl {fommctl.__version__} with model faces-mini, preset faces-mini"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A prepared portrait and a short clip with sound."""
    return prepared_shot(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def rendered(inputs, animator, tmp_path_factory):
    """A folder with a result of every kind and its sidecar; read-only."""
    folder = tmp_path_factory.mktemp("rendered")
    for name in OUTPUTS:
        animator.animate(inputs / "portrait.png", inputs / "clip.mp4", folder / name, crop="none", sidecar=True)
    return folder


def stated(path):
    """Return the comment of a result, and everything that may contain XMP."""
    if is_pattern(path):
        with Image.open(numbered(path, 1)) as picture:
            picture.load()
            return picture.info["Comment"], picture.info["XML:com.adobe.xmp"]
    with av.open(str(path)) as container:
        for _ in container.decode(video=0):
            pass
        tags = {name.lower(): value for name, value in container.metadata.items()}
    return tags["comment"], f"{tags} {path.read_bytes().decode('latin-1')}"


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_container_says_that_the_result_is_synthetic(rendered, name):
    comment, rest = stated(rendered / name)
    assert comment == COMMENT
    assert KIND in rest


@pytest.mark.parametrize("options", [{"codec": "prores", "pix_fmt": "yuva444p10le"}, {"crop": "40,30,180"}])
def test_so_do_prores_with_alpha_and_results_in_the_whole_source(inputs, animator, tmp_path, options):
    out = tmp_path / "a.mov"
    animator.animate(
        inputs / "portrait.png", inputs / "clip.mp4", out, **{"crop": "none", "driving_crop": "none", **options}
    )
    comment, rest = stated(out)
    assert comment == COMMENT
    assert KIND in rest


def test_names_of_models_may_hold_anything(inputs, animator, tmp_path, monkeypatch):
    from dataclasses import replace

    monkeypatch.setattr(animator, "model", replace(animator.model, name='a\0b\n<&"\udcff\u202e' + 300 * "x"))
    for name in OUTPUTS:
        out = tmp_path / name
        animator.animate(inputs / "portrait.png", inputs / "clip.mp4", out, crop="none", end=Fraction(1, 25))
        assert 'model a\ufffdb\ufffd<&"\ufffd\ufffdxxx' in stated(out)[0]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_sidecar_renders_the_result_again_bit_for_bit(rendered, name, run_cli, tmp_path):
    out = tmp_path / name
    result = run_cli("animate", "--from-sidecar", rendered / f"{name}.json", "-o", out, "--json")
    assert result.code == 0, result.stderr
    recorded = json.loads((rendered / f"{name}.json").read_text())["output"]["sha256"]
    assert result.json()["reproduction"] == {
        "identical": True, "recorded_sha256": recorded, "sha256": recorded, "differences": [],
    }  # fmt: skip
    assert media_hash(out) == media_hash(rendered / name) == recorded


def test_a_moved_folder_still_works(inputs, rendered, run_cli, tmp_path):
    shot = tmp_path / "shot"
    shot.mkdir()
    for path in (inputs / "portrait.png", inputs / "clip.mp4", rendered / "a.mkv.json"):
        shutil.copy(path, shot)
    sidecar = shot / "a.mkv.json"
    record = json.loads(sidecar.read_text())
    for file in ("source", "driving"):
        record["inputs"][file] |= {"path": f"/elsewhere/{record['inputs'][file]['path']}"[-60:], "relative": "gone/x"}
        record["inputs"][file]["path"] = "/elsewhere/" + record["inputs"][file]["path"].rpartition("/")[2]
    sidecar.write_text(json.dumps(record))
    result = run_cli("animate", "--from-sidecar", sidecar)
    assert result.code == 0, result.stderr
    assert "identical to the recorded result" in result.stdout
    assert (shot / "a.mkv").read_bytes() == (rendered / "a.mkv").read_bytes()


@pytest.fixture
def shot(inputs, rendered, tmp_path):
    """Copies of inputs and a sidecar, which are found by lying in one folder, and a function that changes the
    sidecar."""
    for path in (inputs / "portrait.png", inputs / "clip.mp4", rendered / "a.gif.json"):
        shutil.copy(path, tmp_path)
    record = json.loads((tmp_path / "a.gif.json").read_text())
    for name, file in (("source", "portrait.png"), ("driving", "clip.mp4")):
        record["inputs"][name] |= {"path": file, "relative": file}

    def change(edit):
        edit(record)
        (tmp_path / "a.gif.json").write_text(json.dumps(record))
        return tmp_path / "a.gif.json"

    return change


def test_nothing_vouches_for_a_video_that_was_replaced_meanwhile(inputs, animator, tmp_path, monkeypatch):
    """The video is replaced, under the same name, between the moment at which it is opened and the end."""
    for name in ("portrait.png", "clip.mp4"):
        shutil.copy(inputs / name, tmp_path)

    @contextlib.contextmanager
    def replacing(*arguments):
        with open_driving(*arguments) as driving:
            (tmp_path / "clip.mp4").rename(tmp_path / "first.mp4")
            shutil.copy(inputs / "clip.mp4", tmp_path)
            yield driving

    monkeypatch.setattr("fommctl.animate.run.open_driving", replacing)
    with pytest.raises(InputError, match=r"clip\.mp4 changed while it was being read"):
        animator.animate(
            tmp_path / "portrait.png", tmp_path / "clip.mp4", tmp_path / "a.mkv", crop="none", sidecar=True
        )
    assert not (tmp_path / "a.mkv.json").exists()


def _set(*keys_and_value):
    *keys, last, value = keys_and_value

    def edit(record):
        for key in keys:
            record = record[key]
        record[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "code", "complaint"),
    [
        (_set("inputs", "source", "sha256", 64 * "0"), 3, "the source has changed: "),
        (_set("inputs", "driving", "sha256", "../../etc"), 2, "is damaged at inputs.driving.sha256"),
        (_set("inputs", "driving", {"path": "no.mp4", "relative": None, "sha256": 64 * "0"}), 3,
         "the driving video is not there"),
        (_set("inputs", "source", {"path": "/dev/zero", "relative": "\0", "sha256": 64 * "0"}), 3,
         "the source is not there: /dev/zero"),
        (_set("model", "file", "sha256", 64 * "0"), 4, "the model has changed"),
        (_set("model", "preset", "model_params: ["), 2, "preset of the sidecar"),
        (_set("options", "output", "/tmp/elsewhere.gif"), 2, "it names output"),
        (_set("options", "no_such_option", 1), 2, "animate has no option 'no_such_option'"),
        (_set("options", "adapt_scale", 7), 2, "--adapt-scale cannot be 7"),
        (_set("options", "end", "1/0"), 2, "a time of '1/0'"),
        (_set("options", "batch_size", -1), 2, "--batch-size cannot be "),
        (_set("settings", "torch_threads", 10**9), 2, "is damaged at settings.torch_threads"),
        (_set("settings", "seed", "0"), 2, "is damaged at settings.seed"),
        (_set("settings", "precision", "fp8"), 2, "fp8"),
        (_set("version", 2), 2, "has version 2, but this fommctl reads version 1"),
        (_set("format", None), 2, "is not a fommctl sidecar"),
    ],
)  # fmt: skip
def test_sidecars_that_lie_are_refused(shot, run_cli, tmp_path, edit, code, complaint):
    result = run_cli("animate", "--from-sidecar", shot(edit), "-o", tmp_path / "again.gif")
    assert (result.code, complaint in result.stderr) == (code, True), result.stderr
    assert not (tmp_path / "again.gif").exists()


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, "{", "[]", "\ufeff{}", '{"format": "fommctl sidecar", "version": 1}']
)
def test_files_that_are_no_sidecar(run_cli, tmp_path, text):
    (tmp_path / "a.mp4.json").write_text(text)
    result = run_cli("animate", "--from-sidecar", tmp_path / "a.mp4.json")
    assert result.code == (3 if not text else 2), result.stderr
    (tmp_path / "big.mp4.json").write_bytes(b" " * (8 * 2**20 + 1))
    assert "too large" in run_cli("animate", "--from-sidecar", tmp_path / "big.mp4.json").stderr


def test_another_environment_is_named_and_the_same_one_must_give_the_same(shot, run_cli, tmp_path):
    sidecar = shot(_set("output", "sha256", 64 * "0"))
    result = run_cli("animate", "--from-sidecar", sidecar, "-o", tmp_path / "one.gif")
    assert result.code == 6
    assert "differs from the recorded result, although versions and processor are the same" in result.stderr
    sidecar = shot(_set("environment", "versions", "torch", "1.0"))
    result = run_cli("animate", "--from-sidecar", sidecar, "-o", tmp_path / "two.gif", "--json")
    assert result.code == 0
    reproduction = result.json()["reproduction"]
    assert reproduction["identical"] is False
    assert next(line for line in reproduction["differences"] if line.startswith("torch ")).endswith(", then 1.0")


def test_a_sidecar_is_not_replaced_unasked(inputs, rendered, run_cli, tmp_path):
    (tmp_path / "a.mp4.json").write_text("mine")
    command = ("animate", inputs / "portrait.png", inputs / "clip.mp4", "-o", tmp_path / "a.mp4", "--sidecar")
    result = run_cli(*command)
    assert (result.code, "the sidecar already exists" in result.stderr) == (2, True)
    assert (tmp_path / "a.mp4.json").read_text() == "mine"
