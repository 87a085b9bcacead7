"""The processes that train together; one, where nothing was launched."""

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
"""Time that processes wait for the others to start."""
ATTEMPT_S = 10
PATIENCE_S = 60.0
"""Seconds that a store has to answer once somebody listens at its address."""
WORKING = timedelta(minutes=30)
"""Time that they wait for one another later on: the first one validates, draws and writes while the others wait."""
_PAUSE = 0.05
_FAILED = "failed"
_CPU = torch.device("cpu")
_LAUNCH = "Launch several processes with torchrun; for one, unset RANK and WORLD_SIZE."


@dataclass(frozen=True, slots=True)
class DistributedEnv:
    """This process among `world` of them, as torchrun describes it in environment variables."""

    rank: int
    world: int
    local_rank: int
    """The number of this process on its machine."""
    host: str
    """Host of the store to which all processes connect."""
    port: int
    hosted: bool
    """True where the launcher keeps the store, and not the process of rank 0."""
    attempt: str = "0"
    """Number of times that torchrun has started the processes again."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> DistributedEnv | None:
        """Read torchrun's variables; None where there is one process only.

        Raises UsageError where a variable is missing or no number.
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
    """This process among those that train one model."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    device: str | None = None
    """Device of this process; None where it is free to choose."""

    @property
    def first(self) -> bool:
        """The one that writes files and talks to people."""
        return self.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return a module that exchanges gradients with those of the other processes; they become means over all.

        It starts from the parameters and buffers of the first process.
        """
        if self.world == 1:
            return module
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
        parallel = nn.parallel.DistributedDataParallel
        # From then on buffers stay equal by themselves: statistics see the whole batch. Broadcasting them within a
        # step would write to what its backward pass needs. torch has renamed the option.
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
        """Tell whether it is true in one of the processes. All get the same answer, and none before all have asked."""
        if self.world == 1:
            return flag
        answer = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(answer, dist.ReduceOp.MAX)
        return bool(answer)

    def from_first(self, decide: Callable[[], T]) -> T:
        """Return what the first process decides; the others do not call `decide`."""
        if self.world == 1:
            return decide()
        decided = [decide() if self.first else None]
        dist.broadcast_object_list(decided, src=0, device=_CPU)
        return decided[0]  # type: ignore[return-value]


@contextmanager
def join(device: str = "auto") -> Iterator[Processes]:
    """Make one group of the processes that torchrun started together; alone, nothing happens.

    device: as `resolve_device` takes it; each process gets a GPU of its own, or all compute on the CPU.

    An error is reported once, by the process that met it first. The others, which lose the connection to it, end with
    its exit code and without a message (SystemExit). Raises UsageError (device, environment) and JobsFailedError where
    processes do not find one another or one vanishes.
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
    """Return the store that all processes can read and write, also before they are a group and after one failed."""
    server = place.rank == 0 and not place.hosted
    store: Store
    try:
        if server:
            # It listens at all addresses of this machine. Whether MASTER_ADDR is one of them the others will tell.
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
    """Connect to the store. torch waits without an end for a server that says nothing, and deaf to signals: it does so
    in a thread."""
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
    """Wait until something answers there. torch waits too, but deaf to signals and with a page of messages a try."""
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
    """Wait until all processes are there. In small steps: signals are heeded, and a failure elsewhere is noticed."""
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
    """Raise the error, or SystemExit where another process has told one."""
    own = f"{place.rank} {_code(error)}"
    lost = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    try:
        told = store.compare_set(_FAILED, "", own).decode()
    except dist.DistError:
        # The store went with the first process, which can tell better what happened to it.
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
    """Return the first sentence of an error of torch, without the place in its source and its advice."""
    return re.sub(r"^\[\S+\] ", "", first_line(error)).split(". ")[0]
