"""Pairs of strings to log-probabilities by forced decoding, the order kept."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp

from minitx.data.batching import evaluation_plan
from minitx.data.lines import is_blank
from minitx.data.tokenizer import Tokenizer
from minitx.decoding.arguments import as_lines
from minitx.decoding.translator import Progress, Translator, Warn, source_limit, warn_of_line
from minitx.utils.errors import Exit, UserError

MAX_LOGITS = 2**24  # a batch's logits and their log-softmax take 64 MiB each in fp32
MAX_NATS = 700.0  # a token: exp of more is no float


@dataclass(frozen=True)
class PairScore:
    """Hold how likely the model finds a target, given its source; sums of these score a corpus."""

    log_prob: float  # nats, EOS included
    n_tokens: int  # target tokens, EOS included

    @property
    def perplexity(self) -> float:
        """Return exp of the nats per token."""
        return exp(min(-self.log_prob / self.n_tokens, MAX_NATS))


def total(scores: Iterable[PairScore]) -> PairScore:
    """Score many pairs as one: long ones weigh more."""
    scores = list(scores)
    return PairScore(sum(score.log_prob for score in scores), sum(score.n_tokens for score in scores))


def score_pairs(translator: Translator, sources: Iterable[str], targets: Iterable[str], *,
                progress: Progress | None = None, warn: Warn | None = None) -> list[PairScore]:
    """Score each pair, longest first; a blank side is EOS alone.

    `warn` is called for sources too long, which are cut as for translation. Errors: `UserError` for a target longer
    than the model can write, since the score of a part would pass for that of the whole; TypeError for sides that are
    no iterables of strings, ValueError for sides of different lengths.
    """
    sources, targets = as_lines(sources, "sources"), as_lines(targets, "targets")
    if len(sources) != len(targets):
        raise ValueError(f"sources has {len(sources)} lines, targets has {len(targets)}: must be as many")
    backend, tokenizers = translator.backend, translator.tokenizers
    src, tgt = _encode(tokenizers.src, sources), _encode(tokenizers.tgt, targets)
    longest = source_limit(translator.decode, backend)
    for row, ids in enumerate(src):
        if len(ids) >= longest:
            (warn or warn_of_line)(row, f"{len(ids) + 1:,} tokens, cut to {longest:,}")
            src[row] = ids[: longest - 1]
    for row, ids in enumerate(tgt):
        if backend.max_target_length is not None and len(ids) >= backend.max_target_length:
            raise UserError(f"translation {row + 1}: has {len(ids) + 1:,} tokens, this model writes at most "
                            f"{backend.max_target_length:,}; leave the pair out", Exit.DATA)
    lengths = [max(len(a), len(b)) + 1 for a, b in zip(src, tgt, strict=True)]
    max_tokens = min(translator.decode.max_tokens, MAX_LOGITS // tokenizers.tgt.vocab_size)
    scores: dict[int, PairScore] = {}
    with backend.session():
        for rows in evaluation_plan(lengths, max_tokens):
            found = backend.score([src[i] for i in rows], [tgt[i] for i in rows])
            scores |= {int(i): PairScore(log_prob, len(tgt[i]) + 1)
                       for i, log_prob in zip(rows, found, strict=True)}
            if progress is not None:
                progress(len(scores), len(lengths))
    return [scores[row] for row in range(len(lengths))]


def _encode(tokenizer: Tokenizer, lines: Sequence[str]) -> list[list[int]]:
    return tokenizer.encode_batch(["" if is_blank(line) else line for line in lines])
