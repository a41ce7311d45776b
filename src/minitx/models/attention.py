"""Attention over packed sentences, by the kernel that suits the device, and step by step over a cache.

B sentences, N rows, H heads, L queries, S keys, D width, d = D / H.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.data.batch import Packed
from minitx.models.base import Attention
from minitx.models.cpu_attention import (
    ALL,
    CAUSAL,
    Reach,
    attend_by_head,
    attend_packed,
    attend_side_by_side,
    attention_weights,
    from_heads,
    reach_bias,
    to_heads,
)
from minitx.models.layers import Linear, RotaryPositions
from minitx.utils.autograd import on_cpu


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute softmax(q k' / sqrt(d) + bias) v. q: [B, H, L, d], k, v: [B, H, S, d] --> [B, H, L, d]

    bias: fp32, -inf = do not attend, broadcast to [B, H, L, S]. Source: Vaswani et al. 2017, equation 1.
    """
    if on_cpu(q):
        return attend_side_by_side(q, k, v, bias)
    return F.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype))


def attend_from_step(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, n_heads: int) -> Tensor:
    """Do the same where heads of all sentences stand side by side. q: [B*H, L, d], k, v: [B*H, S, d] --> [B*H, L, d]

    bias: [B*H, 1, S] in the type of q
    """
    if on_cpu(q):
        return attend_by_head(q, k, v, bias)
    q, k, v = (t.unflatten(0, (-1, n_heads)) for t in (q, k, v))
    mask = None if bias is None else bias.unflatten(0, (-1, n_heads))
    return F.scaled_dot_product_attention(q, k, v, mask).flatten(0, 1)


def self_attention(qkv: Tensor, packed: Packed, n_heads: int, *, causal: bool = False,
                   window: int | None = None) -> Tensor:
    """Let each token attend to its sentence, or to what comes before it there. [N, 3D] --> [N, D]

    window: to so many tokens at most, before it and after it each; None = to all
    """
    reach = reach_of(packed, causal, window)
    if on_cpu(qkv):
        return attend_packed(qkv, None, packed, packed, n_heads, reach)
    if has_varlen(qkv, qkv.shape[1] // (3 * n_heads)):
        q, k, v = qkv.unflatten(1, (3, n_heads, -1)).unbind(1)
        return _varlen(q, k, v, packed, packed, reach)
    q, k, v = to_heads(qkv, packed, n_heads, 3).unbind(0)
    if reach == CAUSAL:  # padding is the future
        return from_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True), packed)
    return from_heads(attend(q, k, v, reach_bias(packed, reach)), packed)


