"""What scoring leaves behind: hypotheses, and the counts that each BLEU follows from."""

import json
from pathlib import Path
from typing import Any

import pytest

from minitx.distributed.ranks import SINGLE
from minitx.evaluation.evaluate import evaluate
from minitx.evaluation.metrics import SENTENCE_COLUMNS, bleu_from_sentences

PAIRS = {"test": [("A dog runs in the park.", "Ein Hund läuft im Park."), ("A cat.", "Eine Katze.")],
         "test_other": [("Two birds sing a song.", "Zwei Vögel singen ein Lied.")]}


class Corpus:
    """Two test sets without questions of their own."""

    tgt, test_sets, pairs = "de", tuple(PAIRS), PAIRS.__getitem__

    def phenomena(self, name: str) -> None:
        return None


class Translator:
    """Knows all but the last word, and writes one line too many."""

    ranks = SINGLE

    def translate(self, sources: list[str], **options: Any) -> list[str]:
        known = {source: target for pairs in PAIRS.values() for source, target in pairs}
        return [known[source].rpartition(" ")[0] + "\n." for source in sources]


def test_each_sentence_s_counts_are_kept_and_no_text(tmp_path: Path) -> None:
    scores = evaluate(Translator(), Corpus(), tmp_path, "13a", lambda *_: None, print)  # type: ignore[arg-type]
    text = (tmp_path / "sentence_statistics.json").read_text()
    kept = json.loads(text)
    assert kept["columns"] == list(SENTENCE_COLUMNS)
    assert kept["sets"].keys() == scores.keys() == PAIRS.keys()
    for name, rows in kept["sets"].items():
        assert len(rows) == scores[name]["sentences"] == len(PAIRS[name])
        assert bleu_from_sentences(rows) == pytest.approx(scores[name]["bleu"], abs=1e-9)
    assert kept["source_words"] == {"test": [6, 2], "test_other": [5]}
    assert "Hund" not in text
    assert (tmp_path / "hypotheses/test.de").read_text(encoding="utf-8").count("\n") == 2
