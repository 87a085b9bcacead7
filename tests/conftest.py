"""Fixtures for all tests: a separate home, no network, the plugin host, and ways to run the command."""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import command_line
import distributions
import forked_workers
import json_shapes
import pytest

from fommctl.host import Host, load_host

CHECKOUT = Path(__file__).parents[1]
GOLDEN = CHECKOUT / "tests" / "golden"
# xdist's workers share the cores: with several threads each, operators wait for each other longer than they compute.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Through face-alignment, numba would compile for nine seconds what a test calls once.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
# Tests start about four hundred processes; with compiled modules, each starts 0.8 s faster.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="Fault and fuzz tests: all moments and mutated files instead of a sample."
    )
    parser.addoption(
        "--write-golden", action="store_true", help="Write texts and keys to tests/golden instead of comparing them."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Restore the default actions of signals: background shells ignore them, which children inherit."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests marked `full` without `--full`. Files with slow tests come first, so that only short tests remain
    at the end, when xdist's workers can no longer take work from each other."""
    if not config.getoption("--full"):
        left_out = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether this is the complete run of `make test-faults`, not the sample of `make test`."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """golden(name, text): compares the text with tests/golden/NAME, or writes it with --write-golden."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--write-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        recorded = path.read_text(encoding="utf-8") if path.exists() else ""
        assert text.splitlines() == recorded.splitlines(), f"differs from {path.name}; if intended, use --write-golden"

    return compare


@pytest.fixture(scope="session")
def json_keys(request: pytest.FixtureRequest) -> Callable[..., None]:
    """json_keys(name, data): compares keys and types with those recorded under this name in
    tests/golden/json_keys.json, or writes them there with --write-golden (in one process)."""

    def compare(name: str, data: Any, free: Sequence[str] = ()) -> None:
        path, found = GOLDEN / "json_keys.json", json_shapes.shape(data, free)
        recorded = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if request.config.getoption("--write-golden"):
            recorded[name] = found
            path.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        assert found == recorded.get(name), f"differs from {path.name}; if intended, use --write-golden"

    return compare


@pytest.fixture(scope="session", autouse=True)
def faces_once() -> Iterator[None]:
    """Build dlib's detector once, and search each picture for faces once: results do not change, and both take up to a
    second, half the time of a short animation."""
    from fommctl_faces import hog
    from fommctl_faces.hog import HogDetector

    build, search = HogDetector.__init__, HogDetector._faces
    built: list[Any] = []
    found: dict[Any, list[Any]] = {}

    def build_once(self: HogDetector) -> None:
        if not built or sys.modules.get("dlib") is None:  # tests may simulate that it is not installed
            build(self)
            built.append(self._find)
        self._find = built[0]

    def search_once(self: HogDetector, frame: Any) -> list[Any]:
        key = hog.SIDES, frame.shape, hashlib.sha256(frame.tobytes()).digest()
        if key not in found:
            found[key] = search(self, frame)
        return list(found[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HogDetector, "__init__", build_once)
        patch.setattr(HogDetector, "_faces", search_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def models_once() -> Iterator[None]:
    """Read each model file of this checkout once: no test writes to them, and loading copies the tensors."""
    from fommctl.models.checkpoint import Checkpoint, read_checkpoint

    read: dict[Path, Checkpoint] = {}

    def read_once(path: Path) -> Checkpoint:
        path = Path(path)
        if not path.is_relative_to(CHECKOUT):
            return read_checkpoint(path)
        if path not in read:
            read[path] = read_checkpoint(path)
        return replace(read[path], groups={group: dict(tensors) for group, tensors in read[path].groups.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fommctl.models.loading.read_checkpoint", read_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def torch_once() -> Iterator[None]:
    """Import torch once for all worker processes started by this process. Commands in their own processes, and tests of
    the workers, start each worker as users do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fommctl.workers.CONTEXT", forked_workers.ForkedWorkers())
        yield


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set FOMMCTL_HOME to a temporary folder, without downloads and with all plugins; return the home."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FOMMCTL_HOME", str(home))
    monkeypatch.setenv("FOMMCTL_OFFLINE", "1")
    monkeypatch.delenv("FOMMCTL_PLUGINS", raising=False)
    return home


@pytest.fixture
def host() -> Host:
    """The host with the plugins of this installation."""
    return load_host()


@pytest.fixture
def run_cli() -> Callable[..., command_line.Result]:
    """run_cli("animate", ...): runs in this process; returns Result(code, stdout, stderr, json())."""
    return command_line.run_inside


@pytest.fixture
def run_process() -> Callable[..., command_line.Result]:
    """run_process("animate", ..., path=FOLDER_OF_DISTRIBUTIONS, VARIABLE="value"): runs in its own process."""
    return command_line.run_process


@pytest.fixture
def run_beside(monkeypatch: pytest.MonkeyPatch) -> Callable[..., command_line.Result]:
    """run_beside("animate", ..., path=FOLDER_OF_DISTRIBUTIONS, VARIABLE="value"): runs in this process with the
    folder's distributions; faster than `run_process`."""

    def run(*arguments: str | Path, path: Path | None = None, **changes: str) -> command_line.Result:
        modules = set(sys.modules)
        with monkeypatch.context() as patch:
            if path is not None:
                patch.syspath_prepend(path)
                patch.setenv("PYTHONPATH", str(path))
            for name, value in changes.items():
                patch.setenv(name, value)
            try:
                return command_line.run_inside(*arguments)
            finally:
                _forget(modules, path)

    return run


def _forget(modules: set[str], folder: Path | None) -> None:
    """Remove the modules of a folder from sys.modules that are not in `modules`."""
    for name in set(sys.modules) - modules:
        if folder is not None and str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """third_party(source, name=..., entry=...): installs a distribution for this test."""
    modules = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda source, **options: distributions.install(tmp_path, source, **options)
    _forget(modules, tmp_path)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Use a single thread, so that sums are rounded alike in all runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def animator() -> Any:
    """The built-in model on the CPU in fp32."""
    import fommctl

    return fommctl.load(device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def training_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training clips of six identities and one validation clip; read-only."""
    import training_runs

    return training_runs.write_training_clips(tmp_path_factory.mktemp("training-clips"))
