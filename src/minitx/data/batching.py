"""The epoch plan: which rows train together, and which rank computes them.

- An epoch is a list of *updates* of about `tokens_per_update` target tokens; every row is in exactly one.
- Updates depend on seed, epoch and lengths alone, on neither the world size nor `max_tokens`.
- An update is split evenly into micro-batches of at most `max_tokens` padded positions, B * max(S, T), and into at
  least `min_micro_batches` of them, so that each rank has one.

Lengths count tokens with EOS throughout (BOS instead makes the same number). B rows, S and T padded widths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
import numpy.typing as npt

from minitx.utils.errors import Exit, UserError

Ints = npt.NDArray[np.int64]
JITTER = 0.75  # target tokens, either way: beyond 0.5, rows cross bucket borders and every epoch mixes anew


@dataclass(frozen=True, eq=False, slots=True)
class MicroBatch:
    """Rows that run through the model together."""

    rows: Ints


@dataclass(frozen=True, eq=False, slots=True)
class Update:
    """Micro-batches of one optimizer step, and its target tokens over all of them."""

    micro_batches: tuple[MicroBatch, ...]
    n_tokens: int


def epoch_plan(
    src_len: npt.ArrayLike, tgt_len: npt.ArrayLike, *, tokens_per_update: int, max_tokens: int, pad_to_multiple: int,
    seed: int, epoch: int, window: int = 0, min_micro_batches: int = 1,
) -> list[Update]:
    """Plan one epoch over rows of the given lengths: all rows, or those of one window of a text.

    min_micro_batches: of each update; one of fewer rows has one a row. Errors: as in `check_width`.
    """
    src, tgt = np.asarray(src_len, np.int64), np.asarray(tgt_len, np.int64)
    width = _padded(np.maximum(src, tgt), pad_to_multiple)
    check_width(int(width.max(initial=0)), max_tokens, pad_to_multiple)
    n_updates = count_updates(len(tgt), int(tgt.sum()), tokens_per_update)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, window))))
    order = _bucketed(src, tgt, n_updates, rng)
    starts = _equal_cuts(tgt[order], n_updates)
    order = _sort_within(order, starts, width)
    groups = _split(width[order], starts, max_tokens, min_micro_batches)
    n_tokens = np.add.reduceat(tgt[order], starts) if n_updates else starts
    return [
        Update(tuple(MicroBatch(order[a:b]) for a, b in zip(groups[i], groups[i][1:], strict=False)), int(n_tokens[i]))
        for i in rng.permutation(n_updates)
    ]


def check_width(longest: int, max_tokens: int, pad_to_multiple: int) -> None:
    """Refuse a row that is wider than a micro-batch may be. Errors: `UserError`"""
    if (width := -(-longest // pad_to_multiple) * pad_to_multiple) > max_tokens:
        raise UserError(f"data.max_tokens={max_tokens}: the longest pair takes {width} padded positions; "
                        "raise it to that, or lower data.max_length", Exit.DATA)


def count_updates(rows: int, tgt_tokens: int, tokens_per_update: int) -> int:
    """Return how many updates an epoch has: the same in every epoch, whatever the order."""
    return min(rows, max(1, round(tgt_tokens / tokens_per_update)))


def window_order(n_windows: int, seed: int, epoch: int) -> list[int]:
    """Return the order of a text's windows in an epoch."""
    return _shuffled(n_windows, seed, epoch, 1)


