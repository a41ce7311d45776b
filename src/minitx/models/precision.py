"""The number format of activations, and weights cast to it. Each thread has its own, so threads can share a model."""

from collections.abc import Iterator
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
    if weight.dtype is dtype or torch.compiler.is_compiling() or (block := _block.get()) is None:
        return weight.to(dtype)
    key = id(weight), dtype
    if key not in block.casts:
        block.casts[key] = weight.to(dtype)
    return block.casts[key]


def tile_weight(weight: Tensor) -> Tensor:
    """Return a matrix in bf16, inside `computing_in` laid out for the CPU's tiles: oneDNN else does so at each use."""
    block = _block.get()
    if block is None:
        return weight.bfloat16()
    key = id(weight), "tiles"
    if key not in block.casts:
        block.casts[key] = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16())
    return block.casts[key]


def at_least_fp32(x: Tensor) -> Tensor:
    """Return bf16 and fp16 as fp32, and finer types as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
