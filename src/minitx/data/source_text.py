"""What a run's source text is made of, so that a line which is unlike it can be told: a model of it writes nonsense.

A line is unlike it if many of its tokens occur nowhere in that text, as pieces of words that were learned whole, or if
its words fall into more tokens than those of nearly every line of that text.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from minitx.data.encoded import EncodedSplit
from minitx.data.tokenizer import Tokenizer
from minitx.utils.errors import Exit, UserError
from minitx.utils.files import write_atomically

NAME = "source_text.json"
UNREAD = 0.2  # share of a line's tokens; at most 0.15 in any of 7,000 held-out lines of captions and the embedded text
FINER, RARE = 2.0, 1e-4  # times the tokens a word of the text, and of one line in ten thousand of it


@dataclass(frozen=True)
class SourceText:
    """Hold which tokens the text has not, and how many tokens a word a line of it has at most, but for rare ones."""

    unread: frozenset[int]
    tokens_a_word: float

    @classmethod
    def measure(cls, split: EncodedSplit, tokenizer: Tokenizer) -> "SourceText":
        """Measure a training split, or a large part of one. tokenizer: of its source"""
        counts = np.bincount(split.src_tokens, minlength=tokenizer.vocab_size)
        begins = np.zeros(tokenizer.vocab_size, bool)
        begins[[*tokenizer.word_beginnings]] = True
        before = np.concatenate(([0], np.cumsum(begins[split.src_tokens])))  # words before each token
        words = np.maximum(1, np.diff(before[split.src_offsets]))
        a_word = np.diff(split.src_offsets) / words
        mean = len(split.src_tokens) / max(1, int(words.sum()))
        return cls(frozenset(map(int, np.flatnonzero(counts == 0))),
                   max(FINER * mean, float(np.quantile(a_word, 1 - RARE))))

    def joined(self, other: "SourceText") -> "SourceText":
        """Return what is known of both texts together. other: of the same vocabulary"""
        return SourceText(self.unread & other.unread, max(self.tokens_a_word, other.tokens_a_word))

    def strange_words(self, ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
        """Return the words that make a line unlike the text, in order; [] for a line that is not. ids: without EOS"""
        starts = [place for place, id_ in enumerate(ids) if place == 0 or id_ in tokenizer.word_beginnings]
        words = [ids[start:end] for start, end in pairwise([*starts, len(ids)])]
        if ids and sum(id_ in self.unread for id_ in ids) >= UNREAD * len(ids):
            strange = [word for word in words if not self.unread.isdisjoint(word)]
        elif len(ids) >= self.tokens_a_word * max(1, len(words)):
            strange = [word for word in words if len(word) >= self.tokens_a_word]
        else:
            return []
        return list(dict.fromkeys(filter(None, (tokenizer.decode(word).strip(" .,;:!?\"") for word in strange))))

    def save(self, run_dir: Path) -> None:
        """Write the run directory's file."""
        values = {"tokens_a_word": self.tokens_a_word, "unread": sorted(self.unread)}
        write_atomically(run_dir / NAME, json.dumps(values, separators=(",", ":")).encode() + b"\n")

    @classmethod
    def read(cls, run_dir: Path) -> "SourceText | None":
        """Read what `save` wrote; None where there is none, as in runs of older versions. Errors: `UserError`"""
        path = run_dir / NAME
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(frozenset(map(int, values["unread"])), float(values["tokens_a_word"]))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{path}: damaged ({' '.join(str(error).split())}); the run serves without it, too: delete "
                            "it", Exit.STORAGE) from error
