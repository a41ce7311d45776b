"""The contract between a model family and all else: training calls `forward`, search calls `init_state` and `step`.

B sentences, S source tokens, T target tokens, K hypotheses a sentence, D width, V target vocabulary.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from torch import Tensor, nn


@dataclass(frozen=True)
class DecodeState:
    """Hold what decoding carries from step to step; search moves rows about and looks at nothing."""

    sentences: list[Tensor]  # leading dimension B: one row a sentence, shared by its hypotheses
    beams: list[Tensor]  # leading dimension B*K: one row a hypothesis
    beam_size: int
    position: int = 0  # target tokens read so far

    def reorder(self, rows: Tensor) -> "DecodeState":
        """Let hypothesis i go on from what hypothesis `rows[i]` was. rows: [B*K]"""
        return replace(self, beams=[t.index_select(0, rows) for t in self.beams])

    def keep(self, sentences: Tensor) -> "DecodeState":
        """Drop all sentences but these, with their hypotheses. sentences: [B']"""
        def rows(t: Tensor) -> Tensor:
            return t.unflatten(0, (-1, self.beam_size)).index_select(0, sentences).flatten(0, 1)

        return replace(self, beams=[rows(t) for t in self.beams],
                       sentences=[t.index_select(0, sentences) for t in self.sentences])


class Seq2Seq(nn.Module, ABC):
    """A translation model. A family implements the five abstract methods, and gets training and every search."""

    max_source_length: int | None = None  # tokens the model can tell apart; None = any number
    max_target_length: int | None = None

    @abstractmethod
    def encode(self, src: Tensor, src_mask: Tensor) -> Tensor:
        """Read the source. src, src_mask: [B, S] --> memory [B, S, D], or as the family's other methods read it"""

    @abstractmethod
    def features(self, memory: Tensor, src_mask: Tensor, tgt_in: Tensor) -> Tensor:
        """Run the decoder over whole targets (teacher forcing). tgt_in: [B, T] --> [B, T, D]"""

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Score the vocabulary. [..., D] --> logits [..., V]"""

    @abstractmethod
    def init_state(self, memory: Tensor, src_mask: Tensor, beam_size: int = 1) -> DecodeState:
        """Prepare decoding of K hypotheses a sentence."""

    @abstractmethod
    def step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """Read one token a hypothesis. tokens: [B*K] --> logits [B*K, V], next state"""

    def forward(self, src: Tensor, src_mask: Tensor, tgt_in: Tensor, tgt_mask: Tensor | None = None) -> Tensor:
        """Score every next token. --> logits [B, T, V], or [N, V] at the N True places of `tgt_mask` alone"""
        features = self.features(self.encode(src, src_mask), src_mask, tgt_in)
        return self.project(features if tgt_mask is None else features[tgt_mask])
