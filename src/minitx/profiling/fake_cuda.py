"""CUDA without a GPU: tensors with a shape and a device but no data, and the places where the host waits for it.

Works with any build of torch. Kernels do not run, so nothing can be said of numbers, and little of time.
"""

import heapq
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL, c_void_p
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
CUDA_SLOT = 1  # of c10::DeviceType; 0 is the CPU
INSTRUMENTS = str(Path(__file__).parent)
OURS = str(Path(__file__).parents[1])
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
        super().__init__()  # type: ignore[no-untyped-call]
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
        frame = caller()
        if (id(frame), frame.f_lasti) != self.place:
            self.place = None  # `.tolist()` reads its numbers one by one, which is one wait
        if here and (name in READS or there is not None and torch.device(there).type == "cpu"):
            self.wait(frame, name)
            return self.answer(name, args[0])
        crosses = len({t.device.type for t in given if t.dim()} | ({torch.device(there).type} if there else set())) > 1
        if name in ("_to_copy", "copy_") and crosses and not (kwargs.get("non_blocking") or args[2:] == (True,)):
            self.wait(frame, "blocking copy")
        if name in ("index_put", "index_put_") and any(i is not None and i.dtype is torch.bool for i in args[1]):
            self.wait(frame, f"{name} by mask")
        try:
            return func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise AssertionError(f"{place_of(frame)} {name} waits for the device") from error

    def wait(self, frame: Any, what: str) -> None:
        """Count a wait, unless it reads the next number of the same list."""
        if self.place is None:
            self.waits.places[f"{place_of(frame)} {what}"] += 1
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


def caller() -> Any:
    """Return the innermost frame of minitx on the stack, instruments left out."""
    frame: Any = sys._getframe(1)
    while not is_watched(frame.f_code.co_filename) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def is_watched(file: str) -> bool:
    """Tell whether waits in a file are put down to it."""
    return file.startswith(OURS) and not file.startswith(INSTRUMENTS)


def place_of(frame: Any) -> str:
    """Return a frame's place in the code as text."""
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}:{frame.f_lineno}"


# --- a GPU that is not there


@contextmanager
def fake_gpu(finishing: bool = False, capability: tuple[int, int] = (9, 0)) -> Iterator[WaitCounter]:
    """Let fake CUDA tensors exist inside the block, and yield the counter of waits.

    finishing: as in `WaitCounter`; capability: of the device, as NVIDIA numbers them
    """
    registry = (c_void_p * 2).in_dll(CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so")),
                                     "_ZN3c104impl26device_guard_impl_registryE")
    before, registry[CUDA_SLOT] = registry[CUDA_SLOT], registry[0]  # so that autograd never switches devices
    counter = WaitCounter(finishing)
    try:
        with (FakeTensorMode(allow_non_fake_inputs=True), counter, torch.backends.cudnn.flags(enabled=False),
              patch("torch.cuda.Event", Event), patch("torch.cuda.get_device_capability", lambda *_: capability),
              patch("torch.utils._foreach_utils._foreach_supported_types", [Tensor, FakeTensor]),
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
    """Run a backward pass node by node, since autograd's own engine would need streams of a real CUDA driver.

    In its order: of the nodes that have all of their gradients, the one that was recorded last.
    """
    with patch("torch._C._current_graph_task_id", lambda: 0):  # one pass: layers are computed again once in it
        run_nodes(loss)


def run_nodes(loss: Tensor) -> None:
    """Run the nodes behind a loss."""
    assert loss.grad_fn is not None
    waiting: Counter[Any] = Counter()
    nodes: list[Any] = [loss.grad_fn]
    for node in nodes:  # which grows meanwhile
        inputs = [n for n, _ in node.next_functions if n is not None]
        nodes += [n for n in dict.fromkeys(inputs) if n not in waiting]
        waiting.update(inputs)
    gradients: defaultdict[Any, dict[int, Tensor]] = defaultdict(dict, {loss.grad_fn: {0: torch.ones_like(loss)}})
    number = count()  # the first of two that tie
    ready: list[tuple[int, int, Any]] = [(0, next(number), loss.grad_fn)]
    while ready:
        *_, node = heapq.heappop(ready)
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
                heapq.heappush(ready, (-n._sequence_nr(), next(number), n))


@contextmanager
def freed_as_read() -> Iterator[None]:
    """Let go what is saved for a backward pass when that reads it, as autograd's own engine does, node by node."""
    with torch.autograd.graph.saved_tensors_hooks(Saved, Saved.release):
        yield


class Saved:
    """A tensor that is saved for a backward pass, to be read once."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor: Tensor | None = tensor

    def release(self) -> Tensor:
        """Return it, and keep it no longer."""
        tensor, self.tensor = self.tensor, None
        assert tensor is not None, "read twice"
        return tensor


def run_node(node: Any, given: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients of a node's inputs, given those of its results by number.

    A function that defines its own gradient takes its tensors first.
    """
    if hasattr(node, "variable"):
        if given:
            p = node.variable
            p.grad = given[0].detach() if p.grad is None else p.grad.add_(given[0])
        return ()
    results: list[Tensor | None] = [given.get(i) for i in range(len(node._input_metadata))]
    if not isinstance(node, BackwardCFunction):
        gradients = node(*results)
    else:
        metadata: Any = node._input_metadata  # type: ignore[attr-defined]
        zeros = (torch.zeros(m.shape, dtype=m.dtype, device=m.device) for m in metadata)
        gradients = node.apply(*(zero if result is None else result
                                 for result, zero in zip(results, zeros, strict=True)))
    return gradients if isinstance(gradients, tuple) else (gradients,)
