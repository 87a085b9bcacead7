"""The processes that train together; one, where nothing was launched."""

from __future__ import annotations

import inspect
import os
import re
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

from fommctl.errors import FommctlError, InterruptedRunError, JobsFailedError, UsageError
from fommctl.networks.inference.devices import resolve_device
from fommctl.train.process_environment import Place, find_place

T = TypeVar("T")

MEETING = timedelta(minutes=5)
"""How long processes wait for the others to start."""
WORKING = timedelta(minutes=30)
"""How long they wait for one another later on: the first one validates, draws and writes while the others wait."""
_PAUSE = 0.05
_FAILED = "failed"
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train one model."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    device: str | None = None
    """On which this process has to compute; None where it is free to choose."""

    @property
    def first(self) -> bool:
        """The one that writes files and talks to people."""
        return self.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """A module that exchanges gradients with those of the other processes; they become means over all.

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
        from fommctl.networks.batch_norm import synchronise

        for module in modules.values():
            if self.device == "cpu":
                synchronise(module)
            else:
                nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]

    def mean(self, values: Tensor) -> Tensor:
        """Over the processes, elementwise."""
        if self.world == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.world

    def any(self, flag: bool) -> bool:
        """Is it true in one of them? All get the same answer, and none before all have asked."""
        if self.world == 1:
            return flag
        answer = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(answer, dist.ReduceOp.MAX)
        return bool(answer)

    def from_first(self, decide: Callable[[], T]) -> T:
        """What the first process decides; the others do not call `decide`."""
        if self.world == 1:
            return decide()
        decided = [decide() if self.first else None]
        dist.broadcast_object_list(decided, src=0, device=_CPU)
        return decided[0]  # type: ignore[return-value]


@contextmanager
def join(device: str = "auto") -> Iterator[Processes]:
    """Inside, this process and those that torchrun or srun started with it are one group; alone, nothing happens.

    device: as `resolve_device` takes it; each process gets a GPU of its own, or all compute on the CPU.

    An error is told once, by the process that met it first. The others, which lose the connection to it, leave with
    its exit code and without a word (SystemExit). Raises UsageError (device, environment) and JobsFailedError where
    processes do not find one another or one vanishes.
    """
    place = find_place(os.environ)
    if place is None:
        yield Processes()
        return
    store = _store(place)
    try:
        # First of all, so that none waits for a store that went with an error of the first process.
        _meet(store, place, "here")
        own = _own_device(device, place)
        _meet(store, place, "ready")
        backend = "cpu:gloo,cuda:nccl" if own.startswith("cuda") else "gloo"
        if backend != "gloo":
            torch.cuda.set_device(own)
        group = PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=place.rank, world_size=place.world, timeout=WORKING)
        processes = Processes(place.rank, place.world, place.local_rank, own)
        yield processes
        processes.any(False)
    except BaseException as error:
        # The group is not taken down: that may wait for processes that have gone. It ends with this one.
        _leave(store, place, error)
    dist.destroy_process_group()


def _store(place: Place) -> Store:
    """What all processes can read and write, also before they are a group and after one has failed."""
    try:
        server = place.rank == 0 and not place.hosted
        store = TCPStore(place.host, place.port, place.world, server, MEETING, wait_for_workers=False)
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise JobsFailedError(
            f"process {place.rank} of {place.world} cannot reach {place.host}:{place.port}: {_line(error)}",
            "Is that port free, and may the machines talk to one another there? MASTER_ADDR and MASTER_PORT name it.",
        ) from error
    return PrefixStore(f"fommctl/{place.attempt}", store)


def _meet(store: Store, place: Place, point: str) -> None:
    """Wait until all processes are there. In small steps: signals are heeded, and a failure elsewhere is noticed."""
    store.set(f"{point}/{place.rank}", "")
    others = [f"{point}/{rank}" for rank in range(place.world)]
    deadline = time.monotonic() + MEETING.total_seconds()
    while not store.check(others):
        if store.check([_FAILED]):
            raise JobsFailedError("another process has failed", "See its message.")
        if time.monotonic() > deadline:
            here = sum(store.check([name]) for name in others)
            raise JobsFailedError(
                f"only {here} of {place.world} processes have started", "Look for messages of the others."
            )
        time.sleep(_PAUSE)


def _own_device(name: str, place: Place) -> str:
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if name not in ("auto", "cuda"):
        raise UsageError(f"{place.world} processes cannot all compute on '{name}'", "Take --device cuda or cpu.")
    resolve_device("cuda")
    count = torch.cuda.device_count()
    # srun --gpus-per-task=1 shows each process its own GPU only.
    number = 0 if count == 1 and not place.shares_devices else place.local_rank
    if number >= count:
        raise UsageError(
            f"this machine has {count} GPUs, too few for {number + 1} processes",
            "Start one process for each GPU, or take --device cpu.",
        )
    return f"cuda:{number}"


def _leave(store: Store, place: Place, error: BaseException) -> NoReturn:
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
            f"the connection to the other processes is lost: {_line(error)}",
            "One of them has ended or is out of reach. Go on with the same command and --resume auto.",
        ) from error
    raise error


def _code(error: BaseException) -> int:
    if isinstance(error, FommctlError):
        return error.exit_code
    return InterruptedRunError.exit_code if isinstance(error, KeyboardInterrupt) else FommctlError.exit_code


def _line(error: BaseException) -> str:
    """What happened, without the place in torch's source before it and its advice behind it."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[\S+\] ", "", first).split(". ")[0][:200]