def cross_attention(q: Tensor, kv: Tensor, tgt: Packed, src: Packed, n_heads: int) -> Tensor:
    """Let each target's tokens attend to its source. q: [N, D], kv: [N of src, 2D] --> [N, D]"""
    if on_cpu(q):
        return attend_packed(q, kv, tgt, src, n_heads, ALL)
    if has_varlen(q, q.shape[1] // n_heads):
        k, v = kv.unflatten(1, (2, n_heads, -1)).unbind(1)
        return _varlen(q.unflatten(1, (n_heads, -1)), k, v, tgt, src, ALL)
    k, v = to_heads(kv, src, n_heads, 2).unbind(0)
    return from_heads(attend(to_heads(q, tgt, n_heads, 1)[0], k, v, src.bias), tgt)


def reach_of(packed: Packed, causal: bool, window: int | None) -> Reach:
    """Return how far tokens attend; a window that holds these sentences whole limits nothing."""
    before = -1 if window is None or window >= packed.longest - 1 else window
    return before, 0 if causal else before


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


def _varlen(q: Tensor, k: Tensor, v: Tensor, tgt: Packed, src: Packed, reach: Reach) -> Tensor:
    """3 x [N, H, d] --> [N, D]; the filler is a sentence of its own, so that its rows are finite too."""
    from torch.nn.attention.varlen import varlen_attn  # a second: it brings torch's compiler in

    max_q, max_k = (max(side.longest, len(side.ids) - side.n_tokens) for side in (tgt, src))
    out = varlen_attn(q, k, v, tgt.starts, src.starts, max_q, max_k, window_size=reach)
    assert isinstance(out, Tensor)
    return out.flatten(1)


class SelfAttention(Attention):
    """Let every position attend to every other, or to those before it; of these to the nearest `window`, if one is set.

    No biases: one on the keys has no gradient but rounding noise, which Adam would amplify.
    """

    def __init__(self, d_model: int, n_heads: int, *, rope: RotaryPositions | None = None,
                 window: int | None = None) -> None:
        super().__init__()
        self.n_heads, self.rope, self.window = n_heads, rope, window
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
        return self.out(self_attention(qkv, packed, self.n_heads, causal=causal, window=self.window))

    def weights(self, x: Tensor, packed: Packed, *, causal: bool = False) -> Tensor:
        """--> [B, H, L, L]"""
        q, k, _ = to_heads(self.project(x, packed.places, packed.longest), packed, self.n_heads, 3)
        return attention_weights(q, k, reach_bias(packed, reach_of(packed, causal, self.window)))

    def step(self, x: Tensor, keys: Tensor, values: Tensor, places: Tensor, length: int, added: Tensor) -> Tensor:
        """Attend from a new position, at places [1], to it and those before it, and add. x, added: [N, D] --> [N, D]

        keys, values: [N*H, T, d], the last position of which is this one's, still to be written
        """
        q, k, v = self.project(x, places, length).chunk(3, dim=1)
        keys[:, -1].view(x.shape).copy_(k)
        values[:, -1].view(x.shape).copy_(v)
        y = attend_from_step(q.reshape(len(keys), 1, -1), keys, values, None, self.n_heads)
        return self.out.add(y.reshape(x.shape), added)


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
        queries = to_heads(self.q(x), tgt, self.n_heads, 1)[0]
        return attention_weights(queries, self.keys_values(memory, src)[0], src.bias)

    def keys_values(self, memory: Tensor, src: Packed) -> tuple[Tensor, ...]:
        """Project the memory once a sentence. [N, D] --> 2 x [B, H, S, d]"""
        return to_heads(self.kv(memory), src, self.n_heads, 2).unbind(0)

    def step(self, x: Tensor, source: Sequence[Tensor], beam_size: int, added: Tensor) -> Tensor:
        """Attend to the source, and add. x, added: [B*K, D] --> [B*K, D]

        source: keys and values [B, H, S, d], which serve a sentence's K hypotheses, and what `source_bias` returns
        """
        k, v, *bias = (t.flatten(0, 1) for t in source)  # --> [B*H, S, d]
        q = self.q(x)
        if beam_size > 1:
            q = q.view(-1, beam_size, self.n_heads, k.shape[2]).transpose(1, 2)
        y = attend_from_step(q.reshape(len(k), beam_size, -1), k, v, bias[0] if bias else None, self.n_heads)
        if beam_size > 1:
            y = y.unflatten(0, (-1, self.n_heads)).transpose(1, 2)
        return self.out.add(y.reshape(x.shape), added)


def source_bias(src: Packed, n_heads: int, dtype: torch.dtype) -> list[Tensor]:
    """Return the bias that `CrossAttention.step` adds, or none where all sources are as long. --> [B, H, 1, S]"""
    if src.n_tokens == len(src.lengths) * src.longest:
        return []
    return [src.bias.to(dtype).expand(-1, n_heads, -1, -1).contiguous()]


class SourceAttention(Attention):
    """Attend from decoder states, all at once or one by one, to source states, as an LSTM's decoder does.

    `forward` takes h [B, T, R], values and keys [B, S, R] and bias [B, 1, S], and is linear in the values.
    """

    def weights(self, h: Tensor, values: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        """Read them off what `forward` makes of unit vectors. --> [B, 1, T, S]"""
        units = torch.eye(values.shape[1], dtype=values.dtype, device=values.device).expand(len(values), -1, -1)
        return self.forward(h, units, keys, bias)[:, None]
