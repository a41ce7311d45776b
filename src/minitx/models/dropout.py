"""Dropout that costs little on a CPU, alone or with the addition that follows it.

There torch draws from a serial generator a number an element; here one 64-bit word decides for four. Comparing into 0.0
and 1.0 and multiplying is several times as fast as masking by booleans.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.utils.autograd import apply_function, on_cpu

LEVELS = 2**16  # p is rounded to a part of these, and the scale is that of the rounded p: the mean is exact


class Dropout(nn.Module):
    """Zero elements with probability p, and scale the others so that the mean stays."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements in training mode only. --> as x"""
        if not self.training or self.p == 0:
            return x
        if not on_cpu(x):
            return F.dropout(x, self.p)
        dropped: Tensor = apply_function(_Dropout, None, x, self.p)
        return dropped

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x + dropout(y)."""
        if not self.training or self.p == 0 or not on_cpu(y):
            return x + self(y)
        total: Tensor = apply_function(_Dropout, x, y, self.p)
        return total

    def extra_repr(self) -> str:
        """Show p."""
        return f"p={self.p}"


class _Dropout(torch.autograd.Function):
    """Compute y * mask * scale, added to x if there is one, in one pass over each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor | None, y: Tensor, p: float) -> Tensor:
        dropped = min(round(p * LEVELS), LEVELS - 1)
        ctx.scale = LEVELS / (LEVELS - dropped)
        mask = draw_mask(y.shape, dropped, y.dtype)
        ctx.save_for_backward(mask)
        if x is None:
            return _masked(y, mask, ctx.scale)
        return torch.addcmul(x, y, mask, value=ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        dx = grad if ctx.needs_input_grad[0] else None
        return dx, _masked(grad, ctx.saved_tensors[0], ctx.scale), None


def draw_mask(shape: torch.Size, dropped: int, dtype: torch.dtype) -> Tensor:
    """Draw ones, but zeros with probability dropped / LEVELS; seeded by torch's own generator."""
    count = shape.numel()
    generator = np.random.SFC64(int(torch.randint(2**63 - 1, ())))
    words = torch.from_numpy(generator.random_raw(-(-count // 4)).view(np.int16))[:count].view(shape)
    return torch.ge(words, dropped - LEVELS // 2, out=torch.empty(shape, dtype=dtype))


def _masked(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Return x * mask * scale; the scale is not rounded to x's type."""
    return torch.addcmul(x.new_zeros(()), x, mask, value=scale)
