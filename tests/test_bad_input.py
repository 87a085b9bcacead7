"""A table of bad input: each command line gives one error line with a hint and the exit code, and changes nothing."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result
from media_factory import solid, write_clip, write_sound
from PIL import Image
from shots import ASTRONAUT, portrait

YAML_CODE = "model_params: !!python/object/apply:os.system ['touch pwned']\n"
"""YAML that would run a program in a reader that builds Python objects."""
WRONG_TYPES = "backend: fomm\nmodel_params:\n  common_params: {num_kp: ten, num_channels: 3}\n  kp_detector_parms: {}\n"
JOB = {"source": "portrait.png", "driving": "clip.mp4", "output": "made.mkv"}

# Command line in a folder of the files below, exit code, part of the message.
ANIMATE = "animate portrait.png clip.mp4 --crop none"
TRAIN = "train --preset smoke --data data --out run"
EVALUATE = "evaluate --data data -o scores"
TABLE = f"""
nonesuch | 2 | no such command 'nonesuch'
--nonesuch | 2 | no such option: --nonesuch
animate | 2 | missing argument 'SOURCE'
animate portrait.png | 2 | missing argument 'DRIVING'
{ANIMATE} --log-format xml | 2 | invalid value for '--log-format': 'xml' is not one of
{ANIMATE} -q -v | 2 | --quiet and --verbose exclude each other
{ANIMATE} --modle vox-256 | 2 | --model

animate missing.png clip.mp4 --crop none | 3 | missing.png does not exist
animate portrait.png missing.mp4 --crop none | 3 | missing.mp4 does not exist
animate folder.mp4 clip.mp4 --crop none | 3 | folder.mp4
animate portrait.png folder.mp4 --crop none | 3 | folder.mp4 contains no pictures
animate portrait.png text.mp4 --crop none | 3 | text.mp4
animate text.mp4 clip.mp4 --crop none | 3 | text.mp4
animate portrait.png empty.mp4 --crop none | 3 | empty.mp4 is empty
animate portrait.png header.mp4 --crop none | 3 | header.mp4 is not a readable video or picture
animate portrait.png tail.mp4 --crop none | 3 | tail.mp4
animate portrait.png 'none%04d.png' --crop none | 3 | none%04d.png matches no file
animate portrait.png list.m3u8 --crop none | 3 | playlist
animate portrait.png tone.wav --crop none | 3 | holds sound and no video
animate huge.png clip.mp4 --crop none | 3 | huge.png is too large: 20000 x 20000 pixels
animate meadow.png clip.mp4 | 3 | no face found
animate ASTRONAUT meadow.mp4 | 3 | give --driving-crop none

{ANIMATE} --model vx-256 | 2 | unknown model 'vx-256'
{ANIMATE} --preset vox-265 | 2 | vox-256
{ANIMATE} --preset code.yaml | 2 | code.yaml:1: the tag !!python/object/apply:os.system is not allowed
{ANIMATE} --preset types.yaml | 2 | types.yaml:3
{ANIMATE} --preset vox | 5 | fommctl models pull vox
{ANIMATE} --model model.pth.tar | 4 | model.pth.tar
{ANIMATE} --set model_params.nmu_kp=3 | 2 | nmu_kp
{ANIMATE} --device tpu | 2 | tpu
{ANIMATE} --precision int8 | 2 | int8
{ANIMATE} --batch-size 0 | 2 | batch
{ANIMATE} --motion relatve | 2 | relative
{ANIMATE} --detector hog | 2 | dlib-hog
{ANIMATE} --view portrait.png | 2 | use one picture

