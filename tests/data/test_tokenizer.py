"""The tokenizer: lossless on any text, learned from what it is given and nothing else."""

import subprocess
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data import tokenizer as tokenizing
from minitx.data.tokenizer import MAX_WORD, N_SPECIALS, Tokenizer, TokenizerPair, _cut_long_words, entries_for
from minitx.utils.errors import Exit, UserError

PAIRS = [(f"the {a} dog sees the {b} cat", f"der {a}e Hund sieht die {b}e Katze")
         for a in ("old", "small", "red", "quick") for b in ("grey", "lazy", "black", "thin")]
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
ODD = ["", " ", "  ", "<pad>", "</s>", "<s> <unk>", "a\0b", "👩‍👩‍👧 🏳️‍🌈", "e\u0301 ≠ é", " lead", "trail ",
       "\u2028\x85\x0c", "a\r\nb\n\n", "\ufeffbom", "Ġ Ċ", "x" * 3000, "\t\t  a", "שלום", "\U0010ffff"]


@pytest.fixture(scope="module")
def joint():
    return TokenizerPair.train(PAIRS, None, joint=True)


@pytest.fixture(scope="module")
def reloaded(joint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    joint.save(folder)
    return TokenizerPair.load(folder)


@given(TEXT)
@settings(max_examples=200, deadline=None)
def test_lossless_on_any_text_also_after_reloading(joint, reloaded, text):
    ids = joint.src.encode(text)
    assert joint.src.decode(ids) == text
    assert reloaded.src.encode(text) == ids
    assert reloaded.src.decode(ids) == text
    assert all(N_SPECIALS <= i < joint.src.vocab_size for i in ids)


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_lossless_on_odd_text(joint, reloaded, text):
    for tokenizer in (joint.src, reloaded.src):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert min(tokenizer.encode(text), default=N_SPECIALS) >= N_SPECIALS


@given(st.lists(TEXT, max_size=6))
@settings(max_examples=50)
def test_a_batch_of_any_texts_is_its_texts(joint, texts):
    ids = joint.src.encode_batch(texts)
    assert ids == [joint.src.encode(text) for text in texts]
    assert joint.src.decode_batch(ids) == texts


@given(st.lists(st.integers(0, 400), max_size=20))
@settings(max_examples=50)
def test_specials_change_nothing_in_any_ids(joint, ids):
    ids = [id_ % joint.src.vocab_size for id_ in ids]
    assert joint.src.decode(ids) == joint.src.decode([id_ for id_ in ids if id_ >= N_SPECIALS])


def test_batches_equal_single_calls(joint):
    ids = joint.src.encode_batch(ODD)
    assert ids == [joint.src.encode(text) for text in ODD]
    assert joint.src.decode_batch(ids) == ODD
    assert joint.src.encode_batch([]) == joint.src.decode_batch([]) == []


def test_specials_are_ignored_in_decoding(joint):
    ids = joint.src.encode("the dog")
    assert joint.src.decode([joint.src.bos_id, *ids, joint.src.eos_id, joint.src.pad_id]) == "the dog"
    assert joint.src.decode([]) == joint.src.decode([0, 1, 2]) == ""


def test_broken_utf8_becomes_a_replacement_character(joint):
    ids = joint.src.encode("é")
    assert joint.src.decode(ids[:-1]) == "\ufffd"


def test_a_word_is_the_same_first_and_inside(joint):
    first, inside = joint.src.encode("dog"), joint.src.encode("the dog")
    assert inside == joint.src.encode("the") + first


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_text_can_be_learned_from(pairs, joint):
    pair = TokenizerPair.train(pairs, None, joint)
    for src, tgt in pairs:
        assert pair.src.decode(pair.src.encode(src)) == src
        assert pair.tgt.decode(pair.tgt.encode(tgt)) == tgt


def test_joint_is_one_object_and_separate_are_two(joint, reloaded):
    assert joint.src is joint.tgt
    assert joint.joint
    assert reloaded.src is reloaded.tgt
    separate = TokenizerPair.train(PAIRS, None, joint=False)
    assert not separate.joint
    assert separate.src.fingerprint != separate.tgt.fingerprint


def test_saving_keeps_the_fingerprint(joint, reloaded, tmp_path):
    assert reloaded.fingerprint == joint.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == []
    separate = TokenizerPair.train(PAIRS, 270, joint=False)
    separate.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.src.json", "tokenizer.tgt.json"]
    assert TokenizerPair.load(tmp_path).fingerprint == separate.fingerprint


def test_only_what_is_given_is_learned():
    """A word that only other splits have changes nothing, and has no entry of its own."""
    train, test = PAIRS, [("zyzzyva " * 50, "Zyzzyva " * 50)]
    pair = TokenizerPair.train(train, None, joint=True)
    again = TokenizerPair.train(list(train), None, joint=True)
    assert again.fingerprint == pair.fingerprint
    leaky = TokenizerPair.train(train + test, None, joint=True)
    assert leaky.fingerprint != pair.fingerprint
    assert len(pair.src.encode("zyzzyva")) > 5 > len(leaky.src.encode("zyzzyva"))


def test_two_processes_learn_the_same(joint):
    code = ("import sys; sys.path[:0] = sys.argv[1:]; from data.test_tokenizer import PAIRS, TokenizerPair;"
            "print(TokenizerPair.train(PAIRS, None, joint=True).fingerprint)")
    run = [sys.executable, "-c", code, *filter(None, sys.path)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == joint.fingerprint


def test_a_word_of_any_length_is_learned_from_in_bounded_pieces():
    """Learning takes time in proportion to a word's length squared: of 100,000 letters, ten seconds."""
    words = ["x" * 100_000, "日本" * 700, "the dog", "1½" * 501]
    parts = [list(_cut_long_words(word)) for word in words]
    assert list(map("".join, parts)) == words
    assert [max(map(len, part)) for part in parts] == [MAX_WORD, MAX_WORD, len("the dog"), MAX_WORD]
    tokenizer = Tokenizer.train(words, None)
    assert max(len(tokenizer.decode([id_])) for id_ in range(tokenizer.vocab_size)) <= MAX_WORD
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(words)] == words


@given(st.lists(st.text(st.sampled_from("ab 1½.'s\n日\u0301"), max_size=40), min_size=1, max_size=5))
@settings(max_examples=50)
def test_long_lines_of_shorter_words_teach_what_they_did(texts):
    lines = [f"{text} " * 100 for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        cut = Tokenizer.train(lines, None).fingerprint
        patch.setattr(tokenizing, "MAX_WORD", 10**9)
        assert Tokenizer.train(lines, None).fingerprint == cut


@pytest.mark.parametrize("size", [260, 280, 300])
def test_the_size_asked_for_is_the_size(size):
    assert TokenizerPair.train(PAIRS, size, joint=True).src.vocab_size == size


@pytest.mark.parametrize("size", [0, 259, 65_537])
def test_sizes_out_of_range(size):
    with pytest.raises(UserError, match=f"tokenizer.vocab_size={size}: must be 260 to 65,536"):
        TokenizerPair.train(PAIRS, size, joint=True)


def test_too_large_a_size_says_what_the_text_supports(joint):
    supported = joint.src.vocab_size
    with pytest.raises(UserError, match=f"the training text supports {supported} entries at most") as caught:
        TokenizerPair.train(PAIRS, 8000, joint=True)
    assert caught.value.code == Exit.DATA
    assert TokenizerPair.train(PAIRS, supported, joint=True).fingerprint == joint.fingerprint
    with pytest.raises(UserError, match="the source text supports"):
        TokenizerPair.train(PAIRS, 8000, joint=False)


def test_one_sentence_is_enough_for_the_default():
    pair = TokenizerPair.train([("a", "b")], None, joint=True)
    assert pair.src.vocab_size == 256 + N_SPECIALS
    assert pair.src.decode(pair.src.encode("anything")) == "anything"


def test_a_lone_surrogate_is_named(joint):
    with pytest.raises(UserError, match=r"text 2 of 3: character 3 is a lone surrogate \(U\+D83D\)"):
        joint.src.encode_batch(["fine", "ab\ud83d", "fine"])
    with pytest.raises(UserError, match="lone surrogate"):
        TokenizerPair.train([("a", "\udcff")], None, joint=True)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer.json, and no tokenizer.src.json"):
        TokenizerPair.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer.json: not a readable tokenizer"):
        TokenizerPair.load(tmp_path)


def test_the_fingerprint_is_of_entries_and_merges_not_of_the_file():
    no_merges = [Tokenizer.train([text], None).fingerprint for text in ("a b", "c d")]
    assert no_merges[0] == no_merges[1]
    assert len(no_merges[0]) == len(TokenizerPair.train(PAIRS, None, joint=True).fingerprint) == 64


@pytest.mark.parametrize(("pairs", "entries"), [(1, 1_000), (3_000, 1_200), (10_000, 4_000), (20_000, 8_000),
                                                (5_000_000, 8_000)])
def test_a_text_of_few_pairs_gets_few_entries(pairs, entries):
    assert entries_for(pairs) == entries


@pytest.mark.parametrize("joint", [True, False])
def test_entries_are_few_where_no_number_is_asked_for(monkeypatch, joint):
    draw = Random(1)
    words = ["".join(draw.choices("abcdefghijklmnop", k=6)) for _ in range(2_000)]
    pairs = [(" ".join(draw.choices(words, k=9)), " ".join(draw.choices(words, k=9))) for _ in range(1_000)]
    few, asked = (TokenizerPair.train(pairs, size, joint) for size in (None, 1_500))
    assert few.src.vocab_size == few.tgt.vocab_size == 1_000
    assert asked.src.vocab_size == 1_500