def windows_of(n_shards: int, shards: int, seed: int) -> list[list[int]]:
    """Group shards into windows of at most `shards`, the same in every epoch."""
    order = _shuffled(n_shards, seed, 0, 2)
    cuts = np.linspace(0, n_shards, ceil(n_shards / shards) + 1).round().astype(int)
    return [sorted(order[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]


def _shuffled(n: int, seed: int, epoch: int, purpose: int) -> list[int]:
    sequence = np.random.SeedSequence((seed, epoch), spawn_key=(purpose,))
    order: list[int] = np.random.Generator(np.random.PCG64(sequence)).permutation(n).tolist()
    return order


def _padded(length: Ints, multiple: int) -> Ints:
    padded: Ints = -(-length // multiple) * multiple
    return padded


def _bucketed(src: Ints, tgt: Ints, n_updates: int, rng: np.random.Generator) -> Ints:
    """Order rows so that neighbours are alike: target buckets of equal tokens, in each a snake over source length.

    sqrt(n_updates) buckets make an update about as narrow in one length as in the other.
    """
    order = rng.permutation(len(tgt))
    order = order[np.argsort(tgt[order] + rng.uniform(-JITTER, JITTER, len(tgt)), kind="stable")]
    tokens = np.cumsum(tgt[order])
    share = tokens / max(1, tokens[-1] if len(tokens) else 1)
    bucket = np.floor(share * ceil(sqrt(n_updates)) + rng.uniform())
    snake = np.where(bucket % 2, -src[order], src[order])
    ranked: Ints = order[np.lexsort((snake, bucket))]
    return ranked


def _equal_cuts(tgt: Ints, n_updates: int) -> Ints:
    """Return the first rows of `n_updates` non-empty runs whose token sums are as equal as cuts between rows allow.

    >>> _equal_cuts(np.array([5, 5, 2, 3, 5, 10, 4, 6]), 4)  # 5 + 5, 2 + 3 + 5, 10, 4 + 6: ten tokens each
    array([0, 2, 5, 6])
    """
    k = np.arange(n_updates)
    tokens = np.concatenate(([0], np.cumsum(tgt)))
    middles = (tokens[1:] + tokens[:-1]) / 2
    starts = np.searchsorted(middles, tokens[-1] * k / max(1, n_updates))
    starts = np.maximum.accumulate(starts - k) + k  # strictly rising, even where one row outweighs several updates
    inside: Ints = np.minimum(starts, len(tgt) - n_updates + k)
    return inside


def _sort_within(order: Ints, starts: Ints, width: Ints) -> Ints:
    """Sort each run of rows by width, keeping the runs."""
    run = np.zeros(len(order), np.int64)
    run[starts[1:]] = 1
    return order[np.lexsort((width[order], np.cumsum(run)))]


def _split(width: Ints, starts: Ints, max_tokens: int, at_least: int = 1) -> list[Ints]:
    """Return the borders of each run's micro-batches: the smallest power of two of them, or one a row, that fits.

    There are `at_least` so many, or one a row. Rows are sorted by width within each run: the last of n micro-batches is
    the widest, and has as many rows as any, ceil(rows / n). So n fit if that one does, and then more fit, too.

    Five rows of up to 12 tokens take 5 * 12 = 60 positions as one batch, 3 * 12 = 36 as the wider of two, and
    2 * 12 = 24 as the widest of four; the other two rows take 2 * 8 = 16 as one.

    >>> rows = {"width": np.array([4, 4, 8, 8, 12, 4, 8]), "starts": np.array([0, 5]), "max_tokens": 24}
    >>> _split(**rows)
    [array([0, 1, 2, 3, 5]), array([5, 7])]
    >>> _split(**rows, at_least=3)
    [array([0, 1, 2, 3, 5]), array([5, 6, 7])]
    """
    sizes = np.diff(np.append(starts, len(width)))
    rows_that_fit = max_tokens // width[starts + sizes - 1]
    fewest = -(-sizes // rows_that_fit)
    power_of_two = 1 << np.frexp(fewest - 1)[1].astype(np.int64)  # frexp has the number of a whole number's bits
    n_micro = np.minimum(np.maximum(power_of_two, at_least), sizes)
    return [start + np.arange(n + 1) * size // n for start, size, n in zip(starts, sizes, n_micro, strict=True)]


def deal(update: Update, rank: int, world_size: int) -> list[tuple[int, float]]:
    """Return the indices and weights of this rank's micro-batches; every rank gets the same number.

    A rank without one in the last round runs that round's first with weight 0: collectives need its backward pass.
    """
    n = len(update.micro_batches)
    return [(i + rank, 1.0) if i + rank < n else (i, 0.0) for i in range(0, n, world_size)]


def idle_share(plan: Sequence[Update], world_size: int) -> float:
    """Return the share of the ranks' turns that have weight 0."""
    busy = sum(len(update.micro_batches) for update in plan)
    turns = sum(ceil(len(update.micro_batches) / world_size) * world_size for update in plan)
    return 1 - busy / turns


def shapes(plan: Sequence[Update], src_len: npt.ArrayLike, tgt_len: npt.ArrayLike, pad_to_multiple: int) -> Ints:
    """Return (B, S, T) of every micro-batch, one a row."""
    src, tgt = np.asarray(src_len, np.int64), np.asarray(tgt_len, np.int64)
    batches = [batch.rows for update in plan for batch in update.micro_batches]
    rows, sizes = np.concatenate(batches), np.array([len(batch) for batch in batches])
    starts = np.cumsum(sizes) - sizes
    widths = [_padded(np.maximum.reduceat(length[rows], starts), pad_to_multiple) for length in (src, tgt)]
    return np.stack((sizes, *widths), axis=1)


def padding_efficiency(
    plan: Sequence[Update], src_len: npt.ArrayLike, tgt_len: npt.ArrayLike, pad_to_multiple: int
) -> float:
    """Return real source and target tokens over padded positions, B * (S + T)."""
    size, s, t = shapes(plan, src_len, tgt_len, pad_to_multiple).T
    return float((np.sum(src_len) + np.sum(tgt_len)) / (size * (s + t)).sum())


def evaluation_plan(src_len: npt.ArrayLike, max_tokens: int) -> list[Ints]:
    """Batch every index once, longest source first, B * S <= `max_tokens` (a longer row is alone in its batch)."""
    src = np.asarray(src_len, np.int64)
    order = np.argsort(-src, kind="stable")
    batches, first = [], 0
    while first < len(order):
        size = max(1, max_tokens // max(1, int(src[order[first]])))
        batches.append(order[first : first + size])
        first += size
    return batches
