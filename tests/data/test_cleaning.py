"""Cleaning: what is left out, what is held out, and that nothing else moves."""

import json
from collections import Counter
from dataclasses import asdict

import pytest
from data.conftest import clean_config
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data.cleaning import REASONS, Cleaning, Overlap, clean, fault, hold_out, overlap
from minitx.utils.errors import Exit, UserError

# Few letters, so that duplicates and identical sides come up; odd ones, so that every reason does.
SIDE = st.text(st.sampled_from("ab \t\u2028\x85\x0c\r\0\x1b\x9f\ud800\udcff\ufeff"), max_size=3)
PAIRS = st.lists(st.tuples(SIDE, SIDE), max_size=30)
CLEAN = st.builds(clean_config, identical=st.booleans(), duplicates=st.booleans())


@given(PAIRS, CLEAN)
@settings(max_examples=300)
def test_counts_add_up_and_what_is_kept_stays_in_order_and_has_no_reason_to_go(pairs, cfg):
    kept, dropped = clean(pairs, cfg)
    assert list(dropped) == list(REASONS)
    assert len(kept) + sum(dropped.values()) == len(pairs)
    rest = iter(pairs)
    assert all(pair in rest for pair in kept)  # a subsequence: order kept, no sides of two pairs in one
    assert not any(fault(pair, cfg.identical) for pair in kept)
    if cfg.duplicates:
        assert len(set(kept)) == len(kept)
    assert set(kept) == {pair for pair in pairs if not fault(pair, cfg.identical)}
    assert clean(kept, cfg) == (kept, dict.fromkeys(REASONS, 0))


@given(PAIRS, PAIRS, CLEAN)
def test_the_first_of_duplicates_stays_so_a_prefix_gives_a_prefix(pairs, more, cfg):
    kept, _ = clean(pairs, cfg)
    assert clean(pairs + more, cfg)[0][: len(kept)] == kept


@pytest.mark.parametrize(("pair", "reason"), [
    (("a\udcff", "b"), "with invalid UTF-8"), (("\0\udc80", ""), "with invalid UTF-8"),
    (("a", "\ud83d"), "with control characters"), (("a\0", "a\0"), "with control characters"),
    (("\x1b[1m", "b"), "with control characters"), (("a", "\x7f"), "with control characters"),
    (("\x80", "b"), "with control characters"),
    (("", "b"), "with an empty side"), (("a", " \t\u3000\u2028\x85"), "with an empty side"),
    (("", ""), "with an empty side"), (("\u200b", "b"), "with an empty side"), (("a", "\ufeff"), "with an empty side"),
    (("\u00ad", "\u2060"), "with an empty side"),
    (("a", "a"), "with identical sides"), ((" a", "a\u00a0"), "with identical sides"),
    (("a\tb\x0b\x0c\r\nc", "d\x85e\u2028f\ufeff"), None), (("a", "A"), None), (("\U0010ffff", "\u200bb"), None),
])  # fmt: skip
def test_the_first_reason_is_the_one_that_counts(pair, reason):
    assert fault(pair, identical=True) == reason
    if reason == "with identical sides":
        assert fault(pair, identical=False) is None


def test_duplicates_are_pairs_to_the_letter():
    pairs = [("a", "b"), ("a", "c"), ("b", "a"), ("a", "b"), ("a", "b "), ("ab", "c"), ("a", "bc"), ("a", "b")]
    kept, dropped = clean(pairs, clean_config(duplicates=True))
    assert kept == [pair for row, pair in enumerate(pairs) if row not in (3, 7)]
    assert dropped["repeated"] == 2


@given(PAIRS, st.dictionaries(st.sampled_from(["valid", "test"]), PAIRS))
def test_overlap_counts_each_sentence_of_a_set(train, sets):
    sources = {src for src, _ in train}
    found = overlap(train, sets)
    assert Cleaning(1, 1, {}, found).counts()["overlap"] == {
        name: {"sources": sum(src in sources for src, _ in pairs), "pairs": sum(pair in train for pair in pairs),
               "sentences": len(pairs)} for name, pairs in sets.items()}
    for name, pairs in sets.items():
        assert all(pairs[row][0] in sources for row in found[name].sources)
        assert all(pairs[row] in train for row in found[name].pairs)


