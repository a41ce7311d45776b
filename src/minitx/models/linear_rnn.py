"""The linear RNN: the Transformer's layers, with a recurrence in the place of self-attention, and without positions.

- a unit's state is c_t = a_t c_{t-1} + b_t, where a_t and b_t are read off the layer's input alone: so all steps are
  one product and one scan (models/scan.py)
- "ssru" (Kim et al. 2019), "mingru" (Feng et al. 2024) or "rglru" (De et al. 2024), unit by unit; with a product before
  them and one behind them, as self-attention has
- encoder: half of the units read forwards, half backwards; decoder: all read forwards
- attention "dot": the decoder attends to the source as the Transformer's does; its states begin with zeros
- attention "none": its states begin with what the encoder holds at the last token and, read backwards, at the first;
  that is all that it ever sees of the source
- pre-norm, dropout and feed-forward layers as in models/transformer.py

B sentences, K hypotheses a sentence, N rows of packed tokens, D d_model, R d_hidden, W ways to read, V vocabulary.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.data.batch import Packed, gather_rows
from minitx.models.attention import CrossAttention, source_bias
from minitx.models.base import Attention, DecodeState, Lengths, Seq2Seq, count_matrix_weights
from minitx.models.dropout import Dropout
from minitx.models.layers import FeedForward, LayerNorm, Linear, Sublayer
from minitx.models.precision import at_least_fp32, to_compute_dtype
from minitx.models.scan import scan


class LinearRNN(Seq2Seq):
    """Translate by linear recurrence. `src_vocab_size` and `tgt_vocab_size` must agree where embeddings are tied."""

    def __init__(self, *, src_vocab_size: int, tgt_vocab_size: int, num_layers: int, d_model: int, d_hidden: int,
                 d_ff: int, n_heads: int, dropout: float, cell: str, attention: str, tie_embeddings: bool) -> None:
        super().__init__()
        self.d_hidden, self.n_heads, self.attends = d_hidden, n_heads, attention == "dot"
        self.src_embed = nn.Embedding(src_vocab_size, d_model)
        self.tgt_embed = self.src_embed if tie_embeddings else nn.Embedding(tgt_vocab_size, d_model)
        self.dropout = Dropout(dropout)
        layer = (d_model, d_hidden, d_ff, dropout, cell)
        self.encoder = nn.ModuleList(EncoderLayer(*layer) for _ in range(num_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*layer, n_heads if self.attends else None) for _ in range(num_layers))
        self.bridges = nn.ModuleList(Linear(2 * d_model, d_hidden) for _ in range(0 if self.attends else num_layers))
        self.encoder_norm, self.decoder_norm = LayerNorm(d_model), LayerNorm(d_model)
        self.output = Linear(d_model, tgt_vocab_size, bias=False)
        self.reset_parameters()
        if tie_embeddings:
            self.output.weight = self.tgt_embed.weight

    def reset_parameters(self) -> None:
        """Draw Glorot-uniform matrices and embeddings of unit variance once scaled; cells begin with long memories."""
        for name, weight in self.named_parameters():
            if "embed" in name or name == "output.weight":
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
            elif weight.dim() > 1:
                nn.init.xavier_uniform_(weight)
        for module in self.modules():
            if isinstance(module, Recurrence):
                module.remember()

    def embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        """[N] --> [N, D]"""
        return self.dropout(to_compute_dtype(table(tokens) * math.sqrt(table.embedding_dim)))

    def encode(self, src: Packed) -> Tensor:
        """Read the source. --> memory [N, D], a row for each of src's; without attention [B, 2D], one a sentence"""
        x = self.embed(self.src_embed, src.ids)
        for layer in self.encoder:
            x = layer(x, src)
        x = self.encoder_norm(x)
        if self.attends:
            return x
        ends = src.rows.gather(1, src.lengths[:, None] - 1)[:, 0]
        return torch.cat([x.index_select(0, rows) for rows in (ends, src.rows[:, 0])], dim=1)

    def initial_states(self, memory: Tensor) -> list[Tensor | None]:
        """Return the state that each decoder layer begins with. --> [B, R] each, None = zeros"""
        return [bridge(memory) for bridge in self.bridges] if len(self.bridges) else [None] * len(self.decoder)

    def features(self, memory: Tensor, src: Packed, tgt: Packed) -> Tensor:
        """memory: as `encode` returns it --> [N, D]"""
        x = self.embed(self.tgt_embed, tgt.ids)
        for layer, start in zip(self.decoder, self.initial_states(memory), strict=True):
            x = layer(x, tgt, start, memory, src)
        return self.decoder_norm(x)

    def init_state(self, memory: Tensor, src: Packed, beam_size: int = 1) -> DecodeState:
        """--> state whose beams are those of each layer, [B*K, R]: however long the past, they do not grow"""
        batch, layers = len(src.lengths), cast(list[DecoderLayer], list(self.decoder))
        zeros = at_least_fp32(memory.new_zeros(batch, self.d_hidden))
        beams = [zeros if start is None else at_least_fp32(start) for start in self.initial_states(memory)]
        cross = [t for layer in layers if layer.cross is not None for t in layer.cross.keys_values(memory, src)]
        if self.attends:
            cross += source_bias(src, self.n_heads, memory.dtype)
        return DecodeState(cross, [state.repeat_interleave(beam_size, dim=0) for state in beams], beam_size)

    def step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """Read one token a hypothesis. tokens: [B*K] --> logits [B*K, V], next state"""
        x, beams = self.embed(self.tgt_embed, tokens), list[Tensor]()  # --> [B*K, D]
        bias = state.sentences[2 * len(self.decoder):]
        for i, (layer, past) in enumerate(zip(cast(list[DecoderLayer], list(self.decoder)), state.beams, strict=True)):
            source = [*state.sentences[2 * i:2 * i + 2], *bias]
            x, past = layer.step(x, past, source, state.beam_size)
            beams.append(past)
        return self.project(self.decoder_norm(x)), replace(state, beams=beams, position=state.position + 1)

    def recomputable(self) -> list[nn.Module]:
        """Return the layers of both sides."""
        return [*self.encoder, *self.decoder]

    def attentions(self) -> dict[str, list[Attention]]:
        """Name each layer's attention to the source, if there is one."""
        layers = cast(list[DecoderLayer], list(self.decoder))
        return {"cross": [layer.cross for layer in layers if layer.cross is not None]} if self.attends else {}

    def flops(self, src_lengths: Lengths, tgt_lengths: Lengths) -> float:
        """A bridge runs once a sentence; attention takes 2 D a pair of tokens and layer to score, and 2 D to sum."""
        s, t = src_lengths.astype(float), tgt_lengths.astype(float)
        on_source, on_target, bridged = self.multiply_adds
        attended = 4 * self.output.in_features * len(self.decoder) * float(t @ s) if self.attends else 0.0
        return float(2 * (on_source * s.sum() + on_target * t.sum() + bridged * len(s)) + attended)

    @cached_property
    def multiply_adds(self) -> tuple[int, int, int]:
        """Multiply-adds with weights, of a source token, of a target token, and once a sentence."""
        layers = cast(list[DecoderLayer], list(self.decoder))
        cross = count_matrix_weights(*(layer.cross.kv for layer in layers if layer.cross is not None))
        return (count_matrix_weights(self.encoder) + cross,
                count_matrix_weights(self.decoder, self.output) - cross, count_matrix_weights(self.bridges))


