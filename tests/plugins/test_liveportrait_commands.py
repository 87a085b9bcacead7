"""LivePortrait by the commands: a file in the published layout animates, with results twice as large as the inputs."""

import json
import os
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
import yaml
from media_factory import write_frames
from PIL import Image
from shots import face_clip

import fommctl
from fommctl.host import load_host, why_not_ready
from fommctl.media.reader import Reader
from fommctl.presets.preset import load_preset

PREPARED = ("--device", "cpu", "--precision", "fp32", "--json")
SMALL = ("--preset", "small-liveportrait")


def picture(seed, size=(64, 64)):
    points = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(points).resize(size, Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A source, four driving frames, and a model in the published layout: small networks in groups, with separate
    spectral norm."""
    folder, host = tmp_path_factory.mktemp("liveportrait"), load_host()
    spec = host.find("backend", "liveportrait")
    Image.fromarray(picture(0, (200, 150))).save(folder / "source.png")
    write_frames(folder / "driving", [picture(10 + index) for index in range(4)])
    torch.manual_seed(0)
    backend = spec.build(load_preset("small-liveportrait", host).model_params)
    groups = spec.to_published({name: network.state_dict() for name, network in backend.modules().items()})
    torch.save({name: {f"module.{key}": each for key, each in group.items()} for name, group in groups.items()},
               folder / "small.pth")  # fmt: skip
    return folder


def frames(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


def animate(run_cli, folder, output, *options, code=0):
    result = run_cli("animate", folder / "source.png", folder / "driving", "-o", output / "%03d.png", "--model",
                     folder / "small.pth", *SMALL, *PREPARED, *options)  # fmt: skip
    assert result.code == code, result.stderr
    return result


def test_frames_are_larger_than_what_the_model_sees(folder, run_cli, tmp_path):
    report = animate(run_cli, folder, tmp_path / "out", "--crop", "none").json()
    assert (report["width"], report["height"], report["motion"]) == (128, 128, "relative")
    assert frames(tmp_path / "out").shape == (4, 128, 128, 3)
    large = animate(run_cli, folder, tmp_path / "large", "--crop", "none", "--size", "128").json()
    assert (large["width"], large["height"]) == (128, 128)
    assert np.abs(frames(tmp_path / "large").astype(int) - frames(tmp_path / "out")).mean() < 10
    odd = animate(run_cli, folder, tmp_path / "odd", "--crop", "none", "--size", "100", code=2).json()
    assert odd["error"]["hint"] == "The native size is 64; 128 and other whole multiples work."
    beside = animate(run_cli, folder, tmp_path / "beside", "--crop", "none", "--compare").json()
    assert (beside["width"], beside["height"]) == (3 * 128, 128)
    animator = fommctl.load(folder / "small.pth", preset="small-liveportrait", device="cpu", precision="fp32")
    made = list(animator.frames(picture(0), [picture(10 + index) for index in range(4)]))
    assert made[0].shape == (128, 128, 3)


def test_the_square_comes_back_into_the_picture(folder, run_cli, tmp_path):
    report = animate(run_cli, folder, tmp_path / "out", "--crop", "30,20,90").json()
    assert (report["width"], report["height"]) == (200, 150)
    source = np.asarray(Image.open(folder / "source.png"))
    made = frames(tmp_path / "out")
    assert (made[:, :19] == source[:19]).all()
    assert (made[:, 40:90, 50:100] != source[40:90, 50:100]).any()


def test_each_mode_moves_otherwise(folder, run_cli, tmp_path):
    made = {}
    for mode in ("relative", "absolute", "animal"):
        assert animate(run_cli, folder, tmp_path / mode, "--crop", "none", "--motion", mode).json()["motion"] == mode
        made[mode] = frames(tmp_path / mode)
    assert (made["relative"] != made["absolute"]).any()
    assert (made["relative"] != made["animal"]).any()
    result = animate(run_cli, folder, tmp_path / "none", "--crop", "none", "--motion", "avd", code=2)
    assert result.json()["error"]["message"] == "liveportrait models do not support --motion avd"
    assert "relative or absolute or animal" in result.json()["error"]["hint"]


def test_a_motion_file_holds_the_parts_of_a_face(folder, run_cli, tmp_path):
    path = tmp_path / "take.motion.safetensors"
    animate(run_cli, folder, tmp_path / "out", "--crop", "none", "--motion-out", path)
    motion = fommctl.Motion.load(path)
    assert {name: part.shape[1:] for name, part in motion.parts.items()} == {
        "rotation": (3, 3),
        "expression": (21, 3),
        "scale": (1,),
        "translation": (3,),
        "canonical": (21, 3),
    }
    smooth = animate(run_cli, folder, tmp_path / "smooth", "--crop", "none", "--smooth")
    assert smooth.json()["frames"] == 4


def test_a_published_file_is_read_imported_and_exported(folder, run_cli, tmp_path, monkeypatch):
    monkeypatch.setenv("FOMMCTL_HOME", str(tmp_path / "home"))
    imported = run_cli("models", "import", folder / "small.pth", "--name", "face", "--licence", "MIT", "--json", *SMALL)
    assert imported.code == 0, imported.stderr
    exported = run_cli("models", "export", "face", "-o", tmp_path / "again.pth", "--json")
    assert exported.code == 0, exported.stderr
    one, other = (torch.load(path, weights_only=True) for path in (folder / "small.pth", tmp_path / "again.pth"))
    name = "up_0.conv_0.weight_orig"
    assert torch.equal(one["spade_generator"][f"module.{name}"], other["spade_generator"][name])


def test_a_folder_of_published_files_is_a_model(folder, run_cli, tmp_path):
    """One file per network, the small ones in one, as in the repository."""
    groups = torch.load(folder / "small.pth", weights_only=True)
    model = tmp_path / "LivePortrait"
    (model / "base_models").mkdir(parents=True)
    small = {name: groups.pop(name) for name in ("retarget_shoulder", "retarget_mouth", "retarget_eye")}
    torch.save(small, model / "stitching_retargeting_module.pth")
    for name, group in groups.items():
        torch.save(group, model / "base_models" / f"{name}.pth")
    animate(run_cli, folder, tmp_path / "one", "--crop", "none")
    result = run_cli("animate", folder / "source.png", folder / "driving", "-o", tmp_path / "other/%03d.png", "--model",
                     model, *SMALL, *PREPARED, "--crop", "none")  # fmt: skip
    assert result.code == 0, result.stdout
    assert (frames(tmp_path / "other") == frames(tmp_path / "one")).all()
    written = tmp_path / "written"
    exported = run_cli("models", "export", model, "-o", written, "--json", *SMALL)
    assert exported.code == 0, exported.stdout
    assert sorted(path.relative_to(written).as_posix() for path in written.rglob("*.pth")) == [
        *(f"base_models/{name}.pth" for name in sorted(groups)), "retargeting_models/stitching_retargeting_module.pth",
    ]  # fmt: skip
    assert exported.json()["size"] == sum(path.stat().st_size for path in written.rglob("*.pth"))
    bundle = torch.load(written / "retargeting_models/stitching_retargeting_module.pth", weights_only=True)
    assert bundle.keys() == small.keys()
    assert "first.conv.weight" in torch.load(
        written / "base_models/appearance_feature_extractor.pth", weights_only=True
    )
    result = run_cli("animate", folder / "source.png", folder / "driving", "-o", tmp_path / "back/%03d.png", "--model",
                     written, *SMALL, *PREPARED, "--crop", "none")  # fmt: skip
    assert result.code == 0, result.stdout
    assert (frames(tmp_path / "back") == frames(tmp_path / "one")).all()
    again = run_cli("models", "export", model, "-o", written, "--json", *SMALL)
    assert again.code == 2
    (model / "base_models" / "spade_generator.pth").unlink()
    result = run_cli("animate", folder / "source.png", folder / "driving", "-o", tmp_path / "no/%03d.png", "--model",
                     model, *SMALL, *PREPARED, "--crop", "none")  # fmt: skip
    assert result.code == 4, result.stdout
    assert "lacks the networks spade_generator" in result.json()["error"]["message"]


def write_template(path, **more):
    """Write three frames of a motion template as LivePortrait pickles it."""
    random = np.random.default_rng(0)
    frames = [
        {
            "R": np.eye(3, dtype=np.float32)[None],
            "exp": 0.01 * random.normal(size=(1, 21, 3)).astype(np.float32),
            "scale": np.full((1, 1), 1.2, np.float32),
            "t": np.zeros((1, 3), np.float32),
            "kp": random.normal(size=(1, 21, 3)).astype(np.float32),
        }
        for _ in range(3)
    ]
    eyes, lips = [np.full((1, 2), 0.3, np.float32)] * 3, [np.full((1, 1), 0.1, np.float32)] * 3
    content = {"n_frames": 3, "output_fps": np.float64(12.5), "motion": frames, "c_eyes_lst": eyes, "c_lip_lst": lips}
    path.write_bytes(pickle.dumps(content | more))


def test_a_motion_template_drives_and_becomes_a_motion_file(folder, run_cli, tmp_path):
    template = tmp_path / "wink.pkl"
    write_template(template)
    arguments = ("--model", folder / "small.pth", *SMALL, *PREPARED, "--crop", "none")
    result = run_cli("animate", folder / "source.png", template, "-o", tmp_path / "out.mkv", "--motion-out",
                     tmp_path / "wink.motion", *arguments)  # fmt: skip
    assert result.code == 0, result.stdout
    assert (result.json()["frames"], result.json()["fps"]) == (3, "25/2")
    motion = fommctl.Motion.load(tmp_path / "wink.motion")
    assert motion.parts["openings"].tolist() == pytest.approx(np.array([[0.3, 0.3, 0.1]] * 3))
    assert motion.parts["scale"][0, 0] == np.float32(1.2)
    again = run_cli("animate", folder / "source.png", tmp_path / "wink.motion", "-o", tmp_path / "b.mkv", *arguments)
    assert again.code == 0, again.stdout
    assert (tmp_path / "b.mkv").read_bytes() == (tmp_path / "out.mkv").read_bytes()


class Runs:
    def __reduce__(self):
        return os.system, ("touch was-run",)


def test_nothing_in_a_template_runs(folder, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_template(tmp_path / "evil.pkl", c_lip_lst=Runs())
    write_template(tmp_path / "objects.pkl", c_lip_lst=np.array([None, {}], object))
    (tmp_path / "cut.pkl").write_bytes((tmp_path / "evil.pkl").read_bytes()[:200])
    (tmp_path / "text.pkl").write_text("no pickle")
    for name in ("evil", "objects", "cut", "text"):
        result = run_cli("animate", folder / "source.png", f"{name}.pkl", "-o", "out.mkv", "--model",
                         folder / "small.pth", *SMALL, *PREPARED, "--crop", "none")  # fmt: skip
        assert result.code == 3, result.stdout
        assert f"{name}.pkl cannot be read as a motion template" in result.json()["error"]["message"]
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "out.mkv").exists()


def edit(run_cli, folder, *options, code=0):
    result = run_cli("edit", folder / "source.png", *options, "--model", folder / "small.pth", *SMALL, *PREPARED,
                     "--crop", "none")  # fmt: skip
    assert result.code == code, result.stdout + result.stderr
    return result.json()


def test_a_portrait_is_edited_by_numbers(folder, run_cli, tmp_path):
    still, turned = tmp_path / "still.png", tmp_path / "turned.png"
    edit(run_cli, folder, "-o", still)
    report = edit(run_cli, folder, "-O", "yaw=30,smile=1", "-O", "blink=0.5", "-o", turned)
    assert (report["output"], report["width"]) == (str(turned), 128)
    one, other = (np.asarray(Image.open(path)).astype(int) for path in (still, turned))
    assert one.shape == other.shape == (128, 128, 3)
    assert np.abs(one - other).max() > 0
    assert "exists" in edit(run_cli, folder, "-o", still, code=2)["error"]["message"]
    error = edit(run_cli, folder, "-O", "smil=1", "-o", tmp_path / "no.png", code=2)["error"]
    assert error["message"] == "liveportrait models have no option 'smil' (did you mean 'smile'?)"
    assert not (tmp_path / "no.png").exists()


def test_curves_move_a_portrait_over_time(folder, run_cli, tmp_path):
    curves = tmp_path / "turn.csv"
    curves.write_text("time,yaw\n0,0\n0.1,30\n0.2,0\n")
    report = edit(run_cli, folder, "--curves", curves, "--fps", "20", "-o", tmp_path / "out/%03d.png")
    assert report["frames"] == 5
    made = frames(tmp_path / "out")
    assert (made[0] == made[4]).all()
    assert (made[1] == made[3]).all()
    assert (made[0] != made[2]).any()
    curves.write_text("yaw\nx\n")
    error = edit(run_cli, folder, "--curves", curves, "-o", tmp_path / "no.mp4", code=3)["error"]
    assert error["message"] == "turn.csv, line 2: yaw is 'x', not a number"


def test_other_models_have_nothing_to_edit(folder, run_cli, tmp_path):
    result = run_cli("edit", folder / "source.png", "-o", tmp_path / "no.png", "--crop", "none", "--json")
    assert result.code == 2
    assert "fomm models do not support editing" in result.json()["error"]["message"]


def test_what_can_be_edited_is_listed(run_cli):
    (shown,) = json.loads(run_cli("plugins", "show", "liveportrait", "--json").stdout)["plugins"]
    assert shown["edits"]["liveportrait"]["yaw"] == {
        "type": "a number",
        "default": "0.0",
        "help": "Turn the head, in degrees.",
    }
    assert "region" in shown["options"]["liveportrait"]


def test_the_square_of_a_video_follows_its_face_by_landmarks(folder, run_cli, tmp_path):
    host = load_host()
    if reason := why_not_ready(host.find("detector", "dlib-68")):
        pytest.skip(reason)
    small = yaml.safe_load(load_preset("small-liveportrait", host).text())
    small["framing"] = yaml.safe_load(load_preset("liveportrait", host).text())["framing"]
    (tmp_path / "framed.yaml").write_text(yaml.safe_dump(small))
    face_clip(tmp_path / "talk.mkv", count=6, rate=Fraction(25))
    words = ("--model", folder / "small.pth", "--preset", tmp_path / "framed.yaml", *PREPARED)
    out = tmp_path / "out" / "%d.png"
    made = run_cli("animate", tmp_path / "talk.mkv", tmp_path / "talk.mkv", "-o", out, "--source-video", *words)
    assert made.code == 0, made.stderr
    with Reader(tmp_path / "talk.mkv") as reader:
        source = np.stack([frame.pixels for frame in reader]).astype(int)
    changed = (np.abs(frames(tmp_path / "out") - source) > 8).any(-1)
    # Random weights generate noise in a square that is rotated with the head; around it, the picture is the source.
    edges = [np.flatnonzero(each.any(0))[[0, -1]].tolist() for each in changed]
    assert not changed[:, -20:].any()
    assert all(30 < left < 80 < 250 < right < 300 for left, right in edges)
    assert edges[-1][0] < edges[0][0] - 3
