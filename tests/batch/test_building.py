"""From fields to typed jobs."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from fommctl.batch.job_files import read_job_file
from fommctl.batch.jobs import build
from fommctl.host import Host


def parsed(folder: Path, host: Host, content: str, name: str = "jobs.csv", **command: Any):
    (folder / name).write_text(content)
    return build(read_job_file(folder / name), folder / name, command, host)


def test_options_have_the_types_of_the_command(tmp_path: Path, host: Host) -> None:
    csv = (
        "source,driving,output,best-frame,smooth,paste_back,start,end,fps,crf,size,crop,view,set,seed,device\n"
        'a.png,d.mp4,o.mov,3,yes,no,1:02.5,70,29.97,12,512,"1,2,30",v.png;/w.png,a.b=1; c.d=x y,9,cpu\n'
    )
    (job,) = parsed(tmp_path, host, csv).jobs
    config, choice = job.config, job.choice
    assert (job.number, job.where) == (1, "line 2")
    assert (config.source, config.driving, job.output) == tuple(tmp_path / name for name in ("a.png", "d.mp4", "o.mov"))
    assert (config.best_frame, config.smooth, config.paste_back, config.adapt_scale) == ("3", True, False, None)
    assert (config.start, config.end, config.fps) == (Fraction(125, 2), 70, Fraction(30000, 1001))
    assert (config.crf, config.size, config.crop) == (12, 512, "1,2,30")
    assert config.views == (tmp_path / "v.png", Path("/w.png"))
    assert (choice.sets, choice.seed, choice.device, choice.model) == (("a.b=1", "c.d=x y"), 9, "cpu", None)
    assert pickle.loads(pickle.dumps(job)) == job
    yaml = """
- {source: a.png, driving: d.mp4, output: o.mov, best_frame: 3, smooth: on, paste-back: false, start: 1:02.5, end: 70,
   fps: 29.97, crf: 12, size: 512, crop: '1,2,30', view: [v.png, /w.png], set: [a.b=1, c.d=x y], seed: 9, device: cpu}
"""
    yaml = yaml.lstrip()
    (same,) = parsed(tmp_path, host, yaml, "jobs.yaml").jobs
    assert (same.config, same.choice) == (config, choice)


def test_patterns_multiply_and_names_tell_the_jobs_apart(tmp_path: Path, host: Host) -> None:
    for name in ("s1.png", "s2.png", "d2.mp4", "d10.mp4"):
        (tmp_path / name).write_text("")
    rows = "s*.png,d*.mp4,{number:02}_{source.stem}_{driving.stem}_{motion}_{fps}_{model}.mov,25,models/m.pth.tar\n"
    jobs = parsed(tmp_path, host, f"source,driving,output,fps,model\n{rows}s1.png,d2.mp4,,,\n").jobs
    assert [job.output.name for job in jobs] == [
        "01_s1_d2_auto_25_m.mov", "02_s1_d10_auto_25_m.mov", "03_s2_d2_auto_25_m.mov", "04_s2_d10_auto_25_m.mov",
        "s1--d2.mp4",
    ]  # fmt: skip
    assert [job.number for job in jobs] == [1, 2, 3, 4, 5]
    assert {job.where for job in jobs} == {"line 2", "line 3"}
    assert jobs[0].choice.model == str(tmp_path / "models" / "m.pth.tar")


def test_defaults_and_where_relative_paths_begin(tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "jobs").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yaml = "defaults: {crop: none, size: 64, motion: absolute, model: vox-256}\njobs:\n"
    yaml += "  - {source: ../a.png, driving: d.mp4, motion: relative}\n  - {source: b.png, output: b.mov}\n"
    first, second = parsed(
        tmp_path / "jobs", host, yaml, "jobs.yaml", driving="e.mp4", output="{source.parent}/x.mov", size=128
    ).jobs
    assert (first.config.source, first.config.driving) == (tmp_path / "a.png", tmp_path / "jobs" / "d.mp4")
    assert (first.config.crop, first.config.size, first.config.motion) == ("none", 128, "relative")
    assert first.output == tmp_path / "x.mov"
    assert (second.config.driving, second.config.motion) == (tmp_path / "here" / "e.mp4", "absolute")
    assert second.output == tmp_path / "jobs" / "b.mov"
    assert first.choice.model == "vox-256"


def test_every_problem_has_its_line(tmp_path: Path, host: Host) -> None:
    lines = [
        '{"source": "a.png", "driving": "d.mp4", "drivign_crop": "none", "outpt": "x"}',
        '{"source": "a.png"}',
        '{"source": 3, "driving": "none*.mp4", "size": "big", "smooth": "maybe", "seed": -1}',
        '{"source": "a.png", "driving": "d.mp4", "audio": "sideways"}',
        '{"source": "a.png", "driving": "d.mp4", "output": "{nobody}.mov"}',
        '{"source": "a.png", "driving": "d.mp4", "view": "v", "views": "w"}',
        '{"source": "a\\u0000.png", "driving": "d.mp4", "set": 3, "views": 7}',
        '{"source": "a.png", "driving": "d.mp4", "start": "1e999999999", "precision": 16}',
        '{"source": "a.png", "driving": "d.mp4", "sign": "c.pem"}',
        '{"source": "a.png", "driving": "d.mp4", "output": ""}',
    ]
    found = parsed(tmp_path, host, "\n".join(lines), "jobs.jsonl")
    assert found.jobs == []
    assert [f"{each.where}: {each.message}" for each in found.problems] == [
        "line 1: unknown field 'drivign_crop' (did you mean 'driving_crop'?)",
        "line 1: unknown field 'outpt' (did you mean 'output'?)",
        "line 2: the job has no driving",
        "line 3: source is 3",
        "line 3: no file matches the pattern 'none*.mp4'",
        "line 3: --smooth cannot be 'maybe'",
        "line 3: --size cannot be 'big'",
        "line 3: --seed cannot be -1",
        "line 4: --audio cannot be 'sideways'",
        "line 5: the output '{nobody}.mov' has an unknown field 'nobody'",
        "line 6: the field 'views' is given twice",
        "line 7: source contains a character that is not text",
        "line 7: --view cannot be 7",
        "line 7: --set cannot be 3",
        "line 8: a time of '1e999999999' cannot be read",
        "line 8: --precision cannot be 16",
        "line 9: --sign and --key need each other",
        "line 10: the job has no output",
    ]
    found = parsed(tmp_path, host, "source,driving\na,b\n", crop="none", cropp="none")
    assert [(each.where, each.message) for each in found.fatal] == [
        ("the command line", "unknown field 'cropp' (did you mean 'crop'?)")
    ]


def test_columns_that_do_not_exist_are_reported_once(tmp_path: Path, host: Host) -> None:
    found = parsed(tmp_path, host, "\nSource,drivin,note\na.png,d.mp4,x\nb.png,d.mp4,y\n")
    assert (found.jobs, found.problems) == ([], [])
    assert [(each.where, each.message) for each in found.fatal] == [
        ("line 2", "unknown field 'drivin' (did you mean 'driving'?)"),
        ("line 2", "unknown field 'note'"),
    ]
    (job,) = parsed(tmp_path, host, "Source,DRIVING,Best-Frame\na.png,d.mp4,3\n").jobs
    assert (job.config.source, job.config.best_frame) == (tmp_path / "a.png", "3")
