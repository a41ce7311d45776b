"""What the graphs of several families are built from; each part does what the module of that name in models/ does.

B sentences, S places of the longest source, K hypotheses a sentence, N = B * K, D d_model, H heads, d = D / H,
V target vocabulary.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import numpy as np
from torch import nn

from minitx.export.graphs.graph import FLOAT, Graph, Shape, Value
from minitx.models.attention import CrossAttention
from minitx.models.base import Seq2Seq

Model = TypeVar("Model", bound=Seq2Seq)
Known = dict[str, Value]  # tensors by what `memory` or `state` calls them


class Family(ABC, Generic[Model]):
    """A family as two graphs: what `encode` and `init_state` do, and what `step` does.

    `memory` names the tensors of a sentence, which its hypotheses share, and `state` those of a hypothesis, which each
    step makes anew; both say what shape follows the first dimension. Sizes that vary: "source_length", and "past".
    """

    memory: dict[str, Shape]
    state: dict[str, Shape]

    def __init__(self, model: Model) -> None:
        self.model = model

    @abstractmethod
    def encode(self, g: Graph, source: Value, lengths: Value) -> tuple[Known, Known]:
        """Read the source. source: [B, S], lengths: [B] --> `memory`, and the `state` that decoding begins with"""

    @abstractmethod
    def step(self, g: Graph, tokens: Value, position: Value, memory: Known, state: Known) -> tuple[Value, Known]:
        """Read one token a hypothesis. tokens: [N], position: [] --> logits [N, V], the next `state`"""


def linear(g: Graph, module: nn.Module, x: Value) -> Value:
    """x W' + b. [..., D in] --> [..., D out]"""
    layer = cast(nn.Linear, module)
    if g.int8:
        rounded, scale = g.weights.rounded(layer.weight)
        y = int8_product(g, x, g.weight(rounded.t()), g.weight(scale))
    else:
        y = g.op("MatMul", x, g.weight(layer.weight.t()))
    return y if layer.bias is None else g.op("Add", y, g.weight(layer.bias))


def project(g: Graph, output: nn.Linear, features: Value) -> Value:
    """Score the vocabulary, by the matrix as it lies: it may be the embeddings'. [N, D] --> [N, V]"""
    if not g.int8:
        return g.op("Gemm", features, g.weight(output.weight), transB=1)
    rounded, scale = g.weights.rounded(output.weight)
    return int8_product(g, features, g.op("Transpose", g.weight(rounded), perm=[1, 0]), g.weight(scale))


def int8_product(g: Graph, x: Value, matrix: Value, scale: Value) -> Value:
    """Multiply in integers; x is rounded to uint8, all of it by one scale. x: [..., D], matrix: [D, V], scale: [V]"""
    rounded, x_scale, zero = g.ops("DynamicQuantizeLinear", 3, x)
    product = g.op("Cast", g.op("MatMulInteger", rounded, matrix, zero), to=FLOAT)
    return g.op("Mul", product, g.op("Mul", x_scale, scale))


def embed(g: Graph, table: nn.Embedding, tokens: Value) -> Value:
    """Look up and scale. [...] --> [..., D]"""
    factor = g.constant(math.sqrt(table.embedding_dim))
    if not g.int8:
        return g.op("Mul", g.op("Gather", g.weight(table.weight), tokens), factor)
    rounded, scale = g.weights.rounded(table.weight)
    numbers = g.op("Cast", g.op("Gather", g.weight(rounded), tokens), to=FLOAT)
    of_row = g.op("Unsqueeze", g.op("Gather", g.weight(scale), tokens), g.ints(-1))
    return g.op("Mul", numbers, g.op("Mul", of_row, factor))


def norm(g: Graph, module: nn.Module, x: Value) -> Value:
    """Normalise, if the module does. [..., D] --> [..., D]"""
    if isinstance(module, nn.Identity):
        return x
    layer = cast(nn.LayerNorm, module)
    return g.op("LayerNormalization", x, g.weight(layer.weight), g.weight(layer.bias), epsilon=layer.eps)


