"""The embedded corpus: one meaning a sentence, order that matters, and nothing in the test set to recall."""

import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import corpus_bleu

from minitx.data.synthetic.lexicon import lexicon
from minitx.data.synthetic.text import (
    LENGTHS,
    PHENOMENA,
    Sentence,
    SyntheticCorpus,
    _dictionary,
    role_accuracy_pct,
    role_swaps_pct,
    word_for_word,
)
from minitx.data.tokenizer import Tokenizer

PAIRS = tuple(f"pairs_{words}" for words in LENGTHS[1:])
ALL = ("train", "valid", "test", "minimal_pairs", *(f"length_{words}" for words in LENGTHS), *PAIRS, "test_shuffled")


@pytest.fixture(scope="module", params=[5_000, pytest.param(50_000, marks=pytest.mark.slow)])
def corpus(request: pytest.FixtureRequest) -> SyntheticCorpus:
    return SyntheticCorpus(seed=1, train_size=request.param)


def words(sentence: Sentence) -> int:
    return len(sentence.src.split())


def test_sets_have_their_names_and_sizes(corpus: SyntheticCorpus) -> None:
    assert corpus.split_names == ALL
    sizes = [len(corpus.sentences(split)) for split in ALL]
    assert sizes == [corpus.train_size, 1000, 1000, 1000, *[200] * 9, 1000]
    with pytest.raises(KeyError, match="dev"):
        corpus.sentences("dev")


def test_ordinary_sentences_have_four_to_sixteen_words(corpus: SyntheticCorpus) -> None:
    assert {words(s) for split in ALL[:3] for s in corpus.sentences(split)} == set(range(4, 17))


@pytest.mark.parametrize("length", LENGTHS)
def test_length_sets_have_exactly_their_length(corpus: SyntheticCorpus, length: int) -> None:
    assert {words(sentence) for sentence in corpus.sentences(f"length_{length}")} == {length}


@pytest.mark.parametrize("length", LENGTHS[1:])
def test_long_minimal_pairs_have_their_length_and_differ_in_the_first_clause(corpus: SyntheticCorpus,
                                                                             length: int) -> None:
    sentences = corpus.sentences(f"pairs_{length}")
    assert {words(sentence) for sentence in sentences} == {length}
    for first, second in zip(sentences[::2], sentences[1::2], strict=True):
        assert first.src.partition(",")[2] == second.src.partition(",")[2]
        assert first.tgt.partition(",")[2] == second.tgt.partition(",")[2]
        one, other = (text.partition(",")[0].split() for text in (first.src, second.src))
        assert one != other
        assert sorted(map(str.lower, one)) == sorted(map(str.lower, other))
    references = [sentence.tgt for sentence in sentences]
    assert role_accuracy_pct(references, references) == 100
    assert role_swaps_pct(references, references) == 0
    swapped = [references[row ^ 1] for row in range(len(references))]
    assert (role_accuracy_pct(swapped, references), role_swaps_pct(swapped, references)) == (0, 100)


def test_what_follows_the_first_clause_has_no_say_in_roles() -> None:
    reference = "Der Hund sieht die Katze, und die Maus schläft."
    assert role_accuracy_pct(["Der Hund hat die Katze gesehen, weil der Mann den Vogel jagt."], [reference]) == 100
    assert role_accuracy_pct(["Die Katze sieht den Hund, und die Maus schläft."], [reference]) == 0


@pytest.mark.parametrize("src", ["en", "de"])
def test_shuffling_moves_the_sources_words_and_nothing_else(corpus: SyntheticCorpus, src: str) -> None:
    plain, shuffled = (corpus.pairs(split, src) for split in ("test", "test_shuffled"))
    tokenizer, moved = Tokenizer.train((source for source, _ in corpus.pairs("train", src, 2_000)), 500), 0
    for (source, target), (other, same) in zip(plain, shuffled, strict=True):
        assert same == target
        assert sorted(tokenizer.encode(source)) == sorted(tokenizer.encode(other)), "to a reader of bags they are one"
        assert (source.split()[0], source[-1]) == (other.split()[0], other[-1])
        moved += source != other
    assert moved > 0.95 * len(plain)
    assert corpus.pairs("test_shuffled", src, 5) == shuffled[:5]


