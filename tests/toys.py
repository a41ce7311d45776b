"""Small models, batches and texts that several tests share."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

from minitx.batch import Batch, collate
from minitx.models.base import Seq2Seq
from minitx.models.lstm import LSTMSeq2Seq
from minitx.models.transformer import Transformer

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"vocab": 13, "d_model": 16}
SPECIALS = {"pad_id": 0, "bos_id": 1, "eos_id": 2}


def tiny_transformer(seed: int = 0, **changes: Any) -> Transformer:
    """A model in evaluation mode, small enough for float64 proofs."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "src_vocab_size": SIZES["vocab"], "tgt_vocab_size": SIZES["vocab"], "d_model": SIZES["d_model"], "d_ff": 32,
        "num_layers": 2, "n_heads": 2, "dropout": 0.0, "pos_encoding": "sinusoidal", "pre_norm": True,
        "tie_embeddings": True, "max_positions": 64}
    return Transformer(**settings | changes).eval()


def tiny_lstm(seed: int = 0, **changes: Any) -> LSTMSeq2Seq:
    """A model in evaluation mode, small enough for float64 proofs."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "src_vocab_size": SIZES["vocab"], "tgt_vocab_size": SIZES["vocab"], "d_model": SIZES["d_model"],
        "d_hidden": 12, "num_layers": 2, "dropout": 0.0, "attention": "none", "bidirectional": True,
        "input_feeding": False, "tie_embeddings": True}
    return LSTMSeq2Seq(**settings | changes).eval()


POSITIONS = ("sinusoidal", "learned", "rope", "none")
# What every family is tested in: a new family adds its rows here, and gets the whole matrix.
FAMILIES: dict[str, Callable[..., Seq2Seq]] = {
    **{f"transformer {kind}": partial(tiny_transformer, pos_encoding=kind) for kind in POSITIONS},
    "transformer post-norm": partial(tiny_transformer, pre_norm=False),
    "lstm": tiny_lstm,
    "lstm one way": partial(tiny_lstm, bidirectional=False),
    **{f"lstm {kind}": partial(tiny_lstm, attention=kind) for kind in ("additive", "dot")},
    **{f"lstm {kind} fed": partial(tiny_lstm, attention=kind, input_feeding=True) for kind in ("additive", "dot")},
    "lstm dot one way": partial(tiny_lstm, attention="dot", bidirectional=False),
}


def random_batch(rows: int, seed: int = 0) -> Batch:
    """Pairs of 1 to 8 tokens a side."""
    draw = Random(seed)

    def side() -> list[list[int]]:
        return [[draw.randrange(3, SIZES["vocab"]) for _ in range(draw.randint(1, 8))] for _ in range(rows)]

    return collate(side(), side(), **SPECIALS)


def write_digits(folder: Path, *, train: int = 400, other: int = 40, languages: tuple[str, str] = ("en", "de")) -> Path:
    """Write parallel files whose target is the source backwards: a text for runs that need not learn much."""
    draw = Random(0)
    folder.mkdir(exist_ok=True)
    for split, count in (("train", train), ("valid", other), ("test", other)):
        lines = [" ".join(str(draw.randrange(8)) for _ in range(draw.randint(4, 8))) for _ in range(count)]
        for language, step in zip(languages, (1, -1), strict=True):
            (folder / f"{split}.{language}").write_text("".join(line[::step] + "\n" for line in lines))
    return folder
