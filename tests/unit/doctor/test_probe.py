"""Processes that crash, hang and babble: the rest is looked at all the same. Real processes."""

import os
import time

import pytest

from fommctl.stages.doctor.probe import Probes

LOOK = """
import ctypes, os, sys, time

def look(what):
    if what == "raises":
        raise ValueError("first line\\nsecond line")
    if what == "exits":
        sys.exit(4)
    if what == "ends":
        print("last words", file=sys.stderr)
        os._exit(7)
    if what == "crashes":
        ctypes.string_at(0)
    if what == "hangs":
        time.sleep(600)
    if what == "nan":
        return float("nan")
    if what == "prints":
        print("to stdout")
        os.write(1, b"past sys.stdout\\n")
    return {"what": what, "pid": os.getpid()}
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "patients"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "ward.py").write_text(LOOK)
    (folder / "broken.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    return "patients"


def seen(package, *whats, limit=60.0):
    with Probes(limit) as probes:
        return probes.start([what if "." in what else f"ward.{what}" for what in whats], package).result()


def test_what_is_wrong_with_one_item_is_told_and_the_others_are_looked_at(package):
    result = seen(package, "one", "raises", "ends", "crashes", "exits", "nan", "broken.x", "prints", "last")
    assert {item: fact["what"] for item, fact in result.facts.items()} == {
        "ward.one": "one",
        "ward.prints": "prints",
        "ward.last": "last",
    }
    assert result.troubles == {
        "ward.raises": "ValueError: first line",
        "ward.ends": "ended the process with exit code 7: last words",
        "ward.crashes": "ended the process with SIGSEGV",
        "ward.exits": "SystemExit: 4",
        "ward.nan": result.troubles["ward.nan"],
        "broken.x": "ModuleNotFoundError: No module named 'no_such_module'",
    }
    assert result.troubles["ward.nan"].startswith("ValueError: Out of range float")
    # One process as long as nothing ends it: imports are paid once.
    assert result.facts["ward.prints"]["pid"] == result.facts["ward.last"]["pid"] != result.facts["ward.one"]["pid"]


def test_what_hangs_is_ended_and_what_comes_after_is_not_blamed(package):
    result = seen(package, "one", "hangs", "last", limit=2.0)
    assert list(result.facts) == ["ward.one"]
    assert result.troubles == {
        "ward.hangs": "took more than 2 s",
        "ward.last": "not looked at: hangs took all of the 2 s",
    }


def test_no_process_outlives_the_examination(package):
    with Probes(60.0) as probes:
        group = probes.start(["ward.hangs"], package)
        deadline = time.monotonic() + 30
        while not probes._running and time.monotonic() < deadline:
            time.sleep(0.01)
        (process,) = probes._running
    assert process.poll() is not None
    assert not os.path.exists(f"/proc/{process.pid}")
    assert group.done()


def test_without_an_interpreter_to_start(package, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", str(tmp_path / "gone"))
    result = seen(package, "one")
    assert result.facts == {}
    assert result.troubles["ward.one"].startswith("no process could be started: [Errno 2]")


def test_the_path_is_that_of_the_parent(package, monkeypatch, tmp_path):
    """A file beside the caller does not hide a package, unless it does so for the caller."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "json.py").write_text("raise RuntimeError('hidden')")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert list(seen(package, "one").facts) == ["ward.one"]
