"""CUDA without a GPU: run each family's training and decoding step on tensors with a shape and a device but no data.

`python scripts/fake_cuda.py` takes a minute on any machine, with any build of torch. It finds
- operations that mix devices, or that do not exist for CUDA tensors
- places where the host waits for the device: `.item()`, `.tolist()`, shapes that depend on values, blocking copies

An update may wait once (for loss and norm), and so may a step of search; waits before a batch's first step and after
its last are counted, too. Wrong numbers, slow kernels and what cuDNN does need a GPU: `gpu_check.py`.
"""

import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CDLL, c_void_p
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from families import FAMILIES, Workbench, without_trainer, workbench
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import minitx

CUDA = torch.device("cuda", 0)
CUDA_SLOT = 1  # of c10::DeviceType; 0 is the CPU
OURS = str(Path(minitx.__file__).parent)
TEXT = ("experiment=quick", "data.train_size=100", "trainer.tokens_per_update=256", "data.max_tokens=256",
        "model.dropout=0.1", "optim.ema_decay=0.99")
SHORT, LONG = 2, 4  # tokens of the longest output: their difference in waits gives the waits of a step
SENTENCES = 4
READS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal"}


# --- where the host waits


@dataclass
class Waits:
    """Where the host waited for the device: operations by place in the code, and how often."""

    places: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """The number of waits."""
        return sum(self.places.values())


class WaitCounter(TorchDispatchMode):
    """Intercept every operation: those on CPU tensors are run, those on CUDA tensors only checked for waits.

    When the host reads a value, the wait is counted and the value made up: 1 for a number, and for a bool False, or
    True every other time if `finishing`.
    """

    def __init__(self, finishing: bool) -> None:
        """finishing: let hypotheses end at different steps"""
        super().__init__()
        self.finishing, self.waits, self.answers = finishing, Waits(), 0
        self.place: tuple[int, int] | None = None  # of the last wait: frame and instruction

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, *_ = func.__name__.partition(".")
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        here = any(t.device.type == "cuda" for t in given)
        there = kwargs.get("device")
        if not here and (there is None or torch.device(there).type != "cuda"):
            with unset_fake_temporarily():
                return args[0] if name == "_pin_memory" else func(*args, **kwargs)
        if func.namespace == "aten" and func._can_decompose():  # inference mode leaves composed operations whole
            with self:
                return func.decompose(*args, **kwargs)
        frame, where = caller()
        if (id(frame), frame.f_lasti) != self.place:
            self.place = None  # `.tolist()` reads its numbers one by one, which is one wait
        if here and (name in READS or there is not None and torch.device(there).type == "cpu"):
            self.wait(frame, f"{where} {name}")
            return self.answer(name, args[0])
        crosses = len({t.device.type for t in given if t.dim()} | ({torch.device(there).type} if there else set())) > 1
        if name in ("_to_copy", "copy_") and crosses and not (kwargs.get("non_blocking") or args[2:] == (True,)):
            self.wait(frame, f"{where} blocking copy")
        if name in ("index_put", "index_put_") and any(i is not None and i.dtype is torch.bool for i in args[1]):
            self.wait(frame, f"{where} {name} by mask")
        try:
            return func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise AssertionError(f"{where} {name} waits for the device") from error

    def wait(self, frame: Any, what: str) -> None:
        """Count a wait, unless it reads the next number of the same list."""
        if self.place is None:
            self.waits.places[what] += 1
        self.place = id(frame), frame.f_lasti

    def answer(self, name: str, asked: Tensor) -> Any:
        """Make up the value that the host reads."""
        self.answers += 1
        if name == "nonzero":  # all are still alive, or half
            count = asked.shape[0] - asked.shape[0] // 2 * self.finishing
            return asked.new_zeros(count, asked.dim(), dtype=torch.int64)
        yes = self.finishing and self.answers % 2 == 1
        if name == "_to_copy":
            with unset_fake_temporarily():
                return torch.full(asked.shape, yes if asked.dtype is torch.bool else 1, dtype=asked.dtype)
        return yes if asked.dtype is torch.bool or name != "_local_scalar_dense" else asked.dtype.is_floating_point + 0


