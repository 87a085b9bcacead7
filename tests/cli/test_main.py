"""All ways in which a command can end: one message, one hint, the right exit code, on the right stream."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result, environment, run_inside, run_process
from distributions import install
from PIL import Image
from trouble import TROUBLE

from fommctl.cli import console

Run = Callable[..., Result]


PLUGIN = "plugin 'trouble' (trouble_plugin) of trouble-plugin"


@pytest.fixture
def trouble(third_party: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """trouble("fail", "bug", ...): runs a command of the plugin in this process."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    third_party(TROUBLE, name="trouble-plugin", entry="trouble")
    return lambda *arguments: run_inside("trouble", *arguments)


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("expected", 3, "cannot read 'x'"),
        ("full", 3, "the disk is full: [Errno 28] No space left on device: '/x'"),
        ("forbidden", 3, "not allowed: [Errno 13] Permission denied: '/x'"),
        ("moved", 3, "no such file or directory: '/gone/x'"),
        ("null", 2, "a name contains a null character"),
        ("bug", 1, f"{PLUGIN} failed: ZeroDivisionError: division by zero"),
        ("eof", 1, f"{PLUGIN} failed: EOFError: file ends early"),
        ("otherpipe", 1, f"{PLUGIN} failed: BrokenPipeError: [Errno 32] Broken pipe"),
        ("panic", 1, f"{PLUGIN} failed: Panic: a library gives up"),
        ("interrupt", 130, "interrupted"),
    ],
)
def test_errors(trouble: Run, how: str, code: int, message: str) -> None:
    text = trouble("fail", how)
    assert (text.code, text.stdout) == (code, "")
    assert text.stderr.startswith(f"error: {message}\nhint: ")
    assert text.stderr.count("\n") == 2
    machine = trouble("fail", how, "--json")
    assert (machine.code, machine.stderr) == (code, "")
    error = machine.json()["error"]
    assert (error["message"], error["exit_code"]) == (message, code)
    assert error["hint"]
    line = trouble("fail", how, "--log-format", "json")
    assert (line.code, line.stdout) == (code, "")
    record = json.loads(line.stderr)
    assert (record["level"], record["message"], record["exit_code"]) == ("error", message, code)


def test_a_bug_leaves_a_log(trouble: Run) -> None:
    hint = trouble("fail", "bug").stderr.splitlines()[1]
    log = Path(hint.rpartition(" with the log ")[2].removesuffix("."))
    text = log.read_text(encoding="utf-8")
    assert text.startswith("command: ")
    assert text.endswith("ZeroDivisionError: division by zero\n")
    assert "Traceback" in text


def test_a_bug_where_no_log_can_be_written(trouble: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    result = trouble("fail", "bug")
    assert (result.code, result.stderr.splitlines()[1]) == (
        1,
        "hint: Leave the plugin out with FOMMCTL_PLUGINS, or report it to its authors with the traceback that --debug "
        "shows.",
    )


def test_debug_shows_the_traceback(trouble: Run) -> None:
    for how in ("bug", "expected"):
        result = trouble("fail", how, "--debug")
        assert result.stderr.startswith("Traceback (most recent call last):")
        assert "\nerror: " in result.stderr
    assert "Traceback" not in trouble("fail", "expected").stderr


def test_a_bug_of_ours_is_called_so(run_cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(check: bool = True) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("fommctl.host.load_host", fails)
    result = run_cli("presets", "list")
    assert result.code == 1
    assert result.stderr.startswith("error: this is a bug in fommctl: ZeroDivisionError: division by zero\nhint: ")


WILD = """
    from fommctl.api import DetectorSpec, hookimpl


    class Panic(BaseException):
        pass


    class Wild:
        def detect(self, frame):
            raise {error}


    @hookimpl
    def fommctl_detectors():
        yield DetectorSpec(name="wild", summary="goes wild", subject="face", build=Wild)
"""


@pytest.mark.parametrize("error", ["SystemExit(0)", "Panic('a library gives up')", "ValueError('no')"])
def test_a_detector_that_goes_wild_is_named(run_cli, third_party, tmp_path: Path, error: str) -> None:
    third_party(WILD.format(error=error), name="wild-plugin", entry="wild")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    result = run_cli("animate", tmp_path / "a.png", tmp_path / "a.png", "-o", tmp_path / "a.mkv", "--detector", "wild")
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: plugin 'wild' (wild_plugin) of wild-plugin failed: ")
    cropped = run_cli("crop", tmp_path / "a.png", "-o", tmp_path / "out", "--detector", "wild")
    assert cropped.code == 3
    assert "no input could be used: " in cropped.stderr
    assert "Traceback" not in cropped.stderr


def test_exits_of_plugins_keep_their_code(trouble: Run) -> None:
    assert trouble("fail", "exit") == Result(3, "", "")
    assert trouble("fail", "exit-text") == Result(1, "", "so long\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trouble", "fail"], "missing argument 'how'"),
        (["trouble", "show", "--lines", "many"], "invalid value for '--lines'"),
        (["trouble", "speak", "--log-format", "xml"], "invalid value for '--log-format': 'xml' is not one of"),
        (["trouble", "speak", "-q", "-v"], "--quiet and --verbose exclude each other"),
    ],
)
def test_wrong_usage(trouble: Run, run_cli: Run, arguments: list[str], message: str) -> None:
    text = run_cli(*arguments)
    assert (text.code, text.stdout) == (2, "")
    assert text.stderr.startswith(f"error: {message}")
    assert "\nhint: " in text.stderr
    error = run_cli(*arguments, "--json").json()["error"]
    assert error["message"].startswith(message)
    assert error["exit_code"] == 2


