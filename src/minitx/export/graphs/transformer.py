"""The Transformer as graphs. What decoding keeps: each layer's keys and values of the source, and of what is written.

B sentences, S places of the longest source, N hypotheses of all sentences, D d_model, H heads, d = D / H.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn

from minitx.export.graphs.graph import DOUBLE, FLOAT, Graph, Value
from minitx.export.graphs.parts import (
    Family,
    Known,
    add,
    attend,
    bias_of,
    cross_attention,
    embed,
    feed_forward,
    heads,
    keys_values,
    linear,
    mask_of,
    norm,
    places_of,
    project,
    split,
    zeros,
)
from minitx.models.attention import SelfAttention
from minitx.models.layers import LearnedPositions, RotaryPositions, SinusoidalPositions
from minitx.models.transformer import DecoderLayer, EncoderLayer, Transformer

END = np.iinfo(np.int64).max


class TransformerGraphs(Family[Transformer]):
    """Attention side by side on the source, and over a cache on the target."""

    def __init__(self, model: Transformer) -> None:
        super().__init__(model)
        self.encoder, self.decoder = cast(list[EncoderLayer], model.encoder), cast(list[DecoderLayer], model.decoder)
        self.n_heads = self.decoder[0].attention.n_heads
        self.width = model.output.in_features // self.n_heads
        kinds = [f"{kind}.{i}" for i in range(len(self.decoder)) for kind in ("key", "value")]
        self.memory = {"bias": [1, 1, "source_length"]}
        self.memory |= {name: [self.n_heads, "source_length", self.width] for name in kinds}
        self.state = {name: [self.n_heads, "past", self.width] for name in kinds}

    def encode(self, g: Graph, source: Value, lengths: Value) -> tuple[Known, Known]:
        """Project what was read for each layer of the decoder; nothing has been written."""
        places, mask = places_of(g, source), mask_of(g, source, lengths)
        bias = g.op("Unsqueeze", bias_of(g, mask), g.ints(1, 2))
        window = self.model.window
        to_itself = bias if window is None else window_bias(g, places, mask, window)
        x = self.embed(g, self.model.src_embed, source, places)
        for layer in self.encoder:
            x = add(g, layer.add_attention, x, partial(self.attend, g, layer.attention, places, to_itself))
            x = add(g, layer.add_feed_forward, x, partial(feed_forward, g, layer.feed_forward))
        x, memory = norm(g, self.model.encoder_norm, x), {"bias": bias}
        for i, decoder_layer in enumerate(self.decoder):
            memory[f"key.{i}"], memory[f"value.{i}"] = keys_values(g, decoder_layer.cross, x)
        return memory, dict.fromkeys(self.state, zeros(g, source, self.n_heads, 0, self.width))

    def step(self, g: Graph, tokens: Value, position: Value, memory: Known, state: Known) -> tuple[Value, Known]:
        """Add the new position's keys and values to those before it."""
        place, after = g.op("Unsqueeze", position, g.ints(0)), Known()
        x = self.embed(g, self.model.tgt_embed, tokens, place)
        for i, layer in enumerate(self.decoder):
            own, cross = (f"key.{i}", f"value.{i}"), (memory[f"key.{i}"], memory[f"value.{i}"], memory["bias"])
            past = place, own, state, after
            x = add(g, layer.add_attention, x, partial(self.attend_to_past, g, layer.attention, *past))
            x = add(g, layer.add_cross, x, partial(cross_attention, g, layer.cross, *cross))
            x = add(g, layer.add_feed_forward, x, partial(feed_forward, g, layer.feed_forward))
        return project(g, self.model.output, norm(g, self.model.decoder_norm, x)), after

    def embed(self, g: Graph, table: nn.Embedding, tokens: Value, places: Value) -> Value:
        """Look up tokens at these places. tokens: [..., L], places: [L] --> [..., L, D]"""
        x, positions = embed(g, table, tokens), self.model.positions
        if isinstance(positions, LearnedPositions):
            return g.op("Add", x, g.op("Gather", g.weight(positions.table.weight), places))
        if isinstance(positions, SinusoidalPositions):
            return g.op("Add", x, waves(g, places, positions.waves.width, (0.0, math.pi / 2)))
        return x

    def attend(self, g: Graph, attention: SelfAttention, places: Value, bias: Value, x: Value) -> Value:
        """Let the source attend to itself. [B, S, D] --> [B, S, D]"""
        q, k, v = (heads(g, part, self.n_heads, self.width) for part in split(g, linear(g, attention.qkv, x), 3))
        q, k = (rotate(g, attention.rope, part, places) for part in (q, k))
        found = g.op("Transpose", attend(g, q, k, v, bias, self.width), perm=[0, 2, 1, 3])
        return linear(g, attention.out, g.op("Reshape", found, g.ints(0, 0, -1)))

    def attend_to_past(self, g: Graph, attention: SelfAttention, place: Value, names: tuple[str, str], state: Known,
                       after: Known, x: Value) -> Value:
        """Attend to this position and those before it that are in reach; keep what they give. [N, D] --> [N, D]"""
        q, k, v = (g.op("Reshape", part, g.ints(0, self.n_heads, 1, self.width))
                   for part in split(g, linear(g, attention.qkv, x), 3))
        q, k = (rotate(g, attention.rope, part, place) for part in (q, k))
        for name, new in zip(names, (k, v), strict=True):
            past = state[name]
            if attention.window is not None:
                past = g.op("Slice", past, g.ints(-attention.window), g.ints(END), g.ints(2))
            after[name] = g.op("Concat", past, new, axis=2)
        keys, values = (after[name] for name in names)
        return linear(g, attention.out, g.op("Reshape", attend(g, q, keys, values, None, self.width), g.ints(0, -1)))


