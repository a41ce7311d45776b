"""Parts that more than one model is built from: attention, positions, dropout.

B sentences, H heads, L queries, S keys, D width, d = D / H.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Compute softmax(q k' / sqrt(d)) v. q: [B, H, L, d], k, v: [B, H, S, d] --> [B, H, L, d]

    mask: bool, True = attend, broadcast to [B, H, L, S]. Source: Vaswani et al. 2017, equation 1.
    """
    if q.dtype is torch.bfloat16 and q.device.type == "cpu":
        # torch 2.13's bf16 kernel is 1.7 to 8 times slower than casting to fp32 and back, at 8 to 32 tokens
        with torch.autocast("cpu", enabled=False):  # which would cast back
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask, is_causal=causal).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """[B, L, D] --> [B, H, L, d]"""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, L, d] --> [B, L, D]"""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Let every position look at every other, or at those before it.

    No biases: one on the keys has no gradient but rounding noise, which Adam would amplify.
    """

    def __init__(self, d_model: int, n_heads: int, *, rope: "RotaryPositions | None" = None) -> None:
        super().__init__()
        self.n_heads, self.rope = n_heads, rope
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def heads(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v of positions start, start + 1, ... [B, L, D] --> 3 x [B, H, L, d]"""
        q, k, v = (split_heads(part, self.n_heads) for part in self.qkv(x).chunk(3, dim=-1))
        return (q, k, v) if self.rope is None else (self.rope(q, start), self.rope(k, start), v)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
        """x: [B, L, D], mask: [B, 1, 1, L] --> [B, L, D]"""
        q, k, v = self.heads(x)
        return self.out(merge_heads(attend(q, k, v, mask, causal=causal)))

    def step(self, x: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attend from one new position to all so far. x: [B, 1, D], past: [B, H, t, d] --> [B, 1, D], longer past"""
        q, k, v = self.heads(x, start=past_k.shape[2])
        k, v = torch.cat([past_k, k], dim=2), torch.cat([past_v, v], dim=2)
        return self.out(merge_heads(attend(q, k, v))), k, v


class CrossAttention(nn.Module):
    """Let every target position look at the whole source."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q = nn.Linear(d_model, d_model, bias=False)
        self.kv = nn.Linear(d_model, 2 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Project the memory once a sentence. [B, S, D] --> 2 x [B, H, S, d]"""
        k, v = (split_heads(part, self.n_heads) for part in self.kv(memory).chunk(2, dim=-1))
        return k, v

    def forward(self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """x: [B, L, D], mask: [B, 1, 1, S] --> [B, L, D]. In beam search L is the K hypotheses of a sentence."""
        return self.out(merge_heads(attend(split_heads(self.q(x), self.n_heads), k, v, mask)))


class FeedForward(nn.Sequential):
    """Widen, rectify, narrow: max(0, x W1 + b1) W2 + b2 (Vaswani et al. 2017, equation 2)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__(nn.Linear(d_model, d_ff), nn.ReLU(), nn.Linear(d_ff, d_model))


class SinusoidalPositions(nn.Module):
    """Sines and cosines of wavelengths from 2 pi to 10,000 * 2 pi (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model

    def forward(self, start: int, length: int, like: Tensor) -> Tensor:
        """--> [length, D] in the dtype and on the device of `like`"""
        position = torch.arange(start, start + length, device=like.device, dtype=torch.float64)
        even = torch.arange(0, self.d_model, 2, device=like.device, dtype=torch.float64)
        angle = position[:, None] * torch.exp(even * (-math.log(10_000) / self.d_model))
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(like.dtype)  # sin and cos interleaved


class LearnedPositions(nn.Module):
    """One trained vector a position, for as many positions as there are rows."""

    def __init__(self, d_model: int, max_positions: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_positions, d_model)

    def forward(self, start: int, length: int, like: Tensor) -> Tensor:
        """--> [length, D]"""
        return self.table.weight[start:start + length].to(like.dtype)


class RotaryPositions(nn.Module):
    """Turn each pair of a head's dimensions by an angle that grows with the position (Su et al. 2021, section 3.2)."""

    def forward(self, x: Tensor, start: int) -> Tensor:
        """x: [B, H, L, d] --> [B, H, L, d]"""
        length, width = x.shape[-2:]
        position = torch.arange(start, start + length, device=x.device, dtype=torch.float64)
        even = torch.arange(0, width, 2, device=x.device, dtype=torch.float64)
        angle = position[:, None] * torch.exp(even * (-math.log(10_000) / width))
        sin, cos = angle.sin().to(x.dtype), angle.cos().to(x.dtype)  # [L, d/2]
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


class Dropout(nn.Module):
    """Zero elements with probability p, and scale the others so that the mean stays.

    On the CPU torch draws a number an element from a serial generator; 16 bits of it do. p is then rounded to 1/65,536
    and the scale is that of the rounded p, so the mean is exact.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        dropped = round(self.p * 65_536)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-2**63, None)
        keep = words.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 32_768
        return x * (keep * torch.tensor(65_536 / (65_536 - dropped), dtype=x.dtype))

    def extra_repr(self) -> str:
        return f"p={self.p}"
