"""What ranks can do together here: meet, tell each other something small, add gradients up.

`python -m minitx.distributed.bandwidth` is one of the ranks.

Source of the bandwidth's definition: a ring moves 2 (n - 1) / n of the bytes through each rank's link.
"""

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import distributed

from minitx.config.saved import read_config
from minitx.distributed.ranks import EXIT_CODE, FOLDER, Ranks, join

SIZES = (4, 2**18, 2**22, 2**24)  # numbers in fp32: 16 bytes, 1, 16 and 64 MiB
FOUND = "found.json"
ENOUGH_S = 0.3  # of one size


@dataclass(frozen=True)
class Probed:
    """Hold what one look came to, as the first rank measured it."""

    ranks: int
    hosts: list[str]  # of each rank
    backend: str
    meet_s: float  # from the first rank's start to its first collective's end
    small_us: float  # a sum of 16 bytes
    gib_per_s: dict[str, float]  # by MiB: what passes through a rank's link


def probe(ranks: Ranks, device: torch.device, meet_s: float) -> Probed:
    """Time sums of several sizes. All ranks call it."""
    took = {n: sum_s(n, device) for n in SIZES}
    share = 2 * (ranks.size - 1) / ranks.size
    speeds = {f"{n * 4 / 2**20:g}": share * n * 4 / 2**30 / took[n] for n in SIZES[1:]}
    return Probed(ranks.size, ranks.all_gather(socket.gethostname()), str(distributed.get_backend()), meet_s,
                  1e6 * took[SIZES[0]], speeds)


def sum_s(n: int, device: torch.device) -> float:
    """Return the seconds of one sum of n numbers over the ranks: the mean of as many as take `ENOUGH_S`."""
    x = torch.zeros(n, device=device)

    def some(repeats: int) -> float:
        began = perf_counter()
        for _ in range(repeats):
            distributed.all_reduce(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter() - began

    some(2)
    one = torch.tensor(some(3) / 3)
    distributed.all_reduce(one, distributed.ReduceOp.MAX)  # all do as many
    repeats = max(3, min(1000, int(ENOUGH_S / float(one))))
    return some(repeats) / repeats


def main() -> None:
    """Be one rank of a look; the first leaves what was found where the agent asked for it, or prints it."""
    began = perf_counter()
    folder = os.environ.get(FOLDER)
    timeout_s, accelerator = 60.0, "auto"
    if folder is not None:
        trainer = read_config(Path(folder)).trainer
        timeout_s, accelerator = trainer.timeout_s, trainer.accelerator
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()  # that it is there, doctor has seen
    ranks = join(timeout_s, on_gpu=on_gpu)
    ranks.all_gather(None)
    meet_s = perf_counter() - began
    found: dict[str, Any] = asdict(probe(ranks, torch.device("cuda" if on_gpu else "cpu"), meet_s))
    if ranks.is_main:
        if folder is not None:
            (Path(folder) / FOUND).write_text(json.dumps(found))
        else:
            print(json.dumps(found, indent=1))
    distributed.destroy_process_group()
    if folder is not None and ranks.is_main:
        (Path(folder) / EXIT_CODE).write_text("0")
    sys.exit(0)


if __name__ == "__main__":
    main()
