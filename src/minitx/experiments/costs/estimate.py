"""What a training would take on another machine, by arithmetic alone."""

from typing import NamedTuple

import numpy as np
import torch

from minitx.config.schema import Config
from minitx.models.registry import build_model

SENTENCE = 30  # tokens on either side, EOS included: about the mean of news text
VOCABULARY = 8_000  # if the config leaves the size to the text


class Estimate(NamedTuple):
    """The size of a model, and the work of training it."""

    params: int
    flop: float | None  # of all updates; None = not counted by the family, or limited by time alone

    def hours(self, tflops: float, mfu_pct: float) -> float | None:
        """Return the hours on a device with this peak, `mfu_pct` of which do useful work."""
        return None if self.flop is None else self.flop / (1e12 * tflops * mfu_pct / 100) / 3600


def estimate(cfg: Config) -> Estimate:
    """Count parameters and operations, forward and backward. Nothing is allocated, no text is read."""
    vocab_size = cfg.tokenizer.vocab_size or VOCABULARY
    with torch.device("meta"):
        model = build_model(cfg.model, src_vocab_size=vocab_size, tgt_vocab_size=vocab_size)
    params = sum(p.numel() for p in model.parameters())
    forward = model.flops(np.full(1, SENTENCE), np.full(1, SENTENCE))
    if forward is None:
        return Estimate(params, None)
    trainer = cfg.trainer
    ends = [] if trainer.max_pflop is None else [1e15 * trainer.max_pflop]
    if trainer.max_steps is not None:
        ends.append(3 * forward / SENTENCE * trainer.tokens_per_update * trainer.max_steps)
    return Estimate(params, min(ends, default=None))
