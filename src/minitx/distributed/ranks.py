"""The ranks of one training: who is who, and what they tell each other. One process alone is a group of one.

Numbers and objects travel between CPUs, over gloo, whatever way the gradients take: no GPU waits for them. Everything
here is called by all ranks, in the same order.
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

from minitx.utils.errors import Exit, UserError

COMMS: Any = distributed  # of which torch does not type all
FOLDER = "MINITX_RANKS"  # where ranks that our own agent started find their settings and meet, in a file, not at a port
EXIT_CODE = "exit_code"  # in that folder, once the job has ended on purpose
LOST = 75  # exit code of a rank that ends because another did
POLL_S, PATIENCE_S = 0.05, 1.0
T = TypeVar("T")

TIMED_OUT = ("timed out waiting", "timed out after", "wait timeout", "timeout waiting", "socket timeout")
GONE = ("connection closed by peer", "connection reset by peer", "broken pipe", "no route to host", "failed to recv",
        "connection refused", "network is unreachable", "remote process exited", "communicator was aborted")


def noop() -> None:
    """Do nothing: the default of a callback."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """Hold a rank's place. `hosts`: machines; `local_rank`, `local_size`: among the ranks of its own machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: Any = None

    @property
    def is_main(self) -> bool:
        """Tell whether this is the rank that writes, prints and decides by the clock."""
        return self.rank == 0

    @property
    def hosts(self) -> int:
        return self.size // self.local_size

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Add each value up over the ranks, in float64."""
        return self._reduced(torch.tensor(values, dtype=torch.float64), distributed.ReduceOp.SUM)

    def all_reduce_max(self, *values: int) -> list[int]:
        """Return of each value the largest of any rank."""
        return [int(value) for value in self._reduced(torch.tensor(values), distributed.ReduceOp.MAX)]

    def _reduced(self, values: torch.Tensor, how: Any) -> list[Any]:
        if self.size > 1:
            distributed.all_reduce(values, how)
        numbers: list[Any] = values.tolist()
        return numbers

    def all_gather(self, value: T) -> list[T]:
        """Return what each rank has, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def broadcast(self, value: T) -> T:
        """Return what the first rank has."""
        if self.size == 1:
            return value
        found = [value]
        distributed.broadcast_object_list(found, src=0)
        return found[0]

    def union(self, found: dict[int, T]) -> dict[int, T]:
        """Return what all ranks have found, in the order of its keys."""
        return dict(sorted((key, value) for part in self.all_gather(found) for key, value in part.items()))

    def shard(self, turns: Sequence[T], on_round: Callable[[], None]) -> Iterator[T]:
        """Yield this rank's share of what is to be done, one in turn; before each round all call `on_round`."""
        for first in range(0, len(turns), self.size):
            on_round()
            if first + self.rank < len(turns):
                yield turns[first + self.rank]

    @contextmanager
    def main_process_first(self, what: str) -> Iterator[None]:
        """Let the first rank go through a block before the others do: what it leaves on disk, they find.

        They wait as long as that takes. Errors: on all ranks the `UserError` that the first one met; where that one
        met another, or has gone, RuntimeError.
        """
        if self.size == 1:
            yield
            return
        if not self.is_main:
            self._wait(what)
            said = self.store.get(what).decode()
            if said == "failed":
                raise RuntimeError("Connection closed by peer: the first rank met an error of its own")
            if said != "done":
                code, _, message = said.partition(" ")
                raise UserError(message, Exit(int(code)))
        try:
            yield
        except BaseException as error:
            said = f"{int(error.code)} {error}" if isinstance(error, UserError) else "failed"
            self.store.set(what if self.is_main else f"{what}, {self.rank}", said)
            raise
        self.store.set(what if self.is_main else f"{what}, {self.rank}", "done")
        if self.is_main:
            for rank in range(1, self.size):
                self._wait(f"{what}, {rank}")

    def _wait(self, key: str) -> None:
        while not self.store.check([key]):
            if (ended := os.environ.get(FOLDER)) and (Path(ended) / EXIT_CODE).exists():
                raise RuntimeError("Connection closed by peer: another rank has ended the job")
            time.sleep(POLL_S)

    def agree(self, **facts: str) -> None:
        """Errors: `UserError` naming what some rank holds to be otherwise than the first does, and that rank."""
        for rank, theirs in enumerate(held := self.all_gather(facts)):
            for name, value in theirs.items():
                if value != held[0][name]:
                    raise UserError(f"rank {rank} has another {name} ({value[:12]}) than rank 0 "
                                    f"({held[0][name][:12]}); all need the same command line, code, text and "
                                    "environment")

    def is_first_to_say(self, text: str) -> bool:
        """Tell whether no other rank has said this; alone, nobody else has."""
        if self.size == 1:
            return True
        return bool(self.store.add(f"said-{hashlib.sha256(text.encode()).hexdigest()}", 1) == 1)

    def missing(self, where: str, patience_s: float) -> list[int]:
        """Name the ranks that do not wait for others at this place. All that wait, or did, say so by calling this."""
        late: list[int] = []

        def ask() -> None:
            with suppress(RuntimeError):
                self.store.set(f"waits at {where}, {self.rank}", "")
                time.sleep(patience_s)
                late.extend(r for r in range(self.size) if not self.store.check([f"waits at {where}, {r}"]))

        thread = Thread(target=ask, daemon=True)  # the store may be on the other side of a cut link, and wait for ever
        thread.start()
        thread.join(patience_s + 2)
        return late


SINGLE = Ranks()


def join(timeout_s: float, *, on_gpu: bool) -> Ranks:
    """Meet the other ranks as the environment says (torchrun's names) and return this rank's place among them."""
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
    """Tell an error that another rank's end or silence causes, in a few words, from one that began here (None)."""
    text = " ".join(str(error).split()).lower()
    if not isinstance(error, RuntimeError):
        return None
    if found := next((words for words in TIMED_OUT if words in text), None):
        return f"waited: {found}"
    return next((words for words in GONE if words in text), None)
