"""BLEU and chrF as sacreBLEU defines them (detokenised, cased, 13a), with their signatures.

The mean of the BLEU of parts is not the BLEU of the whole (52.03 against 53.03 on shards sorted by length), so ranks
add their `statistics`, and score the sum once. A paired bootstrap draws among `sentence_statistics`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU, MAX_NGRAM_ORDER
from sacrebleu.metrics.chrf import CHRF

N_STATISTICS = 1 + (2 + 2 * MAX_NGRAM_ORDER) + 3 * CHRF.CHAR_ORDER  # sentences, BLEU's counts, chrF's counts
SENTENCE_COLUMNS = ("hypothesis_tokens", "reference_tokens", *(f"matched_{n}" for n in range(1, MAX_NGRAM_ORDER + 1)))


@dataclass(frozen=True)
class Score:
    """Hold corpus scores (0 to 100) with the conditions under which they hold."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    sentences: int


def score(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Score detokenised hypotheses against raw references, line by line. No sentences score 0."""
    return score_from_statistics(statistics(hypotheses, references))


def statistics(hypotheses: Sequence[str], references: Sequence[str]) -> list[int]:
    """Count what BLEU and chrF are made of: integers that add over any split of the corpus.

    Errors: `ValueError` if there is not one reference a hypothesis.
    """
    if not _paired(hypotheses, references):
        return [0] * N_STATISTICS
    counts = [_by_sentence(metric, hypotheses, references) for metric in _metrics()]
    return [len(hypotheses), *(sum(column) for rows in counts for column in zip(*rows, strict=True))]


def sentence_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> list[list[int]]:
    """Count what BLEU is made of, a row of `SENTENCE_COLUMNS` for each sentence.

    A sentence of h tokens has h - n + 1 n-grams, so these are not kept. Errors: as `statistics`.
    """
    if not _paired(hypotheses, references):
        return []
    return [row[:len(SENTENCE_COLUMNS)] for row in _by_sentence(_metrics()[0], hypotheses, references)]


def bleu_from_sentences(rows: Iterable[Sequence[int]]) -> float:
    """Score a corpus, or any draw from one, from its rows of `sentence_statistics`; equal to `score` of the text."""
    orders = range(MAX_NGRAM_ORDER)
    counts = [(*row, *(max(0, row[0] - shorter) for shorter in orders)) for row in rows]
    summed = [sum(column) for column in zip(*counts, strict=True)] or [0] * (2 + 2 * MAX_NGRAM_ORDER)
    return _metrics()[0]._compute_score_from_stats(summed).score


def score_from_statistics(summed: Sequence[float]) -> Score:
    """Score a corpus from the sum of its parts' `statistics`."""
    sentences, *counts = map(int, summed)
    bleu, chrf = _metrics()
    of_bleu, of_chrf = counts[: -3 * CHRF.CHAR_ORDER], counts[-3 * CHRF.CHAR_ORDER:]
    return Score(bleu=bleu._compute_score_from_stats(of_bleu).score, bleu_signature=str(bleu.get_signature()),
                 chrf=chrf._compute_score_from_stats(of_chrf).score, chrf_signature=str(chrf.get_signature()),
                 sentences=sentences)


def _paired(hypotheses: Sequence[str], references: Sequence[str]) -> bool:
    """Tell whether there is anything to score. Errors: `ValueError` if there is not one reference a hypothesis."""
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses):,} hypotheses for {len(references):,} references")
    return bool(hypotheses)


def _by_sentence(metric: BLEU | CHRF, hypotheses: Sequence[str], references: Sequence[str]) -> list[list[int]]:
    """Return a metric's counts for each sentence; BLEU's are both lengths, matched and all n-grams."""
    rows: list[list[int]] = metric._extract_corpus_statistics(hypotheses, [references])
    return rows


def _metrics() -> tuple[BLEU, CHRF]:
    """Make both metrics. sacreBLEU signs a metric once it has seen references; here there is always one a sentence."""
    bleu, chrf = BLEU(tokenize="13a"), CHRF()
    bleu.num_refs = chrf.num_refs = 1
    return bleu, chrf
