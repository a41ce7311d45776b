"""A line that is unlike a run's source text is told from one that is like it, by tokens and by how finely it is cut."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data.encoded import EncodedSplit
from minitx.data.source_text import NAME, SourceText
from minitx.data.tokenizer import Tokenizer
from minitx.utils.errors import Exit, UserError

WORDS = ["the", "dog", "sees", "cat", "old", "house", "near", "river", "walks", "sleeps", "window", "garden"]
TEXT = [" ".join(np.random.default_rng(seed).choice(WORDS, 6)) + "." for seed in range(200)]


def split(texts: list[str], tokenizer: Tokenizer) -> EncodedSplit:
    ids = tokenizer.encode_batch(texts)
    flat = np.fromiter(chain.from_iterable(ids), np.int32)
    offsets = np.concatenate(([0], np.cumsum([len(line) for line in ids])))
    return EncodedSplit(flat, offsets, flat, offsets)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXT, None)


@pytest.fixture(scope="module")
def known(tokenizer: Tokenizer) -> SourceText:
    return SourceText.measure(split(TEXT, tokenizer), tokenizer)


def test_what_is_measured_is_what_the_text_has(tokenizer: Tokenizer, known: SourceText) -> None:
    ids = tokenizer.encode_batch(TEXT)
    read = set(chain.from_iterable(ids))
    assert known.unread == set(range(tokenizer.vocab_size)) - read
    words = [len(text.split()) for text in TEXT]
    assert known.tokens_a_word == pytest.approx(2 * sum(map(len, ids)) / sum(words))


def test_no_line_of_the_text_is_strange_and_words_that_it_has_not_are_named(tokenizer: Tokenizer,
                                                                            known: SourceText) -> None:
    assert not any(known.strange_words(ids, tokenizer) for ids in tokenizer.encode_batch(TEXT))
    assert known.strange_words(tokenizer.encode("The quantum cat computes."), tokenizer) == [
        "The", "quantum", "computes"]
    long = f"{' '.join(WORDS * 2)} quark."
    assert known.strange_words(tokenizer.encode(long), tokenizer) == [], "one in so many words is no other text"


def test_a_line_of_known_tokens_is_strange_if_it_is_cut_far_more_finely(tokenizer: Tokenizer) -> None:
    all_read = SourceText(frozenset(), 2.5)
    assert all_read.strange_words(tokenizer.encode("Blockchain, sees quarks"), tokenizer) == ["Blockchain", "quarks"]
    assert all_read.strange_words(tokenizer.encode("the dog sees the cat quark"), tokenizer) == []


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_line_is_judged(text: str) -> None:
    tokenizer = Tokenizer.train(TEXT[:20], None)
    known = SourceText.measure(split(TEXT[:20], tokenizer), tokenizer)
    for word in known.strange_words(tokenizer.encode(text), tokenizer):
        assert word.replace("\N{REPLACEMENT CHARACTER}", "") in text


def test_a_run_that_began_with_another_s_weights_has_read_both_texts() -> None:
    both = SourceText(frozenset({1, 2}), 2.0).joined(SourceText(frozenset({2, 3}), 3.0))
    assert both == SourceText(frozenset({2}), 3.0)


def test_it_is_kept_in_the_run_directory(known: SourceText, tmp_path: Path) -> None:
    assert SourceText.read(tmp_path) is None, "as a run of an older version"
    known.save(tmp_path)
    assert SourceText.read(tmp_path) == known
    for damage in ("{", "[]", '{"unread": null, "tokens_a_word": 2}', '{"unread": [1]}'):
        (tmp_path / NAME).write_text(damage)
        with pytest.raises(UserError, match="source_text.json: damaged .* delete it") as slip:
            SourceText.read(tmp_path)
        assert slip.value.code == Exit.STORAGE