def test_a_training_text_may_have_long_sentences_too() -> None:
    long = [words(sentence) for sentence in SyntheticCorpus(1, 400, 200).sentences("train")]
    assert 0.4 < sum(count > 16 for count in long) / len(long) < 0.6
    assert 100 < max(long) <= 200
    assert 0.35 < sum(16 < count <= 58 for count in long) / sum(count > 16 for count in long) < 0.65, "evenly, by ratio"
    plain = SyntheticCorpus(1, 50).sentences("train")
    assert SyntheticCorpus(1, 50, 16).sentences("train") == plain
    assert SyntheticCorpus(1, 50, 17).fingerprint != SyntheticCorpus(1, 50).fingerprint


def test_sentences_are_plain_text(corpus: SyntheticCorpus) -> None:
    for split in ALL:
        for sentence in corpus.sentences(split):
            for text in (sentence.src, sentence.tgt):
                assert text[0].isupper()
                assert text[-1] in ".?"
                assert not any(fault in text for fault in ("  ", " ,", ",,", ",.", ",?"))


def test_each_sentence_has_one_translation_in_both_directions(corpus: SyntheticCorpus) -> None:
    pairs = {(s.src, s.tgt) for split in ALL for s in corpus.sentences(split)}
    assert len({src for src, _ in pairs}) == len({tgt for _, tgt in pairs}) == len(pairs)


def test_evaluation_shares_no_triple_and_no_sentence_with_training(corpus: SyntheticCorpus) -> None:
    train = {triple for s in corpus.sentences("train") for triple in s.triples}
    for split in ALL[1:]:
        sentences = corpus.sentences(split)
        assert len({s.src for s in sentences}) == len(sentences)
        assert all(s.triples for s in sentences)
        assert train.isdisjoint(triple for s in sentences for triple in s.triples)
    valid, test = ({s.src for s in corpus.sentences(split)} for split in ("valid", "test"))
    assert not valid & test


def test_every_word_can_be_learned(corpus: SyntheticCorpus) -> None:
    seen = Counter(
        word
        for s in corpus.sentences("train")
        for word in s.src.lower().rstrip(".?").replace(",", "").split()
    )
    lex = lexicon()
    forms = [{n.en, n.en_plural} for n in lex.nouns]
    forms += [{v.en, v.en_third, v.en_past, v.en_participle} for v in lex.verbs]
    others = (lex.adjectives, lex.adverbs, lex.determiners, lex.prepositions, lex.conjunctions, lex.modals)
    forms += [{word.en} for entries in others for word in entries if word.en]
    assert min(sum(seen[form] for form in entry) for entry in forms) >= corpus.train_size // 2_500


def test_every_phenomenon_is_in_a_tenth_of_the_test_set(corpus: SyntheticCorpus) -> None:
    counts = Counter(name for s in corpus.sentences("test") for name in s.phenomena)
    assert set(counts) == set(PHENOMENA)
    assert {name for name, count in counts.items() if count < 100} == set()


def test_repeats_in_training_are_rare(corpus: SyntheticCorpus) -> None:
    assert len({s.src for s in corpus.sentences("train")}) > 0.99 * corpus.train_size


def test_a_dictionary_does_not_solve_the_test_set(corpus: SyntheticCorpus) -> None:
    test = corpus.sentences("test")
    hypotheses = [word_for_word(s.src) for s in test]
    assert 5 < corpus_bleu(hypotheses, [[s.tgt for s in test]]).score < 40


def test_the_dictionary_knows_every_form(corpus: SyntheticCorpus) -> None:
    words = {word for s in corpus.sentences("test") for word in s.src[:-1].replace(",", "").lower().split()}
    assert words <= set(_dictionary())
    assert word_for_word("The old dog sees an owl, and the boy's cat calls.") == (
        "Die alt Hund sieht ein Eule, und die Jungen Katze ruft an."
    )


