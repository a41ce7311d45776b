"""The LSTM encoder-decoder, with attention or without (Sutskever et al. 2014; Luong et al. 2015).

- encoder: `num_layers` LSTM layers, each reading both ways by default; padding never reaches a state that counts
- each decoder layer starts from the final state of its encoder layer, sent through a bridge
- attention "none": those final states are all that the decoder ever sees of the source
- attention "dot" (Luong's general, scaled) or "additive" (Bahdanau et al. 2015), for all target steps at once
- input feeding, by option, gives each step the attentional vector of the last: it trains one step at a time
- each layer is one fused operator, or by option a loop over cells, as most code of 2017 had it: slower, and the same
- what is projected has the width of an embedding, so that one matrix can serve as both

B sentences, S source and T target tokens, N packed rows, K hypotheses a sentence, D d_model, R d_hidden, L layers.
"""

from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from minitx.data.batch import Packed
from minitx.models.base import Attention, DecodeState, Lengths, count_matrix_weights
from minitx.models.dropout import Dropout
from minitx.models.layers import Linear
from minitx.models.recurrence import ATTENTION, AdditiveAttention, EncoderLayer, Recurrence, RecurrentSeq2Seq


class LSTMSeq2Seq(RecurrentSeq2Seq):
    """Translate by recurrence. `src_vocab_size` and `tgt_vocab_size` must agree where embeddings are tied."""

    def __init__(self, *, src_vocab_size: int, tgt_vocab_size: int, num_layers: int, d_model: int, d_hidden: int,
                 dropout: float, attention: str, bidirectional: bool, input_feeding: bool, cell_loop: bool | None,
                 tie_embeddings: bool) -> None:
        super().__init__()
        self.num_layers, self.d_hidden, self.input_feeding = num_layers, d_hidden, input_feeding
        self.src_embed = nn.Embedding(src_vocab_size, d_model)
        self.tgt_embed = self.src_embed if tie_embeddings else nn.Embedding(tgt_vocab_size, d_model)
        self.dropout = Dropout(dropout)
        widths, loop = [d_model, *[d_hidden] * (num_layers - 1)], bool(cell_loop)
        self.encoder = nn.ModuleList(EncoderLayer(width, d_hidden, bidirectional, loop) for width in widths)
        self.bridges = nn.ModuleList(Linear(d_hidden, 2 * d_hidden) for _ in range(num_layers))
        widths[0] += d_model if input_feeding else 0
        self.decoder = nn.ModuleList(Recurrence(width, d_hidden, loop) for width in widths)
        self.attention = None if attention == "none" else ATTENTION[attention](d_hidden)
        self.combine = Linear(d_hidden if self.attention is None else 2 * d_hidden, d_model)
        self.output = Linear(d_model, tgt_vocab_size, bias=False)
        self.reset_parameters()
        if tie_embeddings:
            self.output.weight = self.tgt_embed.weight

    def encode(self, src: Packed) -> Tensor:
        """Read the source. --> memory [B, S, L*R]: the states of each layer, side by side"""
        x = src.pad(self.embed(self.src_embed, src.ids))
        outputs: list[Tensor] = []
        for layer in self.encoder:
            x = layer(x if not outputs else self.dropout(x), src)
            outputs.append(x)
        return torch.cat(outputs, dim=-1)

    def initial_states(self, memory: Tensor, src: Packed) -> list[tuple[Tensor, Tensor]]:
        """Bridge each encoder layer's final state to its decoder layer's first. --> L x (h, c), each [B, R]"""
        layers = zip(cast(list[EncoderLayer], list(self.encoder)), memory.chunk(self.num_layers, -1), strict=True)
        finals = [layer.final(outputs, src) for layer, outputs in layers]
        bridged = [bridge(final).tanh() for bridge, final in zip(self.bridges, finals, strict=True)]
        return [(h.contiguous(), c.contiguous()) for h, c in (both.chunk(2, dim=-1) for both in bridged)]

    def features(self, memory: Tensor, src: Packed, tgt: Packed) -> Tensor:
        """memory: [B, S, L*R] --> [N, D]; all target steps at once, or one by one with input feeding"""
        states, keys, bias = self.initial_states(memory, src), self.keys(memory), src.bias[:, 0]
        embedded = tgt.pad(self.embed(self.tgt_embed, tgt.ids))
        if not self.input_feeding:
            h = self.decode(embedded, states)[0]  # --> [B, T, R]
            return self.attentional(tgt.pack(h), [tgt.pack(context) for context in self.context(h, keys, bias)])
        steps, fed = [], torch.zeros_like(embedded[:, :1])
        for word in embedded.split(1, dim=1):  # --> [B, 1, D]
            h, states = self.decode(torch.cat([word, fed], dim=-1), states)
            steps.append(fed := self.attentional(h, self.context(h, keys, bias)))
        return tgt.pack(torch.cat(steps, dim=1))

    def decode(self, x: Tensor, states: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Run the decoder's layers over consecutive steps. x: [B, T, D] --> [B, T, R], the states after them"""
        after = []
        for number, (lstm, (h, c)) in enumerate(zip(self.decoder, states, strict=True)):
            x, (h, c) = lstm(x if number == 0 else self.dropout(x), (h[None].to(x), c[None].to(x)))
            after.append((h[0], c[0]))
        return x, after

    def keys(self, memory: Tensor) -> list[Tensor]:
        """Prepare what attention reads, once a sentence. --> values [B, S, R] and keys, or nothing without attention"""
        if self.attention is None:
            return []
        values = memory[..., -self.d_hidden:].contiguous()
        return [values, self.attention.key(values)]

    def context(self, h: Tensor, keys: list[Tensor], bias: Tensor) -> list[Tensor]:
        """Attend from each decoder state. h: [B, T, R] --> context [B, T, R], or nothing without attention"""
        return [] if self.attention is None else [self.attention(h, *keys, bias)]

    def attentional(self, h: Tensor, context: list[Tensor]) -> Tensor:
        """Combine state and context: tanh(W [context; h]) (Luong et al. 2015, equation 5). [..., R] --> [..., D]"""
        return self.dropout(self.combine(torch.cat([*context, h], dim=-1)).tanh())

    def init_state(self, memory: Tensor, src: Packed, beam_size: int = 1) -> DecodeState:
        """memory: [B, S, L*R] --> state whose beams are h and c of each layer, [B*K, R], and the vector fed back"""
        flat = [t for state in self.initial_states(memory, src) for t in state]  # --> 2 L x [B, R]
        if self.input_feeding:
            flat.append(memory.new_zeros(len(memory), self.tgt_embed.embedding_dim))
        beams = [t.repeat_interleave(beam_size, dim=0) for t in flat]
        return DecodeState([*self.keys(memory), src.bias[:, 0]], beams, beam_size)

    def step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """Read one token a hypothesis. tokens: [B*K] --> logits [B*K, V], next state"""
        *keys, bias = state.sentences
        flat, x = state.beams[:2 * self.num_layers], self.embed(self.tgt_embed, tokens[:, None])  # --> [B*K, 1, D]
        if self.input_feeding:
            x = torch.cat([x, state.beams[-1][:, None]], dim=-1)
        h, states = self.decode(x, list(zip(flat[0::2], flat[1::2], strict=True)))
        h = h.view(-1, state.beam_size, self.d_hidden)  # --> [B, K, R]: the source is shared, not copied K times
        features = self.attentional(h, self.context(h, keys, bias)).flatten(0, 1)  # --> [B*K, D]
        beams = [t for pair in states for t in pair] + ([features] if self.input_feeding else [])
        return self.project(features), replace(state, beams=beams, position=state.position + 1)

    def attentions(self) -> dict[str, list[Attention]]:
        """Name the attention to the source, if there is one."""
        return {} if self.attention is None else {"cross": [self.attention]}

    def flops(self, src_lengths: Lengths, tgt_lengths: Lengths) -> float:
        """A bridge runs once a sentence; either attention takes 2 R a pair of tokens to score, and 2 R to sum."""
        s, t = src_lengths.astype(float), tgt_lengths.astype(float)
        on_source, on_target, bridged = self.multiply_adds
        attended = 0.0 if self.attention is None else 4 * self.d_hidden * float(t @ s)
        return float(2 * (on_source * s.sum() + on_target * t.sum() + bridged * len(s)) + attended)

    @cached_property
    def multiply_adds(self) -> tuple[int, int, int]:
        """Multiply-adds with weights, of a source token, of a target token, and once a sentence."""
        on_source = count_matrix_weights(self.encoder)
        on_target = count_matrix_weights(self.decoder, self.combine, self.output)
        if self.attention is not None:
            on_source += count_matrix_weights(self.attention.key)
        if isinstance(self.attention, AdditiveAttention):
            on_target += count_matrix_weights(self.attention.query)
        return on_source, on_target, count_matrix_weights(self.bridges)