def caller() -> tuple[Any, str]:
    """Return the innermost frame of minitx on the stack, and its place as text."""
    frame: Any = sys._getframe(1)
    while not frame.f_code.co_filename.startswith(OURS) and frame.f_back is not None:
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    return frame, f"{path.stem}.{frame.f_code.co_name}:{frame.f_lineno}"


# --- a GPU that is not there


@contextmanager
def fake_gpu(finishing: bool = False) -> Iterator[WaitCounter]:
    """Let fake CUDA tensors exist inside the block, and yield the counter of waits."""
    registry = (c_void_p * 2).in_dll(CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so")),
                                     "_ZN3c104impl26device_guard_impl_registryE")
    before, registry[CUDA_SLOT] = registry[CUDA_SLOT], registry[0]  # so that autograd never switches devices
    counter = WaitCounter(finishing)
    try:
        with (FakeTensorMode(allow_non_fake_inputs=True), counter, torch.backends.cudnn.flags(enabled=False),
              patch("torch.cuda.Event", Event), patch("torch.cuda.get_device_capability", lambda *_: (9, 0)),
              patch("torch.Tensor.pin_memory", lambda tensor, *_: tensor),
              patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),  # autocast would do nothing
              patch("torch.cuda.is_bf16_supported", lambda *_, **__: True), warnings.catch_warnings()):
            warnings.filterwarnings("ignore", message=".*(cuDNN|data pointer of FakeTensor).*")
            yield counter
    finally:
        registry[CUDA_SLOT] = before


class Event:
    """A stand-in for `torch.cuda.Event` that never completes, so its time is never read."""

    def __init__(self, **_: Any) -> None:
        """Accept the arguments of the real one."""

    def record(self, *_: Any) -> None:
        """Record nothing."""

    def query(self) -> bool:
        """Return whether the event has completed."""
        return False


@torch.no_grad()
def backward(loss: Tensor) -> None:
    """Run a backward pass node by node, since autograd's own engine would need streams of a real CUDA driver."""
    assert loss.grad_fn is not None
    waiting: Counter[Any] = Counter()
    nodes = [loss.grad_fn]
    for node in nodes:  # which grows meanwhile
        inputs = [n for n, _ in node.next_functions if n is not None]
        nodes += [n for n in dict.fromkeys(inputs) if n not in waiting]
        waiting.update(inputs)
    gradients: defaultdict[Any, dict[int, Tensor]] = defaultdict(dict, {loss.grad_fn: {0: torch.ones_like(loss)}})
    ready = [loss.grad_fn]
    while ready:
        node = ready.pop()
        for (n, i), gradient in zip(node.next_functions, run_node(node, gradients.pop(node, {})), strict=False):
            if n is None:
                continue
            if gradient is not None:
                like = n._input_metadata[i]
                assert gradient.device == like.device, f"{node.name()} returns a gradient on {gradient.device}"
                gradient = gradient.sum_to_size(like.shape).to(like.dtype)
                gradients[n][i] = gradients[n][i] + gradient if i in gradients[n] else gradient
            waiting[n] -= 1
            if not waiting[n]:
                ready.append(n)


def run_node(node: Any, given: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients of a node's inputs, given those of its results by number."""
    if hasattr(node, "variable"):
        if given:
            p = node.variable
            p.grad = given[0] if p.grad is None else p.grad + given[0]
        return ()
    results: list[Tensor | None] = [given.get(i) for i in range(len(node._input_metadata))]
    if not isinstance(node, BackwardCFunction):
        gradients = node(*results)
    else:
        zeros = (torch.zeros(m.shape, dtype=m.dtype, device=m.device) for m in node._input_metadata)
        gradients = node.apply(*(zero if result is None else result
                                 for result, zero in zip(results, zeros, strict=True)))
    return gradients if isinstance(gradients, tuple) else (gradients,)


# --- the steps


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
