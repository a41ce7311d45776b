"""The LSTM encoder-decoder, with attention or without (Sutskever et al. 2014; Luong et al. 2015).

- encoder: `num_layers` LSTM layers, each reading both ways by default; padding never reaches a state that counts
- the decoder's layers begin with what bridges make of the final states of the encoder's layers
- attention "none": those final states are all that the decoder ever sees of the source
- attention "dot" (Luong's general, scaled) or "additive" (Bahdanau et al. 2015), for all target steps at once
- input feeding, by option, gives each step the attentional vector of the last: it trains one step at a time
- what is projected has the width of an embedding, so that one matrix can serve both ends

B sentences, S source tokens, T target tokens, K hypotheses a sentence, D d_model, R d_hidden, L layers, V vocabulary.
"""

import math
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from minitx.models.base import DecodeState, Seq2Seq
from minitx.models.layers import Dropout, attend


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
        self.bridges = nn.ModuleList(nn.Linear(d_hidden, 2 * d_hidden) for _ in range(num_layers))
        widths[0] += d_model if input_feeding else 0
        self.decoder = nn.ModuleList(nn.LSTM(width, d_hidden, batch_first=True) for width in widths)
        self.attention = None if attention == "none" else ATTENTION[attention](d_hidden)
        self.combine = nn.Linear(d_hidden if self.attention is None else 2 * d_hidden, d_model)
        self.output = nn.Linear(d_model, tgt_vocab_size, bias=False)
        self.reset_parameters()
        if tie_embeddings:
            self.output.weight = self.tgt_embed.weight

    def reset_parameters(self) -> None:
        """Draw Glorot-uniform inputs, orthogonal recurrences, embeddings of norm 1; gates begin by remembering."""
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
        return self.dropout(table(tokens) * math.sqrt(table.embedding_dim))

    def encode(self, src: Tensor, src_mask: Tensor) -> Tensor:
        """Read the source. src, src_mask: [B, S] --> memory [B, S, L*R]: what each layer made of it, in turn"""
        x, outputs = self.embed(self.src_embed, src), list[Tensor]()
        for layer in self.encoder:
            x = layer(x if not outputs else self.dropout(x), src_mask)
            outputs.append(x)
        return torch.cat(outputs, dim=-1)

    def initial(self, memory: Tensor, src_mask: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Make each decoder layer's first h and c of its encoder layer's final state. --> L x (h, c), each [B, R]"""
        layers = zip(cast(list[EncoderLayer], list(self.encoder)), memory.chunk(self.num_layers, -1), strict=True)
        finals = [layer.final(outputs, src_mask) for layer, outputs in layers]
        bridged = [bridge(final).tanh() for bridge, final in zip(self.bridges, finals, strict=True)]
        return [(h.contiguous(), c.contiguous()) for h, c in (both.chunk(2, dim=-1) for both in bridged)]

    def features(self, memory: Tensor, src_mask: Tensor, tgt_in: Tensor) -> Tensor:
        states = self.initial(memory, src_mask)
        keys, mask = self.keys(memory), src_mask[:, None, :]
        embedded = self.embed(self.tgt_embed, tgt_in)
        if not self.input_feeding:
            return self.attentional(self.decode(embedded, states)[0], keys, mask)
        fed, fedback = [], torch.zeros_like(embedded[:, :1])
        for word in embedded.split(1, dim=1):
            h, states = self.decode(torch.cat([word, fedback.to(word)], dim=-1), states)
            fed.append(fedback := self.attentional(h, keys, mask))
        return torch.cat(fed, dim=1)

    def project(self, features: Tensor) -> Tensor:
        return self.output(features)

    def decode(self, x: Tensor, states: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Run the decoder's layers over consecutive steps. x: [B, T, D] --> [B, T, R], the states after them"""
        after = []
        for number, (lstm, (h, c)) in enumerate(zip(self.decoder, states, strict=True)):
            x, (h, c) = lstm(x if number == 0 else self.dropout(x), (h[None].to(x), c[None].to(x)))
            after.append((h[0], c[0]))
        return x, after

    def keys(self, memory: Tensor) -> list[Tensor]:
        """Prepare what attention looks at, once a sentence. --> values [B, S, R] and keys, or nothing"""
        if self.attention is None:
            return []
        values = memory[..., -self.d_hidden:].contiguous()
        return [values, self.attention.key(values)]

    def attentional(self, h: Tensor, keys: list[Tensor], mask: Tensor) -> Tensor:
        """Join each decoder state with what it found: tanh(W [context; h]) (Luong et al. 2015, equation 5).

        h: [B, T, R], mask: [B, 1, S] --> [B, T, D]
        """
        if self.attention is not None:
            h = torch.cat([self.attention(h, *keys, mask), h], dim=-1)
        return self.dropout(self.combine(h).tanh())

    def init_state(self, memory: Tensor, src_mask: Tensor, beam_size: int = 1) -> DecodeState:
        flat = [t for state in self.initial(memory, src_mask) for t in state]
        if self.input_feeding:
            flat.append(memory.new_zeros(len(memory), self.tgt_embed.embedding_dim))
        beams = [t.repeat_interleave(beam_size, dim=0) for t in flat]
        return DecodeState([*self.keys(memory), src_mask[:, None, :]], beams, beam_size)

    def step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        *keys, mask = state.sentences
        flat, x = state.beams[:2 * self.num_layers], self.embed(self.tgt_embed, tokens[:, None])  # --> [B*K, 1, D]
        if self.input_feeding:
            x = torch.cat([x, state.beams[-1][:, None].to(x)], dim=-1)
        h, states = self.decode(x, list(zip(flat[0::2], flat[1::2], strict=True)))
        together = h.view(-1, state.beam_size, self.d_hidden)  # --> [B, K, R]: the source is shared, not copied K times
        features = self.attentional(together, keys, mask).flatten(0, 1)
        beams = [t for pair in states for t in pair] + ([features] if self.input_feeding else [])
        return self.project(features), replace(state, beams=beams, position=state.position + 1)


class EncoderLayer(nn.Module):
    """Read forwards, and by half backwards over the real tokens alone, so that padding changes nothing.

    No packed sequences: a layer of them took 1.2 (fp32) to 2.3 times (bf16) as long on a CPU, forwards and backwards.
    """

    def __init__(self, d_in: int, d_hidden: int, bidirectional: bool) -> None:
        super().__init__()
        width = d_hidden // 2 if bidirectional else d_hidden
        self.forwards = nn.LSTM(d_in, width, batch_first=True)
        self.backwards = nn.LSTM(d_in, width, batch_first=True) if bidirectional else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: [B, S, .], mask: [B, S] --> [B, S, R]"""
        ahead = self.forwards(x)[0]
        if self.backwards is None:
            return ahead
        order = reversal(mask)
        back = reordered(self.backwards(reordered(x, order))[0], order)
        return torch.cat([ahead, back], dim=-1)

    def final(self, outputs: Tensor, mask: Tensor) -> Tensor:
        """Return the state after the last token, and the backward one after the first. [B, S, R] --> [B, R]"""
        last = mask.sum(1, keepdim=True) - 1
        ends = reordered(outputs, last)[:, 0]
        if self.backwards is None:
            return ends
        width = self.backwards.hidden_size
        return torch.cat([ends[:, :-width], outputs[:, 0, -width:]], dim=-1)


class DotAttention(nn.Module):
    """softmax(h W k' / sqrt(R)) over source states: Luong et al. 2015, equation 8 (general), scaled."""

    def __init__(self, d_hidden: int) -> None:
        super().__init__()
        self.key = nn.Linear(d_hidden, d_hidden, bias=False)

    def forward(self, h: Tensor, values: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """h: [B, T, R], values, keys: [B, S, R], mask: [B, 1, S] --> context [B, T, R]"""
        h, keys, values, mask = (t[:, None] for t in (h, keys, values, mask))
        return attend(h, keys, values, mask)[:, 0]


class AdditiveAttention(nn.Module):
    """softmax(v' tanh(W h + U k)) over source states: Bahdanau et al. 2015, section A.1.2."""

    def __init__(self, d_hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(d_hidden, d_hidden, bias=False)
        self.key = nn.Linear(d_hidden, d_hidden)
        self.score = nn.Linear(d_hidden, 1, bias=False)

    def forward(self, h: Tensor, values: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """h: [B, T, R], values, keys: [B, S, R], mask: [B, 1, S] --> context [B, T, R]"""
        scores = self.score(torch.tanh(self.query(h)[:, :, None] + keys[:, None]))[..., 0]  # --> [B, T, S]
        return scores.masked_fill(~mask, -torch.inf).softmax(-1).to(values.dtype) @ values


ATTENTION: dict[str, type[DotAttention | AdditiveAttention]] = {"additive": AdditiveAttention, "dot": DotAttention}


def reversal(mask: Tensor) -> Tensor:
    """Return, for each place, where its token is in a sentence read backwards; padding stays. [B, S] --> [B, S]"""
    places = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - places, places)


def reordered(x: Tensor, order: Tensor) -> Tensor:
    """Take each sentence's states in its own order. x: [B, S, R], order: [B, P] --> [B, P, R]"""
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
