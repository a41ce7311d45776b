"""Small models, batches and texts that several tests share."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor

from minitx.data.batch import Batch, Packed, collate
from minitx.models.base import Seq2Seq
from minitx.models.gnmt import GNMT
from minitx.models.linear_rnn import LinearRNN
from minitx.models.lstm import LSTMSeq2Seq
from minitx.models.transformer import Transformer
from minitx.profiling.kernels import Kernel

Item = TypeVar("Item")
ROOT = Path(__file__).resolve().parents[1]
SIZES = {"vocab": 13, "d_model": 16}
SPECIALS = {"pad_id": 0, "bos_id": 1, "eos_id": 2}


def tiny_transformer(seed: int = 0, **changes: Any) -> Transformer:
    """A model in evaluation mode, small enough for float64 proofs."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "src_vocab_size": SIZES["vocab"], "tgt_vocab_size": SIZES["vocab"], "d_model": SIZES["d_model"], "d_ff": 32,
        "num_layers": 2, "n_heads": 2, "dropout": 0.0, "pos_encoding": "sinusoidal", "pre_norm": True,
        "tie_embeddings": True, "window": None, "max_positions": 64}
    return Transformer(**settings | changes).eval()


def tiny_lstm(seed: int = 0, **changes: Any) -> LSTMSeq2Seq:
    """A model in evaluation mode, small enough for float64 proofs."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "src_vocab_size": SIZES["vocab"], "tgt_vocab_size": SIZES["vocab"], "d_model": SIZES["d_model"],
        "d_hidden": 12, "num_layers": 2, "dropout": 0.0, "attention": "none", "bidirectional": True,
        "input_feeding": False, "cell_loop": None, "tie_embeddings": True}
    return LSTMSeq2Seq(**settings | changes).eval()


def tiny_gnmt(seed: int = 0, **changes: Any) -> GNMT:
    """A model in evaluation mode, small enough for float64 proofs, with a residual layer on both sides."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "src_vocab_size": SIZES["vocab"], "tgt_vocab_size": SIZES["vocab"], "d_model": SIZES["d_model"],
        "num_layers": 3, "dropout": 0.0, "cell_loop": None, "tie_embeddings": True}
    return GNMT(**settings | changes).eval()


def tiny_linear_rnn(seed: int = 0, **changes: Any) -> LinearRNN:
    """A model in evaluation mode, small enough for float64 proofs."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "src_vocab_size": SIZES["vocab"], "tgt_vocab_size": SIZES["vocab"], "d_model": SIZES["d_model"],
        "d_hidden": 12, "d_ff": 32, "num_layers": 2, "n_heads": 2, "dropout": 0.0, "cell": "ssru",
        "attention": "none", "tie_embeddings": True}
    return LinearRNN(**settings | changes).eval()


CELLS = ("ssru", "mingru", "rglru")
POSITIONS = ("sinusoidal", "learned", "rope", "none")
# What every family is tested in: a new family adds its rows here, and gets the whole matrix.
FAMILIES: dict[str, Callable[..., Seq2Seq]] = {
    **{f"transformer {kind}": partial(tiny_transformer, pos_encoding=kind) for kind in POSITIONS},
    "transformer post-norm": partial(tiny_transformer, pre_norm=False),
    "transformer window": partial(tiny_transformer, window=2),
    "transformer rope window": partial(tiny_transformer, pos_encoding="rope", window=1),
    "lstm": tiny_lstm,
    "lstm one way": partial(tiny_lstm, bidirectional=False),
    **{f"lstm {kind}": partial(tiny_lstm, attention=kind) for kind in ("additive", "dot")},
    **{f"lstm {kind} fed": partial(tiny_lstm, attention=kind, input_feeding=True) for kind in ("additive", "dot")},
    "lstm dot one way": partial(tiny_lstm, attention="dot", bidirectional=False),
    "lstm dot cells": partial(tiny_lstm, attention="dot", cell_loop=True),
    "gnmt": tiny_gnmt,
    "gnmt cells": partial(tiny_gnmt, cell_loop=True),
    **{f"linear_rnn {cell}": partial(tiny_linear_rnn, cell=cell) for cell in CELLS},
    **{f"linear_rnn {cell} attention": partial(tiny_linear_rnn, cell=cell, attention="dot") for cell in CELLS},
}


def random_batch(rows: int, seed: int = 0, *, recurring: bool = False) -> Batch:
    """Pairs of 1 to 8 tokens a side."""
    draw = Random(seed)

    def side() -> list[list[int]]:
        return [[draw.randrange(3, SIZES["vocab"]) for _ in range(draw.randint(1, 8))] for _ in range(rows)]

    return collate(side(), side(), **SPECIALS, recurring=recurring)


def sentences(packed: Packed, ids: Tensor | None = None) -> list[list[int]]:
    """Read the real tokens of each sentence back, or what `ids` has in their place."""
    begin = packed.starts[:-1].tolist()
    ids = packed.ids if ids is None else ids
    return [ids[start:end].tolist() for start, end in zip(begin, begin[1:], strict=False)]


def all_logits(model: Seq2Seq, src: Packed, tgt: Packed) -> Tensor:
    """Score the vocabulary after every target token, sentences side by side. --> [B, T, V], padding being anything"""
    return tgt.pad(model.project(model(src, tgt)))


def some(element: st.SearchStrategy[Item]) -> st.SearchStrategy[list[Item]]:
    """A few, or so many that idle sentences stand beside them where sizes recur."""
    return st.lists(element, min_size=1, max_size=4) | st.lists(element, min_size=17, max_size=35)


def recorded_update(micro_batches: int) -> list[Kernel]:
    """Kernels as an update of so many micro-batches would launch: of each kind one, and a step of a recurrence."""
    def kernel(name: str, kind: str, phase: str, **more: Any) -> Kernel:
        return Kernel(name, kind, phase, "half", 1e9 * (kind == "product"), 1e7, **more)

    forward = kernel("mm", "product", "forward", product=(1, 500, 1000, 1000))
    backward = [kernel("step", "product", "backward", product=(1, 500, 1000, 1000), launched_by="library"),
                Kernel("t", "view", "backward", "half", 0.0, 0.0, launches=0)]
    added = kernel("add_", "elementwise", "backward")  # to the gradients of the micro-batches before
    optimizer = kernel("adamw", "elementwise", "optimizer", launches=3, host_waits=True)
    zeros = kernel("zeros", "copy", "optimizer")
    later = (micro_batches - 1) * [forward, *backward, added]
    return [zeros, forward, *backward, *later, optimizer]


def write_digits(folder: Path, *, train: int = 400, other: int = 40, languages: tuple[str, str] = ("en", "de")) -> Path:
    """Write parallel files whose target is the source backwards: a text for runs that need not learn much."""
    draw = Random(0)
    folder.mkdir(exist_ok=True)
    for split, count in (("train", train), ("valid", other), ("test", other)):
        lines = [" ".join(str(draw.randrange(8)) for _ in range(draw.randint(4, 8))) for _ in range(count)]
        for language, step in zip(languages, (1, -1), strict=True):
            (folder / f"{split}.{language}").write_text("".join(line[::step] + "\n" for line in lines))
    return folder
