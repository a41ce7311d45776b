"""The number format of activations, and weights cast to it. Each thread has a format, so threads can share a model."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

Kind = torch.dtype | tuple[str, torch.dtype] | str  # what is made of a weight
Mark = tuple[int, int, torch.dtype]  # what changes with a weight: its version, its place in memory, its type


class Casts:
    """Hold weights in other formats and layouts, each made once as long as its weights stay what they are.

    From block to block they last for weights that are not trained; what is done to such a weight's `.data` alone is not
    seen. Threads may share one.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[Kind, tuple[int, ...]], _Cast] = {}

    def once(self, weights: Sequence[Tensor], kind: Kind, make: Callable[[], Tensor]) -> Tensor:
        """Make what is called `kind` of these weights, or return what was made before."""
        key = kind, tuple(map(id, weights))
        found = self._made.get(key)
        if found is None or found.weights[0]() is not weights[0]:  # another weight may have the number of one gone
            found = self._made[key] = _Cast([weakref.ref(w) for w in weights], [_mark(w) for w in weights], make())
        return found.result

    def drop_changed(self) -> None:
        """Forget what was made of weights that have changed since, or are gone."""
        for key, cast in list(self._made.items()):
            weights = [ref() for ref in cast.weights]
            if any(w is None or mark is None or _mark(w) != mark for w, mark in zip(weights, cast.marks, strict=True)):
                self._made.pop(key, None)


@dataclass(frozen=True, eq=False)
class _Cast:
    """Hold what was made of weights, and what they were like."""

    weights: list[weakref.ref[Tensor]]
    marks: list[Mark | None]
    result: Tensor


def _mark(weight: Tensor) -> Mark | None:
    """Return what tells whether a weight has changed, None = nothing does: a fused optimizer leaves no trace."""
    if weight.requires_grad or weight.is_inference():
        return None
    return weight._version, weight.data_ptr(), weight.dtype


@dataclass(frozen=True)
class _Block:
    """Hold what `computing_in` says of its block."""

    dtype: torch.dtype | None
    casts: Casts


_block: ContextVar[_Block | None] = ContextVar("minitx.precision", default=None)


@contextmanager
def computing_in(dtype: torch.dtype | None, casts: Casts | None = None) -> Iterator[None]:
    """Compute activations in this type inside the block, None = in that of the weights; each weight is cast once.

    The block is its thread's own: others may use the same model at the same time, in another type. Nobody may change
    a weight meanwhile. casts: kept from block to block, for a model that serves; None = this block's own
    """
    if casts is not None:
        casts.drop_changed()
    token = _block.set(_Block(dtype, casts or Casts()))
    try:
        yield
    finally:
        _block.reset(token)


def compute_dtype() -> torch.dtype | None:
    """Return the type that this thread computes activations in, None = that of the weights."""
    block = _block.get()
    return None if block is None else block.dtype


def to_compute_dtype(x: Tensor) -> Tensor:
    """Cast embeddings to the type of activations; layers follow the type of their input."""
    dtype = compute_dtype()
    return x if dtype is None else x.to(dtype)


def finest(device: torch.device) -> torch.dtype:
    """Return the type that sums are kept in: float64, but where the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def cast_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight in another type, inside `computing_in` the same tensor each time: decoding uses it every step."""
    return weight if weight.dtype is dtype else _once([weight], dtype, lambda: weight.to(dtype))


def cast_together(weights: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return weights in another type, one after the other in one buffer; inside `computing_in` the same each time."""
    if all(weight.dtype is dtype for weight in weights):
        return list(weights)
    flat = _once(weights, ("together", dtype), lambda: torch.cat([weight.flatten() for weight in weights]).to(dtype))
    parts = flat.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


def keeps_casts() -> bool:
    """Return whether what is made of a weight serves again: inside `computing_in` it does."""
    return _block.get() is not None


def pack_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a matrix laid out for oneDNN's products, inside `computing_in` once: they else do so at each use."""
    if not keeps_casts():
        return weight.to(dtype)
    return _once([weight], ("packed", dtype),
                 lambda: torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype)))


def _once(weights: Sequence[Tensor], kind: Kind, make: Callable[[], Tensor]) -> Tensor:
    """Make something of weights, but inside `computing_in` return what was made there before."""
    if torch.compiler.is_compiling() or (block := _block.get()) is None:
        return make()
    return block.casts.once(weights, kind, make)


def join_weights(left: Tensor, right: Tensor) -> Tensor:
    """Return two matrices side by side, inside `computing_in` the same tensor each time: a loop uses it every step."""
    return _once([left, right], "side by side", lambda: torch.cat([left, right], dim=1))


def at_least_fp32(x: Tensor) -> Tensor:
    """Return bf16 and fp16 as fp32, and finer types as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
