"""BLEU as papers on captions report it: on normalised, lower-cased, Moses-tokenised text (Koehn et al. 2007).

It serves to compare with those papers alone: a tokenizer changes BLEU by more than most systems differ (Post 2018), so
the score that counts here is `metrics.score`. Taken in this order, the three steps turn the captions of 2016 into their
published tokenised files, to the letter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from sacrebleu.metrics.bleu import BLEU


@dataclass(frozen=True)
class MosesScore:
    """Hold a corpus's score (0 to 100), its signature, and the number of reference tokens, which identifies a text."""

    moses_bleu: float
    moses_signature: str
    moses_reference_tokens: int


def moses_score(hypotheses: Sequence[str], references: Sequence[str], lang: str) -> MosesScore | None:
    """Score detokenised hypotheses against raw references; None for a language that Moses has no rules for.

    No sentences score 0.
    """
    if lang not in languages():
        return None
    tokenised = [[moses_tokenised(line, lang) for line in lines] for lines in (hypotheses, references)]
    bleu = BLEU(lowercase=True, tokenize="none", force=True)  # force: no warning that the text is tokenised
    result = bleu.corpus_score(tokenised[0], [tokenised[1]]).score if references else 0.0
    bleu.num_refs = 1
    before, named, after = str(bleu.get_signature()).partition("tok:none")
    assert named, "not the pinned version of sacreBLEU"
    return MosesScore(result, f"{before}tok:sacremoses-{version('sacremoses')}-{lang}{after}",
                      sum(len(line.split()) for line in tokenised[1]))


def moses_tokenised(line: str, lang: str) -> str:
    """Return a line's tokens, separated by spaces. lang: one of `languages()`"""
    normaliser, tokenizer = _tools(lang)
    whole = f"{line}\n"  # as the scripts read it: at a line's end they move a full stop behind a quotation mark
    return str(tokenizer.tokenize(normaliser.normalize(whole).lower(), return_str=True))


@cache
def languages() -> frozenset[str]:
    """Return the languages whose abbreviations Moses knows, without those that it cannot split into words."""
    from sacremoses.corpus import NonbreakingPrefixes  # type: ignore[import-untyped]

    return frozenset(NonbreakingPrefixes().available_langs.values()) - {"zh", "yue"}


@cache
def _tools(lang: str) -> tuple[Any, Any]:
    # Imported here, since it compiles its rules for half a second.
    from sacremoses import MosesPunctNormalizer, MosesTokenizer  # type: ignore[import-untyped]

    return MosesPunctNormalizer(lang, perl_parity=True), MosesTokenizer(lang)
