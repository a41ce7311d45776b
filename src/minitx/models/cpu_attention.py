"""Attention on a CPU, with gradients of its own: of short sentences whole, of long ones a block of queries at a time.

As batched products, since with bf16 tiles they take a half to a tenth of what torch's own kernels take (forwards and
backwards, 4,096 tokens in sentences of 16 to 256). The weights of short sentences are stored. Those of long ones are
made again for the gradient, so that memory grows with the length and not with its square. In fp32 torch's kernel does
the same; it takes two thirds of the time, and has no windows.

B sentences, N rows, H heads, L queries, S keys, D width, d = D / H; G heads of all sentences that stand side by side.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.data.batch import Packed, gather_rows
from minitx.models.precision import at_least_fp32
from minitx.utils.autograd import apply_function

Reach = tuple[int, int]  # tokens before and after its own that a token attends to; -1 = all. torch's `window_size`
ALL: Reach = (-1, -1)
CAUSAL: Reach = (-1, 0)
LONG = 2**20  # weights of all heads of a sentence, from which on they are not stored
SCORES = 2**18  # that a block has, about
LEAST = 64  # queries of a block


def attend_side_by_side(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Do what `attend` does. q: [B, H, L, d], k, v: [B, H, S, d] --> [B, H, L, d]"""
    long = _is_long(q.shape[1], q.shape[2], k.shape[2])
    out: Tensor = apply_function(_LongAttention if long else _Attention, q, k, v, bias)
    return out


def attend_packed(x: Tensor, kv: Tensor | None, tgt: Packed, src: Packed, n_heads: int, reach: Reach) -> Tensor:
    """Let the tokens of each `tgt` attend to those of its `src`, which is the same if a reach is limited.

    x: [N, 3D], or the queries [N, D] alone with `kv`: [N of src, 2D] --> [N, D]
    """
    long = _is_long(n_heads, tgt.longest, src.longest)
    if long and has_kernel(x, reach):
        return _attend_by_kernel(x, kv, tgt, src, n_heads, reach)
    out: Tensor = apply_function(_LongPackedAttention if long else _PackedAttention, x, kv, tgt, src, n_heads, reach)
    return out


def _is_long(n_heads: int, length: int, keys: int) -> bool:
    """Return whether sentences are taken a block at a time. A step of a search is not: it has few queries."""
    return length > LEAST and n_heads * length * keys >= LONG


def has_kernel(x: Tensor, reach: Reach) -> bool:
    """Return whether torch's kernel takes such a reach, and is faster than our blocks: with bf16 tiles it is not."""
    return reach in (ALL, CAUSAL) and x.dtype in (torch.float32, torch.float64)


# --- short sentences


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        p = attention_weights(q, k, bias)
        ctx.save_for_backward(q, k, v, p)
        return p @ v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, p = ctx.saved_tensors
        dq, dk, dv = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
        _gradients(grad, q, k, v, p, dq, dk, dv)
        return dq, dk, dv, None


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kv: Tensor | None, tgt: Packed, src: Packed, n_heads: int, reach: Reach) -> Tensor:
        sides = (to_heads(x, tgt, n_heads, 3),) if kv is None else (
            to_heads(x, tgt, n_heads, 1), to_heads(kv, src, n_heads, 2))
        q, k, v = (part for side in sides for part in side)
        p = attention_weights(q, k, reach_bias(src, reach))
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


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """--> [..., L, S] in the type of q; the softmax in fp32 at least"""
    scores, scale = q @ k.transpose(-1, -2), q.shape[-1] ** -0.5
    scores = at_least_fp32(scores) * scale if bias is None else torch.add(bias, scores, alpha=scale)
    return scores.softmax(-1).to(q.dtype)