class EncoderLayer(nn.Module):
    """Recurrence both ways, then feed-forward."""

    def __init__(self, d_model: int, d_hidden: int, d_ff: int, dropout: float, cell: str) -> None:
        super().__init__()
        self.recurrence = Recurrence(d_model, d_hidden, cell, ways=2)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.add_recurrence, self.add_feed_forward = (Sublayer(d_model, dropout, pre_norm=True) for _ in range(2))

    def forward(self, x: Tensor, src: Packed) -> Tensor:
        """[N, D] --> [N, D]"""
        x = self.add_recurrence(x, lambda y: self.recurrence(y, src))
        return self.add_feed_forward(x, self.feed_forward)


class DecoderLayer(nn.Module):
    """Recurrence, attention to the source if it has heads, then feed-forward."""

    def __init__(self, d_model: int, d_hidden: int, d_ff: int, dropout: float, cell: str, n_heads: int | None) -> None:
        super().__init__()
        self.recurrence = Recurrence(d_model, d_hidden, cell)
        self.cross = None if n_heads is None else CrossAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.add_recurrence, self.add_feed_forward = (Sublayer(d_model, dropout, pre_norm=True) for _ in range(2))
        self.add_cross = nn.Identity() if n_heads is None else Sublayer(d_model, dropout, pre_norm=True)

    def forward(self, x: Tensor, tgt: Packed, start: Tensor | None, memory: Tensor, src: Packed) -> Tensor:
        """x: [N, D], start: [B, R], memory: as the model's `encode` returns it --> [N, D]"""
        x = self.add_recurrence(x, lambda y: self.recurrence(y, tgt, start))
        if (cross := self.cross) is not None:
            x = self.add_cross(x, lambda y: cross(y, tgt, memory, src))
        return self.add_feed_forward(x, self.feed_forward)

    def step(self, x: Tensor, past: Tensor, source: Sequence[Tensor], beam_size: int) -> tuple[Tensor, Tensor]:
        """Decode one position. x: [B*K, D], past: [B*K, R], source: as `cross` reads it, if it attends --> x, state"""
        def recurrence(y: Tensor, added: Tensor) -> Tensor:
            nonlocal past
            y, past = self.recurrence.step(y, past, added)
            return y

        x = self.add_recurrence.step(x, recurrence)
        if (cross := self.cross) is not None:
            x = cast(Sublayer, self.add_cross).step(x, lambda y, added: cross.step(y, source, beam_size, added))
        return self.add_feed_forward.step(x, self.feed_forward.add), past


