"""The linear RNN as graphs: on the source ONNX's Scan, on the target a product and a sum a unit.

B sentences, S places of the longest source, N hypotheses of all sentences, D d_model, R d_hidden, W ways to read.
"""

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper

from minitx.export.graphs.graph import FLOAT, Graph, Shape, Value
from minitx.export.graphs.parts import (
    Family,
    Known,
    add,
    bias_of,
    cross_attention,
    embed,
    feed_forward,
    keys_values,
    linear,
    mask_of,
    norm,
    project,
    split,
    zeros,
)
from minitx.models.attention import CrossAttention
from minitx.models.linear_rnn import RGLRU, SSRU, DecoderLayer, EncoderLayer, LinearRNN, Recurrence


class LinearRNNGraphs(Family[LinearRNN]):
    """The state is a vector a layer; with attention each layer's keys and values of the source are kept, too."""

    def __init__(self, model: LinearRNN) -> None:
        super().__init__(model)
        self.encoder, self.decoder = cast(list[EncoderLayer], model.encoder), cast(list[DecoderLayer], model.decoder)
        self.state = {f"state.{i}": [model.d_hidden] for i in range(len(self.decoder))}
        self.memory = {}
        for i, layer in enumerate(self.decoder):
            if (cross := layer.cross) is not None:
                shape: Shape = [cross.n_heads, "source_length", cross.q.in_features // cross.n_heads]
                self.memory |= {"bias": [1, 1, "source_length"], f"key.{i}": shape, f"value.{i}": shape}

    def encode(self, g: Graph, source: Value, lengths: Value) -> tuple[Known, Known]:
        """Begin with zeros and attend, or begin with what bridges make of both ends."""
        mask, x = mask_of(g, source, lengths), embed(g, self.model.src_embed, source)
        for layer in self.encoder:
            x = add(g, layer.add_recurrence, x, partial(both_ways, g, layer.recurrence, mask))
            x = add(g, layer.add_feed_forward, x, partial(feed_forward, g, layer.feed_forward))
        x = norm(g, self.model.encoder_norm, x)
        if not self.model.attends:
            ends = g.op("Concat", last(g, x, lengths), g.op("Gather", x, g.constant(0, np.int64), axis=1), axis=-1)
            return {}, {f"state.{i}": linear(g, bridge, ends) for i, bridge in enumerate(self.model.bridges)}
        memory = {"bias": g.op("Unsqueeze", bias_of(g, mask), g.ints(1, 2))}
        for i, decoder_layer in enumerate(self.decoder):
            memory[f"key.{i}"], memory[f"value.{i}"] = keys_values(g, cast(CrossAttention, decoder_layer.cross), x)
        return memory, dict.fromkeys(self.state, zeros(g, source, self.model.d_hidden))

    def step(self, g: Graph, tokens: Value, position: Value, memory: Known, state: Known) -> tuple[Value, Known]:
        """Take a step in each layer."""
        x, after = embed(g, self.model.tgt_embed, tokens), Known()
        for i, layer in enumerate(self.decoder):
            x = add(g, layer.add_recurrence, x, partial(one_step, g, layer.recurrence, f"state.{i}", state, after))
            if (cross := layer.cross) is not None:
                source = memory[f"key.{i}"], memory[f"value.{i}"], memory["bias"]
                x = add(g, layer.add_cross, x, partial(cross_attention, g, cross, *source))
            x = add(g, layer.add_feed_forward, x, partial(feed_forward, g, layer.feed_forward))
        return project(g, self.model.output, norm(g, self.model.decoder_norm, x)), after


def both_ways(g: Graph, layer: Recurrence, mask: Value, x: Value) -> Value:
    """Read forwards and backwards; backwards the state stays zero until the padding ends. x: [B, S, D] --> the same"""
    rows = g.op("Transpose", linear(g, layer.read, x), perm=[1, 0, 2])  # --> [S, B, W * parts * R / W]
    real = g.op("Unsqueeze", g.op("Cast", g.op("Transpose", mask, perm=[1, 0]), to=FLOAT), g.ints(2))
    given = []
    for way, parts in enumerate(split(g, rows, layer.ways)):
        a, b = coefficients(g, layer, way, split(g, parts, layer.cell.parts))
        given += [a, g.op("Mul", b, real)]
    nothing = zeros(g, x, layer.width)
    *_, forwards, backwards = g.ops("Scan", 4, nothing, nothing, *given, body=steps(layer.width), num_scan_inputs=4,
                                    scan_input_directions=[0, 0, 1, 1], scan_output_directions=[0, 1])
    states = g.op("Transpose", g.op("Concat", forwards, backwards, axis=-1), perm=[1, 0, 2])
    return linear(g, layer.out, read_out(g, layer, states))


def steps(width: int) -> onnx.GraphProto:
    """Return what Scan does at a step: c = a c + b, of both ways. 2 x [B, R / 2] and coefficients --> states, twice"""
    def tensors(*names: str) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, FLOAT, ["sentences", width]) for name in names]

    nodes, ways = [], ("forwards", "backwards")
    for way in ways:
        nodes += [helper.make_node("Mul", [f"{way}_a", f"{way}_before"], [f"{way}_kept"]),
                  helper.make_node("Add", [f"{way}_kept", f"{way}_b"], [f"{way}_after"]),
                  helper.make_node("Identity", [f"{way}_after"], [f"{way}_state"])]
    given = [f"{way}_{part}" for way in ways for part in "ab"]
    return helper.make_graph(nodes, "steps", tensors(*(f"{way}_before" for way in ways), *given),
                             tensors(*(f"{way}_after" for way in ways), *(f"{way}_state" for way in ways)))


