"""Prefixes and repeats: constrained search is exhaustive search over the outputs that the constraints allow."""

from itertools import pairwise, product

import pytest
import torch
from decoding.test_search import EOS, PAD, SPECIALS, Toy, assert_same, exhaustive, limits, source
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import tiny_transformer

from minitx.data.batch import pack
from minitx.decoding.backend import Hypothesis
from minitx.decoding.constraints import Constraints
from minitx.decoding.search import beam, greedy, sample

CPU = torch.device("cpu")
PENALTIES = st.sampled_from([0.0, 0.6, 1.0])


def constrained(*prefixes: list[int], repeat: int = 0) -> Constraints:
    return Constraints.of(prefixes, repeat, CPU)


def is_allowed(ids: list[int], prefix: list[int], n: int) -> bool:
    """Tell whether an output begins with the prefix and has no n-gram twice that ends behind it."""
    ends = range(max(n, len(prefix) + 1), len(ids) + 1) if n else ()
    return ids[:len(prefix)] == prefix and not any(
        ids[end - n:end] == ids[at - n:at] for end in ends for at in range(n, end))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Toy, list[int], int, int]:
    """A model, a prefix, a limit that it leaves room for, and the n of no-repeat-n-gram."""
    letters = draw(st.integers(1, 3))
    prefix = draw(st.lists(st.integers(3, 2 + letters), max_size=3))
    model = Toy(3 + letters, draw(st.integers(0, 10**6)), eos_bonus=draw(st.sampled_from([-3.0, 0.0, 2.0])))
    return model, prefix, draw(st.integers(max(1, len(prefix)), 4)), draw(st.integers(0, 3))


@settings(max_examples=60)
@given(cases(), PENALTIES)
def test_a_wide_beam_is_exhaustive_search_over_what_is_allowed(case: tuple[Toy, list[int], int, int],
                                                               length_penalty: float) -> None:
    model, prefix, limit, n = case
    everything = exhaustive(model, 5, limit, length_penalty)
    wanted = [found for found in everything if is_allowed(found.ids, prefix, n)]
    found, = beam(model, source(5), max_lengths=limits(limit), beam_size=len(everything), n_best=len(everything),
                  length_penalty=length_penalty, constraints=constrained(prefix, repeat=n), **SPECIALS)
    assert_same(found, wanted)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(0, 3), st.lists(st.lists(st.integers(3, 5), max_size=4), min_size=1,
                                                           max_size=6))
def test_batch_mates_with_other_prefixes_change_nothing(seed: int, n: int, prefixes: list[list[int]]) -> None:
    model, size = Toy(6, seed), len(prefixes)
    bounds = [4 + seed % (2 + key) for key in range(size)]
    together = {"max_lengths": limits(*bounds), "constraints": constrained(*prefixes, repeat=n), **SPECIALS}
    beams = beam(model, source(*range(size)), beam_size=3, length_penalty=1.0, **together)
    best = greedy(model, source(*range(size)), **together)
    drawn = sample(model, source(*range(size)), seeds=range(size), **together)
    for key, prefix in enumerate(prefixes):
        alone = {"max_lengths": limits(bounds[key]), "constraints": constrained(prefix, repeat=n), **SPECIALS}
        assert beams[key] == beam(model, source(key), beam_size=3, length_penalty=1.0, **alone)[0]
        assert best[key] == greedy(model, source(key), **alone)[0]
        assert best[key] == beam(model, source(key), beam_size=1, length_penalty=1.0, **alone)[0][0].ids
        assert drawn[key] == sample(model, source(key), seeds=[key], **alone)[0]
        for ids in [best[key], drawn[key], *(found.ids for found in beams[key])]:
            assert is_allowed(ids, prefix, n)


def test_prefixes_of_nothing_are_no_prefixes() -> None:
    assert not constrained([], [])
    assert not Constraints.of(None, 0, CPU)
    model, bounds = Toy(6, 3), limits(6, 6)

    def search(**options: Constraints) -> list[list[Hypothesis]]:
        return beam(model, source(1, 2), max_lengths=bounds, beam_size=3, length_penalty=1.0, **SPECIALS, **options)

    assert search(constraints=constrained([], [])) == search()
    assert search(constraints=constrained([], [4]))[0] == search()[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_token_is_banned_where_it_ends_an_ngram_that_is_there(dtype: torch.dtype) -> None:
    for n, written in product((1, 2, 3), ([[3, 4, 3], [4, 4, 4]], [[3, 4, 3, 4], [5, 3, 5, 4]], [[], []])):
        logits = Constraints(no_repeat_ngram=n).apply(torch.zeros(2, 6, dtype=dtype),
                                                      torch.tensor(written).long().view(2, -1))
        for row, ids in zip(logits.tolist(), written, strict=True):
            grams = {tuple(ids[at:at + n]) for at in range(len(ids) - n + 1)}
            for token in range(6):
                begun = tuple([*ids, token][len(ids) + 1 - n:])
                assert row[token] == (-float("inf") if len(begun) == n and begun in grams else 0)


def test_a_prefix_may_repeat_what_the_search_may_not() -> None:
    model = Toy(7, 5, eos_bonus=-50.0)
    ids, = greedy(model, source(0), max_lengths=limits(8), constraints=constrained([3, 3, 3], repeat=1), **SPECIALS)
    assert ids[:3] == [3, 3, 3]
    assert len(set(ids[3:])) == len(ids[3:]) > 0
    assert not {3, EOS, PAD} & set(ids[3:])
    ids, = greedy(model, source(0), max_lengths=limits(8), constraints=constrained(repeat=2), **SPECIALS)
    assert len(set(pairwise(ids))) == len(ids) - 1 > 0


@pytest.mark.parametrize("forced", [10, 70, 199])
def test_a_forced_token_is_one_candidate(forced: int) -> None:
    """In a vocabulary of several groups, too, of which all but one have nothing that may be chosen."""
    model = tiny_transformer(src_vocab_size=200, tgt_vocab_size=200)
    found, = beam(model, pack([[5, 6, 2]], 0), max_lengths=limits(5), beam_size=4, n_best=4, length_penalty=0.0,
                  constraints=constrained([forced]), **SPECIALS)
    assert [h.ids[0] for h in found] == [forced] * len(found)
    assert len({tuple(h.ids) for h in found}) == 4
