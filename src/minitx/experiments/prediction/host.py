"""What an operator costs a host: updates timed on this CPU, of models so small that their kernels take next to no time.

The code goes the way that it goes on a GPU, in fp32, on tensors that lie here. So what is timed is Python, torch's
dispatch and autograd, and tiny kernels on top: one bound counts these, the other leaves out what they take by
themselves. Neither has what CUDA adds: the launch of a kernel.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from typing_extensions import override

from minitx.experiments.prediction.cpu import SYSTEMS, Case, build, config, record, update
from minitx.profiling.cpu_bench import CPU
from minitx.profiling.cpu_recorder import CPURecorder
from minitx.profiling.kernels import Kernel
from minitx.profiling.provenance import environment, git_state, hardware, versions
from minitx.profiling.timeline import FAST, SLOW, Constants
from minitx.profiling.timers import Phases
from minitx.profiling.utilisation import Watch
from minitx.runs.result import disturbance
from minitx.utils.console import Console, counted
from minitx.utils.progress import Progress
from minitx.utils.tables import aligned

TINY = ("tokenizer.vocab_size=260", "model.dropout=0")  # torch's dropout is slow on a CPU, and ours is another on a GPU
CHOOSE = tuple(f"minitx.models.{module}.on_cpu" for module in ("attention", "dropout", "layers", "scan"))
PHASES = ("forward", "backward", "optimizer")
USUAL = Constants()
VIEW = USUAL.view_us / USUAL.operator_us  # what a view costs, in operators: the same in all constants


@dataclass(frozen=True)
class HostSizes:
    """Which updates, and how often each is timed."""

    systems: tuple[str, ...] = ("lstm_cell_loop", "transformer")
    layers: int = 2  # on either side
    case: Case = Case("toy", 2, 8)
    updates: int = 3
    repeats: int = 2  # of each operator by itself


SIZES = {"smoke": HostSizes(), "full": HostSizes(tuple(SYSTEMS), 3, updates=500, repeats=20)}


def measure_host(sizes: HostSizes, console: Console) -> dict[str, Any]:
    """Time updates of tiny models and their operators, on one thread. Ready for JSON; with its conditions."""
    began, progress = perf_counter(), Progress(console, float(len(sizes.systems)))
    rows = list[dict[str, Any]]()
    with Watch(CPU) as watch:
        for system in sizes.systems:
            rows.append({"system": system} | time_system(system, sizes))
            progress(system)
        other_cpu_pct = watch.usage().other_cpu_pct
    git_sha, git_dirty = git_state()
    conditions = {"threads": torch.get_num_threads(), "layers": sizes.layers, "sentences": sizes.case.sentences,
                  "length": sizes.case.length, "updates": sizes.updates, "took_s": perf_counter() - began,
                  "other_cpu_pct": other_cpu_pct, "git_sha": git_sha, "git_dirty": git_dirty, "versions": versions(),
                  "hardware": hardware(CPU), "environment": environment()}
    return {"conditions": conditions, "rows": rows}


def time_system(system: str, sizes: HostSizes) -> dict[str, Any]:
    """Time the updates of a system. --> microseconds, of the median update, and of one operator at least and at most"""
    built = partial(build, config(sizes.case.size, *SYSTEMS[system], *TINY, f"model.num_layers={sizes.layers}"),
                    sizes.case)
    with as_on_a_gpu():
        kernels, own_s = record(*built()), own_seconds(*built(), sizes.repeats)  # which disturbs what it trains
        task, planned = built()
        update(task, planned)  # makes what is made only once
        seconds, phases = list[float](), list[Mapping[str, float]]()
        for _ in range(sizes.updates):
            task.phases = Phases(CPU)
            began = perf_counter()
            update(task, planned)
            seconds.append(perf_counter() - began)
            phases.append(task.phases.seconds())
    usual, own = 1e6 * median(seconds), 1e6 * sum(own_s.values())
    count = operators(kernels)
    return {"operators": sum(kernel.kind != "view" for kernel in kernels),
            "views": sum(kernel.kind == "view" for kernel in kernels), "update_us": usual,
            "fastest_us": 1e6 * min(seconds), "own_us": own, "operator_us": [(usual - own) / count, usual / count],
            "by_phase": {phase: {"operators": operators([kernel for kernel in kernels if kernel.phase == phase]),
                                 "us": 1e6 * median(each[phase] for each in phases)} for phase in PHASES}}


def operators(kernels: Sequence[Kernel]) -> float:
    """Return how many operators they are to a host; a view counts as the part of one that the model takes it for."""
    return sum(VIEW if kernel.kind == "view" else 1.0 for kernel in kernels)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Inside the block models go the way that they go on a GPU, though their tensors lie on the CPU."""
    with ExitStack() as stack:
        for name in CHOOSE:
            stack.enter_context(patch(name, lambda x: False))
        yield


def own_seconds(task: Any, planned: Any, repeats: int) -> dict[str, float]:
    """Return what operators take on top of their call, by name: all of an update's, each timed where it is called."""
    update(task, planned)
    with OperatorTimer(repeats) as timer:
        update(task, planned)
    return dict(timer.own_s)


class OperatorTimer(CPURecorder):
    """Run each operator again and again where it is called; `own_s` adds up what it takes more than an empty one."""

    def __init__(self, repeats: int) -> None:
        """repeats: of each operator"""
        super().__init__()
        self.repeats = repeats
        self.own_s: defaultdict[str, float] = defaultdict(float)  # by name
        self.empty_s = self.fastest(partial(torch.ops.aten.empty_like.default, torch.empty(8)))

    def fastest(self, work: Callable[[], object]) -> float:
        """Return the seconds of the fastest repeat."""
        seconds = list[float]()
        for _ in range(self.repeats):
            began = perf_counter()
            work()
            seconds.append(perf_counter() - began)
        return min(seconds)

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        recorded = len(self.kernels)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        for kernel in self.kernels[recorded:]:
            if kernel.kind != "view":
                took_s = self.fastest(partial(func, *args, **(kwargs or {})))
                self.own_s[kernel.name] += max(0.0, took_s - self.empty_s)
        return result


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an operator costs, by system, beside what predictions take it for."""
    conditions = found["conditions"]
    yield (f"{conditions['hardware']['cpu']}, {counted(conditions['threads'], 'thread')}: "
           f"updates of {conditions['layers']} layers of toys, {conditions['sentences']} sentences of "
           f"{conditions['length']} tokens; median of {conditions['updates']}")
    if (others := disturbance(conditions["other_cpu_pct"])) is not None:
        yield f"disturbed: {others}; measure on a quiet machine"
    rows = [("update", "operators", "views", "us", "own us", "us an operator", *PHASES)]
    for row in found["rows"]:
        least, most = row["operator_us"]
        rows.append((row["system"], f"{row['operators']:,}", f"{row['views']:,}", f"{row['update_us']:,.0f}",
                     f"{row['own_us']:,.0f}", f"{least:.1f} to {most:.1f}",
                     *(f"{row['by_phase'][phase]['us']:,.0f}" for phase in PHASES)))
    yield from aligned(rows, "<" + ">" * 8)
    yield f"predictions take {FAST.operator_us:g} to {SLOW.operator_us:g} us, usually {USUAL.operator_us:g}"
