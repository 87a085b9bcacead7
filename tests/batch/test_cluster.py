"""Connecting to Ray: errors if that fails, and that other users' clusters keep running."""

from __future__ import annotations

import os
import signal
import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from file_server import answering

from fommctl.batch import cluster as cluster_module
from fommctl.batch.cluster import Cluster, connected, share_out
from fommctl.errors import MissingError, UsageError


class RayError(Exception):
    """The exception of ray.exceptions."""


def stand_in(monkeypatch: pytest.MonkeyPatch, *, running: bool = False, error: Exception | None = None) -> list[str]:
    """Install a module `ray` that starts nothing, for errors that a real one cannot be made to raise; return its
    calls."""
    calls: list[str] = []

    def init(**options: Any) -> None:
        calls.append("init")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if error is not None:
            raise error

    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 99.0}},
        {"Alive": True, "Resources": {"GPU": 2.0}},
    ]
    module = SimpleNamespace(
        init=init, is_initialized=lambda: running, shutdown=lambda: calls.append("shutdown"), nodes=lambda: nodes,
        exceptions=SimpleNamespace(RayError=RayError),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return calls


def test_a_ray_of_ones_own_is_stopped_and_one_that_was_there_is_not(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    calls = stand_in(monkeypatch)
    before = signal.getsignal(signal.SIGTERM), dict(os.environ)
    with connected(None, 2) as cluster:
        assert (cluster.own, cluster.processors, cluster.gpus) == (True, (4,), 3)
        assert signal.getsignal(signal.SIGTERM) == before[0]
    assert calls == ["init", "shutdown"]
    assert "RAY_AUTH_TOKEN" not in os.environ or "RAY_AUTH_TOKEN" in before[1]
    calls = stand_in(monkeypatch, running=True)
    with connected(None, 2) as cluster:
        assert not cluster.own
    assert calls == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n"), "another version.*2.40.0"),
        (RayError("InvalidAuthToken"), "requires a token"),
        (ConnectionError("Could not find any running Ray instance."), "no Ray cluster answers at auto"),
        (ValueError("When connecting to an existing cluster, num_cpus must not be provided.\n..."), "failed to start"),
    ],
)
def test_what_ray_says_is_said_in_our_words(monkeypatch, error, message):
    calls = stand_in(monkeypatch, error=error)
    with pytest.raises(MissingError, match=message) as caught, connected("auto", 2):
        pass
    assert caught.value.hint
    assert calls == ["init", "shutdown"]


def test_shares(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    farm = Cluster(ray=None, own=False, processors=(16, 16, 8), gpus=0)
    assert share_of(farm, None) == (3, 8, False)
    assert share_of(farm, 10) == (10, 4, False)
    assert share_of(farm, 100) == (100, 1, False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert share_of(farm, 10) == (10, 2, False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    gpus = Cluster(ray=None, own=False, processors=(16, 16), gpus=4)
    assert share_of(gpus, None) == (4, 8, True)
    assert share_of(gpus, 2, ("cpu",)) == (2, 16, False)
    with pytest.raises(UsageError, match="cuda:1"):
        share_of(gpus, None, ("cuda:1",))
    with pytest.raises(MissingError, match="has a GPU"):
        share_of(farm, None, ("cuda",))


def share_of(cluster: Cluster, workers: int | None, devices: tuple[str, ...] = ()) -> tuple[int, int, bool]:
    share = share_out(cluster, workers, devices)
    return share.workers, share.threads, share.gpu


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingError) as caught, connected(None, 1):
        pass
    assert "pip install 'fommctl[ray]'" in (caught.value.hint or "")


def test_nobody_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        pytest.raises(MissingError, match=f"no Ray cluster answers at 127.0.0.1:{port}"),
        connected(f"127.0.0.1:{port}", 1),
    ):
        pass
    for address in ("nonsense", "host:port", ":1", "host:99999"):
        with pytest.raises(UsageError, match="--address"), connected(address, 1):
            pass


@pytest.mark.parametrize(
    ("text", "says"), [(b"", "no Ray cluster answers at"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not Ray")]
)
def test_something_else_answers(monkeypatch, text, says):
    stand_in(monkeypatch)
    monkeypatch.setattr(cluster_module, "ANSWER_S", 0.2)
    with answering(text) as port, pytest.raises(MissingError, match=says), connected(f"127.0.0.1:{port}", 1):
        pass