class Recurrence(nn.Module):
    """Mix a token with what was read before it: a product for all that the cell is given, a scan, a product back.

    Of `ways`, the second reads backwards; each has its share of the units. The scan is in fp32 at least.
    """

    def __init__(self, d_model: int, d_hidden: int, cell: str, ways: int = 1) -> None:
        super().__init__()
        self.ways, self.width, self.cell = ways, d_hidden // ways, CELLS[cell](d_hidden, ways)
        self.read = Linear(d_model, self.cell.parts * d_hidden)  # by way, part and unit
        self.out = Linear(d_hidden, d_model, bias=False)

    @torch.no_grad()
    def remember(self) -> None:
        """Set the biases with which training begins."""
        nn.init.zeros_(self.read.bias)
        self.read.bias.view(self.ways, self.cell.parts, -1)[:, 0] = self.cell.gate_bias

    def forward(self, x: Tensor, packed: Packed, start: Tensor | None = None) -> Tensor:
        """x: [N, D], start: [B, R], None = zeros --> [N, D]"""
        index, inverse = packed.step_indices(self.ways)
        rows = gather_rows(self.read(x).view(len(x) * self.ways, -1), index, inverse, packed.n_tokens * self.ways)
        steps = at_least_fp32(rows).view(packed.longest, -1, self.ways, self.cell.parts, self.width)
        states = scan(*self.cell.coefficients(steps.unbind(-2)),  # --> [T, B, W, R/W]
                      None if start is None else at_least_fp32(start).unflatten(-1, (self.ways, -1)))
        y = self.cell.output(states).to(x.dtype).view(-1, self.width)
        return self.out(gather_rows(y, inverse, index).view(len(x), -1))

    def step(self, x: Tensor, state: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """Read one token forwards, and add. x, added: [B*K, D], state: [B*K, R] --> [B*K, D], next state"""
        parts = at_least_fp32(self.read(x)).view(len(x), 1, self.cell.parts, -1)
        a, b = (t[:, 0] for t in self.cell.coefficients(parts.unbind(-2)))
        state = torch.addcmul(b, a, state)
        return self.out.add(self.cell.output(state).to(x.dtype), added), state


class Cell(nn.Module, ABC):
    """What makes a unit's a_t and b_t of `parts` numbers, and what the unit gives of its state."""

    parts: int
    gate_bias: float  # of the first part, so that states outlive some tokens from the beginning

    def __init__(self, d_hidden: int, ways: int) -> None:
        super().__init__()

    @abstractmethod
    def coefficients(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return a and b, whatever the state is. parts: [..., W, R/W] each --> the same, two of them"""

    def output(self, state: Tensor) -> Tensor:
        """Return what is passed on."""
        return state


class SSRU(Cell):
    """c_t = f_t c_{t-1} + (1 - f_t) x_t, f the sigmoid of a gate, read through a rectifier (Kim et al. 2019)."""

    parts, gate_bias = 2, 1.0  # as an LSTM's forget gate (Jozefowicz et al. 2015)

    def coefficients(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """gate, x --> f, (1 - f) x"""
        gate, x = parts
        f = gate.sigmoid()
        return f, (1 - f) * x

    def output(self, state: Tensor) -> Tensor:
        """[...] --> [...]"""
        return state.relu()


class MinGRU(Cell):
    """h_t = (1 - z_t) h_{t-1} + z_t x_t, z the sigmoid of a gate (Feng et al. 2024, section 3.1).

    It is the SSRU without its rectifier, z being 1 - f.
    """

    parts, gate_bias = 2, -1.0

    def coefficients(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """gate, x --> 1 - z, z x"""
        gate, x = parts
        z = gate.sigmoid()
        return 1 - z, z * x


class RGLRU(Cell):
    """h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t), log a_t = -8 r_t softplus(decay) (De et al. 2024, section 2.4).

    r and i are sigmoids of gates. Theirs read x, ours what the layer is given: so one product serves for all.
    """

    parts, gate_bias = 3, 0.0

    def __init__(self, d_hidden: int, ways: int) -> None:
        super().__init__(d_hidden, ways)
        shortest, longest = (math.log(math.expm1(-math.log(a) / 8)) for a in (0.9, 0.999))  # where r = 1
        self.decay = nn.Parameter(torch.linspace(shortest, longest, d_hidden // ways).repeat(ways))

    def coefficients(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """r, i, x --> a, sqrt(1 - a^2) i x"""
        r, i, x = parts
        decay = F.softplus(at_least_fp32(self.decay)).view(x.shape[-2:])
        log_a = -8 * r.sigmoid() * decay
        kept = -torch.expm1(2 * log_a)  # 1 - a^2, exact near a = 1, where its root has no gradient
        return log_a.exp(), kept.clamp_min(torch.finfo(kept.dtype).tiny).sqrt() * (i.sigmoid() * x)


CELLS: dict[str, type[Cell]] = {"ssru": SSRU, "mingru": MinGRU, "rglru": RGLRU}
