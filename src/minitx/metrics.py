"""BLEU and chrF as sacreBLEU defines them (detokenised, cased, 13a), with their signatures.

The mean of the BLEU of parts is not the BLEU of the whole (52.03 against 53.03 on shards sorted by length), so ranks
add their `statistics`, and score the sum once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU, MAX_NGRAM_ORDER
from sacrebleu.metrics.chrf import CHRF

N_STATISTICS = 1 + (2 + 2 * MAX_NGRAM_ORDER) + 3 * CHRF.CHAR_ORDER  # sentences, BLEU's counts, chrF's counts


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
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses):,} hypotheses for {len(references):,} references")
    if not hypotheses:
        return [0] * N_STATISTICS
    rows = [metric._extract_corpus_statistics(hypotheses, [references]) for metric in _metrics()]
    return [len(hypotheses), *(sum(column) for by_sentence in rows for column in zip(*by_sentence, strict=True))]


def score_from_statistics(summed: Sequence[float]) -> Score:
    """Score a corpus from the sum of its parts' `statistics`."""
    sentences, *counts = map(int, summed)
    bleu, chrf = _metrics()
    of_bleu, of_chrf = counts[: -3 * CHRF.CHAR_ORDER], counts[-3 * CHRF.CHAR_ORDER:]
    return Score(bleu=bleu._compute_score_from_stats(of_bleu).score, bleu_signature=str(bleu.get_signature()),
                 chrf=chrf._compute_score_from_stats(of_chrf).score, chrf_signature=str(chrf.get_signature()),
                 sentences=sentences)


def _metrics() -> tuple[BLEU, CHRF]:
    """Make both metrics. sacreBLEU signs a metric once it has seen references; here there is always one a sentence."""
    bleu, chrf = BLEU(tokenize="13a"), CHRF()
    bleu.num_refs = chrf.num_refs = 1
    return bleu, chrf
