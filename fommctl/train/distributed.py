"""Distributed training: the group of processes started by torchrun, or a single process."""

from __future__ import annotations

import atexit
import contextlib
import gc
import inspect
import logging
import os
import queue
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from fommctl.errors import FommctlError, InterruptedRunError, JobsFailedError, UsageError, first_line
from fommctl.networks.inference.devices import resolve_device

T = TypeVar("T")
log = logging.getLogger(__name__)

MEETING = timedelta(minutes=5)
"""Time to wait for the other processes to start."""
ATTEMPT_S = 10
PATIENCE_S = 60.0
"""Seconds to wait for the store's answer once its address accepts connections."""
WORKING = timedelta(minutes=30)
"""Time to wait for the other processes later on: they wait while the first one validates, draws and writes."""
_PAUSE = 0.05
_FAILED = "failed"
_CPU = torch.device("cpu")
_LAUNCH = "Launch several processes with torchrun; for one, unset RANK and WORLD_SIZE."


@dataclass(frozen=True, slots=True)
class DistributedEnv:
    """This process's place in a group of `world` processes, from torchrun's environment variables."""

    rank: int
    world: int
    local_rank: int
    """Index of this process on its machine."""
    host: str
    """Host of the store to which all processes connect."""
    port: int
    hosted: bool
    """Whether the launcher runs the store, not the process of rank 0."""
    attempt: str = "0"
    """How often torchrun has restarted the processes."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> DistributedEnv | None:
        """Read torchrun's variables; None for a single process.

        Raises UsageError if a variable is missing or not a number.
        """
        if "LOCAL_WORLD_SIZE" in environment:
            # The memory of the machine is divided by it.
            _number(environment, "LOCAL_WORLD_SIZE")
        if "RANK" not in environment or "WORLD_SIZE" not in environment:
            return None
        rank, world = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
        if world <= 1:
            return None
        if rank >= world:
            raise UsageError(f"RANK is {rank} and WORLD_SIZE {world}", _LAUNCH)
        return cls(
            rank,
            world,
            _number(environment, "LOCAL_RANK"),
            _text(environment, "MASTER_ADDR"),
            _number(environment, "MASTER_PORT"),
            hosted=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
        )


def _text(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise UsageError(f"the environment variable {name} is missing for one of several processes", _LAUNCH)
    return environment[name]


def _number(environment: Mapping[str, str], name: str) -> int:
    text = _text(environment, name)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError(f"the environment variable {name} is not a number: {text[:40]}", _LAUNCH)
    return int(text)


@dataclass(frozen=True, slots=True)
class Processes:
    """The group of processes that train one model, as seen by this one."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    device: str | None = None
    """Device of this process; None if it may choose one."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports progress."""
        return self.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that gradients are averaged over all processes.

        All processes start with the parameters and buffers of the first.
        """
        if self.world == 1:
            return module
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
        parallel = nn.parallel.DistributedDataParallel
        # Buffers then stay equal, because statistics see the whole batch. Broadcasting them within a step would
        # overwrite what its backward pass needs. The name of the option depends on the version of torch.
        newer = "forward_sync_buffers" in inspect.signature(parallel).parameters
        return parallel(module, **{"forward_sync_buffers" if newer else "broadcast_buffers": False})  # type: ignore[arg-type]

    def synchronise_statistics(self, modules: Mapping[str, nn.Module]) -> None:
        """Let BatchNorm of these networks see the whole batch, in place."""
        if self.world == 1:
            return
        from fommctl.networks.layers import synchronise

        for module in modules.values():
            if self.device == "cpu":
                synchronise(module)
            else:
                nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes, elementwise."""
        if self.world == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.world

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true in any process. Blocks until all processes have called it."""
        if self.world == 1:
            return flag
        answer = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(answer, dist.ReduceOp.MAX)
        return bool(answer)

    def from_first(self, decide: Callable[[], T]) -> T:
        """Call `decide` in the first process only, and return its result in all."""
        if self.world == 1:
            return decide()
        decided = [decide() if self.first else None]
        dist.broadcast_object_list(decided, src=0, device=_CPU)
        return decided[0]  # type: ignore[return-value]


@contextmanager
def join(device: str = "auto") -> Iterator[Processes]:
    """Join the group of processes that torchrun has started; a single process needs no group.

    device: see `resolve_device`; each process gets a GPU of its own, or all compute on the CPU.

    An error is reported once, by the process in which it occurred first. The others lose the connection, and end with
    the same exit code and without a message (SystemExit). Raises UsageError (device, environment), and JobsFailedError
    if processes cannot connect or one disappears.
    """
    place = DistributedEnv.read(os.environ)
    if place is None:
        yield Processes()
        return
    # torch imports this module with the first DistributedDataParallel, and the defaults of its functions are then the
    # group. Imported before there is a group, it does not keep the group's threads alive into the end of the
    # interpreter, where they end the process with "terminate called without an active exception".
    import torch.distributed.nn.functional

    store = _connect(place)
    try:
        _meet(store, place)
        gpus = device != "cpu" and torch.cuda.is_available()
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        group = PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=place.rank, world_size=place.world, timeout=WORKING)
        own = _own_device(device, place)
        if own != "cpu":
            torch.cuda.set_device(own)
        processes = Processes(place.rank, place.world, place.local_rank, own)
        yield processes
        processes.any(False)
    except BaseException as error:
        # The group stays: its networks are held by the error's traceback, and taking it down may wait for processes
        # that have gone. The process ends before the interpreter does, in which the group's threads would abort.
        atexit.register(_end_at_once, _code(error))
        _leave(store, place, error)
    dist.destroy_process_group()
    # Networks hold the group, and its threads end with it; objects that refer to each other are freed only here.
    gc.collect()


def _end_at_once(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _connect(place: DistributedEnv) -> Store:
    """Return the store shared by all processes, which also works before they form a group and after a failure."""
    server = place.rank == 0 and not place.hosted
    store: Store
    try:
        if server:
            # It listens on all addresses of this machine; if MASTER_ADDR is not one of them, the others report it.
            store = TCPStore("127.0.0.1", place.port, place.world, True, MEETING, wait_for_workers=False)
        else:
            _wait_for(place)
            store = _client(place)
    except (OSError, RuntimeError, ValueError) as error:
        raise JobsFailedError(
            f"process {place.rank} of {place.world} cannot reach {place.host}:{place.port}: {_line(error)}",
            "MASTER_ADDR and MASTER_PORT name it, and torchrun sets them. "
            "To train in one process, unset RANK and WORLD_SIZE.",
        ) from error
    return PrefixStore(f"fommctl/{place.attempt}", store)


def _client(place: DistributedEnv) -> Store:
    """Connect to the store, in a thread: torch waits forever for a server that does not answer, and blocks signals."""
    answer: queue.SimpleQueue[Store | Exception] = queue.SimpleQueue()

    def connect() -> None:
        try:
            answer.put(TCPStore(place.host, place.port, place.world, False, MEETING, wait_for_workers=False))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        found = answer.get(timeout=PATIENCE_S)
    except queue.Empty:
        raise OSError("the server there is not a torch store: it sends nothing") from None
    if isinstance(found, Exception):
        raise found
    return found


def _wait_for(place: DistributedEnv) -> None:
    """Wait until the store's address accepts connections. torch would wait too, but block signals and print a page of
    messages per attempt."""
    deadline = time.monotonic() + MEETING.total_seconds()
    told = False
    while True:
        try:
            socket.create_connection((place.host, place.port), timeout=ATTEMPT_S).close()
            return
        except (OSError, OverflowError) as error:
            if time.monotonic() > deadline:
                raise
            if not told:
                log.warning(
                    "process %d of %d waits for %s:%d: %s", place.rank, place.world, place.host, place.port, error
                )
                told = True
        time.sleep(_PAUSE)


def _meet(store: Store, place: DistributedEnv) -> None:
    """Wait until all processes have started, in small steps, to react to signals and to failures of other processes."""
    store.set(f"here/{place.rank}", "")
    others = [f"here/{rank}" for rank in range(place.world)]
    began = time.monotonic()
    deadline, telling = began + MEETING.total_seconds(), began + ATTEMPT_S
    while not store.check(others):
        if time.monotonic() > telling:
            here, telling = sum(store.check([name]) for name in others), deadline
            log.warning("process %d waits for the others: %d of %d are here", place.rank, here, place.world)
        if store.check([_FAILED]):
            raise JobsFailedError("another process failed", "See its message.")
        if time.monotonic() > deadline:
            here = sum(store.check([name]) for name in others)
            raise JobsFailedError(
                f"only {here} of {place.world} processes started",
                f"Look for messages of the others; they need to reach {place.host}:{place.port}.",
            )
        time.sleep(_PAUSE)


def _own_device(name: str, place: DistributedEnv) -> str:
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if name not in ("auto", "cuda"):
        raise UsageError(f"{place.world} processes cannot all use '{name}'", "Use --device cuda or cpu.")
    resolve_device("cuda")
    count = torch.cuda.device_count()
    if place.local_rank >= count:
        raise UsageError(
            f"this machine has {count} GPUs, too few for {place.local_rank + 1} processes",
            "Start one process for each GPU, or use --device cpu.",
        )
    return f"cuda:{place.local_rank}"


def _leave(store: Store, place: DistributedEnv, error: BaseException) -> NoReturn:
    """Raise the error, or SystemExit if another process has reported one."""
    own = f"{place.rank} {_code(error)}"
    lost = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    try:
        told = store.compare_set(_FAILED, "", own).decode()
    except dist.DistError:
        # The store ended with the first process, which reports the cause itself.
        told = "0 1" if lost else own
    if told != own:
        raise SystemExit(int(told.split()[1])) from error
    if lost:
        raise JobsFailedError(
            f"the connection to the other processes was lost: {_line(error)}",
            "One of them ended or cannot be reached. Run the same command with --resume auto.",
        ) from error
    raise error


def _code(error: BaseException) -> int:
    if isinstance(error, FommctlError):
        return error.exit_code
    return InterruptedRunError.exit_code if isinstance(error, KeyboardInterrupt) else FommctlError.exit_code


def _line(error: BaseException) -> str:
    """Return the first sentence of an error of torch, without source locations and advice."""
    return re.sub(r"^\[\S+\] ", "", first_line(error)).split(". ")[0]
