"""CUDA without a GPU: run each family's training and decoding step on tensors with a shape and a device but no data.

`python scripts/fake_cuda.py` takes a minute on any machine, with any build of torch. It finds
- operations that mix devices, or that do not exist for CUDA tensors
- places where the host waits for the device: `.item()`, `.tolist()`, shapes that depend on values, blocking copies

An update may wait once (for loss and norm), and so may a step of search; waits before a batch's first step and after
its last are counted, too. Wrong numbers, slow kernels and what cuDNN does need a GPU: `gpu_check.py`.
"""

import sys
from collections.abc import Callable
from itertools import islice

import torch
from families import FAMILIES, Workbench, without_trainer, workbench

from minitx.profiling.fake_cuda import CUDA, Waits, backward, fake_gpu

TEXT = ("experiment=quick", "data.train_size=100", "trainer.tokens_per_update=256", "data.max_tokens=256",
        "model.dropout=0.1", "optim.ema_decay=0.99")
SHORT, LONG = 2, 4  # tokens of the longest output: their difference in waits gives the waits of a step
SENTENCES = 4


def train(bench: Workbench, family: str, precision: str, *more: str) -> str:
    """Run updates of several micro-batches. Returns the verdict on the second one."""
    updates = list(islice(iter(bench.data.train_dataloader()), 2))
    with fake_gpu() as counter:
        task = bench.task(family, precision, *more).to(CUDA)
        with without_trainer(task, CUDA, backward=backward):
            task.training_step(updates[0], 0)  # makes what is made only once
            counter.waits = Waits()
            task.training_step(updates[1], 0)
    assert task.stats is not None
    assert task.stats.finite
    assert {p.device for p in task.model.parameters()} == {CUDA}
    return verdict(counter.waits.total, 1, "an update", counter.waits)


def decode(bench: Workbench, family: str, beam_size: int, precision: str | None = None) -> str:
    """Translate to two lengths with no output ending early, then with outputs ending at different steps."""
    totals = []
    for length, finishing in ((SHORT, False), (LONG, False), (LONG, True)):
        with fake_gpu(finishing) as counter:
            task = bench.task(family, "32-true").to(CUDA)
            translator = bench.translator(task, family, CUDA, length, precision)
            counter.waits = Waits()
            if beam_size == 1:
                translator.translate(bench.sources, beam_size=1)
            else:
                translator.n_best(bench.sources, 1, beam_size=beam_size)
        totals.append(counter.waits)
    short, long, _ = totals
    a_step = (long.total - short.total) / (LONG - SHORT)
    return verdict(a_step, 1, f"a step, {long.total - LONG * a_step:.0f} a batch", long)


def verdict(waits: float, allowed: float, what: str, places: Waits) -> str:
    """Return the number of waits in words. Errors: AssertionError, with the places, if there are more than allowed"""
    where = ", ".join(f"{place} x {count}" for place, count in places.places.items())
    assert waits <= allowed, f"{waits:g} waits {what}, {allowed:g} allowed: {where}"
    return f"ok, {waits:g} wait{'s' * (waits != 1)} {what}"


CHECKS: dict[str, Callable[[Workbench, str], str]] = {
    "train bf16": lambda bench, family: train(bench, family, "bf16-mixed"),
    "train fp32": lambda bench, family: train(bench, family, "32-true"),
    "train muon": lambda bench, family: train(bench, family, "bf16-mixed", "optim=muon"),
    "greedy": lambda bench, family: decode(bench, family, 1),
    "greedy bf16": lambda bench, family: decode(bench, family, 1, "bf16-mixed"),
    "beam": lambda bench, family: decode(bench, family, 3),
}


def main() -> int:
    """Print a table of families and checks. Returns 1 if one failed."""
    bench, failures = workbench(*TEXT, sentences=SENTENCES), list[str]()
    print(f"torch {torch.__version__}\n" + f"{'':26}" + "".join(f"{name:32}" for name in CHECKS))
    for family in FAMILIES:
        print(f"{family:26}", end="", flush=True)
        for name, check in CHECKS.items():
            try:
                outcome = check(bench, family)
            except Exception as error:  # the other checks still run
                outcome = "FAILED"
                failures.append(f"{family}, {name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            print(f"{outcome:32}", end="", flush=True)
        print()
    print("\n".join(failures), end="\n" * bool(failures))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
