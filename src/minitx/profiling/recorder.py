"""Kernels recorded while code runs on fake CUDA tensors: what a GPU would be given, in that order."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from minitx.profiling.fake_cuda import WaitCounter
from minitx.profiling.kernels import Kernel
from minitx.profiling.libraries import GPULibraries
from minitx.profiling.operators import (
    bytes_of,
    flop_of,
    format_of,
    is_varlen,
    kind_of,
    launches_of,
    name_of,
    product_of,
    tensors_in,
    varlen_work,
)

VOLTA = 7, 2  # the last that CUDA 13 has left behind: a kernel's arguments take 4 KiB there


class KernelRecorder(TorchDispatchMode):
    """Note each operator on CUDA tensors as a `Kernel`; a dispatch mode inside `fake_gpu`.

    `phase` is the caller's to set. Errors: NotImplementedError, with its name, for an operator that is not known
    """

    def __init__(self, counter: WaitCounter, capability: tuple[int, int]) -> None:
        """counter: of `fake_gpu`"""
        super().__init__()  # type: ignore[no-untyped-call]
        self.counter = counter
        self.argument_kib = 4 if capability <= VOLTA else 32
        self.phase = "forward"
        self.kernels: list[Kernel] = []
        self._held: dict[int, tuple[Tensor, Tensor]] = {}  # by storage: a fake copy of what the host knows, and that

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # asks a tensor for its device
            return func(*args, **kwargs)
        if func.namespace == "aten" and func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        waits = self.counter.waits.total
        result = func(*args, **kwargs)
        host_waits = self.counter.waits.total > waits
        again = name_of(func) == "_local_scalar_dense" and not host_waits  # the next number of a list that was copied
        if not again and any(t.device.type == "cuda" for t in tensors_in((args, kwargs, result))):
            self.kernels.append(self.describe(func, args, kwargs, result, host_waits))
            self.hold(func, args, result)
        return result

    def describe(self, func: Any, args: Any, kwargs: Any, result: Any, host_waits: bool) -> Kernel:
        """Return an operator's kernel."""
        kind = kind_of(func)
        product, flop = product_of(func, args), flop_of(func, args)
        if is_varlen(func):
            product, flop = varlen_work(func, args, *(self.known(t) for t in starts_of(args)))
        return Kernel(f"{func.namespace}.{name_of(func)}", kind, self.phase, format_of(args, result), flop,
                      bytes_of(func, args, kwargs, result), product,
                      launches=launches_of(func, args, kwargs, self.argument_kib), host_waits=host_waits)

    def hold(self, func: Any, args: Any, result: Any) -> None:
        """Remember what a tensor holds that was copied from the host: kernels over packed sentences need it."""
        if name_of(func) == "_to_copy" and args[0].device.type == "cpu" and not args[0].is_floating_point():
            self._held[result.untyped_storage()._cdata] = result, args[0]

    def known(self, tensor: Tensor) -> list[int]:
        """Return the integers that a fake tensor stands for. Errors: KeyError if they never were the host's."""
        values: list[int] = self._held[tensor.untyped_storage()._cdata][1].numpy().tolist()
        return values

    def add(self, kernels: list[Kernel]) -> None:
        """Note what a library launches."""
        self.kernels += kernels


def starts_of(args: Any) -> list[Tensor]:
    """Return where sentences begin among queries and keys: the first two lists of integers."""
    return [t for t in tensors_in(args) if not t.is_floating_point()][:2]


@contextmanager
def recording(counter: WaitCounter, capability: tuple[int, int], packed: bool = False) -> Iterator[KernelRecorder]:
    """Record inside the block, which lies in one of `fake_gpu`; cuDNN and attention as on a GPU of this capability.

    packed: whether sentences of an LSTM come without padding
    """
    recorder = KernelRecorder(counter, capability)
    with recorder, GPULibraries(recorder.add, capability, packed):
        yield recorder