def attend_by_head(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Do what `attend` does for a step of a search. q: [G, L, d], k, v: [G, S, d], bias: [G, 1, S] --> [G, L, d]

    The softmax sums in fp32 at least, and returns what it was given.
    """
    scores = torch.baddbmm(q.new_empty(()) if bias is None else bias, q, k.transpose(1, 2),
                           beta=0 if bias is None else 1, alpha=q.shape[2] ** -0.5)
    return torch.bmm(scores.softmax(-1), v)


def _gradients(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, dq: Tensor, dk: Tensor, dv: Tensor) -> None:
    """Write into dq, dk and dv. grad: [B, H, L, d]"""
    ds = _score_gradient(grad, v, p, q.shape[-1] ** -0.5)
    for out, a, b in ((dq, ds, k), (dk, ds.transpose(-1, -2), q), (dv, p.transpose(-1, -2), grad)):
        torch.bmm(a.flatten(0, 1), b.flatten(0, 1), out=out.flatten(0, 1))


def _score_gradient(grad: Tensor, v: Tensor, p: Tensor, scale: float) -> Tensor:
    """Return the gradient of q k', which a scale multiplies. grad: that of the result [..., L, d] --> [..., L, S]"""
    exact = at_least_fp32(p)
    ds = torch._softmax_backward_data(at_least_fp32(grad @ v.transpose(-1, -2)), exact, -1, exact.dtype)
    return ds.mul_(scale).to(p.dtype)


def reach_bias(packed: Packed, reach: Reach) -> Tensor:
    """Return what self-attention adds to its scores, sentences side by side. --> broadcast to [B, H, L, L] fp32"""
    if reach == ALL:
        return packed.bias
    if reach == CAUSAL:  # padding is the future
        return torch.full((packed.longest,) * 2, -torch.inf, device=packed.ids.device).triu_(1)
    return packed.window_bias(*reach)


# --- long sentences, each by itself: no padding, and no rows but its own


def _attend_by_kernel(x: Tensor, kv: Tensor | None, tgt: Packed, src: Packed, n_heads: int, reach: Reach) -> Tensor:
    """Give each sentence to torch's kernel, which is flash attention on a CPU, too."""
    found = []
    for rows, seen in _sentences(tgt, src):
        q, k, v = (part[None] for part in _parts(x, kv, rows, seen, n_heads))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=reach == CAUSAL)
        found.append(out[0].transpose(0, 1).flatten(1))
    return torch.cat([*found, x.new_zeros(len(x) - tgt.n_tokens, n_heads * v.shape[3])])


class _LongAttention(torch.autograd.Function):
    """As `_Attention`, all sentences at a time."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(q, k, v, bias)
        out = _attend_by_blocks(*(t.flatten(0, 1) for t in (q, k, v)), reach=ALL, bias=_each_head(bias, q))
        return out.unflatten(0, q.shape[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias = ctx.saved_tensors
        flat = (t.flatten(0, 1) for t in (grad, q, k, v))
        dq, dk, dv = _gradients_by_blocks(*flat, reach=ALL, bias=_each_head(bias, q))
        return dq.view(q.shape), dk.view(k.shape).to(k.dtype), dv.view(v.shape).to(v.dtype), None


class _LongPackedAttention(torch.autograd.Function):
    """As `_PackedAttention`, a sentence at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kv: Tensor | None, tgt: Packed, src: Packed, n_heads: int, reach: Reach) -> Tensor:
        ctx.tgt, ctx.src, ctx.n_heads, ctx.reach = tgt, src, n_heads, reach
        ctx.save_for_backward(x, kv)
        out = x.new_zeros(len(x), x.shape[1] // (3 if kv is None else 1))
        for rows, seen in _sentences(tgt, src):
            q, k, v = (part.contiguous() for part in _parts(x, kv, rows, seen, n_heads))
            _by_head(out[rows], n_heads, 1)[0].copy_(_attend_by_blocks(q, k, v, reach=reach))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, kv), n_heads = ctx.saved_tensors, ctx.n_heads
        dx, dkv = torch.zeros_like(x), None if kv is None else torch.zeros_like(kv)
        for rows, seen in _sentences(ctx.tgt, ctx.src):
            parts = (*_by_head(grad[rows], n_heads, 1), *_parts(x, kv, rows, seen, n_heads))
            found = _gradients_by_blocks(*(part.contiguous() for part in parts), reach=ctx.reach)
            for part, gradient in zip(_parts(dx, dkv, rows, seen, n_heads), found, strict=True):
                part.copy_(gradient)
        return dx, dkv, None, None, None, None


