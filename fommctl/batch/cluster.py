"""Connecting to a running Ray cluster, or starting one on this machine for the time of the run."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fommctl import signals
from fommctl.errors import MissingError, UsageError
from fommctl.machine import usable_cores

ANSWER_S = 5.0
"""Seconds to wait for a cluster's answer."""
STORE_BYTES = 256 << 20
"""Memory of the object store, for source pictures and motions; videos do not go through it."""
_SETTINGS, _FRAME_HEADER = b"\x04", 9
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
"""First bytes of an HTTP/2 client: the preface, and empty settings."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A connected cluster and its resources."""

    ray: Any
    """The module ray."""
    own: bool
    """Whether it was started here, for this run."""
    processors: tuple[int, ...]
    """Number of processors of each machine."""
    gpus: int


@dataclass(frozen=True, slots=True)
class Share:
    """Resources of each worker."""

    workers: int
    threads: int
    gpu: bool


@contextlib.contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Cluster]:
    """Connect to Ray at `address`: `auto` for the one that runs on this machine, HOST:PORT, or None for RAY_ADDRESS; if
    that is not set, Ray is started here and stopped at the end.

    workers: number of workers for which a Ray started here needs room. Raises MissingError if Ray is not installed,
    does not answer, or has another version.
    """
    ray = _import()
    address = address or os.environ.get("RAY_ADDRESS") or None
    if ray.is_initialized():
        yield _cluster(ray, own=False)
        return
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
        if address is None:
            # A short path, because names of sockets are limited to 107 bytes.
            folder = tempfile.mkdtemp(prefix="fommctl-ray-")
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            options |= {"address": "local", "num_cpus": max(usable_cores(), workers or 1), "_temp_dir": folder}
            options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
            stack.enter_context(_token_of_its_own())
        else:
            _check_answers(address)
            shared = {name: value for name, value in os.environ.items() if name.startswith("FOMMCTL_")}
            options |= {"address": address, "runtime_env": {"env_vars": shared}}
        stack.callback(ray.shutdown)
        with signals.kept(), contextlib.redirect_stdout(sys.stderr):
            _init(ray, address, options)
        yield _cluster(ray, own=address is None)


def share_out(cluster: Cluster, workers: int | None, devices: tuple[str, ...]) -> Share:
    """Divide a cluster's resources among workers.  workers: None: one per GPU, or without GPUs one per machine.

    devices: () for whatever there is; ("cpu",) does not use GPUs. A worker on processors has the threads of
    OMP_NUM_THREADS, else an equal share. Raises UsageError.
    """
    if any(device not in ("cpu", "auto", "cuda") for device in devices):
        raise UsageError(
            f"--devices {','.join(devices)} with --engine ray",
            "Ray assigns each worker a GPU if there are any: leave out --devices, or give cpu.",
        )
    gpu = cluster.gpus > 0 and "cpu" not in devices
    if "cuda" in devices and not gpu:
        raise MissingError(
            "no machine of this Ray cluster has a GPU", "Start it with 'ray start --num-gpus=N', or without."
        )
    total = sum(cluster.processors)
    workers = workers or (cluster.gpus if gpu else len(cluster.processors))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(asked) if asked.isdecimal() else total // workers
    return Share(workers, max(1, min(threads, min(cluster.processors))), gpu)


def _import() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingError("--engine ray needs the package ray", "Run pip install 'fommctl[ray]'.") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def _init(ray: Any, address: str | None, options: dict[str, Any]) -> None:
    try:
        ray.init(**options)
    except (ConnectionError, TimeoutError) as error:
        raise _no_answer(address or "this machine") from error
    except ray.exceptions.RayError as error:
        raise MissingError(
            f"the Ray cluster at {address} requires a token",
            "Put its token into ~/.ray/auth_token or RAY_AUTH_TOKEN: 'ray get-auth-token' on its head node prints it.",
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        text = str(error)
        if "ersion mismatch" in text:
            lines = " ".join(text.split())
            raise MissingError(
                f"the Ray cluster at {address} runs another version: {lines}",
                "Install the same versions of Python and ray on all machines.",
            ) from error
        raise MissingError(f"Ray failed to start: {text.splitlines()[0] if text else error!r}", _HOW) from error


_HOW = "Start one: 'ray start --head' on one machine, 'ray start --address=HOST:6379' on the others."


def _no_answer(address: str) -> MissingError:
    return MissingError(f"no Ray cluster answers at {address}", _HOW)


def _check_answers(address: str) -> None:
    """Raise MissingError at once if nothing listens at the address; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--address {address}", "Give auto or HOST:PORT, such as head.example:6379.")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S) as connection:
            if os.environ.get("RAY_USE_TLS") != "1" and not _speaks_grpc(connection):
                raise MissingError(f"the server at {address} is not Ray", _HOW)
    except OSError as error:
        raise _no_answer(address) from error


def _speaks_grpc(connection: socket.socket) -> bool:
    """Return whether the other side speaks HTTP/2, like gRPC and so Ray: it then answers with its settings (RFC 9113,
    section 3.4). Raises OSError if there is no answer within ANSWER_S seconds."""
    connection.sendall(_GREETING)
    answer = b""
    while len(answer) < _FRAME_HEADER and (more := connection.recv(_FRAME_HEADER - len(answer))):
        answer += more
    return answer[3:4] == _SETTINGS


def _cluster(ray: Any, own: bool) -> Cluster:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = tuple(int(each["CPU"]) for each in alive if each.get("CPU", 0) >= 1)
    if not cpus:
        raise MissingError("no machine of this Ray cluster has a free CPU", _HOW)
    return Cluster(ray, own, cpus, int(sum(each.get("GPU", 0) for each in alive)))


@functools.cache
def _token() -> str:
    """Return a random token for Ray's authentication, always the same: Ray reads it once per process."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _token_of_its_own() -> Iterator[None]:
    """Protect a Ray that this run starts by a token of its own, without writing to the user's home."""
    names = ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE")
    before = {name: os.environ.get(name) for name in names}
    os.environ["RAY_AUTH_TOKEN"] = _token()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
