"""A running Ray, or one of our own on this machine: connecting, quietly, and leaving it as it was."""

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
"""Seconds that a cluster has to answer."""
STORE_BYTES = 256 << 20
"""Memory for what is handed around: pictures of sources and motions, no videos."""
_SETTINGS, _FRAME_HEADER = b"\x04", 9
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
"""Beginning of a client: the preface of HTTP/2, and settings that leave all as it is."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Resources that workers can be given."""

    ray: Any
    """The module."""
    own: bool
    """Started here, for this run."""
    processors: tuple[int, ...]
    """Numbers of each machine that has some."""
    gpus: int


@dataclass(frozen=True, slots=True)
class Share:
    """Resources of each worker."""

    workers: int
    threads: int
    gpu: bool


@contextlib.contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Cluster]:
    """Connect to Ray at `address`: `auto` for the one that runs on this machine, HOST:PORT, or None for RAY_ADDRESS,
    without which one is started here and stopped at the end.

    workers: those that a Ray of our own must have room for. Raises MissingError where Ray is not installed, does not
    answer, or is of another version.
    """
    ray = _import()
    address = address or os.environ.get("RAY_ADDRESS") or None
    if ray.is_initialized():
        yield _cluster(ray, own=False)
        return
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
        if address is None:
            # Short, for names of sockets hold 107 bytes.
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
    """Return what each of so many workers gets; None: one a GPU, else one a machine.

    devices: () for what there is; ("cpu",) leaves GPUs alone. A worker on processors has the threads of
    OMP_NUM_THREADS, else an equal part of the machines'. Raises UsageError.
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
    """Raise MissingError at once where nobody listens: Ray itself would try for minutes."""
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
    """Tell whether the other side answers as HTTP/2 has it, which gRPC and so Ray speak: with its settings (RFC 9113,
    section 3.4). Raises OSError where it says nothing for ANSWER_S seconds."""
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
    """Return the settings of Ray, which are read once in a process."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _token_of_its_own() -> Iterator[None]:
    """Keep a Ray that this run starts to itself, and leave nothing in the user's home."""
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