def add(g: Graph, sublayer: Any, x: Value, function: Callable[[Value], Value]) -> Value:
    """Add a function of x to x, normalising before the function or after the sum. [..., D] --> [..., D]"""
    if sublayer.pre_norm:
        return g.op("Add", x, function(norm(g, sublayer.norm, x)))
    return norm(g, sublayer.norm, g.op("Add", x, function(x)))


def feed_forward(g: Graph, layers: Any, x: Value) -> Value:
    """Widen, rectify, narrow. [..., D] --> [..., D]"""
    return linear(g, layers[2], g.op("Relu", linear(g, layers[0], x)))


def attend(g: Graph, q: Value, k: Value, v: Value, bias: Value | None, width: int) -> Value:
    """softmax(q k' / sqrt(width) + bias) v. q: [B, H, L, d], k, v: [B, H, S, d] --> [B, H, L, d]"""
    keys = g.op("Transpose", k, perm=[0, 1, 3, 2])
    scores = g.op("Mul", g.op("MatMul", q, keys), g.constant(width ** -0.5))
    if bias is not None:
        scores = g.op("Add", scores, bias)
    return g.op("MatMul", g.op("Softmax", scores, axis=-1), v)


def keys_values(g: Graph, attention: CrossAttention, memory: Value) -> list[Value]:
    """Project the memory once a sentence. [B, S, D] --> 2 x [B, H, S, d]"""
    width = attention.q.in_features // attention.n_heads
    return [heads(g, part, attention.n_heads, width) for part in split(g, linear(g, attention.kv, memory), 2)]


def cross_attention(g: Graph, attention: CrossAttention, key: Value, value: Value, bias: Value, x: Value) -> Value:
    """Let each hypothesis attend to its sentence's source. key, value: [B, H, S, d], x: [N, D] --> [N, D]"""
    n_heads, d_model = attention.n_heads, attention.q.in_features
    q = by_sentence(g, linear(g, attention.q, x), key, n_heads, d_model // n_heads)  # --> [B, K, H, d]
    found = attend(g, g.op("Transpose", q, perm=[0, 2, 1, 3]), key, value, bias, d_model // n_heads)
    return linear(g, attention.out, g.op("Reshape", g.op("Transpose", found, perm=[0, 2, 1, 3]), g.ints(-1, d_model)))


def heads(g: Graph, x: Value, n_heads: int, width: int) -> Value:
    """[B, L, H * d] --> [B, H, L, d]"""
    return g.op("Transpose", g.op("Reshape", x, g.ints(0, 0, n_heads, width)), perm=[0, 2, 1, 3])


def split(g: Graph, x: Value, parts: int) -> list[Value]:
    """Cut the last dimension into equal parts."""
    return [x] if parts == 1 else g.ops("Split", parts, x, axis=-1, num_outputs=parts)


def by_sentence(g: Graph, x: Value, like: Value, *shape: int) -> Value:
    """Set a sentence's hypotheses side by side; there are as many sentences as in `like`. [N, D] --> [B, K, *shape]"""
    return g.op("Reshape", x, g.op("Concat", first_size(g, like), g.ints(-1, *shape), axis=0))


def first_size(g: Graph, x: Value) -> Value:
    """Return how many rows there are. --> [1]"""
    return g.op("Shape", x, start=0, end=1)


def zeros(g: Graph, like: Value, *shape: int) -> Value:
    """Return zeros for as many sentences as `like` has. --> [B, *shape]"""
    return g.op("Expand", g.constant(0.0), g.op("Concat", first_size(g, like), g.ints(*shape), axis=0))


def places_of(g: Graph, source: Value) -> Value:
    """Count the places of the source. [B, S] --> [S]"""
    length = g.op("Squeeze", g.op("Shape", source, start=1, end=2), g.ints(0))
    return g.op("Range", g.constant(0, np.int64), length, g.constant(1, np.int64))


def mask_of(g: Graph, source: Value, lengths: Value) -> Value:
    """Tell tokens from padding. --> bool [B, S]"""
    return g.op("Less", places_of(g, source), g.op("Unsqueeze", lengths, g.ints(1)))


def bias_of(g: Graph, mask: Value) -> Value:
    """Return what attention adds: 0 where the mask is true, else -inf. bool --> the same shape"""
    return g.op("Where", mask, g.constant(0.0), g.constant(-np.inf))
