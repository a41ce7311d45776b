"""The ranks of one training: which of them this process is, and what they exchange. A single process is a group of one.

Numbers and objects travel between CPUs, over gloo, whichever way the gradients take: no GPU waits for them. All ranks
make the same calls in the same order; what one rank may do alone says so.

`join` reads these environment variables, which torchrun, `elastic` or `cluster` (for srun) has set:

| variable | what it says |
|---|---|
| `RANK`, `WORLD_SIZE` | which rank this is, from 0, and how many there are |
| `LOCAL_RANK`, `LOCAL_WORLD_SIZE` | the same among the ranks of this host; `LOCAL_RANK` is also the GPU's number |
| `MASTER_ADDR`, `MASTER_PORT` | where the ranks of torchrun and srun meet |
| `MINITX_RANKS` | the folder where the ranks of `elastic` meet instead |
| `TORCHELASTIC_RESTART_COUNT` | how often all ranks were restarted; each attempt meets anew |
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from minitx.distributed.cluster import FOLDER
from minitx.utils.errors import Exit, UserError

COMMS: Any = distributed  # torch leaves part of it untyped
EXIT_CODE = "exit_code"  # file in the folder of `elastic`, once the job has ended on purpose
LOST = 75  # exit code of a rank that ends because another did
POLL_S, PATIENCE_S = 0.05, 1.0
T = TypeVar("T")

# What gloo, NCCL and torch's store say where another rank does not answer, or has gone.
TIMED_OUT = ("timed out waiting", "timed out after", "wait timeout", "timeout waiting", "socket timeout")
GONE = ("connection closed by peer", "connection reset by peer", "broken pipe", "no route to host", "failed to recv",
        "connection refused", "network is unreachable", "remote process exited", "communicator was aborted")


def noop() -> None:
    """Do nothing: the default of a callback."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """Hold a rank's place: `rank` of `size`, and `local_rank` of the `local_size` on its own host. store: torch's"""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes, prints and decides by the clock."""
        return self.rank == 0

    @property
    def hosts(self) -> int:
        """How many hosts there are; each has as many ranks."""
        return self.size // self.local_size

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Return the sum of each value over the ranks, in float64."""
        return self._reduce(torch.tensor(values, dtype=torch.float64), distributed.ReduceOp.SUM)

    def all_reduce_max(self, *values: int) -> list[int]:
        """Return the largest of each value over the ranks."""
        return [int(value) for value in self._reduce(torch.tensor(values), distributed.ReduceOp.MAX)]

    def _reduce(self, values: torch.Tensor, how: Any) -> list[Any]:
        if self.size > 1:
            distributed.all_reduce(values, how)
        numbers: list[Any] = values.tolist()
        return numbers

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Return the first rank's value."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def union(self, part: dict[int, T]) -> dict[int, T]:
        """Return the parts of all ranks as one, in the order of its keys."""
        return dict(sorted((key, value) for one in self.all_gather(part) for key, value in one.items()))

    def shard(self, turns: Sequence[T], on_round: Callable[[], None]) -> Iterator[T]:
        """Yield this rank's share; of 7 turns rank 1 of 3 has 1 and 4. All ranks call `on_round` before each round."""
        for first in range(0, len(turns), self.size):
            on_round()
            if first + self.rank < len(turns):
                yield turns[first + self.rank]

    @contextmanager
    def main_process_first(self, what: str) -> Iterator[None]:
        """Let the first rank go through a block before the others, which then find what it left on disk.

        what: a name for the block, once used. The others wait as long as it takes. Errors: the first rank's `UserError`
        on all ranks; RuntimeError where it met another error, or is gone.
        """
        if self.size == 1:
            yield
            return
        if not self.is_main:
            self._wait(what)
            outcome = self.store.get(what).decode()
            if outcome == "failed":
                raise RuntimeError("Connection closed by peer: the first rank met an error of its own")
            if outcome != "done":
                code, _, message = outcome.partition(" ")
                raise UserError(message, Exit(int(code)))
        key = what if self.is_main else f"{what}, {self.rank}"
        try:
            yield
        except BaseException as error:
            self.store.set(key, f"{int(error.code)} {error}" if isinstance(error, UserError) else "failed")
            raise
        self.store.set(key, "done")
        if self.is_main:
            for rank in range(1, self.size):
                self._wait(f"{what}, {rank}")

    def _wait(self, key: str) -> None:
        while not self.store.check([key]):
            if (folder := os.environ.get(FOLDER)) and (Path(folder) / EXIT_CODE).exists():
                raise RuntimeError("Connection closed by peer: another rank has ended the job")
            time.sleep(POLL_S)

    def agree(self, **facts: str) -> None:
        """See that all ranks hold the same facts. Errors: `UserError` naming the first that differs from rank 0's."""
        for rank, theirs in enumerate(by_rank := self.all_gather(facts)):
            for name, value in theirs.items():
                if value != (ours := by_rank[0][name]):
                    raise UserError(f"rank {rank} has another {name} ({value[:12]}) than rank 0 ({ours[:12]}); all "
                                    "need the same command line, code, text and environment")

    def is_first_to_say(self, text: str) -> bool:
        """Tell whether no other rank has said this text yet. A rank may ask alone."""
        if self.size == 1:
            return True
        return bool(self.store.add(f"said-{hashlib.sha256(text.encode()).hexdigest()}", 1) == 1)

    def missing(self, where: str, patience_s: float) -> list[int]:
        """Return the ranks that have not come to this place. Each that waits there for the others calls this."""
        late: list[int] = []

        def ask() -> None:
            with suppress(RuntimeError):
                self.store.set(f"waits at {where}, {self.rank}", "")
                time.sleep(patience_s)
                late.extend(r for r in range(self.size) if not self.store.check([f"waits at {where}, {r}"]))

        thread = Thread(target=ask, daemon=True)  # the store may be behind a cut link, and never answer
        thread.start()
        thread.join(patience_s + 2)
        return late


SINGLE = Ranks()


def join(timeout_s: float, *, on_gpu: bool) -> Ranks:
    """Meet the other ranks where the environment says, and return this rank's place among them.

    timeout_s: how long any exchange waits for the others. on_gpu: gradients travel over NCCL. Errors: RuntimeError,
    torch's, where they do not come.
    """
    rank, size, local_rank, local_size = (int(os.environ[name]) for name in (
        "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if FOLDER in os.environ:
        store: Any = COMMS.FileStore(str(Path(os.environ[FOLDER]) / f"store-{attempt}"), size)
    else:
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=timeout_s)))
    if on_gpu:
        torch.cuda.set_device(local_rank)
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo", store=COMMS.PrefixStore(f"group-{attempt}", store), rank=rank,
        world_size=size, timeout=timedelta(seconds=timeout_s))
    return Ranks(rank, size, local_rank, local_size, COMMS.PrefixStore(f"ranks-{attempt}", store))


def peers_lost(error: BaseException) -> str | None:
    """Return, in a few words, how another rank caused this error by ending or not answering; None if none did."""
    if not isinstance(error, RuntimeError):
        return None
    text = " ".join(str(error).split()).lower()
    if waited := next((words for words in TIMED_OUT if words in text), None):
        return f"waited: {waited}"
    return next((words for words in GONE if words in text), None)
