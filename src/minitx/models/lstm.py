"""The LSTM encoder-decoder, with attention or without (Sutskever et al. 2014; Luong et al. 2015).

- encoder: `num_layers` LSTM layers, each reading both ways by default; padding never reaches a state that counts
- each decoder layer starts from the final state of its encoder layer, sent through a bridge
- attention "none": those final states are all that the decoder ever sees of the source
- attention "dot" (Luong's general, scaled) or "additive" (Bahdanau et al. 2015), for all target steps at once
- input feeding, by option, gives each step the attentional vector of the last: it trains one step at a time
- what is projected has the width of an embedding, so that one matrix can serve as both

B sentences, S source and T target tokens, N packed rows, K hypotheses a sentence, D d_model, R d_hidden, L layers.
"""

import math
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from minitx.data.batch import Packed, gather_rows
from minitx.models.attention import SourceAttention, attend
from minitx.models.base import Attention, DecodeState, Lengths, Seq2Seq, count_matrix_weights
from minitx.models.dropout import Dropout
from minitx.models.layers import Linear
from minitx.models.precision import cast_weight, to_compute_dtype


class LSTMSeq2Seq(Seq2Seq):
    """Translate by recurrence. `src_vocab_size` and `tgt_vocab_size` must agree where embeddings are tied."""

    def __init__(self, *, src_vocab_size: int, tgt_vocab_size: int, num_layers: int, d_model: int, d_hidden: int,
                 dropout: float, attention: str, bidirectional: bool, input_feeding: bool,
                 tie_embeddings: bool) -> None:
        super().__init__()
        self.num_layers, self.d_hidden, self.input_feeding = num_layers, d_hidden, input_feeding
        self.src_embed = nn.Embedding(src_vocab_size, d_model)
        self.tgt_embed = self.src_embed if tie_embeddings else nn.Embedding(tgt_vocab_size, d_model)
        self.dropout = Dropout(dropout)
        widths = [d_model, *[d_hidden] * (num_layers - 1)]
        self.encoder = nn.ModuleList(EncoderLayer(width, d_hidden, bidirectional) for width in widths)
        self.bridges = nn.ModuleList(Linear(d_hidden, 2 * d_hidden) for _ in range(num_layers))
        widths[0] += d_model if input_feeding else 0
        self.decoder = nn.ModuleList(Recurrence(width, d_hidden) for width in widths)
        self.attention = None if attention == "none" else ATTENTION[attention](d_hidden)
        self.combine = Linear(d_hidden if self.attention is None else 2 * d_hidden, d_model)
        self.output = Linear(d_model, tgt_vocab_size, bias=False)
        self.reset_parameters()
        if tie_embeddings:
            self.output.weight = self.tgt_embed.weight

    def reset_parameters(self) -> None:
        """Draw Glorot-uniform inputs, orthogonal recurrences, embeddings of norm 1; forget gates start open."""
        for name, weight in self.named_parameters():
            if "embed" in name or name == "output.weight":
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
            elif "weight_hh" in name or "weight_ih" in name:
                for gate in weight.chunk(4):
                    (nn.init.orthogonal_ if "weight_hh" in name else nn.init.xavier_uniform_)(gate)
            elif weight.dim() > 1:
                nn.init.xavier_uniform_(weight)
            else:
                nn.init.zeros_(weight)
                if "bias_ih" in name:
                    nn.init.ones_(weight.chunk(4)[1])  # the forget gate's (Jozefowicz et al. 2015)

    def embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        """Look up with unit variance, as the Transformer does: a tied matrix is small, for the sake of its logits."""
        return self.dropout(to_compute_dtype(table(tokens) * math.sqrt(table.embedding_dim)))

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


