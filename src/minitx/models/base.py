"""The contract between a model family and all else: training calls `forward`, search calls `init_state` and `step`.

B sentences, S source tokens, K hypotheses a sentence, N rows of packed target tokens, D width, V target vocabulary,
H heads, L queries.
"""

from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock, get_ident
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from minitx.data.batch import Packed
from minitx.models.cache import Cache

Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DecodeState:
    """Hold what decoding carries from step to step; search selects and reorders its rows and reads none of them.

    A state stays what it is, whatever is made of it.
    """

    sentences: list[Tensor]  # leading dimension B: one row a sentence, shared by its hypotheses
    beams: list[Tensor]  # leading dimension B*K: one row a hypothesis
    beam_size: int
    position: int = 0  # target tokens read so far
    cache: Cache | None = None  # of a family that looks back: one row a hypothesis, and a position a token

    @property
    def carried(self) -> list[Tensor]:
        """All that a hypothesis has of its own."""
        return self.beams if self.cache is None else [*self.beams, self.cache.positions]

    def reorder(self, rows: Tensor) -> "DecodeState":
        """Let hypothesis i go on from what hypothesis `rows[i]` was. rows: [B*K]"""
        return self._take(rows, self.sentences)

    def select(self, sentences: Tensor) -> "DecodeState":
        """Drop all sentences but these, with their hypotheses. sentences: [B']"""
        slots = torch.arange(self.beam_size, device=sentences.device)
        rows = (sentences[:, None] * self.beam_size + slots).flatten()
        return self._take(rows, [t.index_select(0, sentences) for t in self.sentences])

    def _take(self, rows: Tensor, sentences: list[Tensor]) -> "DecodeState":
        """rows: [B'*K]"""
        return replace(self, sentences=sentences, beams=[t.index_select(0, rows) for t in self.beams],
                       cache=None if self.cache is None else self.cache.take(rows))


class Attention(nn.Module, ABC):
    """A module that attends, and can return its weights."""

    n_heads: int = 1

    @abstractmethod
    def weights(self, *inputs: Any, **options: Any) -> Tensor:
        """Return the attention weights that `forward` uses on the same inputs. --> [B, H, L, S], rows sum to 1"""


class Seq2Seq(nn.Module, ABC):
    """A translation model. A family implements the abstract methods, and gets training and every search."""

    output: nn.Linear  # scores the vocabulary, without a bias: training never holds all logits at once
    max_source_length: int | None = None  # tokens the model can tell apart; None = any number
    max_target_length: int | None = None

    @abstractmethod
    def encode(self, src: Packed) -> Tensor:
        """Read the source. --> memory, as the family's other methods read it"""

    @abstractmethod
    def features(self, memory: Tensor, src: Packed, tgt: Packed) -> Tensor:
        """Run the decoder over whole targets (teacher forcing). --> [N, D], a row for each of tgt's"""

    @abstractmethod
    def init_state(self, memory: Tensor, src: Packed, beam_size: int = 1) -> DecodeState:
        """Prepare decoding of K hypotheses a sentence."""

    @abstractmethod
    def step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        """Read one token a hypothesis. tokens: [B*K] --> logits [B*K, V], next state"""

    def project(self, features: Tensor) -> Tensor:
        """Score the vocabulary. [..., D] --> logits [..., V]"""
        return self.output(features)

    def forward(self, src: Packed, tgt: Packed) -> Tensor:
        """Compute for each target token what the next one is scored by. --> [N, D], for `project` or a loss"""
        return self.features(self.encode(src), src, tgt)

    def recomputable(self) -> Sequence[nn.Module]:
        """Return the layers whose activations inside a backward pass can compute again, from their inputs; or none."""
        return ()

    def attentions(self) -> Mapping[str, Sequence[Attention]]:
        """Name the attention modules, one a layer: "encoder" and "decoder" (to themselves), "cross" (to the source)."""
        return {}

    @torch.no_grad()
    def attention_weights(self, src: Packed, tgt: Packed, kinds: Container[str] | None = None) -> dict[str, Tensor]:
        """Return each head's weights while `forward` reads these, from what each module is given there.

        kinds: which of them, None = all --> [layers, B, H, L, S] by the names of `attentions`; rows and columns of
        padding and filler mean nothing
        """
        recorded: dict[nn.Module, list[Tensor]] = {}
        thread = get_ident()

        def record(module: Attention, inputs: tuple[Any, ...], options: dict[str, Any], _: Tensor) -> None:
            if get_ident() == thread:  # another one may use the model at the same time
                recorded.setdefault(module, []).append(module.weights(*inputs, **options))

        named = {name: layers for name, layers in self.attentions().items() if kinds is None or name in kinds}
        hooks = [module.register_forward_hook(record, with_kwargs=True)
                 for layers in named.values() for module in layers]
        try:
            self(src, tgt)
        finally:
            for hook in hooks:
                hook.remove()
        # a recurrence may attend once a target step: its steps are put together
        return {name: torch.stack([torch.cat(recorded[module], dim=-2) for module in layers])
                for name, layers in named.items()}

    def flops(self, src_lengths: Lengths, tgt_lengths: Lengths) -> float | None:
        """Count one forward pass over real tokens, EOS included: matrix products only, a multiply-add as two.

        Training takes three times that, its backward pass two. None = not counted: the model's MFU is then unknown.
        """
        return None


_evaluating: dict[nn.Module, tuple[int, dict[nn.Module, bool]]] = {}  # open blocks, and the modes before the first
_evaluating_lock = Lock()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode until the last such block ends, of whatever thread; then restore its modes."""
    with _evaluating_lock:
        blocks, modes = _evaluating.get(model) or (0, {module: module.training for module in model.modules()})
        _evaluating[model] = blocks + 1, modes
        model.eval()
    try:
        yield
    finally:
        with _evaluating_lock:
            blocks, modes = _evaluating.pop(model)
            if blocks > 1:
                _evaluating[model] = blocks - 1, modes
            else:
                for module, training in modes.items():
                    module.training = training


def count_matrix_weights(*modules: nn.Module) -> int:
    """Count the weights in these modules' matrices: the multiply-adds that one token costs."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.dim() > 1)
