"""Attention over packed sentences, by the kernel that suits the device, and step by step over a cache.

B sentences, N rows, H heads, L queries, S keys, D width, d = D / H.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.data.batch import Packed, gather_rows
from minitx.models.base import Attention
from minitx.models.layers import Linear, RotaryPositions
from minitx.models.precision import at_least_fp32
from minitx.utils.autograd import apply_function, on_cpu


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute softmax(q k' / sqrt(d) + bias) v. q: [B, H, L, d], k, v: [B, H, S, d] --> [B, H, L, d]

    bias: fp32, -inf = do not attend, broadcast to [B, H, L, S]. Source: Vaswani et al. 2017, equation 1.
    """
    if on_cpu(q):
        out: Tensor = apply_function(_Attention, q, k, v, bias)
        return out
    return F.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype))


def self_attention(qkv: Tensor, packed: Packed, n_heads: int, *, causal: bool = False) -> Tensor:
    """Let each token attend to its sentence, or to what comes before it there. [N, 3D] --> [N, D]"""
    if on_cpu(qkv):
        out: Tensor = apply_function(_PackedAttention, qkv, None, packed, packed, n_heads, causal)
        return out
    if has_varlen(qkv, qkv.shape[1] // (3 * n_heads)):
        q, k, v = qkv.unflatten(1, (3, n_heads, -1)).unbind(1)
        return _varlen(q, k, v, packed, packed, causal)
    q, k, v = to_heads(qkv, packed, n_heads, 3).unbind(0)
    if causal:  # padding is the future
        return from_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True), packed)
    return from_heads(attend(q, k, v, packed.bias), packed)


