"""A run as two ONNX graphs, which any runtime executes: `encoder.onnx`, `decoder.onnx`, and the weights of both.

    encoder: source [B, S] int64, lengths [B] int64 --> memory.* [B, ...], state.* [B, ...]
    decoder: tokens [N] int64, position [] int64, memory.*, state.* --> logits [N, V], next.* [N, ...]

A source ends with EOS, and what stands behind it up to S is not read. The decoder reads one token a hypothesis, of K
hypotheses a sentence, N = B * K, those of a sentence next to each other; the first token is BOS, at position 0. What it
calls next.* is what it is given as state.* when the next token is read. Each tensor is stored once, in `weights.bin`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from minitx.export.formats import Limits, Trained
from minitx.export.graphs.graph import INT64, Graph, Shape, Weights
from minitx.export.graphs.linear_rnn import LinearRNNGraphs
from minitx.export.graphs.parts import Family
from minitx.export.graphs.recurrent import GNMTGraphs, LSTMGraphs
from minitx.export.graphs.transformer import TransformerGraphs
from minitx.models.base import Seq2Seq
from minitx.models.gnmt import GNMT
from minitx.models.linear_rnn import LinearRNN
from minitx.models.lstm import LSTMSeq2Seq
from minitx.models.transformer import Transformer
from minitx.utils.errors import UserError

FAMILIES: dict[type[Seq2Seq], type[Family[Any]]] = {
    Transformer: TransformerGraphs, LSTMSeq2Seq: LSTMGraphs, GNMT: GNMTGraphs, LinearRNN: LinearRNNGraphs}


def write(trained: Trained, folder: Path, quantization: str | None) -> Limits:
    """Write the graphs and their weights. Errors: OSError"""
    write_graphs(trained.model, folder, quantization)
    return Limits(trained.model.max_source_length, trained.model.max_target_length)


def write_graphs(model: Seq2Seq, folder: Path, quantization: str | None = None) -> None:
    """Write the three files of a model. Errors: OSError, `UserError` for a family that has no graphs"""
    if type(model) not in FAMILIES:
        raise UserError(f"--to onnx: nobody has written the graphs of {type(model).__name__}; they belong into "
                        "minitx/export/graphs")
    family = FAMILIES[type(model)](model)
    names = {p.data_ptr(): name for name, p in model.named_parameters()}
    with Weights(folder / "weights.bin", names) as weights:
        graphs = encoder(family, weights, quantization), decoder(family, weights, quantization)
    for graph in graphs:
        path = folder / f"{graph.name}.onnx"
        path.write_bytes(graph.model().SerializeToString())
        onnx.checker.check_model(path, full_check=True)


def encoder(family: Family[Any], weights: Weights, quantization: str | None) -> Graph:
    """Build the graph that reads the source."""
    g = Graph("encoder", weights, quantization)
    source, lengths = g.input("source", ["sentences", "source_length"], INT64), g.input("lengths", ["sentences"], INT64)
    memory, state = family.encode(g, source, lengths)
    for prefix, values, shapes in (("memory", memory, family.memory), ("state", state, family.state)):
        for name, shape in shapes.items():
            g.output(f"{prefix}.{name}", values[name], ["sentences", *shape])
    return g


def decoder(family: Family[Any], weights: Weights, quantization: str | None) -> Graph:
    """Build the graph that reads one token a hypothesis."""
    def inputs(prefix: str, rows: str, shapes: Mapping[str, Shape]) -> dict[str, str]:
        return {name: g.input(f"{prefix}.{name}", [rows, *shape]) for name, shape in shapes.items()}

    g = Graph("decoder", weights, quantization)
    tokens, position = g.input("tokens", ["hypotheses"], INT64), g.input("position", [], INT64)
    memory, state = inputs("memory", "sentences", family.memory), inputs("state", "hypotheses", family.state)
    logits, after = family.step(g, tokens, position, memory, state)
    g.output("logits", logits, ["hypotheses", family.model.output.out_features])
    for name, shape in family.state.items():
        longer = ["present" if size == "past" else size for size in shape]
        g.output(f"next.{name}", after[name], ["hypotheses", *longer])
    return g
