"""The Transformer (Vaswani et al. 2017).

- encoder and decoder of `num_layers` layers; pre-norm with a final norm by default, post-norm as in 2017 by option
- no biases in attention; ReLU feed-forward; dropout on embeddings and on each sub-layer's output
- one embedding matrix for source, target and output where the vocabulary is joint
- positions: sinusoidal, learned, rotary (self-attention only), or none at all: the encoder then sees a bag of tokens,
  while the causal decoder still senses order on its own side, since each position sees one token more than the last
- self-attention to all tokens, or to a window of neighbours (Beltagy et al. 2020), whose cost is linear in the length

Sentences are packed, and kernels are chosen by device. tests/models/plain_transformer.py is the same model in plain
padded form, which this one must equal.

B sentences, S source tokens, K hypotheses a sentence, N rows of packed tokens, D width, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from minitx.data.batch import Packed
from minitx.models.attention import CrossAttention, SelfAttention, source_bias
from minitx.models.base import Attention, DecodeState, Lengths, Seq2Seq, count_matrix_weights
from minitx.models.cache import Cache
from minitx.models.dropout import Dropout
from minitx.models.layers import (
    FeedForward,
    LayerNorm,
    LearnedPositions,
    Linear,
    RotaryPositions,
    SinusoidalPositions,
    Sublayer,
)
from minitx.models.precision import to_compute_dtype


class Transformer(Seq2Seq):
    """Translate by attention alone. `src_vocab_size` and `tgt_vocab_size` must agree where embeddings are tied."""

    def __init__(self, *, src_vocab_size: int, tgt_vocab_size: int, num_layers: int, d_model: int, d_ff: int,
                 n_heads: int, dropout: float, pos_encoding: str, pre_norm: bool, tie_embeddings: bool,
                 window: int | None, max_positions: int) -> None:
        super().__init__()
        self.src_embed = nn.Embedding(src_vocab_size, d_model)
        self.tgt_embed = self.src_embed if tie_embeddings else nn.Embedding(tgt_vocab_size, d_model)
        self.positions: nn.Module | None = None
        if pos_encoding == "sinusoidal":
            self.positions = SinusoidalPositions(d_model)
        elif pos_encoding == "learned":
            self.positions = LearnedPositions(d_model, max_positions)
            self.max_source_length = self.max_target_length = max_positions
        rope = RotaryPositions(d_model // n_heads) if pos_encoding == "rope" else None
        self.dropout = Dropout(dropout)
        layer = (d_model, d_ff, n_heads, dropout, pre_norm, rope, window)
        self.window = window
        self.encoder = nn.ModuleList(EncoderLayer(*layer) for _ in range(num_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*layer) for _ in range(num_layers))
        self.encoder_norm, self.decoder_norm = (
            LayerNorm(d_model) if pre_norm else nn.Identity() for _ in range(2))
        self.output = Linear(d_model, tgt_vocab_size, bias=False)
        self.reset_parameters()
        if tie_embeddings:
            self.output.weight = self.tgt_embed.weight

    def reset_parameters(self) -> None:
        """Draw Glorot-uniform matrices, embeddings of unit variance once scaled, positions of a sine's variance."""
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                if "positions" in name:
                    nn.init.normal_(weight, std=math.sqrt(0.5))
                elif "embed" in name or name == "output.weight":
                    nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
                else:
                    nn.init.xavier_uniform_(weight)

    def embed(self, table: nn.Embedding, tokens: Tensor, places: Tensor, length: int) -> Tensor:
        """Look up tokens at these places of their sentences, of at most `length` tokens. 2 x [N] --> [N, D]"""
        x = table(tokens) * math.sqrt(table.embedding_dim)
        if self.positions is not None:
            x = x + self.positions(places, length, x.dtype)
        return self.dropout(to_compute_dtype(x))

    def encode(self, src: Packed) -> Tensor:
        """Read the source. --> memory [N, D], a row for each of src's"""
        x = self.embed(self.src_embed, src.ids, src.places, src.longest)
        for layer in self.encoder:
            x = layer(x, src)
        return self.encoder_norm(x)

    def features(self, memory: Tensor, src: Packed, tgt: Packed) -> Tensor:
        """memory: [N of src, D] --> [N, D]"""
        x = self.embed(self.tgt_embed, tgt.ids, tgt.places, tgt.longest)
        for layer in self.decoder:
            x = layer(x, tgt, memory, src)
        return self.decoder_norm(x)

    def init_state(self, memory: Tensor, src: Packed, beam_size: int = 1) -> DecodeState:
        """Project the memory once. --> state with each layer's view of the source, and room for a cache"""
        layers = cast(list[DecoderLayer], list(self.decoder))
        cross = [t for layer in layers for t in layer.cross.keys_values(memory, src)]  # 2 a layer
        bias = source_bias(src, layers[0].cross.n_heads, memory.dtype)
        past = memory.new_empty(0, len(layers), 2, len(src.lengths) * beam_size, memory.shape[1])
        return DecodeState([*cross, *bias], [], beam_size, cache=Cache.holding(past, self.window))

    @torch.no_grad()
    def step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """Read one token a hypothesis. tokens: [B*K] --> logits [B*K, V], next state"""
        assert state.cache is not None
        layers, cache, length = cast(list[DecoderLayer], list(self.decoder)), state.cache.extended(), state.position + 1
        places = torch.full((1,), state.position, device=tokens.device)
        x = self.embed(self.tgt_embed, tokens, places, length)  # --> [B*K, D]
        cross, bias = state.sentences[:2 * len(layers)], state.sentences[2 * len(layers):]
        for i, (layer, past) in enumerate(zip(layers, cache.by_head(layers[0].attention.n_heads), strict=True)):
            x = layer.step(x, past, places, length, [*cross[2 * i:2 * i + 2], *bias], state.beam_size)
        return self.project(self.decoder_norm(x)), replace(state, cache=cache, position=length)

    def recomputable(self) -> list[nn.Module]:
        """Return the layers of both sides."""
        return [*self.encoder, *self.decoder]

    def attentions(self) -> dict[str, list[Attention]]:
        """Name the attention of each layer."""
        encoder, decoder = cast(list[EncoderLayer], list(self.encoder)), cast(list[DecoderLayer], list(self.decoder))
        return {"encoder": [layer.attention for layer in encoder], "decoder": [layer.attention for layer in decoder],
                "cross": [layer.cross for layer in decoder]}

    def flops(self, src_lengths: Lengths, tgt_lengths: Lengths) -> float:
        """Count causal attention as a whole square, as torch's counter and published MFUs do (PaLM, appendix B).

        Likewise, a window counts as if it were full wherever a sentence is longer.
        """
        s, t = src_lengths.astype(float), tgt_lengths.astype(float)
        before = math.inf if self.window is None else self.window
        on_source, on_target = self.multiply_adds
        to_itself = len(self.encoder) * (s @ s.clip(max=2 * before + 1)) + len(self.decoder) * (
            t @ t.clip(max=before + 1))
        attended = to_itself + len(self.decoder) * (t @ s)
        return float(2 * (on_source * s.sum() + on_target * t.sum()) + 4 * self.output.in_features * attended)

    @cached_property
    def multiply_adds(self) -> tuple[int, int]:
        """Multiply-adds with weights, of a source token and of a target token."""
        cross = count_matrix_weights(*(layer.cross.kv for layer in cast(list[DecoderLayer], list(self.decoder))))
        return count_matrix_weights(self.encoder) + cross, count_matrix_weights(self.decoder, self.output) - cross


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, d_model: int, d_ff: int, n_heads: int, dropout: float, pre_norm: bool,
                 rope: RotaryPositions | None, window: int | None) -> None:
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads, rope=rope, window=window)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.add_attention, self.add_feed_forward = (Sublayer(d_model, dropout, pre_norm) for _ in range(2))

    def forward(self, x: Tensor, src: Packed) -> Tensor:
        """[N, D] --> [N, D]"""
        x = self.add_attention(x, lambda y: self.attention(y, src))
        return self.add_feed_forward(x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the source, then feed-forward."""

    def __init__(self, d_model: int, d_ff: int, n_heads: int, dropout: float, pre_norm: bool,
                 rope: RotaryPositions | None, window: int | None) -> None:
        super().__init__()
        self.attention = SelfAttention(d_model, n_heads, rope=rope, window=window)
        self.cross = CrossAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.add_attention, self.add_cross, self.add_feed_forward = (
            Sublayer(d_model, dropout, pre_norm) for _ in range(3))

    def forward(self, x: Tensor, tgt: Packed, memory: Tensor, src: Packed) -> Tensor:
        """x: [N, D], memory: [N of src, D] --> [N, D]"""
        x = self.add_attention(x, lambda y: self.attention(y, tgt, causal=True))
        x = self.add_cross(x, lambda y: self.cross(y, tgt, memory, src))
        return self.add_feed_forward(x, self.feed_forward)

    def step(self, x: Tensor, past: tuple[Tensor, Tensor], places: Tensor, length: int, source: Sequence[Tensor],
             beam_size: int) -> Tensor:
        """Decode the last position of `past`, which it writes. x: [B*K, D], past: 2 x [B*K*H, T, d] --> [B*K, D]"""
        x = self.add_attention.step(x, lambda y, added: self.attention.step(y, *past, places, length, added))
        x = self.add_cross.step(x, lambda y, added: self.cross.step(y, source, beam_size, added))
        return self.add_feed_forward.step(x, self.feed_forward.add)