def one_step(g: Graph, layer: Recurrence, name: str, state: Known, after: Known, x: Value) -> Value:
    """Read one token forwards, and keep the state. x: [N, D] --> [N, D]"""
    a, b = coefficients(g, layer, 0, split(g, linear(g, layer.read, x), layer.cell.parts))
    after[name] = g.op("Add", g.op("Mul", a, state[name]), b)
    return linear(g, layer.out, read_out(g, layer, after[name]))


def coefficients(g: Graph, layer: Recurrence, way: int, parts: Sequence[Value]) -> tuple[Value, Value]:
    """Return a and b of c_t = a c_{t-1} + b, as the cell's own method does. parts: [..., R / W] each"""
    if isinstance(cell := layer.cell, RGLRU):
        r, i, x = parts
        decay = F.softplus(cell.decay.detach().double()).view(layer.ways, -1)[way]
        log_a = g.op("Mul", g.op("Sigmoid", r), g.weight((-8 * decay).float()))
        squared = g.op("Exp", g.op("Mul", log_a, g.constant(2.0)))
        kept = g.op("Mul", g.op("Tanh", g.op("Neg", log_a)), g.op("Add", squared, g.constant(1.0)))  # 1 - a^2, exactly
        root = g.op("Sqrt", g.op("Max", kept, g.constant(torch.finfo(torch.float32).tiny)))
        return g.op("Exp", log_a), g.op("Mul", root, g.op("Mul", g.op("Sigmoid", i), x))
    gate, x = parts
    opened, closed = g.op("Sigmoid", gate), g.op("Sigmoid", g.op("Neg", gate))  # closed = 1 - opened
    return (opened, g.op("Mul", closed, x)) if isinstance(cell, SSRU) else (closed, g.op("Mul", opened, x))


def read_out(g: Graph, layer: Recurrence, states: Value) -> Value:
    """Return what the cell gives of its state."""
    return g.op("Relu", states) if isinstance(layer.cell, SSRU) else states


def last(g: Graph, x: Value, lengths: Value) -> Value:
    """Take each sentence's last token. x: [B, S, D] --> [B, D]"""
    places = g.op("Unsqueeze", g.op("Sub", lengths, g.constant(1, np.int64)), g.ints(1))
    return g.op("GatherND", x, places, batch_dims=1)