def _attend_by_blocks(q: Tensor, k: Tensor, v: Tensor, *, reach: Reach, bias: Tensor | None = None) -> Tensor:
    """q: [G, L, d], k, v: [G, S, d], bias: as in `_blocks` --> [G, L, d]"""
    out = q.new_empty(*q.shape[:2], v.shape[2])
    for block, seen, hidden in _blocks(q, k, reach, bias):
        p = attention_weights(q[:, block], k[:, seen], hidden)
        out[:, block] = p @ v[:, seen]
    return out


def _gradients_by_blocks(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *, reach: Reach,
                         bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return dq, dk and dv. The last two are sums over blocks, in fp32 at least. grad: [G, L, d]"""
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(at_least_fp32(k)), torch.zeros_like(at_least_fp32(v))
    for block, seen, hidden in _blocks(q, k, reach, bias):
        queries, keys, values, upper = q[:, block], k[:, seen], v[:, seen], grad[:, block]
        p = attention_weights(queries, keys, hidden)
        ds = _score_gradient(upper, values, p, q.shape[-1] ** -0.5)
        dq[:, block] = ds @ keys
        for total, a, b in ((dk, ds, queries), (dv, p, upper)):
            if total.dtype is a.dtype:
                total[:, seen].baddbmm_(a.transpose(-1, -2), b)
            else:
                total[:, seen] += a.transpose(-1, -2) @ b
    return dq, dk, dv


def _blocks(q: Tensor, k: Tensor, reach: Reach, bias: Tensor | None) -> Iterator[tuple[slice, slice, Tensor | None]]:
    """Yield blocks of queries, the keys that any of them sees, and what is added to their scores.

    bias: [G, 1 or L, S], where no reach limits what is seen
    """
    (groups, length, _), keys, (before, after) = q.shape, k.shape[1], reach
    height = _height(groups, keys, reach)
    for begin in range(0, length, height):
        end = min(begin + height, length)
        first, last = max(0, begin - before) if before >= 0 else 0, min(keys, end + after) if after >= 0 else keys
        hidden = bias if bias is None or bias.shape[1] == 1 else bias[:, begin:end]
        if after >= 0:
            hidden = _hiding(q, end - begin, last - first).triu_(begin - first + after + 1)
        if before >= 0:
            past = _hiding(q, end - begin, last - first).tril_(begin - first - before - 1)
            hidden = past if hidden is None else hidden + past
        yield slice(begin, end), slice(first, last), hidden


def _hiding(q: Tensor, length: int, keys: int) -> Tensor:
    return torch.full((length, keys), -torch.inf, dtype=at_least_fp32(q).dtype)


def _height(groups: int, keys: int, reach: Reach) -> int:
    """Return how many queries a block has: few, if they see few keys, since each of them meets all that any sees."""
    before, after = reach
    if before < 0:
        return max(LEAST, SCORES // (groups * keys))
    tallest = max(LEAST, SCORES // (groups * min(keys, LEAST + before + after)))
    return min(tallest, max(LEAST, before))


def _each_head(bias: Tensor | None, q: Tensor) -> Tensor | None:
    """[broadcast to B, H, L, S] --> [G, 1 or L, S]"""
    return None if bias is None else bias.expand(*q.shape[:2], *bias.shape[-2:]).flatten(0, 1)


def _sentences(tgt: Packed, src: Packed) -> Iterator[tuple[slice, slice]]:
    """Yield the rows of each target and of its source."""
    starts = (side.starts.tolist()[:-1] for side in (tgt, src))
    targets, sources = ([slice(*pair) for pair in zip(side, side[1:], strict=False)] for side in starts)
    return zip(targets, sources, strict=True)


def _parts(x: Tensor, kv: Tensor | None, rows: slice, seen: slice, n_heads: int) -> tuple[Tensor, ...]:
    """Return queries, keys and values of a sentence as they lie in x, or in x and kv. --> 3 x [H, L, d]"""
    if kv is None:
        return _by_head(x[rows], n_heads, 3)
    return *_by_head(x[rows], n_heads, 1), *_by_head(kv[seen], n_heads, 2)


def _by_head(x: Tensor, n_heads: int, parts: int) -> tuple[Tensor, ...]:
    """[L, parts * D] --> parts x [H, L, d], views"""
    return x.unflatten(1, (parts, n_heads, -1)).permute(1, 2, 0, 3).unbind(0)


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
