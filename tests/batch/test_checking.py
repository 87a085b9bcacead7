"""Errors in jobs that are found before the first one starts."""

from __future__ import annotations

from pathlib import Path

from shots import portrait

from fommctl.animate.config import AnimateConfig, ModelChoice
from fommctl.batch.checks import Checker
from fommctl.batch.jobs import Job
from fommctl.host import Host


def told(folder: Path, host: Host, output: str, **options: Path) -> list[str]:
    portrait(folder / "a.png", 64)
    config = AnimateConfig(source=folder / "a.png", driving=folder / "a.png", output=folder / output, **options)
    job = Job(number=1, where="line 1", config=config, choice=ModelChoice())
    return [problem.message for problem in Checker(host, None, local=True).check([job], lambda done: None)]


def test_a_problem_that_two_checks_meet_is_reported_once(tmp_path: Path, host: Host) -> None:
    assert told(tmp_path, host, "result") == [f"'result' has no file type: {tmp_path / 'result'}"]


def test_signing_is_tried_also_where_the_folder_is_still_to_be_made(tmp_path: Path, host: Host) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    keys = {"sign": tmp_path / "cert.pem", "sign_key": tmp_path / "cert.pem"}
    here = told(tmp_path, host, "1.mp4", **keys)
    assert len(here) == 1
    assert told(tmp_path, host, "new/folder/1.mp4", **keys) == here
    assert told(tmp_path, host, "new/folder/1.mkv", **keys) == ["1.mkv cannot have content credentials"]