def test_minimal_pairs_differ_in_order_alone(corpus: SyntheticCorpus) -> None:
    sentences = corpus.sentences("minimal_pairs")
    for first, second in zip(sentences[::2], sentences[1::2], strict=True):
        assert first.src != second.src
        assert first.tgt != second.tgt
        assert sorted(first.src[:-1].split()) == sorted(second.src[:-1].split())


def test_a_bag_of_words_gets_at_most_half_of_the_roles(corpus: SyntheticCorpus) -> None:
    """Answer each pair with one of its own references, the best that a model blind to order can do."""
    references = [s.tgt for s in corpus.sentences("minimal_pairs")]
    assert role_accuracy_pct([text for text in references[::2] for _ in range(2)], references) == 50.0
    assert role_accuracy_pct(references, references) == 100.0


REFERENCE = "Der Hund sieht die Katze."


@pytest.mark.parametrize(
    ("hypothesis", "right"),
    [
        ("Der Hund sieht die Katze.", True),
        ("Der Hund hat die Katze gejagt.", True),
        ("Der Hund greift die Katze an.", True),
        ("Die Katze sieht den Hund.", False),
        ("Der Hund sieht den Katze.", False),
        ("Der Hund sieht eine Katze.", False),
        ("Den Hund sieht die Katze.", False),
        ("Der Hund sieht.", False),
        ("Der Hund die Katze sieht.", False),
        ("Sieht der Hund die Katze.", False),
        ("Der Hund sieht die Katze die Maus.", False),
        ("Der Hund sieht die Katze Maus.", False),
        ("Der Hund sieht die", False),
        ("Der Hund sieht die Katze die.", False),
        ("", False),
    ],
)
def test_roles_are_right_only_when_both_noun_phrases_are(hypothesis: str, right: bool) -> None:
    assert role_accuracy_pct([hypothesis], [REFERENCE]) == 100 * right


def test_roles_are_scored_in_english_too() -> None:
    assert role_accuracy_pct(["The dog has seen the cat."], ["The dog saw the cat."]) == 100.0
    assert role_accuracy_pct(["The cat saw the dog."], ["The dog saw the cat."]) == 0.0


@given(st.text())
def test_scoring_and_translating_take_any_text(text: str) -> None:
    word_for_word(text)
    assert role_accuracy_pct([text], [REFERENCE]) in (0.0, 100.0)


def test_role_accuracy_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="at least one"):
        role_accuracy_pct([], [])
    with pytest.raises(ValueError, match="longer"):
        role_accuracy_pct([], [REFERENCE])


def test_text_depends_on_the_seed_alone_and_not_on_the_process() -> None:
    program = (
        "import sys; from minitx.data.synthetic.text import *; c = SyntheticCorpus(5, 300)\n"
        "texts = [s.src + s.tgt for name in ('train', 'length_10') for s in c.sentences(name)]\n"
        "sys.stdout.buffer.write('\\n'.join(texts).encode())"
    )
    path = os.pathsep.join(sys.path)
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = SyntheticCorpus(5, 300)
    texts = [s.src + s.tgt for name in ("train", "length_10") for s in here.sentences(name)]
    outputs.add("\n".join(texts).encode())
    assert len(outputs) == 1


def test_sets_do_not_depend_on_the_order_of_first_use() -> None:
    first, second = SyntheticCorpus(3, 100), SyntheticCorpus(3, 200)
    test = first.sentences("test")
    assert second.sentences("train")[:100] == first.sentences("train")
    assert second.sentences("test") == test


def test_fingerprint_follows_seed_and_size() -> None:
    prints = {SyntheticCorpus(seed, size).fingerprint for seed in (1, 2) for size in (10, 20)}
    assert len(prints) == 4
    assert SyntheticCorpus(1, 10).fingerprint in prints
