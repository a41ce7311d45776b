"""What ranks can exchange on this machine: how soon they meet, how long a sum of few or many numbers takes.

`elastic` starts this module as each of the ranks.

Source of the bandwidth's definition: a ring moves 2 (n - 1) / n of the bytes through each rank's link.
"""

import json
import socket
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NoReturn

import torch
from torch import distributed

from minitx.config.schema import Config, TrainerConfig
from minitx.distributed.ranks import Ranks
from minitx.distributed.worker import serve
from minitx.utils.errors import Exit

SIZES = (4, 2**18, 2**22, 2**24)  # numbers in fp32: 16 bytes, 1, 16 and 64 MiB
FOUND = "found.json"
ENOUGH_S = 0.3  # of one size


@dataclass(frozen=True)
class Bandwidth:
    """Hold one measurement, as the first rank made it."""

    ranks: int
    hosts: list[str]  # of each rank
    backend: str
    meet_s: float  # from the first rank's start to its first collective's end
    small_us: float  # a sum of 16 bytes
    gib_per_s: dict[str, float]  # by MiB: what passes through a rank's link


def measure(ranks: Ranks, device: torch.device, meet_s: float) -> Bandwidth:
    """Time sums of several sizes. All ranks call it."""
    took = {n: sum_s(n, device) for n in SIZES}
    share = 2 * (ranks.size - 1) / ranks.size
    speeds = {f"{n * 4 / 2**20:g}": share * n * 4 / 2**30 / took[n] for n in SIZES[1:]}
    return Bandwidth(ranks.size, ranks.all_gather(socket.gethostname()), str(distributed.get_backend()), meet_s,
                     1e6 * took[SIZES[0]], speeds)


def sum_s(n: int, device: torch.device) -> float:
    """Return the seconds of one sum of n numbers over the ranks: the mean of as many as take `ENOUGH_S`."""
    x = torch.zeros(n, device=device)

    def time_sums(repeats: int) -> float:
        began = perf_counter()
        for _ in range(repeats):
            distributed.all_reduce(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter() - began

    time_sums(2)
    one = torch.tensor(time_sums(3) / 3)
    distributed.all_reduce(one, distributed.ReduceOp.MAX)  # all do as many
    repeats = max(3, min(1000, int(ENOUGH_S / float(one))))
    return time_sums(repeats) / repeats


def main() -> NoReturn:
    """Be one rank; the first leaves a `Bandwidth` in the folder of `elastic`."""
    serve(partial(_work, perf_counter()), _choose_device)


def _work(began: float, _: Config, ranks: Ranks, device: torch.device, folder: Path | None) -> int:
    assert folder is not None
    ranks.all_gather(None)
    found = measure(ranks, device, perf_counter() - began)
    if ranks.is_main:
        (folder / FOUND).write_text(json.dumps(asdict(found)))
    return Exit.OK


def _choose_device(trainer: TrainerConfig, local_rank: int) -> torch.device:
    on_gpu = trainer.accelerator != "cpu" and torch.cuda.is_available()  # doctor has seen that it is there
    return torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")


if __name__ == "__main__":
    main()
