"""What a `Translator` searches with: ids in, ids out. Strings, batches and warnings are the translator's."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """Hold one finished output and the score that ranks it; both numbers are nan where nothing asked for them."""

    ids: list[int]  # without EOS
    log_prob: float  # nats, EOS included
    score: float  # log_prob / ((5 + length) / 6) ** length_penalty


@dataclass(frozen=True)
class Sampling:
    """Say how tokens are drawn: from softmax(logits / temperature), of the `top_k` likeliest alone if not 0."""

    temperature: float
    top_k: int
    seeds: Sequence[int]  # one a sentence: its draws depend on its own alone, not on what shares its batch


@dataclass(frozen=True)
class SearchOptions:
    """Say how a batch is searched, in checked values."""

    beam_size: int  # 1 = greedy
    length_penalty: float
    n_best: int = 1  # at most beam_size
    scored: bool = True  # False = nobody will read log_prob and score, so that greedy search need not compute them
    prefixes: Sequence[Sequence[int]] | None = None  # what each output begins with, without BOS; counts as generated
    no_repeat_ngram: int = 0  # no sequence of this many tokens twice in an output, unless a prefix says so; 0 = may be
    sampling: Sampling | None = None  # draw one output a sentence: beam_size and n_best are 1, and nothing is scored


class Backend(ABC):
    """Search with a model, whatever computes it. Several threads may share one."""

    max_source_length: int | None = None  # tokens that the model can tell apart, EOS included; None = any number
    max_target_length: int | None = None
    device: str = "cpu"

    @abstractmethod
    def search(self, sources: Sequence[Sequence[int]], limits: Sequence[int],
               options: SearchOptions) -> list[list[Hypothesis]]:
        """Search a batch of sources, ids without EOS. --> up to n_best outputs for each, best first

        limits: tokens that each output may have, EOS counted; longer than its prefix
        """

    @abstractmethod
    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        """Sum the log-probabilities of each target, given its source, EOS included; ids without EOS. --> nats"""

    def session(self) -> AbstractContextManager[None]:
        """Hold what all batches of a text share, such as weights in another number format."""
        return nullcontext()
