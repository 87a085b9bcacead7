"""What every test stands on: a home of its own, no network, the plugin host, and ways to run the command."""

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
# Workers of xdist share the cores: with threads of their own, operators wait for each other more than they compute.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# face-alignment has numba compile, for nine seconds, what a test calls once.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
# Some four hundred processes are started: compiled once, fommctl takes each 0.8 s less.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="Faults and fuzzing: every moment and every mutated file, not a sample."
    )
    parser.addoption(
        "--write-golden", action="store_true", help="Write texts and keys in tests/golden anew, instead of comparing."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Give signals back what they do for a person: a background shell has them ignored, here and in every child."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `full` are for `--full` alone. Files with slow tests come first: at the end, where a worker of xdist
    cannot take from the other any more, tests are short."""
    if not config.getoption("--full"):
        left_out = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether `make test-faults` runs, which takes its time, or `make test`, which takes a sample."""
    return bool(request.config.getoption("--full"))


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """golden(name, text) compares with tests/golden/NAME, or writes it under --write-golden."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--write-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        recorded = path.read_text(encoding="utf-8") if path.exists() else ""
        assert text.splitlines() == recorded.splitlines(), f"not as in {path.name}; on purpose? --write-golden"

    return compare


@pytest.fixture(scope="session")
def json_keys(request: pytest.FixtureRequest) -> Callable[..., None]:
    """json_keys(name, data) compares keys and types with those of this name in tests/golden/json_keys.json, or writes
    them there under --write-golden (in one process)."""

    def compare(name: str, data: Any, free: Sequence[str] = ()) -> None:
        path, found = GOLDEN / "json_keys.json", json_shapes.shape(data, free)
        recorded = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if request.config.getoption("--write-golden"):
            recorded[name] = found
            path.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        assert found == recorded.get(name), f"not as in {path.name}; on purpose? --write-golden"

    return compare


@pytest.fixture(scope="session", autouse=True)
def faces_once() -> Iterator[None]:
    """Build dlib's detector once, and search a picture for faces once: both give the same each time, and take up to a
    second, half the time of a short animation."""
    from fommctl_faces import hog
    from fommctl_faces.hog import HogDetector

    build, search = HogDetector.__init__, HogDetector._faces
    built: list[Any] = []
    found: dict[Any, list[Any]] = {}

    def build_once(self: HogDetector) -> None:
        if not built or sys.modules.get("dlib") is None:  # a test may say that it is not installed
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
    """Import torch once for all worker processes that are started in this one. Commands in a process of their own, and
    tests of the workers, start each worker as users do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fommctl.workers.CONTEXT", forked_workers.ForkedWorkers())
        yield


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FOMMCTL_HOME in a temporary folder, no downloads, all plugins; returns the home."""
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
    """run_cli("animate", ...) in this process -> Result(code, stdout, stderr, json())."""
    return command_line.run_inside


@pytest.fixture
def run_process() -> Callable[..., command_line.Result]:
    """run_process("animate", ..., path=FOLDER_OF_DISTRIBUTIONS, VARIABLE="value") in a process of its own."""
    return command_line.run_process


@pytest.fixture
def run_beside(monkeypatch: pytest.MonkeyPatch) -> Callable[..., command_line.Result]:
    """run_beside("animate", ..., path=FOLDER_OF_DISTRIBUTIONS, VARIABLE="value") in this process, beside what the
    folder holds: as `run_process`, and quicker."""

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
    """Forget the modules of a folder that were imported since there were `modules`."""
    for name in set(sys.modules) - modules:
        if folder is not None and str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """third_party(source, name=..., entry=...) installs a distribution for this test."""
    modules = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda source, **options: distributions.install(tmp_path, source, **options)
    _forget(modules, tmp_path)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums are rounded alike in all runs, as in processes of one thread."""
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
    """Six clips of six identities to train on, one more to validate with; not to be written to."""
    import training_runs

    return training_runs.write_training_clips(tmp_path_factory.mktemp("training-clips"))
