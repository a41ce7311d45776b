"""The LSTM families as graphs: each layer is ONNX's own LSTM, which reads real tokens alone, whatever the padding.

B sentences, S places of the longest source, K hypotheses a sentence, N = B * K, D d_model, R d_hidden.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from minitx.export.graphs.graph import INT32, MICROSOFT, Graph, Shape, Value
from minitx.export.graphs.parts import (
    Family,
    Known,
    attend,
    bias_of,
    by_sentence,
    embed,
    linear,
    mask_of,
    project,
    split,
    zeros,
)
from minitx.models.gnmt import FIRST_RESIDUAL, GNMT
from minitx.models.lstm import LSTMSeq2Seq
from minitx.models.recurrence import AdditiveAttention, DotAttention, EncoderLayer, Recurrence


class LSTMGraphs(Family[LSTMSeq2Seq]):
    """The state is h and c of each layer and, with input feeding, the last attentional vector."""

    def __init__(self, model: LSTMSeq2Seq) -> None:
        super().__init__(model)
        self.memory = {} if model.attention is None else attended(model.d_hidden)
        self.state = {f"{part}.{i}": [model.d_hidden] for i in range(model.num_layers) for part in "hc"}
        if model.input_feeding:
            self.state["fed"] = [model.output.in_features]

    def encode(self, g: Graph, source: Value, lengths: Value) -> tuple[Known, Known]:
        """Bridge each layer's final state; attention reads the last layer's states."""
        x, state = g.op("Transpose", embed(g, self.model.src_embed, source), perm=[1, 0, 2]), Known()
        for i, (layer, bridge) in enumerate(zip(self.model.encoder, self.model.bridges, strict=True)):
            x, final = read(g, layer, x, lengths)
            state[f"h.{i}"], state[f"c.{i}"] = split(g, g.op("Tanh", linear(g, bridge, final)), 2)
        if self.model.input_feeding:
            state["fed"] = zeros(g, source, self.model.output.in_features)
        attention = self.model.attention
        return {} if attention is None else keys(g, attention, x, source, lengths), state

    def step(self, g: Graph, tokens: Value, position: Value, memory: Known, state: Known) -> tuple[Value, Known]:
        """Take a step in each layer, then attend."""
        x, after = embed(g, self.model.tgt_embed, tokens), Known()
        if self.model.input_feeding:
            x = g.op("Concat", x, state["fed"], axis=-1)
        for i, layer in enumerate(self.model.decoder):
            x, after[f"c.{i}"] = cell(g, layer, x, state[f"h.{i}"], state[f"c.{i}"])
            after[f"h.{i}"] = x
        if self.model.attention is not None:
            x = g.op("Concat", source_attention(g, self.model.attention, memory, x), x, axis=-1)
        features = g.op("Tanh", linear(g, self.model.combine, x))
        if self.model.input_feeding:
            after["fed"] = features
        return project(g, self.model.output, features), after


class GNMTGraphs(Family[GNMT]):
    """The state is h and c of each layer, zeros at first."""

    def __init__(self, model: GNMT) -> None:
        super().__init__(model)
        self.width = model.output.in_features
        self.memory = attended(self.width)
        self.state = {f"{part}.{i}": [self.width] for i in range(len(model.decoder)) for part in "hc"}

    def encode(self, g: Graph, source: Value, lengths: Value) -> tuple[Known, Known]:
        """Attention reads the last layer's states."""
        x = g.op("Transpose", embed(g, self.model.src_embed, source), perm=[1, 0, 2])
        for number, layer in enumerate(self.model.encoder):
            states, _ = read(g, layer, x, lengths)
            x = states if number < FIRST_RESIDUAL else g.op("Add", x, states)
        nothing = zeros(g, source, self.width)
        return keys(g, self.model.attention, x, source, lengths), dict.fromkeys(self.state, nothing)

    def step(self, g: Graph, tokens: Value, position: Value, memory: Known, state: Known) -> tuple[Value, Known]:
        """Attend from the first layer; all above it read what it finds."""
        x, context, after = embed(g, self.model.tgt_embed, tokens), "", Known()
        for number, layer in enumerate(self.model.decoder):
            given = g.op("Concat", x, context, axis=-1) if number > 0 else x
            y, after[f"c.{number}"] = cell(g, layer, given, state[f"h.{number}"], state[f"c.{number}"])
            after[f"h.{number}"] = y
            if number == 0:
                context = source_attention(g, self.model.attention, memory, y)
            x = y if number < FIRST_RESIDUAL else g.op("Add", x, y)
        return project(g, self.model.output, x), after