def waves(g: Graph, places: Value, width: int, phases: Sequence[float]) -> Value:
    """Compute sin(place * 10,000^(-i / width) + phase) for even i, for each phase in turn. [L] --> [L, width]

    In double, as the model does; a cosine is a sine whose phase is pi / 2.
    """
    even = torch.arange(0, width, 2, dtype=torch.float64)
    rates = torch.exp(even * (-math.log(10_000) / width)).repeat_interleave(len(phases))
    place = g.op("Unsqueeze", g.op("Cast", places, to=DOUBLE), g.ints(1))
    angle = g.op("Mul", place, g.constant(rates, np.float64))
    return g.op("Cast", g.op("Sin", g.op("Add", angle, g.constant(np.tile(phases, len(even)), np.float64))), to=FLOAT)


def rotate(g: Graph, rope: RotaryPositions | None, x: Value, places: Value) -> Value:
    """Rotate each pair of a head's dimensions by its angle, if positions are rotary. x: [B, H, L, d], places: [L]

    (a, b) becomes (a cos - b sin, b cos + a sin): x times cos, plus x with a and b changed places times -sin and sin.
    """
    if rope is None:
        return x
    width = rope.waves.width
    cos, sin = waves(g, places, width, (math.pi / 2, math.pi / 2)), waves(g, places, width, (math.pi, 0.0))
    changed = g.op("Gather", x, g.constant(np.arange(width) ^ 1, np.int64), axis=-1)
    return g.op("Add", g.op("Mul", x, cos), g.op("Mul", changed, sin))


def window_bias(g: Graph, places: Value, mask: Value, window: int) -> Value:
    """Return what self-attention adds within a window; padding sees padding. mask: [B, S] --> [B, 1, S, S]"""
    distance = g.op("Abs", g.op("Sub", places, g.op("Unsqueeze", places, g.ints(1))))  # --> [S, S]
    near = g.op("LessOrEqual", distance, g.constant(window, np.int64))
    padding = g.op("Unsqueeze", g.op("Not", mask), g.ints(2))  # of those that look
    seen = g.op("Or", padding, g.op("Unsqueeze", mask, g.ints(1)))  # --> [B, S, S]
    return g.op("Unsqueeze", bias_of(g, g.op("And", seen, near)), g.ints(1))
