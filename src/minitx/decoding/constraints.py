"""What outputs must begin with, and what they must not repeat: tokens that a search may not choose next.

B sentences, N hypotheses, P longest prefix, t tokens so far, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

FREE = -1  # behind the end of a prefix


@dataclass(frozen=True)
class Constraints:
    """Hold the constraints on each sentence's outputs."""

    prefixes: Tensor | None = None  # [B, P] ids, FREE behind the end of each
    no_repeat_ngram: int = 0

    @classmethod
    def of(cls, prefixes: Sequence[Sequence[int]] | None, no_repeat_ngram: int,
           device: torch.device) -> "Constraints":
        """Build them from lists of ids, without BOS and EOS."""
        longest = max(map(len, prefixes or [[]]), default=0)
        if not longest:
            return cls(None, no_repeat_ngram)
        rows = [[*ids, *[FREE] * (longest - len(ids))] for ids in prefixes or []]
        return cls(torch.tensor(rows, device=device), no_repeat_ngram)

    def __bool__(self) -> bool:
        """Tell whether they forbid anything."""
        return self.prefixes is not None or self.no_repeat_ngram > 0

    def select(self, sentences: Tensor) -> "Constraints":
        """Drop all sentences but these. sentences: [B']"""
        return self if self.prefixes is None else replace(self, prefixes=self.prefixes[sentences])

    def apply(self, logits: Tensor, written: Tensor) -> Tensor:
        """Set what must not come next to -inf, in place. logits: [N, V]; written: [N, t], without BOS

        A prefix is stronger than the ban on repeats.
        """
        t = written.shape[1]
        if self.prefixes is not None and t < self.prefixes.shape[1]:
            forced = self.prefixes[:, t].repeat_interleave(len(logits) // len(self.prefixes))[:, None]  # --> [N, 1]
            kept, at = logits.gather(1, forced.clamp(min=0)), forced.clamp(min=0)
            self._ban_repeats(logits, written)
            logits.masked_fill_(forced != FREE, -inf)
            return logits.scatter_(1, at, torch.where(forced == FREE, logits.gather(1, at), kept))
        return self._ban_repeats(logits, written)

    def _ban_repeats(self, logits: Tensor, written: Tensor) -> Tensor:
        """Ban each token that would end an n-gram which is there already."""
        n = self.no_repeat_ngram
        if not n or written.shape[1] < n:
            return logits
        ngrams = written.unfold(1, n, 1)  # --> [N, t - n + 1, n]
        begun = written[:, written.shape[1] - n + 1:, None].mT  # --> [N, 1, n - 1]
        again = (ngrams[..., :-1] == begun).all(-1)  # --> [N, t - n + 1]
        bans = torch.where(again, -inf, inf).to(logits.dtype)
        return logits.scatter_reduce_(1, ngrams[..., -1], bans, "amin")
