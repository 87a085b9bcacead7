"""The rule of the fuzz suite is enforced: violations are reported with the file that caused them, and the run
continues."""

from pathlib import Path

import numpy as np
import pytest
from fuzzing import formats, mutation, seeds
from fuzzing.campaign import FINDINGS, Campaign

EXPECTED = {
    "inside": "result",
    "refuse": "refused",
    "crash": "crash",
    "hang": "hang",
    "memory": "memory",
    "claim": "escaped",
    "outside": "outside",
    "look": "outside",
    "delete": "outside",
    "traceback": "traceback",
    "silent": "escaped",
    "escape": "escaped",
}


@pytest.fixture
def findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep findings in a folder apart from the real ones."""
    assert FINDINGS.name == "fommctl-fuzz-findings"
    monkeypatch.setattr("fuzzing.campaign.FINDINGS", tmp_path / "findings")
    return tmp_path / "findings"


def test_whatever_breaks_the_rule_is_found_and_kept(tmp_path: Path, findings: Path) -> None:
    with Campaign("trouble", tmp_path / "sandbox", 250, seconds=4) as campaign:
        outcomes = {what: campaign.run(what, what.encode()) for what in EXPECTED}
        assert campaign.run("after", b"fine") == "result"
    assert outcomes == EXPECTED
    assert {finding.case for finding in campaign.findings} == set(EXPECTED) - {"inside", "refuse"}
    assert all((findings / "trouble" / finding.case).read_text() == finding.case for finding in campaign.findings)
    told = {finding.case: finding.text for finding in campaign.findings}
    assert "string_at" in told["crash"]
    assert "sleep" in told["hang"] or "consume" in told["hang"]
    assert "outside.txt" in told["outside"]
    assert "ZeroDivisionError" in told["escape"]
    assert campaign.files == len(EXPECTED) + 1


def test_mutants_are_the_same_each_time_and_differ_from_their_seeds(tmp_path: Path) -> None:
    whole = seeds.images(tmp_path)
    first, second = (list(mutation.mutants(whole, 60)) for _ in range(2))
    assert first == second
    assert {name.partition("-")[2] for name, _ in first} == set(whole)
    same = [name for name, content in first if content == whole[name.partition("-")[2]]]
    assert len(same) < 6
    assert len({content for _, content in first}) > 54


def test_changes_that_know_png_leave_checksums_true(tmp_path: Path) -> None:
    whole = seeds.images(tmp_path)["rgb.png"]
    changed = [formats._png(whole, np.random.default_rng(number)) for number in range(200)]
    for content in changed:
        chunks = formats._chunks(content)
        assert formats.png(chunks) == content
    widths = {int.from_bytes(content[16:20], "big") for content in changed if content[12:16] == b"IHDR"}
    assert max(widths) > 10_000