@given(st.lists(PAIRS, min_size=1, max_size=4), st.dictionaries(st.sampled_from(["valid", "test"]), PAIRS))
def test_what_is_found_in_parts_of_a_text_is_found_in_the_text(parts, sets):
    cleanings = []
    for part in parts:
        kept, dropped = clean(part, clean_config())
        cleanings.append(Cleaning.parse(json.loads(json.dumps(
            asdict(Cleaning(len(part), len(kept), dropped, overlap(kept, sets)))))))
    text = [pair for part in parts for pair in part]
    kept, dropped = clean(text, clean_config())
    assert Cleaning.combine(cleanings) == Cleaning(len(text), len(kept), dropped, overlap(kept, sets))


WORD = st.text("abcde", min_size=1, max_size=3)


@given(st.lists(st.tuples(WORD, WORD), max_size=60), st.integers(1, 6), st.randoms())
def test_what_is_held_out_shares_no_side_with_what_is_left(pairs, size, random):
    counts = [Counter(side) for side in zip(*pairs, strict=True)]
    alone = [pair for pair in pairs if counts[0][pair[0]] == counts[1][pair[1]] == 1 and pair[0] != pair[1]]
    if len(alone) < 2 * size or len(pairs) == 2 * size:
        with pytest.raises(UserError, match=f"data.hold_out={size}: takes {2 * size:,} pairs") as caught:
            hold_out(pairs, size, reverse=False)
        assert caught.value.code == Exit.DATA
        return
    held = hold_out(pairs, size, reverse=False)
    assert [len(held[name]) for name in ("valid", "test")] == [size, size]
    taken = held["valid"] + held["test"]
    left = [pair for pair in pairs if pair not in taken]
    assert len(left) + 2 * size == len(pairs)
    assert set(taken) <= set(alone)
    for side in (0, 1):
        assert not {pair[side] for pair in taken} & {pair[side] for pair in left}
    for name in held:
        assert held[name] == [pair for pair in pairs if pair in held[name]]
    shuffled = random.sample(pairs, len(pairs))
    assert {name: set(chosen) for name, chosen in hold_out(shuffled, size, reverse=False).items()} == {
        name: set(chosen) for name, chosen in held.items()}
    turned = hold_out([(tgt, src) for src, tgt in pairs], size, reverse=True)
    assert {name: [(src, tgt) for tgt, src in chosen] for name, chosen in turned.items()} == held


def test_too_little_left_is_refused_with_counts_and_key():
    cleaning = Cleaning(10, 8, {"with an empty side": 0, "repeated": 2}, {})
    cleaning.check(20)
    with pytest.raises(UserError) as caught:
        cleaning.with_dropped({"longer than 5 tokens": 1}).check(20)
    assert str(caught.value) == ("30.0 % of 10 training pairs are left out (2 repeated, 1 longer than 5 tokens): "
                                 "mend the text, or raise data.clean.max_dropped_pct=20")
    assert caught.value.code == Exit.DATA
    with pytest.raises(UserError, match=r"no training pair is left of 10 \(2 repeated, 8 x\)"):
        cleaning.with_dropped({"x": 8}).check(100)


def test_what_a_person_reads():
    overlaps = {"valid": Overlap(9, [], []), "test": Overlap(1000, [3, 7], [7])}
    cleaning = Cleaning(2000, 1999, {"with an empty side": 1, "repeated": 0}, overlaps)
    assert cleaning.describe_dropped() == "1 with an empty side"
    assert cleaning.describe_overlap() == "2 sources, 1 whole pairs of the 1,000 in test"
    nothing = Cleaning(1, 1, {"with an empty side": 0}, {})
    assert nothing.describe_dropped() == nothing.describe_overlap() == ""
