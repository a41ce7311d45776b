"""Our scores are sacreBLEU's, and statistics of parts add up to those of the whole."""

import random

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from minitx.evaluation.metrics import (
    SENTENCE_COLUMNS,
    bleu_from_sentences,
    score,
    score_from_statistics,
    sentence_statistics,
    statistics,
)

rng = random.Random(0)
WORDS = ["The", "dog", "sees", "a", "cat,", "and", "the", "bird", "sings."]
REFERENCES = [" ".join(rng.choices(WORDS, k=rng.randint(4, 14))) for _ in range(60)]
HYPOTHESES = [" ".join(word for word in line.split() if rng.random() < 0.9) for line in REFERENCES]


def test_score_is_sacrebleu_s_own() -> None:
    found = score(HYPOTHESES, REFERENCES)
    assert found.bleu == pytest.approx(sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score, abs=1e-12)
    assert found.chrf == pytest.approx(sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score, abs=1e-12)
    assert found.sentences == 60
    assert 20 < found.bleu < 95


def test_signatures_say_how_it_was_scored() -> None:
    found, version = score(HYPOTHESES, REFERENCES), sacrebleu.__version__
    assert found.bleu_signature == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert found.chrf_signature == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}"


@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 60])
def test_statistics_add_over_ranks_and_a_mean_of_scores_does_not(ranks: int) -> None:
    by_length = sorted(range(60), key=lambda i: len(REFERENCES[i]))
    shards = [by_length[rank * 60 // ranks:(rank + 1) * 60 // ranks] for rank in range(ranks)]
    parts = [statistics([HYPOTHESES[i] for i in shard], [REFERENCES[i] for i in shard]) for shard in shards]
    whole = score(HYPOTHESES, REFERENCES)
    assert score_from_statistics([sum(column) for column in zip(*parts, strict=True)]) == whole
    if ranks == 7:
        assert abs(sum(score_from_statistics(part).bleu for part in parts) / ranks - whole.bleu) > 0.05


def test_a_rank_without_sentences_adds_nothing() -> None:
    assert statistics([], []) == [0] * len(statistics(HYPOTHESES, REFERENCES))
    assert score([], []).bleu == score([], []).chrf == score([], []).sentences == 0


def test_case_counts_and_perfect_is_100() -> None:
    assert score(REFERENCES, REFERENCES).bleu == pytest.approx(100)
    assert score([line.lower() for line in REFERENCES], REFERENCES).bleu < 100
    assert score([""] * 60, REFERENCES).bleu == 0


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="2 hypotheses for 1 references"):
        statistics(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="2 hypotheses for 1 references"):
        sentence_statistics(["a", "b"], ["a"])


SENTENCES = (st.lists(st.sampled_from([*WORDS, "3.5", "don't", "", "  "]), max_size=8).map(" ".join)
             | st.text(max_size=12))


@given(st.lists(st.tuples(SENTENCES, SENTENCES), max_size=8), st.data())
def test_bleu_of_any_draw_follows_from_its_sentences_counts(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    rows = sentence_statistics([h for h, _ in pairs], [r for _, r in pairs])
    assert bleu_from_sentences(rows) == score([h for h, _ in pairs], [r for _, r in pairs]).bleu
    if pairs:
        drawn = data.draw(st.lists(st.sampled_from(range(len(pairs))), min_size=1, max_size=12))
        assert bleu_from_sentences(rows[i] for i in drawn) == score(*zip(*(pairs[i] for i in drawn), strict=True)).bleu


def test_a_sentence_s_counts_are_what_they_are_called() -> None:
    (row,) = sentence_statistics(["The dog sees the cat."], ["The dog sees a cat."])
    assert dict(zip(SENTENCE_COLUMNS, row, strict=True)) == {
        "hypothesis_tokens": 6, "reference_tokens": 6, "matched_1": 5, "matched_2": 3, "matched_3": 1, "matched_4": 0}