def lstm(g: Graph, layers: Sequence[Recurrence], x: Value, lengths: Value = "", h: Value = "",
         c: Value = "") -> list[Value]:
    """Read forwards and, with a second layer, backwards. Without `lengths` all of it, without h and c from zeros.

    x: [S, B, .], lengths: [B] int32, h, c: [1, B, R] --> [S, ways, B, R / ways], last h and c [ways, B, R / ways]
    """
    w_ih, w_hh, b_ih, b_hh = (torch.stack([reordered(layer.all_weights[0][i]) for layer in layers]) for i in range(4))
    how = {"hidden_size": layers[0].hidden_size, "direction": "bidirectional" if len(layers) > 1 else "forward"}
    bias = g.weight(torch.cat([b_ih, b_hh], dim=1))
    if not g.int8:
        return g.ops("LSTM", 3, x, g.weight(w_ih), g.weight(w_hh), bias, lengths, h, c, **how)
    (w_ih, scale_ih), (w_hh, scale_hh) = (g.weights.rounded(weight) for weight in (w_ih, w_hh))
    matrices, scales = ([g.weight(part) for part in parts] for parts in (
        (w_ih.transpose(1, 2), w_hh.transpose(1, 2)), (scale_ih, scale_hh)))
    zero = g.constant(np.zeros(scale_ih.shape), np.int8)
    return g.ops("DynamicQuantizeLSTM", 3, x, *matrices, bias, lengths, h, c, "", scales[0], zero, scales[1], zero,
                 domain=MICROSOFT, **how)


def reordered(weight: Tensor) -> Tensor:
    """Put the gates into ONNX's order: i, o, f, c; torch's is i, f, g, o, where g is ONNX's c. [4R, ...]"""
    i, f, g, o = weight.detach().chunk(4)
    return torch.cat([i, o, f, g])


def read(g: Graph, layer: nn.Module, x: Value, lengths: Value) -> tuple[Value, Value]:
    """Run an encoder layer. [S, B, .] --> [S, B, R], the state after each sentence's last token, backwards its first"""
    both = cast(EncoderLayer, layer)
    layers = [both.forwards] if both.backwards is None else [both.forwards, both.backwards]
    y, h, _ = lstm(g, layers, x, g.op("Cast", lengths, to=INT32))
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints(0, 0, -1))
    return y, g.op("Reshape", g.op("Transpose", h, perm=[1, 0, 2]), g.ints(0, -1))


def cell(g: Graph, layer: nn.Module, x: Value, h: Value, c: Value) -> tuple[Value, Value]:
    """Take one step. x: [N, .], h, c: [N, R] --> the next h and c"""
    x, h, c = (g.op("Unsqueeze", part, g.ints(0)) for part in (x, h, c))
    _, h, c = lstm(g, [cast(Recurrence, layer)], x, h=h, c=c)
    return g.op("Squeeze", h, g.ints(0)), g.op("Squeeze", c, g.ints(0))


def attended(width: int) -> dict[str, Shape]:
    """Return what attention keeps of the source."""
    return {"value": ["source_length", width], "key": ["source_length", width], "bias": [1, "source_length"]}


def keys(g: Graph, attention: AdditiveAttention | DotAttention, x: Value, source: Value, lengths: Value) -> Known:
    """Prepare what attention reads. x: [S, B, R] --> value and key [B, S, R], bias [B, 1, S]"""
    value = g.op("Transpose", x, perm=[1, 0, 2])
    bias = g.op("Unsqueeze", bias_of(g, mask_of(g, source, lengths)), g.ints(1))
    return {"value": value, "key": linear(g, attention.key, value), "bias": bias}


def source_attention(g: Graph, attention: AdditiveAttention | DotAttention, memory: Known, h: Value) -> Value:
    """Let each hypothesis's state attend to its sentence's source. h: [N, R] --> context [N, R]"""
    key, value, bias, width = memory["key"], memory["value"], memory["bias"], attention.key.in_features
    if isinstance(attention, DotAttention):
        q, k, v, b = (g.op("Unsqueeze", x, g.ints(1)) for x in (by_sentence(g, h, key, width), key, value, bias))
        return g.op("Reshape", attend(g, q, k, v, b, width), g.ints(-1, width))  # one head
    query = g.op("Unsqueeze", by_sentence(g, linear(g, attention.query, h), key, width), g.ints(2))
    sums = g.op("Tanh", g.op("Add", query, g.op("Unsqueeze", key, g.ints(1))))  # --> [B, K, S, R]
    scores = g.op("Squeeze", g.op("MatMul", sums, g.weight(attention.score.weight.t())), g.ints(3))
    weights = g.op("Softmax", g.op("Add", scores, bias), axis=-1)  # --> [B, K, S]
    return g.op("Reshape", g.op("MatMul", weights, value), g.ints(-1, width))