def cross_attention(q: Tensor, kv: Tensor, tgt: Packed, src: Packed, n_heads: int) -> Tensor:
    """Let each target's tokens attend to its source. q: [N, D], kv: [N of src, 2D] --> [N, D]"""
    if on_cpu(q):
        out: Tensor = apply_function(_PackedAttention, q, kv, tgt, src, n_heads, False)
        return out
    if has_varlen(q, q.shape[1] // n_heads):
        k, v = kv.unflatten(1, (2, n_heads, -1)).unbind(1)
        return _varlen(q.unflatten(1, (n_heads, -1)), k, v, tgt, src, False)
    k, v = to_heads(kv, src, n_heads, 2).unbind(0)
    return from_heads(attend(to_heads(q, tgt, n_heads, 1)[0], k, v, src.bias), tgt)


def has_varlen(q: Tensor, head_dim: int) -> bool:
    """Return whether a kernel takes packed sentences as they are: flash attention does, on GPUs since Ampere.

    Of heads wider than 192 only some of these GPUs take the gradient.
    """
    return (q.device.type == "cuda" and q.dtype in (torch.bfloat16, torch.float16) and head_dim % 8 == 0
            and head_dim <= 192 and _capability(q.device) >= (8, 0))


def _capability(device: torch.device) -> tuple[int, int]:
    """Return a GPU's compute capability; a compiler knows a GPU's properties alone."""
    if torch.compiler.is_compiling():
        properties = torch.cuda.get_device_properties(device)
        return properties.major, properties.minor
    return torch.cuda.get_device_capability(device)


def _varlen(q: Tensor, k: Tensor, v: Tensor, tgt: Packed, src: Packed, causal: bool) -> Tensor:
    """3 x [N, H, d] --> [N, D]; the filler is a sentence of its own, so that its rows are finite too."""
    from torch.nn.attention.varlen import varlen_attn  # a second: it brings torch's compiler in

    max_q, max_k = (max(side.longest, len(side.ids) - side.n_tokens) for side in (tgt, src))
    out = varlen_attn(q, k, v, tgt.starts, src.starts, max_q, max_k, window_size=(-1, 0 if causal else -1))
    assert isinstance(out, Tensor)
    return out.flatten(1)


# --- on the CPU: batched products, since with bf16 tiles they take a half to a tenth of what torch's own kernels take
# (forwards and backwards, 4,096 tokens in sentences of 16 to 256). Probabilities are stored: memory grows with L * S.


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        p = _probabilities(q, k, bias)
        ctx.save_for_backward(q, k, v, p)
        return p @ v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, p = ctx.saved_tensors
        dq, dk, dv = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
        _gradients(grad, q, k, v, p, dq, dk, dv)
        return dq, dk, dv, None


class _PackedAttention(torch.autograd.Function):
    """x: [N, 3D], or the queries [N, D] alone with `kv`: [N of src, 2D] --> [N, D]"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kv: Tensor | None, tgt: Packed, src: Packed, n_heads: int, causal: bool) -> Tensor:
        sides = (to_heads(x, tgt, n_heads, 3),) if kv is None else (
            to_heads(x, tgt, n_heads, 1), to_heads(kv, src, n_heads, 2))
        q, k, v = (part for side in sides for part in side)
        p = _probabilities(q, k, _causal_bias(q) if causal else src.bias)  # of a causal sentence, padding is the future
        ctx.tgt, ctx.src = tgt, src
        ctx.save_for_backward(p, *sides)
        return from_heads(p @ v, tgt)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        p, *sides = ctx.saved_tensors
        n_heads, flat = p.shape[1], []
        gradients = [torch.empty_like(side) for side in sides]
        q, k, v = (part for side in sides for part in side)
        _gradients(to_heads(grad, ctx.tgt, n_heads, 1)[0], q, k, v, p, *(part for side in gradients for part in side))
        for gradient, packed in zip(gradients, (ctx.tgt, ctx.src), strict=False):
            _, inverse = packed.head_indices(n_heads, len(gradient))
            rows = gradient.flatten(0, 3).index_select(0, inverse).view(len(packed.ids), -1)
            rows[packed.n_tokens:] = 0
            flat.append(rows)
        return flat[0], flat[1] if len(flat) > 1 else None, None, None, None, None


def _probabilities(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """--> [B, H, L, S] in the type of q; the softmax in fp32 at least"""
    scores, scale = q @ k.transpose(-1, -2), q.shape[-1] ** -0.5
    scores = at_least_fp32(scores) * scale if bias is None else torch.add(bias, scores, alpha=scale)
    return scores.softmax(-1).to(q.dtype)


def _gradients(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, dq: Tensor, dk: Tensor, dv: Tensor) -> None:
    """Write into dq, dk and dv. grad: [B, H, L, d]"""
    exact = at_least_fp32(p)
    ds = torch._softmax_backward_data(at_least_fp32(grad @ v.transpose(-1, -2)), exact, -1, exact.dtype)
    ds = ds.mul_(q.shape[-1] ** -0.5).to(p.dtype)
    for out, a, b in ((dq, ds, k), (dk, ds.transpose(-1, -2), q), (dv, p.transpose(-1, -2), grad)):
        torch.bmm(a.flatten(0, 1), b.flatten(0, 1), out=out.flatten(0, 1))


def _causal_bias(q: Tensor) -> Tensor:
    """Return the bias that hides later positions. --> [L, L]"""
    return torch.full((q.shape[2],) * 2, -torch.inf, device=q.device).triu_(1)


# --- from rows to heads and back


def to_heads(x: Tensor, packed: Packed, n_heads: int, parts: int) -> Tensor:
    """Set sentences side by side, a head at a time. [N, parts * D] --> [parts, B, H, L, d]"""
    index, inverse = packed.head_indices(n_heads, parts)
    (B, L), head_dim = packed.rows.shape, x.shape[1] // (parts * n_heads)
    real = packed.n_tokens * parts * n_heads
    return gather_rows(x.reshape(-1, head_dim), index, inverse, real).view(parts, B, n_heads, L, head_dim)


def from_heads(x: Tensor, packed: Packed) -> Tensor:
    """Lay sentences end to end. [B, H, L, d] --> [N, D]"""
    index, inverse = packed.head_indices(x.shape[1], 1)
    return gather_rows(x.flatten(0, 2), inverse, index).view(len(packed.ids), -1)


class SelfAttention(Attention):
    """Let every position attend to every other, or to those before it.

    No biases: one on the keys has no gradient but rounding noise, which Adam would amplify.
    """

    def __init__(self, d_model: int, n_heads: int, *, rope: RotaryPositions | None = None) -> None:
        super().__init__()
        self.n_heads, self.rope = n_heads, rope
        self.qkv = Linear(d_model, 3 * d_model, bias=False)
        self.out = Linear(d_model, d_model, bias=False)

    def project(self, x: Tensor, places: Tensor, length: int) -> Tensor:
        """Project to queries, keys and values, given each token's place, below `length`. [N, D], [N] --> [N, 3D]"""
        qkv = self.qkv(x)
        if self.rope is None:
            return qkv
        d_model = x.shape[1]
        rotated = self.rope(qkv[:, :2 * d_model].unflatten(1, (2 * self.n_heads, -1)), places, length)
        return torch.cat([rotated.flatten(1), qkv[:, 2 * d_model:]], dim=1)

    def forward(self, x: Tensor, packed: Packed, *, causal: bool = False) -> Tensor:
        """[N, D] --> [N, D]"""
        qkv = self.project(x, packed.places, packed.longest)
        return self.out(self_attention(qkv, packed, self.n_heads, causal=causal))

    def weights(self, x: Tensor, packed: Packed, *, causal: bool = False) -> Tensor:
        """--> [B, H, L, L]"""
        q, k, _ = to_heads(self.project(x, packed.places, packed.longest), packed, self.n_heads, 3)
        return _probabilities(q, k, _causal_bias(q) if causal else packed.bias)

    def step(self, x: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attend from one new position to all so far. x: [B, D], past: [B, H, t, d] --> [B, D], longer past

        Copying the past at each step is as fast as writing into memory set aside for what comes, and leaves every
        earlier state as it was.
        """
        t = past_k.shape[2]
        qkv = self.project(x, torch.full((1,), t, device=x.device), t + 1)
        q, k, v = qkv.view(len(x), 3, self.n_heads, 1, -1).unbind(1)
        k, v = torch.cat([past_k, k], dim=2), torch.cat([past_v, v], dim=2)
        return self.out(attend(q, k, v).flatten(1)), k, v


class CrossAttention(Attention):
    """Let every target position attend to the whole source."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q = Linear(d_model, d_model, bias=False)
        self.kv = Linear(d_model, 2 * d_model, bias=False)
        self.out = Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, tgt: Packed, memory: Tensor, src: Packed) -> Tensor:
        """x: [N, D], memory: [N of src, D] --> [N, D]"""
        return self.out(cross_attention(self.q(x), self.kv(memory), tgt, src, self.n_heads))

    def weights(self, x: Tensor, tgt: Packed, memory: Tensor, src: Packed) -> Tensor:
        """--> [B, H, T, S]"""
        return _probabilities(to_heads(self.q(x), tgt, self.n_heads, 1)[0], self.keys_values(memory, src)[0], src.bias)

    def keys_values(self, memory: Tensor, src: Packed) -> tuple[Tensor, ...]:
        """Project the memory once a sentence. [N, D] --> 2 x [B, H, S, d]"""
        return to_heads(self.kv(memory), src, self.n_heads, 2).unbind(0)

    def step(self, x: Tensor, k: Tensor, v: Tensor, bias: Tensor, beam_size: int) -> Tensor:
        """x: [B*K, D], k, v: [B, H, S, d], bias: [B, 1, 1, S] --> [B*K, D]; a sentence's keys serve its K hypotheses"""
        q = self.q(x).view(-1, beam_size, self.n_heads, k.shape[-1]).transpose(1, 2)  # --> [B, H, K, d]
        return self.out(attend(q, k, v, bias).transpose(1, 2).reshape(x.shape))


class SourceAttention(Attention):
    """Attend from decoder states, all at once or one by one, to source states, as an LSTM's decoder does.

    `forward` takes h [B, T, R], values and keys [B, S, R] and bias [B, 1, S], and is linear in the values.
    """

    def weights(self, h: Tensor, values: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        """Read them off what `forward` makes of unit vectors. --> [B, 1, T, S]"""
        units = torch.eye(values.shape[1], dtype=values.dtype, device=values.device).expand(len(values), -1, -1)
        return self.forward(h, units, keys, bias)[:, None]
