"""GNMT (Wu et al. 2016), in the form in which NVIDIA's DeepLearningExamples train it and publish its speed.

- encoder: the first layer reads both ways, each with the full width; the others read forwards
- decoder: the first layer's states attend to the encoder's last layer (additive attention, Bahdanau et al. 2015), and
  what they find is read by every layer above, beside the state below; all layers start from zeros
- from the third layer on, on both sides, a layer's input is added to its output; the output reads the last layer
- one width throughout, so that one matrix can serve as embedding and output
- each layer runs over all steps at once; with `cell_loop`, one target step at a time goes through all layers
- unlike theirs, the output has no bias, and the attention's vector v is used as it is, not normalised

B sentences, S source and T target tokens, N packed rows, K hypotheses a sentence, D d_model.
"""

from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from minitx.data.batch import Packed
from minitx.models.base import Attention, DecodeState, Lengths, count_matrix_weights
from minitx.models.dropout import Dropout
from minitx.models.layers import Linear
from minitx.models.recurrence import AdditiveAttention, EncoderLayer, Recurrence, RecurrentSeq2Seq

FIRST_RESIDUAL = 2  # the layer, counted from 0, from which on inputs are added to outputs


class GNMT(RecurrentSeq2Seq):
    """Translate by deep recurrence. `src_vocab_size` and `tgt_vocab_size` must agree where embeddings are tied."""

    def __init__(self, *, src_vocab_size: int, tgt_vocab_size: int, num_layers: int, d_model: int, dropout: float,
                 cell_loop: bool | None, tie_embeddings: bool) -> None:
        super().__init__()
        self.cell_loop = loop = bool(cell_loop)
        self.src_embed = nn.Embedding(src_vocab_size, d_model)
        self.tgt_embed = self.src_embed if tie_embeddings else nn.Embedding(tgt_vocab_size, d_model)
        self.dropout = Dropout(dropout)
        widths = [2 * d_model, *[d_model] * (num_layers - 2)]
        self.encoder = nn.ModuleList([EncoderLayer(d_model, 2 * d_model, True, loop),
                                      *(EncoderLayer(width, d_model, False, loop) for width in widths)])
        widths = [d_model, *[2 * d_model] * (num_layers - 1)]
        self.decoder = nn.ModuleList(Recurrence(width, d_model, loop) for width in widths)
        self.attention = AdditiveAttention(d_model)
        self.output = Linear(d_model, tgt_vocab_size, bias=False)
        self.reset_parameters()
        if tie_embeddings:
            self.output.weight = self.tgt_embed.weight

    def encode(self, src: Packed) -> Tensor:
        """Read the source. --> memory [B, S, D], the states of the last layer"""
        x = src.pad(self.embed(self.src_embed, src.ids))
        for number, layer in enumerate(self.encoder):
            states = layer(x if number == 0 else self.dropout(x), src)
            x = states if number < FIRST_RESIDUAL else x + states
        return x

    def features(self, memory: Tensor, src: Packed, tgt: Packed) -> Tensor:
        """memory: [B, S, D] --> [N, D]; all target steps at once, or one by one with `cell_loop`"""
        source, steps = self.source(memory, src), []
        words = tgt.pad(self.embed(self.tgt_embed, tgt.ids))  # --> [B, T, D]
        states = [words.new_zeros(len(words), words.shape[-1])] * (2 * len(self.decoder))
        for now in words.split(1 if self.cell_loop else tgt.longest, dim=1):
            x, states = self.decode(now, states, source)
            steps.append(x)
        return tgt.pack(torch.cat(steps, dim=1))

    def source(self, memory: Tensor, src: Packed) -> list[Tensor]:
        """Prepare what attention reads, once a sentence. --> values and keys [B, S, D], bias [B, 1, S]"""
        return [memory, self.attention.key(memory), src.bias[:, 0]]

    def decode(self, x: Tensor, states: list[Tensor], source: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Run the decoder over consecutive steps, of B sentences or of K hypotheses of each.

        x: [B or B*K, T, D], states: h and c of each layer --> as x, the states after them
        """
        after: list[Tensor] = []
        context = x
        for number, (lstm, h, c) in enumerate(zip(self.decoder, states[0::2], states[1::2], strict=True)):
            read = self.dropout(torch.cat([x, context], dim=-1)) if number > 0 else x
            y, (h, c) = lstm(read, (h[None], c[None]))
            if number == 0:  # the steps of a sentence's hypotheses attend like steps of its own
                context = self.attention(y.reshape(len(source[0]), -1, y.shape[-1]), *source).view_as(y)
            x = y if number < FIRST_RESIDUAL else x + y
            after += [h[0], c[0]]
        return x, after

    def init_state(self, memory: Tensor, src: Packed, beam_size: int = 1) -> DecodeState:
        """memory: [B, S, D] --> state whose beams are h and c of each layer, [B*K, D]"""
        zeros = memory.new_zeros(len(memory) * beam_size, memory.shape[-1])
        return DecodeState(self.source(memory, src), [zeros] * (2 * len(self.decoder)), beam_size)

    def step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """Read one token a hypothesis. tokens: [B*K] --> logits [B*K, V], next state"""
        x = self.embed(self.tgt_embed, tokens[:, None])  # --> [B*K, 1, D]
        x, beams = self.decode(x, state.beams, state.sentences)
        return self.project(x[:, 0]), replace(state, beams=beams, position=state.position + 1)

    def attentions(self) -> dict[str, list[Attention]]:
        """Name the attention to the source."""
        return {"cross": [self.attention]}

    def flops(self, src_lengths: Lengths, tgt_lengths: Lengths) -> float:
        """Attention takes 2 D a pair of tokens to score, and 2 D to sum."""
        s, t = src_lengths.astype(float), tgt_lengths.astype(float)
        on_source, on_target = self.multiply_adds
        return float(2 * (on_source * s.sum() + on_target * t.sum()) + 4 * self.output.in_features * (t @ s))

    @cached_property
    def multiply_adds(self) -> tuple[int, int]:
        """Multiply-adds with weights, of a source token and of a target token."""
        return (count_matrix_weights(self.encoder, self.attention.key),
                count_matrix_weights(self.decoder, self.attention.query, self.output))
