"""The epoch plan's promises, on lengths of any kind."""

import doctest

import numpy as np
import pytest
from data.conftest import bytecodes, needs_data
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data import batching
from minitx.data.batching import Update, deal, epoch_plan, evaluation_plan, idle_share, padding_efficiency, shapes
from minitx.utils.errors import UserError

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=120)
SETTINGS = st.fixed_dictionaries({
    "tokens_per_update": st.integers(1, 400), "max_tokens": st.integers(40, 300),
    "pad_to_multiple": st.sampled_from([1, 2, 4, 8]), "seed": st.integers(0, 2**32), "epoch": st.integers(0, 5),
})


def lengths(pairs):
    return np.array(pairs, np.int64).T


def rows(update: Update) -> list[int]:
    return sorted(int(row) for batch in update.micro_batches for row in batch.rows)


def captions(n: int, seed: int = 0):
    """Draw lengths distributed about as captions are: mean 16, correlated sides."""
    rng = np.random.default_rng(seed)
    src = np.clip(rng.gamma(9, 1.8, n), 4, 80)
    return src.astype(np.int64), np.clip(src * rng.normal(1, 0.18, n), 3, 90).astype(np.int64)


@given(LENGTHS, SETTINGS)
@settings(max_examples=150, deadline=None)
def test_every_row_once_and_no_micro_batch_too_large(pairs, kw):
    src, tgt = lengths(pairs)
    plan = epoch_plan(src, tgt, **kw)
    assert sorted(row for update in plan for row in rows(update)) == list(range(len(src)))
    assert len(plan) == min(len(tgt), max(1, round(tgt.sum() / kw["tokens_per_update"])))
    for update in plan:
        assert update.n_tokens == tgt[rows(update)].sum()
        sizes = [len(batch.rows) for batch in update.micro_batches]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1
        n_micro = len(sizes)
        assert n_micro == sum(sizes) or n_micro & (n_micro - 1) == 0
    size, s, t = shapes(plan, src, tgt, kw["pad_to_multiple"]).T
    assert (size * np.maximum(s, t)).max() <= kw["max_tokens"]
    assert (s % kw["pad_to_multiple"] == 0).all()
    assert 0 < padding_efficiency(plan, src, tgt, kw["pad_to_multiple"]) <= 1