def test_names_that_look_like_flags_are_not_taken_for_them(trouble: Run) -> None:
    assert trouble("fail", "json").stderr.startswith(f"error: {PLUGIN} failed")
    assert trouble("fail", "--", "--json").stderr.startswith(f"error: {PLUGIN} failed")


@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        ([], ["warning: a warning", "error: an error"]),
        (["-q"], ["error: an error"]),
        (["-v"], ["info: an information", "warning: a warning", "error: an error"]),
        (["-vv"], ["debug: a debug message", "info: an information", "warning: a warning", "error: an error"]),
    ],
)
def test_levels_of_messages(trouble: Run, flags: list[str], seen: list[str]) -> None:
    result = trouble("speak", *flags)
    lines = [line for line in result.stderr.splitlines() if line.split(":")[0] in ("debug", "info", "warning", "error")]
    ours = [line for line in lines if "library" not in line]
    assert (result.code, result.stdout, ours) == (0, "", seen)
    assert ("a library warns" in result.stderr) == ("-v" in flags or "-vv" in flags)


def test_messages_for_machines(trouble: Run) -> None:
    records = [json.loads(line) for line in trouble("speak", "--log-format", "json", "-v").stderr.splitlines()]
    ours = [(each["level"], each["logger"], each["message"]) for each in records if each["logger"] == "fommctl.trouble"]
    assert ours[0] == ("info", "fommctl.trouble", "an information")
    assert all(each["time"].endswith("+00:00") for each in records)


def test_warnings_before_the_arguments_are_parsed_have_the_format_too(
    third_party: Callable[..., None], run_cli: Run
) -> None:
    third_party("import no_such_library", name="bad-plugin", entry="bad")
    assert run_cli("--help").stderr.startswith("warning: plugin 'bad' (bad_plugin) of bad-plugin: does not load")
    record = json.loads(run_cli("nonesuch", "--log-format=json").stderr.splitlines()[0])
    assert record["logger"] == "fommctl.host"
    assert "no_such_library" not in run_cli("nonesuch", "-q").stderr


def test_logging_is_left_as_it_was(trouble: Run) -> None:
    logger = logging.getLogger("fommctl")
    before = (list(logger.handlers), logger.propagate, logger.level)
    trouble("speak", "-vv")
    assert (list(logger.handlers), logger.propagate, logger.level) == before


def test_a_record_keeps_its_traceback() -> None:
    try:
        raise ValueError("inner")
    except ValueError:
        record = logging.LogRecord("fommctl.x", logging.ERROR, "", 0, "it %s", ("broke",), sys.exc_info())
    text = console.LogFormatter("text").format(record)
    assert text.startswith("error: it broke\nTraceback")
    assert text.endswith("ValueError: inner")


