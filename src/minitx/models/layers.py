"""Parts that more than one model is built from. Each computes in the type of what it is given, not of its weights.

N rows, D width, H heads, d = D / H.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.models.dropout import Dropout
from minitx.models.precision import cast_weight, finest, keeps_casts, pack_weight
from minitx.utils.autograd import apply_function, on_cpu


class Linear(nn.Linear):
    """x W' + b"""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D in] --> [..., D out]"""
        bias = None if self.bias is None else cast_weight(self.bias, x.dtype)
        if has_packed(x):
            return product(x, pack_weight(self.weight, x.dtype), bias)
        return F.linear(x, cast_weight(self.weight, x.dtype), bias)

    def add(self, x: Tensor, added: Tensor) -> Tensor:
        """Compute x W' + b + added, where it can in one pass. [..., D in], [..., D out] --> [..., D out]"""
        if has_packed(x):
            bias = None if self.bias is None else cast_weight(self.bias, x.dtype)
            return product_added(x, pack_weight(self.weight, x.dtype), bias, added)
        return self(x) + added


def has_tiles(x: Tensor) -> bool:
    """Return whether oneDNN has bf16 kernels of its own for such a tensor."""
    return (on_cpu(x) and x.dtype is torch.bfloat16 and torch.backends.mkldnn.is_available()
            and bool(torch.backends.mkldnn.enabled) and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def has_packed(x: Tensor) -> bool:
    """Return whether products of such a tensor are made with matrices that oneDNN has laid out in advance: in searches.

    In bf16 where it has kernels; in fp32 where its vectors are x86's, if a matrix is laid out only once.
    """
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():  # in a search nothing is compiled
        return False
    if x.dtype is torch.float32:
        return has_vectors() and keeps_casts() and on_cpu(x)
    return x.dtype is torch.bfloat16 and has_tiles(x)


@cache
def has_vectors() -> bool:
    """Return whether this processor has AVX2 or AVX-512, and torch oneDNN's kernels for them."""
    return (torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
            and torch.backends.cpu.get_cpu_capability().startswith("AVX"))


def product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """Compute x W' + b and the activation, "none" or "relu", in one kernel of oneDNN."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, activation, [], "")
    return y


def product_added(x: Tensor, weight: Tensor, bias: Tensor | None, added: Tensor) -> Tensor:
    """Compute x W' + b + added in one kernel of oneDNN."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, added, weight, bias, "add")
    return y


class LayerNorm(nn.LayerNorm):
    """(x - mean) / deviation * scale + shift, the sums in fp32 at least (Ba et al. 2016, section 3)."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] --> [..., D]"""
        if x.device.type == "cpu":  # its kernel takes weights in fp32, and its backward is faster for it
            return torch.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        weight, bias = (cast_weight(p, x.dtype) for p in (self.weight, self.bias))
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class FeedForward(nn.Sequential):
    """Widen, rectify, narrow: max(0, x W1 + b1) W2 + b2 (Vaswani et al. 2017, equation 2)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__(Linear(d_model, d_ff), nn.ReLU(), Linear(d_ff, d_model))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] --> [..., D]"""
        if has_packed(x):
            return cast(Linear, self[2])(self.widened(x))
        weights = [cast_weight(p, x.dtype) for p in self.parameters()]
        y: Tensor = apply_function(_FeedForward, x.flatten(0, -2), *weights)
        return y.view(x.shape)

    def add(self, x: Tensor, added: Tensor) -> Tensor:
        """Compute what `forward` does and add to it. [..., D], [..., D] --> [..., D]"""
        return cast(Linear, self[2]).add(self.widened(x), added) if has_packed(x) else self(x) + added

    def widened(self, x: Tensor) -> Tensor:
        """Compute max(0, x W1 + b1) in one kernel of oneDNN. [..., D] --> [..., D wide]"""
        wide = cast(Linear, self[0])
        return product(x, pack_weight(wide.weight, x.dtype), cast_weight(wide.bias, x.dtype), "relu")


class _FeedForward(torch.autograd.Function):
    """Store the wide activations once, and fuse the ReLU into a pass that reads or writes them anyway. x: [N, D]"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        wide = product(x, w1, b1, "relu") if has_tiles(x) else F.linear(x, w1, b1).relu_()
        ctx.save_for_backward(x, wide, w1, w2)
        return F.linear(wide, w2, b2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, wide, w1, w2 = ctx.saved_tensors
        d_wide = grad @ w2
        torch.ops.aten.threshold_backward.grad_input(d_wide, wide, 0, grad_input=d_wide)
        return d_wide @ w1, d_wide.t() @ x, d_wide.sum(0), grad.t() @ wide, grad.sum(0)


class Sublayer(nn.Module):
    """Add a function of x to x, normalising before the function (pre-norm) or after the sum (post-norm)."""

    def __init__(self, d_model: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.norm, self.dropout, self.pre_norm = LayerNorm(d_model), Dropout(dropout), pre_norm

    def forward(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """[..., D] --> [..., D]"""
        if self.pre_norm:
            return self.dropout.add(x, function(self.norm(x)))
        return self.norm(self.dropout.add(x, function(x)))

    def step(self, x: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Do the same without dropout, the sum left to the function: it is given what it reads, and what to add."""
        return function(self.norm(x), x) if self.pre_norm else self.norm(function(x, x))


class SinusoidalPositions(nn.Module):
    """Sines and cosines of wavelengths from 2 pi to 10,000 * 2 pi (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.waves = Waves(d_model)

    def forward(self, places: Tensor, length: int, dtype: torch.dtype) -> Tensor:
        """places: [N], below `length` --> [N, D]"""
        return self.waves(places, length, dtype).flatten(1)  # sin and cos interleaved


class LearnedPositions(nn.Module):
    """One trained vector a position, for as many positions as there are rows."""

    def __init__(self, d_model: int, max_positions: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_positions, d_model)

    def forward(self, places: Tensor, length: int, dtype: torch.dtype) -> Tensor:
        """places: [N], below `length` --> [N, D]"""
        return self.table(places).to(dtype)


class RotaryPositions(nn.Module):
    """Rotate each pair of a head's dimensions by an angle that grows with the place (Su et al. 2021, section 3.2)."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.waves = Waves(head_dim)

    def forward(self, x: Tensor, places: Tensor, length: int) -> Tensor:
        """x: [N, heads, d], places: [N] or [1], below `length` --> [N, heads, d]"""
        sin, cos = self.waves(places, length, x.dtype)[:, None].unbind(-1)  # [N, 1, d/2] each
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


class Waves:
    """Sine and cosine of place * 10,000^(-i / width) for even i, computed once for each place."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.table = torch.empty(0)  # [places, width/2, 2], in float64 where the device has it

    def __call__(self, places: Tensor, length: int, dtype: torch.dtype) -> Tensor:
        """places: [N], below `length` --> [N, width/2, 2]"""
        table = self.table  # read once: another thread may put a shorter one in its place
        if len(table) < length or table.device != places.device:
            device, exact = places.device, finest(places.device)
            even = torch.arange(0, self.width, 2, device=device, dtype=exact)
            place = torch.arange(max(128, 2 * length), device=device, dtype=exact)
            angle = place[:, None] * torch.exp(even * (-math.log(10_000) / self.width))
            table = self.table = torch.stack([angle.sin(), angle.cos()], dim=-1)
        table = table[:length]  # rounded whole, or, for a step of a search, only where it is read
        return table.to(dtype)[places] if len(places) >= length else table[places].to(dtype)
