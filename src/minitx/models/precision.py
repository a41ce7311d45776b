"""What torch's autograd lacks for us: typed calls of functions with a gradient of their own, and casts made once."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_casts: dict[tuple[int, torch.dtype | str], Tensor] | None = None  # by the weight's id, and type


def cast_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight in another type, inside `casting_once` the same tensor each time."""
    if weight.dtype is dtype or _casts is None:
        return weight.to(dtype)
    if (id(weight), dtype) not in _casts:
        _casts[id(weight), dtype] = weight.to(dtype)
    return _casts[id(weight), dtype]


def tile_weight(weight: Tensor) -> Tensor:
    """Return a matrix in bf16, inside `casting_once` laid out for the CPU's tiles: oneDNN else does so at each use."""
    if _casts is None:
        return weight.bfloat16()
    if (id(weight), "tiled") not in _casts:
        _casts[id(weight), "tiled"] = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16())
    return _casts[id(weight), "tiled"]


@contextmanager
def casting_once() -> Iterator[None]:
    """Keep casts inside the block, which must not change a weight: some are used at every step of a sentence."""
    global _casts
    _casts, before = {}, _casts
    try:
        yield
    finally:
        _casts = before