def test_results(trouble: Run) -> None:
    assert trouble("show", "--text", "clip [1] :smile:.png", "--json").json() == {
        "text": "clip [1] :smile:.png",
        "value": 1.5,
    }
    assert trouble("show", "--text", "clip [1] :smile:.png").stdout == "clip [1] :smile:.png\n"
    refused = trouble("show", "--nan", "--json")
    assert refused.code == 1
    assert refused.json()["error"]["exit_code"] == 1


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """start("wait", ..., stdout=...): starts a command of the plugin in its own process."""
    path = install(tmp_path / "site", TROUBLE, name="trouble-plugin", entry="trouble")

    def begin(*arguments: str | Path, **options: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "fommctl", "trouble", *map(str, arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(command, env=environment(path), text=True, **streams)  # type: ignore[call-overload]

    return begin


@pytest.mark.parametrize("names", [["SIGTERM"], ["SIGINT"], ["SIGHUP"], ["SIGINT", "SIGINT"], ["SIGTERM", "SIGTERM"]])
def test_signals_clean_up_and_end_with_130(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path, names: list[str]
) -> None:
    with start("wait", tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for name in names:
            process.send_signal(getattr(signal, name))
            time.sleep(0.1)
        _, stderr = process.communicate()
    assert (process.returncode, stderr) == (130, "error: interrupted\nhint: Nothing half-written was left behind.\n")
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize(("flag", "stream"), [("-q", 1), ("--json", 0)])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_during_the_first_imports(tmp_path: Path, name: str, flag: str, stream: int) -> None:
    (tmp_path / "typer.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{name})\n")
    result = run_process("models", "list", flag, path=tmp_path)
    texts = (result.stdout, result.stderr)
    assert result.code == 130
    assert "interrupted" in texts[stream]
    assert texts[1 - stream] == ""
    if flag == "--json":
        message = {"message": "interrupted", "hint": "Nothing half-written was left behind.", "exit_code": 130}
        assert result.json() == {"error": message}


def test_torchrun_ends_the_other_processes_of_a_run_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    result = run_process("train", "--json", path=tmp_path, RANK="1", WORLD_SIZE="2")
    assert (result.code, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_in_an_import_is_heeded_though_libraries_catch_everything(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path, name: str
) -> None:
    (tmp_path / "site" / "greedy.py").write_text(
        "import os, signal\n"
        f"try:\n    os.kill(os.getpid(), signal.{name})\n    sum(range(100_000))\nexcept BaseException:\n    pass\n"
    )
    (tmp_path / "out").mkdir()
    with start("wait", tmp_path / "out", "--load", "greedy") as process:
        _, stderr = process.communicate()
    assert (process.returncode, stderr) == (130, "error: interrupted\nhint: Nothing half-written was left behind.\n")
    assert not (tmp_path / "out" / "part").exists()


def test_a_signal_that_the_caller_ignores_stays_ignored(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start("wait", tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert process.poll() is None
        process.terminate()
        process.communicate()
    assert process.returncode == 130


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments", [["show", "--text", "x", "--lines", "100000"], ["show", "--json", "--text", "x" * 99999], ["--help"]]
)
def test_a_reader_that_goes_away_is_no_error(
    start: Callable[..., "subprocess.Popen[str]"],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    unbuffered: str,
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reading, writing = os.pipe()
    os.close(reading)
    with start(*arguments, stdout=writing) as process:
        os.close(writing)
        _, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")


def test_an_error_is_reported_even_where_the_reader_of_the_result_has_gone(
    start: Callable[..., "subprocess.Popen[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    reading, writing = os.pipe()
    os.close(reading)
    with start("fail", "late", stdout=writing) as process:
        os.close(writing)
        _, stderr = process.communicate()
    assert (process.returncode, stderr) == (3, "error: too late\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_version_into_a_closed_pipe(unbuffered: str) -> None:
    command = f"{sys.executable} -m fommctl --version | true; exit ${{PIPESTATUS[0]}}"
    changed = environment(PYTHONUNBUFFERED=unbuffered)
    done = subprocess.run(["bash", "-c", command], env=changed, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "0<&-", "0<&- 1>&- 2>&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    path = install(tmp_path, TROUBLE, name="trouble-plugin", entry="trouble")
    changed = environment(path, TMPDIR=str(tmp_path))
    for command, code in (("fail bug", 1), ("speak", 0), ("show", 0), ("fail expected", 3)):
        line = f"{sys.executable} -m fommctl trouble {command} {closed}"
        done = subprocess.run(["bash", "-c", line], env=changed, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert "Traceback" not in done.stdout + done.stderr
        assert "2>&-" not in closed or "error" not in done.stdout + done.stderr


def test_a_file_name_that_is_no_text(start: Callable[..., "subprocess.Popen[str]"]) -> None:
    with start("show", "--text", os.fsdecode(b"clip-\xff.png")) as process:
        stdout, stderr = process.communicate()
    assert (process.returncode, stdout, stderr) == (0, "clip-\\udcff.png\n", "")