class Recurrence(nn.LSTM):
    """One LSTM layer, in the type of what it is given. [B, T, .] --> [B, T, R]"""

    def __init__(self, d_in: int, d_hidden: int) -> None:
        super().__init__(d_in, d_hidden, batch_first=True)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[  # type: ignore[override]
            Tensor, tuple[Tensor, Tensor]]:
        """x: [B, T, .], state: 2 x [1, B, R] --> [B, T, R], state"""
        if state is None:
            zeros = x.new_zeros(1, len(x), self.hidden_size)
            state = zeros, zeros
        weights, settings = self.all_weights[0], (True, 1, 0.0, self.training, False, True)
        if x.device.type == "cpu" or not torch.is_grad_enabled():  # a search casts them once
            y, h, c = torch.lstm(x, state, [cast_weight(weight, x.dtype) for weight in weights], *settings)
        else:  # cuDNN wants its weights in one buffer, and autocast casts them into one
            with torch.autocast(x.device.type, x.dtype, enabled=x.dtype is not weights[0].dtype):
                y, h, c = torch.lstm(x, state, [*weights], *settings)
        return y, (h, c)


class EncoderLayer(nn.Module):
    """Read forwards, and with half of the width backwards over the real tokens alone: padding changes nothing.

    No packed sequences: a layer of them took 1.2 (fp32) to 2.3 times (bf16) as long on a CPU, forwards and backwards.
    """

    def __init__(self, d_in: int, d_hidden: int, bidirectional: bool) -> None:
        super().__init__()
        width = d_hidden // 2 if bidirectional else d_hidden
        self.forwards = Recurrence(d_in, width)
        self.backwards = Recurrence(d_in, width) if bidirectional else None

    def forward(self, x: Tensor, src: Packed) -> Tensor:
        """[B, S, .] --> [B, S, R]"""
        forwards = self.forwards(x)[0]
        if self.backwards is None:
            return forwards
        order = reversal(src)
        backwards = reorder(self.backwards(reorder(x, order))[0], order)
        return torch.cat([forwards, backwards], dim=-1)

    def final(self, outputs: Tensor, src: Packed) -> Tensor:
        """Return the state after the last token, and the backward one after the first. [B, S, R] --> [B, R]"""
        ends = outputs[torch.arange(len(outputs), device=outputs.device), src.lengths - 1]
        if self.backwards is None:
            return ends
        width = self.backwards.hidden_size
        return torch.cat([ends[:, :-width], outputs[:, 0, -width:]], dim=-1)


class DotAttention(SourceAttention):
    """softmax(h W k' / sqrt(R)) over source states: Luong et al. 2015, equation 8 (general), scaled."""

    def __init__(self, d_hidden: int) -> None:
        super().__init__()
        self.key = Linear(d_hidden, d_hidden, bias=False)

    def forward(self, h: Tensor, values: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        """h: [B, T, R], values, keys: [B, S, R], bias: [B, 1, S] --> context [B, T, R]"""
        return attend(*(t[:, None] for t in (h, keys, values, bias)))[:, 0]


class AdditiveAttention(SourceAttention):
    """softmax(v' tanh(W h + U k)) over source states: Bahdanau et al. 2015, section A.1.2."""

    def __init__(self, d_hidden: int) -> None:
        super().__init__()
        self.query = Linear(d_hidden, d_hidden, bias=False)
        self.key = Linear(d_hidden, d_hidden)
        self.score = Linear(d_hidden, 1, bias=False)

    def forward(self, h: Tensor, values: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        """h: [B, T, R], values, keys: [B, S, R], bias: [B, 1, S] --> context [B, T, R]"""
        scores = self.score(torch.tanh(self.query(h)[:, :, None] + keys[:, None]))[..., 0]  # --> [B, T, S]
        return (scores + bias).softmax(-1).to(values.dtype) @ values


ATTENTION: dict[str, type[DotAttention | AdditiveAttention]] = {"additive": AdditiveAttention, "dot": DotAttention}


def reversal(src: Packed) -> Tensor:
    """Return each sentence's places in reverse; those of padding stay. --> [B, S]"""
    places = torch.arange(src.mask.shape[1], device=src.mask.device)
    return torch.where(src.mask, src.lengths[:, None] - 1 - places, places)


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Take each sentence's states in an order that is its own inverse. x: [B, S, R], order: [B, S] --> [B, S, R]"""
    flat = (torch.arange(len(x), device=x.device)[:, None] * x.shape[1] + order).flatten()
    return gather_rows(x.flatten(0, 1), flat).view(x.shape)
