"""The number format of activations, and weights cast to it. Each thread has its own, so threads can share a model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Block:
    """Hold what `computing_in` says of its block, and the casts made there by the weight's id and the format."""

    dtype: torch.dtype | None
    casts: dict[tuple[int, torch.dtype | str], Tensor] = field(default_factory=dict)


_block: ContextVar[_Block | None] = ContextVar("minitx.precision", default=None)


@contextmanager
def computing_in(dtype: torch.dtype | None) -> Iterator[None]:
    """Compute activations in this type inside the block, None = in that of the weights; each weight is cast once.

    The block is its thread's own: others may use the same model at the same time, in another type. Nobody may change
    a weight meanwhile.
    """
    token = _block.set(_Block(dtype))
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
    return weight if weight.dtype is dtype else _once(weight, dtype, lambda: weight.to(dtype))


def cast_together(weights: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return weights in another type, one after the other in one buffer; inside `computing_in` the same each time."""
    if all(weight.dtype is dtype for weight in weights):
        return list(weights)
    flat = _once(weights[0], f"{dtype} together", lambda: torch.cat([weight.flatten() for weight in weights]).to(dtype))
    parts = flat.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


def tile_weight(weight: Tensor) -> Tensor:
    """Return a matrix in bf16, inside `computing_in` laid out for the CPU's tiles: oneDNN else does so at each use."""
    if _block.get() is None:
        return weight.bfloat16()
    return _once(weight, "tiles", lambda: torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16()))


def _once(weight: Tensor, kind: torch.dtype | str, make: Callable[[], Tensor]) -> Tensor:
    """Make a cast of a weight, but inside `computing_in` return the one that was made there before."""
    if torch.compiler.is_compiling() or (block := _block.get()) is None:
        return make()
    key = id(weight), kind
    if key not in block.casts:
        block.casts[key] = make()
    return block.casts[key]


def join_weights(left: Tensor, right: Tensor) -> Tensor:
    """Return two matrices side by side, inside `computing_in` the same tensor each time: a loop uses it every step."""
    return _once(left, f"beside {id(right)}", lambda: torch.cat([left, right], dim=1))


def at_least_fp32(x: Tensor) -> Tensor:
    """Return bf16 and fp16 as fp32, and finer types as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