{ANIMATE} -o out.xyz | 3 | .mp4
{ANIMATE} -o no/such/out.mp4 | 3 | no/such
{ANIMATE} -o clip.mp4 --overwrite | 2 | input
{ANIMATE} -o sound.mp4 | 2 | exists
{ANIMATE} -o {"n" * 250}.mp4 --sidecar | 2 | the name of the sidecar is too long
{ANIMATE} --codec h266 | 3 | h266
{ANIMATE} --crf 99 | 2 | 99
{ANIMATE} --fps fast | 2 | 30000/1001
{ANIMATE} --audio driving | 2 | no sound
{ANIMATE} --start 5 | 3 | 0.32
{ANIMATE} --start 2 --end 1 | 2 | --end
{ANIMATE} --start -1 | 2 | --start is negative
{ANIMATE} --expression 6 | 2 | 5
animate portrait.png clip.mp4 --crop 1,2 | 2 | X,Y,SIZE
animate portrait.png clip.mp4 --crop 0,0,9000 | 2 | the crop is 9000 pixels wide and portrait.png only 256x256
animate portrait.png clip.mp4 --crop 600,0,9 | 2 | outside portrait.png
{ANIMATE} --deinterlace fields | 2 | --deinterlace cannot be 'fields'
{ANIMATE} --source-video | 2 | portrait.png is one picture
animate clip.mp4 clip.mp4 --source-video --map 1:1,1:2 | 2 | --source-video animates one face
animate --from-sidecar sidecar.json --fps 3 | 2 | --fps and --from-sidecar exclude each other
animate --from-sidecar sidecar.json --seed 1 | 2 | --seed and --from-sidecar exclude each other
animate --from-sidecar sidecar.json --set a.b=1 | 2 | --set and --from-sidecar exclude each other
animate --from-sidecar sidecar.json --crop auto --smooth | 2 | --smooth and --from-sidecar exclude each other

batch none.csv | 3 | none.csv
batch jobs.jsonl --default crop | 2 | --default crop: expected KEY=VALUE
batch jobs.jsonl --default cropp=1 | 2 | the command line: unknown field 'cropp' (did you mean 'crop'?)
batch jobs.jsonl --workers -1 | 2 | --workers cannot be -1
batch jobs.jsonl --timeout 0 | 2 | --timeout cannot be 0
batch jobs.jsonl --timeout 9 --workers 0 | 2 | --timeout needs workers that can be stopped
batch jobs.jsonl --devices cuda:77 | 5 | no CUDA device is available

demo -o demo.mp4 | 2 | demo.mp4 looks like a file, but the demo writes a folder
bench --preset voks | 2 | voks
bench --device gpu | 2 | gpu
bench --precision int8 | 2 | int8
bench --train --preset smoke --device cpu --precision fp16 | 2 | training does not support fp16

crop folder.mp4 -o clips | 3 | contains no videos or pictures
crop missing.mp4 -o clips | 3 | does not exist

preprocess taichi folder.mp4 -o clips | 3 | data/taichi-loading
preprocess fashion folder.mp4 -o clips | 3 | vision.cs.ubc.ca/datasets/fashion
preprocess bodies folder.mp4 -o clips | 3 | your own
preprocess voxceleb folder.mp4 -o clips | 3 | robots.ox.ac.uk
preprocess nemo folder.mp4 -o clips | 3 | www.uva-nemo.org
preprocess faces folder.mp4 -o clips | 3 | your own files
preprocess mgif folder.mp4 -o clips | 3 | first-order-model

evaluate --data data --mode animation --metrics psnr -o scores | 2 | needs true frames
evaluate --data data --mode defaults --metrics psnr -o scores | 2 | Leave out --mode defaults.
{EVALUATE} --metrics l1.papr | 2 | l1.paper
{EVALUATE} --metrics psmr | 2 | psnr
{EVALUATE} --metrics ' ,' | 2 | --metrics is empty
{EVALUATE} --models '' | 2 | --models is empty
{EVALUATE} --models a,b --names x,x | 2 | 'x' is given twice
{EVALUATE} --model x --models a,b | 2 | exclude each other
{EVALUATE} --mode reconstrution | 2 | reconstruction
{EVALUATE} --max-clips 0 | 2 | --max-clips cannot be 0
{EVALUATE} --truth x | 2 | nothing to evaluate
{EVALUATE} --pairs x.csv | 2 | --pairs needs another --mode
{EVALUATE} --split tset | 2 | test

inspect missing.mp4 | 3 | missing.mp4
inspect empty.mp4 | 3 | empty.mp4
inspect folder.mp4 | 3 | folder.mp4
inspect clip.mp4 --trust text.mp4 | 2 | contains no PEM certificate
inspect clip.mp4 --trust gone.pem | 3 | gone.pem

