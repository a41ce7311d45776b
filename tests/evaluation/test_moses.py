"""Moses BLEU is that of the published tokenised text, and says so."""

import gzip
import os
from pathlib import Path

import pytest
import sacrebleu
import sacremoses

from minitx.evaluation.moses import languages, moses_score, moses_tokenised

HYPOTHESES = ['Der Hund sieht "die Katze."', "Ein Vogel singt."]
REFERENCES = ['der Hund sieht "die Katze."', "Ein Vogel singt im saftig-grünen Gras."]
TOKENISED = Path(os.environ.get("MINITX_DATA", "none"), "multi30k/tok")


@pytest.mark.skipif(not TOKENISED.is_dir(), reason="needs MINITX_DATA: a folder with multi30k/tok")
@pytest.mark.parametrize(("lang", "tokens"), [("de", 12_103), ("en", 12_968), ("fr", 13_988)])
def test_captions_become_their_published_tokens(lang: str, tokens: int) -> None:
    lines = gzip.decompress((TOKENISED.parent / f"test_2016_flickr.{lang}.gz").read_bytes()).decode().splitlines()
    published = (TOKENISED / f"test_2016_flickr.lc.norm.tok.{lang}").read_text(encoding="utf-8").splitlines()
    assert [moses_tokenised(line, lang) for line in lines] == published
    found = moses_score(lines, lines, lang)
    assert found is not None
    assert (round(found.moses_bleu, 6), found.moses_reference_tokens) == (100.0, tokens)


def test_it_is_the_bleu_of_tokens_as_they_are() -> None:
    found = moses_score(HYPOTHESES, REFERENCES, "de")
    sides = [["der hund sieht &quot; die katze &quot; .", "ein vogel singt ."],
             ["der hund sieht &quot; die katze &quot; .", "ein vogel singt im saftig-grünen gras ."]]
    assert found is not None
    assert found.moses_bleu == pytest.approx(sacrebleu.corpus_bleu(sides[0], [sides[1]], tokenize="none",
                                                                   force=True).score, abs=1e-9)
    assert found.moses_reference_tokens == 8 + 7
    assert found.moses_signature == (f"nrefs:1|case:lc|eff:no|tok:sacremoses-{sacremoses.__version__}-de|smooth:exp|"
                                     f"version:{sacrebleu.__version__}")


def test_a_language_without_rules_or_spaces_has_none() -> None:
    assert {"en", "de", "fr", "cs"} <= languages()
    for lang in ("zh", "ja", "xx"):
        assert moses_score(HYPOTHESES, REFERENCES, lang) is None


def test_nothing_scores_nothing() -> None:
    found = moses_score([], [], "en")
    assert found is not None
    assert (found.moses_bleu, found.moses_reference_tokens) == (0.0, 0)
