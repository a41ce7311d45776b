"""Search against an oracle that lists every output, on models small enough to list them."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minitx.data.batch import Packed, pack
from minitx.decoding import search
from minitx.decoding.backend import Hypothesis
from minitx.decoding.search import _best, _kept, _likeliest, beam, greedy, sample
from minitx.models.base import DecodeState

PAD, BOS, EOS = 0, 1, 2
SPECIALS = {"bos_id": BOS, "eos_id": EOS, "pad_id": PAD}


class Toy:
    """Draw logits from a table by (first source token, last two tokens): enough for wrong rows or reorders to show."""

    def __init__(self, vocab: int, seed: int, *, eos_bonus: float = 0.0, levels: int | None = None,
                 dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.vocab = vocab
        self.table = 2 * torch.randn(16, vocab, vocab, vocab, generator=generator, dtype=torch.float64)
        if levels:  # few distinct values: many ties
            self.table = (self.table * levels).round() / levels
        self.table[..., EOS] += eos_bonus
        self.table = self.table.to(dtype)
        self.steps = self.rows = 0

    def encode(self, src: Packed) -> Tensor:
        return src.pad(src.ids[:, None].double())

    def init_state(self, memory: Tensor, src: Packed, beam_size: int = 1) -> DecodeState:
        key = memory[:, 0, 0].long()
        nothing_yet = torch.zeros(len(memory) * beam_size, 0, dtype=torch.long)
        return DecodeState(sentences=[key], beams=[nothing_yet], beam_size=beam_size)

    def step(self, tokens: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
        self.steps, self.rows = self.steps + 1, self.rows + len(tokens)
        history = torch.cat([state.beams[0], tokens[:, None]], 1)
        assert history.shape[1] == state.position + 1
        before = history[:, -2] if history.shape[1] > 1 else torch.zeros_like(tokens)
        key = state.sentences[0].repeat_interleave(state.beam_size)
        return self.table[key, before, tokens], DecodeState(state.sentences, [history], state.beam_size,
                                                            state.position + 1)


def source(*keys: int) -> Packed:
    return pack([[key] for key in keys], PAD)


def limits(*values: int) -> Tensor:
    return torch.tensor(values)


def log_prob(model: Toy, key: int, ids: list[int]) -> float:
    """Score one output by the table alone."""
    total, before, last = 0.0, 0, BOS
    for token in ids:
        total += model.table[key, before, last].double().log_softmax(-1)[token].item()
        before, last = last, token
    return total


def exhaustive(model: Toy, key: int, limit: int, length_penalty: float) -> list[Hypothesis]:
    """List every output: those that end with EOS within the limit, and those cut at it."""
    letters = range(3, model.vocab)
    outputs = [[*body, EOS] for length in range(limit) for body in product(letters, repeat=length)]
    outputs += [list(body) for body in product(letters, repeat=limit)]
    found = []
    for ids in outputs:
        total = log_prob(model, key, ids)
        kept = [token for token in ids if token != EOS]
        found.append(Hypothesis(kept, total, total / ((5 + len(ids)) / 6) ** length_penalty))
    return sorted(found, key=lambda h: (-h.score, h.ids))


def assert_same(found: list[Hypothesis], wanted: list[Hypothesis], tolerance: float = 1e-9) -> None:
    assert [h.ids for h in found] == [h.ids for h in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.log_prob == pytest.approx(other.log_prob, abs=tolerance)
        assert one.score == pytest.approx(other.score, abs=tolerance)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), letters=st.integers(1, 3), limit=st.integers(1, 3),
       length_penalty=st.sampled_from([0.0, 0.6, 1.0, 2.5]), eos_bonus=st.sampled_from([-3.0, 0.0, 2.0]))
def test_a_wide_beam_is_exhaustive_search(seed: int, letters: int, limit: int, length_penalty: float,
                                          eos_bonus: float) -> None:
    model = Toy(3 + letters, seed, eos_bonus=eos_bonus)
    wanted = exhaustive(model, 5, limit, length_penalty)
    src = source(5)
    for n_best in {1, min(3, len(wanted)), len(wanted)}:
        found, = beam(model, src, max_lengths=limits(limit), beam_size=len(wanted), length_penalty=length_penalty,
                      n_best=n_best, **SPECIALS)
        assert_same(found, wanted[:n_best])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), vocab=st.integers(3, 300), count=st.integers(1, 12),
       spread=st.sampled_from([1.0, 50.0]), cached=st.sampled_from([1, 700, 2**18]))
def test_the_best_tokens_are_those_of_a_stable_sort(seed: int, vocab: int, count: int, spread: float,
                                                    cached: int) -> None:
    """However many rows are searched at a time."""
    logits = (torch.randn(4, vocab, generator=torch.Generator().manual_seed(seed)) * spread).round()  # many ties
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "CACHED", cached)
        log_probs, ids = _best(logits.clone(), count, torch.tensor([PAD, BOS]))
    assert len(ids) == len(logits)
    for row, scores, found in zip(logits, log_probs, ids, strict=True):
        wanted = sorted(range(2, vocab), key=lambda token: -row[token].item())[:count]  # noqa: B023
        assert found.tolist()[:len(wanted)] == wanted
        assert torch.equal(scores[:len(wanted)], row.log_softmax(-1)[wanted])
        assert (scores[len(wanted):] == -math.inf).all()


@given(seed=st.integers(0, 99), rows=st.integers(1, 5), vocab=st.integers(1, 300), centre=st.integers(-4, 4),
       dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_the_likeliest_token_is_the_first_of_the_largest(seed: int, rows: int, vocab: int, centre: int,
                                                         dtype: torch.dtype) -> None:
    noise = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))
    logits = (centre + noise * 2).round().to(dtype)  # few values: ties, and rows without any that is positive
    logits[:, seed % vocab:seed % vocab + 2] = -math.inf
    expected = [row.index(max(row)) for row in logits.tolist()]
    assert _likeliest(logits).tolist() == expected


@pytest.mark.parametrize("length_penalty", [1.0, 6.0])
def test_pruning_is_exact_and_saves_steps(length_penalty: float) -> None:
    options = {"max_lengths": limits(12), "beam_size": 4, "length_penalty": length_penalty, **SPECIALS}
    pruned_steps = every_step = 0
    for seed in range(12):
        model = Toy(5, seed, eos_bonus=2.0)
        pruned, = beam(model, source(1), **options)
        pruned_steps += model.steps
        every, = beam(model, source(1), n_best=4, **options)  # ends when all four have
        every_step += model.steps
        assert_same(pruned, every[:1])
    assert 2 * pruned_steps < every_step or length_penalty > 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 9), levels=st.sampled_from([None, 1]),
       dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_a_beam_of_one_is_greedy_search_ties_included(seed: int, size: int, levels: int | None,
                                                      dtype: torch.dtype) -> None:
    model = Toy(6, seed, levels=levels, dtype=dtype)
    src = source(*range(size))
    bounds = limits(*(1 + (seed + i) % 7 for i in range(size)))
    best = greedy(model, src, max_lengths=bounds, **SPECIALS)
    found = beam(model, src, max_lengths=bounds, beam_size=1, length_penalty=0.7, **SPECIALS)
    assert [h.ids for h, in found] == best
    for key, (row, bound) in enumerate(zip(best, bounds.tolist(), strict=True)):
        ids, before, last = [], 0, BOS
        while len(ids) < bound and last != EOS:
            scores = model.table[key, before, last].tolist()
            before, last = last, max(range(2, model.vocab), key=lambda token: scores[token])  # the first of equals  # noqa: B023
            ids.append(last)
        assert row == [token for token in ids if token != EOS]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 12), beam_size=st.integers(1, 5), n_best=st.integers(1, 3),
       levels=st.sampled_from([None, 1]))
def test_batch_mates_and_their_order_change_nothing(seed: int, size: int, beam_size: int, n_best: int,
                                                    levels: int | None) -> None:
    model, n_best = Toy(6, seed, eos_bonus=1.0, levels=levels), min(n_best, beam_size)
    bounds = [1 + (seed // 7 + 3 * key) % 9 for key in range(size)]
    settings_ = {"beam_size": beam_size, "length_penalty": 1.0, "n_best": n_best, **SPECIALS}
    together = beam(model, source(*range(size)), max_lengths=limits(*bounds), **settings_)
    backwards = beam(model, source(*reversed(range(size))), max_lengths=limits(*reversed(bounds)), **settings_)
    alone = [beam(model, source(key), max_lengths=limits(bounds[key]), **settings_)[0] for key in range(size)]
    assert together == alone == backwards[::-1]
    best = greedy(model, source(*range(size)), max_lengths=limits(*bounds), **SPECIALS)
    assert best == [greedy(model, source(key), max_lengths=limits(bounds[key]), **SPECIALS)[0] for key in range(size)]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), beam_size=st.integers(1, 6), length_penalty=st.sampled_from([0.0, 1.0]))
def test_n_best_is_sorted_distinct_and_scored_as_the_model_scores(seed: int, beam_size: int,
                                                                  length_penalty: float) -> None:
    model = Toy(6, seed)
    found, = beam(model, source(3), max_lengths=limits(6), beam_size=beam_size, length_penalty=length_penalty,
                  n_best=beam_size, **SPECIALS)
    assert 1 <= len(found) <= beam_size
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert len({tuple(h.ids) for h in found}) == len(found)
    for h in found:
        ids = h.ids if len(h.ids) == 6 else [*h.ids, EOS]
        assert h.log_prob == pytest.approx(log_prob(model, 3, ids), abs=1e-9)
        assert h.score == pytest.approx(h.log_prob / ((5 + len(ids)) / 6) ** length_penalty, abs=1e-9)


def test_pad_and_bos_are_never_chosen_and_their_share_is_not_redistributed() -> None:
    model = Toy(5, 0)
    model.table[..., [PAD, BOS]] += 20.0
    bounds = limits(4)
    found, = beam(model, source(0), max_lengths=bounds, beam_size=3, length_penalty=1.0, **SPECIALS)
    assert found[0].log_prob < -10
    drawn = [sample(model, source(0), max_lengths=bounds, seeds=[seed], **SPECIALS)[0] for seed in range(20)]
    for ids in [found[0].ids, *drawn, *greedy(model, source(0), max_lengths=bounds, **SPECIALS)]:
        assert not {PAD, BOS, EOS} & set(ids)


def test_a_limit_cuts_and_eos_ends() -> None:
    never, at_once = Toy(5, 1, eos_bonus=-50.0), Toy(5, 1, eos_bonus=50.0)
    for limit in (1, 2, 7):
        assert len(greedy(never, source(0), max_lengths=limits(limit), **SPECIALS)[0]) == limit
        cut, = beam(never, source(0), max_lengths=limits(limit), beam_size=3, length_penalty=1.0, **SPECIALS)
        assert len(cut[0].ids) == limit
        assert greedy(at_once, source(0), max_lengths=limits(limit), **SPECIALS) == [[]]
        ended, = beam(at_once, source(0), max_lengths=limits(limit), beam_size=3, length_penalty=1.0, **SPECIALS)
        assert ended[0].ids == []
    assert at_once.steps == 6  # EOS at once: one step a search


def test_a_longer_penalty_prefers_longer_outputs() -> None:
    model = Toy(6, 3, eos_bonus=1.5)
    src = source(*range(16))
    lengths = [sum(len(found[0].ids) for found in beam(model, src, max_lengths=limits(*[8] * 16), beam_size=4,
                                                       length_penalty=a, **SPECIALS)) for a in (0.0, 1.0, 4.0)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_finished_sentences_leave_the_batch() -> None:
    model = Toy(5, 1, eos_bonus=-50.0)
    bounds = limits(*range(1, 17))
    greedy(model, source(*range(16)), max_lengths=bounds, **SPECIALS)
    assert model.steps == 16
    assert model.rows < 16 * 16 * 0.65  # 16 * 17 / 2 is the least


@given(st.integers(1, 600).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_batch_shrinks_to_sizes_that_recur(numbers: tuple[int, int]) -> None:
    unfinished, sentences = numbers
    kept = _kept(unfinished, sentences)
    assert unfinished <= kept <= sentences
    assert kept == sentences or (kept <= unfinished * 9 / 8 and sentences - kept >= sentences / 8)
    assert kept in (sentences, 0) or kept >> max(0, kept.bit_length() - 5) << max(0, kept.bit_length() - 5) == kept
    assert (kept == 0) == (unfinished == 0)


def test_parents_that_stay_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[int]] = []
    reorder = DecodeState.reorder
    monkeypatch.setattr(DecodeState, "reorder", lambda self, rows: calls.append(rows.tolist()) or reorder(self, rows))
    model = Toy(6, 2, eos_bonus=-50.0)
    greedy(model, source(0, 1), max_lengths=limits(5, 5), **SPECIALS)
    beam(model, source(0, 1), max_lengths=limits(5, 5), beam_size=1, length_penalty=1.0, **SPECIALS)
    assert calls == []
    beam(model, source(0, 1), max_lengths=limits(5, 5), beam_size=2, length_penalty=1.0, **SPECIALS)
    assert calls
    assert all(rows != list(range(len(rows))) for rows in calls)


def test_samples_follow_the_model() -> None:
    model, size = Toy(6, 11, dtype=torch.float32), 20_000
    src = source(*[4] * size)
    for temperature, top_k in ((1.0, 0), (0.5, 0), (1.0, 2)):
        drawn = sample(model, src, max_lengths=limits(*[1] * size), temperature=temperature, top_k=top_k,
                       seeds=range(size), **SPECIALS)
        logits = model.table[4, 0, BOS].double().clone() / temperature
        logits[[PAD, BOS]] = -math.inf
        if top_k:
            logits[logits < logits.topk(top_k).values[-1]] = -math.inf
        for token, probability in enumerate(logits.softmax(-1).tolist()):
            share = sum(ids == ([] if token == EOS else [token]) for ids in drawn) / size
            assert share == pytest.approx(probability, abs=4 * (probability * (1 - probability) / size) ** 0.5 + 1e-9)


def test_samples_are_repeatable_and_top_1_is_greedy() -> None:
    model, bounds = Toy(7, 5), limits(*[9] * 8)
    src = source(*range(8))

    def draw(seed: int, **options: float) -> list[list[int]]:
        return sample(model, src, max_lengths=bounds, seeds=range(seed, seed + 8), **options, **SPECIALS)

    assert draw(10) == draw(10) != draw(20)
    assert draw(10, top_k=1) == greedy(model, src, max_lengths=bounds, **SPECIALS)


@pytest.mark.parametrize("wrong", [{"n_best": 3}, {"n_best": 0}, {"length_penalty": -1.0}, {"beam_size": 0},
                                   {"length_penalty": math.nan}, {"length_penalty": math.inf}])
def test_beam_refuses_what_has_no_meaning(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        beam(Toy(5, 0), source(0), max_lengths=limits(3),
             **{"beam_size": 2, "length_penalty": 1.0, **SPECIALS, **wrong})


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"temperature": math.nan}, {"temperature": math.inf},
                                   {"top_k": -1}])
def test_sample_refuses_what_has_no_meaning(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        sample(Toy(5, 0), source(0), max_lengths=limits(3), seeds=[0], **SPECIALS, **wrong)


def test_a_model_gone_nan_ends_at_the_limit() -> None:
    model = Toy(5, 0)
    model.table[:] = math.nan
    found = beam(model, source(0, 1), max_lengths=limits(3, 5), beam_size=2, length_penalty=1.0, **SPECIALS)
    assert len(found) == len(greedy(model, source(0, 1), max_lengths=limits(3, 5), **SPECIALS)) == 2
