"""`fommctl batch` on real files: rendering, kept results and messages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from batches import EXACT, GATE, TINY, hidden, lines, states, words, write_jobs

pytestmark = pytest.mark.usefixtures("one_thread")
LOSSLESS = "out/{source.stem}_{driving.stem}.mkv"


def said(result, code: int = 0) -> dict:
    assert result.code == code, result.stderr
    return result.json()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_frames_are_those_of_animate_alone(folder, run_cli, monkeypatch, workers):
    """The files are identical, with jobs that share their source and workers of their own."""
    jobs = write_jobs(
        folder,
        [
            {"source": "*.png", "driving": "d[12].mp4", "output": LOSSLESS},
            {"source": "a.png", "driving": "d3.mp4", "output": "out/frames/%03d.png", "smooth": True, "start": 0.04},
        ],
    )
    monkeypatch.setattr("fommctl.workers.usable_cores", lambda: 1)  # of threads, for each worker
    result = run_cli(*words(jobs, "--workers", workers, "--json"))
    assert said(result)["counts"] == {"done": 5, "kept": 0, "failed": 0, "not started": 0}
    alone = folder / "alone"
    (alone / "frames").mkdir(parents=True)
    common = ("--crop", "none", *TINY, *EXACT)
    for source in "ab":
        for driving in ("d1", "d2"):
            target = alone / f"{source}_{driving}.mkv"
            result = run_cli("animate", folder / f"{source}.png", folder / f"{driving}.mp4", "-o", target, *common)
            assert result.code == 0, result.stderr
            assert (folder / "out" / target.name).read_bytes() == target.read_bytes()
    target = alone / "frames" / "%03d.png"
    options = ("--smooth", "--start", "0.04", *common)
    assert run_cli("animate", folder / "a.png", folder / "d3.mp4", "-o", target, *options).code == 0
    names = sorted(path.name for path in target.parent.iterdir())
    assert names == sorted(path.name for path in (folder / "out" / "frames").iterdir())
    assert len(names) == 4
    for name in names:
        assert (folder / "out" / "frames" / name).read_bytes() == (target.parent / name).read_bytes()
    assert not hidden(folder)


def test_a_second_run_does_what_is_missing_or_changed_and_nothing_else(folder, run_cli):
    jobs = write_jobs(folder, [{"source": "*.png", "driving": "d[12].mp4", "output": LOSSLESS}])
    outputs = [f"out/{name}.mkv" for name in ("a_d1", "a_d2", "b_d1", "b_d2")]
    first = said(run_cli(*words(jobs, "--workers", 0, "--json")))
    assert [(job["state"], job["frames"], job["attempts"]) for job in first["jobs"]] == [("done", 5, 1)] * 4
    assert first["status"] == str(folder / "status.jsonl")
    assert states(folder) == [(output, state) for output in outputs for state in ("started", "done")]
    assert {line["result"]["model"] for line in lines(folder) if line["state"] == "done"} == {"vox-tiny"}

    def reasons(*more):
        plan = said(run_cli(*words(jobs, "--dry-run", "--json", *more)))["plan"]
        return {Path(row["output"]).stem: row["reason"] for row in plan if row["runs"]}

    before = len(states(folder))
    assert reasons() == {}
    assert said(run_cli(*words(jobs, "--json")))["counts"]["kept"] == 4
    # Names and modification times of files do not matter, only their content.
    (folder / "a.png").rename(folder / "c.png")
    shutil.copyfile(folder / "c.png", folder / "a.png")
    (folder / "c.png").unlink()
    assert reasons() == {}
    (folder / outputs[0]).unlink()
    assert reasons() == {"a_d1": "missing"}
    shutil.copyfile(folder / "d3.mp4", folder / "d2.mp4")
    assert reasons() == {"a_d1": "missing", "a_d2": "changed: driving", "b_d2": "changed: driving"}
    assert set(reasons("--default", "smooth=yes").values()) == {
        "missing",
        "changed: driving, options",
        "changed: options",
    }
    assert len(states(folder)) == before
    second = said(run_cli(*words(jobs, "--workers", 0, "--json")))
    assert second["counts"] == {"done": 3, "kept": 1, "failed": 0, "not started": 0}
    assert reasons() == {}


def test_a_result_that_was_edited_by_hand_is_kept(folder, run_cli):
    jobs = write_jobs(folder, [{"source": "a.png", "driving": "d[12].mp4", "output": LOSSLESS}])
    said(run_cli(*words(jobs, "--workers", 0, "--json")))
    edited = folder / "out/a_d1.mkv"
    edited.write_text("edited by hand")
    again = run_cli(*words(jobs, "--workers", 0, "--json"))
    assert said(again)["counts"]["kept"] == 2
    assert "a_d1.mkv was changed after a batch made it and is kept" in again.stderr
    shutil.copyfile(folder / "d3.mp4", folder / "d1.mp4")
    refused = run_cli(*words(jobs, "--workers", 0, "--json"))
    assert refused.code == 2
    assert "was changed after a batch made it" in refused.json()["error"]["message"]
    assert edited.read_text() == "edited by hand"
    assert said(run_cli(*words(jobs, "--workers", 0, "--json", "--overwrite")))["counts"]["done"] == 1
    assert edited.read_bytes()[:4] == b"\x1a\x45\xdf\xa3"


def test_everything_is_checked_before_the_first_job(folder, run_cli):
    (folder / "text.mp4").write_text("no video")
    (folder / "locked").write_text("")
    (folder / "there.mkv").write_text("of somebody")
    rows = [
        {"source": "a.png", "driving": "d1.mp4", "output": "good.mkv"},
        {"source": "gone.png", "driving": "text.mp4", "output": "2.mkv"},
        {"source": "a.png", "driving": "d1.mp4", "output": "GOOD.mkv"},
        {"source": "a.png", "driving": "d1.mp4", "output": "d2.mp4"},
        {"source": "a.png", "driving": "d2.mp4", "output": "5.xyz", "view": "b.png"},
        {"source": "a.png", "driving": "d2.mp4", "output": "locked/6.mkv", "model": "vix-256", "preset": "vox"},
        {"source": "a.png", "driving": "d2.mp4", "output": "there.mkv"},
        {"source": "a.png", "driving": "d2.mp4", "output": "8.mkv", "audio": "driving", "detector": "eyes"},
        {"source": "a.png", "driving": "d1.mp4", "output": "../out.mkv", "start": 99, "device": "cuda:99"},
        {"source": "a.png", "driving": "d1.mp4", "output": "frames/%d.png", "crf": "much"},
    ]
    jobs = write_jobs(folder, rows)
    result = run_cli(*words(jobs, "--root", folder))
    assert result.code == 2
    told = [line.strip() for line in result.stderr.splitlines() if line.startswith("  line")]
    for place, text in (
        ("line 2", "gone.png does not exist"),
        ("line 2", "text.mp4 is"),
        ("line 3", "the output is also that of line 1"),
        ("line 4", "the output is an input of line 5"),
        ("line 5", "xyz"),
        ("line 5", "use one picture of the source"),
        ("line 6", "unknown model 'vix-256'"),
        ("line 6", "the output folder"),
        ("line 7", "already exists, and no batch has made it"),
        ("line 8", "--audio driving, but d2.mp4 has no sound"),
        ("line 8", "unknown detector 'eyes'"),
        ("line 9", "the output is outside"),
        ("line 9", "--start 99 is beyond the end of d1.mp4"),
        ("line 9", "no CUDA device"),
        ("line 10", "--crf cannot be 'much'"),
    ):
        assert any(line.startswith(f"{place}: ") and text in line for line in told), (place, text, told)
    assert not any(line.startswith("line 1:") for line in told)
    assert [int(line.split()[1].rstrip(":")) for line in told] == sorted(
        int(line.split()[1].rstrip(":")) for line in told
    )
    assert not (folder / "good.mkv").exists()
    assert not states(folder)
    shown = run_cli(*words(jobs, "--root", folder, "--keep-going", "--dry-run", "--json"))
    plan = said(shown, 6)["plan"]
    assert [row["runs"] for row in plan] == [True, *[False] * 9]
    result = said(run_cli(*words(jobs, "--root", folder, "--keep-going", "--workers", 0, "--json")), 6)
    assert result["counts"] == {"done": 1, "kept": 0, "failed": 9, "not started": 0}
    assert [job["state"] for job in result["jobs"]] == ["done", *["failed"] * 9]
    assert {job["exit_code"] for job in result["jobs"][1:]} == {2, 3}
    assert (folder / "there.mkv").read_text() == "of somebody"
    replaced = said(run_cli(*words(jobs, "--keep-going", "--overwrite", "--workers", 0, "--json")), 6)
    assert replaced["jobs"][6]["state"] == "done"
    assert (folder / "there.mkv").stat().st_size > 1000


def test_a_warning_of_a_job_of_this_process_is_shown_once(folder, run_cli):
    rows = [{"source": "a.png", "driving": "d1.mp4", "output": "1.mkv", "frames": "3-99"}]
    result = run_cli(*words(write_jobs(folder, rows), "--workers", 0, "--json"))
    warning = "--frames 3-99: the last driving frame is number 5"
    assert said(result)["jobs"][0]["warnings"] == [warning]
    assert result.stderr.count(warning) == 1
    assert f"1.mkv: {warning}" in result.stderr


def test_jobs_that_fail(folder, run_cli):
    """A driving video ends in the middle of a job, after good first frames, which the checks see."""
    rows = [
        {"source": "a.png", "driving": "d1.mp4", "output": "1.mkv", "best_frame": 99},
        {"source": "a.png", "driving": "d2.mp4", "output": "2.mkv"},
        {"source": "b.png", "driving": "d2.mp4", "output": "3.mkv", "best-frame": 77},
    ]
    jobs = write_jobs(folder, rows)
    result = run_cli(*words(jobs, "--workers", 0, "--retry", 1, "--json"))
    told = said(result, 6)
    assert told["counts"] == {"done": 1, "kept": 0, "failed": 2, "not started": 0}
    assert [job["attempts"] for job in told["jobs"]] == [2, 1, 2]
    assert told["jobs"][0]["reason"] == "--best-frame 99 is beyond the end"
    assert told["jobs"][0]["hint"] == "Frames are numbered 0 to 4."
    assert told["jobs"][0]["exit_code"] == 2
    assert "1.mkv: --best-frame 99 is beyond the end; will be retried" in result.stderr
    assert "2.mkv: done, 5 frames" in result.stderr
    assert [state for output, state in states(folder) if output == "1.mkv"] == ["started", "failed"] * 2
    assert [line["attempt"] for line in lines(folder) if line["output"] == "3.mkv"] == [1, 1, 2, 2]
    assert not (folder / "1.mkv").exists()
    # Only those are retried, and the first failure is the last.
    result = run_cli(*words(jobs, "--workers", 0, "--fail-fast", "--json"))
    assert said(result, 6)["counts"] == {"done": 0, "kept": 1, "failed": 1, "not started": 1}
    rows[0]["best_frame"] = rows[2]["best-frame"] = 1
    result = run_cli(*words(write_jobs(folder, rows), "--workers", 0))
    assert result.code == 0, result.stderr
    assert "2 done, 1 kept" in result.stdout
    plan = run_cli(*words(jobs, "--dry-run"))
    assert "0 jobs would run, 3 are done" in plan.stdout


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_stopped(folder, run_cli, third_party, monkeypatch):
    monkeypatch.setattr("fommctl.workers.PATIENCE", 2)  # it hangs at the gate
    third_party(GATE, name="gate", entry="gate")
    rows = [
        {"source": "a.png", "driving": "d1.mp4", "output": "1.mkv"},
        {"source": "a.png", "driving": "d2.mp4", "output": "2.mkv"},
    ]
    (folder / "1.mkv.gate").touch()
    result = said(run_cli(*words(write_jobs(folder, rows), "--timeout", 5, "--json")), 6)
    assert [(job["state"], job["reason"]) for job in result["jobs"]] == [
        ("failed", "it took longer than 5 s"),
        ("done", None),
    ]
    assert states(folder)[:2] == [("1.mkv", "started"), ("1.mkv", "failed")]
    assert not (folder / "1.mkv").exists()
    assert not hidden(folder)


def test_two_models_and_what_the_formats_of_files_say(folder, run_cli):
    (folder / "jobs.yaml").write_text(
        f"defaults: {{driving: d1.mp4, crop: none, model: {TINY[1]}, preset: {TINY[3]}, precision: fp32}}\n"
        """
jobs:
- {source: a.png, output: 1.mkv}
- {source: a.png, output: 2.mkv, model: faces-mini, preset: faces-mini}
- {source: b.png, output: 3.mkv}
"""
    )
    result = said(run_cli("batch", folder / "jobs.yaml", "--workers", 0, "--json"))
    assert [job["state"] for job in result["jobs"]] == ["done"] * 3
    done = {line["output"]: line["result"] for line in lines(folder) if line["state"] == "done"}
    assert list(done) == ["1.mkv", "3.mkv", "2.mkv"]  # jobs of one model together
    assert {name: result["model"] for name, result in done.items()} == {
        "1.mkv": "vox-tiny", "2.mkv": "faces-mini", "3.mkv": "vox-tiny",
    }  # fmt: skip