@given(LENGTHS, SETTINGS)
@settings(max_examples=80, deadline=None)
def test_micro_batches_are_the_fewest_powers_of_two_that_fit(pairs, kw):
    src, tgt = lengths(pairs)
    multiple = kw["pad_to_multiple"]
    width = -(-np.maximum(src, tgt) // multiple) * multiple
    for update in epoch_plan(src, tgt, **kw):
        n_micro, ordered = len(update.micro_batches), np.concatenate([batch.rows for batch in update.micro_batches])
        assert (np.diff(width[ordered]) >= 0).all()
        fewer = n_micro // 2 if n_micro & (n_micro - 1) == 0 else 2 ** (n_micro.bit_length() - 1)
        if fewer:
            cuts = [i * len(ordered) // fewer for i in range(fewer + 1)]
            positions = [(b - a) * width[ordered[a:b]].max() for a, b in zip(cuts, cuts[1:], strict=False)]
            assert max(positions) > kw["max_tokens"]


def searched(update: Update, width, max_tokens: int) -> int:
    """Find how many micro-batches of an update fit by trying one power of two after another."""
    ordered, m = np.concatenate([batch.rows for batch in update.micro_batches]), 1
    while True:
        n = min(m, len(ordered))
        cuts = [i * len(ordered) // n for i in range(n + 1)]
        if max((b - a) * width[ordered[a:b]].max() for a, b in zip(cuts, cuts[1:], strict=False)) <= max_tokens:
            return n
        m *= 2


@given(LENGTHS, SETTINGS, st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_an_update_has_as_many_micro_batches_as_fit_in_memory_and_one_for_each_rank(pairs, kw, ranks):
    src, tgt = lengths(pairs)
    width = -(-np.maximum(src, tgt) // kw["pad_to_multiple"]) * kw["pad_to_multiple"]
    alone, shared = epoch_plan(src, tgt, **kw), epoch_plan(src, tgt, **kw, min_micro_batches=ranks)
    for one, several in zip(alone, shared, strict=True):
        fit, n = searched(one, width, kw["max_tokens"]), len(rows(one))
        assert [len(batch.rows) for batch in one.micro_batches] == [
            (i + 1) * n // fit - i * n // fit for i in range(fit)]
        assert len(several.micro_batches) == min(n, max(fit, ranks))
        assert max(len(batch.rows) * width[batch.rows].max() for batch in several.micro_batches) <= kw["max_tokens"]
        assert several.n_tokens == one.n_tokens
        assert [row for batch in several.micro_batches for row in batch.rows] == [
            row for batch in one.micro_batches for row in batch.rows], "the same rows in the same order, cut elsewhere"
        if fit >= ranks:
            assert [batch.rows.tolist() for batch in several.micro_batches] == [
                batch.rows.tolist() for batch in one.micro_batches], "ranks change nothing that memory decides"


@given(LENGTHS, SETTINGS, st.integers(40, 400))
@settings(max_examples=80, deadline=None)
def test_updates_do_not_depend_on_max_tokens(pairs, kw, other):
    src, tgt = lengths(pairs)
    here, there = epoch_plan(src, tgt, **kw), epoch_plan(src, tgt, **{**kw, "max_tokens": other})
    assert [(rows(u), u.n_tokens) for u in here] == [(rows(u), u.n_tokens) for u in there]


@given(LENGTHS, SETTINGS, st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_deal_covers_every_micro_batch_once_in_equal_rounds(pairs, kw, world_size):
    src, tgt = lengths(pairs)
    plan = epoch_plan(src, tgt, **kw, min_micro_batches=world_size)
    idle = turns = 0
    for update in plan:
        hands = [deal(update, rank, world_size) for rank in range(world_size)]
        assert len({len(hand) for hand in hands}) == 1
        in_order = [index for turn in zip(*hands, strict=True) for index, weight in turn if weight == 1.0]
        assert in_order == list(range(len(update.micro_batches)))
        for turn in zip(*hands, strict=True):
            assert all(index == turn[0][0] for index, weight in turn if weight == 0.0)
            idle += sum(weight == 0.0 for _, weight in turn)
            turns += len(turn)
    assert idle_share(plan, world_size) == pytest.approx(idle / turns)


@given(LENGTHS, SETTINGS, st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_every_row_counts_once_in_an_epoch_whatever_the_world(pairs, kw, world_size):
    src, tgt = lengths(pairs)
    plan = epoch_plan(src, tgt, **kw, min_micro_batches=world_size)
    counted = [int(row) for update in plan for rank in range(world_size)
               for index, weight in deal(update, rank, world_size) if weight
               for row in update.micro_batches[index].rows]
    assert sorted(counted) == list(range(len(src)))
    alone = [(rows(update), update.n_tokens) for update in epoch_plan(src, tgt, **kw)]
    assert [(rows(update), update.n_tokens) for update in plan] == alone  # the same again, from the same numbers


def test_updates_are_alike_in_tokens():
    src, tgt = captions(5_000)
    plan = epoch_plan(src, tgt, tokens_per_update=2048, max_tokens=1024, pad_to_multiple=1, seed=1, epoch=0)
    sizes = np.array([update.n_tokens for update in plan])
    assert abs(sizes - tgt.sum() / len(plan)).max() <= tgt.max()


def test_a_row_that_outweighs_several_updates_leaves_none_empty():
    tgt = np.array([100, 1, 1, 1, 1, 1])
    plan = epoch_plan(tgt, tgt, tokens_per_update=20, max_tokens=100, pad_to_multiple=1, seed=0, epoch=0)
    assert len(plan) == 5
    assert all(rows(update) for update in plan)


def test_the_order_is_seeded_and_new_each_epoch():
    src, tgt = captions(1_000)

    def updates(seed, epoch):
        plan = epoch_plan(src, tgt, tokens_per_update=500, max_tokens=500, pad_to_multiple=1, seed=seed, epoch=epoch)
        return [tuple(rows(update)) for update in plan]

    assert updates(1, 0) == updates(1, 0)
    for other in (updates(1, 1), updates(2, 0)):
        assert len(other) == len(updates(1, 0))
        assert len(set(other) & set(updates(1, 0))) <= 1  # composition differs, not only order


def test_the_order_is_the_same_on_any_machine_and_in_any_version():
    """A resumed run relies on it: a change here needs a new format of checkpoints."""
    src, tgt = np.arange(24) * 7 % 11 + 2, np.arange(24) * 5 % 13 + 2
    plan = epoch_plan(src, tgt, tokens_per_update=50, max_tokens=40, pad_to_multiple=1, seed=1, epoch=2)
    assert [[batch.rows.tolist() for batch in update.micro_batches] for update in plan] == [
        [[1, 4], [12, 20, 7]],
        [[15, 10], [23, 18]],
        [[0, 8], [16, 13, 21], [9, 6], [17, 3, 14]],
        [[11], [19], [22], [2, 5]],
    ]


def test_a_row_that_fits_nowhere_is_refused():
    with pytest.raises(UserError, match=r"data.max_tokens=60: the longest pair takes 64 padded positions"):
        epoch_plan([57, 3], [5, 5], tokens_per_update=10, max_tokens=60, pad_to_multiple=8, seed=0, epoch=0)


def test_buckets_waste_little():
    src, tgt = captions(20_000)
    plan = epoch_plan(src, tgt, tokens_per_update=4096, max_tokens=3072, pad_to_multiple=1, seed=1, epoch=0)
    assert padding_efficiency(plan, src, tgt, 1) > 0.93
    assert min(len(update.micro_batches) for update in plan) >= 2


def test_the_examples_in_docstrings_are_true():
    assert doctest.testmod(batching) == (0, 4)


def test_planning_does_no_work_in_python_row_by_row():
    kw = {"pad_to_multiple": 4, "seed": 1, "epoch": 0}
    few, many = (bytecodes(epoch_plan, *captions(n), tokens_per_update=4 * n, max_tokens=3 * n, **kw)
                 for n in (300, 30_000))
    assert many < 1.2 * few


@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 200))
@settings(max_examples=80, deadline=None)
def test_evaluation_covers_every_index_once(src, max_tokens):
    batches = evaluation_plan(src, max_tokens)
    assert sorted(int(row) for batch in batches for row in batch) == list(range(len(src)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(src[row] for row in batch) <= max_tokens
    widths = [src[row] for batch in batches for row in batch]
    assert widths == sorted(widths, reverse=True)


@needs_data
def test_multi30k_shapes(multi30k_split):
    src, tgt = multi30k_split.src_len, multi30k_split.tgt_len
    found = {}
    for multiple in (1, 2, 4, 8):
        plan = epoch_plan(src, tgt, tokens_per_update=4096, max_tokens=3072, pad_to_multiple=multiple, seed=1, epoch=0)
        widths = np.unique(shapes(plan, src, tgt, multiple)[:, 1:], axis=0)
        found[multiple] = padding_efficiency(plan, src, tgt, multiple), len(widths)
        assert min(len(update.micro_batches) for update in plan) >= 2
    efficiency, widths = zip(*(found[multiple] for multiple in (1, 2, 4, 8)), strict=True)
    assert efficiency[0] > 0.95
    assert efficiency[2] > 0.86
    assert list(widths) == sorted(widths, reverse=True)
    assert widths[3] <= 20

