"""What the checks in this folder run on: every kind of model, and a text, put together as in a training."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from minitx.config.compose import compose
from minitx.config.schema import Config
from minitx.data.corpus import load_corpus
from minitx.data.datamodule import TranslationData
from minitx.data.tokenizer import TokenizerPair
from minitx.decoding.torch_backend import TorchBackend
from minitx.decoding.translator import Translator
from minitx.training.build import build_task, build_tokenizers
from minitx.training.launch import resolve
from minitx.training.state import RunState
from minitx.training.task import TranslationTask

FAMILIES = {  # by name: arguments of train.py
    "transformer": ["model=transformer"],
    "transformer learned": ["model=transformer", "model.pos_encoding=learned"],
    "transformer rope": ["model=transformer", "model.pos_encoding=rope"],
    "transformer no positions": ["model=transformer_nope"],
    "transformer post-norm": ["model=transformer", "model.pre_norm=false"],
    "transformer window": ["model=transformer_window", "model.window=4"],
    "lstm": ["model=lstm"],
    "lstm one way": ["model=lstm", "model.bidirectional=false"],
    "lstm dot": ["model=lstm_attention"],
    "lstm additive": ["model=lstm_attention", "model.attention=additive"],
    "lstm dot fed": ["model=lstm_attention", "model.input_feeding=true"],
    "lstm additive fed": ["model=lstm_attention", "model.attention=additive", "model.input_feeding=true"],
    "lstm dot cells": ["model=lstm_attention", "model.cell_loop=true"],
    "gnmt": ["model=gnmt"],
    "gnmt cells": ["model=gnmt", "model.cell_loop=true"],
    "linear rnn": ["model=linear_rnn"],
    "linear rnn attention": ["model=linear_rnn_attention"],
    "linear rnn rglru attention": ["model=linear_rnn_attention", "model.cell=rglru"],
}


@dataclass(frozen=True)
class Workbench:
    """An encoded and planned text, for models of every kind."""

    words: tuple[str, ...]  # further arguments of train.py
    tokenizers: TokenizerPair
    data: TranslationData
    sources: list[str]  # to translate

    def config(self, family: str, *more: str) -> Config:
        """Return the config of a family."""
        return composed(*FAMILIES[family], *self.words, *more)

    def task(self, family: str, precision: str, *more: str) -> TranslationTask:
        """Build model and task as a training does, with the weights of the config's seed, in training mode."""
        state = RunState(precision=precision, horizon_steps=1000)
        return build_task(self.config(family, *more), self.tokenizers, state).train()

    def translator(self, task: TranslationTask, family: str, device: torch.device, limit: int,
                   precision: str | None = None) -> Translator:
        """Wrap a task's model as `minitx translate` does; no output is longer than `limit` tokens."""
        decode = replace(self.config(family).decode, max_length_ratio=1e-3, max_length_extra=limit, precision=precision)
        return Translator(TorchBackend([task.model], device, precision), self.tokenizers, decode)


@cache
def composed(*words: str) -> Config:
    """Compose and resolve a config; cached, since Hydra takes a third of a second."""
    return resolve(compose(["logger=none", *words]))


def workbench(*words: str, sentences: int) -> Workbench:
    """Generate the embedded text and learn its vocabulary; nothing is left on disk."""
    with TemporaryDirectory() as folder:
        before = os.environ.get("MINITX_CACHE")
        os.environ["MINITX_CACHE"] = folder
        try:
            cfg = composed(*words)
            corpus = load_corpus(cfg.data)
            tokenizers = build_tokenizers(cfg, corpus, Path(folder))
            data = TranslationData(cfg, corpus, tokenizers)
        finally:
            os.environ.pop("MINITX_CACHE")
            if before is not None:
                os.environ["MINITX_CACHE"] = before
    return Workbench(words, tokenizers, data, [source for source, _ in corpus.pairs("test")[:sentences]])


@contextmanager
def without_trainer(task: TranslationTask, device: torch.device, *, optimizer: Any = None,
                    backward: Callable[[Tensor], None] = Tensor.backward) -> Iterator[TranslationTask]:
    """Let a task train without a trainer, by replacing three of Lightning's methods. optimizer: default AdamW"""
    optimizer = optimizer or task.configure_optimizers()
    with (patch.object(type(task), "device", device), patch.object(task, "manual_backward", backward),
          patch.object(task, "optimizers", lambda **_: optimizer)):
        yield task
