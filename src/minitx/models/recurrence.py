"""What the recurrent families are built from: LSTM layers, attention to source states, how weights are drawn.

B sentences, S source and T target tokens, R d_hidden.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.data.batch import Packed, gather_rows
from minitx.models.attention import SourceAttention, attend
from minitx.models.base import Seq2Seq
from minitx.models.dropout import Dropout
from minitx.models.layers import Linear, has_packed, product, product_added
from minitx.models.precision import cast_together, cast_weight, join_weights, pack_weight, to_compute_dtype


class RecurrentSeq2Seq(Seq2Seq):
    """A family of LSTM layers."""

    dropout: Dropout

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


class Recurrence(nn.LSTM):
    """One LSTM layer, fused or as a loop over cells, in the type of what it is given. [B, T, .] --> [B, T, R]"""

    def __init__(self, d_in: int, d_hidden: int, cell_loop: bool = False) -> None:
        super().__init__(d_in, d_hidden, batch_first=True)
        self.cell_loop = cell_loop

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[  # type: ignore[override]
            Tensor, tuple[Tensor, Tensor]]:
        """x: [B, T, .], state: 2 x [1, B, R] --> [B, T, R], state"""
        if state is None:
            zeros = x.new_zeros(1, len(x), self.hidden_size)
            state = zeros, zeros
        if self.cell_loop:
            return self.loop(x, state)
        if x.shape[1] == 1 and has_packed(x):
            return self.step(x, state)
        if x.device.type == "cuda":  # cuDNN wants one buffer. Autocast would make it, but in fp16, whatever it is told
            weights = cast_together(self.all_weights[0], x.dtype)
        else:
            weights = [cast_weight(weight, x.dtype) for weight in self.all_weights[0]]
        y, h, c = torch.lstm(x, state, weights, True, 1, 0.0, self.training, False, True)
        return y, (h, c)

    def loop(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Do what `forward` does a step at a time: one product of [x; h], then the gates, an operator each."""
        w_ih, w_hh, b_ih, b_hh = (cast_weight(weight, x.dtype) for weight in self.all_weights[0])
        weight, bias, steps = join_weights(w_ih, w_hh), b_ih + b_hh, []
        h, c = state[0][0], state[1][0]
        for word in x.unbind(1):
            i, f, g, o = F.linear(torch.cat([word, h], dim=-1), weight, bias).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            steps.append(h)
        return torch.stack(steps, dim=1), (h[None], c[None])

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Do what `forward` does with one step of a search: the fused operator lays out its weights at each call."""
        w_ih, w_hh = (pack_weight(weight, x.dtype) for weight in self.all_weights[0][:2])
        b_ih, b_hh = (cast_weight(bias, x.dtype) for bias in self.all_weights[0][2:])
        h, c = state[0][0], state[1][0]
        gates = product_added(x[:, 0], w_ih, b_ih, product(h, w_hh, b_hh))
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.addcmul(f.sigmoid() * c, i.sigmoid(), g.tanh())
        h = o.sigmoid() * c.tanh()
        return h[:, None], (h[None], c[None])


class EncoderLayer(nn.Module):
    """Read forwards, and with half of the width backwards over the real tokens alone: padding changes nothing.

    No packed sequences: a layer of them took 1.2 (fp32) to 2.3 times (bf16) as long on a CPU, forwards and backwards.
    """

    def __init__(self, d_in: int, d_hidden: int, bidirectional: bool, cell_loop: bool = False) -> None:
        super().__init__()
        width = d_hidden // 2 if bidirectional else d_hidden
        self.forwards = Recurrence(d_in, width, cell_loop)
        self.backwards = Recurrence(d_in, width, cell_loop) if bidirectional else None

    def forward(self, x: Tensor, src: Packed) -> Tensor:
        """[B, S, .] --> [B, S, R]"""
        forwards = self.forwards(x)[0]
        if self.backwards is None:
            return forwards
        backwards = reorder(self.backwards(reorder(x, src.reversal))[0], src.reversal)
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


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Take each sentence's states in an order that is its own inverse. x: [B, S, R], order: [B, S] --> [B, S, R]"""
    flat = (torch.arange(len(x), device=x.device)[:, None] * x.shape[1] + order).flatten()
    return gather_rows(x.flatten(0, 1), flat, flat).view(x.shape)
