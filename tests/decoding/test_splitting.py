"""Long lines: parts that fit, nothing lost, in order, and one line out for each line in."""

from dataclasses import replace

import pytest
from decoding.test_translator import DECODE, Copier, Letters, translate_with
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data.tokenizer import Tokenizer
from minitx.decoding.splitting import cut_between_words, split_line
from minitx.decoding.translator import Translator

WORDS = st.lists(st.sampled_from(["a", "dog", "zebra", "crossing", "x" * 30]), min_size=1, max_size=12)
LONG = "the dog sees a cat and the cat sees a dog"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["The dog sees Dr. Smith. It was 3.5 m long!"] * 3, None)


@settings(max_examples=100)
@given(WORDS, st.integers(1, 20))
def test_a_cut_loses_nothing_and_falls_between_words_where_it_can(words: list[str], most: int) -> None:
    ids = Letters().encode_batch([" ".join(words)])[0]
    parts = list(cut_between_words(ids, Letters.word_beginnings, most))
    assert sum(parts, []) == ids
    assert all(0 < len(part) <= most for part in parts)
    for before, after in zip(parts, parts[1:], strict=False):
        if after[0] != 3:
            assert len(before) == most
            assert 3 not in before[1:], "a space was there to cut at"
        else:
            assert len(before) + next((n for n, id_ in enumerate(after) if n and id_ == 3), len(after)) > most


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["The dog sees Dr. Smith.", "It was 3.5 m long!", "Dog.", "The dog"]), min_size=1,
                max_size=6), st.sampled_from([" ", "  ", "\t"]), st.integers(2, 30))
def test_a_split_keeps_every_letter(tokenizer: Tokenizer, sentences: list[str], space: str, most: int) -> None:
    text = space.join(sentences)
    parts = split_line(text, "en", tokenizer, most)
    assert all(0 < len(part) <= most for part in parts)
    assert "".join("".join(map(tokenizer.decode, parts)).split()) == "".join(text.split())


def test_sentences_end_where_the_language_ends_them(tokenizer: Tokenizer) -> None:
    text = "The dog sees Dr. Smith. It was 3.5 m long! Dog."
    found = [tokenizer.decode(ids) for ids in split_line(text, "en", tokenizer, 100)]
    assert found == ["The dog sees Dr. Smith.", "It was 3.5 m long!", "Dog."]
    assert [tokenizer.decode(ids) for ids in split_line(text, "xx", tokenizer, 100)][-2:] == found[-2:]
    assert len(split_line("The dog. \N{ZERO WIDTH SPACE}", "en", tokenizer, 100)) == 1, "what is blank is no sentence"


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_line_too_long_is_split_and_joined_and_said(beam_size: int) -> None:
    translator, calls = translate_with(Copier()), []
    found = translator.translate([LONG, "", "short", LONG[:19]], beam_size=beam_size,
                                 warn=lambda row, what: calls.append((row, what)))
    assert [" ".join(text.split()) for text in found] == [LONG, "", "short", LONG[:19].strip()]
    assert calls == [(0, "42 tokens, split into 3 parts: at most 20 are read at once")]
    with pytest.warns(UserWarning, match="line 1: 42 tokens, split into 3 parts"):
        best, short = translator.n_best([LONG, "cat"], 2, beam_size=2)
    assert len(best) == 1
    assert len(short) == 2
    assert " ".join(best[0].text.split()) == LONG
    parts = translator.n_best([LONG[:19], LONG[19:38], LONG[38:]], 1, beam_size=2)
    assert best[0].log_prob == pytest.approx(sum(part[0].log_prob for part in parts), abs=1e-4)


def test_all_lines_are_split_or_none(tokenizer: Tokenizer) -> None:
    class Both:
        src = tgt = tokenizer

    lines = ["The dog. It was long!", "Dog."]
    model = Seen()
    decode = replace(DECODE, max_length_extra=1, max_length_ratio=0.1, max_source_length=100)
    translator = Translator(translate_with(model, decode=decode).backend, Both(), decode)  # type: ignore[arg-type]
    for split, wanted in (("never", 2), ("long", 2), ("always", 3)):
        model.read = 0
        assert len(translator.translate(lines, split=split)) == 2
        assert model.read == wanted
    with pytest.raises(ValueError, match="split='some': must be long, always, never"):
        translator.translate(lines, split="some")


class Seen(Copier):
    """Count the sentences that are read, and write what the letters of a small vocabulary can."""

    read = 0

    def encode(self, src):  # type: ignore[no-untyped-def]
        self.read += len(src.lengths)
        return super().encode(src) % 20 + 3


def test_draws_for_the_parts_of_a_line_are_not_the_same_ones() -> None:
    from decoding.test_translator import Undecided

    translator = translate_with(Undecided(), decode=replace(DECODE, max_source_length=6))
    text, = translator.sample(["aaaaa aaaa"], warn=lambda row, what: None)
    assert text[:5] != text[-5:]
    prefixed, = translate_with(Copier(), decode=replace(DECODE, max_source_length=6)).translate(
        ["aaaaa bbbb"], prefixes=["x"], warn=lambda row, what: None)
    assert prefixed.split() == ["xaaaa", "bbbb"], "the first part begins with it"