models show nothing | 2 | nothing
models import model.pth.tar | 4 | model.pth.tar
models import none.pth.tar | 4 | none.pth.tar
models pull vox | 5 | FOMMCTL_OFFLINE

plugins new fomm --kind metric | 2 | the name 'fomm' is taken: the plugin 'fomm' of fommctl
plugins new fommctl_faces --kind dataset | 2 | the name 'faces' is taken: the plugin 'faces' of fommctl
plugins new voxceleb --kind dataset | 2 | is taken: plugin 'faces' (fommctl_faces) of fommctl has a dataset of this name
plugins new vox --kind backend | 2 | the name 'vox' is taken: there is a preset of this name
plugins new cats --kind datset | 2 | unknown kind of plugin 'datset' (did you mean 'dataset'?)
plugins new cats --kind preset | 2 | unknown kind of plugin 'preset'

presets show tachi | 2 | unknown preset 'tachi' hint: Did you mean 'taichi'?
presets show none.yaml | 2 | does not exist
presets show data/train | 2 | is a directory
presets show code.yaml | 2 | code.yaml:1: the tag !!python/object/apply:os.system is not allowed
presets show smoke --set model_params.common_params.num_kp=many | 2 | should be a whole number, not the text 'many'

train --preset smoke --data nowhere --out run | 3 | nowhere does not exist
train --preset nothing --data data --out run | 2 | nothing
{TRAIN} --max-time soon | 2 | --max-time cannot be 'soon'
{TRAIN} --max-time -1h | 2 | --max-time cannot be '-1h'
{TRAIN} --max-steps 0 | 2 | max-steps
{TRAIN} --keep 0 | 2 | keep
{TRAIN} --seed -1 | 2 | --seed cannot be -1
{TRAIN} --precision fp16 | 2 | training does not support fp16
{TRAIN} --resume nowhere.pt | 3 | there is no checkpoint nowhere.pt
{TRAIN} --init-from nowhere.pth.tar | 4 | there is no model file nowhere.pth.tar
{TRAIN} --init-from vox | 5 | the weights of vox are not on this machine
"""
ROWS = [tuple(part.strip() for part in line.rsplit("|", 2)) for line in TABLE.splitlines() if line]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder of files, most of them broken in one way each."""
    folder = tmp_path_factory.mktemp("inputs")
    portrait(folder / "portrait.png")
    write_clip(folder / "clip.mp4", width=64, height=64, frames=8)
    write_clip(folder / "sound.mp4", width=64, height=64, frames=8, audio=("aac",))
    (folder / "text.mp4").write_text("this is not a video\n")
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    whole = (folder / "clip.mp4").read_bytes()
    (folder / "header.mp4").write_bytes(b"\0" * 64 + whole[64:])
    (folder / "tail.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.mp4\n#EXT-X-ENDLIST\n")
    write_sound(folder / "tone.wav", "pcm_s16le")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    meadow = solid(128, 128, (90, 120, 60))
    Image.fromarray(meadow).resize((300, 300)).save(folder / "meadow.png")
    write_clip(folder / "meadow.mp4", width=128, height=128, frames=8, draw=lambda index: meadow)
    (folder / "code.yaml").write_text(YAML_CODE)
    (folder / "types.yaml").write_text(WRONG_TYPES)
    (folder / "model.pth.tar").write_bytes(b"PK\x03\x04 not a checkpoint")
    (folder / "jobs.jsonl").write_text(json.dumps(JOB) + "\n")
    (folder / "sidecar.json").write_text("{}")
    for split in ("train", "test"):
        (folder / "data" / split).mkdir(parents=True)
        write_clip(folder / "data" / split / f"{split}#1.mp4", width=64, height=64, frames=8)
    return folder


def contents(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("words", "code", "says"), ROWS, ids=[row[0] for row in ROWS])
def test_one_line_a_hint_and_nothing_changed(
    words: str, code: str, says: str, inputs: Path, run_cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inputs)
    before = contents(inputs)
    result = run_cli(*(str(ASTRONAUT) if word == "ASTRONAUT" else word for word in shlex.split(words)))
    assert result.code == int(code), result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert says in result.stderr.replace("\n", " ").replace("  ", " "), result.stderr
    assert "\nhint: " in result.stderr or " problems:\n" in result.stderr
    assert contents(inputs) == before
