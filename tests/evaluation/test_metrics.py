"""Our scores are sacreBLEU's, in every script, and counts of parts add up to those of the whole."""

import random
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from minitx.config.schema import BLEU_TOKENIZERS
from minitx.evaluation import metrics
from minitx.evaluation.metrics import (
    SENTENCE_COLUMNS,
    bleu_from_sentences,
    bleu_tokenizer,
    corpus_bleu,
    score,
    sentence_statistics,
    signed_tokenizer,
    with_totals,
)
from minitx.utils.errors import UserError

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


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 60])
def test_counts_add_over_shards_and_a_mean_of_scores_does_not(shards: int) -> None:
    by_length = sorted(range(60), key=lambda i: len(REFERENCES[i]))
    rows = [by_length[shard * 60 // shards:(shard + 1) * 60 // shards] for shard in range(shards)]
    parts = [sentence_statistics([HYPOTHESES[i] for i in part], [REFERENCES[i] for i in part]) for part in rows]
    whole = score(HYPOTHESES, REFERENCES).bleu
    assert bleu_from_sentences(row for part in parts for row in part) == whole
    if shards == 7:
        assert abs(sum(map(bleu_from_sentences, parts)) / shards - whole) > 0.05


def test_no_sentences_score_0() -> None:
    assert sentence_statistics([], []) == []
    assert score([], []).bleu == score([], []).chrf == score([], []).sentences == 0


def test_case_counts_and_perfect_is_100() -> None:
    assert score(REFERENCES, REFERENCES).bleu == pytest.approx(100)
    assert score([line.lower() for line in REFERENCES], REFERENCES).bleu < 100
    assert score([""] * 60, REFERENCES).bleu == 0


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="2 hypotheses for 1 references"):
        score(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="2 hypotheses for 1 references"):
        sentence_statistics(["a", "b"], ["a"])


SENTENCES = (st.lists(st.sampled_from([*WORDS, "3.5", "don't", "", "  "]), max_size=8).map(" ".join)
             | st.text(max_size=12))


@given(st.lists(st.tuples(SENTENCES, SENTENCES), max_size=8), st.data())
def test_bleu_of_any_draw_follows_from_its_sentences_counts(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    rows = sentence_statistics([h for h, _ in pairs], [r for _, r in pairs])
    drawn = data.draw(st.lists(st.sampled_from(range(len(pairs))), max_size=12)) if pairs else []
    for part in (range(len(pairs)), drawn):
        found = bleu_from_sentences(rows[i] for i in part)
        hypotheses, references = [pairs[i][0] for i in part], [pairs[i][1] for i in part]
        assert found == score(hypotheses, references).bleu
        assert found == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references]).score if part else 0, abs=1e-9)


def test_a_sentence_s_counts_are_what_they_are_called() -> None:
    (row,) = sentence_statistics(["The dog sees the cat."], ["The dog sees a cat."])
    assert dict(zip(SENTENCE_COLUMNS, row, strict=True)) == {
        "hypothesis_tokens": 6, "reference_tokens": 6, "matched_1": 5, "matched_2": 3, "matched_3": 1, "matched_4": 0}


ROW = st.integers(0, 12).flatmap(lambda h: st.tuples(st.just(h), st.integers(1, 12), *(
    st.integers(0, max(0, h - n)) for n in range(4))))


@given(st.lists(st.lists(ROW, min_size=1, max_size=6), min_size=1, max_size=4))
@settings(max_examples=200)
def test_bleu_of_many_draws_is_sacrebleu_s_of_each(draws: list[list[tuple[int, ...]]]) -> None:
    sums = [with_totals(rows).sum(0) for rows in draws]
    expected = [BLEU()._compute_score_from_stats(counts.tolist()).score for counts in sums]
    assert corpus_bleu(np.stack(sums)) == pytest.approx(expected, abs=1e-9)


# --- the tokenizer that suits a language

TEXTS = {  # fmt: skip
    "zh": "我们明天去北京看朋友。", "zh-CN": "他昨天买了两本新书。", "yue": "我哋聽日去旺角戲院睇戲。",
    "ja": "明日は友だちと東京へ行きます。", "th": "พรุ่งนี้เราจะไปเที่ยวทะเล", "lo": "ມື້ອື່ນພວກເຮົາຈະໄປຕະຫຼາດ",
    "km": "ស្អែកយើងនឹងទៅផ្សារ", "my": "မနက်ဖြန်ကျွန်တော်တို့ဈေးသွားမယ်",
    "ko": "내일 우리는 친구를 만나러 서울에 갑니다.", "de": "Morgen fahren wir ans Meer."}


@pytest.mark.parametrize(("lang", "text"), TEXTS.items())
def test_bleu_tells_translations_apart_in_every_script(lang: str, text: str) -> None:
    references, tokenizer = [text, text[::-1], text[3:]], bleu_tokenizer(lang)
    worse = [reference[:-5] for reference in references]
    perfect, less = score(references, references, tokenizer), score(worse, references, tokenizer)
    assert perfect.bleu == pytest.approx(100)
    assert signed_tokenizer(perfect.bleu_signature) == tokenizer
    assert 10 < less.bleu < 95
    assert less.bleu == pytest.approx(sacrebleu.corpus_bleu(worse, [references], tokenize=tokenizer).score, abs=1e-9)
    assert less.bleu == bleu_from_sentences(sentence_statistics(worse, references, tokenizer))


@pytest.mark.parametrize(("lang", "with_mecab", "without"), [
    ("en", "13a", "13a"), ("de", "13a", "13a"), ("fr", "13a", "13a"), ("zh", "zh", "zh"), ("zh_TW", "zh", "zh"),
    ("zho_Hans", "zh", "zh"), ("cmn", "zh", "zh"), ("cn", "zh", "zh"), ("ja", "ja-mecab", "char"),
    ("jpn_Jpan", "ja-mecab", "char"), ("ko", "ko-mecab", "13a"), ("kor-KR", "ko-mecab", "13a"), ("th", "char", "char"),
    ("TH", "char", "char"), ("mya_Mymr", "char", "char"), ("bo", "char", "char"), ("tha", "char", "char")])
def test_each_language_has_the_tokenizer_that_suits_it(lang: str, with_mecab: str, without: str,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    for expected, found in ((with_mecab, object()), (without, None)):
        monkeypatch.setattr(metrics, "find_spec", lambda name, found=found: found)
        assert bleu_tokenizer(lang) == expected
    assert bleu_tokenizer(lang, "intl") == "intl"


def test_a_tokenizer_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    for name, (_, installs) in metrics.NEEDS.items():
        with pytest.raises(UserError) as caught:
            bleu_tokenizer("ja", name)
        assert str(caught.value) == f"BLEU tokenizer {name}: is not installed here: pip install '{installs}'"

    def offline(**_: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(metrics, "find_spec", lambda name: object())
    monkeypatch.setattr(metrics, "BLEU", offline)
    with pytest.raises(UserError, match="^BLEU tokenizer flores200: cannot be loaded: no route to host; char needs"):
        bleu_tokenizer("th", "flores200")


def test_every_tokenizer_is_one_of_sacrebleu_s() -> None:
    assert set(BLEU_TOKENIZERS) <= set(BLEU.TOKENIZERS)
    assert {*metrics.LANGUAGES, *metrics.NEEDS, *metrics.WITHOUT.values(), metrics.DEFAULT_TOKENIZER} <= set(
        BLEU_TOKENIZERS)
