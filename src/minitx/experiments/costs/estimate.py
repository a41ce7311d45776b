"""What a training would take of a machine that is not here, by arithmetic alone."""

from typing import NamedTuple

import numpy as np
import torch

from minitx.config.schema import Config
from minitx.models.registry import build_model

SENTENCE = 30  # tokens, EOS included, on either side: about what news has
VOCABULARY = 8_000  # where a config leaves it to the text


class Estimate(NamedTuple):
    """Hold trained numbers, and the operations of all updates (None: the family counts none, or only time ends it)."""

    params: int
    flop: float | None

    def hours(self, tflops: float, mfu_pct: float) -> float | None:
        """Return the hours of a device of that peak, of which `mfu_pct` does useful work."""
        return None if self.flop is None else self.flop / (1e12 * tflops * mfu_pct / 100) / 3600


def estimate(cfg: Config) -> Estimate:
    """Count what `cfg` trains, forwards and backwards; nothing is allocated and no text is read."""
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
