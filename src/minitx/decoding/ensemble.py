"""Several models as one: each step's probabilities are averaged, so search need not know."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor

from minitx.data.batch import Packed
from minitx.decoding.search import Searchable
from minitx.models.base import DecodeState
from minitx.models.precision import at_least_fp32


@dataclass(frozen=True)
class EnsembleState:
    """Hold each model's own state."""

    parts: list[DecodeState]

    def reorder(self, rows: Tensor) -> "EnsembleState":
        """Reorder all alike. rows: [B*K]"""
        return replace(self, parts=[part.reorder(rows) for part in self.parts])

    def select(self, sentences: Tensor) -> "EnsembleState":
        """Drop all sentences but these from each. sentences: [B']"""
        return replace(self, parts=[part.select(sentences) for part in self.parts])


class Ensemble:
    """Average the probabilities of models that share a target vocabulary; their families may differ."""

    def __init__(self, models: Sequence[Searchable]) -> None:
        self.models = models

    def encode(self, src: Packed) -> list[Tensor]:
        """Read the source with each model."""
        return [model.encode(src) for model in self.models]

    def init_state(self, memory: list[Tensor], src: Packed, beam_size: int = 1) -> EnsembleState:
        """Prepare decoding of K hypotheses a sentence with each."""
        return EnsembleState([model.init_state(read, src, beam_size)
                              for model, read in zip(self.models, memory, strict=True)])

    def step(self, tokens: Tensor, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        """Read one token a hypothesis. tokens: [B*K] --> log of the mean probability [B*K, V], next state"""
        stepped = [model.step(tokens, part) for model, part in zip(self.models, state.parts, strict=True)]
        found = torch.stack([at_least_fp32(logits).log_softmax(-1) for logits, _ in stepped])
        return found.logsumexp(0) - log(len(found)), EnsembleState([part for _, part in stepped])
