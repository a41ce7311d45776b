"""One part of `gpu_run.py`, in a process of its own: do what is planned and not yet there, as long as there is time.

The part's file is whole after each row. A GPU that no longer answers after a failed row ends the process, and
`gpu_run.py` starts another.
"""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import gpu_check
import gpu_constants
import gpu_trainings
import gpu_updates
import torch
from families import workbench
from gpu_rows import Job, end_at_eof, work_through

from minitx.profiling.provenance import git_state, hardware, versions
from minitx.utils.console import Console
from minitx.utils.errors import UserError


@dataclass(frozen=True)
class Setting:
    """What all parts are told."""

    device: torch.device
    toys: bool
    scratch: Path  # a folder for what nobody needs afterwards


def checks(setting: Setting) -> Iterator[Job]:
    """Yield comparisons of the GPU with the CPU."""
    bench = workbench(*gpu_check.TOY, sentences=4 if setting.toys else 64)
    yield from gpu_check.number_checks(bench, setting.device, setting.toys)


PARTS: dict[str, Callable[[Setting], Iterable[Job]]] = {
    "checks": checks,
    "updates": lambda setting: gpu_updates.jobs(setting.device, setting.toys),
    "constants": lambda setting: gpu_constants.jobs(setting.device, setting.toys),
    "trainings": lambda setting: gpu_trainings.jobs(setting.device, setting.toys, setting.scratch),
}


def usable(device: torch.device) -> bool:
    """Release what a job left on the device, and tell whether it still answers: after some errors no call does."""
    gc.collect()
    try:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Work on one part. Exit code 1: the device no longer answers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True, help="the part's file")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for what nobody needs afterwards")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toys", action="store_true")
    parser.add_argument("--seconds", type=float, required=True, help="no row is begun that would take longer")
    parser.add_argument("--commit", help="of this source, where it has no repository beside it")
    parser.add_argument("--leader", action="store_true", help="of a process group, which ends with standard input")
    args = parser.parse_args(argv)
    until = monotonic() + args.seconds
    if args.leader:
        end_at_eof()
    try:
        return int(not work_on(args, until))
    except UserError as error:
        print(f"gpu_run: error: {error}", file=sys.stderr)
        return int(error.code)


def work_on(args: argparse.Namespace, until: float) -> bool:
    """Do a part's jobs until then (`monotonic`), and return whether the device can still be used.

    Errors: `UserError` without a GPU, or if the part's file holds rows of other conditions.
    """
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("torch sees no GPU here; --device cpu --toys is a rehearsal")
    commit, dirty = git_state()
    conditions = {"toys": args.toys, "device": device.type, "hardware": hardware(device), "versions": versions(),
                  "git_sha": commit or args.commit, "git_dirty": dirty}
    jobs = PARTS[args.part](Setting(device, args.toys, args.scratch))
    return work_through(jobs, args.out, conditions, until, Console(sys.stdout), partial(usable, device))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # what a library left running does not hold it up
