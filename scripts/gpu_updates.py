"""Time the update of each system, at each size: what `minitx estimate` predicts, measured.

A batch holds equal sentences of random ids, so that a prediction knows all that it needs: their number and lengths.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import cast
from warnings import catch_warnings, filterwarnings

import numpy as np
import torch
from families import composed
from gpu_rows import Job, Result, Unseen
from gpu_speed import time_updates, update_text

from minitx.config.schema import Config
from minitx.data.batch import collate
from minitx.data.datamodule import PlannedUpdate, Turn
from minitx.data.tokenizer import BOS_ID, DEFAULT_VOCAB, EOS_ID, N_SPECIALS, PAD_ID, TokenizerPair
from minitx.training.build import build_task
from minitx.training.state import RunState
from minitx.utils.errors import UserError

SYSTEMS = {  # by name: arguments of train.py
    "lstm_cell_loop": ["model=lstm", "model.cell_loop=true"],
    "lstm": ["model=lstm"],
    "lstm_attention": ["model=lstm_attention"],
    "transformer_nope": ["model=transformer_nope"],
    "transformer": ["model=transformer"],
    "gnmt": ["model=gnmt"],
}
MAIN = ("transformer", "lstm_attention", "lstm", "lstm_cell_loop", "transformer_nope")  # the most valuable first
COMPILED = ("transformer", "lstm_attention")  # each compiles for half a minute
BATCHES = 4  # different ones, in turn


@dataclass(frozen=True)
class Shape:
    """Equal sentences: how many, and the tokens of each on either side, EOS included."""

    sentences: int
    src_len: int
    tgt_len: int

    @property
    def positions(self) -> int:
        """Return the padded positions of the batch."""
        return self.sentences * max(self.src_len, self.tgt_len)


SHAPES = {"small": Shape(128, 16, 16), "base": Shape(256, 32, 32), "big": Shape(256, 32, 32)}  # as `minitx study gpu`
TOY, TOY_VOCABULARY = Shape(4, 4, 6), 260
MEASURE_S = 3.0


@dataclass(frozen=True)
class Case:
    """What one row measures."""

    system: str
    size: str
    precision: str = "bf16-mixed"
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.system}, {self.size}, {self.precision}{', compiled' if self.compiled else ''}"

    def words(self, toys: bool) -> list[str]:
        """Return the arguments of train.py; the batch is one micro-batch."""
        sizes = ["model.size=toy"] if toys else [f"model.size={self.size}",
                                                 f"data.max_tokens={SHAPES[self.size].positions}"]
        return [f"experiment=headline_{self.size}", *SYSTEMS[self.system], *sizes,
                f"trainer.precision={self.precision}", *(["trainer.compile=true"] if self.compiled else [])]


def config(words: list[str]) -> Config:
    """Compose a config. Errors: `Unseen` if this version lacks a key or an option of it."""
    try:
        return composed(*words)
    except UserError as error:
        raise Unseen(f"not in this version: {error}") from error


def cases() -> Iterator[Case]:
    """Yield all rows, the most valuable first."""
    for size in ("base", "big", "small"):
        for system in MAIN:
            yield Case(system, size)
    yield Case("transformer", "base", compiled=True)
    for system in MAIN:
        yield Case(system, "base", "32-true")
    for system in ("lstm", "transformer"):
        yield Case(system, "base", "16-mixed")  # cuDNN has a persistent kernel for fp16 alone
    yield Case("gnmt", "big")
    for size in ("base", "small"):
        for system in COMPILED:
            if (system, size) != ("transformer", "base"):
                yield Case(system, size, compiled=True)


def jobs(device: torch.device, toys: bool) -> Iterator[Job]:
    """Yield a job for each case."""
    for case in cases():
        yield Job(str(case), partial(measure, case, device, toys), 45 if case.compiled else 7)


def measure(case: Case, device: torch.device, toys: bool) -> Result:
    """Time the update of a case."""
    words, shape = case.words(toys), TOY if toys else SHAPES[case.size]
    cfg = config(words)
    if case.compiled and device.type == "cpu":
        raise Unseen("needs a GPU: on a CPU it compiles for minutes")
    vocab_size = TOY_VOCABULARY if toys else cfg.tokenizer.vocab_size or DEFAULT_VOCAB
    sizes = cast(TokenizerPair, SimpleNamespace(src=SimpleNamespace(vocab_size=vocab_size),
                                                tgt=SimpleNamespace(vocab_size=vocab_size)))
    state = RunState(precision=case.precision, horizon_steps=cfg.trainer.max_steps)
    rng = np.random.default_rng(0)
    planned = [equal_update(shape, vocab_size, cfg.data.pad_to_multiple, rng, n) for n in range(BATCHES)]
    with catch_warnings():
        filterwarnings("error", message=r"trainer\.compile=true")  # that nothing was compiled: then this is not its row
        task = build_task(cfg, sizes, state).to(device).train()
        values = time_updates(task, planned, device, 0.0 if toys else MEASURE_S)
    params = sum(p.numel() for p in task.model.parameters())
    row = {"system": case.system, "size": case.size, "precision": case.precision, "compile": case.compiled,
           "overrides": words}
    return update_text(values), row | values | vars(shape) | {"vocab_size": vocab_size, "params": params}


def equal_update(shape: Shape, vocab_size: int, multiple: int, rng: np.random.Generator, number: int) -> PlannedUpdate:
    """Draw an update of one micro-batch."""
    sides = [rng.integers(N_SPECIALS, vocab_size, (shape.sentences, length - 1)).tolist()
             for length in (shape.src_len, shape.tgt_len)]
    batch = collate(*sides, pad_id=PAD_ID, bos_id=BOS_ID, eos_id=EOS_ID, pad_to_multiple=multiple, recurring=True)
    src, tgt = (np.full(shape.sentences, length) for length in (shape.src_len, shape.tgt_len))
    return PlannedUpdate(0, number, batch.n_tokens, [Turn(0, batch, 1.0)], (src, tgt))
